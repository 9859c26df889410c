"""Labels and probabilities of the unlabelled rows of a fit."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from flowalign import parameters
from flowalign.gaussian.field import GaussianField
from flowalign.gaussian.posterior import PosteriorMean, in_range, mean_of_two
from flowalign.gaussian.unlabeled import Assigned, log_proba_without_each
from flowalign.sampling import FeatureSampler

if TYPE_CHECKING:
    from numpy.typing import NDArray


class TransductiveClassifier(FeatureSampler):
    """Answers for unlabelled rows, each by the model without this row.

    A model with the row has learned its own answer for it. ``transduction_`` and
    ``transduction_proba_`` need a pass over the rows. They are no properties, because programs that
    display an estimator read all of its properties.
    """

    def __getattr__(self, name: str) -> Any:
        if name == "transduction_":
            return self._transduction()
        if name == "transduction_proba_":
            return np.concatenate([p.exp().cpu().numpy() for p, _ in self._unlabeled()])
        return super().__getattribute__(name)  # which says why there is none

    def _without_unlabeled(self) -> Self:
        """Return a copy that has seen labelled rows alone, with the same steps and read-out."""
        alone, field, model = copy.copy(self), self.velocity_field_, self._inductive_model
        assert model is not None  # there were unlabelled rows
        alone.gaussian_model_, alone._inductive_model = model, None
        alone._classifier = alone._make_classifier()
        if isinstance(field, GaussianField):  # a network has seen no others
            like = model.within.basis
            given = self._arrays["class_embeddings_"], np.log(self._arrays["class_prior_"])
            targets, log_prior = (torch.tensor(array).to(like) for array in given)
            moved = model.field(targets, log_prior, noise_std=field.config["noise_std"])
            alone.velocity_field_ = moved.float().to(torch.device(self.device_))
        return alone

    def _transduction(self) -> NDArray[Any]:
        check_is_fitted(self)
        parameters.check_unknown_label(self.unknown_label, self.classes_)
        codes = []
        for log_proba, scores in self._unlabeled():
            found = log_proba.argmax(dim=1)
            if self.unknown_label is not None:
                found = torch.where(scores < self.unknown_threshold_, -1, found)
            codes.append(found.cpu().numpy())
        return self._labels(np.concatenate(codes))

    @torch.inference_mode()
    def _unlabeled(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield log-probabilities, (n, C), and scores, (n,), of a block of rows at a time."""
        check_is_fitted(self)
        classifier, model, assigned = self._classifier, self.gaussian_model_, self._assigned
        if self._pool is None or assigned is None or model is None:
            raise NotFittedError(
                "There are no unlabelled rows: the fit had no X_unlabeled, or the aligner was "
                "loaded, unpickled or copied, or has gone on with more samples since, which brings "
                "none. Use predict for rows that you have."
            )
        assert isinstance(classifier, PosteriorMean)
        for part, features in self._pool.blocks(max(model.statistics.sums.shape)):
            x = torch.from_numpy(features).to(self.device_)
            rows = Assigned(assigned.codes[part], assigned.weights[part])
            ratios = in_range(classifier.ratios(x)).amax(dim=1)
            _, honest = log_proba_without_each(classifier.with_rows, model, x, rows)
            yield mean_of_two(honest, in_range(classifier.without.log_proba(x))), ratios
