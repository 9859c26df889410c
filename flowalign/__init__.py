"""Few-shot classification by carrying frozen features to the embeddings of their class names."""

import flowalign.forked  # noqa: F401  # has forked children use one thread
from flowalign.aligner import FlowMatchingAligner
from flowalign.class_embeddings import ClassEmbeddings
from flowalign.multi_view import MultiViewAligner
from flowalign.out_of_core import fit_blocks
from flowalign.persistence import SavedAligner, load, save
from flowalign.versions import show_versions

__all__ = [
    "ClassEmbeddings",
    "FlowMatchingAligner",
    "MultiViewAligner",
    "SavedAligner",
    "fit_blocks",
    "load",
    "save",
    "show_versions",
]
__version__ = "0.2.0"
