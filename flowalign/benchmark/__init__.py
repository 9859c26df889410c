"""The benchmark: the aligner and its peers on the same features, draws and folds.

``python -m flowalign.benchmark --out report`` runs it on the emoji set that comes with the package,
``--features FOLDER`` on sets of your own.
"""

from flowalign.benchmark.feature_sets import FeatureSet, load_feature_set
from flowalign.benchmark.open_set import run_open_set
from flowalign.benchmark.report import write_report
from flowalign.benchmark.runner import METHODS, run

__all__ = ["METHODS", "FeatureSet", "load_feature_set", "run", "run_open_set", "write_report"]
