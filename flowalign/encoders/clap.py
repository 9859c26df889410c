"""ClapEncoder: sounds and texts through a CLAP model of the transformers library."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from flowalign.encoders.backbone import content_hash, is_path
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
from flowalign.encoders.sounds import is_pair, read_window, samples_and_rate
from flowalign.parameters import integer
from flowalign.prompts import AUDIO_TEMPLATES

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Entries of a configuration that name a version or a place. Features do not depend on them.
NAMES_ONLY = {"transformers_version", "_name_or_path", "architectures", "dtype", "torch_dtype"}

# Part of the keys of the feature cache: change it when `read_window` changes.
PREPROCESSING = "mean of channels; windows 1"


class ClapEncoder(TorchEncoder):
    """Encode sounds, and texts into the same space, with a CLAP model of transformers [1]_.

    Parameters
    ----------
    model_name : str, default="laion/clap-htsat-unfused"
        A repository of the hub, or a folder with a model, its feature extractor and its tokenizer,
        as for transformers.
    pretrained : str or None, default=None
        A repository or folder whose weights replace those of `model_name`. If `model_name` is a
        folder with a configuration and no weights, the weights are **random**, drawn from
        `random_state`, and good for tests only.
    device : str or torch.device, default="auto"
        Where the model runs, always in float32. ``"auto"`` takes cuda, then mps, then cpu.
    batch_size : int, default=32
        Sounds, or texts, in one pass through the model.
    n_views : int, default=1
        Views of each sound: windows of the length that the model takes (10 s), evenly spaced from
        beginning to end. A single window lies in the middle. `transform` averages the views of a
        sound; ``encode(..., views="stack")`` does not.
    sampling_rate : int, default=48000
        The rate of sounds given as arrays without a rate, in Hz. Files have their own rate.
    missing : {"error", "nan"}, default="error"
        What becomes of sounds that are missing (None, NaN, NA, an empty string or list): an error
        that names the place, or a row of NaN. A path that does not exist is always an error, since
        it is most often misspelt.
    cache : str, path or None, default=None
        A folder in which features are kept; None keeps nothing. The same content is encoded once,
        under any name and in any process.
    random_state : int, default=0
        Seeds random weights.
    verbose : int, default=0
        Above 0, shows a progress bar.

    Notes
    -----
    Rows have length 1. Sounds are paths of files that libsndfile reads (WAV, FLAC, OGG, MP3), or
    arrays or tensors of floats of shape (frames,), (frames, channels) or (channels, frames). A
    sound with its own rate is a pair, ``(array, rate)`` or ``(rate, array)``, or, as in the
    datasets library, a dict ``{"array": array, "sampling_rate": rate}``. Full scale is 1. Samples
    that exceed it by 20 dB are refused, and so are whole numbers beyond it: they are integers that
    were never scaled. Channels are averaged, and any sampling rate is converted to that of the
    model. A sound shorter than the model's window is repeated, as in the model's training. Texts
    longer than the model's context are cut.

    The feature extractor of transformers crops long sounds at random. For models with feature
    fusion it also declares a random sound of each batch to be long. Here every window has a fixed
    position and no sound is long, so that the features of a sound depend on that sound alone.

    One place of X may hold a list of paths of several sounds. Its row is the mean of their rows,
    scaled to length 1. These rows have length 1, so each sound counts alike. The cache keeps each
    sound by itself.

    Weights are loaded when first needed, once per process. Pickles do not hold them, and clones
    share them.

    References
    ----------
    .. [1] Y. Wu et al., "Large-Scale Contrastive Language-Audio Pretraining with Feature Fusion and
       Keyword-to-Caption Augmentation", ICASSP 2023. https://arxiv.org/abs/2211.06687

    Examples
    --------
    >>> from flowalign.encoders import ClapEncoder
    >>> encoder = ClapEncoder(cache="features")
    >>> text = encoder.class_embeddings(["rooster", "rain"])  # doctest: +SKIP
    >>> X = encoder.transform(["morning.wav", "window.flac"])  # doctest: +SKIP
    """

    _kind: ClassVar[str] = "sound"
    _templates: ClassVar[tuple[str, ...]] = AUDIO_TEMPLATES

    def __init__(
        self,
        model_name: str = "laion/clap-htsat-unfused",
        pretrained: str | None = None,
        *,
        device: str | torch.device = "auto",
        batch_size: int = 32,
        n_views: int = 1,
        sampling_rate: int = 48_000,
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
        self.sampling_rate = sampling_rate
        self.missing = missing
        self.cache = cache
        self.random_state = random_state
        self.verbose = verbose

    def _check_parameters(self) -> None:
        super()._check_parameters()
        integer("sampling_rate", self.sampling_rate, low=1)

    def _is_single(self, values: Any) -> bool:
        is_array = isinstance(values, np.ndarray | torch.Tensor) and values.ndim == 2
        return is_pair(values) or (is_array and values.shape[1] <= 8)

    def _items(self, X: Any) -> list[Any]:
        # NumPy makes a table of objects out of pairs, and out of sounds of equal length.
        if isinstance(X, np.ndarray) and X.dtype == object and X.ndim == 2 and X.shape[1] > 1:
            X = [tuple(row) for row in X]
        return super()._items(X)

    def _parts(self, item: Any) -> list[Any] | None:
        parts = listed(item)
        # A list that has no paths is one sound: samples, with or without their rate.
        if parts and not any(part is None or is_path(part) for part in parts):
            return None
        return parts

    def _draws_weights(self) -> bool:
        return self.pretrained is None and has_no_weights(str(self.model_name))

    def _places(self) -> tuple[str, ...]:
        values = {"model_name": self.model_name, "pretrained": self.pretrained}
        return tuple(k for k, v in values.items() if v is not None and os.path.isdir(v))

    def _load(self) -> _CLAP:
        loaded = _load(*self._source(str(self.model_name), drawn=self._draws_weights()))
        return replace(loaded, array_rate=self.sampling_rate)


@dataclass(frozen=True)
class _CLAP(TorchBackbone):
    """A loaded model of transformers."""

    extractor: Any
    array_rate: int = 48_000

    def digest(self, item: Any) -> str:
        """Return the hash of samples and their rate."""
        if isinstance(item, bytes):
            return super().digest(item)
        samples, rate = samples_and_rate(item, self.array_rate)
        return f"{super().digest(samples)} at {rate} Hz"

    def prepare(self, item: Any, numbers: Sequence[int], n_views: int) -> list[torch.Tensor]:
        """Return log-mel spectrograms, each (channels, frames, bands)."""
        rate = self.extractor.sampling_rate
        spectrograms = []
        for number in numbers:
            samples = read_window(
                item,
                rate=rate,
                array_rate=self.array_rate,
                seconds=self.extractor.nb_max_samples / rate,
                number=number,
                count=n_views,
            )
            inputs = self.extractor(samples, sampling_rate=rate, return_tensors="pt")
            spectrograms.append(inputs["input_features"][0].float())
        return spectrograms

    @torch.inference_mode()
    def forward(self, inputs: list[torch.Tensor]) -> NDArray[np.float32]:
        """Return the embeddings of sounds, of length 1."""
        mel = self.batch(inputs)
        longer = torch.zeros(len(mel), 1, dtype=torch.bool, device=self.device)
        return _rows(self.model.get_audio_features(input_features=mel, is_longer=longer))

    @torch.inference_mode()
    def forward_text(self, inputs: list[list[int]]) -> NDArray[np.float32]:
        """Return the embeddings of texts, of length 1."""
        tokens = self.tokenizer.pad({"input_ids": inputs}, return_tensors="pt").to(self.device)
        return _rows(self.model.get_text_features(**tokens))

    def tokenize(self, texts: list[str]) -> tuple[list[list[int]], list[str]]:
        """Return tokens and their hashes. The cache knows a text by its tokens."""
        # RoBERTa's positions start at 2.
        longest = self.model.config.text_config.max_position_embeddings - 2
        tokens = self.tokenizer(texts, truncation=True, max_length=longest)["input_ids"]
        return tokens, [content_hash(repr(row).encode()) for row in tokens]


def _rows(features: Any) -> NDArray[np.float32]:
    """Return rows from the tensor of transformers 4 or from the output object of version 5."""
    rows = features if isinstance(features, torch.Tensor) else features.pooler_output
    return unit_rows_of(rows)


@once_per_process
def _load(
    model_name: str, pretrained: str | None, device: torch.device, seed: int | None, _stamps: Any
) -> _CLAP:
    transformers = require("transformers", "audio")
    require("soundfile", "audio")
    with loading(model_name, pretrained):
        config = transformers.ClapConfig.from_pretrained(model_name)
        if seed is None:
            model = _trained(transformers, pretrained or model_name, config)
        else:
            with drawn_from(seed, model_name):
                model = transformers.ClapModel(config)
        extractor = transformers.ClapFeatureExtractor.from_pretrained(model_name)
        tokenizer = transformers.AutoTokenizer.from_pretrained(model_name)
    model = model.float().eval()
    identity = fingerprint(model, _settings(config.to_dict()))
    return _CLAP(
        name=f"CLAP {model_name}" + (f" {pretrained}" if pretrained else ""),
        model=model.to(device),
        extractor=extractor,
        tokenizer=tokenizer,
        device=device,
        identity={**identity, "preprocessing": f"{PREPROCESSING} {extractor.to_dict()}"},
    )


def _settings(configuration: Any) -> Any:
    """Leave out entries that features do not depend on, also in configurations inside."""
    if not isinstance(configuration, dict):
        return configuration
    return {k: _settings(v) for k, v in configuration.items() if k not in NAMES_ONLY}


def _trained(transformers: Any, source: str, config: Any) -> Any:
    """Load weights. All must be there, since transformers would draw missing ones at random."""
    model, report = transformers.ClapModel.from_pretrained(
        source, config=config, output_loading_info=True
    )
    parameters = {name for name, _ in model.named_parameters()}
    missing = sorted(parameters & {*report["missing_keys"]})
    if missing or report.get("mismatched_keys"):
        raise ValueError(
            f"{source} is no checkpoint of this model; it lacks, or has in another shape, "
            f"{len(missing) or len(report['mismatched_keys'])} of its {len(parameters)} weights"
        )
    return model
