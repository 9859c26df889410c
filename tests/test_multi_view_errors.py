"""What several views refuse, and how they say it."""

import copy

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from two_views import NETWORK, ONE, OTHER, WIDTH, fitted, lacking, make_views, two_views
from two_views import __file__ as two_views_file

from flowalign import ClassEmbeddings, FlowMatchingAligner, MultiViewAligner

flow = FlowMatchingAligner


@pytest.fixture(scope="module")
def data():
    return make_views()


# -------------------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    ("views", "message"),
    [
        (None, r"views must be a list of \(name, FlowMatchingAligner, columns\), got None"),
        ("one", "views must be a list of"),
        ({"one": flow()}, "views must be a list of"),
        ([("one", flow())], "views must be a list of"),
        ([("one", flow(), ONE, OTHER)], "views must be a list of"),
        ([flow()], "views must be a list of"),
        ([], "views is empty; give one"),
        ([(1, flow(), ONE)], "Names of views must be strings, got 1"),
        ([("", flow(), ONE)], "Names of views must be strings"),
        ([("a__b", flow(), ONE)], "must not contain __"),
        ([("a", flow(), ONE), ("a", flow(), OTHER)], "not unique"),
        ([("views", flow(), ONE)], "conflict with constructor arguments"),
        ([("one", LogisticRegression(), ONE)], "'one' must have a FlowMatchingAligner, got Log"),
        ([("one", "drop", ONE)], "must have a FlowMatchingAligner, got str"),
        ([("one", flow, ONE)], "must have a FlowMatchingAligner, got type"),
        ([("one", flow(noise=-1), ONE)], "View 'one': noise must be"),
        ([("one", flow(device="abacus"), ONE)], "View 'one': device"),
    ],
)
def test_views_that_are_none(data, views, message):
    aligner = MultiViewAligner(views)
    with pytest.raises((TypeError, ValueError), match=message):
        aligner.fit(data.X, data.y)
    assert aligner.get_params(deep=False)["views"] is views


@pytest.mark.parametrize(
    "shared",
    [
        {"class_prior": "empirical"},
        {"class_prior": np.full(5, 0.2)},
        {"unknown_label": "?"},
        {"unknown_rate": 0.1},
        {"unlabeled_label": "-"},
    ],
)
def test_parameters_that_views_share(data, shared):
    name = next(iter(shared))
    with pytest.raises(ValueError, match=f"view 'one' has {name}=.*; views share it: set it on"):
        MultiViewAligner(two_views(data, **shared)).fit(data.X, data.y)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"class_prior": "equal"}, "class_prior must be one of uniform, empirical; got 'equal'"),
        ({"class_prior": [0.5, 0.5]}, "class_prior must have one probability"),
        ({"unknown_rate": 0}, "unknown_rate must be"),
        ({"unknown_label": "class 1"}, "unknown_label=.* is the label of a class"),
        ({"unknown_label": -1}, "unknown_label=-1 must be a string"),
        ({"unlabeled_label": "class 1", "unknown_label": "class 1"}, "are both"),
    ],
)
def test_parameters_of_its_own(data, params, message):
    with pytest.raises((TypeError, ValueError), match=message):
        fitted(data, **params)


@pytest.mark.parametrize("params", [{"unknown_rate": 7}, {"unknown_label": "class 1"}])
def test_what_acts_when_predicting_is_checked_there(data, params):
    aligner = fitted(data).set_params(**params)
    with pytest.raises(ValueError, match=next(iter(params))):
        aligner.predict(data.X_test)


def test_parameters_of_fitted_views_are_checked_with_their_name(data):
    aligner = fitted(data)
    aligner.named_views_.other.set_params(n_steps=-1)
    with pytest.raises(ValueError, match="View 'other': n_steps"):
        aligner.predict(data.X_test)


# ------------------------------------------------------------------------------ samples


@pytest.mark.parametrize("X", ["tuple", "list", "dict"])
def test_views_beside_each_other_are_no_X(data, X):
    parts = {"one": data.X[:, ONE], "other": data.X[:, OTHER]}
    given = {"tuple": tuple, "list": list}[X](parts.values()) if X != "dict" else parts
    with pytest.raises(ValueError, match=f"side by side, got a {X} of.*numpy.hstack"):
        fitted(data, given)


def test_samples_without_class_embeddings_that_all_lack_a_view(data):
    views = [("one", flow(), ONE), ("other", flow(), OTHER)]
    with pytest.raises(ValueError, match="^View 'other': no sample has it, and there are no class"):
        MultiViewAligner(views).fit(lacking(data.X, other=range(20)), data.y)
    with pytest.raises(ValueError, match=r"0 sample\(s\)"):
        MultiViewAligner(views).fit(data.X[:0], data.y[:0])


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.empty((0, 32)), r"0 sample\(s\)"),
        (np.ones((3, 31)), "31 features, but MultiViewAligner is expecting 32"),
        (np.full((3, 32), np.inf), "infinity"),
        (np.full((3, 32), np.nan), "Rows of X have no view"),
        (np.ones(32), "Expected 2D array"),
    ],
)
def test_rows_to_predict(data, X, message):
    aligner = fitted(data)
    for method in ("predict", "predict_proba", "score_samples", "transform", "decision_function"):
        with pytest.raises(ValueError, match=message):
            getattr(aligner, method)(X)


