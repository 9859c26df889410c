r"""Rows without labels take part: expectation and maximisation on the Gaussian model.

Every unlabelled row is assigned to a class, and counts there with a weight that is its calibrated
confidence, squared. In turn, class means and covariance are estimated from labelled and unlabelled
rows together, and rows are assigned again. What keeps a model from confirming its own errors:

- The confidence of a row is that of the model *without this row*; otherwise it confirmed itself.
- All unlabelled rows together weigh at most eight times as much as the labelled ones.
- If the unlabelled rows of a class lie elsewhere than its labelled ones, they count less: with a
  displacement of variance :math:`\delta`, in units of :math:`\Sigma`, no number of rows is worth
  more than :math:`1 / \delta` labelled ones.
- Class means stay tied to labelled rows and names by the process of
  :mod:`flowalign.gaussian.means`, whose spreads are held, and the weights of the evidence are
  found on labelled rows, each left out.
- Answers are the mean of two models, with and without the unlabelled rows: the former is better but
  too confident (:class:`flowalign.gaussian.posterior.PosteriorMean`).

Rows are looked at in blocks, twice an iteration; a class and a weight are all that is kept of each.
All of it is float64, but for products with the rows. ``docs/decisions/0013-unlabeled-rows.md``
has what was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from flowalign.gaussian.covariance import Covariance
from flowalign.gaussian.field import GaussianField
from flowalign.gaussian.means import gram, tied_means
from flowalign.gaussian.posterior import ClassPosterior, in_range
from flowalign.gaussian.statistics import ClassStatistics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flowalign.gaussian.evidence import Evidence
    from flowalign.gaussian.model import GaussianModel

MAX_ITERATIONS = 5
CHANGED = 0.005
"""Share of rows that change their class below which it ends."""

TINY = 1e-9

ROWS_A_CLASS = 2
"""Unlabelled rows for each labelled class at least; fewer say nothing, and are not taken in."""

CAP = 8.0
"""Weight of all unlabelled rows at most, in labelled ones."""


class Pool(Protocol):
    """Unlabelled rows, of which a block at a time is looked at."""

    def __len__(self) -> int: ...

    def blocks(self, row_size: int) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Yield which rows, and their features, prepared as those of samples are."""


@dataclass(frozen=True, eq=False)
class Assigned:
    """What the unlabelled rows count for, and where; state of a model that has taken them in.

    Attributes
    ----------
    codes : ndarray of shape (m,), int32
        Class of each row.
    weights : ndarray of shape (m,), float32
        What it counts for there.
    """

    codes: NDArray[np.int32]
    weights: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Held:
    """What unlabelled rows add to a model: all that is left of them when more labelled ones come.

    Attributes
    ----------
    statistics : ClassStatistics
        Of the rows as they count; "counts" are their weights.
    agreement : ndarray of shape (C,)
        How far the unlabelled rows of a class lie where its labelled ones do: 1 where they count
        fully.
    """

    statistics: ClassStatistics
    agreement: NDArray[np.float64]

    @property
    def class_weights(self) -> NDArray[np.float64]:
        """What the rows of each class count for together: (C,)."""
        return self.statistics.counts.cpu().numpy()

    def placed(self, positions: NDArray[np.int64], n_classes: int) -> Held:
        """Let class c be class ``positions[c]`` of ``n_classes``, or none of them below 0."""
        kept = positions >= 0
        agreement = np.ones(n_classes)
        agreement[positions[kept]] = self.agreement[kept]
        part = self.statistics.placed(positions, n_classes)
        # Of one scatter for all classes, their share.
        share = float(part.counts.sum()) / max(float(self.statistics.counts.sum()), TINY)
        return Held(replace(part, scatter=part.products * share), agreement)


@dataclass(frozen=True, eq=False)
class TakenIn:
    """A model that has taken unlabelled rows in.

    Attributes
    ----------
    model : GaussianModel
    held : Held
        What the rows add to it.
    rows : Assigned or None
        None where they are no longer at hand.
    n_iter : int
    """

    model: GaussianModel
    held: Held
    rows: Assigned | None
    n_iter: int


