"""Fits a field of any kind to a coupling, out of a cache where there is one."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_memory

from flowalign.fields.base import Fitted, Kind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flowalign.coupling import Coupling
    from flowalign.gaussian.unlabeled import Held, Pool


def field_fitter(
    kind: Kind,
    params: dict[str, Any],
    prior: NDArray[Any],
    device: torch.device,
    pool: Pool | Held | None = None,
) -> Callable[[Coupling], Fitted]:
    """Return what fits a field to a coupling, cached if `memory` says so.

    What acts at predict time (solver, steps, scale of the scores, unknown rows) is no setting of a
    fit: a search over it fits once.

    Parameters
    ----------
    kind : Kind
    params : dict
        Of the aligner.
    prior : ndarray of shape (C,)
        A probability for each class.
    device : torch.device
    pool : Pool, Held or None
        Unlabelled rows, or what is left of them, for a kind that takes them.
    """
    rng = check_random_state(params["random_state"])
    known = params | {"prior": prior, "device": str(device)}
    known["pool"] = pool
    known["seeds"] = tuple(rng.randint(np.iinfo(np.int32).max, size=2).tolist())
    settings = {name: known[name] for name in kind.settings}
    memory = check_memory(params["memory"])
    if kind.random and not isinstance(params["random_state"], Integral):
        memory = check_memory(None)  # every fit is to be another one
    fit = memory.cache(kind.fit, ignore=list(kind.without_effect))
    return lambda coupling: fit(coupling, **settings).to(device)
