"""Several views in files: what was saved comes back, and what is no model is refused."""

import pickle

import numpy as np
import pytest

import flowalign
from flowalign import FlowMatchingAligner, MultiViewAligner, SavedAligner
from flowalign.datasets import make_cross_modal
from flowalign.persistence.file_format import pack, read

ONE, OTHER = (make_cross_modal(difficulty=3, random_state=seed) for seed in (0, 1))
TEST = np.hstack([ONE.X_test, OTHER.X_test])
TEST[::5, 64:] = np.nan


def samples(missing=True):
    X = np.hstack([ONE.X_train, OTHER.X_train])
    if missing:
        X[::7, :64] = np.nan
    return X, ONE.y_train


def aligner_of(columns=(slice(0, 64), slice(64, None)), **params):
    names, tables = ("one", "other"), (ONE.class_embeddings, OTHER.class_embeddings)
    views = [
        (name, FlowMatchingAligner(table), part)
        for name, table, part in zip(names, tables, columns, strict=True)
    ]
    return MultiViewAligner(views, **params)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


ANSWERS = ("predict", "predict_proba", "score_samples", "transform")


def same_answers(one, other, X):
    for method in ANSWERS:
        np.testing.assert_array_equal(getattr(one, method)(X), getattr(other, method)(X))


@pytest.mark.parametrize(
    "columns",
    [
        (slice(0, 64), slice(64, None)),
        (list(range(64)), np.arange(64, 128)),
        ([True] * 64 + [False] * 64, np.arange(128) >= 64),
        (lambda X: slice(0, 64), slice(64, 128, 1)),
    ],
    ids=["slices", "positions", "masks", "callable"],
)
def test_what_is_saved_comes_back(columns, path):
    aligner = aligner_of(columns, unknown_label="none", class_prior="empirical").fit(*samples())
    flowalign.save(aligner, path)
    loaded = flowalign.load(path)
    same_answers(loaded, aligner, TEST)
    assert list(loaded.named_views_) == ["one", "other"]
    for name in ("view_weights_", "class_prior_", "support_scores_", "classes_"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(aligner, name))
    assert loaded.unknown_threshold_ == aligner.unknown_threshold_
    assert loaded.get_params()["one__noise"] == 0.3
    assert loaded.get_params(deep=False)["class_prior"] == "empirical"


def test_columns_by_name(path):
    pd = pytest.importorskip("pandas")
    X, y = samples()
    names = [f"a{i}" for i in range(64)], [f"b{i}" for i in range(64)]
    frame, rows = (pd.DataFrame(values, columns=[*names[0], *names[1]]) for values in (X, TEST))
    aligner = aligner_of(names).fit(frame, y)
    flowalign.save(aligner, path)
    loaded = flowalign.load(path)
    same_answers(loaded, aligner, rows)
    with pytest.raises(ValueError, match="feature names"):
        loaded.predict(rows[rows.columns[::-1]])


def prior():
    """Probabilities by label: of one class three times that of another."""
    odds = dict.fromkeys(ONE.class_names, 1.0) | {ONE.class_names[0]: 3.0}
    return {label: value / sum(odds.values()) for label, value in odds.items()}


@pytest.mark.parametrize("params", [{}, {"class_prior": prior()}], ids=["uniform", "by label"])
def test_a_stream_goes_on_from_a_file(params, path):
    X, y = samples()
    begun = aligner_of(**params).partial_fit(X[::2], y[::2])
    flowalign.save(begun, path)
    continued = flowalign.load(path).partial_fit(X[1::2], y[1::2])
    whole = aligner_of(**params).fit(X, y)
    np.testing.assert_allclose(continued.predict_proba(TEST), whole.predict_proba(TEST), atol=1e-5)
    np.testing.assert_allclose(continued.view_weights_, whole.view_weights_, rtol=1e-4)


def test_a_saved_aligner_answers_and_travels(path):
    aligner = aligner_of(unknown_label="none").fit(*samples())
    flowalign.save(aligner, path)
    saved = SavedAligner(path)
    assert len(pickle.dumps(saved)) < 1000
    same_answers(pickle.loads(pickle.dumps(saved)), aligner, TEST)
    for method in ANSWERS:
        for X in (TEST, TEST.astype(np.float32)):
            none, some = getattr(saved, method)(X[:0]), getattr(aligner, method)(X[:3])
            assert none.shape == (0, *some.shape[1:])
            assert none.dtype == some.dtype
    with pytest.raises(ValueError, match="features"):
        saved.predict(TEST[:0, :9])


def test_pickles_say_the_same():
    aligner = aligner_of().fit(*samples())
    same_answers(pickle.loads(pickle.dumps(aligner)), aligner, TEST)


def test_what_has_no_place_in_a_file_is_refused(path):
    aligner = aligner_of().fit(*samples())
    aligner.views_[0] = ("one", aligner.views_[0][1], slice(0.0, 64.0))
    with pytest.raises(TypeError, match="Columns 0.0 cannot be stored"):
        flowalign.save(aligner, path)
    with pytest.raises(TypeError, match="MultiViewAligner"):
        flowalign.save(object(), path)


def changed(header, arrays):
    """Headers and arrays that are no model, by what is wrong with them."""
    view = header["views"][0]
    yield "no views", header | {"views": []}, arrays
    yield "name", header | {"views": [view | {"name": "a__b"}, header["views"][1]]}, arrays
    yield "same name", header | {"views": [view, header["views"][1] | {"name": "one"}]}, arrays
    for columns in ([], [1.5], {"start": 0}, {"start": [], "stop": 1, "step": 1}, [1, "a"], 3):
        views = [view | {"columns": columns}, header["views"][1]]
        yield f"columns {columns}", header | {"views": views}, arrays
    params = view["aligner"]["params"] | {"unknown_label": "x"}
    views = [view | {"aligner": view["aligner"] | {"params": params}}, header["views"][1]]
    yield "shared parameter", header | {"views": views}, arrays
    yield "width", header | {"width": "many"}, arrays
    yield "names", header | {"feature_names": ["a"]}, arrays
    yield "more", header | {"more": 1}, arrays
    yield "more arrays", header, arrays | {"more": np.zeros(3)}
    yield "reserve", header | {"reserve": {"share": 0}}, arrays
    yield "weight", header, arrays | {"weights": -arrays["weights"]}
    yield "prior", header, arrays | {"class_probabilities": 0 * arrays["class_probabilities"]}
    yield "codes", header, arrays | {"reserve.codes": arrays["reserve.codes"] + 99}
    yield "no view", header, arrays | {"reserve.present": arrays["reserve.present"] & False}
    yield "too many", header, arrays | {"reserve.multiplicity": arrays["reserve.multiplicity"] + 9}
    for name in arrays:
        if not name.startswith("view"):
            yield f"no {name}", header, {key: a for key, a in arrays.items() if key != name}
            if arrays[name].ndim:
                yield f"short {name}", header, arrays | {name: arrays[name][:-1]}


def test_damaged_files_are_refused(path):
    flowalign.save(aligner_of().fit(*samples()), path)
    header, arrays, _ = read(path)
    for what, other_header, other_arrays in changed(header, arrays):
        path.write_bytes(pack(other_header, other_arrays))
        with pytest.raises(ValueError, match="no aligner that can be restored"):
            pytest.fail(f"{what}: {flowalign.load(path)}")
