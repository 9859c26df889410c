"""OpenCLIPEncoder: pictures and texts through a CLIP model of the open_clip library."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from flowalign.encoders.backbone import content_hash
from flowalign.encoders.cells import listed
from flowalign.encoders.loading import (
    TorchBackbone,
    TorchEncoder,
    drawn_from,
    fingerprint,
    has_no_weights,
    loading,
    once_per_process,
    require,
    unit_rows_of,
)
from flowalign.encoders.pictures import doubt, random_crop, read_picture, without_ends
from flowalign.prompts import IMAGE_TEMPLATES

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

# Part of the keys of the feature cache: change it when `read_picture` or `random_crop` change.
PREPROCESSING = "upright, on white; crops 1"


class OpenCLIPEncoder(TorchEncoder):
    """Encode pictures, and texts into the same space, with a CLIP model of open_clip [1]_ [2]_.

    Parameters
    ----------
    model_name : str, default="ViT-B-32"
        As for open_clip: the name of an architecture; ``"hf-hub:org/name"``; or
        ``"local-dir:path"`` for a folder with ``open_clip_config.json`` and weights.
    pretrained : str or None, default=None
        As for open_clip: the tag of published weights (``"laion2b_s34b_b79k"``; see
        ``open_clip.list_pretrained()``) or the path of a checkpoint. With None, an architecture has
        **random** weights drawn from `random_state`, good for tests only. ``hf-hub:`` and
        ``local-dir:`` names bring their own weights and take None. A folder without a checkpoint
        has random weights too.
    device : str or torch.device, default="auto"
        Where the model runs, always in float32. ``"auto"`` takes cuda, then mps, then cpu.
    batch_size : int, default=64
        Pictures, or texts, in one pass through the model.
    n_views : int, default=1
        Views of each picture. The first is the whole picture. The others are random crops of half
        of its area or more, mirrored at random. A picture always has the same crops.
        `transform` averages the views of a picture; ``encode(..., views="stack")`` does not.
    missing : {"error", "nan"}, default="error"
        What becomes of pictures that are missing (None, NaN, NA, an empty string or list): an error
        that names the place, or a row of NaN. A path that does not exist is always an error, since
        it is most often misspelt.
    cache : str, path or None, default=None
        A folder in which features are kept; None keeps nothing. The same content is encoded once,
        under any name and in any process.
    random_state : int, default=0
        Seeds random weights, and the crops.
    verbose : int, default=0
        Above 0, shows a progress bar.

    Notes
    -----
    Rows have length 1. Pictures are paths, PIL images or uint8 arrays of shape (height, width, 3),
    with a fourth channel for transparency, or (height, width) for grey. For many pictures give
    paths, since a decoded PIL image stays in memory. Pictures are turned upright as their EXIF data
    say. Transparent parts are put on white. Grey of 16 bits is scaled to 8, with a warning if it
    comes out nearly black. Then comes the preprocessing that the model was trained with. The
    tokenizer cuts texts longer than the model's context.

    One place of X may hold a list of several pictures, such as frames of a video or views of one
    thing. Its row is the mean of their rows, scaled to length 1. These rows have length 1, so each
    picture counts alike. The cache keeps each picture by itself.

    Weights are loaded when first needed, once per process. Pickles do not hold them, and clones
    share them.

    References
    ----------
    .. [1] A. Radford et al., "Learning Transferable Visual Models From Natural Language
       Supervision", ICML 2021. https://arxiv.org/abs/2103.00020
    .. [2] G. Ilharco et al., "OpenCLIP", 2021. https://doi.org/10.5281/zenodo.5143773

    Examples
    --------
    >>> from flowalign.encoders import OpenCLIPEncoder
    >>> encoder = OpenCLIPEncoder("ViT-B-32", "laion2b_s34b_b79k", cache="features")
    >>> text = encoder.class_embeddings(["cat", "dog"])  # doctest: +SKIP
    >>> X = encoder.transform(["tom.jpg", "rex.jpg"])  # doctest: +SKIP
    """

    _kind: ClassVar[str] = "picture"
    _templates: ClassVar[tuple[str, ...]] = IMAGE_TEMPLATES

    def __init__(
        self,
        model_name: str = "ViT-B-32",
        pretrained: str | None = None,
        *,
        device: str | torch.device = "auto",
        batch_size: int = 64,
        n_views: int = 1,
        missing: str = "error",
        cache: str | os.PathLike[str] | None = None,
        random_state: int = 0,
        verbose: int = 0,
    ) -> None:
        self.model_name = model_name
        self.pretrained = pretrained
        self.device = device
        self.batch_size = batch_size
        self.n_views = n_views
        self.missing = missing
        self.cache = cache
        self.random_state = random_state
        self.verbose = verbose

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.pretrained is not None and brings_weights(self.model_name):
            raise ValueError(
                f"pretrained={self.pretrained!r} cannot go with model_name={self.model_name!r}, "
                "which brings its own weights; leave one of them out."
            )

    def _is_single(self, values: Any) -> bool:
        return isinstance(values, np.ndarray) and values.ndim == 3 and values.shape[2] in (3, 4)

    def _parts(self, item: Any) -> list[Any] | None:
        return listed(item)  # no picture is a list

    def _folder(self) -> str:
        return str(self.model_name).removeprefix("local-dir:")

    def _draws_weights(self) -> bool:
        name = str(self.model_name)
        if self._folder() != name:
            return has_no_weights(self._folder())
        return self.pretrained is None and not brings_weights(name)

    def _places(self) -> tuple[str, ...]:
        local = []
        if self._folder() != str(self.model_name):
            local.append("model_name")
        if self.pretrained is not None and not is_published(self.model_name, self.pretrained):
            local.append("pretrained")
        return tuple(local)

    def _plain(self, name: str) -> str:
        return str(name) if brings_weights(name) else str(name).replace("/", "-")

    def _load(self) -> _CLIP:
        loaded = _load(*self._source(self._folder(), drawn=self._draws_weights()))
        return replace(loaded, crop_seed=self.random_state)


def brings_weights(model_name: str) -> bool:
    """Whether a name is that of a folder or of a hub's repository, which have weights."""
    return str(model_name).startswith(("local-dir:", "hf-hub:"))


