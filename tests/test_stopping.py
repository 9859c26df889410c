"""The stop and the read-out follow the evidence, and only the evidence."""

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from gaussian_toy import Model
from torch import nn

from flowalign import ode
from flowalign.calibration import calibrate
from flowalign.held_out import LEAVE_ONE_OUT, VALIDATION_DATA, HeldOut
from flowalign.ode import nearest_step
from flowalign.stopping import DEFAULT_STOP, ReadOut, choose_stop, follow, read_out_at, score_steps


def table(n_better, n_worse, step=0.1):
    n_better, n_worse = np.array(n_better), np.array(n_worse)
    return {"stop_time": step * np.arange(len(n_better)), "n_better": n_better, "n_worse": n_worse}


# ------------------------------------------------------------------ the stop


@pytest.mark.parametrize(
    ("n_better", "n_worse", "stop"),
    [
        ([0, 0, 0], [0, 0, 0], DEFAULT_STOP),  # a draw
        ([3, 0, 0], [0, 0, 0], DEFAULT_STOP),  # 3 < 2 sqrt(3)
        ([4, 0, 0], [0, 0, 0], 0.0),  # 4 = 2 sqrt(4)
        ([13, 0, 0], [5, 0, 0], DEFAULT_STOP),  # 8 < 2 sqrt(18)
        ([14, 0, 0], [5, 0, 0], 0.0),  # 9 > 2 sqrt(19)
        ([9, 14, 12], [0, 1, 0], 0.1),  # the largest difference
        ([9, 12, 12], [0, 0, 0], 0.1),  # then the earlier
        ([0, 0, 0], [9, 9, 9], DEFAULT_STOP),
        ([56, 0, 0], [37, 0, 0], DEFAULT_STOP),  # 19 < 2 sqrt(93) = 19.3
        ([54, 0, 0], [35, 0, 0], 0.0),  # 19 > 2 sqrt(89) = 18.9
        ([25, 8, 0], [15, 0, 0], 0.1),  # a larger difference, but not a clear one
    ],
)
def test_the_default_is_left_on_two_standard_errors(n_better, n_worse, stop):
    chosen = choose_stop("leave-one-out", table(n_better, n_worse), one_shot_stop=0.3)
    assert chosen == pytest.approx(stop)


def test_classes_held_out_as_a_whole_do_not_move_the_stop():
    for source, scores in (("held-out classes", table([50, 0], [0, 0])), ("nothing", None)):
        assert choose_stop(source, scores, one_shot_stop=0.3) == 0.3


@pytest.mark.parametrize(
    ("time", "step_size", "step"),
    [
        (0.5, 0.1, 5),
        (0.5, 0.05, 10),
        (0.5, 0.3, 2),
        (0.5, 1.0, 1),
        (0.0, 0.1, 0),
        (1.0, 0.3, 3),
        (1.0, 0.4, 2),  # a third would pass the end
        (0.2, 1, 1),
    ],
)
def test_nearest_step(time, step_size, step):
    assert nearest_step(time, step_size) == step


# ------------------------------------------------------------------ the read-out


def test_between_two_steps_both_weights_are_between_theirs():
    scores = {
        "stop_time": np.array([0.0, 0.25, 0.75]),
        "logit_scale": np.array([10.0, 40.0, 90.0]),
        "posterior_weight": np.array([0.0, 0.5, 0.1]),
    }
    otherwise = ReadOut(30.0, 0.0)
    assert read_out_at(0.25, scores, otherwise) == pytest.approx((40, 0.5))
    scale, weight = read_out_at(0.5, scores, otherwise)
    assert scale == pytest.approx(60)  # the geometric mean
    assert scale * weight == pytest.approx((20 + 9) / 2)
    assert read_out_at(1.0, scores, otherwise) == pytest.approx((90, 0.1))
    assert read_out_at(0.3, None, otherwise) == otherwise


