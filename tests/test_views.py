"""Views: columns of arrays and frames, and rows that lack them."""

import numpy as np
import pytest
import sklearn
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.compose import make_column_selector
from sklearn.utils import _safe_indexing
from two_views import ONE, OTHER, WIDTH, fitted, lacking, make_views, two_views

from flowalign import MultiViewAligner
from flowalign.views import ViewRows

NAMES = [f"{name}{k}" for name in ("one", "other") for k in range(WIDTH)]
MASK = np.arange(2 * WIDTH) < WIDTH


@pytest.fixture(scope="module")
def data():
    return make_views()


@pytest.fixture(scope="module")
def expected(data):
    return fitted(data).predict_proba(data.X_test)


@pytest.fixture(params=["pandas", "polars", "pyarrow"])
def frame(request):
    """What makes a frame of an array, (n, 32), or of a dict of columns."""
    library = pytest.importorskip(request.param)
    if request.param == "pyarrow":
        try:
            _safe_indexing(library.table({"a": [1.0]}), ["a"], axis=1)
        except TypeError:
            pytest.skip("this scikit-learn chooses no columns of pyarrow")

    def make(X):
        columns = X if isinstance(X, dict) else dict(zip(NAMES, X.T.copy(), strict=True))
        return library.table(columns) if request.param == "pyarrow" else library.DataFrame(columns)

    return make


# ------------------------------------------------------------------------------ columns


@pytest.mark.parametrize(
    "columns",
    [
        (list(range(WIDTH)), list(range(-WIDTH, 0))),
        (range(WIDTH), np.arange(WIDTH, 2 * WIDTH)),
        (MASK, ~MASK),
        (MASK.tolist(), (~MASK).tolist()),
        (slice(None, WIDTH), slice(WIDTH, None)),
        (lambda X: slice(0, X.shape[1] // 2), lambda X: np.arange(X.shape[1] // 2, X.shape[1])),
    ],
    ids=["positions", "ranges", "masks", "lists of bool", "open slices", "callables"],
)
def test_columns_of_an_array(data, expected, columns):
    several = MultiViewAligner(two_views(data, columns)).fit(data.X, data.y)
    assert_array_equal(several.predict_proba(data.X_test), expected)
    assert several.n_features_in_ == 2 * WIDTH
    assert not hasattr(several, "feature_names_in_")


@pytest.mark.parametrize(
    "columns",
    [
        (NAMES[:WIDTH], NAMES[WIDTH:]),
        (slice("one0", f"one{WIDTH - 1}"), slice("other0", None)),
        (ONE, OTHER),
        (MASK, ~MASK),
        (lambda X: NAMES[:WIDTH], lambda X: NAMES[WIDTH:]),
    ],
    ids=["names", "slices of names", "slices", "masks", "callables"],
)
def test_columns_of_a_frame(data, expected, frame, columns):
    several = MultiViewAligner(two_views(data, columns)).fit(frame(data.X), data.y)
    assert_allclose(several.predict_proba(frame(data.X_test)), expected, atol=1e-6)
    assert several.n_features_in_ == 2 * WIDTH
    assert several.feature_names_in_.tolist() == NAMES
    assert several.named_views_.other.feature_names_in_.tolist() == NAMES[WIDTH:]


def test_columns_that_a_selector_chooses(data, expected):
    pandas = pytest.importorskip("pandas")
    columns = make_column_selector("^one"), make_column_selector("^other")
    X, X_test = (pandas.DataFrame(X, columns=NAMES) for X in (data.X, data.X_test))
    several = MultiViewAligner(two_views(data, columns)).fit(X, data.y)
    assert_allclose(several.predict_proba(X_test), expected, atol=1e-6)


def test_a_frame_in_another_order_is_refused(data, frame):
    several = MultiViewAligner(two_views(data)).fit(frame(data.X), data.y)
    turned = dict(zip(NAMES[::-1], data.X_test.T[::-1].copy(), strict=True))
    with pytest.raises(ValueError, match="same order as they were in fit"):
        several.predict(frame(turned))
    with pytest.raises(ValueError, match="X_unlabeled must have columns like X: The feature names"):
        several.fit(frame(data.X), data.y, X_unlabeled=frame(turned))


def test_tensors_and_lists_of_tensors(data, expected):
    torch = pytest.importorskip("torch")
    X = torch.tensor(data.X, requires_grad=True)
    several = MultiViewAligner(two_views(data)).fit(list(X), data.y)
    assert_array_equal(several.predict_proba(torch.tensor(data.X_test)), expected)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ([0, 32], "0, 32, which X lacks: index 32"),
        (slice(16, 40), r"slice\(16, 40, None\), which X lacks: it has 32\.$"),
        (slice(40, 50), r"which X lacks: it has 32\.$"),
        ([], r"0 feature\(s\)"),
        ([True, False], "which X lacks: boolean index"),
        (None, "columns None, which X lacks: give a slice"),
        ([0.5], "columns 0.5, which X lacks"),
        (["a"], "'a', which X lacks: .*only supported for dataframes"),
        (NAMES, r"and 27 more, which X lacks"),
        (3, "column 3 of X has no arrays as cells; give a list"),
    ],
)
def test_columns_that_are_not_there(data, columns, message):
    views = two_views(data, (ONE, columns))
    with pytest.raises(ValueError, match="^View 'other': .*" + message):
        MultiViewAligner(views).fit(data.X, data.y)


