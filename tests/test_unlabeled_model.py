"""Expectation and maximisation on unlabelled rows, against the equations written out in numpy."""

import numpy as np
import pytest
import torch
from gaussian_toy import make, statistics_of, tensor
from scipy.special import softmax
from torch.overrides import TorchFunctionMode

from flowalign.gaussian import unlabeled
from flowalign.gaussian.evidence import Evidence
from flowalign.gaussian.model import GaussianModel
from flowalign.gaussian.unlabeled import Assigned, hold, log_proba_without_each, take_in, with_held


class Rows:
    """A pool of rows as they are, in blocks of a size."""

    def __init__(self, X, size=7):
        self.X, self.size = X.astype(np.float32), size

    def __len__(self):
        return len(self.X)

    def blocks(self, _):
        for start in range(0, len(self.X), self.size):
            part = slice(start, min(start + self.size, len(self.X)))
            yield part, self.X[part]


class Setting:
    """Labelled and unlabelled rows, their model, and what take_in asks for."""

    def __init__(self, counts=(3, 2, 4, 1), n_unlabeled=60, d=6, seed=0, weight=0.3):
        X, codes, self.E = make(counts, d=d, seed=seed, spread=0.7)
        rng = np.random.default_rng(seed + 1)
        U, self.truth, _ = make([n_unlabeled // len(counts)] * len(counts), d=d, seed=seed)
        self.U = (U + 0.3 * rng.normal(size=U.shape)).astype(np.float32)
        self.X, self.codes, self.C, self.d = X, codes, len(counts), d
        model = GaussianModel.of(statistics_of(X, codes, self.C), tensor(self.E))
        self.evidence = Evidence(weight)
        self.model = GaussianModel(
            model.statistics, model.class_means, model.within, self.evidence
        )  # fmt: skip

    def classifier(self, model):
        targets = torch.zeros_like(model.class_means.means)
        uniform = targets.new_full((self.C,), -np.log(self.C))
        return model.classifier(targets, uniform).to(torch.float32)

    def take_in(self, size=7, rows=None):
        U = self.U if rows is None else self.U[rows]
        x, y, E = tensor(self.X), torch.from_numpy(self.codes), tensor(self.E)
        return take_in(
            self.model, Rows(U, size), x, y, E, self.classifier, lambda _: self.evidence
        )  # fmt: skip


def reference(s, n_iter):
    """Class means, covariance and weights after some iterations; evidence held, plain loops."""
    X, y, U, C, d, n = s.X, s.codes, s.U.astype(float), s.C, s.d, len(s.X)
    means, within = s.model.class_means, s.model.within
    counts = np.bincount(y, minlength=C).astype(float)
    sampled = np.flatnonzero(counts)
    centred = s.E - s.E[sampled].mean(axis=0)
    G = centred @ centred.T
    G *= (len(sampled) - 1) / np.trace(G[np.ix_(sampled, sampled)])
    K = means.text_spread * G + means.residual_spread * np.eye(C)
    mu, P = means.means.numpy(), means.covariance.numpy()
    basis, before = within.basis.numpy(), max(n - 1, 1)
    squares = within.variances.numpy() * within.divisor
    squares = np.maximum(squares - squares.sum() / (before + d), 0)
    W0, f0 = (basis * squares) @ basis.T, within.divisor * before / (before + d)
    Sigma, divisor, tail = (basis * within.variances.numpy()) @ basis.T, within.divisor, within.tail
    Ml = np.stack([X[y == c].mean(axis=0) if counts[c] else np.zeros(d) for c in range(C)])
    z = w = None
    for step in range(n_iter + 1):
        inverse = np.linalg.inv(Sigma)
        D = np.array([[(u - m) @ inverse @ (u - m) for m in mu] for u in U])
        scores = 0.3 * (-tail / 2) * np.log1p(D / tail)
        new = scores.argmax(axis=1)
        if step:
            for i, u in enumerate(U):  # the row leaves
                h = w[i] * P[z[i], z[i]]
                r = u - mu[z[i]]
                shift = w[i] * P[:, z[i]] / (1 - h)
                v = min(w[i] / ((1 - h) * divisor), 0.9 / max(r @ inverse @ r, 1e-12))
                without = np.linalg.inv(Sigma - v * np.outer(r, r))
                for c in range(C):
                    apart = u - (mu[c] - shift[c] * r)
                    D[i, c] = apart @ without @ apart
            scores = 0.3 * (-tail / 2) * np.log1p(D / tail)
        p = softmax(scores, axis=1)
        if step == n_iter:
            return mu, Sigma, P, z, w, p
        z, w = new, p[np.arange(len(U)), new] ** 2
        w = w * min(1.0, 8 * n / w.sum())
        kappa = np.ones(C)
        for c in range(C):
            Nu = w[z == c].sum()
            if counts[c] and Nu > 1e-9:
                apart = (w[z == c] @ U[z == c]) / Nu - Ml[c]
                g = apart @ inverse @ apart / d
                residuals = [(x - mu[k]) @ inverse @ (x - mu[k]) / d / (1 - P[k, k])
                             for x, k in zip(X, y, strict=True)]  # fmt: skip
                chance = (w[z == c] ** 2).sum() / Nu**2 + min(1, np.mean(residuals)) / counts[c]
                kappa[c] = 1 / (1 + Nu * max(0, g - chance))
        w = w * kappa[z]
        Nu = np.bincount(z, w, minlength=C)
        sums = np.stack([w[z == c] @ U[z == c] for c in range(C)])
        N = counts + Nu
        M = (counts[:, None] * Ml + sums) / N[:, None]
        R = np.diag(np.sqrt(N))
        Q = R @ np.linalg.inv(np.eye(C) + R @ K @ R) @ R
        common, gain = Q.sum(axis=0) @ M / Q.sum(), K @ Q
        left = 1 - gain.sum(axis=1)
        mu = common + gain @ (M - common)
        P = K - gain @ K + np.outer(left, left) / Q.sum()
        W = W0 + sum(wi * np.outer(u - mu[k], u - mu[k]) for wi, u, k in zip(w, U, z, strict=True))
        f, total = f0 + (Nu * (1 - np.diag(P))).sum(), before + w.sum()
        divisor, tail = (total + d) * f / total, total + d
        Sigma = W / divisor + np.trace(W) / (total * divisor) * np.eye(d)
    return None


@pytest.mark.parametrize(
    ("counts", "n_unlabeled"),
    [((3, 2, 4, 1), 60), ((1, 1, 1, 1), 60), ((3, 0, 4, 2), 60), ((2, 2, 1, 2), 400)],
    ids=str,
)
@pytest.mark.parametrize("n_iter", [1, 3])
def test_it_is_what_the_equations_say(counts, n_unlabeled, n_iter, monkeypatch):
    setting = Setting(counts, n_unlabeled)
    monkeypatch.setattr(unlabeled, "MAX_ITERATIONS", n_iter)
    monkeypatch.setattr(unlabeled, "CHANGED", -1.0)
    found = setting.take_in()
    mu, Sigma, P, z, w, p = reference(setting, n_iter)
    np.testing.assert_array_equal(found.rows.codes, z)
    np.testing.assert_allclose(found.rows.weights, w, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found.held.class_weights, np.bincount(z, w, minlength=4), rtol=1e-3)
    means, within = found.model.class_means, found.model.within
    np.testing.assert_allclose(means.means, mu, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(means.covariance, P, rtol=1e-3, atol=1e-4)
    covariance = (within.basis * within.variances) @ within.basis.T
    np.testing.assert_allclose(covariance, Sigma, rtol=1e-3, atol=1e-3)
    classifier = setting.classifier(found.model)
    _, honest = log_proba_without_each(
        classifier, found.model, torch.from_numpy(setting.U), found.rows
    )
    np.testing.assert_allclose(honest.exp(), p, atol=1e-3)
    assert found.n_iter == n_iter


@pytest.mark.parametrize(("counts", "least"), [((3, 2, 4, 1), 8), ((3, 0, 4, 2), 6)])
def test_fewer_than_two_rows_a_labelled_class_are_not_taken_in(counts, least):
    setting = Setting(counts)
    few, enough = (setting.take_in(rows=np.arange(0, 7 * n, 7)) for n in (least - 1, least))
    assert few.model is setting.model
    assert (few.n_iter, few.rows.weights.sum()) == (0, 0)
    np.testing.assert_array_equal(few.held.agreement, np.ones(4))
    assert enough.n_iter >= 1


def test_it_ends_when_few_rows_change_their_class(monkeypatch):
    setting = Setting()
    assert setting.take_in().n_iter > 1
    monkeypatch.setattr(unlabeled, "CHANGED", 0.5)
    assert setting.take_in().n_iter == 1


def test_the_evidence_is_weighed_anew():
    setting, judged = Setting(), []

    def judge(model):
        judged.append(model)
        return Evidence(0.2)

    x, y, E = tensor(setting.X), torch.from_numpy(setting.codes), tensor(setting.E)
    found = take_in(setting.model, Rows(setting.U), x, y, E, setting.classifier, judge)
    assert found.model.evidence == Evidence(0.2)
    assert len(judged) == found.n_iter
    assert judged[-1].class_means is found.model.class_means


def test_rows_of_no_weight_leave_the_model_as_it_is(monkeypatch):
    setting = Setting()
    monkeypatch.setattr(unlabeled, "CAP", 0.0)
    found = setting.take_in()
    for part in ("class_means", "within"):
        for name, value in vars(getattr(found.model, part)).items():
            expected = getattr(getattr(setting.model, part), name)
            if name == "basis":  # eigenvectors have no sign
                continue
            one, other = torch.as_tensor(value), torch.as_tensor(expected)
            torch.testing.assert_close(one, other, check_dtype=False, rtol=1e-6, atol=1e-8)


def test_neither_order_nor_blocks_of_rows_matter():
    setting = Setting()
    found, whole = setting.take_in(), setting.take_in(size=1000)
    order = np.random.default_rng(0).permutation(len(setting.U))
    other = setting.take_in(rows=order)
    for one in (whole, other):
        torch.testing.assert_close(
            one.model.class_means.means, found.model.class_means.means, rtol=1e-5, atol=1e-6
        )
    np.testing.assert_array_equal(other.rows.codes, found.rows.codes[order])
    np.testing.assert_allclose(other.held.agreement, found.held.agreement, rtol=1e-3)


def test_weights_are_bounded_by_the_labelled_rows():
    setting = Setting((2, 2, 2, 2), n_unlabeled=400)
    assert setting.take_in().held.class_weights.sum() <= 8 * 8 + 1e-3


def test_a_row_without_weight_is_judged_as_it_is():
    setting = Setting()
    x = torch.from_numpy(setting.U)
    rows = Assigned(np.zeros(len(x), np.int32), np.zeros(len(x), np.float32))
    said, honest = log_proba_without_each(setting.classifier(setting.model), setting.model, x, rows)
    torch.testing.assert_close(said, honest)
    torch.testing.assert_close(said, setting.classifier(setting.model).log_proba(x))


def test_another_model_has_the_rows_as_they_count():
    """Of the same labelled rows it is the model that took them in."""
    setting, E = Setting((3, 0, 4, 2)), tensor(Setting((3, 0, 4, 2)).E)
    for size in (7, 1000):
        found = setting.take_in(size)
        again = with_held(setting.model, found.held, E)
        torch.testing.assert_close(again.class_means.means, found.model.class_means.means)
        torch.testing.assert_close(again.within.variances, found.model.within.variances)
    few = setting.take_in(rows=np.arange(3))
    assert with_held(setting.model, few.held, E) is setting.model


def test_rows_that_are_gone_count_as_they_did():
    """As if they had been there, for a model of labelled ones that may have become more."""
    setting, E = Setting((3, 0, 4, 2)), tensor(Setting((3, 0, 4, 2)).E)
    held = setting.take_in().held
    judged = []

    def judge(model):
        judged.append(model)
        return Evidence(0.2)

    later = hold(setting.model, held, E, judge)
    assert later.model.evidence == Evidence(0.2)
    assert (later.held, later.rows) == (held, None)
    expected = with_held(setting.model, held, E)
    for found in (later.model, *judged):
        torch.testing.assert_close(found.class_means.means, expected.class_means.means)
        torch.testing.assert_close(found.within.variances, expected.within.variances)


def test_rows_of_classes_that_are_dropped_are_dropped_with_their_share_of_the_scatter():
    held = Setting((3, 2, 4, 1)).take_in().held
    fewer = held.placed(np.array([2, -1, 0, 4]), 5)
    weights, agreement = held.class_weights, held.agreement
    np.testing.assert_allclose(fewer.class_weights, [weights[2], 0, weights[0], 0, weights[3]])
    np.testing.assert_allclose(fewer.agreement, [agreement[2], 1, agreement[0], 1, agreement[3]])
    torch.testing.assert_close(fewer.statistics.sums[0], held.statistics.sums[2])
    share = 1 - weights[1] / weights.sum()
    torch.testing.assert_close(fewer.statistics.products, held.statistics.products * share)
    back = held.placed(np.arange(4), 4)
    np.testing.assert_array_equal(back.class_weights, weights)
    torch.testing.assert_close(back.statistics.products, held.statistics.products)


class OnOtherDevice(TorchFunctionMode):
    """Finds what would be made on the CPU beside a model on another device, and stay there."""

    makers = (torch.tensor, torch.as_tensor, torch.zeros, torch.ones, torch.full, torch.empty,
              torch.arange, torch.eye, torch.linspace)  # fmt: skip

    def __init__(self):
        super().__init__()
        self.made = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func in self.makers and "device" not in kwargs and not isinstance(args[0], torch.Tensor):
            self.made.append(result)
        elif func not in (torch.Tensor.to, torch.Tensor.dim) and any(
            one is other for one in args for other in self.made
        ):
            raise AssertionError(f"{func} is given a tensor that no device was named for")
        return result


def test_everything_is_where_the_model_is():
    setting = Setting()
    with OnOtherDevice():
        found = setting.take_in()
    assert found.n_iter >= 1
