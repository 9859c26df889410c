"""The display of rows that look like a class, and of rows that look like none."""

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer

from flowalign import FlowMatchingAligner
from flowalign.plotting import NoveltyDisplay


@pytest.fixture(autouse=True)
def no_window():
    with mpl.rc_context({"backend": "agg"}):
        yield
        plt.close("all")


@pytest.fixture(scope="module")
def two_missing(data):
    """A fit to the first four of six classes."""
    mine = np.isin(data.y_train, data.class_names[:4])
    y = data.y_train[mine]
    return FlowMatchingAligner().fit(data.X_train[mine], y, data.class_embeddings.subset(y))


def legend(display):
    return [text.get_text() for text in display.ax_.get_legend().get_texts()]


def test_known_classes_and_other_rows_are_drawn_apart(two_missing, data):
    display = NoveltyDisplay.from_estimator(two_missing, data.X_test, data.y_test, bins=12)
    scores, known = two_missing.score_samples(data.X_test), data.y_test <= data.class_names[3]
    threshold = two_missing.unknown_threshold_
    groups = {
        "support samples": two_missing.support_scores_,
        "known classes": scores[known],
        "other rows": scores[~known],
    }
    assert list(display.histograms_) == list(groups)
    edges = np.histogram_bin_edges(np.concatenate(list(groups.values())), 12)
    for name, expected in groups.items():
        drawn = display.histograms_[name].get_data()
        np.testing.assert_allclose(drawn.edges, edges, rtol=1e-5)
        np.testing.assert_allclose(drawn.values, np.histogram(expected, edges)[0] / len(expected))
    colors = {bars.get_facecolor() for bars in display.histograms_.values()}
    assert len(colors) == 3
    assert display.threshold_line_.get_xdata()[0] == threshold
    assert legend(display) == [
        f"{name}: {np.mean(of < threshold):.0%} refused" for name, of in groups.items()
    ] + [f"threshold {threshold:.3g}"]
    assert display.figure_ is display.ax_.figure
    assert display.ax_.get_xlabel()
    assert display.ax_.get_ylabel()


def test_what_is_said_to_be_refused_is_what_predict_refuses(data):
    labelled = FlowMatchingAligner(unknown_label="none", unknown_rate=0.3)
    mine = np.isin(data.y_train, data.class_names[:4])
    labelled.fit(data.X_train[mine], data.y_train[mine])
    refused = np.mean(labelled.predict(data.X_test) == "none")
    assert 0 < refused < 1
    display = NoveltyDisplay.from_estimator(labelled, data.X_test)
    assert legend(display)[1] == f"rows: {refused:.0%} refused"
    # A row is not below a score that is itself the threshold.
    tie = NoveltyDisplay(support_scores=np.array([1.0]), scores=np.ones(3), threshold=1.0).plot()
    assert legend(tie)[:2] == ["support samples: 0% refused", "rows: 0% refused"]


def test_no_score_is_outside_the_bins():
    scores, support = np.array([0.0, 1.0]), np.array([-9.0, 9.0])
    for given in ({"scores": scores, "support_scores": support},
                  {"scores": support, "support_scores": scores}):  # fmt: skip
        display = NoveltyDisplay(**given, threshold=0.5).plot()
        for bars in display.histograms_.values():
            assert bars.get_data().values.sum() == 1


def test_without_labels_rows_are_one_histogram(two_missing, data):
    _, (left, right) = plt.subplots(ncols=2)
    display = NoveltyDisplay.from_estimator(two_missing, data.X_test, ax=left, linewidth=3)
    assert list(display.histograms_) == ["support samples", "rows"]
    assert {bars.get_linewidth() for bars in display.histograms_.values()} == {3}
    assert display.ax_ is left
    assert display.plot(ax=right).ax_ is right
    assert len(plt.get_fignums()) == 1


def test_labels_may_be_of_known_classes_alone_or_of_others_alone(two_missing, data):
    rows, labels = data.X_test[:3], data.y_test[:3]
    display = NoveltyDisplay.from_estimator(two_missing, rows, labels)
    assert list(display.histograms_) == ["support samples", "known classes"]
    display = NoveltyDisplay.from_estimator(two_missing, rows, ["yeti", "troll", "yeti"])
    assert list(display.histograms_) == ["support samples", "other rows"]


def test_names_alone_have_no_threshold(data):
    model = FlowMatchingAligner().fit(np.empty((0, 32)), [], data.class_embeddings)
    display = NoveltyDisplay.from_estimator(model, data.X_test, bins=5)
    assert list(display.histograms_) == ["rows"]
    assert display.threshold_line_ is None
    assert legend(display) == ["rows", "no threshold: too few support samples"]
    again = NoveltyDisplay(support_scores=np.empty(0), scores=np.ones(2), threshold=-np.inf).plot()
    assert again.threshold_line_ is None


def test_pipelines_tensors_and_numbers(data):
    codes = np.searchsorted(data.class_names, data.y_train)
    mine = codes < 4
    pipeline = make_pipeline(Normalizer(), FlowMatchingAligner())
    pipeline.fit(3 * data.X_train[mine], codes[mine])
    numbers = np.searchsorted(data.class_names, data.y_test)
    display = NoveltyDisplay.from_estimator(pipeline, 3 * data.X_test, numbers)
    np.testing.assert_array_equal(display.known, numbers < 4)
    np.testing.assert_array_equal(display.scores, pipeline.score_samples(3 * data.X_test))
    tensors = NoveltyDisplay.from_estimator(
        pipeline[-1], torch.tensor(data.X_test), list(torch.tensor(numbers, dtype=torch.float32))
    )
    np.testing.assert_array_equal(tensors.known, display.known)
    np.testing.assert_allclose(tensors.scores, display.scores, atol=1e-3)


def test_what_cannot_be_drawn_is_said(two_missing, data):
    X, y = data.X_test, data.y_test
    with pytest.raises(ValueError, match="y has 3 labels for 60 rows of X"):
        NoveltyDisplay.from_estimator(two_missing, X, y[:3])
    with pytest.raises(TypeError, match="y must have labels of the kind of the classes, 'class 0'"):
        NoveltyDisplay.from_estimator(two_missing, X, np.arange(60))
    with pytest.raises(ValueError, match="y has 1 missing labels"):
        NoveltyDisplay.from_estimator(two_missing, X, [*y[:59], None])
    other = LogisticRegression().fit(X, y)
    for estimator in (other, make_pipeline(Normalizer(), other)):
        with pytest.raises(TypeError, match="estimator must be .* got LogisticRegression"):
            NoveltyDisplay.from_estimator(estimator, X)
    assert not plt.get_fignums()