def test_names_that_a_frame_lacks(data, frame):
    with pytest.raises(ValueError, match="^View 'other': .*'third', which X lacks"):
        MultiViewAligner(two_views(data, (ONE, ["third"]))).fit(frame(data.X), data.y)


# --------------------------------------------------------------- columns of which cells are rows


def cells(rows, nothing=None, lacked=()):
    """Rows as the cells of a column."""
    column = np.empty(len(rows), dtype=object)
    for i, row in enumerate(rows):
        column[i] = nothing if i in lacked else row
    return column


def as_columns(pandas, X, nothing=None, one=(), other=()):
    parts = {"one": (ONE, one), "other": (OTHER, other)}
    return pandas.DataFrame(
        {name: cells(X[:, part], nothing, lacked) for name, (part, lacked) in parts.items()}
    )


def missing_values():
    nothing = [None, float("nan"), np.full(WIDTH, np.nan), [np.nan] * WIDTH]
    try:
        import pandas
    except ImportError:
        return nothing
    return [*nothing, pandas.NA, pandas.NaT]


@pytest.mark.parametrize("nothing", missing_values(), ids=lambda value: f"{value}"[:9])
@pytest.mark.parametrize("as_lists", [False, True])
def test_cells_may_be_rows_and_missing(data, nothing, as_lists):
    pandas = pytest.importorskip("pandas")
    columns = (["one"], ["other"]) if as_lists else ("one", "other")
    rows = {"one": [0, 5], "other": [1, 9, 13]}
    expected = fitted(data, lacking(data.X, **rows))
    X = as_columns(pandas, data.X, nothing, **rows)
    several = MultiViewAligner(two_views(data, columns)).fit(X, data.y)
    assert several.feature_names_in_.tolist() == ["one", "other"]
    for rows in ({"one": range(3)}, {"one": range(100)}, {"one": [1], "other": [0, 99]}):
        found = several.predict_proba(as_columns(pandas, data.X_test, nothing, **rows))
        assert_allclose(found, expected.predict_proba(lacking(data.X_test, **rows)), atol=1e-6)


def test_a_column_of_numbers_that_are_all_missing(data):
    pandas = pytest.importorskip("pandas")
    views = two_views(data, ("one", "other"))
    several = MultiViewAligner(views).fit(as_columns(pandas, data.X), data.y)
    X = as_columns(pandas, data.X_test)
    X["one"] = np.nan
    expected = fitted(data).predict_proba(lacking(data.X_test, one=range(100)))
    assert_allclose(several.predict_proba(X), expected, atol=1e-6)


