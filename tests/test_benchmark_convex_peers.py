"""ProKeR and the cross-modal probe are what scikit-learn makes of the same problems."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression

from flowalign.benchmark.convex_peers import CrossModalProbe, ProKeR, _proximal
from flowalign.benchmark.peers import ZeroShot
from flowalign.datasets import make_cross_modal


@pytest.fixture(scope="module")
def data():
    return make_cross_modal(
        6, n_train=4, n_test=20, n_features=24, difficulty=3, misalignment=1, random_state=3
    )


@pytest.fixture(scope="module")
def unit(data):
    """Features, codes, text and new features, in double precision and of length 1."""
    codes = np.searchsorted(data.class_embeddings.classes, data.y_train)
    rows = (data.X_train, data.class_embeddings.vectors, data.X_test)
    X, text, X_new = (a / np.linalg.norm(a.astype(float), axis=1, keepdims=True) for a in rows)
    return X, codes, text, X_new


@pytest.mark.parametrize(("beta", "ridge"), [(3.0, 0.1), (0.3, 10.0), (10.0, 1e-3)])
def test_proker_is_zero_shot_and_kernel_ridge_regression_of_the_rest(unit, beta, ridge):
    """On rows of length 1 the squared distance is twice what the cosine lacks of 1."""
    X, codes, text, X_new = unit
    rest = KernelRidge(alpha=ridge, kernel="rbf", gamma=beta / 2)
    rest.fit(X, np.eye(6)[codes] - X @ text.T)
    scores = _proximal(X, codes, text, beta=beta, ridge=ridge)(X_new) / 100
    np.testing.assert_allclose(scores - X_new @ text.T, rest.predict(X_new), atol=1e-6)


def test_the_ridge_leads_from_the_labels_to_zero_shot(unit):
    X, codes, text, X_new = unit
    interpolating = _proximal(X, codes, text, beta=3.0, ridge=1e-10)
    np.testing.assert_allclose(interpolating(X) / 100, np.eye(6)[codes], atol=1e-6)
    still = _proximal(X, codes, text, beta=3.0, ridge=1e10)
    np.testing.assert_allclose(still(X_new) / 100, X_new @ text.T, atol=1e-6)


def test_the_probabilities_of_proker_are_at_the_scale_of_zero_shots(data):
    rows = data.X_train, data.y_train, data.class_embeddings
    still, zero_shot = ProKeR(beta=3, ridge=1e8).fit(*rows), ZeroShot().fit(*rows)
    np.testing.assert_allclose(
        still.predict_proba(data.X_test), zero_shot.predict_proba(data.X_test), atol=1e-4
    )
    assert ProKeR().fit(*rows).score(data.X_test, data.y_test) > zero_shot.score(
        data.X_test, data.y_test
    )


@pytest.mark.parametrize("C", [10.0, 1.0])
def test_the_cross_modal_probe_is_logistic_regression_of_both_modalities(data, unit, C):
    X, codes, text, X_new = unit
    expected = LogisticRegression(C=C, max_iter=150)
    expected.fit(np.vstack([X, text]), np.append(codes, np.arange(6)))
    fitted = CrossModalProbe(C=C).fit(data.X_train, data.y_train, data.class_embeddings)
    proba = softmax(X_new @ expected.coef_.T + expected.intercept_, axis=1)
    np.testing.assert_allclose(fitted.predict_proba(data.X_test), proba, atol=1e-4)