def take_in(
    model: GaussianModel,
    pool: Pool,
    X: Tensor,
    codes: Tensor,
    E: Tensor | None,
    classifier_of: Callable[[GaussianModel], ClassPosterior],
    judge: Callable[[GaussianModel], Evidence],
) -> TakenIn:
    """Estimate the model of labelled and unlabelled rows.

    Parameters
    ----------
    model : GaussianModel
        Of the labelled rows, with evidence.
    pool : Pool
        At least one row.
    X, codes : Tensor of shape (n, d) and (n,)
        The labelled rows.
    E : Tensor of shape (C, e) or None
        Class embeddings.
    classifier_of : callable
        Makes the classifier of a model, in float32.
    judge : callable
        Weighs the evidence of a model on labelled rows.
    """
    labelled = _Labelled(model, E)
    if len(pool) < ROWS_A_CLASS * len(model.statistics.sampled):
        for _ in pool.blocks(labelled.width):  # which says what is wrong with them
            pass
        none = Assigned(np.zeros(len(pool), np.int32), np.zeros(len(pool), np.float32))
        nothing = ClassStatistics.none(*model.statistics.sums.shape).to(labelled.centre.device)
        return TakenIn(model, Held(nothing, np.ones(len(labelled.counts))), none, n_iter=0)
    spread = labelled.spread(X, codes)
    rows: Assigned | None = None
    held = None
    for n_iter in range(MAX_ITERATIONS + 1):
        seen = _look(pool, classifier_of(model), model, rows, labelled.centre)
        if rows is not None and (n_iter == MAX_ITERATIONS or seen.changed <= CHANGED):
            break
        most = CAP * model.statistics.n
        seen = seen.scaled(min(1.0, most / max(float(seen.counts.sum()), TINY)))
        agreement = labelled.agreement(model, seen, spread(model))
        rows = seen.scaled(agreement).rows
        held = Held(_statistics(pool, rows, labelled), agreement.cpu().numpy())
        model = labelled.with_rows(held.statistics)
        model = replace(model, evidence=judge(model))
    assert held is not None
    return TakenIn(model, held, rows, n_iter)


def hold(
    model: GaussianModel, held: Held, E: Tensor | None, judge: Callable[[GaussianModel], Evidence]
) -> TakenIn:
    """Estimate the model of labelled rows and of what unlabelled ones added to an earlier one."""
    found = with_held(model, held, E)
    return TakenIn(replace(found, evidence=judge(found)), held, None, n_iter=1)


def with_held(model: GaussianModel, held: Held, E: Tensor | None) -> GaussianModel:
    """Let a model have unlabelled rows as they count in another."""
    if not held.class_weights.any():
        return model
    return _Labelled(model, E).with_rows(held.statistics.to(model.within.basis.device))


