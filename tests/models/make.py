"""Writes the models of the current format: ``python tests/models/make.py``, once for each format.

Never run it again for a format that was released: the files show that old ones open. That of the
closed form names an encoder, which made none of its features.
"""

from pathlib import Path

import numpy as np

from flowalign import FlowMatchingAligner, save
from flowalign.persistence.file_format import FORMAT, pack, read

FOLDER = Path(__file__).parent
ENCODER = {
    "kind": "open_clip",
    "params": {
        "n_views": 1,
        "random_state": 0,
        "model_name": "ViT-B-32",
        "pretrained": "openai",
    },
    "local": [],
    "identity": dict.fromkeys(("architecture", "preprocessing", "weights"), 64 * "0"),
}
rng = np.random.default_rng(0)
y = np.repeat(["ant", "bee", "cat"], 4)
E = {name: rng.standard_normal(5) for name in ("ant", "bee", "cat")}
X = rng.standard_normal((3, 6))[np.repeat(np.arange(3), 4)] + 0.5 * rng.standard_normal((12, 6))
for field in ("gaussian", "mlp"):
    model = FlowMatchingAligner(
        E, velocity_field=field, n_blocks=1, hidden_dim=8, max_iter=5, random_state=0
    ).fit(X, y)
    path = FOLDER / f"{field}_format_{FORMAT}.safetensors"
    save(model, path)
    if field == "gaussian":
        header, arrays, _ = read(path)
        path.write_bytes(pack(header | {"encoder": ENCODER}, arrays))
    new = rng.standard_normal((5, 6))
    np.savez(FOLDER / f"{field}_format_{FORMAT}.npz", X=new, proba=model.predict_proba(new))
