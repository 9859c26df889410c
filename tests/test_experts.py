"""The weights of the views, and what views say of samples that they have not seen."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize
from scipy.special import log_softmax
from two_views import NETWORK, ONE, OTHER, WIDTH, fitted, lacking, make_views, two_views

from flowalign import FlowMatchingAligner, MultiViewAligner, experts, reserve
from flowalign.fields import KINDS
from flowalign.parameters import IMPOSSIBLE
from flowalign.view_fit import ViewFit
from flowalign.views import ViewRows


@pytest.fixture(scope="module")
def data():
    return make_views()


# ------------------------------------------------------------------------------ weights


@pytest.mark.parametrize("n_views", [2, 3])
def test_weights_maximise_the_penalised_likelihood_of_held_out_samples(n_views):
    rng = np.random.default_rng(n_views)
    codes, log_prior = rng.integers(4, size=40), np.log([0.1, 0.2, 0.3, 0.4])
    said = [rng.normal(size=(40, 4)) + k * np.eye(4)[codes] for k in range(n_views)]
    said[1][:10] = np.nan  # rows that lack the view
    heard = [np.nan_to_num(part, nan=0.0) for part in said]
    mean = n_views**-0.5

    def loss(log_weights):
        weights = np.exp(log_weights)
        joint = log_prior + np.tensordot(weights, heard, axes=1)
        fit = -log_softmax(joint, axis=1)[np.arange(40), codes].sum()
        return fit + experts.SHAPE * (weights / mean - log_weights).sum()

    best = np.exp(minimize(loss, np.zeros(n_views), tol=1e-10).x)
    weights = experts.weigh(said, codes, log_prior, fixed=False)
    assert_allclose(weights, best, rtol=1e-3)
    assert np.ptp(weights) > 0.1


@pytest.mark.parametrize("n_views", [2, 3])
def test_weights_of_views_that_nobody_has_judged_are_between_1_and_1_over_V(n_views):
    said, codes = [np.zeros((3, 2))] * n_views, np.zeros(3, dtype=int)
    for rows, fixed in ((3, True), (0, False)):
        given = [part[:rows] for part in said], codes[:rows], np.zeros(2)
        assert_allclose(experts.weigh(*given, fixed=fixed), n_views**-0.5)
    assert_array_equal(experts.weigh(said[:1], codes, np.zeros(2), fixed=False), [1])


@pytest.mark.parametrize("velocity_field", KINDS)
def test_one_sample_a_class_chooses_nothing(velocity_field):
    data = make_views(n_train=1)
    views = two_views(data, **NETWORK | {"velocity_field": velocity_field})
    aligner = MultiViewAligner(views).fit(data.X, data.y)
    assert_allclose(aligner.view_weights_, 2**-0.5)


def test_samples_of_views_are_those_of_the_same_rows(data):
    order = np.random.default_rng(0).permutation(len(data.X))
    X = lacking(data.X, one=[2, 7], other=[4])
    one, other = fitted(data, X), fitted(data, X[order], data.y[order])
    assert_array_equal(one.view_weights_, other.view_weights_)
    assert_array_equal(one.predict_proba(data.X_test), other.predict_proba(data.X_test))
    assert_array_equal(one.support_scores_, other.support_scores_)


def test_weights_are_chosen_though_the_stop_and_the_scale_are_given(data):
    several = MultiViewAligner(two_views(data, n_steps=5, logit_scale=1)).fit(data.X, data.y)
    assert np.abs(several.view_weights_ - 2**-0.5).min() > 0.02


def test_a_prior_of_new_rows_does_not_weigh_views(data):
    uneven = fitted(data, class_prior=[0.96, 0.01, 0.01, 0.01, 0.01])
    assert_array_equal(uneven.view_weights_, fitted(data).view_weights_)


def test_weights_are_chosen_on_samples_that_all_their_views_have_judged(data, monkeypatch):
    seen = []
    monkeypatch.setattr(
        experts, "weigh", lambda said, codes, prior, fixed: seen.append(said) or np.ones(2)
    )
    X = lacking(data.X, one=[2, 8], other=[5, 6, 11])
    MultiViewAligner(two_views(data, **NETWORK)).fit(X, data.y)
    lack = np.isnan(np.stack(seen[0])[:, :, 0])
    assert 0 < lack.sum() <= 5
    assert not lack.all(axis=0).any()
    assert len(lack[0]) < len(X)


@pytest.mark.parametrize("n_shots", [4, 16])
def test_a_view_of_noise_costs_little(n_shots):
    lost = []
    for seed in range(3):
        data = make_views(n_shots, difficulty=4, seed=seed, n_classes=15, n_test=50)
        rng = np.random.default_rng(seed)
        data.X[:, OTHER] = rng.normal(size=(len(data.X), WIDTH))
        data.X_test[:, OTHER] = rng.normal(size=(len(data.X_test), WIDTH))
        several = fitted(data)
        alone = several.named_views_.one.score(data.X_test[:, ONE], data.y_test)
        lost.append(alone - several.score(data.X_test, data.y_test))
    assert np.mean(lost) < 0.01


def log_loss(aligner, X, y):
    codes = np.searchsorted(aligner.classes_, y)
    return -aligner.predict_log_proba(X)[np.arange(len(X)), codes].mean()


@pytest.mark.parametrize("n_shots", [4, 16])
def test_the_same_view_again_makes_nothing_more_certain(n_shots):
    losses = []
    for seed in range(4):
        data = make_views(n_train=n_shots, difficulty=5, seed=seed, n_test=100)
        views = two_views(data)
        again = [*views, ("again", *views[1][1:])]
        given = [MultiViewAligner(v).fit(data.X, data.y) for v in (views, again)]
        losses.append([log_loss(aligner, data.X_test, data.y_test) for aligner in given])
    two, three = np.mean(losses, axis=0)
    assert three < two + 0.02


# ------------------------------------------------------- what is said of unseen samples


def said_of_support(views, X, y, monkeypatch):
    """The fitted aligner, and for each view rows of features and a `FittedView`."""
    kept, whole = [], ViewFit.fit

    def fit(self, names, codes, reserve, columns, **params):
        kept.append((reserve.X[:, columns], whole(self, names, codes, reserve, columns, **params)))
        return kept[-1][1]

    with monkeypatch.context() as patch:
        patch.setattr(ViewFit, "fit", fit)
        return MultiViewAligner(views).fit(X, y), kept


def test_a_sample_is_judged_as_by_a_fit_to_all_others(data, monkeypatch):
    # Not quite: the weights of the evidence and the noise stay those of the fit to all samples.
    X = lacking(data.X, one=[2], other=[5, 6])
    aligner, kept = said_of_support(two_views(data), X, data.y, monkeypatch)
    for (features, view), (_, alone, columns) in zip(kept, aligner.views_, strict=True):
        assert np.isnan(view.said[~view.present]).all()
        apart, apart_when_seen = [], []
        for row in np.flatnonzero(view.present):
            same = (X[:, columns] == features[row]).all(axis=1)
            others = ~same & ~np.isnan(X[:, columns.start])
            stop = {"n_steps": alone.n_steps_, "step_size": alone.step_size_}
            refit = FlowMatchingAligner(alone.class_embeddings, **stop)
            refit.fit(X[others][:, columns], data.y[others])
            unseen, seen = (
                model.predict_log_proba(features[row : row + 1]) + np.log(5)
                for model in (refit, alone)
            )
            apart.append(np.abs(view.said[row] - unseen).mean())
            apart_when_seen.append(np.abs(seen - unseen).mean())
        assert np.mean(apart) < 0.4 * np.mean(apart_when_seen)


@pytest.mark.parametrize("velocity_field", KINDS)
@pytest.mark.parametrize("form", ["C", "F", "of two widths"])
def test_every_sample_is_judged_by_every_view_that_it_has(data, velocity_field, form, monkeypatch):
    params = NETWORK | {"velocity_field": velocity_field}
    X = lacking(data.X, one=[2], other=[5, 6])
    if form == "of two widths":
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(X).add_prefix("x")
        given = frame.astype(dict.fromkeys(frame.columns[ONE], np.float32))
    else:
        given = np.asarray(X, dtype=np.float32, order=form)
    _, kept = said_of_support(two_views(data, **params), given, data.y, monkeypatch)
    for _, view in kept:
        judged = ~np.isnan(view.said).any(axis=1)
        if velocity_field == "gaussian":
            assert_array_equal(judged, view.present)
        else:  # two of four folds
            assert 0.4 * len(X) <= judged.sum() <= 0.6 * len(X)
            assert not judged[~view.present].any()
        assert_array_equal(~np.isnan(view.ratios).any(axis=1), view.present)


def test_every_row_of_the_reserve_is_judged_by_every_view(data, monkeypatch):
    monkeypatch.setattr(reserve, "MOST", 10)
    _, kept = said_of_support(two_views(data), data.X, data.y, monkeypatch)
    for features, view in kept:
        assert len(features) == 10
        assert not np.isnan(view.said).any()
        assert not np.isnan(view.ratios).any()


def test_copies_do_not_give_each_other_away(data, monkeypatch):
    # Rows that are the same in one view alone: a sound of many pictures.
    X, y = np.vstack([data.X] * 3), np.tile(data.y, 3)
    X[len(data.X) :, ONE] += 0.02 * np.random.default_rng(0).normal(size=(2 * len(data.X), WIDTH))
    aligner, (_, (features, view)) = said_of_support(two_views(data), X, y, monkeypatch)
    label_of = dict(zip(map(bytes, X[:, OTHER].copy()), y, strict=True))
    codes = np.searchsorted(aligner.classes_, [label_of[bytes(row.copy())] for row in features])
    seen = aligner.named_views_.other.predict_log_proba(features)
    unseen = log_softmax(view.said, axis=1)
    rows = np.arange(len(codes))
    assert unseen[rows, codes].mean() < 2 * seen[rows, codes].mean()


def test_positions_are_those_of_equal_rows_of_a_class():
    X = np.array([[1.0, 2.0], [0.0, 1.0], [1.0, 2.0]])
    among, codes = np.array([[-0.0, 1.0], [1.0, 2.0], [3.0, 3.0]]), np.array([0, 1, 1])
    assert_array_equal(experts.positions(X, np.array([1, 0, 0]), among, codes), [1, 0, -1])


def test_nothing_is_said_of_a_class_that_must_not_be_predicted():
    proba = np.array([[0.2, 0.6, 0.2], [np.nan] * 3])
    prior = np.array([1 / 3, 1 / 3, IMPOSSIBLE])
    said = experts.beyond_prior(np.log(proba), prior)
    assert_allclose(said[0], [np.log(0.25 * 2), np.log(0.75 * 2), 0])
    assert np.isnan(said[1]).all()


def test_a_view_that_has_never_seen_a_class_leaves_it_to_the_others(data):
    X = lacking(data.X, other=np.flatnonzero(data.y == "class 0"))
    views = [("one", FlowMatchingAligner(), ONE), ("other", FlowMatchingAligner(), OTHER)]
    several = MultiViewAligner(views).fit(X, data.y)
    assert (several.class_prior_ > IMPOSSIBLE).all()
    alone = lacking(data.X_test, one=range(len(data.X_test)))
    assert_allclose(several.predict_proba(alone)[:, 0], 0.2, atol=0.15)
    recall = (several.predict(data.X_test) == "class 0")[data.y_test == "class 0"].mean()
    expected = several.named_views_.one.predict(data.X_test[:, ONE]) == "class 0"
    assert recall > expected[data.y_test == "class 0"].mean() - 0.1


def test_rows_of_views_know_who_lacks_them():
    rows = ViewRows.of(np.array([[1.0, 2], [np.nan, np.nan]]), slice(None))
    assert_array_equal(rows.present, [True, False])
    assert_array_equal(rows.with_nan, [[1, 2], [np.nan, np.nan]])
