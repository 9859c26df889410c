"""Samples and classes that come later: as if all had been there at once."""

import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

import flowalign
from flowalign import FlowMatchingAligner
from flowalign.datasets import make_cross_modal

pytestmark = pytest.mark.filterwarnings("ignore:class_embeddings are equal")


@pytest.fixture(scope="module")
def data():
    return make_cross_modal(6, n_train=8, n_test=20, n_features=24, random_state=0)


def draw(n, d, seed, dtype=np.float32):
    """Samples of up to five classes, some with one sample, and class embeddings."""
    rng = np.random.default_rng(seed)
    codes = rng.choice(5, size=n, p=[0.4, 0.3, 0.15, 0.1, 0.05])
    E = rng.normal(size=(5, d))
    X = (E[codes] + 0.7 * rng.normal(size=(n, d))).astype(dtype)
    return X, np.array(list("edcba"))[codes], dict(zip("edcba", E.astype(dtype), strict=True))


def covariance(model):
    return model.within.basis * model.within.variances @ model.within.basis.T


def the_same(one, other, X, atol=1e-6):
    """Estimates of the classes, and all that is chosen on samples."""
    assert one.classes_.tolist() == other.classes_.tolist()
    a, b = (aligner.gaussian_model_.to(torch.device("cpu")) for aligner in (one, other))
    np.testing.assert_array_equal(a.statistics.counts, b.statistics.counts)
    size = float(b.within.variances.max()) ** 0.5
    np.testing.assert_allclose(a.class_means.means, b.class_means.means, atol=atol * size)
    np.testing.assert_allclose(covariance(a), covariance(b), atol=atol * size**2)
    np.testing.assert_allclose(a.evidence, b.evidence, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(one.support_scores_, other.support_scores_, rtol=1e-3, atol=1e-2)
    np.testing.assert_array_equal(one._reserve.X, other._reserve.X)
    np.testing.assert_array_equal(one._reserve.codes, other._reserve.codes)
    np.testing.assert_array_equal(one._reserve.multiplicity, other._reserve.multiplicity)
    np.testing.assert_allclose(one.class_embeddings_, other.class_embeddings_, atol=1e-5)
    assert one.joint_ == other.joint_
    assert one.stop_source_ == other.stop_source_
    np.testing.assert_allclose(one.predict_proba(X), other.predict_proba(X), atol=2e-3)


SITUATIONS = {
    "n": st.integers(6, 40),
    "d": st.sampled_from([3, 8, 60]),
    "seed": st.integers(0, 10**6),
    "dtype": st.sampled_from([np.float32, np.float64]),
    "text": st.sampled_from(["joint", "mapped", None]),
}
MOST = st.sampled_from([4096, 12])


def embeddings(table, text):
    """The same names with or without text in the space of the features."""
    if text is None:
        return None
    return {k: v if text == "joint" else np.r_[v, v[:1] ** 2] for k, v in table.items()}


def small_reserve(monkeypatch, most):
    original = flowalign.reserve.Reserve.of.__func__
    defaults = original.__kwdefaults__ | {"most": most}
    monkeypatch.setattr(original, "__kwdefaults__", defaults)


@settings(max_examples=40, deadline=None)
@given(n_blocks=st.integers(1, 6), most=MOST, **SITUATIONS)
def test_any_blocks_in_any_order_are_one_fit(n_blocks, n, d, seed, dtype, text, most):
    """Classes come with their embedding when their first sample does."""
    X, y, table = draw(n, d, seed, dtype)
    table = embeddings({label: table[label] for label in set(y)}, text)
    rng = np.random.default_rng(seed)
    with pytest.MonkeyPatch.context() as monkeypatch:
        small_reserve(monkeypatch, most)
        whole = FlowMatchingAligner(joint=text == "joint").fit(X, y, table)
        stream = FlowMatchingAligner(joint=text == "joint")
        seen = set()
        for rows in np.array_split(rng.permutation(n), n_blocks):
            new = table and {label: table[label] for label in set(y[rows]) - seen}
            seen |= set(y[rows])
            assert stream.partial_fit(X[rows], y[rows], new or None) is stream
        the_same(stream, whole, X)


@settings(max_examples=30, deadline=None)
@given(**SITUATIONS)
def test_what_is_forgotten_was_never_there(n, d, seed, dtype, text):
    X, y, table = draw(n, d, seed, dtype)
    more, y_more, _ = draw(n, d, seed + 1, dtype)
    kept = np.isin(y_more, y)  # names stay, so that new ones would
    more, y_more = more[kept], y_more[kept]
    table = embeddings({label: table[label] for label in set(y)}, text)
    before = FlowMatchingAligner(joint=text == "joint").fit(X, y, table)
    after = FlowMatchingAligner(joint=text == "joint").fit(X, y, table)
    if len(more):
        after.partial_fit(more, y_more).forget(more[::-1], y_more[::-1])
    the_same(after, before, X)


@settings(max_examples=20, deadline=None)
@given(n_parts=st.integers(2, 4), most=MOST, **SITUATIONS)
def test_parts_merge_into_the_whole(n_parts, n, d, seed, dtype, text, most):
    X, y, table = draw(n, d, seed, dtype)
    table = embeddings({label: table[label] for label in set(y)}, text)
    part_of = np.random.default_rng(seed).integers(n_parts, size=n)
    parts = []
    with pytest.MonkeyPatch.context() as monkeypatch:
        small_reserve(monkeypatch, most)
        for k in set(part_of):
            rows = part_of == k
            own = table and {label: table[label] for label in set(y[rows])}
            parts.append(FlowMatchingAligner(joint=text == "joint").fit(X[rows], y[rows], own))
        whole = FlowMatchingAligner(joint=text == "joint").fit(X, y, table)
        the_same(parts[0].merge(*parts[1:]), whole, X)


def test_a_class_that_is_forgotten_leaves_with_its_name(data):
    table, first = data.class_embeddings, data.class_names[0]
    aligner = FlowMatchingAligner(table).fit(data.X_train, data.y_train).forget(labels=[first])
    others = data.y_train != first
    without = FlowMatchingAligner(table.subset(data.class_names[1:]))
    the_same(aligner, without.fit(data.X_train[others], data.y_train[others]), data.X_test)
    back = aligner.partial_fit(
        data.X_train[~others], data.y_train[~others], {first: table.to_dict()[first]}
    )
    the_same(back, FlowMatchingAligner(table).fit(data.X_train, data.y_train), data.X_test)


def test_of_a_class_larger_than_the_reserve_the_covariance_stays(data, monkeypatch):
    small_reserve(monkeypatch, 12)
    aligner = FlowMatchingAligner(data.class_embeddings).fit(data.X_train, data.y_train)
    before = float(aligner.gaussian_model_.statistics.within)
    with pytest.warns(UserWarning, match="covariance, which all classes share, stays") as caught:
        aligner.forget(labels=data.class_names[:2])
    assert caught[0].filename == __file__
    assert float(aligner.gaussian_model_.statistics.within) == pytest.approx(before)
    assert aligner.gaussian_model_.statistics.n == 32
    assert set(aligner._reserve.codes) == set(range(4))


def test_names_come_alone_and_get_samples_later(data):
    table = data.class_embeddings.to_dict()
    few, last = data.y_train != "class 5", {"class 5": table.pop("class 5")}
    aligner = FlowMatchingAligner().fit(data.X_train[few], data.y_train[few], table)
    aligner.partial_fit(np.empty((0, 24)), [], last)
    assert aligner.classes_[-1] == "class 5"
    alone = FlowMatchingAligner().fit(data.X_train[few], data.y_train[few], table | last)
    the_same(aligner, alone, data.X_test)
    aligner.partial_fit(data.X_train[~few], data.y_train[~few])
    the_same(
        aligner, FlowMatchingAligner().fit(data.X_train, data.y_train, table | last), data.X_test
    )


def test_zero_shot_goes_on_to_few_shot(data):
    aligner = FlowMatchingAligner(data.class_embeddings)
    aligner.partial_fit(np.empty((0, 24)), [])
    assert aligner.gaussian_model_ is None
    aligner.partial_fit(data.X_train, data.y_train)
    whole = FlowMatchingAligner(data.class_embeddings).fit(data.X_train, data.y_train)
    the_same(aligner, whole, data.X_test)
    aligner.forget(data.X_train, data.y_train)
    assert aligner.gaussian_model_ is None
    assert aligner.score(data.X_test, data.y_test) > 0.5


def test_listed_classes_are_not_predicted_before_they_have_samples(data):
    two = np.isin(data.y_train, data.class_names[:2])
    aligner = FlowMatchingAligner()
    aligner.partial_fit(data.X_train[two], data.y_train[two], classes=data.class_names)
    assert aligner.classes_.tolist() == data.class_names
    assert set(aligner.predict(data.X_test)) == set(data.class_names[:2])
    assert aligner.predict_proba(data.X_test)[:, 2:].max() < 1e-30
    aligner.partial_fit(data.X_train[~two], data.y_train[~two])
    the_same(aligner, FlowMatchingAligner().fit(data.X_train, data.y_train), data.X_test)


def test_rows_of_an_array_follow_the_listed_classes_or_y(data):
    vectors = np.stack([*data.class_embeddings.to_dict().values()])
    whole = FlowMatchingAligner(data.class_embeddings).fit(data.X_train, data.y_train)
    listed = FlowMatchingAligner().partial_fit(
        data.X_train[:9], data.y_train[:9], vectors, classes=data.class_names
    )
    the_same(listed.partial_fit(data.X_train[9:], data.y_train[9:]), whole, data.X_test)
    by_y = FlowMatchingAligner().partial_fit(data.X_train, data.y_train, vectors)
    the_same(by_y, whole, data.X_test)


def test_a_later_embedding_takes_the_place_of_an_earlier_one(data):
    table = data.class_embeddings.to_dict()
    wrong = table | {"class 0": -table["class 0"]}
    aligner = FlowMatchingAligner(wrong).partial_fit(data.X_train[::2], data.y_train[::2])
    right = {"class 0": table["class 0"]}
    aligner.partial_fit(data.X_train[1::2], data.y_train[1::2], right)
    whole = FlowMatchingAligner(table).fit(data.X_train, data.y_train)
    the_same(aligner, whole, data.X_test)
    aligner.partial_fit(data.X_train[:0], [])  # the constructor does not bring the old one back
    the_same(aligner, whole, data.X_test)


def test_new_labels_are_looked_up_in_the_constructor(data):
    few = data.y_train < "class 4"
    table = data.class_embeddings
    aligner = FlowMatchingAligner(table.subset(data.class_names[:4]))
    aligner.fit(data.X_train[few], data.y_train[few]).set_params(class_embeddings=table)
    aligner.partial_fit(data.X_train[~few], data.y_train[~few])
    whole = FlowMatchingAligner(table).fit(data.X_train, data.y_train)
    the_same(aligner, whole, data.X_test)


def test_frequencies_are_those_of_all_samples(data):
    aligner = FlowMatchingAligner(class_prior="empirical")
    for rows in (slice(0, 3), slice(3, None)):
        aligner.partial_fit(data.X_train[rows], data.y_train[rows], classes=data.class_names)
    expected = FlowMatchingAligner(class_prior="empirical").fit(data.X_train, data.y_train)
    np.testing.assert_allclose(aligner.class_prior_, expected.class_prior_)


def test_unlabelled_rows_stay_as_they_counted(data):
    X, y, table = data.X_train, data.y_train, data.class_embeddings
    aligner = FlowMatchingAligner(table).fit(X[::2], y[::2], X_unlabeled=data.X_test)
    weights = aligner.unlabeled_weight_
    aligner.partial_fit(X[1::2], y[1::2])
    np.testing.assert_allclose(aligner.unlabeled_weight_, weights)
    plain = FlowMatchingAligner(table).fit(X, y)
    apart = aligner.gaussian_model_.class_means.means - plain.gaussian_model_.class_means.means
    assert apart.abs().max() > 0.01
    np.testing.assert_allclose(
        aligner._inductive_model.class_means.means.cpu(),
        plain.gaussian_model_.class_means.means.cpu(),
    )
    with pytest.raises(AttributeError, match="gone on with more samples"):
        _ = aligner.transduction_
    the_same(aligner.forget(unlabeled=True), plain, data.X_test)
    assert aligner.unlabeled_weight_ is None


@pytest.mark.parametrize("way", ["file", "pickle"])
@pytest.mark.parametrize("pool", [False, True])
def test_saved_in_the_middle_it_goes_on_to_the_bit(way, pool, data, tmp_path):
    X, y = data.X_train, data.y_train
    aligner = FlowMatchingAligner(data.class_embeddings)
    aligner.fit(X[::2], y[::2], X_unlabeled=data.X_test if pool else None)
    if way == "file":
        flowalign.save(aligner, tmp_path / "model")
        other = flowalign.load(tmp_path / "model")
    else:
        other = pickle.loads(pickle.dumps(aligner))
    for one in (aligner, other):
        one.partial_fit(X[1::2], y[1::2])
    np.testing.assert_array_equal(
        aligner.predict_proba(data.X_test), other.predict_proba(data.X_test)
    )
    the_same(other, aligner, data.X_test, atol=0)


@pytest.mark.slow
def test_another_process_goes_on(data, tmp_path):
    X, y = data.X_train, data.y_train
    aligner = FlowMatchingAligner(data.class_embeddings).partial_fit(X[::2], y[::2])
    flowalign.save(aligner, tmp_path / "model")
    np.savez(tmp_path / "rows.npz", X=X[1::2], y=y[1::2])
    code = (
        "import sys, flowalign, numpy as np\n"
        "rows = np.load(sys.argv[1] + '/rows.npz')\n"
        "aligner = flowalign.load(sys.argv[1] + '/model')\n"
        "flowalign.save(aligner.partial_fit(rows['X'], rows['y']), sys.argv[1] + '/model')\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    the_same(flowalign.load(tmp_path / "model"), aligner.partial_fit(X[1::2], y[1::2]), X)


def test_fit_starts_anew_and_partial_fit_goes_on(data):
    half = data.X_train[::2], data.y_train[::2]
    aligner = FlowMatchingAligner(data.class_embeddings).fit(data.X_train, data.y_train)
    assert aligner.fit(*half).gaussian_model_.statistics.n == 24
    assert aligner.partial_fit(*half).gaussian_model_.statistics.n == 48
    assert clone(aligner).partial_fit(*half).gaussian_model_.statistics.n == 24


def test_tensors_and_rows_of_no_class(data):
    aligner = FlowMatchingAligner(data.class_embeddings, unknown_label="none")
    X, y = torch.tensor(data.X_train, requires_grad=True), data.y_train.astype("U8").copy()
    y[3] = "none"
    aligner.partial_fit(X[:10], y[:10]).partial_fit(X[10:], y[10:])
    assert aligner.gaussian_model_.statistics.n == 47
    aligner.forget(X[5:7], y[5:7])
    assert aligner.gaussian_model_.statistics.n == 45


def test_embeddings_with_labels_are_enough_in_any_form(data):
    table = data.class_embeddings
    for names in (table, table.to_dict(), pd.DataFrame(table.vectors, index=table.labels)):
        aligner = FlowMatchingAligner().partial_fit(data.X_train[:20], data.y_train[:20], names)
        assert aligner.partial_fit(data.X_train[20:], data.y_train[20:], names).classes_.size == 6
