"""A synthetic pair of modalities, in the manner of scikit-learn's ``make_classification``."""

from __future__ import annotations

import numpy as np
from sklearn.utils import Bunch, check_random_state

from flowalign.class_embeddings import ClassEmbeddings
from flowalign.sphere import unit_rows


def make_cross_modal(
    n_classes: int = 10,
    *,
    n_train: int = 16,
    n_test: int = 50,
    n_features: int = 64,
    n_text_features: int | None = None,
    difficulty: float = 1.0,
    misalignment: float = 0.5,
    modality_gap: float = 1.0,
    joint: bool = True,
    random_state: int | np.random.RandomState | None = None,
) -> Bunch:
    r"""Draw features of one modality and class embeddings of another.

    Class :math:`c` has a meaning :math:`z_c \sim N(0, I)`. Its embedding is
    :math:`z_c + \gamma g / 2` with a common unit-scale offset :math:`g`; its features scatter about
    :math:`z_c + m\, s_c - \gamma g / 2`, where :math:`s_c \sim N(0, I)` is the part of the class
    that the text does not tell. The scatter has the same covariance in all classes, with
    eigenvalues that decay, and a mean variance of :math:`\delta^2`. All rows are scaled to
    length 1.

    Parameters
    ----------
    n_classes : int, default=10
        Classes.
    n_train, n_test : int, default=16, 50
        Samples per class.
    n_features : int, default=64
        Width d of the features.
    n_text_features : int or None, default=None
        Width e of the class embeddings; None takes `n_features`.
    difficulty : float, default=1.0
        :math:`\delta`: spread within classes, relative to that between them.
    misalignment : float, default=0.5
        :math:`m`: how far class means lie from where the text says; 0 makes the text perfect.
    modality_gap : float, default=1.0
        :math:`\gamma`: distance between the modalities, relative to the spread of classes.
    joint : bool, default=True
        Whether both modalities share one space. Otherwise a random linear map carries the
        embeddings into another space.
    random_state : int, RandomState instance or None, default=None
        Seeds everything.

    Returns
    -------
    sklearn.utils.Bunch
        ``X_train`` (n_classes * n_train, d), ``y_train``, ``X_test``, ``y_test``, the
        `ClassEmbeddings` ``class_embeddings``, the list ``class_names`` and ``DESCR``. Features are
        float32, labels are class names.

    Raises
    ------
    ValueError
        If ``joint=True`` is asked for with two different widths.

    Examples
    --------
    >>> from flowalign.datasets import make_cross_modal
    >>> data = make_cross_modal(n_classes=3, n_train=5, random_state=0)
    >>> data.X_train.shape, data.class_embeddings
    ((15, 64), ClassEmbeddings(3 classes, 64 dimensions))
    """
    if n_text_features is None:
        n_text_features = n_features
    if joint and n_text_features != n_features:
        raise ValueError(
            f"joint=True means one space, but n_features={n_features} and "
            f"n_text_features={n_text_features}. Use joint=False for two widths."
        )
    rng = check_random_state(random_state)
    meanings = rng.standard_normal((n_classes, n_features))
    gap = modality_gap * rng.standard_normal(n_features) / 2
    means = meanings + misalignment * rng.standard_normal((n_classes, n_features)) - gap
    embeddings = meanings + gap
    if not joint:
        embeddings = embeddings @ rng.standard_normal((n_features, n_text_features))
    eigenvalues = 1 / np.arange(1, n_features + 1)
    spread = difficulty * np.sqrt(eigenvalues / eigenvalues.mean())
    axes, _ = np.linalg.qr(rng.standard_normal((n_features, n_features)))
    class_names = np.array([f"class {c:0{len(str(n_classes - 1))}d}" for c in range(n_classes)])

    def sample(n: int) -> tuple[np.ndarray, np.ndarray]:
        codes = np.repeat(np.arange(n_classes), n)
        noise = rng.standard_normal((len(codes), n_features)) * spread
        return unit_rows(means[codes] + noise @ axes.T, "X").astype(np.float32), class_names[codes]

    X_train, y_train = sample(n_train)
    X_test, y_test = sample(n_test)
    return Bunch(
        X_train=X_train,
        y_train=y_train,
        X_test=X_test,
        y_test=y_test,
        class_embeddings=ClassEmbeddings(class_names, unit_rows(embeddings, "class_embeddings")),
        class_names=class_names.tolist(),
        DESCR=(
            f"Synthetic features ({n_features}) and class embeddings ({n_text_features}) of "
            f"{n_classes} classes in {'one space' if joint else 'two spaces'}; difficulty "
            f"{difficulty:g}, misalignment {misalignment:g}, modality gap {modality_gap:g}."
        ),
    )
