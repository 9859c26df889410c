"""What all encoders share, shown with functions: no model is needed."""

import os
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from flowalign import ClassEmbeddings, FlowMatchingAligner
from flowalign.encoders import CallableEncoder
from flowalign.prompts import IMAGE_TEMPLATES

CALLS = []  # what the functions below were called with


def read_numbers(paths):
    """Encode text files with numbers in them."""
    CALLS.append(list(paths))
    return [np.loadtxt(path) for path in paths]


def count_letters(texts):
    CALLS.append(list(texts))
    return [[text.count("a"), text.count("b"), len(text), 1] for text in texts]


@pytest.fixture(autouse=True)
def _no_calls():
    CALLS.clear()


@pytest.fixture
def files(tmp_path):
    """Twelve files of four numbers, three classes."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "files"
    folder.mkdir()
    for i in range(12):
        np.savetxt(folder / f"{i:02}.txt", np.eye(4)[i % 3] + 0.1 * rng.standard_normal(4))
    return sorted(str(path) for path in folder.iterdir())


LABELS = np.array(["a", "b", "c"] * 4)
TEXT = ClassEmbeddings(["a", "b", "c"], np.eye(4)[:3])


def _cached(tmp_path, **params):
    return CallableEncoder(read_numbers, name="numbers 1", cache=tmp_path / "cache", **params)


def test_one_row_for_each_item_in_order(files):
    encoder = CallableEncoder(read_numbers, batch_size=5)
    rows = encoder.transform(files)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, [np.loadtxt(file) for file in files], rtol=1e-6)
    assert [len(call) for call in CALLS] == [5, 5, 2]


@pytest.mark.parametrize(
    "form",
    [
        tuple,
        np.array,
        pd.Series,
        lambda f: np.array(f, dtype=object),
        lambda f: np.array(f)[:, None],
        lambda f: pd.DataFrame({"path": f}),
        lambda f: [Path(file) for file in f],
    ],
)
def test_paths_come_in_many_forms(form, files, tmp_path):
    expected = CallableEncoder(read_numbers).transform(files)
    np.testing.assert_array_equal(CallableEncoder(read_numbers).transform(form(files)), expected)
    np.testing.assert_array_equal(_cached(tmp_path).transform(form(files)), expected)


def test_a_grid_search_encodes_each_file_once(files, tmp_path):
    pipeline = make_pipeline(_cached(tmp_path, batch_size=4), FlowMatchingAligner(TEXT))
    grid = {"flowmatchingaligner__n_steps": [0, 3], "flowmatchingaligner__noise": [0, 0.3]}
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(files, LABELS)
    assert search.score(files, LABELS) == 1
    encoded = [path for call in CALLS for path in call]
    assert sorted(encoded) == files


def test_a_pipeline_takes_class_embeddings_at_fit(files):
    pipeline = make_pipeline(CallableEncoder(read_numbers), FlowMatchingAligner())
    pipeline.fit(files, LABELS, flowmatchingaligner__class_embeddings=TEXT)
    assert pipeline.predict(files).tolist() == LABELS.tolist()


def test_content_counts_not_the_name(files, tmp_path):
    encoder = _cached(tmp_path)
    first = encoder.transform(files)
    copies = [str(tmp_path / f"copy{i}.txt") for i in range(12)]
    for file, copy in zip(files, copies, strict=True):
        Path(copy).write_bytes(Path(file).read_bytes())
    np.testing.assert_array_equal(encoder.transform(copies), first)
    assert len(CALLS) == 1
    Path(copies[3]).write_text("1 2 3 4")
    changed = encoder.transform(copies)
    np.testing.assert_array_equal(changed[3], [1, 2, 3, 4])
    np.testing.assert_array_equal(np.delete(changed, 3, 0), np.delete(first, 3, 0))


def test_a_file_that_was_hashed_before_is_hashed_again_when_it_changes(files, tmp_path):
    encoder = _cached(tmp_path)
    for file in files:  # at rest for long: the process may remember them
        os.utime(file, (1, 1))
    encoder.transform(files)
    size, new = os.path.getsize(files[0]), "9 9 9 9"
    Path(files[0]).write_text(new + " " * (size - len(new)))  # of the same size
    os.utime(files[0], (1, 1))  # and with the same time of writing
    np.testing.assert_array_equal(encoder.transform(files)[0], [9, 9, 9, 9])


def test_equal_contents_are_encoded_once(files, tmp_path):
    rows = _cached(tmp_path).transform([files[0], files[1], files[0]])
    np.testing.assert_array_equal(rows[0], rows[2])
    assert len(CALLS[0]) == 2


def test_what_was_encoded_before_an_interruption_is_kept(files, tmp_path):
    def interrupted(paths):
        if files[4] in paths:
            raise KeyboardInterrupt
        return read_numbers(paths)

    settings = {"name": "numbers 1", "cache": tmp_path / "cache", "batch_size": 2}
    with pytest.raises(KeyboardInterrupt):
        CallableEncoder(interrupted, **settings).transform(files)
    CALLS.clear()
    CallableEncoder(read_numbers, **settings).transform(files)
    assert [path for call in CALLS for path in call] == files[4:]


def test_names_keep_functions_apart(files, tmp_path):
    cache = tmp_path / "cache"
    CallableEncoder(read_numbers, name="1", cache=cache).transform(files)
    CallableEncoder(read_numbers, name="2", cache=cache).transform(files)
    assert len(CALLS) == 2


def _measure(items):
    CALLS.append(items)
    return [[np.sum(np.asarray(item, dtype=float)), np.size(item)] for item in items]


def test_items_that_are_no_paths_are_known_by_their_values(tmp_path):
    encoder = CallableEncoder(_measure, name="sums", cache=tmp_path)
    items = [np.arange(3.0), np.arange(4.0), np.arange(3), 3.0, [3.0], (1, np.arange(2))[0], True]
    items += [np.float64(3), np.arange(4.0).reshape(2, 2), np.arange(3.0)[::-1]]
    rows = encoder.transform(items)
    assert len(CALLS[0]) == len(items)  # all are different
    np.testing.assert_array_equal(
        rows, encoder.transform([np.copy(i) if type(i) is np.ndarray else i for i in items])
    )
    assert len(CALLS) == 1
    np.testing.assert_array_equal(encoder.transform(np.arange(12).reshape(4, 3))[:, 1], [3] * 4)


@pytest.mark.parametrize(
    "item",
    [
        object(),
        None,
        ("a path.txt", 2),  # the file is not read, so its content would not count
        np.ma.masked_array([1, 2], [0, 1]),
        pd.DataFrame({"a": [1]}),
        np.array([(1, 2.0)], dtype=[("a", int), ("b", float)]),
        np.array([object()]),
    ],
)
def test_items_whose_content_cannot_be_told_are_refused_by_the_cache(item, tmp_path):
    with pytest.raises(TypeError, match=r"item 1 of X: the cache cannot know .*cache=None"):
        CallableEncoder(_measure, name="sums", cache=tmp_path).transform([1, item])


def test_a_function_may_use_its_memory_again():
    memory = np.zeros((2, 1), dtype=np.float32)

    def in_place(numbers):
        memory[: len(numbers), 0] = numbers
        return memory[: len(numbers)]

    rows = CallableEncoder(in_place, batch_size=2).transform([1, 2, 3, 4, 5])
    np.testing.assert_array_equal(rows[:, 0], [1, 2, 3, 4, 5])


def test_a_file_that_changes_before_it_is_read_is_not_kept(files, tmp_path):
    first = Path(files[0])
    before = first.read_text()

    def read_late(paths):
        first.write_text("7 7 7 7")
        return read_numbers(paths)

    settings = {"name": "numbers 1", "cache": tmp_path / "cache"}
    with pytest.raises(ValueError, match=r"00\.txt is unreadable: it changed while"):
        CallableEncoder(read_late, **settings).transform(files[:2])
    first.write_text(before)
    row = CallableEncoder(read_numbers, **settings).transform(files[:1])[0]
    np.testing.assert_allclose(row, np.loadtxt(first), rtol=1e-6)


def test_a_forgotten_change_of_name_is_noticed_by_the_width(files, tmp_path):
    settings = {"name": "numbers 1", "cache": tmp_path / "cache"}
    CallableEncoder(read_numbers, **settings).transform(files[:2])
    with pytest.raises(ValueError, match="has 2 features where others have 4.*does the name"):
        CallableEncoder(lambda paths: [[1, 2]] * len(paths), **settings).transform(files)


def test_clones_share_the_model_behind_a_bound_method(files):
    class Model:
        def encode(self, paths):
            return read_numbers(paths)

    model = Model()
    encoder = CallableEncoder(model.encode).set_output(transform="pandas")
    twin = clone(encoder)
    assert twin.function.__self__ is model
    assert twin.transform(files).shape == (12, 4)
    twin.set_output(transform="default")
    assert isinstance(encoder.transform(files), pd.DataFrame)


def test_a_batch_that_fails_is_gone_through_one_by_one_when_skipping(files):
    Path(files[2]).write_text("no numbers")
    Path(files[7]).write_text("nan 1 2 3")
    encoder = CallableEncoder(read_numbers, batch_size=5)
    with pytest.warns(UserWarning, match="2 of 12 items were skipped"):
        result = encoder.encode(files, on_error="skip")
    assert result.rows.tolist() == [i for i in range(12) if i not in (2, 7)]
    assert "could not convert" in result.skipped[0][1]
    assert "NaN or infinite" in result.skipped[1][1]
    with pytest.raises(ValueError, match=r"07\.txt is unreadable: its features are NaN"):
        encoder.transform(files[5:])
    with pytest.raises(ValueError, match="could not convert") as caught:
        encoder.transform(files)
    assert "In a batch of 5 from" in caught.value.__notes__[0]


def test_texts_and_class_names_are_embedded():
    encoder = CallableEncoder(read_numbers, count_letters, batch_size=3)
    texts = ["abba", "b", "a", "aaaa"]
    np.testing.assert_array_equal(encoder.encode_text(texts), count_letters(texts))
    table = encoder.class_embeddings(["big_cat", "ab"], ["{} a", "b {}"])
    assert table.classes.tolist() == ["ab", "big_cat"]
    rows = np.array(count_letters(["big cat a", "b big cat"]), dtype=float)
    mean = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).mean(axis=0)
    np.testing.assert_allclose(table.vectors[1], mean / np.linalg.norm(mean), rtol=1e-6)


def test_class_names_may_be_words_for_labels():
    encoder = CallableEncoder(read_numbers, count_letters)
    by_number = encoder.class_embeddings({1: "a b", 0: "cab_a"}, "{}")
    assert by_number.classes.tolist() == [0, 1]
    expected = encoder.encode_text(["cab_a", "a b"])  # words as they were given
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(by_number.vectors, expected, rtol=1e-6)


def test_the_same_name_twice_is_one_class():
    table = CallableEncoder(read_numbers, count_letters).class_embeddings(["a", "b", "a"])
    assert len(table.labels) == 2


def test_texts_are_cached_apart_from_items(tmp_path):
    encoder = CallableEncoder(count_letters, count_letters, name="letters", cache=tmp_path)
    encoder.encode_text(["ab", "b", "ab"])
    encoder.encode_text(["b", "ab"])
    assert CALLS == [["ab", "b"]]
    encoder.class_embeddings(["a"])
    assert CALLS[1] == ["a"]  # an encoder of anything has no template of its own
    assert IMAGE_TEMPLATES[0] not in CALLS[1]


def test_clones_and_pickles_are_alike(files, tmp_path):
    encoder = _cached(tmp_path, batch_size=4)
    for other in (clone(encoder), pickle.loads(pickle.dumps(encoder))):
        assert other.get_params() == encoder.get_params()
        np.testing.assert_array_equal(other.transform(files), encoder.transform(files))
    assert encoder.set_params(batch_size=7).batch_size == 7


def test_fit_checks_and_learns_nothing(files):
    encoder = CallableEncoder(read_numbers)
    before = vars(encoder).copy()
    assert encoder.fit(files, LABELS) is encoder
    assert vars(encoder) == before
    assert not CALLS
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        CallableEncoder(read_numbers, batch_size=0).fit(files)


def test_frames_out(files):
    frame = CallableEncoder(read_numbers).set_output(transform="pandas").transform(files)
    assert frame.shape == (12, 4)


def test_a_progress_bar_under_verbose(files, capsys):
    CallableEncoder(read_numbers).transform(files)
    assert capsys.readouterr().err == ""
    CallableEncoder(read_numbers, verbose=1).transform(files)
    assert "CallableEncoder: 100%" in capsys.readouterr().err


@pytest.mark.parametrize("cached", [True, False])
def test_what_is_unreadable_is_skipped_and_reported_on_request(cached, files, tmp_path):
    encoder = _Reader(cache=tmp_path / "cache" if cached else None, batch_size=2)
    Path(files[2]).write_text("no numbers")
    gone = [*files[:5], str(tmp_path / "gone.txt"), *files[5:], files[2]]
    labels = np.arange(len(gone))
    with pytest.raises(ValueError, match=r"02\.txt is unreadable"):
        encoder.transform(files)
    with pytest.raises(FileNotFoundError, match=r"gone\.txt does not exist"):
        encoder.transform([gone[0], gone[5]])
    with pytest.warns(UserWarning, match=r"3 of 14 items were skipped.*02\.txt.*gone"):
        result = encoder.encode(gone, labels, on_error="skip")
    kept = [0, 1, 3, 4, *range(6, 13)]
    assert result.rows.tolist() == kept
    assert result.y.tolist() == kept
    np.testing.assert_allclose(result.X, [np.loadtxt(gone[i]) for i in kept], rtol=1e-6)
    assert [item for item, _ in result.skipped] == [files[2], gone[5], files[2]]
    assert "does not exist" in result.skipped[1][1]
    with pytest.raises(ValueError, match="None could be read"):
        encoder.encode([gone[5]], on_error="skip")


def test_views_are_averaged_or_stacked(files, tmp_path):
    encoder = _Reader(n_views=3, cache=tmp_path / "cache", batch_size=4)
    base = np.array([np.loadtxt(file) for file in files])
    each = np.stack([base * (1 + view) + view for view in range(3)], axis=1)
    stacked = encoder.encode(files, LABELS, views="stack")
    np.testing.assert_allclose(stacked.X, each.reshape(36, 4), rtol=1e-5)
    assert stacked.y.tolist() == np.repeat(LABELS, 3).tolist()
    assert stacked.rows.tolist() == np.repeat(np.arange(12), 3).tolist()
    mean = each.mean(axis=1)
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(encoder.transform(files), mean, rtol=1e-5)


@pytest.mark.parametrize(
    ("items", "error", "message"),
    [
        ("a.txt", TypeError, "as a list, even a single one"),
        (Path("a.txt"), TypeError, "as a list"),
        ({"a.txt": 1}, TypeError, "as a list"),
        (3, TypeError, "as a list"),
        ({"a.txt"}, TypeError, "as a list"),
        ([], ValueError, "no items"),
        (np.array([["a", "b"]]), ValueError, "one column"),
    ],
)
def test_items_that_are_no_list(items, error, message):
    with pytest.raises(error, match=message):
        CallableEncoder(read_numbers).fit(items)
    with pytest.raises(error, match=message):
        CallableEncoder(read_numbers).transform(items)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"function": "dino"}, TypeError, "function must be callable"),
        ({"text_function": 3}, TypeError, "text_function must be callable"),
        ({"cache": "somewhere"}, ValueError, "name must be given with cache"),
        ({"batch_size": 2.5}, TypeError, "batch_size must be an integer"),
        ({"cache": ""}, ValueError, "cache must be the path of a folder"),
        ({"cache": 3}, ValueError, "cache must be the path of a folder"),
    ],
)
def test_bad_parameters(params, error, message):
    encoder = CallableEncoder(read_numbers).set_params(**params)
    with pytest.raises(error, match=message):
        encoder.fit(["a.txt"])


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda items: [[1.0]], r"a row for each of 2 items, got shape \(1, 1\)"),
        (lambda items: [1.0, 2.0], r"got shape \(2,\)"),
        (lambda items: [[1.0], [np.nan]], "NaN"),
        (lambda items: "rows", "numbers in rows of one width"),
    ],
)
def test_functions_that_return_no_rows(function, message):
    with pytest.raises(ValueError, match=message):
        CallableEncoder(function).transform([1, 2])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: e.encode_text(["a", " "]), "something in them"),
        (lambda e: e.encode_text([1]), "must be strings"),
        (lambda e: e.class_embeddings([1, 2]), r"dict of label to string"),
        (lambda e: e.class_embeddings({}), r"dict of label to string"),
        (lambda e: e.class_embeddings(["a"], "no place"), r"with \{\} in the place"),
        (lambda e: e.class_embeddings(["a"], []), r"with \{\} in the place"),
        (lambda e: e.encode([1], views="all"), "views must be one of mean, stack"),
        (lambda e: e.encode([1], on_error="pass"), "on_error must be one of"),
        (lambda e: e.encode([1], ["a", "b"]), "y must hold 1 labels"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call(CallableEncoder(read_numbers, count_letters))


def test_without_a_text_function_the_way_out_is_named():
    with pytest.raises(ValueError, match=r"ClassEmbeddings\(class_names, vectors\)"):
        CallableEncoder(read_numbers).class_embeddings(["a"])


class _Reader(CallableEncoder):
    """An encoder that reads files itself, as those with a model do, and has several views."""

    def __init__(self, n_views=1, cache=None, batch_size=64, verbose=0):
        self.n_views = n_views
        self.cache = cache
        self.batch_size = batch_size
        self.verbose = verbose
        self.name, self.function, self.text_function = "reader", _identity, None

    def _load(self):
        return _ReadingBackbone(self.name, _identity, None)


def _identity(rows):
    return rows


class _ReadingBackbone(type(CallableEncoder(_identity)._load())):
    reads_files = True

    def prepare(self, item, numbers, n_views):
        row = np.array(item.decode().split(), dtype=float)
        return [row * (1 + number) + number for number in numbers]
