"""Several encoders of the same samples: an aligner for each, and a product of their answers."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import numpy as np
from sklearn.utils import Bunch
from sklearn.utils.metaestimators import _BaseComposition, available_if
from sklearn.utils.validation import check_is_fitted

from flowalign import blocks, experts, inputs, parameters
from flowalign.aligner import FlowMatchingAligner
from flowalign.gaussian.evidence import evenly
from flowalign.multi_view_read_out import MultiViewClassifier
from flowalign.reserve import Reserve
from flowalign.view_fit import FittedView, ViewFit
from flowalign.views import View, check_same_views, checked_views, in_view, view_rows

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from flowalign.embedding_forms import Names


T = TypeVar("T")


def _all_incremental(aligner: Any) -> bool:
    """Whether all views can go on with more samples; hides `partial_fit` otherwise."""
    for _, view in aligner._named_aligners:
        view.partial_fit  # noqa: B018  # an AttributeError says why there is none
    return True


class MultiViewAligner(MultiViewClassifier, _BaseComposition):
    r"""Few-shot classifier of samples that several encoders have looked at.

    A *view* is the columns of X that one encoder made. Each view has its own `FlowMatchingAligner`,
    with its own class embeddings. The probabilities of all views are multiplied, each raised to the
    weight of its view, which support samples choose; see :mod:`flowalign.experts`. A row that lacks
    a view has NaN in all of its columns.

    Parameters
    ----------
    views : list of (str, FlowMatchingAligner, columns)
        Name, aligner and columns of each view, as in scikit-learn's `ColumnTransformer`: a slice, a
        list of positions, a mask, names of the columns of a frame, or a callable that takes X and
        returns one of these. A single name is a column of vectors. Aligners are cloned. Class
        embeddings of a view go to the constructor of its aligner.
    class_prior : {"uniform", "empirical"}, dict or array-like of shape (C,), default="uniform"
        Prior probabilities of the classes, as in :class:`FlowMatchingAligner`; set them here, not
        on the aligners.
    unknown_label : str, number or None, default=None
        What :meth:`predict` answers for rows that look like no class. Rows of y with this label
        belong to no class and are dropped.
    unknown_rate : float, default=0.05
        Share of the rows of known classes that may be refused by mistake.
    unlabeled_label : str, number or None, default=None
        Rows of y with this label have no label, and join those of `X_unlabeled`.

    Attributes
    ----------
    classes_ : ndarray of shape (C,)
        Sorted labels, the same for every view.
    views_ : list of (str, FlowMatchingAligner, columns)
        The fitted views.
    named_views_ : Bunch
        The fitted aligners by name. Their parameters that are read when predicting may be set.
    view_weights_ : ndarray of shape (V,)
        Weight of each view; 1 for a single one.
    class_prior_ : ndarray of shape (C,)
        Prior probability of each class.
    support_scores_ : ndarray of shape (m,)
        :meth:`score_samples` of support samples that have all views, each by models without it,
        ascending. Of very many samples an even share is scored.
    unknown_threshold_ : float
        Score below which `predict` refuses a row that has all views: the `unknown_rate` quantile of
        `support_scores_`. Rows that lack views have another threshold, from support samples with
        the same views; minus infinity if there are none.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (d,)
        Names of the columns, if X had any.

    See Also
    --------
    sklearn.compose.make_column_transformer : Makes the columns, from files with the encoders.

    Notes
    -----
    Weights are chosen on support samples, each left out of all models; a network is trained again
    without a part of them. With one sample a class weights cannot be chosen. Each of V views then
    has the weight :math:`V^{-1/2}`, between 1, right for views that know different things, and
    1 / V, right for views that know the same. Samples that lack a view take no part in its aligner.
    A view without class embeddings has no opinion on a class without samples in it: the others
    decide.

    To predict with zero steps or another solver, set the parameters of `named_views_`. Only
    `unknown_label` and `unknown_rate` of this estimator act at once; its other parameters act at
    the next fit.

    Examples
    --------
    >>> import numpy as np
    >>> from flowalign import FlowMatchingAligner, MultiViewAligner
    >>> from flowalign.datasets import make_cross_modal
    >>> one, other = (make_cross_modal(difficulty=4, random_state=seed) for seed in (0, 1))
    >>> X, y = np.hstack([one.X_train, other.X_train]), one.y_train
    >>> views = [
    ...     ("one", FlowMatchingAligner(one.class_embeddings), slice(0, 64)),
    ...     ("other", FlowMatchingAligner(other.class_embeddings), slice(64, None)),
    ... ]
    >>> aligner = MultiViewAligner(views).fit(X, y)
    >>> X_test = np.hstack([one.X_test, other.X_test])
    >>> alone = [view.score(X_test[:, columns], one.y_test) for _, view, columns in aligner.views_]
    >>> bool(aligner.score(X_test, one.y_test) > max(alone))
    True
    >>> X_test[:, 64:] = np.nan  # the other is missing
    >>> bool(aligner.score(X_test, one.y_test) == alone[0])
    True
    """

    if TYPE_CHECKING:
        _reserve: Reserve
        _counts: NDArray[np.int64]

    def __init__(
        self,
        views: list[tuple[str, FlowMatchingAligner, Any]],
        *,
        class_prior: str | ArrayLike = "uniform",
        unknown_label: Any = None,
        unknown_rate: float = 0.05,
        unlabeled_label: Any = None,
    ) -> None:
        self.views = views
        self.class_prior = class_prior
        self.unknown_label = unknown_label
        self.unknown_rate = unknown_rate
        self.unlabeled_label = unlabeled_label

    __metadata_request__fit: ClassVar = dict.fromkeys(("class_embeddings", "X_unlabeled"), True)
    __metadata_request__partial_fit: ClassVar = dict.fromkeys(("class_embeddings", "classes"), True)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters; if `deep`, also aligners by their names, and their parameters."""
        return self._get_params("_named_aligners", deep=deep)

    def set_params(self, **params: Any) -> Self:
        """Set parameters: of this estimator, whole aligners by name, or ``<name>__<parameter>``."""
        self._set_params("_named_aligners", **params)
        return self

    @property
    def _named_aligners(self) -> list[tuple[str, FlowMatchingAligner]]:
        try:
            return [(name, aligner) for name, aligner, _ in self.views]
        except (TypeError, ValueError):  # fit says what is wrong
            return []

    @_named_aligners.setter
    def _named_aligners(self, pairs: list[tuple[str, FlowMatchingAligner]]) -> None:
        columns = [view[2] for view in self.views]
        self.views = [(*pair, part) for pair, part in zip(pairs, columns, strict=True)]

    def fit(
        self, X: Any, y: ArrayLike, class_embeddings: Any = None, X_unlabeled: Any = None
    ) -> Self:
        """Fit the aligner of each view, and weigh the views.

        Parameters
        ----------
        X : array-like or frame of shape (n, d)
            Features of all views, side by side. A row that lacks a view has NaN in all of its
            columns.
        y : array-like of shape (n,)
            Labels, none missing.
        class_embeddings : ClassEmbeddings, dict, DataFrame, array-like of shape (C, e) or None
            Embeddings of the class names, as in :meth:`FlowMatchingAligner.fit`, for all views
            whose aligners have none.
        X_unlabeled : array-like or frame of shape (m, d) or None
            Rows without labels, with the columns of X. They may lack views, too. Each view learns
            from the rows that have it.

        Returns
        -------
        MultiViewAligner
            The estimator itself.

        Raises
        ------
        ValueError, TypeError
            As in :meth:`FlowMatchingAligner.fit`, with the name of the view; for columns that are
            not there, rows without any view or with a part of one, or views with other classes.
        """
        return self._fit(X, y, class_embeddings, X_unlabeled=X_unlabeled)

    @available_if(_all_incremental)
    def partial_fit(
        self,
        X: Any,
        y: ArrayLike,
        class_embeddings: Any = None,
        *,
        classes: ArrayLike | None = None,
    ) -> Self:
        """Go on with more samples, of known classes or of new ones.

        It equals a fit to all samples so far. If the aligner of a view has class embeddings, new
        labels are looked up there.

        Parameters
        ----------
        X : array-like or frame of shape (n, d)
            As of :meth:`fit`.
        y : array-like of shape (n,)
            Labels of X.
        class_embeddings : ClassEmbeddings, dict, DataFrame, array-like of shape (C, e) or None
            Embeddings of new classes, as in :meth:`FlowMatchingAligner.partial_fit`, for all views
            whose aligners have none.
        classes : array-like of shape (C,) or None
            Labels that are to be classes, with or without samples.

        Returns
        -------
        MultiViewAligner
            The estimator itself.
        """
        return self._fit(X, y, class_embeddings, classes=classes, further=True)

    def _fit(
        self,
        X: Any,
        y: Any,
        class_embeddings: Any,
        *,
        X_unlabeled: Any = None,
        classes: Any = None,
        further: bool = False,
    ) -> Self:
        """Fit to samples; `further`, to those that were seen before, too."""
        views = self._checked_views(class_embeddings)
        seen = further and hasattr(self, "classes_")
        if seen:
            check_same_views(views, self.views_)
        known = copy.copy(self)  # it learns the columns of X; this one does only once all is well
        X = known._check_X(X, reset=not seen)
        nameless = any(view.aligner.class_embeddings is None for view in views)
        numbers, y, marked, _ = inputs.check_support_data(
            np.arange(len(X), dtype=np.float64)[:, None],  # in the place of features
            y,
            samples_needed=nameless and class_embeddings is None and not further,
            unknown_label=self.unknown_label,
            unlabeled_label=self.unlabeled_label,
            estimator=self,
        )
        labelled, unlabeled = (rows[:, 0].astype(np.intp) for rows in (numbers, marked))
        if further and len(unlabeled):
            raise ValueError(
                f"y has {len(unlabeled)} rows marked unlabeled_label; give these to fit, with all "
                "others."
            )
        if seen:
            parts = self._view_parts()
        else:
            parts = [
                (v.name, v.columns(X) if callable(v.columns) else v.columns, None) for v in views
            ]
        rows = view_rows(X, parts)
        pools = [[part[unlabeled]] for part in rows]
        if X_unlabeled is not None:
            parts = [
                (name, columns, part.features.shape[1])
                for (name, columns, _), part in zip(parts, rows, strict=True)
            ]
            for pool, part in zip(pools, known._unlabeled(X_unlabeled, parts), strict=True):
                pool.insert(0, part)
        before = [aligner for _, aligner, _ in self.views_] if seen else [None] * len(views)
        fits = [
            _of_view(view.name, ViewFit.of, view.aligner, part[labelled], pool, aligner)
            for view, part, pool, aligner in zip(views, rows, pools, before, strict=True)
        ]
        names = [
            _of_view(view.name, fit.names, y, class_embeddings, classes, further=further)
            for view, fit in zip(views, fits, strict=True)
        ]
        everywhere = _same_classes(views, names)
        for name in ("unknown_label", "unlabeled_label"):
            parameters.check_unknown_label(getattr(self, name), everywhere, name)
        codes = np.searchsorted(everywhere, y if len(y) else everywhere[:0])
        counts = np.bincount(codes, minlength=len(everywhere))
        reserve = Reserve.of(np.hstack([fit.rows.with_nan for fit in fits]), codes)
        if seen:
            places = inputs.places(self.classes_, everywhere)
            reserve = self._reserve.of_classes(places).joined(reserve)
            counts[places] += self._counts
        fitted, start = [], 0
        for view, fit, of_view in zip(views, fits, names, strict=True):
            columns = slice(start, start := start + fit.rows.features.shape[1])
            given = of_view, codes, reserve, columns
            fitted.append(_of_view(view.name, fit.fit, *given, alone=len(views) == 1))
        prior = parameters.class_probabilities(self.class_prior, everywhere, counts)
        never = np.all([f.aligner.class_prior_ <= parameters.IMPOSSIBLE for f in fitted], axis=0)
        prior = np.where(never, parameters.IMPOSSIBLE, prior)
        weights, ratios = _weights(fitted, reserve, prior), _ratios(fitted)
        # State is set only now: an interrupted or failed fit leaves a fitted model as it was.
        self.__dict__ = known.__dict__
        self.classes_ = np.array(everywhere)
        self.views_ = [
            (name, f.aligner, columns) for (name, columns, _), f in zip(parts, fitted, strict=True)
        ]
        self.class_prior_ = prior
        self.view_weights_, self._ratios = weights, ratios
        self._reserve, self._counts = reserve, counts
        return self

    def _checked_views(self, class_embeddings: Any) -> list[View]:
        """Check the parameters, and return the views."""
        views = checked_views(self.views)
        self._validate_names([view.name for view in views])
        if class_embeddings is not None and all(
            view.aligner.class_embeddings is not None for view in views
        ):
            raise ValueError(
                "class_embeddings was given, and the aligner of every view has its own; leave "
                "either out."
            )
        parameters.check_labels(self.get_params(deep=False))
        if isinstance(self.class_prior, str):
            parameters.one_of("class_prior", self.class_prior, ("uniform", "empirical"))
        return views

    @property
    def named_views_(self) -> Bunch:
        """The fitted aligners by name."""
        check_is_fitted(self)
        return Bunch(**{name: aligner for name, aligner, _ in self.views_})


