"""The fit of one view of several: its samples out of rows that all views share."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import clone

from flowalign import experts, inputs, parameters
from flowalign.embedding_forms import Names, names_after, names_of
from flowalign.fields import kind_of
from flowalign.reserve import Reserve
from flowalign.samples import Samples
from flowalign.sphere import prepared
from flowalign.support import Support
from flowalign.unlabeled_rows import UnlabeledRows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flowalign.aligner import FlowMatchingAligner
    from flowalign.views import ViewRows


@dataclass(frozen=True, eq=False)
class FittedView:
    """An aligner, and what it says of the rows of a reserve, (r, d), without having seen them.

    Attributes
    ----------
    aligner : FlowMatchingAligner
        Fitted.
    said : ndarray of shape (r, C)
        Log-probabilities of the classes, less those beforehand; NaN where that is not known, and in
        rows that lack the view.
    ratios : ndarray of shape (r, C)
        How much more each row looks like a class than like none; NaN likewise.
    present : ndarray of shape (r,), bool
        Which rows have the view.
    one_shot : bool
        Whether each class has one sample.
    """

    aligner: FlowMatchingAligner
    said: NDArray[np.float64]
    ratios: NDArray[np.float32]
    present: NDArray[np.bool_]
    one_shot: bool


@dataclass(frozen=True, eq=False)
class ViewFit:
    """What the fit of a view begins with.

    Attributes
    ----------
    aligner : FlowMatchingAligner
        Not yet fitted, or with what it has seen before.
    rows : ViewRows
        Of labelled samples, (n, d).
    pool : list of ViewRows
        Of unlabelled ones.
    seen : bool
        Whether there were samples before.
    """

    aligner: FlowMatchingAligner
    rows: ViewRows
    pool: list[ViewRows]
    seen: bool

    @classmethod
    def of(
        cls,
        aligner: FlowMatchingAligner,
        rows: ViewRows,
        pool: list[ViewRows],
        before: FlowMatchingAligner | None,
    ) -> ViewFit:
        """Begin with the parameters of an aligner, and with what a fitted one has seen before."""
        params = clone(aligner).get_params(deep=False)
        fresh = clone(aligner) if before is None else copy.copy(before).set_params(**params)
        parameters.check_parameters(params)
        return cls(fresh, rows, pool, before is not None)

    def names(
        self, y: NDArray[Any], class_embeddings: Any, classes: Any, *, further: bool
    ) -> Names:
        """Names of the classes: of its constructor, or else those given to all views."""
        own, normalize = self.aligner.class_embeddings, bool(self.aligner.normalize)
        if not further:
            given, in_fit = (class_embeddings, True) if own is None else (own, False)
            return names_of(given, y, fit_argument=in_fit, normalize=normalize)[0]
        labels = inputs.labels_with(y, classes)
        known = self.aligner._names() if self.seen else None
        given = class_embeddings if own is None else None
        return names_after(known, given, own, labels, normalize=normalize)

    def fit(
        self, names: Names, codes: NDArray[Any], reserve: Reserve, columns: slice, *, alone: bool
    ) -> FittedView:
        """Fit to the samples that have this view.

        Parameters
        ----------
        names : Names
        codes : ndarray of shape (n,)
            Classes of `rows`.
        reserve : Reserve
            Rows of all views, side by side, of samples so far: the same for each view, so that what
            the views say of a sample can be put together. NaN where a row lacks a view.
        columns : slice
            Of this view in there.
        alone : bool
            Whether there is no other view to be weighed against.
        """
        aligner, here = self.aligner, self.rows.present
        device = parameters.check_device(aligner.device)
        keeps_all = not kind_of(aligner.velocity_field).incremental
        X = self._prepared(self.rows.features, self.rows.integers)[here]
        most = max(len(X), 1) if keeps_all else None
        samples = Samples.of(X, codes[here], names.classes, device=device, most=most)
        if self.seen:
            samples = aligner._seen().among(names.classes) + samples
        if names.E is None and not samples.statistics.n:
            raise ValueError(
                "no sample has it, and there are no class_embeddings; give some, or leave it out."
            )
        features = reserve.X[:, columns]
        present = ~np.isnan(features[:, 0])
        looked_at = self._prepared(features[present].astype(samples.reserve.X.dtype), True)
        of_these = reserve.codes[present]
        if not keeps_all:
            kept = Reserve.of(
                looked_at, of_these, reserve.multiplicity[present], most=max(len(looked_at), 1)
            )
            samples = replace(samples, reserve=kept)
        support = Support.from_samples(aligner, names, samples)._replace(pool=self._pool(device))
        if self.seen:
            support = support._replace(pool=aligner._held_for(names.classes))
        else:
            named = inputs.named(self.rows.given, self.rows.features[:1])
            support = support._replace(names_and_width=named)
        estimate = aligner._estimate(support, device, hold_out_anyway=not alone)
        aligner._adopt(support, estimate)
        coupling = support.coupling
        where = np.full(len(present), -1)
        where[present] = experts.positions(looked_at, of_these, coupling.X, coupling.codes)
        said = experts.held_out_log_proba(aligner, estimate, len(coupling.X))
        ratios = experts.support_ratios(coupling, estimate)
        one_shot = len(coupling.X) > 0 and coupling.one_shot
        return FittedView(aligner, _at(where, said), _at(where, ratios), present, one_shot)

    def _prepared(self, features: NDArray[Any], integers: bool) -> NDArray[Any]:
        return prepared(features, "X", bool(self.aligner.normalize), integers)

    def _pool(self, device: Any) -> UnlabeledRows | None:
        """Unlabelled rows that have this view."""
        for part in self.pool:  # here the number of a row is what it is to the user
            prepared(part.features, part.what, bool(self.aligner.normalize), part.integers)
        features = [part.features[part.present] for part in self.pool]
        integers = any(part.integers for part in self.pool)
        marked = np.concatenate(features) if features else self.rows.features[:0]
        normalize = bool(self.aligner.normalize)
        return UnlabeledRows.of(
            None, marked, None, integers, normalize=normalize, device=device.type
        )


def _at(where: NDArray[np.int64], values: NDArray[Any]) -> NDArray[Any]:
    """Rows of values, NaN where the position is below 0."""
    found = np.full((len(where), values.shape[1]), np.nan, dtype=values.dtype)
    found[where >= 0] = values[where[where >= 0]]
    return found
