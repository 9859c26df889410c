"""Several views together, alone and side by side, on the same draws and test rows."""

import json

import numpy as np
import pytest
from view_files import view_arrays, write_views

from flowalign import ClassEmbeddings, FlowMatchingAligner, MultiViewAligner
from flowalign.benchmark import (
    load_view_set,
    run,
    run_several_views,
    several_views,
)
from flowalign.benchmark.metrics import evaluate
from flowalign.benchmark.peers import ZeroShot
from flowalign.benchmark.several_views import Views
from flowalign.benchmark.store import read_rows

ARRAYS = view_arrays()
METHODS = ["flowalign", "side by side", "eye alone", "ear alone"]
QUICK = {"n_jobs": 1, "verbose": 0}


def gaps(name, rows):
    """The array of a name, NaN in rows."""
    array = ARRAYS[name].copy()
    array[rows] = np.nan
    return {name: array}


@pytest.fixture
def path(tmp_path):
    """Two views, which some rows lack."""
    missing = gaps("X_train_eye", [0, 8]) | gaps("X_test_ear", range(0, 40, 3))
    return write_views(tmp_path / "one.npz", **missing)


def measured(path, n_shots=4, **params):
    rows = run_several_views([path], path.parent, shots=[n_shots], n_seeds=1, **QUICK, **params)
    return {row["method"]: row for row in rows}


def judged(model, data, X, X_test, n_shots=4):
    """What is said of a model after a fit to the rows of the first draw that are not all NaN."""
    drawn = data.draw(n_shots, 0)
    X, y = X[drawn], data.y_train[drawn]
    known, known_test = (~np.isnan(part).all(axis=1) for part in (X, X_test))
    model.fit(X[known], y[known])
    proba = np.full((len(X_test), data.n_classes), np.nan)
    proba[known_test] = model.predict_proba(X_test[known_test])
    result = evaluate(proba, data.y_test)
    return json.loads(json.dumps(result)) | {"n_samples": known.sum()}


def same(row, expected):
    return {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-5)


def test_a_view_alone_is_the_aligner_of_its_rows(path):
    rows, data = measured(path), load_view_set(path)
    assert list(rows) == METHODS
    for name, view in data.views.items():
        model = FlowMatchingAligner(view.class_embeddings, random_state=0)
        expected = judged(model, data, view.X_train, view.X_test)
        calibration = expected.pop("calibration")
        row = rows[f"{name} alone"]
        assert same(row, expected)
        np.testing.assert_allclose(row["calibration"], calibration, rtol=1e-5)
        assert row["choices"]["n_steps_"] == model.n_steps_
    lacking = np.isnan(data.views["eye"].X_train[data.draw(4, 0), 0]).sum()
    assert rows["eye alone"]["n_samples"] == 20 - lacking < rows["ear alone"]["n_samples"] == 20


def test_ours_is_the_aligner_of_several_views(path):
    row, data = measured(path)["flowalign"], load_view_set(path)
    eye, ear = data.views.values()
    model = MultiViewAligner(
        [
            ("eye", FlowMatchingAligner(eye.class_embeddings, random_state=0), slice(0, 16)),
            ("ear", FlowMatchingAligner(ear.class_embeddings, random_state=0), slice(16, 28)),
        ]
    )
    X, X_test = (np.hstack([getattr(v, n) for v in (eye, ear)]) for n in ("X_train", "X_test"))
    expected = judged(model, data, X, X_test)
    del expected["calibration"]
    assert same(row, expected)
    weights = dict(zip(["eye", "ear"], model.view_weights_, strict=True))
    assert row["choices"] == pytest.approx(weights, rel=1e-5)


def test_side_by_side_views_have_length_one_and_what_is_lacking_is_zero(path):
    row, data = measured(path)["side by side"], load_view_set(path)

    def together(arrays):
        scaled = [a / np.linalg.norm(a, axis=1, keepdims=True) for a in arrays]
        return np.nan_to_num(np.hstack(scaled))

    views = data.views.values()
    table = together([view.class_embeddings.vectors for view in views])
    aligner = FlowMatchingAligner(ClassEmbeddings(range(5), table), joint=False, random_state=0)
    X, X_test = (together([getattr(v, n) for v in views]) for n in ("X_train", "X_test"))
    expected = judged(aligner, data, X, X_test)
    del expected["calibration"]
    assert same(row, expected)
    assert row["choices"]["joint_"] is False


def test_the_scale_of_a_view_does_not_matter_to_any_method(tmp_path):
    longer = {name: 1000 * ARRAYS[name] for name in ("X_train_eye", "X_test_eye")}
    longer["class_embeddings_ear"] = 1000 * ARRAYS["class_embeddings_ear"]
    usual, scaled = (
        measured(write_views(tmp_path / f"{k}.npz", **changes))
        for k, changes in enumerate([{}, longer])
    )
    for method in METHODS:
        assert scaled[method]["log_loss"] == pytest.approx(usual[method]["log_loss"], rel=1e-3)


