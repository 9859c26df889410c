"""The generating half of the aligner: synthetic features of its classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from flowalign import blocks, inputs, parameters, sphere
from flowalign.read_out import FlowClassifier

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


class FeatureSampler(FlowClassifier):
    """Draws features from the model of the classes, also for classes without samples."""

    def sample(
        self,
        n_samples: int = 1,
        labels: ArrayLike | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        r"""Draw synthetic features, also of classes that are known only by name.

        Parameters
        ----------
        n_samples : int, default=1
            How many, at least 1: in total, or for each label if `labels` are given.
        labels : array-like of shape (m,) or None
            Labels out of `classes_`. None draws the labels too, with probabilities `class_prior_`.
        random_state : int, RandomState instance or None, default=None
            Seeds the draws; an integer gives the same ones on every device.

        Returns
        -------
        X : ndarray of shape (n, d)
            In the feature space, in the dtype of `class_embeddings_`; of length 1 if the aligner
            normalises.
        y : ndarray of shape (n,)
            Their labels, grouped: in the order of `labels`, or of `classes_`.

        Raises
        ------
        ValueError, TypeError
            If the aligner has no model, because it has no samples or comes from a file of format 1;
            if a label is no class; or if `n_samples` is no positive integer.

        Notes
        -----
        For either field the rows come from `gaussian_model_`: a multivariate t about the expected
        mean of the class, :math:`\hat\mu_c`, with the covariance within classes, widened by the
        uncertainty of that mean. Rows of a class with many samples scatter like its samples. Rows
        of a class without samples scatter more, the less the names explain. The density is not
        confined to the sphere: draws have about the length of features and are then scaled. They
        may have values that features cannot have, such as negative counts.

        Examples
        --------
        Rows of a class that has a name and no samples, for a classifier that needs some:

        >>> import numpy as np
        >>> from sklearn.linear_model import LogisticRegression
        >>> from flowalign import FlowMatchingAligner
        >>> from flowalign.datasets import few_shot, make_cross_modal
        >>> data = make_cross_modal(random_state=0)
        >>> X, y = few_shot(data.X_train, data.y_train, n_shots=8, random_state=0)
        >>> known = y != data.class_names[0]
        >>> aligner = FlowMatchingAligner(data.class_embeddings).fit(X[known], y[known])
        >>> drawn, names = aligner.sample(8, labels=data.class_names[:1], random_state=0)
        >>> drawn.shape == (8, X.shape[1]), set(names) == {data.class_names[0]}
        (True, True)
        >>> classifier = LogisticRegression().fit(
        ...     np.concatenate([X[known], drawn]), np.concatenate([y[known], names])
        ... )
        >>> len(classifier.classes_) == len(data.class_names)
        True
        """
        check_is_fitted(self)
        parameters.integer("n_samples", n_samples, low=1)
        model = self.gaussian_model_
        if model is None:
            raise ValueError(
                "There is nothing to sample from: the aligner has no model of its classes, since "
                "it was fitted without samples, or comes from a file of format 1. Fit it to some."
            )
        rng = check_random_state(random_state)
        if labels is None:
            prior = self._arrays["class_prior_"]
            prior = prior / prior.sum()
            codes = np.repeat(np.arange(len(prior)), rng.multinomial(n_samples, prior))
        else:
            codes = np.repeat(self._codes_of(labels, "labels"), n_samples)
        X = np.empty((len(codes), self.n_features_in_), self._arrays["class_embeddings_"].dtype)
        for rows in blocks.slices(len(X)):
            drawn = model.sample(codes[rows], rng).cpu().numpy()
            X[rows] = sphere.prepared(drawn, "The sample", self._normalize, zeros_allowed=True)
        return X, self.classes_[codes]

    def _codes_of(self, labels: ArrayLike, name: str) -> NDArray[np.int64]:
        """Classes of labels, which are called `name` in messages, as integers: (m,)."""
        array = inputs.label_values(labels, name)
        codes = {label: code for code, label in enumerate(self.classes_.tolist())}
        if unknown := [label for label in array.tolist() if label not in codes]:
            raise ValueError(
                f"{name} has labels that are no class: {inputs.shorten(unknown)}; there are "
                f"{inputs.shorten(codes)}."
            )
        return np.array([codes[label] for label in array.tolist()])
