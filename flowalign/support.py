"""The support set: from what a user gives to samples, classes and their targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sklearn.utils.validation import validate_data

from flowalign import inputs, parameters
from flowalign.coupling import Coupling
from flowalign.embedding_forms import Names, names_after, names_of
from flowalign.equal_embeddings import shadowed_names, warn_of_equal_names
from flowalign.feature_scale import warn_of_loud_column
from flowalign.fields import kind_of
from flowalign.gaussian.unlabeled import Held
from flowalign.samples import Samples
from flowalign.sphere import prepared
from flowalign.unlabeled_rows import UnlabeledRows

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from flowalign.aligner import FlowMatchingAligner


class Support(NamedTuple):
    """What a fit begins with.

    Attributes
    ----------
    names : Names
        Labels, sorted, and the embedding of each.
    samples : Samples
    coupling : Coupling
    prior : ndarray of shape (C,)
        A probability for each class.
    names_and_width : array-like or None
        A row of X that tells the estimator names and number of its features; None if it knows them.
    validation_set : tuple of ndarrays of shape (m, d) and (m,), or None
        Features and classes.
    pool : UnlabeledRows, Held or None
        Rows without labels, or what is left of them.
    """

    names: Names
    samples: Samples
    coupling: Coupling
    prior: NDArray[np.float64]
    names_and_width: Any = None
    validation_set: tuple[NDArray[Any], NDArray[Any]] | None = None
    pool: UnlabeledRows | Held | None = None

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
        device: torch.device,
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
            X_unlabeled, unlabeled, given_X, integers, normalize=normalize, device=device.type
        )
        X = prepared(X, "X", normalize, integers)
        names, codes = names_of(given, y, fit_argument=in_fit, normalize=normalize)
        validation_set = None
        if X_val is not None or y_val is not None:
            dropped = aligner.unknown_label, aligner.unlabeled_label
            rows, labels, integers = inputs.check_validation_data(
                X_val, y_val, given_X, X, names.classes, dropped
            )
            rows = prepared(rows, "X_val", normalize, integers)
            validation_set = rows, np.searchsorted(names.classes, labels)
        keeps_all = not kind_of(aligner.velocity_field).incremental
        most = max(len(X), 1) if keeps_all else None
        samples = Samples.of(X, codes, names.classes, device=device, most=most)
        support = cls.from_samples(aligner, names, samples)
        if validation_set is not None:  # nobody is right about a class that is never predicted
            rows, codes = validation_set
            heard = support.prior[codes] > parameters.IMPOSSIBLE
            validation_set = rows[heard], codes[heard]
        return support._replace(
            names_and_width=names_and_width, validation_set=validation_set, pool=pool
        )

    @classmethod
    def after(
        cls,
        aligner: FlowMatchingAligner,
        X: Any,
        y: Any,
        class_embeddings: Any,
        classes: Any,
        device: torch.device,
    ) -> Support:
        """Check what was given to ``partial_fit``, and put it to what the aligner has seen."""
        seen = aligner._seen() if hasattr(aligner, "classes_") else None
        given_X, X = X, inputs.as_numpy(X, "X")
        if seen is not None:
            validate_data(aligner, inputs.named(given_X, X), reset=False, skip_check_array=True)
        X, y, unlabeled, integers = inputs.check_support_data(
            X,
            y,
            samples_needed=False,
            unknown_label=aligner.unknown_label,
            unlabeled_label=aligner.unlabeled_label,
            estimator=aligner,
        )
        if len(unlabeled):
            raise ValueError(
                f"y has {len(unlabeled)} rows marked unlabeled_label; partial_fit takes labelled "
                "rows, and fit all of them: give these to fit, as X_unlabeled."
            )
        names_and_width = inputs.named(given_X, X[:1])
        X = prepared(X, "X", bool(aligner.normalize), integers)
        labels = inputs.labels_with(y, classes)
        names = names_after(
            None if seen is None else aligner._names(),
            class_embeddings,
            aligner.class_embeddings,
            labels,
            normalize=bool(aligner.normalize),
        )
        if not len(names.classes):
            raise ValueError("There are neither samples nor class_embeddings; give some.")
        codes = np.searchsorted(names.classes, y if len(y) else names.classes[:0])
        samples, held = Samples.of(X, codes, names.classes, device=device), None
        if seen is not None:
            samples = seen.among(names.classes) + samples
            held = aligner._held_for(names.classes)
        support = cls.from_samples(aligner, names, samples)
        return support._replace(
            names_and_width=names_and_width if seen is None else None, pool=held
        )

    @classmethod
    def of_samples(
        cls, aligner: FlowMatchingAligner, samples: Samples, class_embeddings: Any
    ) -> Support:
        """Begin with samples that were summed up elsewhere."""
        names = names_after(
            None,
            class_embeddings,
            aligner.class_embeddings,
            samples.classes,
            normalize=bool(aligner.normalize),
        )
        support = cls.from_samples(aligner, names, samples)
        width = samples.statistics.sums.shape[1]
        return support._replace(names_and_width=np.empty((0, width)))

    @classmethod
    def from_samples(cls, aligner: FlowMatchingAligner, names: Names, samples: Samples) -> Support:
        """Place the classes of samples; whoever called the caller of this is warned."""
        classes, E = names
        parameters.check_unknown_label(aligner.unknown_label, classes)
        parameters.check_unknown_label(aligner.unlabeled_label, classes, "unlabeled_label")
        samples = samples.among(classes)
        coupling = Coupling.of(samples.reserve, samples.statistics, E, aligner.joint)
        if aligner.normalize:
            warn_of_loud_column(samples.statistics)
        counts = coupling.counts
        warn_of_equal_names(classes, E, counts)
        prior = parameters.class_probabilities(aligner.class_prior, classes, counts)
        unheard = counts == 0 if E is None else shadowed_names(E, counts)
        prior = np.where(unheard, parameters.IMPOSSIBLE, prior)
        return cls(names, samples, coupling, prior)
