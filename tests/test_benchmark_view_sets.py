"""Files of several views: what they hold, and what is refused."""

import numpy as np
import pytest
from view_files import view_arrays, write_views

from flowalign.benchmark import load_feature_set, load_view_set, run, run_open_set
from flowalign.benchmark.view_sets import has_views

NAN = np.nan
ARRAYS = view_arrays()


def without(name, rows, value=NAN, columns=slice(None)):
    """The array of a name, a value in the place of rows."""
    array = ARRAYS[name].copy()
    array[rows, columns] = value
    return {name: array}


def test_views_are_what_the_file_holds(tmp_path):
    gaps = without("X_train_eye", [3, 7]) | without("X_test_ear", [0])
    others = {"X_val_eye": np.ones(2), "X_val_ear": np.ones(2), "class_names": np.array(["a"])}
    data = load_view_set(write_views(tmp_path / "set.npz", **gaps, **others))
    assert data.name == "set"
    assert list(data.views) == ["eye", "ear"]
    for view, found in data.views.items():
        for part in ("X_train", "X_test"):
            expected = gaps.get(f"{part}_{view}", ARRAYS[f"{part}_{view}"])
            np.testing.assert_array_equal(getattr(found, part), expected)
            assert getattr(found, part).dtype == np.float32
        for part in ("y_train", "y_test"):
            np.testing.assert_array_equal(getattr(found, part), ARRAYS[part])
            np.testing.assert_array_equal(getattr(data, part), ARRAYS[part])
        vectors = ARRAYS[f"class_embeddings_{view}"]
        np.testing.assert_array_equal(found.class_embeddings.vectors, vectors)
    assert data.n_classes == 5


def test_draws_are_those_of_the_samples_whatever_views_they_have(tmp_path):
    whole = load_view_set(write_views(tmp_path / "whole.npz"))
    gaps = load_view_set(write_views(tmp_path / "gaps.npz", **without("X_train_eye", range(20))))
    one = {name.removesuffix("_ear"): a for name, a in ARRAYS.items() if "eye" not in name}
    np.savez(tmp_path / "one.npz", **one)
    one = load_feature_set(tmp_path / "one.npz")
    for seed in range(3):
        np.testing.assert_array_equal(whole.draw(2, seed), one.draw(2, seed))
        np.testing.assert_array_equal(gaps.draw(2, seed), one.draw(2, seed))


@pytest.mark.parametrize("own", ["eye", "ear", None])
def test_class_embeddings_for_all_are_those_of_views_without_their_own(own, tmp_path):
    shared = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)
    dropped = {f"class_embeddings_{view}": None for view in ("eye", "ear") if view != own}
    data = load_view_set(write_views(tmp_path / "s.npz", class_embeddings=shared, **dropped))
    for view, found in data.views.items():
        expected = ARRAYS[f"class_embeddings_{view}"] if view == own else shared
        np.testing.assert_array_equal(found.class_embeddings.vectors, expected)


def test_integer_features_are_views_too(tmp_path):
    pixels = {
        name: np.ones((n, 3), np.uint8) for name, n in [("X_train_ear", 30), ("X_test_ear", 40)]
    }
    data = load_view_set(write_views(tmp_path / "set.npz", **pixels))
    assert data.views["ear"].X_train.shape == (30, 3)


def test_other_contents_have_another_fingerprint(tmp_path):
    first, second = (
        load_view_set(write_views(tmp_path / "set.npz", seed=seed)).fingerprint for seed in (0, 1)
    )
    assert first != second


def test_a_file_is_of_several_views_by_the_names_of_its_arrays(tmp_path):
    assert has_views(write_views(tmp_path / "set.npz"))
    one = {"X_train": ARRAYS["X_train_eye"], "class_embeddings_minilm": np.eye(3)}
    np.savez(tmp_path / "one.npz", **one)
    assert not has_views(tmp_path / "one.npz")
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 nothing")
    assert not has_views(tmp_path / "broken.npz")


@pytest.mark.parametrize("take", [load_feature_set, run, run_open_set])
def test_methods_for_one_view_refuse_several(take, tmp_path):
    path = write_views(tmp_path / "set.npz")
    arguments = (path,) if take is load_feature_set else ([path], tmp_path / "out")
    with pytest.raises(ValueError, match="several views, X_train_eye, X_train_ear; run_several_v"):
        take(*arguments)


