"""Text files with numbers in them, and functions that encode them and note their calls."""

import numpy as np

from flowalign.encoders import CallableEncoder

CALLS = []  # what the functions below were called with


def write_files(folder):
    """Twelve files of four numbers; those of the classes a, b and c alternate."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i in range(12):
        np.savetxt(folder / f"{i:02}.txt", np.eye(4)[i % 3] + 0.1 * rng.standard_normal(4))
    return sorted(str(path) for path in folder.iterdir())


def read_numbers(paths):
    """Encode text files with numbers in them."""
    CALLS.append(list(paths))
    return [np.loadtxt(path) for path in paths]


def count_letters(texts):
    CALLS.append(list(texts))
    return [[text.count("a"), text.count("b"), len(text), 1] for text in texts]


def _same(rows):
    return rows


class ReadingEncoder(CallableEncoder):
    """An encoder that reads files itself, as those with a model do, and has several views."""

    def __init__(
        self, function=_same, n_views=1, cache=None, batch_size=64, verbose=0, average_lists=False,
        missing="error", n_features=None, **methods,
    ):  # fmt: skip
        self.function = function
        self.n_views = n_views
        self.cache = cache
        self.batch_size = batch_size
        self.verbose = verbose
        self.average_lists = average_lists
        self.missing = missing
        self.n_features = n_features
        self.methods = methods  # in place of those of the backbone
        self.name, self.text_function = "reader", None

    def _load(self):
        backbone = _ReadingBackbone(self.name, self.function, None)
        vars(backbone).update(self.methods)
        return backbone


class _ReadingBackbone(type(CallableEncoder(_same)._load())):
    reads_files = True

    def prepare(self, item, numbers, n_views):
        row = np.array(item.decode().split(), dtype=float)
        return [row * (1 + number) + number for number in numbers]
