"""The display of what unlabelled rows changed."""

from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import flowalign
from flowalign import FlowMatchingAligner
from flowalign.datasets import make_cross_modal
from flowalign.plotting import UnlabeledDisplay


@pytest.fixture(autouse=True)
def no_window():
    with mpl.rc_context({"backend": "agg"}):
        yield
        plt.close("all")


@pytest.fixture(scope="module")
def data():
    """Two labelled rows a class are not enough here, so that a pool changes answers."""
    return make_cross_modal(10, n_train=22, n_test=20, n_features=48, difficulty=3, random_state=1)


@pytest.fixture(scope="module")
def labelled(data):
    return np.arange(len(data.y_train)) % 22 < 2


@pytest.fixture(scope="module")
def fit(data, labelled):
    """Fit without or with the pool, to the same number of steps."""

    def fit(*, pool=True, **params):
        settings = {"n_steps": 5, "max_iter": 2, "n_blocks": 1, "random_state": 0}
        aligner = FlowMatchingAligner(data.class_embeddings, **settings | params)
        unlabeled = data.X_train[~labelled] if pool else None
        return aligner.fit(data.X_train[labelled], data.y_train[labelled], X_unlabeled=unlabeled)

    return fit


@pytest.fixture(scope="module")
def found(fit):
    return fit()


def counts(answers, mask, classes):
    return [np.sum(answers[mask] == c) for c in classes]


def numbers(display):
    """What stands beside the bars, the heading left out."""
    labels = display.numbers_ax_.get_yticklabels()
    return [[float(number) for number in label.get_text().split()] for label in labels[1:]]


def names(display):
    return [label.get_text() for label in display.ax_.get_yticklabels()]


@pytest.fixture
def constructed():
    return UnlabeledDisplay(
        classes=np.array(["$a$", "b", "c", "d"]),
        agreement=np.array([0.9, 0.5, 0.2, 0.5]),
        weight=np.array([8.0, 4.25, 1.5, 0.0]),
        before=["$a$", "$a$", "b", "b", "b", "c", "d"],
        after=["$a$", "b", "c", "c", "b", "$a$", "d"],
    )


def test_classes_are_sorted_by_agreement_with_their_numbers_beside_them(constructed):
    assert constructed.left.tolist() == [1, 2, 1, 0]
    assert constructed.came.tolist() == [1, 1, 2, 0]
    display = constructed.plot(color="C3")
    assert names(display) == ["c", "b", "d", "$a$"]
    assert [bar.get_width() for bar in display.bars_] == [0.2, 0.5, 0.5, 0.9]
    assert numbers(display) == [[1.5, 1, 2], [4.2, 2, 1], [0, 0, 0], [8, 1, 1]]
    heading = display.numbers_ax_.get_yticklabels()[0].get_text().split("  ")
    assert [word.strip() for word in heading if word] == ["counts for", "rows left", "rows came"]
    # Bar, name and numbers of a class are at one height, the least agreeing on top.
    heights = [bar.get_y() + bar.get_height() / 2 for bar in display.bars_]
    np.testing.assert_allclose(heights, display.ax_.get_yticks())
    np.testing.assert_allclose(heights, display.numbers_ax_.get_yticks()[1:])
    assert display.ax_.get_ylim() == display.numbers_ax_.get_ylim()
    assert display.ax_.yaxis_inverted()
    assert not any(label.get_parse_math() for label in display.ax_.get_yticklabels())
    assert display.bars_[0].get_facecolor() == mpl.colors.to_rgba("C3")
    assert display.figure_ is display.ax_.figure
    said = display.ax_.get_xlabel()
    assert said.endswith("the class of 4 of 7 rows changed")
    assert display.plot(max_classes=4).ax_.get_xlabel() == said


def test_of_many_classes_the_least_agreeing_are_shown():
    classes = np.arange(100)
    agreement = np.random.default_rng(0).permutation(np.linspace(0.01, 1, 100))
    display = UnlabeledDisplay(
        classes=classes, agreement=agreement, weight=10 * agreement, before=[3, 7], after=[3, 7]
    ).plot(max_classes=30)
    order = np.argsort(agreement)
    assert names(display) == [str(c) for c in order[:30]]
    assert len(display.bars_) == len(numbers(display)) == 30
    assert display.ax_.get_xlabel().endswith("\n70 classes that agree no less are not shown")
    # No name and no number overlaps the next, and none is outside the figure.
    display.figure_.canvas.draw()
    for ax in (display.ax_, display.numbers_ax_):
        boxes = [label.get_window_extent() for label in ax.get_yticklabels()]
        boxes.sort(key=lambda box: -box.y0)
        assert all(upper.y0 > lower.y1 for upper, lower in pairwise(boxes))
        assert min(box.x0 for box in boxes) >= 0
        assert max(box.x1 for box in boxes) <= display.figure_.bbox.width
    assert len(display.plot().bars_) == 20


def test_of_classes_that_agree_equally_the_most_changed_are_first():
    same = {"classes": np.arange(5), "agreement": np.ones(5), "weight": np.ones(5)}
    display = UnlabeledDisplay(**same, before=[2, 4, 4], after=[4, 1, 3]).plot(max_classes=4)
    assert names(display) == ["4", "1", "2", "3"]


