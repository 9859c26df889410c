"""The fit of several views: samples that lack some, more samples, parameters, pipelines."""

import numpy as np
import pytest
import sklearn
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.ensemble import VotingClassifier
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from two_views import NETWORK, ONE, OTHER, WIDTH, fitted, lacking, make_views, two_views

from flowalign import FlowMatchingAligner, MultiViewAligner, reserve
from flowalign.fields import KINDS

CLOSE = {"rtol": 1e-6, "atol": 1e-6}


@pytest.fixture(scope="module")
def data():
    return make_views()


def same(one, other, X):
    assert_allclose(one.view_weights_, other.view_weights_, **CLOSE)
    assert_allclose(one.predict_proba(X), other.predict_proba(X), **CLOSE)
    assert_allclose(one.support_scores_, other.support_scores_, rtol=1e-5)


# ----------------------------------------------------------------- samples that lack views


@pytest.mark.parametrize("velocity_field", KINDS)
def test_each_view_is_fitted_to_the_samples_that_have_it(data, velocity_field, monkeypatch):
    if velocity_field == "mlp":  # which needs all rows, however many are kept otherwise
        monkeypatch.setattr(reserve, "MOST", 10)
    rows = {"one": [0, 5], "other": [1, 9, 13]}
    params = NETWORK | {"velocity_field": velocity_field}
    views = two_views(data, **params)
    several = MultiViewAligner(views).fit(lacking(data.X, **rows), data.y)
    for name, aligner, columns in views:
        here = np.setdiff1d(np.arange(len(data.X)), rows[name])
        alone = clone(aligner).fit(data.X[here, columns], data.y[here])
        found = several.named_views_[name].predict_proba(data.X_test[:, columns])
        assert_allclose(found, alone.predict_proba(data.X_test[:, columns]), **CLOSE)
        assert several.named_views_[name].n_features_in_ == WIDTH


def test_a_view_that_no_sample_has_knows_the_names(data):
    several = fitted(data, lacking(data.X, other=range(20)))
    X = data.X[:0, OTHER]
    zero_shot = FlowMatchingAligner(data.tables[1]).fit(X, data.y[:0])
    X = data.X_test[:, OTHER]
    assert_array_equal(several.named_views_.other.predict_proba(X), zero_shot.predict_proba(X))
    assert_allclose(several.view_weights_[1], 2**-0.5)


def test_rows_without_labels_help_the_views_that_they_have(data):
    rows = {"one": range(30), "other": range(50, 70)}
    X = lacking(data.X_test, **rows)
    several = MultiViewAligner(two_views(data)).fit(data.X, data.y, X_unlabeled=X)
    for name, aligner, columns in two_views(data):
        here = np.setdiff1d(np.arange(len(X)), rows[name])
        alone = aligner.fit(data.X[:, columns], data.y, X_unlabeled=X[here, columns])
        found = several.named_views_[name].predict_proba(data.X_test[:, columns])
        assert_allclose(found, alone.predict_proba(data.X_test[:, columns]), **CLOSE)
    marked = fitted(
        data,
        np.vstack([data.X, X[50:]]),
        np.concatenate([data.y, ["-"] * 50]),
        unlabeled_label="-",
    )
    some = MultiViewAligner(two_views(data)).fit(data.X, data.y, X_unlabeled=X[50:])
    same(marked, some, data.X_test)
    both = MultiViewAligner(two_views(data), unlabeled_label="-")
    both.fit(
        np.vstack([data.X, X[70:90]]),
        np.concatenate([data.y, ["-"] * 20]),
        X_unlabeled=X[50:70],
    )
    # Rows of X_unlabeled come first, as for one aligner.
    in_turn = MultiViewAligner(two_views(data)).fit(data.X, data.y, X_unlabeled=X[50:90])
    assert_allclose(
        both.named_views_.one.transduction_proba_, in_turn.named_views_.one.transduction_proba_
    )


def test_unlabeled_rows_of_pixels_may_be_dark(data):
    X, more = (np.clip(X * 100 + 100, 0, 255).astype(np.uint8) for X in (data.X, data.X_test))
    more[4, OTHER] = 0
    several = MultiViewAligner(two_views(data)).fit(X, data.y, X_unlabeled=more)
    assert len(several.named_views_.other.transduction_) == len(more)


def test_an_empty_set_of_unlabeled_rows_changes_nothing(data):
    X = data.X_test
    none = MultiViewAligner(two_views(data)).fit(data.X, data.y, X_unlabeled=X[:0])
    same(none, fitted(data), data.X_test)


# --------------------------------------------------------------------- class embeddings


