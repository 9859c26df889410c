"""Scores of probabilities."""

import numpy as np
import pytest

from flowalign.benchmark.metrics import evaluate


def test_evaluate():
    proba = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [1.0, 0.0]])
    result = evaluate(proba, np.array([0, 1, 1, 1]))
    assert result["accuracy"] == 0.5
    expected = -(np.log([0.9, 0.4, 0.7]).sum() + np.log(1e-15)) / 4
    assert result["log_loss"] == pytest.approx(expected)
    # 0.9 and 0.6 and 0.7 and 1 in bins 13, 9, 10, 14.
    assert result["ece"] == pytest.approx((0.1 + 0.6 + 0.3 + 1) / 4)
    assert [count for count, *_ in result["calibration"]] == [1, 1, 1, 1]


def test_a_calibrated_coin_has_no_calibration_error():
    """Fifteen bins: samples of one are averaged before they are compared, those of two are not."""
    proba = np.array([[0.61, 0.39], [0.65, 0.35], [0.61, 0.39], [0.68, 0.32]])
    codes = np.array([0, 0, 0, 1])
    # 9 / 15 to 10 / 15 holds the first three, all right; the last is wrong and alone.
    expected = (3 * abs(np.mean([0.61, 0.65, 0.61]) - 1) + abs(0.68 - 0)) / 4
    result = evaluate(proba, codes)
    assert result["ece"] == pytest.approx(expected)
    assert [(n, share) for n, _, share in result["calibration"]] == [(3, 1.0), (1, 0.0)]


def test_a_row_without_an_answer_is_wrong_and_all_classes_equally_probable():
    proba = np.array([[0.8, 0.2], [np.nan, np.nan]])
    for code in (0, 1):
        result = evaluate(proba, np.array([0, code]))
        assert result["accuracy"] == 0.5
        assert result["log_loss"] == pytest.approx((np.log(1 / 0.8) + np.log(2)) / 2)
        assert result["calibration"] == [(1, 0.5, 0.0), (1, 0.8, 1.0)]
