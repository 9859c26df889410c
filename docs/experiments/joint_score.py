"""Shows the alignment score of joint and of unrelated spaces, the evidence for ``joint="auto"``.

    python docs/experiments/joint_score.py FOLDER

For every feature set in FOLDER (see ``feature_sets.py``), with 2, 5 and all classes and 1 or 16
samples each, the lowest and the highest score over 20 draws from the training data: of the class
embeddings as they are where the widths are equal, of the same after a random rotation, and, where
they are narrower than the features, of the embeddings padded with zeros.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import feature_sets
import numpy as np
from scipy.stats import ortho_group

from flowalign.spaces import alignment_score
from flowalign.sphere import unit_rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    for path in sorted(parser.parse_args().folder.glob("*.npz")):
        X, y, table, *_ = feature_sets.load(path)
        X, E = unit_rows(X, "X"), unit_rows(table.vectors, "class_embeddings")
        d, e = X.shape[1], E.shape[1]
        if e > d:
            continue
        rng = np.random.default_rng(0)
        rotation = ortho_group.rvs(d, random_state=0) if e == d else None
        for n_classes in (2, 5, len(E)):
            for n_shots in (1, 16):
                scores = []
                for _ in range(20):
                    chosen = rng.permutation(len(E))[:n_classes]
                    rows = [rng.permutation(np.flatnonzero(y == c))[:n_shots] for c in chosen]
                    M = np.stack([X[r].mean(axis=0) for r in rows])
                    given = np.pad(E[chosen], ((0, 0), (0, d - e)))
                    turned = given if rotation is None else given @ rotation
                    scores.append([alignment_score(given, M), alignment_score(turned, M)])
                low, high = np.min(scores, axis=0), np.max(scores, axis=0)
                line = f"{path.stem}, {n_classes} classes, {n_shots} shots: "
                if rotation is None:
                    line += f"padded {low[0]:.1f} to {high[0]:.1f}"
                else:
                    line += f"joint {low[0]:.1f} to {high[0]:.1f}, "
                    line += f"rotated {low[1]:.1f} to {high[1]:.1f}"
                print(line, flush=True)


if __name__ == "__main__":
    main()
