"""The support set: from what a user gives ``fit`` to samples, classes and their targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from flowalign import inputs, parameters
from flowalign.coupling import Coupling
from flowalign.embedding_forms import classes_of
from flowalign.equal_embeddings import shadowed_names, warn_of_equal_names
from flowalign.feature_scale import warn_of_loud_column
from flowalign.sphere import prepared
from flowalign.unlabeled_rows import UnlabeledRows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flowalign.aligner import FlowMatchingAligner


class Support(NamedTuple):
    """What a fit begins with.

    Attributes
    ----------
    classes : ndarray of shape (C,)
        Labels, sorted.
    coupling : Coupling
    prior : ndarray of shape (C,)
        A probability for each class.
    validation_set : tuple of ndarrays of shape (m, d) and (m,), or None
        Features and classes.
    pool : UnlabeledRows or None
    names_and_width : array-like
        A row of X that tells the estimator names and number of its features.
    """

    classes: NDArray[Any]
    coupling: Coupling
    prior: NDArray[np.float64]
    validation_set: tuple[NDArray[Any], NDArray[Any]] | None
    pool: UnlabeledRows | None
    names_and_width: Any

    @classmethod
    def of(
        cls,
        aligner: FlowMatchingAligner,
        X: Any,
        y: Any,
        class_embeddings: Any,
        X_val: Any,
        y_val: Any,
        X_unlabeled: Any,
        device: str,
    ) -> Support:
        """Check what was given to ``fit`` of an aligner, whose caller is warned of what is odd."""
        in_fit, normalize = class_embeddings is not None, bool(aligner.normalize)
        given_X, given = X, class_embeddings if in_fit else aligner.class_embeddings
        X, y, unlabeled, integers = inputs.check_support_data(
            X,
            y,
            samples_needed=given is None,
            unknown_label=aligner.unknown_label,
            unlabeled_label=aligner.unlabeled_label,
            estimator=aligner,
        )
        names_and_width = inputs.named(given_X, np.concatenate([X[:1], unlabeled[:1]])[:1])
        pool = UnlabeledRows.of(
            X_unlabeled, unlabeled, given_X, integers, normalize=normalize, device=device
        )
        X = prepared(X, "X", normalize, integers)
        classes, codes, E = classes_of(given, y, fit_argument=in_fit, normalize=normalize)
        parameters.check_unknown_label(aligner.unknown_label, classes)
        parameters.check_unknown_label(aligner.unlabeled_label, classes, "unlabeled_label")
        validation_set = None
        if X_val is not None or y_val is not None:
            dropped = aligner.unknown_label, aligner.unlabeled_label
            rows, labels, integers = inputs.check_validation_data(
                X_val, y_val, given_X, X, classes, dropped
            )
            rows = prepared(rows, "X_val", normalize, integers)
            validation_set = rows, np.searchsorted(classes, labels)
        coupling = Coupling.by_class(X, codes, E, aligner.joint)
        if normalize:
            warn_of_loud_column(coupling.X, coupling.codes)
        counts = np.bincount(codes, minlength=len(classes))
        warn_of_equal_names(classes, E, counts)
        prior = parameters.class_probabilities(aligner.class_prior, classes, counts)
        shadowed = shadowed_names(E, counts)
        prior = np.where(shadowed, parameters.IMPOSSIBLE, prior)
        if validation_set is not None:  # nobody is right about a class that is never predicted
            rows, codes_val = validation_set
            heard = ~shadowed[codes_val]
            validation_set = rows[heard], codes_val[heard]
        return cls(classes, coupling, prior, validation_set, pool, names_and_width)
