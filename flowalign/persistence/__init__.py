"""Fitted aligners in files that are safe to open.

A model is one safetensors file: arrays, and a JSON header with everything else. Opening one runs
no code, imports nothing by name and reads no pickle. All contents are checked against what an
aligner can hold. ``docs/decisions/0009-persistence.md`` has the format.
"""

from flowalign.persistence.encoder_loading import load_encoder
from flowalign.persistence.restoring import load
from flowalign.persistence.saved import SavedAligner
from flowalign.persistence.saving import save

__all__ = ["SKOPS_TRUSTED", "SavedAligner", "load", "load_encoder", "save"]

SKOPS_TRUSTED = [
    "flowalign.aligner.FlowMatchingAligner",
    "flowalign.class_embeddings.ClassEmbeddings",
    "flowalign.encoders.callables.CallableEncoder",
    "flowalign.encoders.clap.ClapEncoder",
    "flowalign.encoders.clip.OpenCLIPEncoder",
    "flowalign.gaussian.field.GaussianField",
    "flowalign.gaussian.model.GaussianModel",
    "flowalign.gaussian.statistics.ClassStatistics",
    "flowalign.gaussian.unlabeled.Held",
    "flowalign.multi_view.MultiViewAligner",
    "flowalign.network.field.MLPField",
    "flowalign.reserve.Reserve",
    "flowalign.spaces.ProcrustesMap",
]
"""Types of which aligners and encoders are made: ``skops.io.load(file, trusted=SKOPS_TRUSTED)``.

Making objects of these types runs no code. If a `CallableEncoder` holds a function of yours, add
the function's name. DataFrames, Series, tensors, devices and paths are not in the list. Give such
parameters in another form: class embeddings as a `ClassEmbeddings` or an array, class priors as an
array or a dict, devices and paths as strings.
"""
