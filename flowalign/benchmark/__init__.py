"""The benchmark: the aligner and its peers on the same features, draws and folds.

``python -m flowalign.benchmark --out report`` runs it on the emoji set that comes with the package,
``--features FOLDER`` on sets of your own, of one view or of several.
"""

from flowalign.benchmark.feature_sets import FeatureSet, load_feature_set
from flowalign.benchmark.open_set import run_open_set
from flowalign.benchmark.report import write_report
from flowalign.benchmark.runner import METHODS, run
from flowalign.benchmark.several_views import run_several_views
from flowalign.benchmark.unlabeled import UNLABELED_METHODS, run_unlabeled
from flowalign.benchmark.view_sets import ViewSet, load_view_set

__all__ = [
    "METHODS",
    "UNLABELED_METHODS",
    "FeatureSet",
    "ViewSet",
    "load_feature_set",
    "load_view_set",
    "run",
    "run_open_set",
    "run_several_views",
    "run_unlabeled",
    "write_report",
]
