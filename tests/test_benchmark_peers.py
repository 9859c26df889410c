"""Peers follow their formulas, choose on what they may see, and behave as estimators."""

import itertools
import pickle

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression

from flowalign import ClassEmbeddings
from flowalign.benchmark.adapters import CLIPAdapter, LPPlusPlus, TaskRes, TipAdapterF
from flowalign.benchmark.convex_peers import CrossModalProbe, ProKeR
from flowalign.benchmark.peers import GDA, LinearProbe, NearestClassMean, TipAdapter, ZeroShot
from flowalign.datasets import make_cross_modal

PEERS = [
    ZeroShot(),
    NearestClassMean(),
    LinearProbe(),
    GDA(),
    TipAdapter(),
    TipAdapterF(),
    CLIPAdapter(),
    LPPlusPlus(),
    TaskRes(),
    ProKeR(),
    CrossModalProbe(),
]


def name(peer):
    return type(peer).__name__


@pytest.fixture(scope="module")
def hard():
    """Six classes that neither text nor samples tell apart without error."""
    return make_cross_modal(
        6, n_train=4, n_test=40, n_features=24, difficulty=3, misalignment=1, random_state=3
    )


def support(data):
    """Return unit features, codes, unit text."""
    E = np.stack(list(data.class_embeddings.to_dict().values()))
    codes = np.searchsorted(data.class_embeddings.classes, data.y_train)
    return data.X_train, codes, (E / np.linalg.norm(E, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("peer", PEERS, ids=name)
def test_a_peer_is_an_estimator(peer, hard):
    model = clone(peer).fit(hard.X_train, hard.y_train, hard.class_embeddings)
    assert model.classes_.tolist() == hard.class_names
    proba = model.predict_proba(hard.X_test)
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(model.classes_[proba.argmax(1)], model.predict(hard.X_test))
    assert model.score(hard.X_test, hard.y_test) > 2 / 6
    again = clone(peer).fit(hard.X_train, hard.y_train, hard.class_embeddings)
    np.testing.assert_array_equal(again.predict_proba(hard.X_test), proba)
    opened = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(opened.predict_proba(hard.X_test), proba)
    longer = model.predict_proba(3 * hard.X_test)
    np.testing.assert_allclose(longer, proba, atol=1e-4)


@pytest.mark.parametrize("peer", PEERS, ids=name)
@pytest.mark.parametrize("text", [True, False])
def test_two_classes_in_unequal_spaces_or_without_text(peer, text):
    rng = np.random.default_rng(0)
    y = np.repeat(["no", "yes"], 5)
    X = np.where(y == "yes", 1.0, -1.0)[:, None] * np.eye(8)[0] + 0.3 * rng.normal(size=(10, 8))
    table = ClassEmbeddings(["no", "yes"], rng.normal(size=(2, 3))) if text else None
    model = clone(peer).fit(X, y, table)
    assert model.class_embeddings_.shape == (2, 8)
    assert model.predict_proba(X).shape == (10, 2)
    assert model.score(X, y) > 0.8


@pytest.mark.parametrize(
    ("peer", "settings"),
    [
        (ZeroShot(), {}),
        (NearestClassMean(), {}),
        (LinearProbe(), {"C": 1.0}),
        (GDA(), {"alpha": 1.0}),
        (TipAdapter(), {"alpha": 1.0, "beta": 5.5}),
        (TipAdapterF(), {"alpha": 1.0, "beta": 5.5}),
        (CLIPAdapter(), {"ratio": 0.2}),
        (LPPlusPlus(), {"text": 250.0}),
        (TaskRes(), {"length": 10.0}),
        (ProKeR(), {"beta": 3.0, "ridge": 20.0}),
        (CrossModalProbe(), {"C": 10_000.0}),
    ],
)
def test_one_sample_a_class(peer, settings, one_shot):
    """Nothing can be held out, so that the settings are those of the docstrings."""
    model = clone(peer).fit(one_shot.X_train, one_shot.y_train, one_shot.class_embeddings)
    assert model.chosen_on_ == "nothing"
    assert model.settings_ == settings
    assert model.score(one_shot.X_test, one_shot.y_test) > 0.5


def test_zero_shot_and_class_means(hard):
    X, codes, text = support(hard)
    fitted = ZeroShot().fit(X, hard.y_train, hard.class_embeddings)
    expected = softmax(100 * hard.X_test @ text.T, axis=1)
    np.testing.assert_allclose(fitted.predict_proba(hard.X_test), expected, atol=1e-4)
    means = np.stack([X[codes == c].mean(axis=0) for c in range(6)])
    cosines = hard.X_test @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T
    fitted = NearestClassMean().fit(X, hard.y_train, hard.class_embeddings)
    np.testing.assert_array_equal(
        fitted.predict(hard.X_test), fitted.classes_[cosines.argmax(axis=1)]
    )


@pytest.mark.parametrize("alpha", [0.3, np.inf])
@pytest.mark.parametrize("n_shots", [4, 1])
def test_gda_is_the_papers_formula(n_shots, hard, alpha):
    rows = np.concatenate([np.arange(4 * c, 4 * c + n_shots) for c in range(6)])
    X, codes, text = (np.asarray(a, dtype=float) for a in support(hard))
    X, codes = X[rows], codes[rows].astype(int)
    n, d = X.shape
    means = np.stack([X[codes == c].mean(axis=0) for c in range(6)])
    # With one sample a class there is no scatter but that about the grand mean.
    covariance = np.cov((X - (means[codes] if n_shots > 1 else X.mean(axis=0))).T)
    inverse = d * np.linalg.inv((n - 1) * covariance + np.trace(covariance) * np.eye(d))
    weights = means @ inverse
    logits = hard.X_test @ weights.T - (weights * means).sum(axis=1) / 2
    if np.isfinite(alpha):
        logits = 100 * hard.X_test @ text.T + alpha * logits
    fitted = GDA(alpha).fit(hard.X_train[rows], hard.y_train[rows], hard.class_embeddings)
    np.testing.assert_allclose(
        fitted.predict_proba(hard.X_test), softmax(logits, axis=1), atol=2e-3
    )


def test_tip_adapter_is_the_papers_formula(hard):
    X, codes, text = support(hard)
    votes = np.exp(-5.5 * (1 - hard.X_test @ X.T)) @ np.eye(6)[codes]
    expected = softmax(100 * hard.X_test @ text.T + 3 * votes, axis=1)
    fitted = TipAdapter(alpha=3, beta=5.5).fit(X, hard.y_train, hard.class_embeddings)
    np.testing.assert_allclose(fitted.predict_proba(hard.X_test), expected, atol=1e-3)


def test_the_linear_probe_is_scikit_learns(hard):
    expected = LogisticRegression(C=10, max_iter=150).fit(hard.X_train, hard.y_train)
    fitted = LinearProbe(C=10).fit(hard.X_train, hard.y_train, hard.class_embeddings)
    np.testing.assert_allclose(
        fitted.predict_proba(hard.X_test), expected.predict_proba(hard.X_test), atol=1e-4
    )


def test_an_adapter_without_a_share_is_zero_shot(hard):
    data = (hard.X_train, hard.y_train, hard.class_embeddings)
    fitted = CLIPAdapter(ratio=0.0).fit(*data)
    np.testing.assert_allclose(fitted.transform(hard.X_test), hard.X_test, atol=1e-6)
    np.testing.assert_array_equal(
        fitted.predict(hard.X_test), ZeroShot().fit(*data).predict(hard.X_test)
    )


@pytest.mark.parametrize("peer", [CLIPAdapter(0.6), TaskRes(), LPPlusPlus(250)], ids=name)
def test_training_fits_the_support_set(peer, hard):
    data = (hard.X_train, hard.y_train, hard.class_embeddings)
    before = ZeroShot().fit(*data).score(hard.X_train, hard.y_train)
    assert clone(peer).fit(*data).score(hard.X_train, hard.y_train) > before


def test_trained_keys_answer_for_other_samples(hard):
    """Left-out votes of the trained keys have a lower loss than those of the samples."""
    X, codes, text = support(hard)
    trained = TipAdapterF(1.0, 5.5).fit(X, hard.y_train, hard.class_embeddings)._scores.args[0]

    def loss(keys):
        affinity = np.exp(-5.5 * (1 - X @ keys.T))
        np.fill_diagonal(affinity, 0)
        logits = 100 * X @ text.T + affinity @ np.eye(6)[codes]
        return -np.log(softmax(logits, axis=1)[np.arange(len(X)), codes]).mean()

    assert loss(trained) < loss(X)


@pytest.mark.parametrize("peer", [GDA(), TipAdapter(), LinearProbe(), ProKeR()], ids=name)
@pytest.mark.parametrize("n_val", [240, 30])
def test_an_oracle_chooses_the_best_on_test(peer, n_val, hard):
    """Most hits, of equal ones the lowest log-loss: on few samples many settings are level."""
    data = (hard.X_train, hard.y_train, hard.class_embeddings)
    X_val, y_val = hard.X_test[:: 240 // n_val], hard.y_test[:: 240 // n_val]
    oracle = clone(peer).fit(*data, X_val=X_val, y_val=y_val)
    assert oracle.chosen_on_ == "validation data"
    found = {}
    for values in itertools.product(*peer.candidates.values()):
        model = clone(peer).set_params(**dict(zip(peer.candidates, values, strict=True))).fit(*data)
        columns = np.searchsorted(model.classes_, y_val)
        right = model.predict_proba(X_val).astype(float)[np.arange(len(y_val)), columns]
        found[values] = (model.score(X_val, y_val), np.log(np.maximum(right, 1e-30)).mean())
    assert tuple(oracle.settings_.values()) == max(found, key=found.get)


@pytest.mark.parametrize(("peer", "n_folds"), [(GDA, 4), (LPPlusPlus, 2)])
def test_the_choice_is_made_on_samples_that_were_left_out(peer, n_folds, hard, monkeypatch):
    seen = []

    def watch(self, X, codes, text):
        seen.append({row.tobytes() for row in X})
        return original(self, X, codes, text)

    original = peer._train
    monkeypatch.setattr(peer, "_train", watch)
    model = peer().fit(hard.X_train, hard.y_train, hard.class_embeddings)
    assert model.chosen_on_ == "cross-validation"
    whole, *folds = seen
    assert len(folds) == n_folds
    left_out = [whole - fold for fold in folds]
    assert set.union(*left_out) == whole
    assert sum(map(len, left_out)) == len(whole)


def test_class_means_that_stand_for_text_leave_out_what_is_held_out(hard, monkeypatch):
    seen = []

    def watch(self, X, codes, text):
        seen.append((X, codes, text))
        return original(self, X, codes, text)

    original = GDA._train
    monkeypatch.setattr(GDA, "_train", watch)
    GDA().fit(hard.X_train, hard.y_train)
    assert len(seen) == 5
    for X, codes, text in seen:
        means = np.stack([X[codes == c].mean(axis=0) for c in range(6)])
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        np.testing.assert_allclose(text, means, atol=1e-6)


def test_settings_that_are_given_are_kept(hard):
    data = (hard.X_train, hard.y_train, hard.class_embeddings)
    assert GDA(alpha=7.0).fit(*data).settings_ == {"alpha": 7.0}
    half = TipAdapter(beta=2.0).fit(*data)
    assert half.settings_["beta"] == 2.0
    assert half.settings_["alpha"] in TipAdapter.candidates["alpha"]


def test_a_class_without_samples_is_refused(hard):
    rows = hard.y_train != hard.class_names[2]
    with pytest.raises(ValueError, match="GDA needs a sample of each class"):
        GDA().fit(hard.X_train[rows], hard.y_train[rows], hard.class_embeddings)
