"""Scorers and meta-estimators of scikit-learn, which know the classes of y alone.

The guide's page on them says the same in words.
"""

import warnings

import numpy as np
import pytest
import sklearn
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import BaggingClassifier, StackingClassifier, VotingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, make_scorer
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.multiclass import OneVsOneClassifier
from sklearn.preprocessing import LabelEncoder

from flowalign import ClassEmbeddings, FlowMatchingAligner
from flowalign.datasets import make_cross_modal

SKLEARN = tuple(int(part) for part in sklearn.__version__.split(".")[:2])
# Of oldest release in which they take more than two classes.
SCORERS = {
    "neg_log_loss": (1, 6),
    "roc_auc_ovr": (1, 6),
    "top_k_accuracy": (1, 6),
    "neg_brier_score": (1, 7),
    "d2_log_loss_score": (1, 8),
}
SCORERS = [name for name, since in SCORERS.items() if since <= SKLEARN]
METHODS = ["sigmoid", "isotonic"] + ["temperature"] * (SKLEARN >= (1, 8))
flow = FlowMatchingAligner


def proba_accuracy(table, X, y):
    proba = cross_val_predict(flow(table), X, y, cv=3, method="predict_proba")
    return (np.unique(y)[proba.argmax(axis=1)] == y).mean()


def searched(table, X, y):
    search = GridSearchCV(flow(table), {"noise": [0, 0.3]}, cv=3, scoring="neg_log_loss")
    return search.fit(X, y).score(X, y)


def accuracy(meta_estimator):
    """A call, of one of `CALLS`, that fits a meta-estimator and scores it."""
    return lambda table, X, y: meta_estimator(flow(table)).fit(X, y).score(X, y)


def calibrated(method, ensemble):
    return accuracy(lambda f: CalibratedClassifierCV(f, method=method, cv=3, ensemble=ensemble))


# Each takes a table of class embeddings, X and y, and returns a score that is about 1 if all is
# well (scorers that are losses, about 0).
CALLS = {
    name: lambda table, X, y, name=name: cross_val_score(flow(table), X, y, cv=3, scoring=name)
    for name in SCORERS
}
CALLS |= {
    "search": searched,
    "cross_val_predict": proba_accuracy,
    "stacking": accuracy(lambda f: StackingClassifier([("f", f)], LogisticRegression(), cv=3)),
    "bagging": accuracy(lambda f: BaggingClassifier(f, 3, random_state=0)),
    "hard voting": accuracy(lambda f: VotingClassifier([("f", f)])),
    "soft voting": accuracy(lambda f: VotingClassifier([("f", f)], voting="soft")),
}
CALLS |= {f"calibrated, {m}, {e}": calibrated(m, e) for m in METHODS for e in (True, False)}
# What the guide says that each call does with y before it reaches fit.
RELABELLED = ["cross_val_predict", "stacking", "bagging", "hard voting", "soft voting"]
AS_GIVEN = [*SCORERS, "search", "calibrated, sigmoid, True", "calibrated, isotonic, True"]


@pytest.fixture(scope="module", params=["strings", "integers"])
def lacking(request):
    """X, y and a table of seven names, of which the first has no samples."""
    data = make_cross_modal(7, n_train=6, n_features=32, random_state=0)
    names = np.array(data.class_names) if request.param == "strings" else np.arange(7)
    codes = np.searchsorted(data.class_names, data.y_train)
    table = ClassEmbeddings(names, data.class_embeddings.vectors)
    return data.X_train[codes > 0], names[codes[codes > 0]], table


@pytest.fixture(scope="module")
def strings():
    data = make_cross_modal(6, n_train=6, n_features=32, random_state=0)
    return data.X_train, data.y_train, data.class_embeddings


@pytest.mark.filterwarnings("ignore:scipy.optimize. The `disp`:DeprecationWarning")
@pytest.mark.parametrize("call", CALLS)
def test_codes_of_the_labels_in_y_serve_every_call(lacking, call):
    X, y, table = lacking
    encoder = LabelEncoder().fit(y)
    score = CALLS[call](table.subset(y).relabel(encoder), X, encoder.transform(y))
    is_loss = call in ("neg_log_loss", "neg_brier_score", "search")
    np.testing.assert_allclose(score, 0 if is_loss else 1, atol=0.1)


@pytest.mark.parametrize("call", CALLS)
def test_no_call_is_silent_about_a_name_without_samples(lacking, call):
    # An unscored fold, and labels that may be codes, are warnings, which are errors here.
    with pytest.raises((ValueError, TypeError, IndexError, UserWarning, RuntimeWarning)):
        CALLS[call](lacking[2], *lacking[:2])