def test_cells_of_polars(data, expected):
    polars = pytest.importorskip("polars")

    def frame(X, one=()):
        columns = [None if i in one else row.tolist() for i, row in enumerate(X[:, ONE])]
        return polars.DataFrame({"one": columns, "other": X[:, OTHER]})

    several = MultiViewAligner(two_views(data, ("one", "other"))).fit(frame(data.X), data.y)
    assert_allclose(several.predict_proba(frame(data.X_test)), expected, atol=1e-6)
    for rows in ([], [0], range(100)):  # a column of a fixed width
        X = lacking(data.X_test, one=rows)
        found = several.predict_proba(polars.DataFrame({"one": X[:, ONE], "other": X[:, OTHER]}))
        assert_allclose(found, fitted(data).predict_proba(X), atol=1e-6)
    found = several.predict_proba(frame(data.X_test, range(100)))
    expected = fitted(data).predict_proba(lacking(data.X_test, one=range(100)))
    assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (np.ones(WIDTH - 1), "rows of one width"),
        ("a.wav", "rows of one width"),
        (np.r_[np.nan, np.ones(WIDTH - 1)], r"in these rows of X: 2\. A row that lacks"),
        (np.array([]), "rows of one width"),
    ],
)
def test_cells_that_are_no_rows(data, cell, message):
    pandas = pytest.importorskip("pandas")
    X = as_columns(pandas, data.X, cell, one=[2])
    with pytest.raises(ValueError, match=f"^View 'one': .*{message}"):
        MultiViewAligner(two_views(data, ("one", "other"))).fit(X, data.y)


def test_cells_of_which_none_is_a_row(data):
    pandas = pytest.importorskip("pandas")
    X = as_columns(pandas, data.X, one=range(20))
    with pytest.raises(ValueError, match="^View 'one': column 'one' of X has no arrays as cells"):
        MultiViewAligner(two_views(data, ("one", "other"))).fit(X, data.y)


def test_cells_of_another_width_than_in_the_fit(data):
    pandas = pytest.importorskip("pandas")
    several = MultiViewAligner(two_views(data, ("one", "other")))
    several.fit(as_columns(pandas, data.X), data.y)
    X = as_columns(pandas, data.X_test)
    X["one"] = X["one"].map(lambda row: row[:-1])
    with pytest.raises(ValueError, match="^View 'one': X has 15 features of it, and had 16"):
        several.predict(X)


# -------------------------------------------------------------------------- missing values


def test_missing_values_of_nullable_columns(data):
    pandas = pytest.importorskip("pandas")
    X = pandas.DataFrame(lacking(data.X, one=[0, 5]), columns=NAMES).convert_dtypes()
    several = MultiViewAligner(two_views(data)).fit(X, data.y)
    expected = fitted(data, lacking(data.X, one=[0, 5]))
    assert_array_equal(several.view_weights_, expected.view_weights_)
    X.iloc[[3, 4], 0] = pandas.NA
    with pytest.raises(ValueError, match="^View 'one': some .* in these rows of X: 3, 4"):
        several.fit(X, data.y)


def test_features_are_kept_and_neutral_where_they_are_missing():
    X = np.array([[1.0, 2, 7], [np.nan, np.nan, 7]], dtype=np.float32)
    rows = ViewRows.of(X, slice(0, 2))
    assert rows.features.dtype == np.float32
    assert_array_equal(rows.features, [[1, 2], [1, 1]])
    assert_array_equal(rows.present, [True, False])
    assert_array_equal(rows.with_nan, X[:, :2])
    assert_array_equal(rows[1:].present, [False])
    assert ViewRows.of(X[:1].astype(int), [0]).integers
    assert not rows.integers


@pytest.mark.parametrize("method", ["fit", "predict", "X_unlabeled"])
def test_rows_without_any_view_and_with_a_part_of_one_are_named(data, frame, method):
    several = fitted(data)
    with sklearn.config_context(assume_finite=False):
        calls = {
            "fit": lambda X: several.fit(X, data.y),
            "predict": lambda X: MultiViewAligner(two_views(data)).fit(data.X, data.y).predict(X),
            "X_unlabeled": lambda X: several.fit(data.X, data.y, X_unlabeled=X),
        }
        what = "X_unlabeled" if method == "X_unlabeled" else "X"
        lonely = lacking(data.X, one=[3, 7], other=[3, 6, 7])
        with pytest.raises(ValueError, match=f"Rows of {what} .*'one' and 'other': 3, 7. Drop"):
            calls[method](lonely)
        partly = data.X.copy()
        partly[[4, 9], WIDTH + 1] = np.nan
        with pytest.raises(ValueError, match=f"^View 'other': .*rows of {what}: 4, 9."):
            calls[method](partly)
