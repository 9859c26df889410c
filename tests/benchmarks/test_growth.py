"""How time grows with rows and steps, and memory with rows."""

import statistics

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from timing import seconds

from flowalign import ClassEmbeddings, FlowMatchingAligner, ode

FIELDS = ("mlp", "gaussian")


def make(n, d, n_classes, into=None):
    """Fill features of classes around their embeddings; return them, codes and a table."""
    rng = np.random.default_rng(0)
    E = rng.standard_normal((n_classes, d), dtype=np.float32)
    X = np.empty((n, d), np.float32) if into is None else into
    codes = np.arange(n) % n_classes
    for start in range(0, n, 4096):
        rows = slice(start, start + 4096)
        X[rows] = rng.standard_normal(X[rows].shape, dtype=np.float32)
        X[rows] *= 3
        X[rows] += 2 * E[codes[rows]]
    return X, codes, ClassEmbeddings(np.arange(n_classes), E)


def fitted(field, d=256, n_classes=50, **params):
    X, codes, table = make(8 * n_classes, d, n_classes)
    model = FlowMatchingAligner(
        table, velocity_field=field, max_iter=1, n_steps=5, logit_scale=100, random_state=0
    )
    return model.set_params(**params).fit(X, codes)


def growth(small, large, benchmark, rounds=5):
    """Return the time of one call over that of another, a tenth of it; each the median."""
    small(), large()
    times = [(seconds(small), seconds(large)) for _ in range(rounds)]
    ratio = statistics.median(b / a for a, b in times) / 10
    benchmark.extra_info["growth over a decade"] = round(ratio, 3)
    benchmark.pedantic(small, rounds=1)
    return ratio


@pytest.mark.parametrize("field", FIELDS)
def test_prediction_is_linear_in_rows(field, benchmark):
    model = fitted(field)
    X, _, _ = make(100_000, 256, 50)
    ratio = growth(lambda: model.predict(X[:10_000]), lambda: model.predict(X), benchmark)
    assert 0.85 < ratio < 1.15


@pytest.mark.parametrize("field", FIELDS)
def test_the_flow_is_linear_in_steps(field, benchmark):
    velocity = fitted(field).velocity_field_.velocity
    x = torch.from_numpy(make(2048, 256, 50)[0])

    @torch.inference_mode()
    def flow(n_steps):
        ode.integrate(velocity, x, ode.grid(n_steps, 0.01), last_only=True)

    ratio = growth(lambda: flow(5), lambda: flow(50), benchmark)
    assert ratio < 1.15  # less, where a step costs little beside a call


@pytest.mark.parametrize(("field", "n"), [("mlp", 2000), ("gaussian", 50_000)])
def test_a_fit_is_linear_in_samples(field, n, benchmark):
    X, codes, table = make(10 * n, 128, 50)
    model = FlowMatchingAligner(
        table, velocity_field=field, max_iter=1, batch_size=64, n_steps=5, logit_scale=100,
        random_state=0,
    )  # fmt: skip
    ratio = growth(
        lambda: model.fit(X[:n], codes[:n]), lambda: model.fit(X, codes), benchmark, rounds=3
    )
    assert ratio < 1.15  # less, for what is done once, whatever the number of samples


@pytest.mark.parametrize(("d", "n_classes"), [(512, 500), (512, 1000), (512, 50), (1024, 50)])
def test_a_closed_form_grows_with_features_and_classes_as_their_cube_at_most(
    d, n_classes, benchmark
):
    """The larger of the two is doubled, with two samples a class."""
    wider, more = (d, 2 * n_classes) if n_classes > 50 else (2 * d, n_classes)
    few, many = make(2 * n_classes, d, n_classes), make(2 * more, wider, more)
    model = FlowMatchingAligner()
    small, large = (lambda data=data: model.fit(*data) for data in (few, many))
    small()
    ratio = statistics.median(seconds(large) / seconds(small) for _ in range(3))
    benchmark.extra_info["exponent"] = round(float(np.log2(ratio)), 2)
    benchmark.pedantic(small, rounds=1)
    assert ratio < 9


@pytest.mark.parametrize("field", FIELDS)
def test_a_fit_holds_the_data_three_times_at_most(field, added_memory, benchmark):
    X, codes, table = make(100_000, 512, 100)
    model = FlowMatchingAligner(
        table, velocity_field=field, max_iter=1, batch_size=1024, random_state=0
    )
    model.fit(X[:2000], codes[:2000])
    times = 1 + added_memory(lambda: model.fit(X, codes)) / X.nbytes
    benchmark.extra_info["times the data"] = round(times, 2)
    benchmark.pedantic(lambda: None, rounds=1)
    # The data three times and the model.
    assert times < 3.5


@pytest.mark.slow
def test_a_million_rows_from_a_file(tmp_path, added_memory, benchmark):
    n, d, n_classes = 1_000_000, 512, 1000
    file = np.lib.format.open_memmap(tmp_path / "rows.npy", "w+", np.float32, (n, d))
    make(n, d, n_classes, into=file)
    file.flush()
    rows = np.load(tmp_path / "rows.npy", mmap_mode="r")
    X, codes, table = make(4 * n_classes, d, n_classes)
    ours = FlowMatchingAligner(table).fit(X, codes)
    theirs = LogisticRegression(max_iter=5, tol=10).fit(X, codes)
    tenth = added_memory(lambda: ours.predict(rows[: n // 10]))
    for name, model in (("flowalign", ours), ("logistic regression", theirs)):
        time = []
        memory = added_memory(
            lambda model=model, time=time: time.append(seconds(lambda: model.predict(rows)))
        )
        benchmark.extra_info[name] = {"rows a second": round(n / time[0]), "MiB": memory >> 20}
        if model is ours:
            assert memory < 2**31
            benchmark.extra_info["MiB of a tenth of the rows"] = tenth >> 20
            # But for the labels themselves, the rows add nothing.
            assert memory < tenth + 2**26 + 2 * n * codes.itemsize
    print(benchmark.extra_info)
    benchmark.pedantic(lambda: None, rounds=1)
