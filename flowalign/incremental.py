"""Samples and classes that come later, and samples and classes to forget."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from flowalign import inputs, parameters
from flowalign.embedding_forms import Names, joined_names
from flowalign.fields import KINDS, kind_of
from flowalign.gaussian.unlabeled import Held
from flowalign.samples import Samples
from flowalign.sphere import prepared
from flowalign.support import Support
from flowalign.transduction import TransductiveClassifier

if TYPE_CHECKING:
    import torch
    from numpy.typing import ArrayLike, NDArray


def _is_incremental(aligner: Any) -> bool:
    """Whether sums of samples are all that a fit needs; hides the methods otherwise."""
    name = aligner.velocity_field
    if isinstance(name, str) and name in KINDS and not kind_of(name).incremental:
        raise AttributeError(
            f"velocity_field={name!r} learns from all samples together; use fit, which starts anew."
        )
    return True


class IncrementalClassifier(TransductiveClassifier):
    """Goes on from counts, sums, one scatter, and a reserve of rows of all samples so far.

    The model of the classes is the same as if all samples had been given at once. Whatever is
    chosen on held-out samples (the weights of the evidence, the stop, the threshold of unknown
    rows) is chosen on the reserve: all samples up to :data:`flowalign.reserve.MOST`, of more an
    even share of each class.
    """

    if TYPE_CHECKING:  # of the aligner
        velocity_field: str
        normalize: bool
        class_embeddings: Any

        def _fit_support(self, support: Support, device: torch.device) -> Self: ...

    __metadata_request__partial_fit: ClassVar = dict.fromkeys(("class_embeddings", "classes"), True)

    @available_if(_is_incremental)
    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        class_embeddings: Any = None,
        *,
        classes: ArrayLike | None = None,
    ) -> Self:
        """Go on with more samples, of known classes or of new ones.

        Equals a fit to all samples so far, whatever the blocks and their order, up to rounding.
        Unlabelled rows of an earlier fit count as they did there.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Features, as in :meth:`fit`. No rows, shape (0, d), if there are only new names.
        y : array-like of shape (n,)
            Labels of X.
        class_embeddings : ClassEmbeddings, dict, DataFrame, array-like of shape (C, e) or None
            Embeddings of new classes, with or without samples. Embeddings of known classes replace
            the earlier ones. Rows of an array follow `classes` if these are given, and
            ``np.unique(y)`` otherwise. If None, the first call takes the constructor parameter, and
            later calls look new labels up there.
        classes : array-like of shape (C,) or None
            Labels that are to be classes, with or without samples. Without class embeddings a class
            is not predicted until it has samples.

        Returns
        -------
        FlowMatchingAligner
            The estimator itself.

        Raises
        ------
        ValueError, TypeError
            As in :meth:`fit`; for a new label without embedding if the others have one, labels of
            another type, or a change of `normalize`.
        AttributeError
            For a velocity field that is trained.

        See Also
        --------
        flowalign.fit_blocks : Fits to blocks of a set that is larger than memory.

        Examples
        --------
        >>> from flowalign import FlowMatchingAligner
        >>> from flowalign.datasets import make_cross_modal
        >>> data = make_cross_modal(random_state=0)
        >>> aligner = FlowMatchingAligner(data.class_embeddings)
        >>> for rows in (slice(0, None, 2), slice(1, None, 2)):
        ...     aligner = aligner.partial_fit(data.X_train[rows], data.y_train[rows])
        >>> whole = FlowMatchingAligner(data.class_embeddings).fit(data.X_train, data.y_train)
        >>> bool((aligner.predict(data.X_test) == whole.predict(data.X_test)).all())
        True
        """
        parameters.check_parameters(self.get_params(deep=False))
        device = parameters.check_device(self.device)
        support = Support.after(self, X, y, class_embeddings, classes, device)
        return self._fit_support(support, device)

    @available_if(_is_incremental)
    def forget(
        self,
        X: ArrayLike | None = None,
        y: ArrayLike | None = None,
        *,
        labels: ArrayLike | None = None,
        unlabeled: bool = False,
    ) -> Self:
        """Remove samples or classes, as if they had never been there.

        Nothing of forgotten samples stays in the sums or in the reserve, except for rounding, which
        is below 1e-6 unless nearly all samples are forgotten. Their rows in the reserve are
        replaced only by samples that come later.

        Parameters
        ----------
        X : array-like of shape (n, d) or None
            Samples to forget, given again.
        y : array-like of shape (n,) or None
            Labels of X. If there are class embeddings, a class without samples stays.
        labels : array-like of shape (k,) or None
            Classes to forget, with their names. All classes share one scatter. If a class has more
            samples than the reserve keeps, its part of the scatter is not known, and the covariance
            stays as it is, with a warning. To avoid that, forget its samples first.
        unlabeled : bool, default=False
            Whether to forget the unlabelled rows.

        Returns
        -------
        FlowMatchingAligner
            The estimator itself.

        Raises
        ------
        ValueError
            If samples were never given, as far as the aligner can tell; labels are no classes; or
            nothing is left.

        Examples
        --------
        >>> from flowalign import FlowMatchingAligner
        >>> from flowalign.datasets import make_cross_modal
        >>> data = make_cross_modal(random_state=0)
        >>> aligner = FlowMatchingAligner().fit(data.X_train, data.y_train, data.class_embeddings)
        >>> wrong = [3, 5]  # labels that were a mistake
        >>> aligner = aligner.forget(data.X_train[wrong], data.y_train[wrong])
        >>> aligner.gaussian_model_.statistics.n == len(data.X_train) - 2
        True
        """
        parameters.check_parameters(self.get_params(deep=False))
        device = parameters.check_device(self.device)
        samples, names = self._seen(), self._names()
        if (X is None) != (y is None):
            raise ValueError("X and y are forgotten together; give both, or labels.")
        if X is None and labels is None and not unlabeled:
            raise ValueError("There is nothing to forget; give X and y, labels, or unlabeled=True.")
        if X is not None:
            samples = samples.without(*self._given_again(X, y))
        if labels is not None:
            dropped = np.zeros(len(self.classes_), dtype=bool)
            dropped[self._codes_of(labels, "labels")] = True
            samples, whole = samples.without_classes(dropped)
            names = names.of(~dropped)
            if not whole:
                warnings.warn(
                    "Some of the forgotten classes had more samples than the reserve: the "
                    "covariance, which all classes share, stays as they made it.",
                    UserWarning,
                    stacklevel=2,
                )
        if names.E is None:  # nothing is known of a class without samples
            names = names.of(samples.among(names.classes).statistics.counts.cpu().numpy() > 0)
        if not len(names.classes):
            raise ValueError("No class would be left; make another aligner instead.")
        support = Support.from_samples(self, names, samples)
        held = None if unlabeled else self._held_for(names.classes)
        return self._fit_support(support._replace(pool=held), device)

    @available_if(_is_incremental)
    def merge(self, *others: Self) -> Self:
        """Add the samples of other aligners, as if this one had been fitted to all of them.

        This makes one fit of the parts of a set that lie on several machines.

        Parameters
        ----------
        *others : FlowMatchingAligner
            Aligners fitted to other samples, with the same `normalize`. Classes may differ. These
            aligners do not change.

        Returns
        -------
        FlowMatchingAligner
            The estimator itself, with its own parameters.

        Raises
        ------
        ValueError
            If features or class embeddings do not match, or an aligner has unlabelled rows.

        Examples
        --------
        >>> from flowalign import FlowMatchingAligner
        >>> from flowalign.datasets import make_cross_modal
        >>> data = make_cross_modal(random_state=0)
        >>> one, other = (FlowMatchingAligner(data.class_embeddings) for _ in range(2))
        >>> one = one.fit(data.X_train[::2], data.y_train[::2])
        >>> other = other.fit(data.X_train[1::2], data.y_train[1::2])
        >>> one.merge(other).gaussian_model_.statistics.n == len(data.X_train)
        True
        """
        parameters.check_parameters(self.get_params(deep=False))
        device = parameters.check_device(self.device)
        samples, names = self._seen(), self._names()
        for other in others:
            more = other._seen()
            if other._normalize != self._normalize or other.n_features_in_ != self.n_features_in_:
                raise ValueError(
                    f"An aligner of {other.n_features_in_} features with normalize="
                    f"{other._normalize} does not merge into one of {self.n_features_in_} with "
                    f"normalize={self._normalize}."
                )
            if self._held is not None or other._held is not None:
                raise ValueError(
                    "Unlabelled rows count beside the labelled ones of one fit, and do not merge; "
                    "forget(unlabeled=True) first."
                )
            names = joined_names(names, other._names())
            samples = samples + more
        return self._fit_support(Support.from_samples(self, names, samples), device)

    def _held_for(self, classes: NDArray[Any]) -> Held | None:
        """Return what unlabelled rows add to a model of these classes."""
        positions = inputs.places(self.classes_, classes)
        return self._held and self._held.placed(positions, len(classes))

    def _names(self) -> Names:
        return Names(self.classes_, self._arrays["_class_vectors"])

    def _seen(self) -> Samples:
        """Return what is kept of the samples so far."""
        check_is_fitted(self)
        if self._reserve is None:
            raise ValueError(
                "What this aligner was fitted to is not known any more: it was trained, or comes "
                "from a file of an earlier version. Fit it again, with velocity_field='gaussian'."
            )
        if bool(self.normalize) != self._normalize:
            raise ValueError(
                f"normalize={self.normalize} was {self._normalize} in the fit; fit again, or set "
                "it back."
            )
        if self.gaussian_model_ is None:
            return Samples.none(self.classes_, self.n_features_in_, self._reserve)
        return Samples(self.classes_, self.gaussian_model_.statistics, self._reserve)

    def _given_again(self, X: Any, y: Any) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return samples to forget as they were modelled, and their classes."""
        features, zeros_allowed = self._check_X(X)
        codes = self._codes_of(y, "y")
        if len(codes) != len(features):
            raise ValueError(
                f"X and y must pair up, got {len(features)} rows and {len(codes)} labels."
            )
        return prepared(features, "X", self._normalize, zeros_allowed), codes