def test_one_view_is_refused(tmp_path):
    path = tmp_path / "set.npz"
    np.savez(path, X_train=np.eye(3))
    with pytest.raises(ValueError, match="for two views or more, has none; a set of one view"):
        load_view_set(path)
    gone = {f"{part}_ear": None for part in ("X_train", "X_test", "class_embeddings")}
    with pytest.raises(ValueError, match="for two views or more, has X_train_eye; a set of one"):
        load_view_set(write_views(path, **gone))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"X_test_ear": None}, r"lacks X_test_ear; it should have y_train, .*_ear\."),
        ({"y_test": None}, "lacks y_test"),
        ({"class_embeddings_eye": None}, "lacks class_embeddings_eye"),
        ({"X_test_Eye": np.eye(3)}, "has X_test_Eye; the views are eye, ear"),
        ({"class_embeddings_eyes": np.eye(5)}, "has class_embeddings_eyes; the views are eye, ear"),
        ({"X_train": np.eye(3)}, "has X_train beside X_train_eye, X_train_ear; leave it out"),
        ({"X_test": np.eye(3)}, "has X_test beside"),
        ({"X_train_": np.eye(3)}, "X_train_ should end in the name of a view"),
        ({"X_train_a__b": np.eye(3)}, "X_train_a__b should end in .*without '__'"),
        ({"X_train_views": np.eye(3)}, "X_train_views should end in .*none of .*views"),
        (
            {"X_train_ear": ARRAYS["X_train_ear"][1:]},
            "same samples as rows; X_train_eye has 30, X_train_ear has 29",
        ),
        (
            {"X_test_eye": ARRAYS["X_test_eye"][1:]},
            "same samples as rows; X_test_eye has 39, X_test_ear has 40",
        ),
        ({"X_test_eye": np.float64(1)}, "X_test_eye has no, X_test_ear has 40"),
        ({"y_train": np.zeros(29, int)}, "y_train should have an integer code for each of 30"),
        ({"y_test": np.full(40, -1)}, "y_test has codes from -1 on"),
        ({"X_test_ear": np.ones((40, 3))}, "X_train_ear is 12 wide and X_test_ear 3"),
        ({"X_train_ear": np.full((30, 12), "a")}, "X_train_ear should be a matrix of finite"),
        (
            without("X_train_ear", [2, 5], columns=slice(3)),
            r"X_train_ear should be .*of which rows 2, 5 are NaN or infinite in a part",
        ),
        (without("X_test_ear", [4], np.inf), r"X_test_ear should be .*of which rows 4"),
        (without("class_embeddings_ear", [1]), r"class_embeddings_ear should be .*rows 1"),
        (
            without("X_train_ear", [2, 5, 6]) | without("X_train_eye", [1, 5, 6]),
            r"rows 5, 6 are NaN in every X_train_<view>",
        ),
        (
            without("X_test_ear", [2]) | without("X_test_eye", [2]),
            r"rows 2 are NaN in every X_test_<view>",
        ),
        (without("X_train_eye", range(30)), "X_train_eye has no row but NaN"),
        (
            {"class_embeddings_ear": np.eye(4)},
            r"class_embeddings_ear has shape \(4, 4\).*codes in y, up to 4",
        ),
        (
            {"class_embeddings_ear": np.eye(6)},
            "each class should have a row; class_embeddings_eye has 5, class_embeddings_ear has 6",
        ),
        ({"X_train_eye": np.array([None])}, "not an .npz file of plain arrays"),
    ],
)  # fmt: skip
def test_files_of_another_form_are_refused(changes, message, tmp_path):
    path = write_views(tmp_path / "set.npz", **changes)
    with pytest.raises(ValueError, match=message):
        load_view_set(path)


def test_class_embeddings_that_may_be_turned_are_told_by_their_name(tmp_path):
    turned = np.random.default_rng(0).standard_normal((12, 5))
    path = write_views(tmp_path / "set.npz", class_embeddings_ear=turned)
    with pytest.raises(ValueError, match=r"class_embeddings_ear has shape .*transpose it"):
        load_view_set(path)
