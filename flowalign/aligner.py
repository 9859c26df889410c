"""The estimator: labels, arrays and devices. The mathematics is in the modules it calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_X_y, validate_data

from flowalign import spaces, validation
from flowalign.class_embeddings import as_class_embeddings, class_vectors, warn_of_codes
from flowalign.coupling import Coupling
from flowalign.fitting import field_fitter
from flowalign.held_out import hold_out
from flowalign.prediction import FlowPrediction
from flowalign.stopping import choose_stop, score_steps

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


class FlowMatchingAligner(FlowPrediction, BaseEstimator):
    r"""Few-shot classifier that carries features to the embeddings of their class names.

    Flow Matching Alignment [1]_: a velocity field is fitted by flow matching to paths that lead
    from every support feature to the embedding of its own class, by default in closed form. New
    features follow the field for ``n_steps`` steps of a solver, and the class embedding with the
    largest cosine similarity to where they arrive is the prediction. Zero steps are zero-shot
    classification, all steps the whole flow; stopping early blends the two.

    Parameters
    ----------
    class_embeddings : ClassEmbeddings, dict, DataFrame, array-like of shape (C, e) or None
        Embeddings of the class names, in the same forms as the argument of :meth:`fit`, which
        wins; rows of an array follow ``np.unique(y)``. Given here they are safe under
        cross-validation. None takes the class means of X.
    velocity_field : {"gaussian", "mlp"}, default="gaussian"
        "gaussian" is the exact field of a Gaussian model of the support set, in closed form:
        :class:`flowalign.fields.GaussianField`. Text and samples are balanced in ``fit`` by leaving
        samples out. "mlp" is the paper's, a residual network modulated by time, which is trained:
        :class:`flowalign.fields.MLPField`. It takes hundreds of times as long and is mostly less
        accurate, but assumes nothing.
    joint : "auto" or bool, default="auto"
        Whether class embeddings live in the feature space as they are (CLIP's do). Otherwise they
        are mapped into it by orthogonal Procrustes. "auto" takes spaces of equal width for joint if
        the embeddings point to their own class means better than nearly all rotations of them
        would; see :func:`flowalign.spaces.alignment_score`.
    noise : float, default=0.3
        Size of the noise on the path, relative to the root mean square of the features'
        coordinates; 0 is off. Recommended range: 0 to 0.3 for "gaussian", 0 to 1 for "mlp".
        Centre features whose common part is many times their spread, or set it to 0: relative to
        all of a feature, noise would be wider than their classes.
    n_steps : "auto" or int, default="auto"
        Solver steps taken before stopping; 0 classifies the (normalised) input itself. "auto" stops
        at time 0.5 unless samples that were held out in ``fit`` clearly speak for another step, see
        Notes. Read when predicting, so that ``set_params(n_steps=...)`` acts without a new fit; but
        "auto" after a fit with a number needs one.
    step_size : float, default=0.1
        Length of a step; the flow ends at time 1, so ``n_steps * step_size`` is at most 1. Read
        when predicting.
    solver : str, default="euler"
        One of torchdiffeq's methods. With "euler", "midpoint", "heun2", "heun3", "rk4",
        "explicit_adams", "implicit_adams", "fixed_adams" a step is a step; "dopri5", "dopri8",
        "bosh3", "fehlberg2" and "adaptive_heun" choose their own steps up to the stop time. Read
        when predicting.
    class_prior : {"uniform", "empirical"}, dict or array-like of shape (C,), default="uniform"
        Prior probabilities of the classes, for "gaussian" only. "empirical" takes the frequencies
        in y, one added to each count, so that classes without samples stay possible. Given ones
        are positive and sum to 1; those of a dict or a Series go by label, those of an array
        follow `classes_`.
    n_blocks : int, default=3
        Residual blocks of the network. This and the next five are for "mlp" only.
    hidden_dim : int or None, default=None
        Width of the network. None takes the width of X, but at least 64 and at most 384.
    max_iter : int, default=50
        Training epochs.
    batch_size : "auto" or int, default="auto"
        Samples per training step. "auto" makes about 24 steps an epoch, of 32 to 256 samples.
    learning_rate_init : float, default=1e-3
        Highest learning rate of AdamW, reached after one epoch; it falls to 0 along a cosine.
    weight_decay : float, default=0.01
        Of AdamW.
    normalize : bool, default=True
        Whether rows of X and class embeddings are scaled to length 1 on entry, as in CLIP. Settled
        by ``fit``. A coordinate that is far louder than all others drowns them in it; ``fit`` warns
        where one carries more than half of the variance within classes.
    logit_scale : "auto" or float, default="auto"
        Inverse temperature of :meth:`decision_function` and :meth:`predict_proba`. Does not change
        :meth:`predict`. "auto" is the one under which samples held out in ``fit`` are most likely,
        at each step its own. CLIP's is 100, which is overconfident, late in the flow grossly so.
        Read when predicting, as `n_steps` is.
    memory : str, object with the interface of joblib.Memory, or None, default=None
        Where to cache fitted fields, so that a search over what acts at predict time (`n_steps`,
        `step_size`, `solver`, `logit_scale`) fits once per fold, also across processes. (A network
        is trained three times in a fit, see Notes; numbers for both `n_steps` and `logit_scale`
        spare two.) Needs an integer as `random_state`; with anything else nothing is cached. Clear
        the cache when you upgrade flowalign.
    device : str or torch.device, default="auto"
        "auto" takes CUDA, then MPS, then the CPU.
    random_state : int, RandomState instance or None, default=None
        Seeds weights, batches, times and noise of "mlp". Nothing is random in "gaussian".
    verbose : int, default=0
        1 shows a progress bar while "mlp" is trained.

    Attributes
    ----------
    classes_ : ndarray of shape (C,)
        Labels, sorted: all of the class embeddings, with or without samples.
    class_embeddings_ : ndarray of shape (C, d)
        Where each class lies in the feature space: the end of its paths.
    joint_ : bool
        Whether the class embeddings were taken as they are.
    embedding_map_ : ProcrustesMap or None
        How they were mapped if not.
    velocity_field_ : flowalign.fields.VelocityField
        The fitted field, a torch module called as ``velocity_field_(t, x)``; float32, on `device_`.
    loss_curve_ : list of float
        Mean training loss of each epoch; empty for a field in closed form.
    n_iter_ : int
        Epochs run; 1 for a field in closed form.
    n_steps_, stop_time_ : int, float
        Steps that `predict` takes now, and the time at which they end. A chosen stop is a time:
        with another `step_size` it is the nearest step.
    logit_scale_ : float
        Inverse temperature in use.
    stop_scores_ : dict of ndarray, or None
        What the held-out samples say of each step, fit for a DataFrame: ``n_steps``, ``stop_time``,
        ``accuracy``; ``n_better`` and ``n_worse``, how many samples only this step and only the
        default step gets right; ``log_loss`` at ``logit_scale``, the best inverse temperature. At
        most eleven steps, spread evenly. None if nothing was held out.
    stop_source_ : str or None
        Who was held out: "validation data", "leave-one-out" (closed form) or "cross-fitting"
        (network); "held-out classes" or "nothing" where every class has one sample; None if
        neither `n_steps` nor `logit_scale` was "auto".
    n_features_in_ : int
        Width d of the features.
    feature_names_in_ : ndarray of shape (d,)
        Where X had names.
    device_ : str
        Device of the field.

    See Also
    --------
    ClassEmbeddings : Pairs labels with embeddings.

    Notes
    -----
    The paper's own recipe is ``FlowMatchingAligner(velocity_field="mlp", n_blocks=12,
    hidden_dim=X.shape[1], max_iter=200, batch_size=32, learning_rate_init=2e-4, weight_decay=0.01,
    noise=0)``. The defaults of the network are leaner. ``docs/theory.rst`` derives the closed form.

    The closed form is estimated in float64, the network trained in float32. Prediction runs in the
    dtype of X, float32 or float64, on the CPU and in float32 on other devices; 16-bit features
    become float32. With the fixed-grid solvers the result of a row does not depend on the rows
    beside it; adaptive ones choose their steps for a block of rows together, and agree up to their
    tolerance.

    Without class embeddings, or where they are not in the space of the features, the closed form is
    the exact minimiser of the flow matching loss under its model. In a joint space zero-shot
    classification is added to the evidence, and the field is a design.

    **The stop and the temperature** are chosen on samples that the field has not seen: validation
    data if given; otherwise, in closed form, each support sample by a field fitted without it, and
    with a network two of four folds, each by one trained on the other three: two more trainings,
    unless both are numbers. Another step than that at time 0.5 must be right for more samples by
    two standard errors, which few samples rarely say: neighbouring steps differ little, and the
    best of them would be a random one. If every class has one sample, none can be held out beside
    another of its class; then the closed form stops at 0.5 and the network at 0.2, with the
    temperature of classes held out as a whole or, if there is no text to predict those, an inverse
    temperature of 30.
    Neither choice depends on the order of the rows or on the names of the classes. Copies of a
    sample are held out with it; several views of one picture are not recognised, so give validation
    data where there are any. Of more than some thousand samples an even share is held out.

    There is no ``sample_weight``: training in random batches cannot be exactly equivalent to
    repeating samples, which is what scikit-learn means by a weight. Repeat rows instead.

    References
    ----------
    .. [1] Y. Jiang, Z. Wang and L. Chen, "Exploring Cross-Modal Flows for Few-Shot Learning",
       ICLR 2026, arXiv 2510.14543.

    Examples
    --------
    >>> from flowalign import FlowMatchingAligner
    >>> from flowalign.datasets import few_shot, make_cross_modal
    >>> data = make_cross_modal(random_state=0)
    >>> X, y = few_shot(data.X_train, data.y_train, n_shots=4, random_state=0)
    >>> aligner = FlowMatchingAligner(random_state=0).fit(X, y, data.class_embeddings)
    >>> aligner.predict(data.X_test).shape == data.y_test.shape
    True
    """

    def __init__(
        self,
        class_embeddings: Any = None,
        *,
        velocity_field: str = "gaussian",
        joint: str | bool = "auto",
        noise: float = 0.3,
        n_steps: int | str = "auto",
        step_size: float = 0.1,
        solver: str = "euler",
        class_prior: str | ArrayLike = "uniform",
        n_blocks: int = 3,
        hidden_dim: int | None = None,
        max_iter: int = 50,
        batch_size: int | str = "auto",
        learning_rate_init: float = 1e-3,
        weight_decay: float = 0.01,
        normalize: bool = True,
        logit_scale: float | str = "auto",
        memory: Any = None,
        device: str | torch.device = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.class_embeddings = class_embeddings
        self.velocity_field = velocity_field
        self.joint = joint
        self.noise = noise
        self.n_steps = n_steps
        self.step_size = step_size
        self.solver = solver
        self.class_prior = class_prior
        self.n_blocks = n_blocks
        self.hidden_dim = hidden_dim
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.weight_decay = weight_decay
        self.normalize = normalize
        self.logit_scale = logit_scale
        self.memory = memory
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    # What fit takes beyond X and y: metadata routing works without set_fit_request.
    __metadata_request__fit: ClassVar = {"class_embeddings": True, "X_val": True, "y_val": True}

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        class_embeddings: Any = None,
        X_val: ArrayLike | None = None,
        y_val: ArrayLike | None = None,
    ) -> FlowMatchingAligner:
        """Fit the velocity field to labelled support samples.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Frozen features.
        y : array-like of shape (n,)
            Labels.
        class_embeddings : ClassEmbeddings, dict, DataFrame, array-like of shape (C, e) or None
            Embeddings of the class names: a table, ``{label: vector}``, a frame indexed by label,
            or an array whose rows follow ``np.unique(y)`` -- which sorts strings as strings, so
            that '10' comes before '2'. Labels without samples are classes too. None falls back on
            the constructor parameter, then on the class means of X.
        X_val : array-like of shape (m, d) or None
            Validation features, for `n_steps` and `logit_scale` where these are "auto"; the field
            is fitted without them. In a pipeline, earlier steps transform them if it is told so:
            ``Pipeline(steps, transform_input=["X_val"])``; without that they arrive as they are,
            which goes unnoticed unless the width changes. Cross-validation cuts them along with X
            if they are as long.
        y_val : array-like of shape (m,) or None
            Their labels, out of those of the class embeddings.

        Returns
        -------
        FlowMatchingAligner
            The estimator itself.

        Raises
        ------
        ValueError, TypeError
            For parameters out of range, features that are not finite or have no direction, labels
            without embedding, an array of class embeddings as long as X (cross-validation cuts
            such arguments: use `ClassEmbeddings` or the constructor), validation data that do not
            match, a device that is not there, or training that diverges.
        """
        validation.check_parameters(self.get_params(deep=False))
        device = validation.check_device(self.device)
        names_and_width = X
        X, y = self._check_X_y(X, y)
        classes, codes = np.unique(y, return_inverse=True)
        given = self.class_embeddings if class_embeddings is None else class_embeddings
        E = None
        if given is not None:
            table = as_class_embeddings(given, y, fit_argument=class_embeddings is not None)
            warn_of_codes(table, y)
            classes, codes = table.classes, np.searchsorted(table.classes, y)
            E = class_vectors(table, normalize=self.normalize)
        if self.normalize:
            spaces.warn_of_loud_coordinate(X, codes)
        validation_set = self._check_validation_data(X_val, y_val, names_and_width, X, classes)
        coupling = Coupling.by_class(X, codes, E, self.joint)
        del X  # of many samples no second copy should stay
        counts = np.bincount(codes, minlength=len(classes))
        prior = validation.class_probabilities(self.class_prior, classes, counts)
        fit_field = field_fitter(self.get_params(deep=False), prior, device)
        fitted = fit_field(coupling)
        source, scores, stop = None, None, None
        if validation.is_auto(self.n_steps) or validation.is_auto(self.logit_scale):
            source, parts = hold_out(fitted, coupling, validation_set, fit_field)
            scores = score_steps(parts, self.step_size, self.solver) if parts else None
        if validation.is_auto(self.n_steps):
            stop = choose_stop(source, scores, trained=fitted.left_out is None)
        # State is set only now: an interrupted or failed fit leaves a fitted model as it was.
        validate_data(self, names_and_width, skip_check_array=True)
        self.classes_ = np.array(classes)
        self.class_embeddings_ = coupling.targets.astype(coupling.X.dtype, order="C")
        self.joint_ = coupling.joint
        self.embedding_map_ = coupling.embedding_map
        self.velocity_field_ = fitted.field
        self.loss_curve_ = fitted.loss_curve
        self.n_iter_ = max(1, len(fitted.loss_curve))
        self.stop_scores_ = scores
        self.stop_source_ = source
        self.device_ = str(device)
        self._stop = stop
        self._normalize = bool(self.normalize)
        return self

    def _check_X_y(self, X: Any, y: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        """Bring support data into the form of arrays; features normalised if asked for."""
        X, y = validation.as_numpy(X), validation.as_numpy(y)
        features, labels = check_X_y(X, y, dtype=validation.float_dtypes(X), estimator=self)
        validation.label_values(labels, "y")
        # On the classes alone, thrice: of few samples each it would warn that they are too many.
        check_classification_targets(np.repeat(np.unique(labels), 3))
        zeros_allowed = validation.holds_integers(X)
        return self._normalized(features, self.normalize, zeros_allowed), labels

    def _check_validation_data(
        self, X_val: Any, y_val: Any, X: Any, features: NDArray[Any], classes: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[Any]] | None:
        """Features and classes (as codes) of validation data, in the form of the support data."""
        if X_val is None and y_val is None:
            return None
        rows, labels = validation.check_validation_data(X_val, y_val, X, features, classes)
        zeros_allowed = validation.holds_integers(X_val)
        rows = self._normalized(rows, self.normalize, zeros_allowed, "X_val")
        return rows, np.searchsorted(classes, labels)
