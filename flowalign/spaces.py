r"""From the space of class embeddings to the space of features.

``E`` holds class embeddings, (C, e), and ``M`` class means of features, (C, d), row by row the same
classes. Three things live here: rows on the unit sphere and the cosine between them, the rule that
says whether two spaces are one (:func:`alignment_score`), and the map between two that are not
(:class:`ProcrustesMap`). :func:`place_targets` puts them together.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from flowalign.validation import shorten

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK_ROWS = 1024
"""Rows that are looked at together where their number has no bound: temporary arrays stay small."""

JOINT_SCORE = 3.0
"""Alignment score above which ``joint="auto"`` takes two spaces of equal width for one.

Unrelated spaces exceed it in about 1 of 700 cases. Spaces narrower than 36 are too narrow for such
odds (embeddings equal to their class means score sqrt(d) or a little more) and are asked for
sqrt(d) / 2 only.
"""


LOUD_SHARE, LOUD_WIDTH = 0.5, 16
"""Share of one coordinate in the variance within classes above which ``fit`` warns, and the width
from which on. Features of encoders have 0.03 at most, on thirteen sets."""


def unit_rows(
    X: NDArray[Any], name: str, *, zeros_allowed: bool = False, first: int = 0
) -> NDArray[Any]:
    """Rows scaled to length 1, whatever their scale.

    A row of zeros has no direction: ValueError, unless ``zeros_allowed``; then it stays zero. In
    the message, rows are counted from ``first`` on.
    """
    result = np.empty_like(X)
    zero = np.empty((len(X), 1), dtype=bool)
    for start in range(0, len(X), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        largest = np.abs(X[rows]).max(axis=1, keepdims=True)
        zero[rows] = largest == 0
        # Dividing by the largest entry first keeps rows of 1e-30 or 1e200 from under- or
        # overflowing.
        part = X[rows] / np.where(zero[rows], 1, largest)
        length = np.linalg.norm(part, axis=1, keepdims=True)
        np.divide(part, np.where(zero[rows], 1, length), out=result[rows])
    if zero.any() and not zeros_allowed:
        zeros = (first + np.flatnonzero(zero)).tolist()
        raise ValueError(
            f"{name} has rows of zeros, which have no direction to normalize: {shorten(zeros)}. "
            "Drop them, or use normalize=False where length means something."
        )
    return result


def cosine_similarities(x: Tensor, targets: Tensor) -> Tensor:
    """Cosine between every state, (n, d), and every target, (C, d): shape (n, C).

    A vector of zeros has similarity 0 to everything.
    """
    return directions(x) @ directions(targets).T


def contrasts(targets: Tensor) -> Tensor:
    """Directions of the targets less their mean, (C, d).

    ``directions(x) @ contrasts(targets).T`` is the cosine less its mean over the targets, to a
    maximum and to a softmax the same. Features with much in common have nearly parallel targets,
    whose cosines agree in all digits of float32: what is common must go first.
    """
    units = directions(targets)
    if units.device.type != "mps":  # which lacks float64
        # Of length 1 to more digits, since lengths that differ by rounding would count.
        units = functional.normalize(units.double(), dim=1)
    return (units - units.mean(dim=0)).to(targets.dtype)


def directions(x: Tensor) -> Tensor:
    """Rows scaled to length 1, (n, d); a row of zeros stays zero."""
    largest = x.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    return functional.normalize(x / largest, dim=1)


def loudest_coordinate(X: NDArray[Any], codes: NDArray[Any]) -> tuple[int, float]:
    """Return the coordinate that varies most within classes, and its share in all variance.

    Where every class has one sample it is the variance of all. Without any, the share is 0.
    """
    _, rows, counts = np.unique(codes, return_inverse=True, return_counts=True)
    if counts.max() == 1:
        rows = np.zeros_like(rows)
    means, squares = class_means(X, rows), np.zeros(X.shape[1])
    for start in range(0, len(X), BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        squares += np.square(X[part] - means[rows[part]], dtype=np.float64).sum(axis=0)
    loudest = int(squares.argmax())
    return loudest, float(squares[loudest] / (squares.sum() or 1))


def warn_of_loud_coordinate(X: NDArray[Any], codes: NDArray[Any]) -> None:
    """Warn ``fit`` if one coordinate of normalised features, (n, d), drowns the others."""
    if X.shape[1] < LOUD_WIDTH:
        return
    loudest, share = loudest_coordinate(X, codes)
    if share > LOUD_SHARE:
        warnings.warn(
            f"Column {loudest} of X has {share:.0%} of the variance of all {X.shape[1]} columns: "
            "rows scaled to length 1 have little left of the others. Unless that is meant, bring "
            "the columns to a common scale first, make_pipeline(StandardScaler(), aligner), or "
            "drop that one.",
            UserWarning,
            stacklevel=3,  # whoever called fit
        )


def class_means(X: NDArray[Any], codes: NDArray[Any]) -> NDArray[Any]:
    """Mean of the rows of each class that occurs in ``codes``, in ascending order: (C, d)."""
    order = np.argsort(codes, kind="stable")
    _, starts = np.unique(codes[order], return_index=True)
    classes = np.split(order, starts[1:])
    means = np.stack([X[rows].mean(axis=0, dtype=np.float64) for rows in classes])
    return means.astype(X.dtype)


def place_targets(
    E: NDArray[Any], X: NDArray[Any], codes: NDArray[Any], joint: str | bool
) -> tuple[NDArray[Any], bool, ProcrustesMap | None]:
    """Where in the feature space each class lies.

    Parameters
    ----------
    E : ndarray of shape (C, e)
        Class embeddings.
    X : ndarray of shape (n, d)
        Support features.
    codes : ndarray of shape (n,)
        Class of each sample, a row of ``E``. Classes without samples are allowed.
    joint : "auto" or bool
        Whether ``E`` lives in the space of ``X`` as it is. "auto" says yes if the widths are equal
        and the :func:`alignment_score` is above :data:`JOINT_SCORE`, or fewer than two classes
        have samples, which leaves no score.

    Returns
    -------
    targets : ndarray of shape (C, d)
        ``E`` itself, or ``E`` mapped. Without any spread to map by, the mean of each class, and
        the mean of these for classes without samples.
    joint : bool
        The decision.
    embedding_map : ProcrustesMap or None
        The map, where one was used.
    """
    sampled, M = np.unique(codes), class_means(X, codes)
    same_width = E.shape[1] == X.shape[1]
    if joint == "auto":
        threshold = min(JOINT_SCORE, np.sqrt(X.shape[1]) / 2)
        joint = same_width and (
            len(sampled) < 2 or bool(alignment_score(E[sampled], M) > threshold)
        )
    if joint:
        if not same_width:
            raise ValueError(
                f"joint=True needs class_embeddings in the space of X, but they are "
                f"{E.shape[1]} wide and X is {X.shape[1]} wide. Use joint='auto' or joint=False "
                "to have them mapped."
            )
        return E, True, None
    embedding_map = ProcrustesMap.fit(E[sampled], M)
    if embedding_map is None:
        targets = np.tile(M.mean(axis=0), (len(E), 1))
        targets[sampled] = M
    else:
        targets = embedding_map(E)
    return targets, False, embedding_map


def alignment_score(E: NDArray[Any], M: NDArray[Any]) -> float:
    r"""How far class embeddings point to their own class means, in standard deviations.

    With both sides centred, :math:`B = (M - \bar M)^T (E - \bar E)`, the sum over classes of the
    scalar product of embedding and mean is :math:`\mathrm{tr}(B)`. If the two spaces had nothing to
    do with each other, one could rotate the embeddings by any orthogonal :math:`R` without making
    the sum smaller or larger on average; over uniform random rotations :math:`\mathrm{tr}(R B)` has
    mean 0 and variance :math:`\|B\|_F^2 / d`. The score is
    :math:`\sqrt d\, \mathrm{tr}(B) / \|B\|_F`.

    Parameters
    ----------
    E, M : ndarray of shape (C, d)
        Class embeddings and class means of the same width.

    Returns
    -------
    float
        0 where fewer than two classes, or no spread, say nothing.
    """
    E, M = _centred(E), _centred(M)
    # tr(B) and |B|_F from C x C products, not from the d x d matrix B.
    norm = np.sqrt(max(np.sum((E @ E.T) * (M @ M.T)), 0.0))
    return float(np.sqrt(E.shape[1]) * np.sum(E * M) / norm) if norm > 0 else 0.0


@dataclass(frozen=True)
class ProcrustesMap:
    r"""The similarity transform that best carries class embeddings onto class means.

    .. math::

        e \mapsto \bar M + s\, (e - \bar E)\, R, \qquad
        (E - \bar E)^T (M - \bar M) = U S V^T, \quad R = U V^T, \quad
        s = \mathrm{tr}(S) / \|(E - \bar E) R\|_F^2

    with means over the classes that have samples. Directions in which these classes do not differ
    are not known to the map; it drops them (R keeps the rank of the product), so that the target of
    a class without samples does not depend on the whims of the decomposition.

    Attributes
    ----------
    rotation : ndarray of shape (e, d)
        R; orthonormal on the directions that it keeps.
    scale : float
        s.
    source_mean : ndarray of shape (e,)
        Mean of the embeddings of classes with samples.
    target_mean : ndarray of shape (d,)
        Mean of their class means.

    References
    ----------
    .. [1] P. H. Schönemann, "A generalized solution of the orthogonal Procrustes problem",
       Psychometrika 31, 1966.
    """

    rotation: NDArray[Any]
    scale: float
    source_mean: NDArray[Any]
    target_mean: NDArray[Any]

    @classmethod
    def fit(cls, E: NDArray[Any], M: NDArray[Any]) -> ProcrustesMap | None:
        """Fit on embeddings (C, e) and means (C, d) of the same classes; None without spread."""
        # Through QR of both sides: the SVD is of a matrix no larger than C x C.
        Q_E, R_E = np.linalg.qr(_centred(E).T)
        Q_M, R_M = np.linalg.qr(_centred(M).T)
        U, s, Vt = np.linalg.svd(R_E @ R_M.T)
        size = np.linalg.norm(R_E) * np.linalg.norm(R_M)
        rank = int(np.sum(s > 1e-10 * size)) if size > 0 else 0
        if rank == 0:
            return None
        rotation = (Q_E @ U[:, :rank]) @ (Vt[:rank] @ Q_M.T)
        scale = s[:rank].sum() / np.square(_centred(E) @ rotation).sum()
        return cls(rotation, float(scale), E.mean(axis=0), M.mean(axis=0))

    def __call__(self, E: NDArray[Any]) -> NDArray[Any]:
        """Map embeddings, (C, e), into the feature space, (C, d)."""
        return self.target_mean + self.scale * (E - self.source_mean) @ self.rotation


def _centred(A: NDArray[Any]) -> NDArray[Any]:
    A = A.astype(np.float64)
    return A - A.mean(axis=0)
