"""What is said of the unlabelled rows that a fit took in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from flowalign import parameters
from flowalign.gaussian.posterior import PosteriorMean, mean_of_two
from flowalign.gaussian.unlabeled import Assigned, log_proba_without_each
from flowalign.read_out import FlowClassifier

if TYPE_CHECKING:
    from numpy.typing import NDArray


class TransductiveClassifier(FlowClassifier):
    """Answers for unlabelled rows: each by the model without this row, which would know itself."""

    @property
    def transduction_(self) -> NDArray[Any]:
        """Labels of the unlabelled rows of the fit, (m,); made when asked for."""
        parameters.check_unknown_label(self.unknown_label, self.classes_)
        codes = []
        for log_proba, x in self._unlabeled():
            found = log_proba.argmax(dim=1)
            if self.unknown_label is not None:
                scores = self._classifier_of_rows.score(x)
                found = torch.where(scores < self.unknown_threshold_, -1, found)
            codes.append(found.cpu().numpy())
        return self._labels(np.concatenate(codes))

    @property
    def transduction_proba_(self) -> NDArray[np.float32]:
        """Class probabilities of the unlabelled rows of the fit, (m, C); made when asked for."""
        rows = [log_proba.exp().cpu().numpy() for log_proba, _ in self._unlabeled()]
        return np.concatenate(rows)

    @property
    def _classifier_of_rows(self) -> PosteriorMean:
        assert isinstance(self._classifier, PosteriorMean)
        return self._classifier

    @torch.inference_mode()
    def _unlabeled(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield log-probabilities, (n, C), and features, (n, d), a block at a time."""
        check_is_fitted(self)
        if self._pool is None or self._assigned is None or self.gaussian_model_ is None:
            raise NotFittedError(
                "There are no unlabelled rows: the fit had no X_unlabeled, or the aligner was "
                "loaded or unpickled, which brings none. Use predict for rows that you have."
            )
        classifier = self._classifier_of_rows
        for part, features in self._pool.blocks(max(self.gaussian_model_.statistics.sums.shape)):
            x = torch.from_numpy(features).to(self.device_)
            rows = Assigned(self._assigned.codes[part], self._assigned.weights[part])
            _, honest = log_proba_without_each(classifier.with_rows, self.gaussian_model_, x, rows)
            yield mean_of_two(honest, classifier.without.log_proba(x)), x