def test_class_embeddings_of_fit_are_for_views_without_their_own(data):
    one, other = data.tables
    given = {"class_embeddings": one}
    own = [("one", FlowMatchingAligner(), ONE), ("other", FlowMatchingAligner(other), OTHER)]
    same(MultiViewAligner(own).fit(data.X, data.y, **given), fitted(data), data.X_test)
    none = [("one", FlowMatchingAligner(), ONE), ("other", FlowMatchingAligner(), OTHER)]
    several = MultiViewAligner(none)
    as_dict = dict(zip(one.labels, one.vectors, strict=True))
    for form in (one, as_dict, one.vectors):
        several.fit(data.X, data.y, form)
        for _, view, _ in several.views_:
            assert_allclose(view._class_vectors, several.named_views_.one._class_vectors)
            assert view._class_vectors is not None
    assert_array_equal(several.classes_, np.unique(data.y))


# ------------------------------------------------------------------------- more samples


@pytest.mark.filterwarnings("ignore:.*of the variance:UserWarning")  # of few samples
@pytest.mark.parametrize("most", [None, 10])
@pytest.mark.parametrize("complete", [True, False])
def test_samples_may_come_in_any_blocks(data, complete, most, monkeypatch):
    if most is not None:
        monkeypatch.setattr(reserve, "MOST", most)
    X = data.X if complete else lacking(data.X, one=[0, 5, 6], other=[1, 9, 13, 14, 15])
    whole = fitted(data, X)
    assert len(whole._reserve) == (most or 20)
    rng = np.random.default_rng(0)
    for n_blocks in (1, 3, 20):
        several = MultiViewAligner(two_views(data))
        for rows in np.array_split(rng.permutation(20), n_blocks):
            several.partial_fit(X[rows], data.y[rows])
        same(several, whole, lacking(data.X_test, one=range(5)))
        assert several.unknown_threshold_ == pytest.approx(whole.unknown_threshold_, rel=1e-5)


def test_classes_may_come_later(data):
    views = [("one", FlowMatchingAligner(), ONE), ("other", FlowMatchingAligner(), OTHER)]
    late = data.y == "class 0"
    several = MultiViewAligner(views, class_prior="empirical")
    several.partial_fit(data.X[~late], data.y[~late])
    assert len(several.classes_) == 4
    several.partial_fit(data.X[late], data.y[late])
    whole = MultiViewAligner(views, class_prior="empirical").fit(data.X, data.y)
    assert_array_equal(several.classes_, whole.classes_)
    assert_array_equal(several.class_prior_, whole.class_prior_)
    same(several, whole, data.X_test)
    named = MultiViewAligner(views).partial_fit(
        data.X[~late], data.y[~late], classes=np.unique(data.y)
    )
    assert len(named.classes_) == 5
    assert "class 0" not in named.predict(data.X_test)


def test_names_of_later_classes_come_with_them(data):
    views = [("one", FlowMatchingAligner(), ONE), ("other", FlowMatchingAligner(), OTHER)]
    table, late = data.tables[0], data.y == "class 0"
    several = MultiViewAligner(views)
    several.partial_fit(data.X[~late], data.y[~late], table.subset(data.y[~late]))
    with pytest.raises(ValueError, match="^View 'one': y has new labels, 'class 0', without"):
        several.partial_fit(data.X[late], data.y[late])
    several.partial_fit(data.X[late], data.y[late], table.subset(["class 0"]))
    same(several, MultiViewAligner(views).fit(data.X, data.y, table), data.X_test)


def test_unlabeled_rows_stay_when_samples_come(data):
    several = MultiViewAligner(two_views(data)).fit(data.X, data.y, X_unlabeled=data.X_test)
    before = several.predict_proba(data.X_test)
    several.partial_fit(data.X[:0], data.y[:0])
    assert_allclose(several.predict_proba(data.X_test), before, **CLOSE)


# ----------------------------------------------------------------------------- parameters


def test_parameters_of_views_go_by_their_names(data):
    several = MultiViewAligner(two_views(data))
    given = several.views
    assert several.get_params()["one__noise"] == 0.3
    several.set_params(one__noise=0.1, class_prior="empirical")
    assert several.views[0][1].noise == 0.1
    several.set_params(other=FlowMatchingAligner(noise=0.2))
    assert several.get_params()["other__noise"] == 0.2
    assert [view[2] for view in several.views] == [ONE, OTHER]
    assert given[1][1].noise == 0.3
    for name in ("third", "one__third"):
        with pytest.raises(ValueError, match="Invalid parameter 'third'"):
            several.set_params(**{name: 1})
    again = clone(several)
    assert again.views is not several.views
    assert again.views[0][1] is not several.views[0][1]
    assert again.get_params()["one__noise"] == 0.1