def test_zero_steps_are_something_of_their_own():
    """However small a step is, it is read out as steps are, and none as none."""
    scores = {
        "stop_time": np.array([0.0, 0.5]),
        "logit_scale": np.array([10.0, 40.0]),
        "posterior_weight": np.array([0.0, 0.5]),
    }
    assert read_out_at(0.0, scores, ReadOut(1, 1)) == pytest.approx((10, 0))
    assert read_out_at(1e-9, scores, ReadOut(1, 1)) == pytest.approx((40, 0.5))


class Told(NamedTuple):
    """A model of the classes that says what it is told to."""

    said: torch.Tensor

    def log_proba(self, x):
        return self.said


def test_the_model_is_heard_from_the_first_step_on():
    """It says the opposite of the cosines, and is surer."""
    targets, x = ring(0.0, 90.0), ring(10.0, 80.0)
    said = torch.tensor([[-5.0, 0.0], [0.0, -5.0]])
    part = HeldOut(Turning(), x, np.array([0, 1]), targets, Told(said))
    scores = score_steps(LEAVE_ONE_OUT, follow([part], 0.1, "euler"))
    assert scores["accuracy"][0] == 1
    assert (scores["accuracy"][1:] == 0).all()
    assert scores["n_better"][0] == 2
    assert (scores["logit_scale"][1:] == 1).all()
    assert (scores["posterior_weight"] == [0] + [1] * 10).all()
    state = ring(*(np.array([10.0, 80.0]) + math.degrees(0.1)))
    total = (state @ targets.T + said).log_softmax(dim=1)
    expected = -(total[0, 0] + total[1, 1]) / 2
    assert scores["log_loss"][1] == pytest.approx(float(expected), rel=2e-3)  # of Euler's step


def test_validation_data_weigh_cosines_and_model():
    said = torch.tensor([[-5.0, 0.0], [0.0, -5.0]])
    part = HeldOut(Turning(), ring(10.0, 80.0), np.array([0, 1]), ring(0.0, 90.0), Told(said))
    scores = score_steps(VALIDATION_DATA, follow([part], 0.1, "euler"))
    weights = scores["logit_scale"] * scores["posterior_weight"]
    assert (weights[1:] < 0.2).all()  # the model is wrong
    cosines = part.contrasts(ode.grid(1, 0.1), np.array([1]), "euler")[0]
    both = [cosines, said.numpy()]
    found, loss = calibrate(both, np.array([0, 1]), [1, 1], [0.5, 0.5])
    assert (scores["logit_scale"][1], weights[1]) == pytest.approx(tuple(found))
    assert scores["log_loss"][1] == pytest.approx(loss)


# ------------------------------------------------------------------ the scores


class Turning(nn.Module):
    """Turns the plane by one radian in a unit of time: a flow whose every state is known."""

    singular_end = False

    def rotate(self, x):
        return x

    def velocity(self, t, x):
        return torch.stack([-x[:, 1], x[:, 0]], dim=1)


def ring(*degrees):
    angles = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_scores_are_counted_step_by_step():
    """Rotating by 57 degrees until time 1, rows pass from the class at 0 to that at 90."""
    targets = ring(0.0, 90.0)
    parts = [
        HeldOut(Turning(), ring(10.0, 30.0), np.array([0, 0]), targets),
        HeldOut(Turning(), ring(0.0, 20.0), np.array([1, 1]), targets),
    ]
    scores = score_steps(LEAVE_ONE_OUT, follow(parts, 0.1, "rk4"))
    # Row by row the class changes at 45 degrees: after 35, 15, 45 and 25 degrees; a step is 5.73.
    crossing = np.array([7, 3, 8, 5])
    after = np.arange(11)[:, None] >= crossing
    hits = after == [False, False, True, True]
    np.testing.assert_array_equal(scores["n_steps"], np.arange(11))
    np.testing.assert_allclose(scores["stop_time"], np.linspace(0, 1, 11))
    np.testing.assert_allclose(scores["accuracy"], hits.mean(axis=1))
    np.testing.assert_array_equal(scores["n_better"], (hits & ~hits[5]).sum(axis=1))
    np.testing.assert_array_equal(scores["n_worse"], (~hits & hits[5]).sum(axis=1))
    for k in (0, 4, 10):
        states = torch.cat([ring(*(np.array(row) + math.degrees(0.1 * k))) for row in
                            ([10.0, 30.0], [0.0, 20.0])])  # fmt: skip
        scale, loss = calibrate([(states @ targets.T).numpy()], np.array([0, 0, 1, 1]), [30], [0.5])
        assert scores["logit_scale"][k] == pytest.approx(scale, rel=1e-3)
        assert scores["log_loss"][k] == pytest.approx(loss, rel=1e-3)


