"""Samples and classes that come later, and those that have to go."""

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
    """Goes on from what it has seen: counts, sums, one scatter, and a reserve of rows.

    The model of the classes is the same as if all samples had been there at once. What is chosen on
    samples that the model has not seen (the weights of the evidence, the stop, the threshold of
    unknown rows) is chosen on the reserve, :data:`flowalign.reserve.MOST` rows: all of few samples,
    and of many as many of each class as of any other.
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

        It equals a fit to all samples so far, whatever the blocks and their order: estimates of the
        classes to rounding. Unlabelled rows of an earlier fit count as they did there.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Features, as of :meth:`fit`. None, of shape (0, d), if only names come.
        y : array-like of shape (n,)
            Their labels.
        class_embeddings : ClassEmbeddings, dict, DataFrame, array-like of shape (C, e) or None
            Embeddings of new classes, with or without samples; those of known classes may be among
            them, and take the place of earlier ones. Rows of an array follow `classes` if these are
            given, and ``np.unique(y)`` otherwise. The first call takes the constructor parameter
            for None; later ones look new labels up there.
        classes : array-like of shape (C,) or None
            Labels that are to be classes, with or without samples. Without class embeddings those
            without samples are not predicted until they have some.

        Returns
        -------
        FlowMatchingAligner
            The estimator itself.

        Raises
        ------
        ValueError, TypeError
            As of :meth:`fit`; for a new label without embedding where the others have one, labels
            of another type, or a change of `normalize`.
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
        """Take samples or classes away again, as if they had never been there.

        Nothing of forgotten samples stays, in sums or in the reserve, but for rounding: to 1e-6 as
        long as those that stay are no tiny part. Their rows in the reserve are not replaced before
        others come.

        Parameters
        ----------
        X : array-like of shape (n, d) or None
            Samples to forget, given again.
        y : array-like of shape (n,) or None
            Their labels. A class stays, known by its name, if there are class embeddings.
        labels : array-like of shape (k,) or None
            Classes to forget, with their names. The scatter is one for all classes: of a class with
            more samples than the reserve has, its part is not known, and the estimate of the
            covariance stays, with a warning. To take that away, too, give its samples first.
        unlabeled : bool, default=False
            Whether to forget the unlabelled rows.

        Returns
        -------
        FlowMatchingAligner
            The estimator itself.

        Raises
        ------
        ValueError
            If samples were never given, as far as that can be told; labels are no classes; or
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
        """Go on with what other aligners have seen, too: as if fitted to the samples of all.

        This is how parts of a set that lie on several machines become one fit.

        Parameters
        ----------
        *others : FlowMatchingAligner
            Fitted to other samples, with the same `normalize`. Classes may differ. They stay as
            they are.

        Returns
        -------
        FlowMatchingAligner
            The estimator itself, with its own parameters.

        Raises
        ------
        ValueError
            If features or class embeddings do not go together, or one of them has unlabelled rows.

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
