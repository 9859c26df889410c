"""The check suite of scikit-learn for several views, in full: no check is expected to fail."""

import pytest
import sklearn
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

from flowalign import FlowMatchingAligner, MultiViewAligner


def aligner(*velocity_fields):
    """One view for each field, all of the same columns."""
    return MultiViewAligner(
        [
            (
                f"{field}{i}",
                FlowMatchingAligner(velocity_field=field, max_iter=2, random_state=0),
                slice(None),
            )
            for i, field in enumerate(velocity_fields)
        ]
    )


@parametrize_with_checks(
    [aligner("gaussian"), aligner("gaussian", "gaussian"), aligner("gaussian", "mlp")]
)
def test_suite(estimator, check):
    check(estimator)


@parametrize_with_checks([aligner("gaussian", "gaussian")])
def test_suite_with_metadata_routing(estimator, check):
    with sklearn.config_context(enable_metadata_routing=True):
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
@pytest.mark.parametrize("check", BEYOND_THE_SUITE)
def test_beyond_the_suite(check):
    getattr(estimator_checks, check)("MultiViewAligner", aligner("gaussian", "gaussian"))