def test_test_rows_that_a_view_lacks_count_as_wrong_in_it_alone(tmp_path):
    whole, half = (
        measured(write_views(tmp_path / f"{k}.npz", **changes))
        for k, changes in enumerate([{}, gaps("X_test_ear", slice(1, None, 2))])
    )
    assert half["eye alone"]["accuracy"] == whole["eye alone"]["accuracy"]
    known = dict(ARRAYS, X_test_ear=ARRAYS["X_test_ear"][::2], X_test_eye=ARRAYS["X_test_eye"][::2])
    known["y_test"] = ARRAYS["y_test"][::2]
    expected = measured(write_views(tmp_path / "known.npz", **known))["ear alone"]
    row = half["ear alone"]
    assert row["accuracy"] == pytest.approx(expected["accuracy"] / 2)
    assert row["log_loss"] == pytest.approx((expected["log_loss"] + np.log(5)) / 2)


def test_a_view_that_no_test_row_has_is_always_wrong(tmp_path):
    rows = measured(write_views(tmp_path / "set.npz", **gaps("X_test_ear", range(40))))
    assert rows["ear alone"]["accuracy"] == 0
    assert rows["ear alone"]["log_loss"] == pytest.approx(np.log(5))
    assert rows["flowalign"]["accuracy"] == rows["eye alone"]["accuracy"] > 0.3


def test_a_draw_without_a_row_of_a_view_leaves_its_names(tmp_path):
    drawn = load_view_set(write_views(tmp_path / "set.npz")).draw(1, 0)
    gone = gaps("X_train_ear", drawn)
    rows = measured(write_views(tmp_path / "joint.npz", **gone), n_shots=1)
    assert not any("error" in row for row in rows.values())
    assert [rows[method]["n_samples"] for method in METHODS] == [5, 5, 5, 0]
    # Names from another space cannot be mapped by no sample.
    gone["class_embeddings_ear"] = np.random.default_rng(0).standard_normal((5, 9))
    rows = measured(write_views(tmp_path / "mapped.npz", **gone), n_shots=1)
    assert ["error" in rows[method] for method in METHODS] == [True, False, False, True]
    assert rows["ear alone"]["error"].startswith("ValueError: X has no samples to map class_em")


def test_the_last_classes_may_lack_samples(tmp_path):
    more = {
        f"class_embeddings_{view}": np.eye(7, width, dtype=np.float32)
        for view, width in [("eye", 16), ("ear", 12)]
    }
    rows = measured(write_views(tmp_path / "set.npz", **more))
    assert not [row["error"] for row in rows.values() if "error" in row]


def test_answers_that_are_no_numbers_are_not_taken_for_rows_that_lack_the_view(path, monkeypatch):
    class Broken(FlowMatchingAligner):
        def predict_proba(self, X):
            return np.full((len(X), 5), np.nan)

    monkeypatch.setattr(several_views, "FlowMatchingAligner", Broken)
    assert "not finite" in measured(path)["ear alone"]["error"]


def test_a_draw_seeds_every_aligner(path, monkeypatch):
    seeds = []

    class Watched(FlowMatchingAligner):
        def fit(self, *args):
            seeds.append(self.random_state)
            return super().fit(*args)

    monkeypatch.setattr(several_views, "FlowMatchingAligner", Watched)
    data = load_view_set(path)
    for method in METHODS[1:]:
        Views(path, 1, 7, "", method).measure(data)
    model, *_ = Views(path, 1, 7, "", METHODS[0])._model(data, data.draw(1, 7))
    assert [aligner.random_state for _, aligner, _ in model.views] == [7, 7]
    assert seeds == [7, 7, 7]


def test_what_is_there_is_not_measured_again(path, tmp_path, monkeypatch):
    out, fits = tmp_path / "out", []
    original = Views.measure
    monkeypatch.setattr(
        Views, "measure", lambda task, data: fits.append(task.method) or original(task, data)
    )
    first = run_several_views([path], out, shots=[1, 6], n_seeds=2, **QUICK)
    assert fits == METHODS * 3  # with all six samples of a class there is one draw
    assert [(row["n_shots"], row["seed"]) for row in first[::4]] == [(1, 0), (1, 1), (6, 0)]
    more = run_several_views([path], out, shots=[1, 2, 6], n_seeds=2, **QUICK)
    assert len(fits) == 12 + 8
    assert [row for row in more if row["n_shots"] != 2] == first
    one = {name.removesuffix("_ear"): a for name, a in ARRAYS.items() if "eye" not in name}
    np.savez(tmp_path / "other.npz", **one)
    run([tmp_path / "other.npz"], out, methods={"m": ZeroShot()}, shots=[1], n_seeds=1, **QUICK)
    assert len(read_rows(out)) == 20 + 1
    write_views(path, seed=3)
    run_several_views([path], out, shots=[1, 2, 6], n_seeds=2, **QUICK)
    assert len(fits) == 40


@pytest.mark.parametrize(
    ("params", "message"),
    [({"shots": [0]}, "shots must be at least 1"), ({"n_seeds": 0}, "n_seeds must be at least 1")],
)
def test_wrong_numbers_are_refused(params, message, path, tmp_path):
    with pytest.raises(ValueError, match=message):
        run_several_views([path], tmp_path / "out", **params)


def test_a_set_of_one_view_is_refused(tmp_path):
    np.savez(tmp_path / "one.npz", X_train=np.eye(3))
    with pytest.raises(ValueError, match="a set of one view has X_train and X_test"):
        run_several_views([tmp_path / "one.npz"], tmp_path / "out", **QUICK)
