"""What the checks of input promise about all values of a kind."""

import numpy as np
import pandas as pd
import pytest
import torch

from flowalign.inputs import as_numpy, holds_integers, label_values, shorten, shown
from flowalign.ode import max_steps


def test_steps_of_an_nth_are_n():
    """1 / (1 / n) is not n for all n, nor is n times 1 / n always 1."""
    assert [max_steps(1 / n) for n in range(1, 400)] == list(range(1, 400))


def test_only_rounding_of_the_step_size_is_forgiven():
    assert [max_steps((1 + 1e-6) / n) for n in range(2, 400)] == list(range(1, 399))
    assert [max_steps(h) for h in (1.0, 0.6, 0.5, 0.3, 0.7e-2)] == [1, 1, 2, 3, 142]


@pytest.mark.parametrize("dtype", ["f4", "f8", "i2", "i8"])
def test_the_order_of_bytes_is_no_property_of_the_numbers(dtype):
    numbers = np.arange(6).reshape(3, 2)
    for order in "<>":
        found = as_numpy(numbers.astype(f"{order}{dtype}"), "X")
        assert found.dtype == np.dtype(f"={dtype}")
        assert found.dtype.isnative
        np.testing.assert_array_equal(found, numbers)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_halves_become_single_precision(dtype):
    tensor = torch.tensor([[0.5, -2.0]], dtype=dtype, requires_grad=True)
    assert as_numpy(tensor, "X").dtype == np.float32
    assert as_numpy(tensor, "X").tolist() == [[0.5, -2.0]]


def test_arrays_frames_and_what_has_no_array_in_it_are_left_as_they_are():
    for values in (
        pd.DataFrame([[1.0]]),
        np.ones((2, 1)),
        np.ones((2, 1), np.float32),
        "name",
        None,
    ):
        assert as_numpy(values, "X") is values


COUNTS = np.array([[0, 1], [1, 0]])


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "int64", "float32", "float64"])
def test_pixels_and_counts_are_told_from_floats(dtype):
    array = COUNTS.astype(dtype)
    expected = not dtype.startswith("float")
    forms = [array, array.tolist(), torch.tensor(array), pd.DataFrame(array)]
    assert [holds_integers(form) for form in forms] == [expected] * 4


@pytest.mark.parametrize("dtype", ["boolean", "Int64", "UInt8", "Float64"])
def test_nullable_columns_are_numbers_like_others(dtype):
    assert holds_integers(pd.DataFrame(COUNTS).astype(dtype)) == (dtype != "Float64")


def test_one_column_of_floats_makes_features_of_an_encoder():
    assert not holds_integers(pd.DataFrame({"a": [0, 1], "b": [0.0, 1.0]}))


@pytest.mark.parametrize("kind", ["datetime64[D]", "timedelta64[s]"])
def test_times_that_are_none_are_missing_labels(kind):
    labels = np.array([1, 2, 3]).astype(kind)
    assert label_values(labels, "y").tolist() == labels.tolist()
    labels[1] = "NaT"
    with pytest.raises(ValueError, match="y has 1 missing label"):
        label_values(labels, "y")


def test_lists_in_messages_end_after_five():
    assert shorten(range(5)) == "0, 1, 2, 3, 4"
    assert shorten("abcdefg") == "'a', 'b', 'c', 'd', 'e' and 2 more"


@pytest.mark.parametrize("path", ["a b.png", "ümlaut/x.jpg"])
def test_plain_paths_are_shown_as_they_are(path):
    assert shown(path) == path


@pytest.mark.parametrize(
    "path", ["a.png ", " a.png", "a\rb.png", "a\x1b[31m.png", "", "a\u202e.png"]
)
def test_what_a_reader_would_not_see_of_a_path_is_shown(path):
    assert shown(path) == repr(path)
