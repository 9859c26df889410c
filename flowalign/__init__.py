"""Few-shot classification by carrying frozen features to the embeddings of their class names."""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

import flowalign.forked  # noqa: F401  # has forked children use one thread

if TYPE_CHECKING:
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

# Where each public name is. It is imported when it is first asked for: torch takes seconds, which
# the help of a command should not.
_PLACES = {
    "ClassEmbeddings": "class_embeddings",
    "FlowMatchingAligner": "aligner",
    "MultiViewAligner": "multi_view",
    "SavedAligner": "persistence",
    "fit_blocks": "out_of_core",
    "load": "persistence",
    "save": "persistence",
    "show_versions": "versions",
}


if not TYPE_CHECKING:  # to a type checker the names above are all there is

    def __getattr__(name: str) -> Any:
        """Import a public name, or a module of the package, when it is first asked for."""
        if name in _PLACES:
            value = getattr(importlib.import_module(f"flowalign.{_PLACES[name]}"), name)
        elif not name.startswith("_") and importlib.util.find_spec(f"flowalign.{name}"):
            value = importlib.import_module(f"flowalign.{name}")
        else:
            raise AttributeError(f"module 'flowalign' has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
