"""Synthetic features: their distribution, which classes they are of, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from scipy.stats import t as student
from test_gaussian_model import make, sigma_of

from flowalign import ClassEmbeddings, FlowMatchingAligner, load, save
from flowalign.datasets import make_cross_modal

N = 40_000


@pytest.mark.parametrize("c", [0, 2, 3])
def test_draws_have_mean_and_covariance_of_the_predictive(c):
    """Of a class with many samples, of one with none, and of one with one."""
    model, *_ = make([30, 12, 0, 1])
    rows = model.sample(np.full(N, c), 0).numpy()
    tail = model.within.tail
    widening = 1 + float(model.class_means.covariance[c, c])
    expected = widening * tail / (tail - 2) * sigma_of(model)
    error = 5 * np.sqrt(expected.diagonal() / N)
    assert (np.abs(rows.mean(axis=0) - model.class_means.means[c].numpy()) < error).all()
    np.testing.assert_allclose(np.cov(rows.T), expected, atol=0.05 * expected.max())


def test_each_direction_is_a_t_with_the_degrees_of_freedom_of_the_covariance():
    model, *_ = make([3, 0], d=3)
    assert model.within.tail == 5
    rows = model.sample(np.ones(N, dtype=int), 0).numpy()
    widening = 1 + float(model.class_means.covariance[1, 1])
    z = (rows - model.class_means.means[1].numpy()) @ model.within.basis.numpy()
    z /= np.sqrt(widening * model.within.variances.numpy())
    for coordinate in z.T:
        assert kstest(coordinate, student(5).cdf).pvalue > 1e-3
    other = [kstest(coordinate, student(8).cdf).pvalue for coordinate in z.T]
    assert min(other) < 1e-3
    # One tail for the whole row: coordinates that are far out are so together.
    assert np.corrcoef(np.log(z[:, 0] ** 2), np.log(z[:, 1] ** 2))[0, 1] > 0.05


def test_rows_follow_their_codes():
    model, *_ = make([30, 12, 1])
    narrow = replace(model, within=replace(model.within, variances=model.within.variances * 1e-20))
    codes = [2, 0, 0, 1, 2]
    rows = narrow.sample(codes, 0)
    torch.testing.assert_close(rows, model.class_means.means[codes], rtol=0, atol=1e-6)


@pytest.mark.parametrize("codes", [[0, 3], [-1]])
def test_there_are_no_rows_of_other_classes(codes):
    model, *_ = make([5, 3, 4])
    with pytest.raises(ValueError, match="codes must be classes from 0 to 2, got some from"):
        model.sample(codes)
    assert model.sample([]).shape == (0, 4)


# ------------------------------------------------------------------ through the estimator


@pytest.fixture(scope="module")
def data():
    """Six classes in a joint space, of which the first has no samples."""
    return make_cross_modal(n_classes=6, n_train=8, n_test=50, n_features=32, random_state=0)


@pytest.fixture(scope="module", params=["gaussian", "mlp"])
def aligner(data, request):
    known = data.y_train != data.class_names[0]
    model = FlowMatchingAligner(
        data.class_embeddings, velocity_field=request.param, max_iter=2, n_blocks=1, n_steps=5,
        logit_scale=1.0, random_state=0, class_prior=[0.5, 0.3, 0.05, 0.05, 0.05, 0.05],
    )  # fmt: skip
    return model.fit(data.X_train[known], data.y_train[known])


def test_labels_are_drawn_by_the_prior(aligner):
    X, y = aligner.sample(20_000, random_state=0)
    assert X.shape == (20_000, 32)
    labels, counts = np.unique(y, return_counts=True)
    np.testing.assert_array_equal(labels, aligner.classes_)
    np.testing.assert_allclose(counts / 20_000, aligner.class_prior_, atol=0.02)
    assert (np.sort(y) == y).all()  # grouped


def test_with_labels_there_are_as_many_of_each_in_their_order(aligner, data):
    wanted = [data.class_names[k] for k in (4, 0, 2)]
    X, y = aligner.sample(7, labels=wanted, random_state=0)
    np.testing.assert_array_equal(y, np.repeat(wanted, 7))
    assert y.dtype == aligner.classes_.dtype
    # Each row is of the class that it is called: nearer to its mean than others are on average.
    means = aligner.gaussian_model_.class_means.means.cpu().numpy()
    codes = np.searchsorted(aligner.classes_, y)
    own = np.linalg.norm(X - means[codes], axis=1).mean()
    assert own < np.linalg.norm(X - means[np.roll(codes, 7)], axis=1).mean()


def test_rows_are_features_of_the_fit(aligner):
    X, _ = aligner.sample(2500, random_state=0)  # more than are drawn together
    np.testing.assert_allclose(np.linalg.norm(X, axis=1), 1, rtol=1e-6)
    assert X.dtype == aligner.class_embeddings_.dtype == np.float32
    assert aligner.sample(random_state=0)[0].shape == (1, 32)
    assert len(np.unique(X[:, 0])) == 2500


def test_where_lengths_mean_something_they_are_drawn(data):
    wide = 10 * data.X_train.astype(np.float64)
    aligner = FlowMatchingAligner(n_steps=0, logit_scale=1.0, normalize=False)
    X, y = aligner.fit(wide, data.y_train).sample(400, labels=aligner.classes_, random_state=0)
    assert X.dtype == np.float64
    expected = aligner.gaussian_model_.class_means.means.cpu()
    found = np.stack([X[y == label].mean(axis=0) for label in aligner.classes_])
    np.testing.assert_allclose(found, expected, atol=0.05 * np.linalg.norm(wide, axis=1).mean())


def test_a_seed_gives_the_same_rows_and_touches_no_other_generator(aligner):
    before = torch.get_rng_state()
    first, again, other = (aligner.sample(9, random_state=s)[0] for s in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    torch.testing.assert_close(torch.get_rng_state(), before)
    rng = np.random.RandomState(3)
    np.testing.assert_array_equal(aligner.sample(9, random_state=rng)[0], first)
    assert not np.array_equal(aligner.sample(9, random_state=rng)[0], first)


def test_a_saved_aligner_draws_the_same(aligner, tmp_path):
    path = tmp_path / "aligner.safetensors"
    save(aligner, path)
    found, expected = (model.sample(5, random_state=0) for model in (load(path), aligner))
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize("labels", [[3, 1], np.array([3, 1]), torch.tensor([3, 1]), (3.0, 1.0)])
def test_labels_come_in_any_form(data, labels):
    codes = np.searchsorted(data.class_names, data.y_train)
    table = ClassEmbeddings(np.arange(6), data.class_embeddings.vectors)
    aligner = FlowMatchingAligner(table, n_steps=5, logit_scale=1.0).fit(data.X_train, codes)
    np.testing.assert_array_equal(aligner.sample(2, labels)[1], [3, 3, 1, 1])


@pytest.mark.parametrize(
    ("n_samples", "labels", "error", "message"),
    [
        (0, None, ValueError, "n_samples must be at least 1"),
        (2.0, None, TypeError, "n_samples must be an integer"),
        (1, ["okapi"], ValueError, "labels .* no class: 'okapi'"),
        (1, [7], ValueError, "labels .* no class: 7"),
        (1, "okapi", ValueError, "labels must be a non-empty 1-D list"),
        (1, [], ValueError, "labels must be a non-empty 1-D list"),
        (1, [None], ValueError, "labels has 1 missing"),
    ],
)
def test_what_is_no_request_is_refused(aligner, n_samples, labels, error, message):
    with pytest.raises(error, match=message):
        aligner.sample(n_samples, labels)


def test_without_samples_there_is_nothing_to_draw_from(data):
    aligner = FlowMatchingAligner(data.class_embeddings).fit(np.empty((0, 32)), [])
    with pytest.raises(ValueError, match="nothing to sample from"):
        aligner.sample(1)
