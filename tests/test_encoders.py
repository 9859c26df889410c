"""What all encoders share, shown with functions: no model is needed."""

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from number_files import CALLS, ReadingEncoder, count_letters, read_numbers, write_files
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from flowalign import ClassEmbeddings, FlowMatchingAligner
from flowalign.encoders import CallableEncoder
from flowalign.encoders.base import described


@pytest.fixture(autouse=True)
def _no_calls():
    CALLS.clear()


@pytest.fixture
def files(tmp_path):
    return write_files(tmp_path / "files")


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


def test_a_function_may_use_its_memory_again():
    memory = np.zeros((2, 1), dtype=np.float32)

    def in_place(numbers):
        memory[: len(numbers), 0] = numbers
        return memory[: len(numbers)]

    rows = CallableEncoder(in_place, batch_size=2).transform([1, 2, 3, 4, 5])
    np.testing.assert_array_equal(rows[:, 0], [1, 2, 3, 4, 5])


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
    encoder = CallableEncoder(read_numbers, count_letters)
    with pytest.warns(UserWarning, match="class_names lists 'a' more than once"):
        table = encoder.class_embeddings(["a", "b", "a"])
    assert len(table.labels) == 2
    encoder.class_embeddings({0: "a", 1: "b", 2: "a"})  # three classes, as was said


def test_clones_and_pickles_are_alike(files, tmp_path):
    encoder = _cached(tmp_path, batch_size=4)
    for other in (clone(encoder), pickle.loads(pickle.dumps(encoder))):
        assert other.get_params() == encoder.get_params()
        np.testing.assert_array_equal(other.transform(files), encoder.transform(files))
    assert encoder.set_params(batch_size=7).batch_size == 7


def test_a_description_has_what_features_depend_on():
    encoder = CallableEncoder(read_numbers, name="1")
    other = clone(encoder).set_params(batch_size=1, cache="somewhere", verbose=2)
    assert described(other) == described(encoder)
    for changed in ({"name": "2"}, {"function": count_letters}):
        assert described(clone(encoder).set_params(**changed)) != described(encoder)


def test_an_encoder_is_ready_before_fit():
    tags = get_tags(CallableEncoder(read_numbers))
    assert not tags.requires_fit
    assert tags.input_tags.string
    assert not tags.input_tags.two_d_array
    check_is_fitted(CallableEncoder(read_numbers))


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
    encoder = ReadingEncoder(cache=tmp_path / "cache" if cached else None, batch_size=2)
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
    encoder = ReadingEncoder(n_views=3, cache=tmp_path / "cache", batch_size=4)
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
        (pd.DataFrame({"a": ["b"], "c": ["d"]}), ValueError, "one column, got 'a', 'c'"),
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
        (lambda items: [[1.0], [-np.inf]], "infinite"),
        (lambda items: "rows", "numbers in rows of one width"),
    ],
)
def test_functions_that_return_no_rows(function, message):
    with pytest.raises(ValueError, match=message):
        CallableEncoder(function).transform([1, 2])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: e.encode_text(["a", " "]), "not blank"),
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