def test_an_empty_frame_to_predict(data):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(data.X).add_prefix("x")
    aligner = fitted(data, frame)
    with pytest.raises(ValueError, match=r"0 sample\(s\)"):
        aligner.predict(frame[:0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X: X[:, :20], "X_unlabeled must have columns like X: .*20 features"),
        (lambda X: np.where(np.arange(len(X))[:, None] == 40, 0, X), "X_unlabeled has.*: 40"),
    ],
)
def test_unlabeled_rows(data, change, message):
    X = change(lacking(data.X_test, one=range(30)))
    with pytest.raises(ValueError, match=message):
        MultiViewAligner(two_views(data)).fit(data.X, data.y, X_unlabeled=X)


def test_warnings_name_the_view_and_reach_who_called(data):
    X = data.X.copy()
    X[:, WIDTH + 3] *= 100
    with pytest.warns(UserWarning, match="^View 'other': Column 3 of X has") as caught:
        fitted(data, X)
    assert len(caught) == 1
    assert caught[0].filename == two_views_file


# --------------------------------------------------------------------- class embeddings


def test_class_embeddings_that_no_view_needs(data):
    with pytest.raises(ValueError, match="aligner of every view has its own; leave either out"):
        MultiViewAligner(two_views(data)).fit(data.X, data.y, data.tables[0])


def test_views_of_other_classes(data):
    one = data.tables[0]
    more = ClassEmbeddings([*one.labels, "zebra"], np.vstack([one.vectors, -one.vectors[:1]]))
    for table in (data.tables[1], None):
        views = [("one", flow(more), ONE), ("other", flow(table), OTHER)]
        with pytest.raises(ValueError, match="'other' has the classes.*all views need the same"):
            MultiViewAligner(views).fit(data.X, data.y)


def test_labels_that_a_table_lacks_are_said_with_the_view(data):
    fewer = data.tables[1].subset(data.y[data.y != "class 2"])
    views = [two_views(data)[0], ("other", flow(fewer), OTHER)]
    with pytest.raises(ValueError, match="^View 'other': y has labels.* lacks: 'class 2'"):
        MultiViewAligner(views).fit(data.X, data.y)


# -------------------------------------------------------------------------- more samples


def test_other_views_than_the_fitted_ones_are_not_gone_on_with(data):
    aligner = fitted(data)
    before = aligner.predict_proba(data.X_test)
    one, other = two_views(data)
    for views in ([one], [other, one], [("a", *one[1:]), other]):
        with pytest.raises(ValueError, match="was fitted to 'one', 'other'; fit again"):
            aligner.set_params(views=views).partial_fit(data.X, data.y)
        np.testing.assert_array_equal(aligner.predict_proba(data.X_test), before)
    with pytest.raises(ValueError, match="View 'one' has other columns"):
        aligner.set_params(views=two_views(data, (OTHER, ONE))).partial_fit(data.X, data.y)


def test_networks_start_anew(data):
    views = [two_views(data)[0], ("other", flow(data.tables[1], **NETWORK), OTHER)]
    aligner = MultiViewAligner(views)
    assert not hasattr(aligner, "partial_fit")
    with pytest.raises(AttributeError, match="partial_fit") as caught:
        _ = aligner.partial_fit
    assert "learns from all samples together" in str(caught.value.__cause__.__cause__)
    assert hasattr(MultiViewAligner(None), "partial_fit")


def test_rows_marked_as_unlabeled_are_for_fit(data):
    aligner = fitted(data, unlabeled_label="-")
    with pytest.raises(ValueError, match="y has 2 rows marked unlabeled_label"):
        aligner.partial_fit(data.X[:3], ["-", "-", data.y[2]])


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_fit_that_fails_leaves_the_fitted_model_as_it_was(data, method):
    aligner = fitted(data)
    before = copy.deepcopy(aligner)
    new = np.where(data.y == "class 1", "zebra", data.y)
    zeros = data.X.copy()
    zeros[3, OTHER] = 0
    for X, y in ((data.X, new), (zeros, data.y), (data.X[:, :20], data.y), (data.X, data.y[1:])):
        with pytest.raises(ValueError):  # noqa: PT011  # what it says is said elsewhere
            getattr(aligner, method)(X, y)
        assert aligner.__dict__.keys() == before.__dict__.keys()
        np.testing.assert_array_equal(aligner.view_weights_, before.view_weights_)
        np.testing.assert_array_equal(
            aligner.predict_proba(data.X_test), before.predict_proba(data.X_test)
        )
    again = aligner.partial_fit(data.X_test, data.y_test)
    expected = before.partial_fit(data.X_test, data.y_test)
    np.testing.assert_array_equal(
        again.predict_proba(data.X_test), expected.predict_proba(data.X_test)
    )
