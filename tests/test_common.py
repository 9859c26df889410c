"""The check suite of scikit-learn, in full: no check is expected to fail."""

import numpy as np
import pytest
import sklearn
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

from flowalign import FlowMatchingAligner
from flowalign.fields import KINDS


class Float32Aligner(FlowMatchingAligner):
    """Takes everything in float32: the suite itself hands over float64."""

    def _normalized(self, features, *args):
        return super()._normalized(features.astype(np.float32), *args)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


@pytest.fixture(params=[False, True], ids=["plain", "routing"])
def routing(request):
    with sklearn.config_context(enable_metadata_routing=request.param):
        yield


@pytest.mark.usefixtures("routing")
@parametrize_with_checks(
    [
        aligner(velocity_field=field, max_iter=2)
        for aligner in (FlowMatchingAligner, Float32Aligner)
        for field in KINDS
    ]
)
def test_suite(estimator, check):
    check(estimator)


# Checks of scikit-learn's that are not part of the suite for third-party estimators.
BEYOND_THE_SUITE = [
    "check_dataframe_column_names_consistency",
    "check_get_feature_names_out_error",
    "check_global_output_transform_pandas",
    "check_set_output_transform",
    "check_set_output_transform_pandas",
    "check_transformer_get_feature_names_out",
    "check_transformer_get_feature_names_out_pandas",
]


@pytest.mark.filterwarnings("ignore:X (has|does not have valid) feature names:UserWarning")
@pytest.mark.parametrize("velocity_field", list(KINDS))
@pytest.mark.parametrize("check", BEYOND_THE_SUITE)
def test_beyond_the_suite(check, velocity_field):
    aligner = FlowMatchingAligner(velocity_field=velocity_field, max_iter=2)
    getattr(estimator_checks, check)("FlowMatchingAligner", aligner)
