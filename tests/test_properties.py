"""What holds for any support set, and whatever happens around a fit."""

import gc
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joblib import Parallel, delayed
from sklearn.exceptions import NotFittedError

import flowalign
from flowalign import ClassEmbeddings, FlowMatchingAligner
from flowalign.datasets import make_cross_modal
from flowalign.network import fit as network_fit

LABELS = {
    "integers": lambda n: np.arange(n) * 3 - 4,
    "small integers": lambda n: np.arange(n, dtype=np.uint8),
    "strings": lambda n: np.array([f"class {k}" for k in range(n)]),
    "objects": lambda n: np.array([f"{k} ü" for k in range(n)], dtype=object),
}
LAYOUTS = {
    "as it is": lambda X: X,
    "by columns": np.asfortranarray,
    "every other": lambda X: np.repeat(X, 2, axis=0)[::2],
    "backwards": lambda X: X[::-1].copy()[::-1],
    "big-endian": lambda X: X.astype(X.dtype.newbyteorder(">")),
}


@st.composite
def support_sets(draw):
    """Draw X (n, d), y, a table or None, and features to predict."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_classes = draw(st.integers(2, 6))
    counts = draw(st.lists(st.integers(1, 5), min_size=n_classes, max_size=n_classes))
    unsampled = draw(st.integers(0, 2))
    d = draw(st.integers(2, 24))
    e = draw(st.one_of(st.none(), st.just(d), st.integers(2, 24)))
    classes = LABELS[draw(st.sampled_from(sorted(LABELS)))](n_classes + unsampled)
    means = rng.standard_normal((n_classes, d))
    codes = rng.permutation(np.repeat(np.arange(n_classes), counts))
    spread = draw(st.sampled_from([0.0, 0.1, 1.0]))
    X = means[codes] + spread * rng.standard_normal((len(codes), d))
    scale = 10.0 ** draw(st.integers(-3, 3))
    dtype = draw(st.sampled_from([np.float16, np.float32, np.float64]))
    table = None
    if e is not None:
        E = rng.standard_normal((len(classes), e))
        if e == d and draw(st.booleans()):
            E[:n_classes] += means
        table = ClassEmbeddings(classes, E)
    new = means[rng.integers(n_classes, size=7)] + rng.standard_normal((7, d))
    return (scale * X).astype(dtype), classes[codes], table, (scale * new).astype(dtype)


@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    data=support_sets(),
    layout=st.sampled_from(sorted(LAYOUTS)),
    field=st.sampled_from(["gaussian", "gaussian", "mlp"]),
)
def test_any_support_set(data, layout, field, tmp_path):
    X, y, table, new = data
    model = FlowMatchingAligner(
        table, velocity_field=field, n_blocks=1, hidden_dim=8, max_iter=2, random_state=0
    )
    plain = model.fit(X, y).predict_proba(new)
    assert model.classes_.tolist() == sorted(set(y) if table is None else set(table.classes))
    assert plain.shape == (7, len(model.classes_))
    assert np.isfinite(plain).all()
    np.testing.assert_allclose(plain.sum(axis=1), 1, rtol=1e-4)
    chosen = np.searchsorted(model.classes_, model.predict(new))
    np.testing.assert_array_equal(plain[np.arange(7), chosen], plain.max(axis=1))
    # A row does not depend on those beside it, nor on how it lies in memory; nothing is changed.
    arranged = LAYOUTS[layout](new)
    before = np.array(arranged)
    tolerance = {"rtol": 1e-3, "atol": 1e-5}
    np.testing.assert_allclose(model.predict_proba(arranged), plain, **tolerance)
    np.testing.assert_array_equal(np.array(arranged), before)
    np.testing.assert_allclose(model.predict_proba(new[2:4]), plain[2:4], **tolerance)
    # What is saved says the same.
    flowalign.save(model, tmp_path / "model")
    np.testing.assert_array_equal(flowalign.load(tmp_path / "model").predict_proba(new), plain)
    # Nor does a fit depend on the order of the samples or on their layout.
    order = np.random.default_rng(0).permutation(len(y))
    model.fit(LAYOUTS[layout](X[order]), y[order])
    np.testing.assert_allclose(model.predict_proba(new), plain, **tolerance)


def test_read_only_and_memory_mapped_arrays(small, data, tmp_path):
    expected = small(data.class_embeddings).fit(data.X_train, data.y_train)
    expected = expected.predict_proba(data.X_test)
    X, X_test = data.X_train.copy(), data.X_test.copy()
    for array in (X, X_test):
        array.flags.writeable = False
    model = small(data.class_embeddings).fit(X, data.y_train)
    np.testing.assert_array_equal(model.predict_proba(X_test), expected)
    for name, array in (("X", X), ("X_test", X_test)):
        np.save(tmp_path / f"{name}.npy", array)
    X, X_test = (np.load(tmp_path / f"{n}.npy", mmap_mode="r") for n in ("X", "X_test"))
    model = small(data.class_embeddings).fit(X, data.y_train)
    np.testing.assert_array_equal(model.predict_proba(X_test), expected)


def fitted_proba(field, seed, threads=None):
    if threads:
        torch.set_num_threads(threads)
    data = make_cross_modal(5, n_train=4, n_features=16, random_state=seed)
    model = FlowMatchingAligner(velocity_field=field, max_iter=3, random_state=seed)
    return model.fit(data.X_train, data.y_train, data.class_embeddings).predict_proba(data.X_test)


@pytest.mark.parametrize("field", ["gaussian", "mlp"])
def test_threads_and_processes_fit_as_if_alone(field):
    alone = [fitted_proba(field, seed) for seed in range(4)]
    found = {}
    threads = [
        threading.Thread(target=lambda seed=seed: found.update({seed: fitted_proba(field, seed)}))
        for seed in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(4):
        np.testing.assert_array_equal(found[seed], alone[seed])
    apart = Parallel(n_jobs=2)(delayed(fitted_proba)(field, seed) for seed in range(4))
    np.testing.assert_allclose(apart, alone, rtol=1e-3, atol=1e-6)  # their thread counts differ


@pytest.mark.parametrize("field", ["gaussian", "mlp"])
def test_thread_counts_agree(field):
    before = torch.get_num_threads()
    try:
        one, two = (fitted_proba(field, 0, threads) for threads in (1, 2))
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("stage", ["the fit", "the choice of the stop"])
def test_an_interrupted_fit_changes_nothing(data, stage, monkeypatch):
    model = FlowMatchingAligner(velocity_field="mlp", max_iter=2, random_state=0)
    model.fit(data.X_train, data.y_train, data.class_embeddings)
    before = model.predict_proba(data.X_test)
    calls = []

    def interrupt(*args, **kwargs):
        calls.append(1)
        if len(calls) > (0 if stage == "the fit" else 1):
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    original = network_fit.train
    monkeypatch.setattr(network_fit, "train", interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.fit(data.X_train[::-1], data.y_train, None)
    assert len(calls) == (1 if stage == "the fit" else 2)
    np.testing.assert_array_equal(model.predict_proba(data.X_test), before)
    calls.clear()
    new = FlowMatchingAligner(velocity_field="mlp", max_iter=2)
    with pytest.raises(KeyboardInterrupt):
        new.fit(data.X_train, data.y_train, data.class_embeddings)
    with pytest.raises(NotFittedError):
        new.predict(data.X_test)


def resident():
    """Pages of this process that are in memory, in bytes (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
@pytest.mark.parametrize(("field", "n_fits"), [("gaussian", 1000), ("mlp", 100)])
def test_memory_does_not_grow_with_fits(field, n_fits):
    data = make_cross_modal(3, n_train=3, n_test=5, n_features=16, random_state=0)
    model = FlowMatchingAligner(velocity_field=field, max_iter=1, n_blocks=1, random_state=0)

    def fit(times):
        for k in range(times):
            # The choices take most of the time: a fit in five makes them.
            n_steps, logit_scale = ("auto", "auto") if k % 5 == 0 else (5, 30)
            model.set_params(n_steps=n_steps, logit_scale=logit_scale)
            model.fit(data.X_train, data.y_train, data.class_embeddings)
            model.predict_proba(data.X_test)
        gc.collect()
        return resident()

    first = fit(n_fits // 5)
    assert fit(n_fits) - first < 2**23