def log_proba_without_each(
    classifier: ClassPosterior, model: GaussianModel, x: Tensor, rows: Assigned
) -> tuple[Tensor, Tensor]:
    r"""Log-probabilities of unlabelled rows, (m, C): with all of them, and each without itself.

    A row of weight w in class y leaves the class means and the covariance: with
    :math:`r = x - \hat\mu_y`, :math:`h = w P_{yy}` and
    :math:`B_c = r^T \Sigma^{-1} (x - \hat\mu_c)` its squared distance to class c becomes

    .. math::

        D_c + 2 s_c B_c + s_c^2 B_y + g (B_c + s_c B_y)^2, \qquad
        s_c = \frac{w P_{cy}}{1 - h}, \quad g = \frac{v}{1 - v B_y}, \quad
        v = \frac{w}{(1 - h)\, \mathrm{divisor}},

    v bounded so that the covariance stays positive.
    """
    field = classifier.field
    assert isinstance(field, GaussianField)
    z, middle = field.rotate(x), field.means.mean(dim=0)
    # Relative to the middle of the classes, so that what cancels takes no digits.
    off, centres = z - middle, field.means - middle
    whitened = centres / field.variances
    products, gram_ = off @ whitened.T, centres @ whitened.T
    squares = off.square() @ (1 / field.variances)
    distances = squares[:, None] - 2 * products + gram_.diagonal()
    each = torch.arange(len(x), device=x.device)
    y = torch.from_numpy(rows.codes).to(x.device).long()
    w = torch.from_numpy(rows.weights).to(x.device)
    P = model.class_means.covariance.to(x)
    remaining = 1 - w * P.diagonal()[y]
    shift = P[y] * (w / remaining)[:, None]
    B = squares[:, None] - products - products[each, y][:, None] + gram_[y]
    own = B[each, y]
    bounded = (0.9 / own.clamp_min(1e-12)).minimum(w / (remaining * model.within.divisor))
    gain = bounded / (1 - bounded * own)
    moved = distances + shift * (2 * B + shift * own[:, None])
    moved = moved + gain[:, None] * (B + shift * own[:, None]).square()

    def log_proba(squared: Tensor) -> Tensor:
        weights = field.weigh(squared, z, middle)
        return (classifier.temperature * weights).log_softmax(dim=1)

    return log_proba(distances), log_proba(moved)


@dataclass(frozen=True, eq=False)
class _Seen:
    """Rows as assigned in one look, and their sums by class: counts (C,), sums (C, d), squares."""

    rows: Assigned
    counts: Tensor
    sums: Tensor
    squares: Tensor
    changed: float

    def scaled(self, factor: Tensor | float) -> _Seen:
        """Let rows count for less, all or those of each class."""
        by_class = torch.as_tensor(factor).to(self.counts).expand_as(self.counts)
        weights = self.rows.weights * by_class.cpu().numpy().astype(np.float32)[self.rows.codes]
        return _Seen(
            Assigned(self.rows.codes, weights),
            self.counts * by_class,
            self.sums * by_class[:, None],
            self.squares * by_class**2,
            self.changed,
        )


def _look(
    pool: Pool,
    classifier: ClassPosterior,
    model: GaussianModel,
    before: Assigned | None,
    centre: Tensor,
) -> _Seen:
    """Assign every row anew; its weight is its confidence, squared, without itself in the model."""
    n_classes, width = model.class_means.means.shape
    codes, weights = np.empty(len(pool), np.int32), np.empty(len(pool), np.float32)
    like = model.within.basis
    counts, squares = like.new_zeros(n_classes), like.new_zeros(n_classes)
    sums, changed = like.new_zeros(n_classes, width), 0
    for part, features in pool.blocks(max(n_classes, width)):
        x = torch.from_numpy(features).to(classifier.widening.device)
        if before is None:
            said = honest = in_range(classifier.log_proba(x))
        else:
            rows = Assigned(before.codes[part], before.weights[part])
            said, honest = log_proba_without_each(classifier, model, x, rows)
        new = said.argmax(dim=1)
        confidence = honest.gather(1, new[:, None])[:, 0].exp().square()
        codes[part], weights[part] = new.cpu().numpy(), confidence.cpu().numpy()
        if before is not None:
            changed += int((codes[part] != before.codes[part]).sum())
        w, new = confidence.to(like), new.to(like.device)
        counts.index_add_(0, new, w)
        squares.index_add_(0, new, w.square())
        sums.index_add_(0, new, (x.to(like) - centre) * w[:, None])
    return _Seen(Assigned(codes, weights), counts, sums, squares, changed / len(pool))


