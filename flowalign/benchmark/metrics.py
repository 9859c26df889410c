"""How good probabilities are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from flowalign.plotting.reliability import reliability_bins

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_BINS = 15


def evaluate(proba: NDArray[Any], codes: NDArray[Any]) -> dict[str, Any]:
    """Return accuracy, log-loss and calibration of probabilities (m, C) for classes (m,).

    A row of NaN has no answer. It counts as wrong, and as if all classes were equally probable.

    Returns
    -------
    dict
        ``accuracy``; ``log_loss``, in which probabilities are at least 1e-15; ``ece``, the expected
        calibration error [1]_ of the predicted class over 15 bins of equal width; and
        ``calibration``, the number of samples in each bin, their mean confidence and accuracy.

    References
    ----------
    .. [1] C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.

    Examples
    --------
    >>> result = evaluate(np.array([[0.8, 0.2], [0.8, 0.2]]), np.array([0, 1]))
    >>> result["accuracy"], round(result["ece"], 3), result["calibration"]
    (0.5, 0.3, [(2, 0.8, 0.5)])
    """
    answered = ~np.isnan(proba).all(axis=1)
    proba = np.where(answered[:, None], proba.astype(np.float64), 1 / proba.shape[1])
    hits = answered & (proba.argmax(axis=1) == codes)
    confidence = proba.max(axis=1)
    calibration = reliability_bins(confidence, hits, N_BINS)
    right = np.maximum(proba[np.arange(len(codes)), codes], 1e-15)
    return {
        "accuracy": float(hits.mean()),
        "log_loss": float(-np.log(right).mean()),
        "ece": sum(n * abs(mean - share) for n, mean, share in calibration) / len(codes),
        "calibration": calibration,
    }
