"""Rows of classes that were held out: scores of them, and how these are judged."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from feature_files import write_feature_set

from flowalign import ClassEmbeddings, FlowMatchingAligner
from flowalign.benchmark import open_set, run, run_open_set, write_report
from flowalign.benchmark.__main__ import main
from flowalign.benchmark.feature_sets import FeatureSet
from flowalign.benchmark.open_set import (
    SCORES,
    OpenSet,
    auroc,
    fpr_at_recall,
    held_out_classes,
    largest_matching,
    mahalanobis,
)
from flowalign.benchmark.peers import ZeroShot
from flowalign.benchmark.store import read_rows
from flowalign.datasets import make_cross_modal

N_CLASSES = 8


def separable(n_test=10, spread=0.06, seed=0):
    """Classes about axes of their own, whose embeddings these are."""
    rng = np.random.default_rng(seed)
    axes = np.eye(N_CLASSES, 24, dtype=np.float32)

    def rows(n):
        codes = np.repeat(np.arange(N_CLASSES), n)
        noise = spread * rng.standard_normal((len(codes), 24))
        return (axes[codes] + noise).astype(np.float32), codes

    train, test = rows(5), rows(n_test)
    return FeatureSet("axes", *train, *test, ClassEmbeddings(range(N_CLASSES), axes), "")


def measure(data, n_shots=4, seed=0):
    return OpenSet(Path(), n_shots, seed, "", "open set").measure(data)


def test_false_positives_at_a_recall():
    """Of 20 known rows 19 must pass, those from 2 on; of the foreign, 5.5 and 2 do too."""
    known = np.arange(24) < 20
    scores = np.concatenate([np.arange(20, 0, -1), [5.5, 2.0, 1.5, 0.5]])
    assert fpr_at_recall(scores, known) == 0.5
    assert fpr_at_recall(scores, known, recall=1.0) == 0.75
    order = np.random.default_rng(0).permutation(24)
    assert fpr_at_recall(scores[order], known[order]) == 0.5
    assert fpr_at_recall(np.zeros(24), known) == 1  # no threshold tells them apart
    pairs, every = np.arange(20).repeat(2), np.arange(40) % 2 == 0
    assert fpr_at_recall(pairs, every) == 0.95  # one of each at every height


def test_the_area_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng(0)
    scores, known = rng.integers(0, 5, 30).astype(float), rng.random(30) < 0.6
    gaps = scores[known][:, None] - scores[~known]
    assert auroc(scores, known) == pytest.approx(np.mean((gaps > 0) + (gaps == 0) / 2))


@pytest.mark.parametrize("n_shots", [1, 4])
def test_classes_of_their_own_are_told_apart_by_every_score(n_shots):
    result = measure(separable(), n_shots)
    assert list(result["auroc"]) == list(SCORES)
    assert result["auroc"] == pytest.approx(dict.fromkeys(SCORES, 1.0))
    assert result["fpr95"] == dict.fromkeys(SCORES, 0.0)
    assert result["n_samples"] == n_shots * N_CLASSES // 2


def test_labels_that_say_nothing_give_a_half():
    data = separable(n_test=100)
    shuffled = np.random.default_rng(1).permutation(data.y_test)
    result = measure(replace(data, y_test=shuffled))
    assert result["auroc"] == pytest.approx(dict.fromkeys(SCORES, 0.5), abs=0.06)
    assert result["fpr95"] == pytest.approx(dict.fromkeys(SCORES, 0.95), abs=0.06)


def test_half_of_the_classes_is_held_out_another_half_in_each_draw():
    drawn = [held_out_classes(10, seed).tolist() for seed in range(20)]
    assert all(len(set(classes)) == 5 and classes == sorted(classes) for classes in drawn)
    assert set(np.concatenate(drawn)) == set(range(10))
    assert len({tuple(classes) for classes in drawn}) > 10
    assert drawn[3] == held_out_classes(10, 3).tolist()
    assert [len(held_out_classes(n, 0)) for n in (1, 2, 3, 5)] == [0, 1, 1, 2]


def test_held_out_classes_are_in_neither_table_nor_support_set(monkeypatch):
    data, seen = separable(), []

    class Watched(FlowMatchingAligner):
        def fit(self, X, y, class_embeddings):
            seen.append((X, y, class_embeddings.classes, self.random_state))
            return super().fit(X, y, class_embeddings)

        def predict_proba(self, X):
            assert X.dtype == np.float64  # in which sure rows are not all at 1
            return super().predict_proba(X)

    monkeypatch.setattr(open_set, "FlowMatchingAligner", Watched)
    for seed in (0, 1):
        result = measure(data, 3, seed)
        X, y, classes, random_state = seen[-1]
        rows = data.draw(3, seed)
        rows = rows[~np.isin(data.y_train[rows], held_out_classes(N_CLASSES, seed))]
        assert result["held_out"] == held_out_classes(N_CLASSES, seed).tolist()
        assert sorted([*classes, *result["held_out"]]) == list(range(N_CLASSES))
        np.testing.assert_array_equal(X, data.X_train[rows])
        np.testing.assert_array_equal(y, data.y_train[rows])
        assert random_state == seed


def test_matching_is_by_cosine_where_embeddings_are_mapped(monkeypatch):
    data, lengths = separable(), []

    def watch(X, targets):
        lengths.extend(np.linalg.norm([*X, *targets], axis=1))
        return largest_matching(X, targets)

    monkeypatch.setattr(open_set, "largest_matching", watch)
    elsewhere = np.random.default_rng(0).standard_normal((N_CLASSES, 6))
    measure(replace(data, class_embeddings=ClassEmbeddings(range(N_CLASSES), elsewhere)))
    np.testing.assert_allclose(lengths, 1, rtol=1e-5)


def test_refused_are_known_rows_below_the_threshold():
    data = separable(n_test=40, spread=0.3)
    result = measure(data, 5, seed=2)
    known = np.setdiff1d(np.arange(N_CLASSES), result["held_out"])
    train, test = (np.isin(y, known) for y in (data.y_train, data.y_test))
    model = FlowMatchingAligner(unknown_label=-1)
    model.fit(data.X_train[train], data.y_train[train], data.class_embeddings.subset(known))
    assert 0 < result["refused"] < 0.5
    assert result["refused"] == np.mean(model.predict(data.X_test[test]) == -1)


def test_matching_is_sure_where_one_cosine_stands_out():
    X = np.array([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
    e = np.e
    expected = [e / (e + 1), e**0.8 / (e**0.6 + e**0.8), 0.5]
    np.testing.assert_allclose(largest_matching(X, np.eye(3)[:2]), expected)


def test_mahalanobis_distances_are_those_to_classes_and_to_all():
    rng = np.random.default_rng(0)
    codes = np.repeat([2, 5, 7], 6)
    support = 3 * rng.standard_normal((3, 4)).repeat(6, axis=0)
    support += rng.standard_normal((18, 4)) * [1, 2, 3, 4]
    X = rng.standard_normal((10, 4))
    plain, relative = mahalanobis(X, support, codes)
    means = np.stack([support[codes == c].mean(axis=0) for c in (2, 5, 7)])
    ridge = support.var(axis=0).mean() * np.eye(4)
    residuals = support - means.repeat(6, axis=0)
    within = np.linalg.inv(residuals.T @ residuals / 18 + ridge)
    total = np.linalg.inv(np.cov(support.T, bias=True) + ridge)
    gaps, away = X[:, None] - means, X - support.mean(axis=0)
    nearest = np.einsum("mcd,de,mce->mc", gaps, within, gaps).min(axis=1)
    np.testing.assert_allclose(plain, -nearest)
    np.testing.assert_allclose(relative, np.einsum("md,de,me->m", away, total, away) - nearest)


def test_with_one_sample_a_class_they_scatter_about_all():
    support = np.random.default_rng(0).standard_normal((5, 3))
    X = np.random.default_rng(1).standard_normal((4, 3))
    plain, _ = mahalanobis(X, support, np.arange(5))
    total = np.linalg.inv(np.cov(support.T, bias=True) + support.var(axis=0).mean() * np.eye(3))
    gaps = X[:, None] - support
    np.testing.assert_allclose(-plain, np.einsum("mcd,de,mce->mc", gaps, total, gaps).min(axis=1))


@pytest.mark.parametrize(
    "codes",
    [[0, 1, 2, 3], [0, 0], [0], [0, 0, 1, 1]],
    ids=["one sample each", "two opposite samples", "one sample", "copies"],
)
def test_mahalanobis_scores_need_no_scatter_within_classes(codes):
    rng = np.random.default_rng(0)
    support = rng.standard_normal((4, 6))[: len(codes)]
    if codes == [0, 0, 1, 1]:
        support = support[[0, 0, 1, 1]]
    X = np.concatenate([support, 5 * rng.standard_normal((3, 6))])
    plain, relative = mahalanobis(X, support, np.array(codes))
    assert np.isfinite([plain, relative]).all()
    assert plain[: len(codes)].min() > plain[len(codes) :].max()


@pytest.fixture
def path(tmp_path):
    data = make_cross_modal(6, n_train=5, n_test=8, n_features=16, random_state=0)
    return write_feature_set(tmp_path / "one.npz", data)


def test_what_is_there_is_not_measured_again(path, tmp_path, monkeypatch):
    out, measured = tmp_path / "out", []
    original = OpenSet.measure
    monkeypatch.setattr(
        OpenSet, "measure", lambda task, data: measured.append(task.seed) or original(task, data)
    )
    settings = {"shots": [1, 5], "n_jobs": 1, "verbose": 0}
    first = run_open_set([path], out, n_seeds=1, **settings)
    assert measured == [0, 0]
    more = run_open_set([path], out, n_seeds=2, **settings)
    assert measured == [0, 0, 1, 1]  # other classes, though no other samples are left to draw
    assert [row for row in more if row["seed"] == 0] == first
    assert [(r["set"], r["n_shots"], r["seed"]) for r in more] == [
        ("one", 1, 0), ("one", 1, 1), ("one", 5, 0), ("one", 5, 1),
    ]  # fmt: skip
    assert more[0]["held_out"] != more[1]["held_out"]
    # Rows of fits share the folder, and keep apart.
    fits = run([path], out, methods={"zero-shot": ZeroShot()}, n_seeds=1, **settings)
    assert {row["method"] for row in fits} == {"zero-shot"}
    assert run_open_set([path], out, n_seeds=2, **settings) == more
    assert len(read_rows(out)) == 4 + 2


def test_a_set_without_foreign_rows_is_a_row_with_an_error(tmp_path):
    data = make_cross_modal(2, n_train=3, n_test=4, n_features=8, random_state=0)
    codes = np.full(8, 1 - held_out_classes(2, 0)[0])
    path = write_feature_set(tmp_path / "known.npz", data, y_test=codes)
    (row,) = run_open_set([path], tmp_path, shots=[1], n_seeds=1, n_jobs=1, verbose=0)
    assert row["error"].startswith("ValueError: an open set needs test rows of known and of held")
    assert row["method"] == "open set"


def hand_made(ours, theirs):
    """One draw of each set: areas of ours, and of all others."""
    return [
        {
            "key": str(k), "set": f"set {k}", "n_shots": 4, "seed": 0, "method": "open set",
            "auroc": dict.fromkeys(SCORES, b) | {SCORES[0]: a},
            "fpr95": dict.fromkeys(SCORES, 1 - b) | {SCORES[0]: 1 - a},
            "refused": 0.02 * (k + 1),
        }
        for k, (a, b) in enumerate(zip(ours, theirs, strict=True))
    ]  # fmt: skip


def accuracy_rows():
    return [
        {
            "set": "set 0", "n_shots": 4, "seed": 0, "method": "flowalign", "accuracy": 0.5,
            "log_loss": 1.0, "ece": 0.1, "fit_seconds": 1.0, "predict_seconds": 1.0,
        }
    ]  # fmt: skip


def test_the_section_says_losses_as_plainly_as_wins(tmp_path):
    pytest.importorskip("matplotlib")
    rows = hand_made([0.7, 0.7, 0.7, 0.5], [0.8, 0.75, 0.6, 0.5])
    page = write_report(accuracy_rows(), tmp_path, rows).read_text()
    text = (tmp_path / "report.md").read_text()
    section = text.split("## None of these: 4 labelled samples a class")[1]
    assert "A random half of the classes is held out" in section
    assert section.count("\n| ") == 1 + len(SCORES) + 1
    ours = "| flowalign | 65.0 | 35.0 | 3.5 |  |  | 70.0 / 30.0 | 70.0 / 30.0 | **70.0 / 30.0** | "
    assert ours in section
    mcm = next(line for line in section.splitlines() if line.startswith("| MCM"))
    assert mcm.startswith("| MCM | **66.2** | 33.8 | 2.9 | -1.3 [-14.8, +12.3] | ")
    assert "| 1 / 1 / 2 | **80.0 / 20.0** | **75.0 / 25.0** | 60.0 / 40.0 |" in mcm
    refused = next(line for line in section.splitlines() if line.startswith("| known rows"))
    assert refused == "| known rows refused | 5.0 |  |  |  |  | 2.0 | 4.0 | 6.0 | 8.0 |"
    assert page.count("<h2>None of these") == page.count("A random half of the classes") == 1
    assert '<tr class="ours"><td>flowalign</td><td>65.0</td>' in page.split("None of these")[1]


def test_a_report_without_open_sets_says_nothing_of_them(tmp_path):
    pytest.importorskip("matplotlib")
    assert "None of these" not in write_report(accuracy_rows(), tmp_path).read_text()


def test_a_failed_draw_takes_the_set_from_every_score(tmp_path):
    pytest.importorskip("matplotlib")
    rows = hand_made([0.7, 0.7], [0.6, 0.8])
    kept = {name: rows[0][name] for name in ("set", "n_shots", "method")}
    rows.append(kept | {"seed": 1, "error": "ValueError: <none>"})
    page = write_report(accuracy_rows(), tmp_path, rows).read_text()
    assert "open set on set 0, 4 shots, draw 1: ValueError: &lt;none&gt;" in page
    section = (tmp_path / "report.md").read_text().split("None of these")[1]
    assert "| flowalign | - | - | - |  |  | - / - | 70.0 / 30.0 |" in section
    assert "nan" not in section


def test_the_command(path, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    arguments = ["--features", str(path), "--shots", "2", "--seeds", "2", "--jobs", "1"]
    arguments += ["--methods", "zero-shot", "--out", str(tmp_path / "report")]
    main(arguments)
    assert "2 fits, 0 failed" in capsys.readouterr().out
    for setting in (["--open-set"], ["--setting", "inductive", "open-set"]):
        main([*arguments, *setting])
        assert "4 fits, 0 failed" in capsys.readouterr().out
    assert "## None of these: 2 " in (tmp_path / "report" / "report.md").read_text()
