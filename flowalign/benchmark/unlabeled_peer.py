"""The base of peers that also learn from unlabelled rows."""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from scipy.special import softmax
from sklearn.utils import assert_all_finite, check_array

from flowalign.benchmark.peer import Peer, text_of
from flowalign.inputs import check_unlabeled_data
from flowalign.sphere import unit_rows

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from flowalign.benchmark.peer import Scorer

UNKNOWN = -1  # code of a row without label, as in scikit-learn


class UnlabeledPeer(Peer):
    """A peer that is fitted to labelled rows and a pool of unlabelled ones.

    A setting of "auto" is chosen as by other peers. The whole pool is given while a fold is left
    out.

    Attributes
    ----------
    transduction_proba_ : ndarray of shape (m, C)
        Probabilities of the rows of the pool, in the order of the pool; columns as in `classes_`.
    transduction_ : ndarray of shape (m,)
        Labels of the highest probabilities.
    inductive : bool
        Whether ``predict_proba`` has an answer for rows that were not in the pool.
    """

    inductive: ClassVar[bool] = True

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        class_embeddings: Any = None,
        X_val: ArrayLike | None = None,
        y_val: ArrayLike | None = None,
        X_unlabeled: ArrayLike | None = None,
    ) -> UnlabeledPeer:
        """Fit to labelled support samples and unlabelled rows.

        Parameters
        ----------
        X, y, class_embeddings, X_val, y_val
            As for the other peers.
        X_unlabeled : array-like of shape (m, d)
            Features without labels, at least one row.

        Returns
        -------
        UnlabeledPeer
            The estimator itself.

        Raises
        ------
        ValueError
            Without unlabelled rows, or for input that other peers refuse.
        """
        if X_unlabeled is None or np.shape(X_unlabeled)[:1] == (0,):
            raise ValueError(
                f"{type(self).__name__} learns from unlabelled rows and X_unlabeled has none: give "
                "at least one row of features, or use a method that needs no unlabelled rows."
            )
        width = check_array(X, input_name="X").shape[1]
        pool, _ = check_unlabeled_data(X_unlabeled, X, width)
        assert_all_finite(pool, input_name="X_unlabeled")
        self._pool = unit_rows(pool.astype(np.float32), "X_unlabeled")
        super().fit(X, y, class_embeddings, X_val, y_val)
        self.transduction_proba_ = softmax(self._pool_logits(), axis=1)
        self.transduction_ = self.classes_[self.transduction_proba_.argmax(axis=1)]
        return self

    def _with_pool(
        self, X: NDArray[Any], codes: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[np.intp]]:
        known = np.full(len(X) + len(self._pool), UNKNOWN)
        known[: len(X)] = codes
        return np.concatenate([X, self._pool]), known

    def _pool_logits(self) -> NDArray[Any]:
        return self._scores(self._pool, **self.settings_)


class TransductivePeer(UnlabeledPeer):
    """A peer that has answers only for the rows that it was fitted with.

    To choose a setting, the held-out rows, or those of ``X_val``, join the pool, and their answers
    are read there. Rows of ``X_val`` that are in the pool already are not added again.
    """

    inductive: ClassVar[bool] = False

    @abstractmethod
    def _solve(
        self,
        rows: NDArray[Any],
        known: NDArray[Any],
        text: NDArray[Any],
        shared: Any,
        **setting: float,
    ) -> NDArray[Any]:
        """Return logits, (u, C), of the u unit rows, out of (N, d), whose class is not known.

        ``known``, (N,), has codes, or -1. ``text`` is (C, d). ``shared`` comes from ``_prepare``.
        """

    def _prepare(self, rows: NDArray[Any]) -> Any:
        """Compute all that depends on the rows alone, and not on which classes are known."""
        return None

    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Refused: there is no answer for rows outside the pool."""
        raise self._no_answer()

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Refused: there is no answer for rows outside the pool."""
        raise self._no_answer()

    def _no_answer(self) -> NotImplementedError:
        return NotImplementedError(
            f"{type(self).__name__} is transductive: it answers for the rows of X_unlabeled, by "
            "transduction_proba_ and transduction_. Fit again with the rows to be classified."
        )

    def _train(self, X: NDArray[Any], codes: NDArray[Any], text: NDArray[Any]) -> Scorer:
        self._rows, self._known = self._with_pool(X, codes)
        self._shared = self._prepare(self._rows)
        return partial(self._joined, text)

    def _joined(self, text: NDArray[Any], X_new: NDArray[Any], **setting: float) -> NDArray[Any]:
        places = {row.tobytes(): k for k, row in enumerate(self._pool)}
        at = np.array([places.get(row.tobytes(), UNKNOWN) for row in X_new])
        new = X_new[at == UNKNOWN]
        at[at == UNKNOWN] = len(self._pool) + np.arange(len(new))
        rows = np.concatenate([self._rows, new])
        known = np.append(self._known, np.full(len(new), UNKNOWN))
        shared = self._prepare(rows) if len(new) else self._shared
        return self._solve(rows, known, text, shared, **setting)[at]

    def _held_out(
        self,
        fold: NDArray[Any],
        text: NDArray[Any],
        X_new: NDArray[Any],  # the rows of the fold, which are in the pool already
        **setting: float,
    ) -> NDArray[Any]:
        known = self._known.copy()
        known[fold] = UNKNOWN
        return self._solve(self._rows, known, text, self._shared, **setting)[: len(fold)]

    def _cross_fit(
        self, X: NDArray[Any], codes: NDArray[Any], E: NDArray[Any] | None
    ) -> list[tuple[Scorer, NDArray[Any], NDArray[Any]]]:
        return [
            (partial(self._held_out, b, text_of(E, X[a], codes[a])), X[b], codes[b])
            for a, b in self._folds(X, codes)
        ]

    def _pool_logits(self) -> NDArray[Any]:
        text = self.class_embeddings_
        return self._solve(self._rows, self._known, text, self._shared, **self.settings_)