def _of_view(name: str, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Call a function, and put the name of the view in front of its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        result = in_view(name, function, *args, **kwargs)
    for warning in caught:
        warnings.warn(f"View {name!r}: {warning.message}", warning.category, stacklevel=4)
    return result


def _same_classes(views: list[View], names: list[Names]) -> NDArray[Any]:
    """Return the classes, which all views must have."""
    everywhere = names[0].classes
    for view, of_view in zip(views, names, strict=True):
        if not np.array_equal(of_view.classes, everywhere):
            raise ValueError(
                f"View {view.name!r} has the classes {inputs.shorten(of_view.classes.tolist())}, "
                f"and view {views[0].name!r} has {inputs.shorten(everywhere.tolist())}; all views "
                "need the same ones."
            )
    return everywhere


def _weights(
    fitted: list[FittedView], reserve: Reserve, prior: NDArray[Any]
) -> NDArray[np.float64]:
    """Weigh views on the rows of which each view that they have says something unseen."""
    known = [~np.isnan(view.said[:, 0]) | ~view.present for view in fitted]
    rows = np.all(known, axis=0)
    return experts.weigh(
        [view.said[rows] for view in fitted],
        reserve.codes[rows],
        evenly(np.log(prior)),
        fixed=any(view.one_shot for view in fitted),
    )


def _ratios(fitted: list[FittedView]) -> NDArray[np.float32]:
    """How much more support samples look like each class than like none: (m, V, C).

    Of samples of which that is known of all views that they have, an even share of very many.
    """
    ratios = np.stack([view.ratios for view in fitted], axis=1)
    known = [~np.isnan(view.ratios[:, 0]) | ~view.present for view in fitted]
    ratios = ratios[np.all(known, axis=0)]
    return ratios[blocks.thinned(len(ratios), ratios.shape[1] * ratios.shape[2])]