def _statistics(pool: Pool, rows: Assigned, labelled: _Labelled) -> ClassStatistics:
    """Statistics of the rows as they count."""
    centre = labelled.centre
    counts, sums = torch.zeros_like(labelled.counts), torch.zeros_like(labelled.means)
    products = centre.new_zeros(len(centre), len(centre))
    for part, features in pool.blocks(max(sums.shape)):
        x = torch.from_numpy(features).to(centre) - centre
        w = torch.from_numpy(rows.weights[part]).to(centre)
        codes = torch.from_numpy(rows.codes[part]).to(centre.device).long()
        weighted = x * w[:, None]
        counts.index_add_(0, codes, w)
        sums.index_add_(0, codes, weighted)
        products.addmm_(weighted.T, x)
    means = sums / counts.clamp_min(TINY)[:, None]
    return ClassStatistics(counts, sums + counts[:, None] * centre, products - sums.T @ means)


class _Labelled:
    """What the labelled rows say, and a model that they and others share."""

    def __init__(self, model: GaussianModel, E: Tensor | None) -> None:
        means, within = model.class_means, model.within
        self.model = model
        self.centre, self.counts = means.common, model.statistics.counts
        self.G = gram(model.statistics, E)
        self.means = model.statistics.means - self.centre
        self.width = len(within.variances)
        self.before = max(model.statistics.n - 1, 1)
        # The scatter behind the covariance, without its ridge.
        squares = within.variances * within.divisor
        squares = (squares - squares.sum() / (self.before + self.width)).clamp_min(0)
        self.scatter = (within.basis * squares) @ within.basis.T
        self.freedom = within.divisor * self.before / within.tail

    def spread(self, X: Tensor, codes: Tensor) -> Callable[[GaussianModel], float]:
        """Return what says how wide labelled rows, (n, d), lie in a model, in units of it."""

        def measure(model: GaussianModel) -> float:
            root = model.within.basis / model.within.variances.sqrt()
            residuals = (X - model.class_means.means[codes]) @ root
            remaining = 1 - model.class_means.covariance.diagonal()[codes]
            return float((residuals.square().mean(dim=1) / remaining).mean())

        return measure

    def agreement(self, model: GaussianModel, seen: _Seen, spread: float) -> Tensor:
        """How far the unlabelled rows of each class lie where its labelled ones do: (C,).

        What the distance of their means has beyond chance is the variance of a displacement.
        """
        root = model.within.basis / model.within.variances.sqrt()
        apart = seen.sums / seen.counts.clamp_min(TINY)[:, None] - self.means
        apart = (apart @ root).square().mean(dim=1)
        chance = seen.squares / seen.counts.clamp_min(TINY) ** 2
        chance = chance + min(1.0, spread) / self.counts.clamp_min(1)
        displaced = (apart - chance).clamp_min(0)
        both = (self.counts > 0) & (seen.counts > TINY)
        return torch.where(both, 1 / (1 + seen.counts * displaced), torch.ones_like(displaced))

    def with_rows(self, seen: ClassStatistics) -> GaussianModel:
        """Estimate the model of both, given the statistics of the unlabelled rows."""
        old, weights = self.model.class_means, seen.counts
        counts = self.counts + weights
        S = (counts > TINY).nonzero()[:, 0]
        sums = seen.sums - weights[:, None] * self.centre
        M = (self.counts[:, None] * self.means + sums)[S] / counts[S][:, None]
        means, _ = tied_means(self.G, old.text_spread, old.residual_spread, counts[S], M, S)
        mu = means.means
        apart = (seen.means - self.centre - mu) * weights.sqrt()[:, None]
        scatter = self.scatter + seen.products + apart.T @ apart
        total = self.before + float(weights.sum())
        freedom = self.freedom + float((weights * (1 - means.covariance.diagonal())).sum())
        divisor = (total + self.width) * freedom / total
        squares, basis = torch.linalg.eigh((scatter + scatter.T) / 2)
        squares = squares.clamp_min(0)
        within = Covariance(
            basis.contiguous(),
            (squares + squares.sum() / total) / divisor,
            divisor,
            total + self.width,
            self.model.within.single_share,
        )
        placed = replace(means, means=mu + self.centre, common=means.common + self.centre)
        return replace(self.model, class_means=placed, within=within)