def test_parameters_of_views_act_when_more_samples_come(data):
    several = fitted(data).set_params(one__noise=0.05, other__n_steps=2)
    several.partial_fit(data.X[:0], data.y[:0])
    views = two_views(data)
    views[0][1].set_params(noise=0.05)
    views[1][1].set_params(n_steps=2)
    same(several, MultiViewAligner(views).fit(data.X, data.y), data.X_test)


def test_aligners_given_stay_as_they_are(data):
    views = two_views(data)
    MultiViewAligner(views).fit(data.X, data.y)
    assert not any(hasattr(aligner, "classes_") for _, aligner, _ in views)


def test_parameters_act_with_the_next_fit(data):
    several = fitted(data)
    before = several.predict_proba(data.X_test)
    several.set_params(views=two_views(data)[1:], class_prior="empirical")
    assert_array_equal(several.predict_proba(data.X_test), before)
    assert len(several.fit(data.X, data.y).views_) == 1


def test_zero_steps_of_fitted_views_are_cosines(data):
    several = fitted(data)
    for aligner in several.named_views_.values():
        aligner.set_params(n_steps=0)
    aligned = several.transform(data.X_test)
    units = [X / np.linalg.norm(X, axis=1)[:, None] for X in np.hsplit(data.X_test, 2)]
    assert_allclose(aligned, np.hstack(units), **CLOSE)


def test_a_search_goes_over_parameters_of_views_and_over_views(data):
    other = [FlowMatchingAligner(table) for table in data.tables]
    grid = {"one__noise": [0, 0.3], "other": other, "class_prior": ["uniform", "empirical"]}
    search = GridSearchCV(MultiViewAligner(two_views(data)), grid, cv=2).fit(data.X, data.y)
    assert len(search.cv_results_["params"]) == 8
    assert search.best_score_ > 0.5


def test_meta_estimators_that_clone(data):
    several = MultiViewAligner(two_views(data))
    scores = cross_val_score(several, data.X, data.y, cv=2, scoring="neg_log_loss")
    assert np.isfinite(scores).all()
    codes = np.searchsorted(np.unique(data.y), data.y)
    views = [(n, FlowMatchingAligner(), columns) for n, _, columns in several.views]
    vote = VotingClassifier([("v", MultiViewAligner(views))], voting="soft").fit(data.X, codes)
    alone = MultiViewAligner(views).fit(data.X, codes)
    assert_allclose(vote.predict_proba(data.X_test), alone.predict_proba(data.X_test))


# -------------------------------------------------------------------------------- pipelines


def test_columns_come_out_of_a_column_transformer(data):
    parts = list(range(WIDTH)), list(range(WIDTH, 2 * WIDTH))
    scaler = make_column_transformer(*((StandardScaler(), columns) for columns in parts))
    views = [(name, FlowMatchingAligner(), part) for name, part in (("a", ONE), ("b", OTHER))]
    X = lacking(data.X, one=[3])
    found = make_pipeline(scaler, MultiViewAligner(views)).fit(X, data.y)
    expected = MultiViewAligner(views).fit(StandardScaler().fit_transform(X), data.y)
    scaled = StandardScaler().fit(X).transform(data.X_test)
    assert_allclose(found.predict_proba(data.X_test), expected.predict_proba(scaled), **CLOSE)


def test_features_may_come_out_as_a_frame(data):
    pandas = pytest.importorskip("pandas")
    several = MultiViewAligner(two_views(data)).set_output(transform="pandas")
    frame = several.fit_transform(data.X, data.y)
    assert isinstance(frame, pandas.DataFrame)
    assert frame.columns.tolist() == several.get_feature_names_out().tolist()
    assert_array_equal(several.predict(data.X_test), fitted(data).predict(data.X_test))


def test_metadata_are_routed_without_a_request(data):
    views = [("one", FlowMatchingAligner(), ONE), ("other", FlowMatchingAligner(), OTHER)]
    given = {"class_embeddings": data.tables[0], "X_unlabeled": data.X_test}
    with sklearn.config_context(enable_metadata_routing=True):
        several = MultiViewAligner(views)
        pipe = make_pipeline(StandardScaler(), several, transform_input=["X_unlabeled"])
        pipe.fit(data.X, data.y, **given)
        search = GridSearchCV(several, {"one__noise": [0.3]}, cv=2)
        search.fit(data.X, data.y, class_embeddings=data.tables[0])
    scaled = StandardScaler().fit(data.X)
    given["X_unlabeled"] = scaled.transform(data.X_test)
    expected = MultiViewAligner(views).fit(scaled.transform(data.X), data.y, **given)
    found = pipe.predict_proba(data.X_test)
    assert_allclose(found, expected.predict_proba(given["X_unlabeled"]), **CLOSE)
    assert search.best_estimator_.named_views_.one._class_vectors is not None
