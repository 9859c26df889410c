"""How much a row looks like any known class, by its definition and by refits."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from gaussian_toy import make, refit_without, statistics_of, tensor
from scipy.stats import multivariate_t

from flowalign.gaussian.evidence import Evidence
from flowalign.gaussian.left_out import LeftOutSamples
from flowalign.gaussian.model import GaussianModel
from flowalign.gaussian.novelty import with_unseen_class


def model_of(X, codes, E):
    return GaussianModel.of(statistics_of(X, codes, len(E)), tensor(E))


def gram(codes, E):
    """Prior products of class embeddings, as the process of the means has them."""
    sampled = np.unique(codes)
    centred = E - E[sampled].mean(axis=0)
    G = centred @ centred.T
    return G * (len(sampled) - 1) / np.trace(G[np.ix_(sampled, sampled)])


@pytest.mark.parametrize("counts", [[5, 3, 4, 2], [1, 1, 1, 1], [4, 0, 3, 5]], ids=str)
def test_an_unseen_class_is_one_without_text_or_samples(counts):
    """Posterior of the process for a mean that shares nothing with others but the common mean."""
    X, codes, E = make(counts)
    model = model_of(X, codes, E)
    means = model.class_means
    a, b = means.text_spread, means.residual_spread
    n_classes, known = len(counts), np.array(counts) > 0
    K = np.zeros((n_classes + 1, n_classes + 1))
    K[:-1, :-1] = a * gram(codes, E) + b * np.eye(n_classes)
    K[-1, -1] = a + b
    M = np.stack([X[codes == c].mean(axis=0) for c in np.flatnonzero(known)])
    S = np.flatnonzero(known)
    V = np.linalg.inv(K[np.ix_(S, S)] + np.diag(1 / np.array(counts)[S]))
    common = V.sum(axis=0) @ M / V.sum()
    gain = K[:, S] @ V
    left = 1 - gain.sum(axis=1)
    extended = with_unseen_class(model).class_means
    np.testing.assert_allclose(extended.means[-1], common)
    np.testing.assert_allclose(
        extended.covariance, K - gain @ K[S] + np.outer(left, left) / V.sum(), atol=1e-12
    )


def test_the_relative_density_is_a_ratio_of_two():
    X, codes, E = make([5, 3, 4, 2])
    model = model_of(X, codes, E)
    means, within = model.class_means, model.within
    rows = np.random.default_rng(1).normal(size=(7, 6)) + 2
    covariance = (within.basis * within.variances @ within.basis.T).numpy()
    freedom = within.tail - 6
    widening = 1 + means.text_spread + means.residual_spread + means.common_variance
    unseen = multivariate_t(
        means.common.numpy(), widening * within.tail / freedom * covariance, df=freedom
    ).logpdf(rows)
    expected = model.log_density(rows).amax(dim=1).numpy() - unseen
    np.testing.assert_allclose(model.log_relative_density(rows), expected)
    np.testing.assert_allclose(model.log_relative_density(torch.tensor(rows)), expected)


def test_rows_of_known_classes_score_higher():
    rng = np.random.default_rng(0)
    centres = 3 * rng.normal(size=(20, 8))
    codes = np.repeat(np.arange(10), 6)
    model = model_of(centres[codes] + rng.normal(size=(60, 8)), codes, np.eye(10))
    near, far = (
        model.log_relative_density(centres[part].repeat(20, axis=0) + rng.normal(size=(200, 8)))
        for part in (slice(10), slice(10, 20))
    )
    assert (near > 0).double().mean() > 0.95
    assert (far < 0).double().mean() > 0.9


def test_wrong_rows_are_refused():
    X, codes, E = make([5, 3, 4])
    model = model_of(X, codes, E)
    with pytest.raises(ValueError, match="X must be rows of 6 features"):
        model.log_relative_density(X[:, :5])
    with pytest.raises(ValueError, match="X contains NaN"):
        model.log_relative_density(np.full((1, 6), np.nan))


# ------------------------------------------------------------------ samples that are left out


def left_out(model, X, codes, targets, *, joint):
    samples = torch.tensor(X).float(), torch.from_numpy(codes)
    return LeftOutSamples(model, tensor(targets), *samples, joint=joint)


def refitted_ratios(X, codes, E, i, tail):
    """Log-ratios of each class and an unseen one for sample i, by a model without it."""
    mu, covariance = refit_without(tensor(X), torch.from_numpy(codes), tensor(E), i)
    held = model_of(X, codes, E).class_means
    a, b = held.text_spread, held.residual_spread
    rest = np.delete(np.arange(len(X)), i)
    counts = np.bincount(codes[rest], minlength=len(E))
    S = np.flatnonzero(counts)
    # The Gram matrix is held too: centred and scaled on the classes of all samples.
    K = np.zeros((len(E) + 1, len(E) + 1))
    K[:-1, :-1] = a * gram(codes, E) + b * np.eye(len(E))
    K[-1, -1] = a + b
    V = np.linalg.inv(K[np.ix_(S, S)] + np.diag(1 / counts[S]))
    M = np.stack([X[rest][codes[rest] == c].mean(axis=0) for c in S])
    common = V.sum(axis=0) @ M / V.sum()
    gain = K[:, S] @ V
    left = 1 - gain.sum(axis=1)
    P = K - gain @ K[S] + np.outer(left, left) / V.sum()
    apart = X[i] - np.vstack([mu, common])
    widening = 1 + P.diagonal()
    squares = np.einsum("cd,de,ce->c", apart, np.linalg.inv(covariance), apart) / widening
    density = -tail / 2 * np.log1p(squares / tail) - X.shape[1] / 2 * np.log(widening)
    return density[:-1] - density[-1]


@pytest.mark.parametrize("counts", [[5, 3, 4, 2], [1, 1, 1, 1, 1]], ids=str)
def test_support_ratios_are_those_of_refits(counts):
    X, codes, E = make(counts)
    model = model_of(X, codes, E)
    found = left_out(model, X, codes, np.zeros((len(E), 6)), joint=False).ratios(Evidence(0.3))
    expected = [refitted_ratios(X, codes, E, i, model.within.tail - 1) for i in range(len(X))]
    np.testing.assert_allclose(found, 0.3 * np.array(expected), rtol=1e-3, atol=1e-3)


def test_in_a_joint_space_the_text_is_heard():
    X, codes, _ = make([5, 3, 4, 2])
    E = np.random.default_rng(1).normal(size=(4, 6))
    model = model_of(X, codes, E)
    said = left_out(model, X, codes, E, joint=True)
    raw, centred = said.text
    alone = said.ratios(Evidence(1e-9, 0.3, 0.2))
    common = said.common_text[:, None]
    expected = 0.3 * (raw + common) + 0.2 * centred
    np.testing.assert_allclose(alone, expected, rtol=1e-4, atol=1e-3)


def test_of_a_single_sample_nothing_is_known():
    X, codes, E = make([1, 0])
    said = left_out(model_of(X, codes, E), X, codes, np.zeros((2, 6)), joint=False)
    assert said.ratios(Evidence(0.3)).shape == (0, 2)


def test_new_rows_are_scored_as_left_out_samples_are():
    """The same sum: evidence times the log-ratio, and what the text says."""
    X, codes, _ = make([5, 3, 4, 2])
    E = np.random.default_rng(1).normal(size=(4, 6))
    evidence = Evidence(0.3, 0.2, 0.1)
    model = replace(model_of(X, codes, E), evidence=evidence)
    rows = torch.tensor(np.random.default_rng(2).normal(size=(9, 6)) + 2)
    classifier = model.classifier(tensor(E), torch.zeros(4, dtype=torch.float64))
    extended = with_unseen_class(model)
    density = extended.log_density(rows)
    ratios = density[:, :-1] - density[:, -1:]
    units = torch.nn.functional.normalize(tensor(E), dim=1)
    raw = 100 * torch.nn.functional.normalize(rows, dim=1) @ units.T
    off_middle = torch.nn.functional.normalize(rows - model.class_means.means.mean(dim=0), dim=1)
    centred = 100 * off_middle @ torch.nn.functional.normalize(units - units.mean(dim=0), dim=1).T
    expected = 0.3 * ratios + 0.2 * raw + 0.1 * centred
    torch.testing.assert_close(classifier.ratios(rows), expected)
    assert math.isfinite(float(expected.sum()))