@pytest.mark.filterwarnings("ignore:scipy.optimize. The `disp`:DeprecationWarning")
@pytest.mark.parametrize("call", CALLS)
def test_what_each_call_hands_on(strings, call):
    X, y, table = strings
    forms = {"labels": table, "codes": table.relabel(LabelEncoder().fit(y))}
    taken = []
    for form, given in forms.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                score = CALLS[call](given, X, y)
            except ValueError:
                continue
        if np.isfinite(score).all():
            taken.append(form)
    temperature = call.startswith("calibrated, temperature")
    expected = ["labels"] * (call in AS_GIVEN) + ["codes"] * (call in RELABELLED or temperature)
    assert taken == expected


def test_a_voted_label_is_the_one_that_the_aligner_predicts(lacking):
    X, y, table = lacking
    encoder = LabelEncoder().fit(y)
    codes, table = encoder.transform(y), table.subset(y)
    vote = VotingClassifier([("f", flow(table.relabel(encoder)))]).fit(X, codes)
    noisy = X + np.random.default_rng(0).normal(scale=0.3, size=X.shape)
    alone = flow(table).fit(X, y).predict(noisy)
    assert 0.3 < (alone == y).mean() < 1
    np.testing.assert_array_equal(encoder.inverse_transform(vote.predict(noisy)), alone)


def test_a_scorer_that_is_told_the_classes_takes_the_whole_table(lacking):
    X, y, table = lacking
    scorer = make_scorer(
        log_loss, response_method="predict_proba", greater_is_better=False, labels=table.classes
    )
    losses = -cross_val_score(flow(table), X, y, cv=3, scoring=scorer)
    assert (losses < 0.1).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_fitted_aligner_is_calibrated_with_labels_as_they_are(strings, method):
    X, y, table = strings
    fitted = FrozenEstimator(flow(table).fit(X, y))
    assert CalibratedClassifierCV(fitted, method=method).fit(X, y).score(X, y) > 0.9


# ---------------------------------------------------------- labels that may be codes of others


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(0).standard_normal((12, 4))


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (np.arange(7), [0, 1, 2]),
        (np.arange(4), [0]),
        (np.arange(7), np.array([0, 1, 2], dtype=np.int32)),
        (np.arange(7.0), [0, 1, 2]),
        ([-1, 0, 1, 2], [0, 1, 2]),
        ([0, 1, 2, 50], [0, 1, 2]),
    ],
)
def test_integers_from_0_that_may_be_codes_are_pointed_out(rows, names, labels):
    table = ClassEmbeddings(names, rows[: len(names)])
    with pytest.warns(UserWarning, match=r"integers 0 to.*VotingCl.*subset\(y\)\.relabel") as seen:
        flow(table, n_steps=2, logit_scale=9).fit(rows, np.resize(labels, 12))
    assert seen[0].filename == __file__


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (np.arange(3), [0, 1, 2]),  # all names have samples
        (np.arange(7), [1, 2, 3]),
        (np.arange(7), [0, 2, 3]),
        (np.arange(7), [0.0, 1.0, 2.0]),  # codes are integers
        (np.arange(7), np.array([0, 1, 2], dtype=np.uint8)),  # signed ones
        (list("abcd"), ["a", "b"]),
        (["0", "1", "2"], ["0", "1"]),
        ([True, False], [False]),
    ],
)
def test_labels_that_cannot_be_codes_pass_without_a_word(rows, names, labels):
    table = ClassEmbeddings(names, rows[: len(names)])
    flow(table, n_steps=2, logit_scale=9).fit(rows, np.resize(labels, 12))


def test_one_against_one_is_told_that_its_labels_may_be_codes(lacking):
    X, y, table = lacking
    with pytest.raises((ValueError, UserWarning), match=r"codes.*subset\(y\)\.relabel"):
        OneVsOneClassifier(flow(table)).fit(X, y)


@pytest.mark.parametrize(
    ("names", "y", "message"),
    [
        (["a", "b", "c"], [0, 1, 2], r"look like the integer codes.*subset\(y\)\.relabel"),
        ([1, 2, 3], [0, 1, 2], r"look like the integer codes.*subset\(y\)\.relabel"),
        ([0, 1, 2], ["a", "b", "c"], r"If it holds codes.*encoder\.transform\(y\)"),
        ([0, 1, 2], [5, 6, 7], r"If it holds codes.*encoder\.transform\(y\)"),
        (["a", "b", "c"], ["a", "b", "d"], r"lacks: 'd'; it has 'a', 'b', 'c'\.$"),
        ([1, 5, 9], [1, 5, 50], r"lacks: 50; it has 1, 5, 9\.$"),
    ],
)
def test_codes_on_one_side_alone_are_explained(rows, names, y, message):
    with pytest.raises(ValueError, match=message):
        flow(ClassEmbeddings(names, rows[:3])).fit(rows[:3], y)