@pytest.mark.parametrize("params", [{}, {"velocity_field": "mlp"}, {"noise": 0.0}])
def test_answers_without_the_pool_are_those_of_a_fit_without_it(params, fit, data):
    found, alone = fit(**params), fit(**params, pool=False)
    display = UnlabeledDisplay.from_estimator(found, data.X_test)
    before, after = alone.predict(data.X_test), found.predict(data.X_test)
    changed = before != after
    assert 0 < changed.sum() < len(changed)
    assert display.left.tolist() == counts(before, changed, data.class_names)
    assert display.came.tolist() == counts(after, changed, data.class_names)
    assert display.n_rows == len(data.X_test)
    np.testing.assert_array_equal(display.agreement, found.class_agreement_)
    np.testing.assert_array_equal(display.weight, found.unlabeled_weight_)
    # float64 on the CPU, and nothing of the aligner has changed.
    rows = data.X_test[:50].astype(np.float64)
    proba = alone.predict_proba(rows)
    np.testing.assert_allclose(found._without_unlabeled().predict_proba(rows), proba, atol=1e-5)
    np.testing.assert_array_equal(found.predict(data.X_test), after)
    assert len(found.transduction_)


def test_loaded_aligners_keep_what_it_takes(found, data, tmp_path):
    flowalign.save(found, tmp_path / "aligner.flow")
    loaded = flowalign.load(tmp_path / "aligner.flow")
    display = UnlabeledDisplay.from_estimator(found, data.X_test)
    again = UnlabeledDisplay.from_estimator(loaded, data.X_test)
    assert display.left.sum() > 0
    for name in ("left", "came", "agreement", "weight", "classes"):
        np.testing.assert_array_equal(getattr(again, name), getattr(display, name))


def test_no_row_is_refused_and_zero_steps_change_nothing(fit, found, data):
    display = UnlabeledDisplay.from_estimator(found, data.X_test)
    strict = fit(unknown_label="none", unknown_rate=0.9)
    again = UnlabeledDisplay.from_estimator(strict, data.X_test)
    assert again.left.tolist() == display.left.tolist()
    assert strict.unknown_label == "none"
    still = fit().set_params(n_steps=0, logit_scale=1.0)
    assert UnlabeledDisplay.from_estimator(still, data.X_test).left.sum() == 0


def test_pipelines_transform_the_rows_first(data, labelled):
    shifted, new = 3 * data.X_train + 1, 3 * data.X_test + 1
    codes = np.where(labelled, np.searchsorted(data.class_names, data.y_train), -1)
    pipeline = make_pipeline(StandardScaler(), FlowMatchingAligner(unlabeled_label=-1))
    pipeline.fit(shifted, codes)
    _, (left, right) = plt.subplots(ncols=2)
    display = UnlabeledDisplay.from_estimator(pipeline, new, max_classes=4, ax=left)
    direct = UnlabeledDisplay.from_estimator(pipeline[-1], pipeline[0].transform(new), ax=right)
    assert display.left.sum() > 0
    assert display.left.tolist() == direct.left.tolist()
    assert display.ax_ is left
    assert len(display.bars_) == 4
    assert len(plt.get_fignums()) == 1
    single = UnlabeledDisplay.from_estimator(pipeline[1:], pipeline[0].transform(new))
    assert single.came.tolist() == direct.came.tolist()


def test_what_cannot_be_drawn_is_said(fit, found, constructed, data):
    with pytest.raises(ValueError, match="no unlabelled rows to plot; fit it with X_unlabeled"):
        UnlabeledDisplay.from_estimator(fit(pool=False), data.X_test)
    other = LogisticRegression().fit(data.X_test, data.y_test)
    with pytest.raises(TypeError, match="estimator must be .* got LogisticRegression"):
        UnlabeledDisplay.from_estimator(other, data.X_test)
    for plot in (constructed.plot, lambda **kw: UnlabeledDisplay.from_estimator(found, [], **kw)):
        with pytest.raises(ValueError, match="max_classes"):
            plot(max_classes=0)
        with pytest.raises(TypeError, match="max_classes"):
            plot(max_classes=2.5)
    given = {"classes": np.array(["a", "b"]), "agreement": np.ones(2), "weight": np.ones(2),
             "before": ["a"], "after": ["b"]}  # fmt: skip
    for name, wrong, message in [
        ("classes", np.array(["b", "a"]), "classes must be sorted and distinct, got .*'b'"),
        ("agreement", np.ones(3), r"agreement has shape \(3,\) for 2 classes"),
        ("weight", np.ones((2, 1)), r"weight has shape \(2, 1\) for 2 classes"),
        ("after", ["a", "b"], "before has 1 labels and after has 2"),
        ("before", ["z"], r"before has labels that the classes lack: \['z'\]"),
        ("after", ["z"], r"after has labels that the classes lack"),
    ]:
        with pytest.raises(ValueError, match=message):
            UnlabeledDisplay(**given | {name: wrong})
    assert not plt.get_fignums()
