"""A tabular foundation model as a peer, if its library is installed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.decomposition import PCA

from flowalign.benchmark.peer import Peer
from flowalign.encoders.loading import require

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

    from flowalign.benchmark.peer import Scorer


class TabICL(Peer):
    """TabICL [1]_, a transformer that has the support set in its context; no text.

    TabICL was trained on tables of up to 100 columns and 10 classes, and its authors expect less of
    it much beyond 100 columns. So wider features are reduced by a principal component analysis of
    the support set. For more classes, the library combines a hierarchy of classifiers. TabICL was
    trained on tables of at least 300 rows; most support sets have fewer.

    Parameters
    ----------
    n_components : int
        Largest number of principal components. Features that are not wider stay as they are.
    model_path : path or None
        A checkpoint. None downloads the default checkpoint of the installed tabicl.

    References
    ----------
    .. [1] J. Qu et al., "TabICL: A Tabular Foundation Model for In-Context Learning on Large Data",
       ICML 2025, arXiv 2502.05564.
    """

    def __init__(
        self, n_components: int = 100, model_path: str | os.PathLike[str] | None = None
    ) -> None:
        self.n_components = n_components
        self.model_path = model_path

    def _train(self, X: NDArray[Any], codes: NDArray[Any], text: NDArray[Any]) -> Scorer:
        tabicl = require("tabicl", "peers")
        reduce = None
        if X.shape[1] > self.n_components:
            reduce = PCA(min(self.n_components, len(X)), random_state=0).fit(X)
        model = tabicl.TabICLClassifier(model_path=self.model_path, random_state=0)
        model.fit(X if reduce is None else reduce.transform(X), codes)
        return partial(_log_probabilities, model, reduce)


def _log_probabilities(model: Any, reduce: PCA | None, X_new: NDArray[Any]) -> NDArray[Any]:
    proba = model.predict_proba(X_new if reduce is None else reduce.transform(X_new))
    return np.log(np.maximum(proba, np.finfo(proba.dtype).tiny))