@pytest.mark.parametrize(
    ("step_size", "steps"),
    [
        (0.1, range(11)),
        (0.25, range(5)),
        (0.3, range(4)),
        (1.0, range(2)),
        (0.05, range(0, 21, 2)),
        (0.01, range(0, 101, 10)),  # in steps of 0.05
        (0.001, range(0, 1001, 100)),
        (1 / 13, [0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13]),  # the default is the seventh
        (1 / 15, [0, 2, 3, 4, 6, 8, 9, 10, 12, 14, 15]),
    ],
)
def test_many_steps_are_thinned(step_size, steps):
    part = HeldOut(Turning(), ring(10.0), np.array([0]), ring(0.0, 90.0))
    scores = score_steps(LEAVE_ONE_OUT, follow([part], step_size, "euler"))
    assert scores["n_steps"].tolist() == list(steps)
    assert nearest_step(DEFAULT_STOP, step_size) in scores["n_steps"]
    np.testing.assert_allclose(scores["stop_time"], scores["n_steps"] * step_size)
    right = scores["accuracy"] == 1
    usual = right[scores["n_steps"] == nearest_step(DEFAULT_STOP, step_size)][0]
    np.testing.assert_array_equal(scores["n_better"], right & ~usual)
    np.testing.assert_array_equal(scores["n_worse"], ~right & usual)
    assert right[0]
    assert not right[-1]


@pytest.mark.parametrize("solver", ["euler", "heun2", "rk4"])
def test_scores_are_those_of_the_flow_that_predicts(solver):
    """In the coordinates of the field, and up to its singular end."""
    model = Model(6, noise_std=0.5, separation=0.7, reach=0.7)
    codes, x = model.sample(60)
    field, x, codes = model.field(), torch.from_numpy(x), torch.from_numpy(codes)
    targets = torch.from_numpy(model.targets)
    part = HeldOut(field, x, codes.numpy(), targets)
    scores = score_steps(LEAVE_ONE_OUT, follow([part], 0.1, solver))
    z, times = field.rotate(x), ode.grid(10, 0.1)
    states = ode.integrate(field.velocity, z, times, solver, singular_end=True)
    for k, state in enumerate(field.rotate_back(states)):
        similarities = torch.cosine_similarity(state[:, None], targets, dim=2)
        hits = similarities.argmax(dim=1) == codes
        assert scores["accuracy"][k] == pytest.approx(float(hits.double().mean()))
        assert scores["log_loss"][k] == pytest.approx(
            calibrate([similarities.numpy()], codes.numpy(), [30], [0.5])[1], rel=1e-4
        )


class Counting(Turning):
    calls = 0

    def velocity(self, t, x):
        self.calls += 1
        return super().velocity(t, x)


@pytest.mark.parametrize("n_steps", [5, 20, 21, 25, 30, 41, 100, 999])
def test_a_flow_is_followed_in_twenty_steps_at_most(n_steps):
    flow = Counting()
    part = HeldOut(flow, ring(10.0), np.array([0]), ring(0.0, 90.0))
    scores = score_steps(LEAVE_ONE_OUT, follow([part], 1 / n_steps, "euler"))
    assert flow.calls <= 20
    assert scores["n_steps"].max() > 0.9 * n_steps


class Exploding(Turning):
    def velocity(self, t, x):
        return 1e200 * x


def test_a_flow_that_leaves_the_numbers_scores_nothing():
    part = HeldOut(Exploding(), ring(10.0), np.array([0]), ring(0.0, 90.0))
    scores = score_steps(LEAVE_ONE_OUT, follow([part], 0.1, "euler"))
    assert scores["accuracy"][0] == 1
    assert scores["accuracy"][-1] == 0
    assert np.isfinite(scores["log_loss"]).all()
