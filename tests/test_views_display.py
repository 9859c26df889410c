"""The display of what each view contributes."""

from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from flowalign import FlowMatchingAligner, MultiViewAligner, blocks
from flowalign.datasets import make_cross_modal
from flowalign.plotting import NoveltyDisplay, StopDisplay, UnlabeledDisplay, ViewsDisplay

WAYS = ["alone", "all without it", "all together"]
WIDTHS = {"a": slice(0, 32), "b": slice(32, 64), "c": slice(64, 96)}


@pytest.fixture(autouse=True)
def no_window():
    with mpl.rc_context({"backend": "agg"}):
        yield
        plt.close("all")


@pytest.fixture(scope="module")
def sets():
    """What three encoders make of the same samples."""
    given = {"n_classes": 5, "n_train": 4, "n_test": 20, "n_features": 32, "difficulty": 3}
    return [make_cross_modal(**given, random_state=seed) for seed in range(3)]


@pytest.fixture(scope="module")
def X_test(sets):
    return np.hstack([one.X_test for one in sets])


@pytest.fixture(scope="module")
def fit(sets):
    """Fit to some of the views."""

    def fit(names="abc", **params):
        views = [
            (name, FlowMatchingAligner(one.class_embeddings), WIDTHS[name])
            for name, one in zip("abc", sets, strict=True)
            if name in names
        ]
        X = np.hstack([one.X_train for one in sets])
        return MultiViewAligner(views, **params).fit(X, sets[0].y_train)

    return fit


@pytest.fixture(scope="module")
def aligner(fit):
    """Of classes that are not equally likely: a view alone is asked beside the prior."""
    return fit(class_prior=[0.4, 0.3, 0.1, 0.1, 0.1])


@pytest.fixture
def constructed():
    return ViewsDisplay(
        names=["$a$", "b", "c"],
        weights=[0.754, 0.5, 1.0],
        right=[[8, 1, 0], [2, 1, 0], [9, 1, 0]],
        rows=[[10, 1, 0], [4, 1, 0], [10, 1, 0]],
    )


def texts(display):
    """What stands beside the bars, way by way."""
    found = [text.get_text() for text in display.ax_.texts]
    return [found[k : k + 3] for k in range(0, len(found), 3)]


def test_three_bars_for_each_view_with_rows_beside_them(constructed):
    assert [shares.tolist()[:2] for shares in constructed.accuracy.values()] == [
        [0.8, 1], [0.5, 1], [0.9, 1]
    ]  # fmt: skip
    display = constructed.plot()
    assert list(display.accuracy) == list(display.bars_) == WAYS
    assert all(np.isnan(shares[2]) for shares in display.accuracy.values())
    for way, shares in zip(WAYS, ([0.8, 1, 0], [0.5, 1, 0], [0.9, 1, 0]), strict=True):
        assert [bar.get_width() for bar in display.bars_[way]] == shares
    assert texts(display) == [
        ["80.0% of 10 rows", "100.0% of 1 row", "no row"],
        ["50.0% of 4 rows", "100.0% of 1 row", "no row"],
        ["90.0% of 10 rows", "100.0% of 1 row", "no row"],
    ]
    labels = display.ax_.get_yticklabels()
    assert [label.get_text() for label in labels] == [
        "$a$\nweight 0.75", "b\nweight 0.50", "c\nweight 1.00"
    ]  # fmt: skip
    assert not any(label.get_parse_math() for label in labels)
    assert [text.get_text() for text in display.ax_.get_legend().get_texts()] == WAYS
    assert len({bars[0].get_facecolor() for bars in display.bars_.values()}) == 3
    assert "rows that have the view" in display.ax_.get_xlabel()
    assert display.figure_ is display.ax_.figure


def test_bars_of_a_view_are_around_its_name_and_nothing_overlaps(constructed):
    display = constructed.plot()
    heights = np.array(
        [[bar.get_y() + bar.get_height() / 2 for bar in bars] for bars in display.bars_.values()]
    )
    np.testing.assert_allclose(heights[1], display.ax_.get_yticks())
    assert display.ax_.yaxis_inverted()  # the first on top
    order = np.sort([y for bars in display.bars_.values() for bar in bars
                     for y in (bar.get_y(), bar.get_y() + bar.get_height())])  # fmt: skip
    assert [bar.get_y() for k in range(3) for bar in [display.bars_[w][k] for w in WAYS]] == (
        pytest.approx(order[::2].tolist())
    )
    display.figure_.canvas.draw()
    boxes = [text.get_window_extent() for text in display.ax_.texts]
    assert max(box.x1 for box in boxes) < display.ax_.get_window_extent().x1
    boxes.sort(key=lambda box: -box.y0)
    assert all(upper.y0 > lower.y1 for upper, lower in pairwise(boxes))
    legend = display.ax_.get_legend().get_window_extent()
    assert legend.y0 >= display.ax_.get_window_extent().y1
    assert legend.y1 <= display.figure_.bbox.y1


def score(aligner, X, y, columns, rows):
    """Accuracy on some rows with these columns alone, by the aligner's own answers."""
    only = np.full_like(X, np.nan)
    for part in columns:
        only[:, part] = X[:, part]
    return aligner.score(only[rows], y[rows])


