"""From rows to tables: what counts as a win."""

import numpy as np
import pytest

from flowalign.benchmark.summary import FEWEST, interval, summarise, wins


def rows(accuracy):
    """Results by method and set, of one draw each."""
    return [
        {
            "set": str(at), "n_shots": 4, "seed": 0, "method": method, "accuracy": value,
            "log_loss": 0.0, "ece": 0.0, "fit_seconds": 0.0, "predict_seconds": 0.0,
        }
        for method, values in accuracy.items()
        for at, value in enumerate(values)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("gap", "outcome"),
    [
        (0.0, (0, 1, 0)), (0.0049, (0, 1, 0)), (0.0051, (1, 0, 0)), (0.1, (1, 0, 0)),
        (-0.0049, (0, 1, 0)), (-0.0051, (0, 0, 1)), (-0.1, (0, 0, 1)),
    ],
)  # fmt: skip
def test_a_win_is_more_than_half_a_point(gap, outcome):
    (summary,) = summarise(rows({"flowalign": [0.5 + gap], "peer": [0.5]}))
    assert wins(summary, "peer") == outcome
    assert wins(summary, "flowalign", reference="peer") == outcome[::-1]


def test_every_set_is_won_level_or_lost():
    ours, theirs = [0.7, 0.6, 0.502, 0.4, 0.3], [0.5, 0.5, 0.5, 0.5, 0.5]
    (summary,) = summarise(rows({"flowalign": ours, "peer": theirs}))
    assert wins(summary, "peer") == (2, 1, 2)


def test_an_interval_needs_four_sets():
    assert np.isnan(interval([0.1, 0.2, 0.3])[1:]).all()
    assert np.isfinite(interval([0.1, 0.2, 0.3, 0.4])).all()
    assert FEWEST == 4
