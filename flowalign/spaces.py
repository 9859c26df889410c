r"""From the space of class embeddings to the space of features.

``E`` holds class embeddings, (C, e), and ``M`` class means of features, (C, d); row c of both is
class c. :func:`alignment_score` decides whether the two spaces are one, :class:`ProcrustesMap` is
the map between two that are not, and :func:`place_targets` uses both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

JOINT_SCORE = 3.0
"""Alignment score above which ``joint="auto"`` takes two spaces of equal width for one.

Unrelated spaces exceed it in about 1 of 700 cases. Spaces narrower than 36 are too narrow for such
odds (embeddings equal to their class means score sqrt(d) or a little more) and are asked for
sqrt(d) / 2 only.
"""


def class_means(X: NDArray[Any], codes: NDArray[Any]) -> NDArray[Any]:
    """Mean of the rows of each class that occurs in ``codes``, in ascending order: (C, d)."""
    order = np.argsort(codes, kind="stable")
    _, starts = np.unique(codes[order], return_index=True)
    classes = np.split(order, starts[1:])
    means = np.stack([X[rows].mean(axis=0, dtype=np.float64) for rows in classes])
    return means.astype(X.dtype)


def place_targets(
    E: NDArray[Any], M: NDArray[Any], sampled: NDArray[Any], joint: str | bool
) -> tuple[NDArray[Any], bool, ProcrustesMap | None]:
    """Place the targets: class embeddings in the space of the features.

    Parameters
    ----------
    E : ndarray of shape (C, e)
        Class embeddings.
    M : ndarray of shape (S, d)
        Means of the support features of the classes that have some.
    sampled : ndarray of shape (S,)
        The rows of ``E`` that belong to `M`.
    joint : "auto" or bool
        Whether ``E`` lives in the space of the features. "auto" says yes if the widths are equal
        and the :func:`alignment_score` is above :data:`JOINT_SCORE`, or fewer than two classes have
        samples, so that there is no score.

    Returns
    -------
    targets : ndarray of shape (C, d)
        ``E`` itself, or ``E`` mapped. If there is no spread to fit a map to, the mean of each
        class, and the mean of these for classes without samples.
    joint : bool
        The decision.
    embedding_map : ProcrustesMap or None
        The map, if one was used.

    Raises
    ------
    ValueError
        If the space was to be joint and the widths differ, or if there are no samples to map by.
    """
    same_width = E.shape[1] == M.shape[1]
    if joint == "auto":
        threshold = min(JOINT_SCORE, np.sqrt(M.shape[1]) / 2)
        joint = same_width and (
            len(sampled) < 2 or bool(alignment_score(E[sampled], M) > threshold)
        )
    if not len(sampled) and not (joint and same_width):
        raise ValueError(
            f"X has no samples to map class_embeddings by, which are {E.shape[1]} wide where X is "
            f"{M.shape[1]} wide. Give samples of some classes, or class_embeddings in the space of "
            "X, and joint='auto' or joint=True."
        )
    if joint:
        if not same_width:
            raise ValueError(
                f"joint=True needs class_embeddings in the space of X, but they are "
                f"{E.shape[1]} wide and X is {M.shape[1]} wide. Use joint='auto' or joint=False "
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
    scalar product of embedding and mean is :math:`\mathrm{tr}(B)`. If the two spaces are unrelated,
    a rotation of the embeddings by an orthogonal :math:`R` changes nothing on average; over uniform
    random rotations :math:`\mathrm{tr}(R B)` has mean 0 and variance :math:`\|B\|_F^2 / d`. The
    score is :math:`\sqrt d\, \mathrm{tr}(B) / \|B\|_F`.

    Parameters
    ----------
    E, M : ndarray of shape (C, d)
        Class embeddings and class means of the same width.

    Returns
    -------
    float
        0 if there are fewer than two classes, or no spread.
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

    with means over the classes that have samples. The map drops directions in which these classes
    do not differ (R has the rank of the product). Otherwise the target of a class without samples
    would depend on arbitrary choices of the decomposition.

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