@pytest.mark.parametrize("in_parts", [False, True])
def test_accuracy_is_that_of_rows_that_lack_the_other_views(
    aligner, sets, X_test, in_parts, monkeypatch
):
    X, y = X_test.copy(), sets[0].y_test
    X[::4, :64] = np.nan  # they have the last view alone
    X[1::4, 64:] = np.nan
    if in_parts:
        monkeypatch.setattr(blocks, "STREAM_BYTES", 8 * 5 * 7)  # seven rows of five classes
    display = ViewsDisplay.from_estimator(aligner, X, y)
    assert display.names == ["a", "b", "c"]
    assert display.weights.tolist() == aligner.view_weights_.tolist()
    assert display.rows.tolist() == [[75, 75, 75], [75, 75, 50], [75, 75, 75]]
    for k, (name, columns) in enumerate(WIDTHS.items()):
        has = ~np.isnan(X[:, columns.start])
        others = [part for other, part in WIDTHS.items() if other != name]
        more = has & ~np.isnan(X[:, [part.start for part in others]]).all(axis=1)
        expected = [
            score(aligner, X, y, [columns], has),
            score(aligner, X, y, others, more),
            aligner.score(X[has], y[has]),
        ]
        assert [display.accuracy[way][k] for way in WAYS] == pytest.approx(expected)
    assert display.accuracy["alone"].max() < display.accuracy["all together"].max()


def test_a_view_that_no_row_has_has_no_bar(aligner, sets, X_test):
    X = X_test.copy()
    X[:, :32] = np.nan
    display = ViewsDisplay.from_estimator(aligner, X, sets[0].y_test)
    assert display.rows.tolist() == [[0, 100, 100]] * 3
    assert [row[0] for row in texts(display)] == ["no row"] * 3
    assert np.isfinite(display.accuracy["all together"][1:]).all()


def test_a_single_view_has_no_others(fit, sets, X_test):
    only = fit("a")
    display = ViewsDisplay.from_estimator(only, X_test, sets[0].y_test)
    assert display.rows.tolist() == [[100], [0], [100]]
    share = only.score(X_test, sets[0].y_test)
    assert display.accuracy["alone"] == display.accuracy["all together"] == share
    assert np.isnan(display.accuracy["all without it"]).all()


def test_no_row_is_refused(fit, aligner, sets, X_test):
    strict = fit(class_prior=aligner.class_prior, unknown_label="none", unknown_rate=0.9)
    assert (strict.predict(X_test) == "none").any()
    display = ViewsDisplay.from_estimator(strict, X_test, sets[0].y_test)
    again = ViewsDisplay.from_estimator(aligner, X_test, sets[0].y_test)
    np.testing.assert_array_equal(display.right, again.right)


def test_pipelines_transform_the_rows_first(aligner, sets, X_test):
    pipeline = make_pipeline(FunctionTransformer(lambda X: X / 3 - 1), aligner)
    _, (left, right) = plt.subplots(ncols=2)
    frame = pd.DataFrame(3 * (X_test + 1))
    labels = list(sets[0].y_test)
    display = ViewsDisplay.from_estimator(pipeline, frame, labels, ax=left, color="C3")
    direct = ViewsDisplay.from_estimator(aligner, X_test, labels, ax=right)
    np.testing.assert_array_equal(display.right, direct.right)
    assert (display.ax_, direct.ax_) == (left, right)
    assert len(plt.get_fignums()) == 1
    assert display.bars_["alone"][0].get_facecolor() == mpl.colors.to_rgba("C3")


def test_what_cannot_be_drawn_is_said(aligner, sets, X_test):
    y = sets[0].y_test
    view = aligner.named_views_["a"]
    for other in (view, LogisticRegression().fit(X_test, y), make_pipeline(view)):
        with pytest.raises(TypeError, match="estimator must be a MultiViewAligner .* got"):
            ViewsDisplay.from_estimator(other, X_test, y)
    with pytest.raises(ValueError, match="y has 99 labels for 100 rows of X"):
        ViewsDisplay.from_estimator(aligner, X_test, y[1:])
    with pytest.raises(ValueError, match="y has labels that the classes lack: .*'yeti'"):
        ViewsDisplay.from_estimator(aligner, X_test, ["yeti", *y[1:]])
    given = {"names": ["a", "b"], "weights": [1, 1], "right": [[1, 1]] * 3, "rows": [[2, 2]] * 3}
    for name, wrong, message in [
        ("weights", [1], r"weights has shape \(1,\) for 2 views; it must be \(2,\)"),
        ("right", [[1, 1]], r"right has shape \(1, 2\) for 2 views; it must be \(3, 2\)"),
        ("rows", [[2]] * 3, r"rows has shape \(3, 1\) for 2 views"),
    ]:
        with pytest.raises(ValueError, match=message):
            ViewsDisplay(**given | {name: wrong})
    assert not plt.get_fignums()


def test_displays_of_one_aligner_take_that_of_a_view(aligner, sets, X_test):
    for display, args in ((StopDisplay, ()), (UnlabeledDisplay, (X_test,))):
        with pytest.raises(TypeError, match="must be a FlowMatchingAligner .* got MultiView"):
            display.from_estimator(aligner, *args)
    assert StopDisplay.from_estimator(aligner.named_views_["a"]).stop_time > 0
    scores = NoveltyDisplay.from_estimator(aligner, X_test).scores
    np.testing.assert_array_equal(scores, aligner.score_samples(X_test))
