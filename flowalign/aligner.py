"""The estimator: its parameters and its fit. The mathematics is in the modules that it calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from sklearn import get_config
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data

from flowalign import parameters
from flowalign.fields import UNTRAINED, kind_of
from flowalign.fields.fitting import field_fitter
from flowalign.held_out import hold_out
from flowalign.incremental import IncrementalClassifier
from flowalign.stopping import choose_stop, follow, score_steps
from flowalign.support import Support
from flowalign.unlabeled_rows import UnlabeledRows, warn_of_disagreement

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from flowalign.fields import Fitted
    from flowalign.stopping import Followed


class FlowMatchingAligner(IncrementalClassifier, BaseEstimator):
    r"""Few-shot classifier that carries features to the embeddings of their class names.

    Flow Matching Alignment [1]_: a velocity field is fitted to paths that lead from the feature of
    each support sample to the embedding of its class. New features follow the field for ``n_steps``
    steps of a solver. The prediction is the class with the highest score: the cosine of its
    embedding with the moved feature, plus the log-probability that a Gaussian model of the classes
    gives to the feature before it moved. Zero steps are zero-shot classification, by cosines alone.

    Parameters
    ----------
    class_embeddings : ClassEmbeddings, dict, DataFrame, array-like of shape (C, e) or None
        Embeddings of the class names, in any form that :meth:`fit` takes; an argument of `fit`
        overrides them. Given here they are safe under cross-validation. None takes the class means
        of X.
    velocity_field : {"gaussian", "mlp"}, default="gaussian"
        "gaussian" is the exact field of a Gaussian model of the classes, in closed form. "mlp" is
        the paper's, a residual network modulated by time, which is trained: it takes hundreds of
        times as long and carries features less well to their class embeddings, but does not assume
        Gaussian classes.
    joint : "auto" or bool, default="auto"
        Whether class embeddings live in the space of the features, as CLIP's do. Otherwise they
        are mapped into it by orthogonal Procrustes. "auto" calls spaces of equal width joint if the
        embeddings point to their own class means better than nearly all rotations of them would;
        see :func:`flowalign.spaces.alignment_score`.
    noise : float, default=0.3
        Size of the noise on the path, relative to the root mean square of the features'
        coordinates; 0 is off. Recommended range: 0 to 0.3 for "gaussian", 0 to 1 for "mlp". If
        features share a large offset, centre them or set 0; otherwise the noise is wider than the
        classes.
    n_steps : "auto" or int, default="auto"
        Solver steps taken before stopping; 0 classifies the (normalised) input itself. "auto" stops
        at time 0.5 unless another step is clearly better on held-out samples. Read when predicting:
        ``set_params(n_steps=...)`` acts without a new fit, but "auto" after a number needs one.
    step_size : "auto" or float, default="auto"
        Length of a step; ``n_steps * step_size`` is at most 1. "auto" is 0.1 if `n_steps` is a
        number. If the stop is chosen, the closed form takes steps of at most 0.25, which give the
        same answers as steps of 0.1, and the network takes steps of 0.1. Read when predicting.
    solver : str, default="euler"
        One of torchdiffeq's methods, :data:`flowalign.ode.SOLVERS`: with a fixed grid, such as
        "midpoint" or "rk4", or adaptive, such as "dopri5", which chooses its own steps up to the
        stop. Read when predicting.
    class_prior : {"uniform", "empirical"}, dict or array-like of shape (C,), default="uniform"
        Prior probabilities of the classes. "empirical" takes the frequencies in y, one added to
        each count. Probabilities of your own are positive and sum to 1: a dict or a Series by
        label, or an array in the order of `classes_`.
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
        Whether rows of X and class embeddings are scaled to length 1, as in CLIP. Fixed by `fit`,
        which warns if one coordinate is so large that it drowns the others.
    logit_scale : "auto" or float, default="auto"
        Factor of the scores of :meth:`decision_function`, and so of the confidence of
        :meth:`predict_proba`; it does not change :meth:`predict`. "auto" is calibrated: 1, or, with
        validation data or zero steps, the factor that makes validation data or held-out samples
        most likely. Read when predicting.
    unknown_label : str, number or None, default=None
        What :meth:`predict` answers for rows that look like no class. Rows of y with this label
        belong to no class: `fit` drops them, and `score` counts them as right if they are refused.
        None refuses no row. Read when predicting: it may be set after a fit.
    unknown_rate : float, default=0.05
        Share of the rows of known classes that may be refused by mistake; estimated on support
        samples. Read when predicting.
    unlabeled_label : str, number or None, default=None
        Rows of y with this label have no label: they are used as if they followed those of
        `X_unlabeled`. None means that all rows of y have a label. `score` counts them as errors.
    memory : str, object with the interface of joblib.Memory, or None, default=None
        Where to cache fitted fields, so that a search over parameters that are read when predicting
        (`n_steps`, `step_size`, `solver`, `logit_scale`) fits once per fold, also across processes.
        Fits of "mlp" are cached only if `random_state` is an integer. Clear the cache when you
        upgrade flowalign.
    device : str or torch.device, default="auto"
        "auto" takes CUDA, then MPS, then the CPU.
    random_state : int, RandomState instance or None, default=None
        Seeds weights, batches, times and noise of "mlp". Nothing is random in "gaussian".
    verbose : int, default=0
        1 shows a progress bar while "mlp" is trained.

    Attributes
    ----------
    classes_ : ndarray of shape (C,)
        Sorted labels of the class embeddings, with or without samples.
    class_embeddings_ : ndarray of shape (C, d)
        Class embeddings in the space of the features: the end of the paths of each class.
    joint_ : bool
        Whether the class embeddings were used without a map.
    embedding_map_ : ProcrustesMap or None
        How the class embeddings were mapped; None if they were not.
    velocity_field_ : flowalign.fields.VelocityField
        The fitted field, a torch module called as ``velocity_field_(t, x)``; float32, on `device_`.
    gaussian_model_ : flowalign.gaussian.GaussianModel or None
        The model of the classes; None without samples, or if the aligner comes from a file of
        format 1.
    class_prior_ : ndarray of shape (C,)
        Prior probability of each class; almost zero for a class without samples whose embedding
        equals that of a class with samples.
    support_scores_ : ndarray of shape (m,) or None
        :meth:`score_samples` of the support samples, each by the model without it, ascending. Of
        very many samples an even share is scored; a single one has no score. None without a model.
    transduction_ : ndarray of shape (m,)
        Labels of the unlabelled rows, those of `X_unlabeled` first, each by a model without the
        row; computed when asked for. Gone after loading, since files and pickles do not keep the
        rows.
    transduction_proba_ : ndarray of shape (m, C)
        Class probabilities of the unlabelled rows, likewise.
    unlabeled_weight_ : ndarray of shape (C,) or None
        How many labelled rows the unlabelled rows of each class count for; None without such rows.
    class_agreement_ : ndarray of shape (C,) or None
        For each class, how well its unlabelled rows agree with its labelled ones, from 0 to 1.
    unknown_threshold_ : float
        Score below which `predict` refuses a row, if `unknown_label` is set: the `unknown_rate`
        quantile of `support_scores_`; minus infinity if there are none.
    loss_curve_ : list of float
        Mean training loss of each epoch; empty for a field in closed form.
    n_iter_ : int
        Epochs of the network; for the closed form rounds over the unlabelled rows, at least 1.
    n_steps_, step_size_, stop_time_ : int, float, float
        Steps that `predict` takes now, their length, and the stop: the time at which they end,
        nearest to the chosen one.
    logit_scale_, posterior_weight_ : float
        The factor of the scores now in use, and the weight of the model's log-probabilities beside
        the cosine. 1 and 1 unless validation data were given; the weight is 0 for zero steps.
    stop_scores_ : dict of ndarray, or None
        Scores of each step on held-out samples, as from :func:`flowalign.stopping.score_steps`;
        columns for a DataFrame. None if nothing was held out.
    stop_source_ : str or None
        Which samples were held out, one of :data:`flowalign.held_out.SOURCES`; None if neither
        `n_steps` nor `logit_scale` was "auto".
    n_features_in_ : int
        Width d of the features.
    feature_names_in_ : ndarray of shape (d,)
        Names of the columns, if X had any.
    device_ : str
        Device of the field.

    Notes
    -----
    The paper's own recipe is ``FlowMatchingAligner(velocity_field="mlp", n_blocks=12,
    hidden_dim=X.shape[1], max_iter=200, batch_size=32, learning_rate_init=2e-4, weight_decay=0.01,
    noise=0)``; the defaults of the network are leaner. ``docs/theory.rst`` derives the closed form.

    Prediction runs in the dtype of X, float32 or float64, on the CPU and on CUDA, and in float32 on
    MPS, which has no float64; 16-bit features become float32. With fixed-grid solvers the result of
    a row does not depend on the rows beside it; with adaptive ones only within their tolerance.
    Under scikit-learn's ``array_api_dispatch`` predictions for torch tensors are tensors on the
    same device.

    **The stop and the calibration** are chosen on held-out samples. The model of the classes is
    calibrated on support samples, each left out of it. The stop is chosen on validation data if
    given. Otherwise the closed form leaves out one sample at a time, and a network is trained twice
    more, each time without a quarter, unless `n_steps` and `logit_scale` are numbers. The stop
    stays at 0.5 unless another is right for more samples by two standard errors; few samples rarely
    show that. The pages "Choose the stop" and "Probabilities" of the guide treat one sample a
    class, copies, and very many samples.

    **Without samples**, ``fit(np.empty((0, d)), [], class_embeddings)``, the aligner is a zero-shot
    classifier in a joint space: nothing moves, and each row gets the class of the most similar
    embedding. `logit_scale` "auto" is then 100, the scale of CLIP's training.

    **More samples and classes** are added by :meth:`partial_fit` and removed by :meth:`forget`;
    :meth:`merge` adds those of other aligners, and :func:`flowalign.fit_blocks` fits to samples
    larger than memory. For this the closed form keeps the sums of all samples and up to 4096 rows
    of them, in files and pickles too.

    There is no ``sample_weight``, since training in random batches is not exactly equivalent to
    repeating samples. Repeat rows instead.

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
    >>> aligner = FlowMatchingAligner().fit(X, y, data.class_embeddings)
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
        step_size: float | str = "auto",
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
        unknown_label: Any = None,
        unknown_rate: float = 0.05,
        unlabeled_label: Any = None,
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
        self.unknown_label = unknown_label
        self.unknown_rate = unknown_rate
        self.unlabeled_label = unlabeled_label
        self.memory = memory
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    # What fit takes beyond X and y: metadata routing works without set_fit_request.
    __metadata_request__fit: ClassVar = dict.fromkeys(
        ("class_embeddings", "X_val", "y_val", "X_unlabeled"), True
    )

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        class_embeddings: Any = None,
        X_val: ArrayLike | None = None,
        y_val: ArrayLike | None = None,
        X_unlabeled: ArrayLike | None = None,
    ) -> Self:
        """Fit the velocity field to labelled support samples.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Features of a frozen encoder: an array, tensor, frame or list, or a column of vectors.
        y : array-like of shape (n,)
            Labels, none missing.
        class_embeddings : ClassEmbeddings, dict, DataFrame, array-like of shape (C, e) or None
            Embeddings of the class names: a ClassEmbeddings, a dict ``{label: vector}``, a frame
            indexed by label, or an array whose rows follow ``np.unique(y)``, where the string '10'
            is before '2'. Labels without samples are classes too. None takes the constructor
            parameter.
        X_val : array-like of shape (m, d) or None
            Validation features, which choose `n_steps` and `logit_scale` if these are "auto"; the
            field is fitted without them. In a pipeline, earlier steps transform them only with
            ``Pipeline(steps, transform_input=["X_val"])``. Cross-validation cuts them along with X
            if they have as many rows.
        y_val : array-like of shape (m,) or None
            Labels of `X_val`, out of those of the class embeddings. A class without samples is
            never predicted if its embedding equals that of a class with samples; its rows are
            ignored.
        X_unlabeled : array-like of shape (m, d) or None
            Features of rows without labels, which help to estimate the classes. They come from the
            encoder of X, and from all or some of its classes. May be a memory-mapped file larger
            than memory: it is read in blocks, a few times over. The rules of `X_val` for pipelines
            and cross-validation hold.

        Returns
        -------
        FlowMatchingAligner
            The estimator itself.

        Raises
        ------
        ValueError, TypeError
            For parameters out of range, features that are not finite or have no direction, labels
            that are missing or without embedding, no samples where some are needed, an array of
            class embeddings as long as X (which cross-validation would cut), validation data that
            do not match, a device that is not there, or training that diverges.
        """
        parameters.check_parameters(self.get_params(deep=False))
        device = parameters.check_device(self.device)
        support = Support.of(self, X, y, class_embeddings, X_val, y_val, X_unlabeled, device)
        tensor = isinstance(X, torch.Tensor) and get_config()["array_api_dispatch"]
        place = {"_tensors_on": str(X.device)} if tensor else {}  # type: ignore[union-attr]
        del X  # of many samples no second copy should stay
        self._fit_support(support, device)
        self.__dict__.pop("_tensors_on", None)
        self.__dict__.update(place)
        return self

    def _fit_support(self, support: Support, device: torch.device) -> Self:
        return self._adopt(support, self._estimate(support, device))

    def _estimate(
        self, support: Support, device: torch.device, *, hold_out_anyway: bool = False
    ) -> Estimate:
        """Fit the field, and hold samples out if something is to be chosen on them, or `anyway`."""
        coupling, pool, params = support.coupling, support.pool, self.get_params(deep=False)
        labelled = len(coupling.X) > 0
        kind_name = self.velocity_field if labelled else UNTRAINED
        kind = kind_of(kind_name)
        if pool is not None and not labelled:
            raise ValueError(
                "There are rows without labels, of X_unlabeled or marked unlabeled_label, but no "
                "labelled one to begin with; label some."
            )
        if pool is not None and "pool" not in kind.settings:
            raise ValueError(
                f"velocity_field={self.velocity_field!r} takes no X_unlabeled; leave it out."
            )
        fitted = field_fitter(kind, params, support.prior, device, pool)(coupling)
        source: str | None = None
        followed, scores, stop = None, None, None
        chosen = parameters.is_auto(self.n_steps) or parameters.is_auto(self.logit_scale)
        if chosen or hold_out_anyway:
            fit_field = field_fitter(kind, params, support.prior, device)
            source, parts = hold_out(kind, fitted, coupling, support.validation_set, fit_field)
            if parts:
                followed = follow(parts, self._stage_size, self.solver)
        if chosen and followed is not None:
            scores = score_steps(str(source), followed)
        if parameters.is_auto(self.n_steps):
            stop = choose_stop(source, scores, kind.one_shot_stop) if labelled else 0.0
        return Estimate(
            kind_name, str(device), fitted, source if chosen else None, scores, stop, followed
        )

    def _adopt(self, support: Support, estimate: Estimate) -> Self:
        """Set all state; only now: an interrupted or failed fit leaves a fitted model as it was."""
        coupling, pool, fitted = support.coupling, support.pool, estimate.fitted
        classes, E = support.names
        taken_in = fitted.taken_in
        held = None if taken_in is None else taken_in.held
        if held is not None:
            warn_of_disagreement(classes, held.class_weights, held.agreement)
        if support.names_and_width is not None:
            validate_data(self, support.names_and_width, skip_check_array=True)
        self.classes_ = np.array(classes)
        self.class_embeddings_ = coupling.targets.astype(coupling.X.dtype, order="C")
        self.joint_ = bool(coupling.joint)
        self.embedding_map_ = coupling.embedding_map
        self.velocity_field_ = fitted.field
        self.gaussian_model_ = fitted.model
        self.class_prior_ = support.prior
        ratios = fitted.support_ratios
        self.support_scores_ = None if ratios is None else np.sort(ratios.max(axis=1))
        self.loss_curve_ = fitted.loss_curve
        looks = 1 if taken_in is None else max(1, taken_in.n_iter)
        self.n_iter_ = len(fitted.loss_curve) or looks
        self.unlabeled_weight_ = None if held is None else held.class_weights
        self.class_agreement_ = None if held is None else held.agreement
        self._inductive_model = fitted.inductive
        self._held = held
        self._assigned = None if taken_in is None else taken_in.rows
        self._pool = pool if isinstance(pool, UnlabeledRows) else None
        incremental = kind_of(self.velocity_field).incremental
        self._reserve = support.samples.reserve if incremental else None
        self._class_vectors = E if incremental else None
        self.stop_scores_ = estimate.scores
        self.stop_source_ = estimate.source
        self.device_ = estimate.device
        self._kind = estimate.kind
        self._stop = estimate.stop
        self._normalize = bool(self.normalize)
        self._classifier = self._make_classifier()
        return self


class Estimate(NamedTuple):
    """What a fit finds, before it is the state of an aligner.

    Attributes
    ----------
    kind : str
        Of the field.
    device : str
    fitted : Fitted
    source : str or None
        Who was held out to choose something; None if nothing was chosen.
    scores : dict of ndarray, or None
        What they say of each step.
    stop : float or None
        The stop that was chosen.
    followed : Followed or None
        Those who were held out, through flows that have not seen them.
    """

    kind: str
    device: str
    fitted: Fitted
    source: str | None
    scores: dict[str, NDArray[Any]] | None
    stop: float | None
    followed: Followed | None
