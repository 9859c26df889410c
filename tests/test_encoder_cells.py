"""In the place of an item there may be several, whose rows are averaged, or none: a row of NaN."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from number_files import CALLS, ReadingEncoder, read_numbers, write_files
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import get_tags

from flowalign import FlowMatchingAligner
from flowalign.encoders import CallableEncoder
from flowalign.encoders.base import described

MISSING = [None, np.nan, np.float32("nan"), pd.NA, pd.NaT, np.ma.masked]


@pytest.fixture(autouse=True)
def _no_calls():
    CALLS.clear()


@pytest.fixture
def files(tmp_path):
    return write_files(tmp_path / "files")


@pytest.fixture(params=["cached", "uncached"])
def cache(request, tmp_path):
    return tmp_path / "cache" if request.param == "cached" else None


def _encoder(cache=None, **params):
    params = {"missing": "nan", "n_features": 4, "average_lists": True, **params}
    return CallableEncoder(read_numbers, name="numbers", cache=cache, **params)


def _numbers(files):
    return np.array([np.loadtxt(file) for file in files], dtype=np.float32)


def _twice(items):
    CALLS.append(items)
    return [[item, 2 * item] for item in items]


@pytest.mark.parametrize("missing", MISSING)
def test_what_is_missing_is_an_error_that_names_the_place(missing, files):
    encoder = CallableEncoder(read_numbers)
    with pytest.raises(ValueError, match=r"item 1 of X is missing: .*missing='nan'"):
        encoder.transform([files[0], missing, files[1]])
    assert not CALLS
    with pytest.warns(UserWarning, match=r"1 of 2 items were skipped.*item 0 of X is missing"):
        result = encoder.encode([missing, files[0]], ["a", "b"], on_error="skip")
    assert result.rows.tolist() == [1]
    assert result.y.tolist() == ["b"]
    assert len(result.skipped) == 1


@pytest.mark.parametrize("missing", MISSING)
def test_what_is_missing_becomes_a_row_of_nan_on_request(missing, files, cache):
    encoder = _encoder(cache)
    rows = encoder.transform([missing, files[0], missing, files[1], missing])
    assert rows.dtype == np.float32
    assert np.isnan(rows[[0, 2, 4]]).all()
    np.testing.assert_array_equal(rows[[1, 3]], _numbers(files[:2]))
    assert [files[:2]] == CALLS
    assert encoder.transform([missing] * 3).shape == (3, 4)
    assert np.isnan(encoder.transform([missing])).all()


@pytest.mark.parametrize(
    "form",
    [
        pd.Series,
        lambda cells: pd.Series(cells, dtype="string"),
        lambda cells: pd.DataFrame({"path": cells}),
        lambda cells: np.array(cells, dtype=object),
        lambda cells: np.array(cells, dtype=object)[:, None],
        lambda cells: np.ma.masked_array([c or "a" for c in cells], [c is None for c in cells]),
    ],
)
def test_columns_bring_what_is_missing_in_their_own_way(form, files):
    cells = [files[0], None, files[1]]
    rows = _encoder().transform(form(cells))
    np.testing.assert_array_equal(rows, _encoder().transform(cells))
    with pytest.raises(ValueError, match="item 1 of X is missing"):
        CallableEncoder(read_numbers).transform(form(cells))


def test_columns_of_polars_do_too(files):
    polars = pytest.importorskip("polars")
    paths = polars.Series("path", [files[0], None, files[1]])
    np.testing.assert_array_equal(
        _encoder().transform(paths), _encoder().transform(paths.to_list())
    )
    cells = [files[:2], None, [], files[2:3]]
    lists = polars.Series("paths", cells)
    expected = _encoder().transform(cells)
    np.testing.assert_array_equal(_encoder().transform(lists), expected)
    np.testing.assert_array_equal(_encoder().transform(lists.to_frame()), expected)
    with pytest.raises(ValueError, match="Give items in one column, got 'path', 'again'"):
        _encoder().transform(paths.to_frame().with_columns(again="path"))


def test_columns_of_pyarrow_do_too(files):
    pyarrow = pytest.importorskip("pyarrow")
    paths = pyarrow.array([files[0], None, files[1]])
    expected = _encoder().transform([files[0], None, files[1]])
    for column in (paths, pyarrow.chunked_array([paths]), pyarrow.table({"path": paths})):
        np.testing.assert_array_equal(_encoder().transform(column), expected)


def test_a_path_without_a_file_stays_an_error(files, tmp_path, cache):
    encoder = ReadingEncoder(cache=cache, missing="nan", n_features=4, average_lists=True)
    gone = str(tmp_path / "gone.txt")
    for cells in ([files[0], None, gone], [files[0], [files[1], gone]]):
        with pytest.raises(FileNotFoundError, match=r"gone\.txt does not exist"):
            encoder.transform(cells)


def test_skipping_leaves_out_what_fails_and_keeps_what_is_missing(files, tmp_path, cache):
    encoder = ReadingEncoder(cache=cache, missing="nan", n_features=4, average_lists=True)
    gone = str(tmp_path / "gone.txt")
    cells = [None, files[0], [files[1], gone], gone, files[1:3], files[3]]
    with pytest.warns(UserWarning, match=r"2 of 6 items were skipped.*gone\.txt does not exist"):
        result = encoder.encode(cells, range(6), on_error="skip")
    assert result.rows.tolist() == result.y.tolist() == [0, 1, 4, 5]
    there = _numbers(files)
    np.testing.assert_allclose(result.X[1:], [there[0], there[1:3].mean(axis=0), there[3]])
    assert np.isnan(result.X[0]).all()
    assert [cell for cell, _ in result.skipped] == [cells[2], gone]
    with pytest.raises(ValueError, match=r"None could be read; the first: .*gone\.txt"):
        encoder.encode([[files[1], gone]], on_error="skip")
    with pytest.warns(UserWarning, match="1 of 2 items were skipped"):
        assert encoder.encode([gone, None], on_error="skip").X.shape == (1, 4)


@pytest.mark.parametrize("form", [list, tuple, np.array, pd.Series, lambda f: [*map(Path, f)]])
def test_a_list_has_the_mean_of_its_rows(form, files, cache):
    rows = _encoder(cache).transform([files[0], form(files[:3]), form(files[3:4]), files[5]])
    there = _numbers(files)
    np.testing.assert_array_equal(rows[[0, 2, 3]], there[[0, 3, 5]])
    np.testing.assert_allclose(rows[1], there[:3].mean(axis=0), rtol=1e-6)


def test_the_order_within_a_list_and_around_it_does_not_count(files):
    encoder = _encoder()
    cells = [files[:3], None, files[3], files[4:9]]
    rows = encoder.transform(cells)
    turned = encoder.transform([[*reversed(c)] if type(c) is list else c for c in cells[::-1]])
    np.testing.assert_allclose(turned[::-1], rows, rtol=1e-6)


def test_lists_that_share_a_file_encode_it_once(files, tmp_path):
    encoder = _encoder(tmp_path / "cache")
    encoder.transform([files[:3], files[1:4], files[2]])
    encoder.transform([files[:4]])
    assert [files[:4]] == CALLS


def test_an_empty_list_is_missing_and_so_may_be_a_part(files):
    cells = [[], files[:2], [None, files[2]], [None, np.nan]]
    rows = _encoder().transform(cells)
    np.testing.assert_array_equal(rows[2], _numbers(files)[2])
    assert np.isnan(rows).all(axis=1).tolist() == [True, False, False, True]
    strict = _encoder(missing="error")
    with pytest.raises(ValueError, match=r"item 0 of X is missing: \[\]"):
        strict.transform(cells)
    with pytest.raises(ValueError, match=r"item 0 of X lists what is missing: \[None, "):
        strict.transform(cells[2:3])


def test_stacked_views_are_those_of_all_in_a_list(files):
    encoder = ReadingEncoder(missing="nan", n_features=4, average_lists=True, n_views=2)
    stacked = encoder.encode([None, files[:2], files[2]], ["a", "b", "c"], views="stack")
    assert stacked.rows.tolist() == [0, 0, 1, 1, 1, 1, 2, 2]
    assert "".join(stacked.y) == "aabbbbcc"
    assert np.isnan(stacked.X[:2]).all()
    there = _numbers(files[:3])
    expected = np.stack([there, 2 * there + 1], axis=1).reshape(6, 4)
    np.testing.assert_allclose(stacked.X[2:], expected, rtol=1e-6)
    means = encoder.transform([None, files[:2], files[2]])
    singles = encoder.transform(files[:3])
    np.testing.assert_allclose(means[1:], [singles[:2].mean(axis=0), singles[2]], rtol=1e-6)


def test_unless_told_so_a_list_is_an_item():
    def measure(items):
        return [[len(item), sum(item)] for item in items]

    rows = CallableEncoder(measure).transform([[1, 2, 3], (4, 5), []])
    np.testing.assert_array_equal(rows, [[3, 6], [2, 9], [0, 0]])
    arrays = [np.arange(3.0), np.arange(5.0)]  # no lists, whatever is said of lists
    rows = CallableEncoder(measure, average_lists=True).transform([*arrays, arrays])
    np.testing.assert_array_equal(rows, [[3, 3], [5, 10], [4, 6.5]])


def test_items_that_fail_are_named_by_their_place():
    encoder = CallableEncoder(_twice, name="2", missing="nan", n_features=2, average_lists=True)
    np.testing.assert_array_equal(
        encoder.transform([1, None, [3, 5]]), [[1, 2], [np.nan] * 2, [4, 8]]
    )
    with pytest.raises(ValueError, match="item 4 of X is unreadable: its features are NaN"):
        encoder.transform([1, None, None, [2, 3], np.inf])


def test_the_number_of_features_is_asked_for_and_checked(files, cache):
    with pytest.raises(ValueError, match="n_features must be given with missing='nan'"):
        CallableEncoder(read_numbers, missing="nan").fit(files)
    _encoder(cache).transform(files[:2])
    for _ in range(2):  # with a cache, the function is not called again
        with pytest.raises(ValueError, match="n_features is 5, but rows have 4 features"):
            _encoder(cache, n_features=5).transform(files[:2])


def test_features_have_names_where_their_number_is_said(files):
    names = [f"callableencoder{k}" for k in range(4)]
    assert _encoder().get_feature_names_out().tolist() == names
    frame = _encoder().set_output(transform="pandas").transform([None, files[0]])
    assert frame.columns.tolist() == names
    with pytest.raises(AttributeError, match="without n_features"):
        CallableEncoder(read_numbers).get_feature_names_out()


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"missing": "drop"}, ValueError, "missing must be one of error, nan"),
        ({"missing": None}, TypeError, "missing must be one of error, nan"),
        ({"n_features": 0}, ValueError, "n_features must be at least 1"),
        ({"n_features": 2.5}, TypeError, "n_features must be an integer"),
        ({"average_lists": "yes"}, TypeError, "average_lists must be True or False"),
    ],
)
def test_bad_parameters(params, error, message, files):
    with pytest.raises(error, match=message):
        _encoder(**params).transform(files)


def test_tags_and_descriptions_say_what_counts():
    assert get_tags(_encoder()).input_tags.allow_nan
    assert not get_tags(_encoder(missing="error")).input_tags.allow_nan
    assert described(_encoder()) == described(_encoder(missing="error", n_features=None))
    assert described(_encoder()) != described(_encoder(average_lists=False))


def _table(files):
    return pd.DataFrame(
        {"age": 1.0, "picture": files, "sound": files[::-1]}, index=np.arange(12) * 7
    )


def _two_columns(first="picture"):
    return make_column_transformer(
        (CallableEncoder(read_numbers, missing="nan", n_features=4), first),
        (CallableEncoder(read_numbers, missing="nan", n_features=4), ["sound"]),
    )


def test_two_columns_of_paths_become_two_blocks(files):
    table = _table(files)
    table.loc[0, "picture"] = None
    table.loc[[7, 14], "sound"] = np.nan
    both = _two_columns()
    X = both.fit_transform(table)
    assert X.shape == (12, 8)
    assert X.dtype == np.float32
    blocks = [X[:, where] for where in [*both.output_indices_.values()][:2]]
    assert np.flatnonzero(np.isnan(blocks[0]).all(axis=1)).tolist() == [0]
    assert np.flatnonzero(np.isnan(blocks[1]).all(axis=1)).tolist() == [1, 2]
    np.testing.assert_array_equal(blocks[0][1:], _numbers(files[1:]))
    np.testing.assert_array_equal(blocks[1][3:], _numbers(files[::-1][3:]))
    assert [*both.named_transformers_][:2] == ["callableencoder-1", "callableencoder-2"]
    assert both.get_feature_names_out()[4] == "callableencoder-2__callableencoder0"
    # A column by its name alone loses its index in scikit-learn 1.6.
    frame = _two_columns(["picture"]).set_output(transform="pandas").fit_transform(table)
    assert frame.index.tolist() == table.index.tolist()
    np.testing.assert_array_equal(frame, X)
    nothing = table.assign(picture=None, sound=np.nan).iloc[:1]
    assert both.transform(nothing).shape == (1, 8)


def test_a_pipeline_of_two_columns_answers_rows_that_lack_one(files):
    labels = np.array(["a", "b", "c"] * 4)
    # In place of an estimator that knows two views: what is missing counts for nothing.
    filled = FunctionTransformer(np.nan_to_num)
    pipeline = make_pipeline(_two_columns(), filled, FlowMatchingAligner())
    table = _table(files)
    model = clone(pipeline).fit(table, labels)
    assert model.predict(table.assign(sound=None)).tolist() == labels.tolist()
    assert model.predict(table.assign(picture=pd.NA).iloc[:1]).shape == (1,)
