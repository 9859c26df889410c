"""The emoji dataset: image features of emoji drawings and embeddings of their class names."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
from sklearn.utils import Bunch

from flowalign.class_embeddings import ClassEmbeddings


def load_emoji() -> Bunch:
    """Load the emoji dataset: drawings by three designers, in 25 classes with 16 shots each.

    The classes are subgroups of the Unicode emoji list, such as "food fruit". Samples are features
    of an image encoder, class embeddings come from a text encoder; both are frozen and were
    trained apart. No emoji is in both the training and the test set.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        With these attributes:

        X_train : ndarray of shape (400, 1280)
            Image features, float32, rows of length 1. Class after class, 16 rows each. The first 6
            rows of a class show different emoji.
        y_train : ndarray of shape (400,)
            Class names.
        X_test : ndarray of shape (600, 1280)
            Like `X_train`, 24 rows per class.
        y_test : ndarray of shape (600,)
            Class names.
        class_embeddings : ClassEmbeddings
            One embedding of 384 dimensions per class name.
        class_names : list of str
            The 25 class names, sorted.
        emoji_train, emoji_test : ndarray of shape (400,) and (600,)
            The emoji drawn, as hexadecimal code points such as ``"1F436"``. Use them as groups in
            cross-validation, to keep the drawings of one emoji together.
        designer_train, designer_test : ndarray of shape (400,) and (600,)
            Who drew it: ``"fluent"``, ``"noto"`` or ``"twemoji"``.
        DESCR : str
            How the dataset was made, its limits, licences and citations.

    Notes
    -----
    The drawings are those of Noto Emoji by Google (Apache 2.0), Fluent Emoji by Microsoft (MIT)
    and Twemoji by Twitter (CC BY 4.0). ``python docs/experiments/rebuild_emoji.py OUT.npz``
    makes the file again from its sources.

    Examples
    --------
    >>> from flowalign.datasets import load_emoji
    >>> emoji = load_emoji()
    >>> emoji.X_train.shape, emoji.X_test.shape
    ((400, 1280), (600, 1280))
    >>> emoji.class_names[:3]
    ['animal bird', 'animal bug', 'animal mammal']
    >>> emoji.class_embeddings
    ClassEmbeddings(25 classes, 384 dimensions)
    """
    data = files("flowalign.datasets").joinpath("data")
    with (
        data.joinpath("emoji.npz").open("rb") as stream,
        np.load(stream, allow_pickle=False) as archive,
    ):
        arrays = dict(archive)
    names, designers = arrays["class_names"], arrays["designer_names"]
    return Bunch(
        X_train=arrays["X_train"].astype(np.float32),
        y_train=names[arrays["y_train"]],
        X_test=arrays["X_test"].astype(np.float32),
        y_test=names[arrays["y_test"]],
        class_embeddings=ClassEmbeddings(names, arrays["class_embeddings"]),
        class_names=names.tolist(),
        emoji_train=arrays["emoji_train"],
        emoji_test=arrays["emoji_test"],
        designer_train=designers[arrays["designer_train"]],
        designer_test=designers[arrays["designer_test"]],
        DESCR=data.joinpath("emoji.md").read_text(encoding="utf-8"),
    )