def is_published(model_name: str, pretrained: str) -> bool:
    """Whether open_clip itself lists these weights of an architecture; no hub is asked."""
    model = str(model_name).replace("/", "-")
    tags = require("open_clip", "clip").list_pretrained_tags_by_model(model)
    return str(pretrained).lower().replace("-", "_") in tags


def usual_weights(model_name: str) -> str | None:
    """Return the weights that commands take by default, since None would be random weights."""
    return None if brings_weights(model_name) else "openai"


@dataclass(frozen=True)
class _CLIP(TorchBackbone):
    """A loaded model of open_clip."""

    preprocess: Callable[[Image], torch.Tensor]
    crop_seed: int = 0

    def digest(self, item: Any) -> str:
        """Return the hash of the pixels of a picture."""
        return super().digest(np.asarray(read_picture(item)))

    def key(self, content: str, number: int, n_views: int) -> str:
        """Return the content itself for the whole picture, and with number and seed for a crop."""
        return content if number == 0 else f"{content} crop {number} of seed {self.crop_seed}"

    def prepare(self, item: Any, numbers: Sequence[int], n_views: int) -> list[torch.Tensor]:
        """Return preprocessed pixels, each (3, height, width)."""
        picture = read_picture(item)
        # The seed depends on the content, not on the position, so a picture always has its crops.
        seed = [self.crop_seed, *hashlib.sha256(picture.tobytes()).digest()] if any(numbers) else []
        crops = (random_crop(picture, np.random.default_rng([*seed, k])) for k in numbers if k)
        plain = [picture] if 0 in numbers else []
        return [self.preprocess(view) for view in (*plain, *crops)]

    def doubt(self, item: Any) -> str | None:
        """Return why a picture may come out nearly black."""
        return doubt(item)

    @torch.inference_mode()
    def forward(self, inputs: list[torch.Tensor]) -> NDArray[np.float32]:
        """Return the embeddings of pictures, of length 1."""
        return unit_rows_of(self.model.encode_image(self.batch(inputs)))

    @torch.inference_mode()
    def forward_text(self, inputs: list[torch.Tensor]) -> NDArray[np.float32]:
        """Return the embeddings of texts, of length 1."""
        return unit_rows_of(self.model.encode_text(self.batch(inputs)))

    def tokenize(self, texts: list[str]) -> tuple[list[torch.Tensor], list[str]]:
        """Return tokens and their hashes. The cache knows a text by its tokens."""
        tokens = self.tokenizer(texts)
        return [*tokens], [content_hash(row.numpy().tobytes()) for row in tokens]


@once_per_process
def _load(
    model_name: str, pretrained: str | None, device: torch.device, seed: int | None, _stamps: Any
) -> _CLIP:
    open_clip = require("open_clip", "clip")
    architecture = model_name if ":" in model_name else model_name.replace("/", "-")
    # Some weights were trained with another activation than the usual one of the architecture.
    trained = open_clip.get_pretrained_cfg(architecture, pretrained) if pretrained else {}
    options = {"force_quick_gelu": bool(trained.get("quick_gelu")), "pretrained_text": False}
    with loading(model_name, pretrained):
        if seed is None:
            model = open_clip.create_model(
                model_name, pretrained, require_pretrained=True, **options
            )
        else:
            with drawn_from(seed, model_name):
                model = open_clip.create_model(model_name, load_weights=False, **options)
        tokenizer = open_clip.get_tokenizer(model_name)
        configuration = open_clip.get_model_config(architecture)
    preprocessing = open_clip.transform.PreprocessCfg(**model.visual.preprocess_cfg)
    preprocess = open_clip.transform.image_transform_v2(preprocessing, is_train=False)
    if preprocessing.resize_mode == "shortest":  # followed by a crop of the middle
        preprocess.transforms.insert(0, without_ends)
    identity = fingerprint(model, configuration)
    return _CLIP(
        name=" ".join(filter(None, ["open_clip", model_name, pretrained])),
        model=model.eval().to(device),
        preprocess=preprocess,
        tokenizer=tokenizer,
        device=device,
        identity={**identity, "preprocessing": f"{PREPROCESSING} {preprocessing}"},
    )
