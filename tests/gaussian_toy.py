"""Gaussian models whose every quantity is known: of given numbers, and of samples less one."""

import numpy as np
import torch
from scipy.stats import ortho_group

from flowalign import path
from flowalign.coupling import Coupling
from flowalign.gaussian import GaussianField
from flowalign.gaussian.covariance import estimate_covariance
from flowalign.gaussian.means import estimate_means
from flowalign.gaussian.statistics import ClassStatistics

DESIGN = ("text_weight", "centred_text_weight", "tail")


class Model:
    """Gaussian classes with one covariance, their targets, and the field of their flow."""

    def __init__(
        self, d, n_classes=4, noise_std=0.0, seed=0, separation=1.0, reach=2.0, prior=None
    ):
        rng = np.random.default_rng(seed)
        self.means = separation * rng.normal(size=(n_classes, d))
        self.targets = reach * rng.normal(size=(n_classes, d))
        self.basis = ortho_group.rvs(d, random_state=seed) if d > 1 else np.eye(1)
        self.variances = np.geomspace(0.3, 1.5, d)
        self.covariance = self.basis * self.variances @ self.basis.T
        self.prior = rng.dirichlet(np.full(n_classes, 5.0)) if prior is None else np.array(prior)
        self.noise_std = noise_std

    def field(self, **changes):
        noise_std = changes.pop("noise_std", self.noise_std)
        values = vars(self) | changes
        basis = values["basis"]
        arrays = (
            basis, values["variances"], values["means"] @ basis, values["targets"] @ basis,
            np.log(values["prior"]),
        )  # fmt: skip
        options = {k: v for k, v in changes.items() if k in DESIGN}
        return GaussianField(
            *(torch.from_numpy(np.ascontiguousarray(a)) for a in arrays),
            noise_std=noise_std,
            **options,
        )

    def sample(self, n, seed=1):
        """Classes and features."""
        rng = np.random.default_rng(seed)
        codes = rng.choice(len(self.prior), size=n, p=self.prior)
        root = self.basis * np.sqrt(self.variances)
        return codes, self.means[codes] + rng.normal(size=(n, len(root))) @ root.T

    def path(self, t, n=100_000, seed=1):
        """Points on the path at time t and their targets of regression, as tensors."""
        codes, x0 = self.sample(n, seed)
        x0, x1 = torch.from_numpy(x0), torch.from_numpy(self.targets[codes])
        generator = torch.Generator().manual_seed(seed)
        eps = torch.randn(x0.shape, dtype=x0.dtype, generator=generator)
        return (
            path.point(time(t), x0, x1, eps, self.noise_std),
            path.derivative(time(t), x0, x1, eps, self.noise_std),
        )


def tensor(array):
    return torch.from_numpy(np.asarray(array, dtype=np.float64))


def statistics_of(X, codes, n_classes):
    return ClassStatistics.of(tensor(X), torch.from_numpy(np.asarray(codes)), n_classes)


def coupled(X, codes, targets, E=None, joint=True, multiplicity=None):
    """A coupling of samples in the order given, seen once each, to targets that are given, too."""
    X, codes = np.asarray(X), np.asarray(codes, dtype=np.int64)
    multiplicity = np.ones(len(X), dtype=np.int64) if multiplicity is None else multiplicity
    x, y, weights = (torch.from_numpy(array) for array in (X, codes, multiplicity))
    statistics = ClassStatistics.of(x, y, len(targets), weights)
    return Coupling(X, codes, multiplicity, statistics, E, targets, joint, None)


def make(counts, d=6, e=5, seed=0, spread=1.0):
    """Features with the given number of samples a class, their codes, and class embeddings."""
    rng = np.random.default_rng(seed)
    counts = np.asarray(counts)
    codes = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    E = rng.normal(size=(len(counts), e))
    X = spread * (E @ rng.normal(size=(e, d)))[codes] + rng.normal(size=(len(codes), d))
    return X + 2.0, codes, E


def time(t):
    return torch.tensor(t, dtype=torch.float64)


def refit_without(X, codes, E, i):
    """Class means (C, d) and covariance (d, d) without sample i, from the text of their definition.

    Held are the spreads of the means, the ridge, the divisor and the share of single samples.
    """
    statistics = ClassStatistics.of(X, codes, len(E))
    means, precision = estimate_means(statistics, E)
    held = estimate_covariance(statistics, means, precision)
    X, codes, E = X.numpy(), codes.numpy(), E.numpy()
    (n, d), C = X.shape, len(E)
    sampled = np.unique(codes)
    G = (E - E[sampled].mean(axis=0)) @ (E - E[sampled].mean(axis=0)).T
    G *= (len(sampled) - 1) / np.trace(G[np.ix_(sampled, sampled)])
    K = means.text_spread * G + means.residual_spread * np.eye(C)
    single = np.bincount(codes, minlength=C) == 1

    def model(rows):
        kept = np.unique(codes[rows])
        counts = np.bincount(codes[rows], minlength=C)[kept]
        M = np.stack([X[rows][codes[rows] == c].mean(axis=0) for c in kept])
        V = np.linalg.inv(K[np.ix_(kept, kept)] + np.diag(1 / counts))
        common = V.sum(axis=0) @ M / V.sum()
        mu = common + K[:, kept] @ V @ (M - common)
        W = np.zeros((d, d))
        for c in kept[~single[kept]]:
            r = X[rows][codes[rows] == c] - M[kept == c]
            W += r.T @ r
        if single.any():
            W += held.single_share * (M - common).T @ V @ (M - common)
        return mu, W

    _, W = model(np.arange(n))
    ridge = np.trace(W) / (n - 1)
    mu, W = model(np.delete(np.arange(n), i))
    return mu, (W + ridge * np.eye(d)) / held.divisor
