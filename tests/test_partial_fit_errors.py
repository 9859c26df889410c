"""What does not go together is refused, and a call that fails changes nothing."""

import numpy as np
import pandas as pd
import pytest

import flowalign
from flowalign import FlowMatchingAligner
from flowalign.datasets import make_cross_modal


@pytest.fixture(scope="module")
def data():
    return make_cross_modal(6, n_train=8, n_test=20, n_features=24, random_state=0)


@pytest.fixture
def aligner(data):
    few = data.y_train < "class 4"
    table = data.class_embeddings.subset(data.class_names[:4])
    return FlowMatchingAligner(table).fit(data.X_train[few], data.y_train[few])


def refused(call, match, error=ValueError):
    with pytest.raises(error, match=match):
        call()


def test_a_network_has_none_of_it(data):
    network = FlowMatchingAligner(velocity_field="mlp", max_iter=1)
    for name in ("partial_fit", "forget", "merge"):
        assert not hasattr(network, name)
        with pytest.raises(AttributeError) as caught:
            getattr(network, name)
        assert "use fit" in str(caught.value.__cause__)
    network.fit(data.X_train, data.y_train, data.class_embeddings)
    network.set_params(velocity_field="gaussian")
    refused(lambda: network.partial_fit(data.X_train, data.y_train), "Fit it again")


def test_files_of_earlier_versions_do_not_know_their_samples():
    aligner = flowalign.load("tests/models/gaussian_format_1.safetensors")
    width = aligner.n_features_in_
    refused(
        lambda: aligner.partial_fit(np.ones((1, width)), aligner.classes_[:1]), "earlier version"
    )


def test_a_new_label_needs_its_embedding(aligner, data):
    late = data.y_train == "class 5"
    X, y = data.X_train[late], data.y_train[late]
    refused(lambda: aligner.partial_fit(X, y), "class_embeddings lacks.*'class 5'")
    aligner.set_params(class_embeddings=None)
    refused(lambda: aligner.partial_fit(X, y), r"new labels, 'class 5'.*\{label: vector\}")
    refused(lambda: aligner.partial_fit(X, y, {"class 4": np.ones(24)}), "lacks: 'class 5'")
    refused(
        lambda: aligner.partial_fit(X, y, {"class 5": np.ones(9)}), "9 wide, and those so far 24"
    )
    refused(
        lambda: aligner.partial_fit(X, y, np.ones((3, 24))), "3 rows without labels but y has 1"
    )
    refused(lambda: aligner.partial_fit(X[:0], [], classes=["class 9"]), "new labels, 'class 9'")


def test_text_that_comes_later_must_have_all_classes(data):
    few = data.y_train < "class 4"
    bare = FlowMatchingAligner().fit(data.X_train[few], data.y_train[few])
    late = data.y_train == "class 5"
    only = data.class_embeddings.subset(["class 5"])
    X, y = data.X_train[late], data.y_train[late]
    refused(lambda: bare.partial_fit(X, y, only), "without class_embeddings.*lack 'class 0'")
    bare.partial_fit(X, y, data.class_embeddings)
    assert bare.joint_
    assert len(bare.classes_) == 6


@pytest.mark.parametrize("labels", [[1, 2], [True, False], [1.0, 2.0]])
def test_labels_are_of_one_type(labels, aligner, data):
    with_names = dict(zip(labels, np.eye(2, 24), strict=True))
    rows = data.X_train[:2]
    refused(lambda: aligner.partial_fit(rows, labels, with_names), "labels of one type", TypeError)


def test_truth_values_are_no_numbers(data):
    numbers = FlowMatchingAligner().fit(data.X_train, np.arange(48) % 3)
    refused(
        lambda: numbers.partial_fit(data.X_train[:2], [True, False]),
        "labels of one type",
        TypeError,
    )


def test_features_are_those_of_the_fit(aligner, data):
    y = data.y_train[:2]
    refused(lambda: aligner.partial_fit(data.X_train[:2, :9], y), "9 features.*expecting 24")
    refused(lambda: aligner.forget(data.X_train[:2, :9], y), "9 features.*expecting 24")
    frame = pd.DataFrame(data.X_train).add_prefix("x")
    named = FlowMatchingAligner(data.class_embeddings).partial_fit(frame[:9], data.y_train[:9])
    other = frame[9:].add_prefix("other ")
    refused(lambda: named.partial_fit(other, data.y_train[9:]), "feature names should match")
    named.partial_fit(frame[9:], data.y_train[9:])
    assert named.gaussian_model_.statistics.n == 48


def test_normalize_stays_what_it_was(aligner, data):
    aligner.set_params(normalize=False)
    refused(lambda: aligner.partial_fit(data.X_train[:2], data.y_train[:2]), "set it back")


def test_unlabelled_rows_go_to_fit(data):
    y = data.y_train.astype("U9").copy()
    y[:3] = "?"
    aligner = FlowMatchingAligner(data.class_embeddings, unlabeled_label="?")
    refused(
        lambda: aligner.partial_fit(data.X_train, y), "3 rows marked unlabeled_label.*X_unlabeled"
    )


def test_forgetting_needs_to_know_what(aligner, data):
    X, y = data.X_train[:3], data.y_train[:3]
    refused(lambda: aligner.forget(), "nothing to forget")
    refused(lambda: aligner.forget(X), "give both")
    refused(lambda: aligner.forget(X, y[:2]), "3 rows and 2 labels")
    refused(lambda: aligner.forget(X, ["class 9"] * 3), "no class: 'class 9'")
    refused(lambda: aligner.forget(labels=["class 9"]), "labels has labels that are no class")
    refused(lambda: aligner.forget(labels=aligner.classes_), "No class would be left")


def test_only_what_was_given_can_be_forgotten(aligner, data):
    X, y = data.X_train, data.y_train
    refused(
        lambda: aligner.forget(X[:1], ["class 3"]), "never given as samples of their class: rows 0"
    )
    refused(lambda: aligner.forget(X[:2] + np.array([[0], [0.1]]), y[:2]), "rows 1")
    twice = np.concatenate([X[:8], X[:1]]), np.concatenate([y[:8], y[:1]])
    refused(lambda: aligner.forget(*twice), "9 samples of 'class 0' to forget, of 8")


def test_of_many_samples_strange_ones_are_noticed_when_all_go(data, monkeypatch):
    original = flowalign.reserve.Reserve.of.__func__
    monkeypatch.setattr(original, "__kwdefaults__", original.__kwdefaults__ | {"most": 12})
    aligner = FlowMatchingAligner(data.class_embeddings).fit(data.X_train, data.y_train)
    first = data.y_train == "class 0"
    rows, labels = data.X_train[first], data.y_train[first]
    refused(lambda: aligner.forget(data.X_test[data.y_test == "class 0"][:8], labels), "no set of")
    aligner.forget(rows, labels)
    assert aligner.gaussian_model_.statistics.counts[0] == 0
    assert aligner.gaussian_model_.statistics.sums[0].abs().max() == 0


def test_what_does_not_go_together_does_not_merge(aligner, data):
    X, y, table = data.X_train, data.y_train, data.class_embeddings
    narrow = FlowMatchingAligner().fit(X[:, :9], y)
    refused(lambda: aligner.merge(narrow), "9 features.*does not merge into one of 24")
    raw = FlowMatchingAligner(table, normalize=False).fit(X, y)
    refused(lambda: aligner.merge(raw), "normalize=False does not merge")
    bare = FlowMatchingAligner().fit(X, y)
    refused(lambda: aligner.merge(bare), "known of one part only")
    turned = {label: -vector for label, vector in table.to_dict().items()}
    refused(lambda: aligner.merge(FlowMatchingAligner(turned).fit(X, y)), "differ for 'class 0'")
    pool = FlowMatchingAligner(table).fit(X, y, X_unlabeled=data.X_test)
    refused(lambda: aligner.merge(pool), r"forget\(unlabeled=True\)")
    assert aligner.merge(pool.forget(unlabeled=True)).gaussian_model_.statistics.n == 80


def test_a_call_that_fails_changes_nothing(aligner, data, monkeypatch):
    before = aligner.predict_proba(data.X_test)
    state = dict(vars(aligner))
    X, y = data.X_train[data.y_train == "class 1"], data.y_train[data.y_train == "class 1"]
    refused(lambda: aligner.partial_fit(X, ["class 9"] * len(X)), "class 9")
    refused(lambda: aligner.partial_fit(X * np.nan, y), "NaN")
    refused(lambda: aligner.forget(labels=aligner.classes_), "No class")
    refused(
        lambda: aligner.merge(FlowMatchingAligner().fit(data.X_train, data.y_train)), "one part"
    )
    monkeypatch.setattr("flowalign.aligner.hold_out", lambda *given: 1 / 0)
    for call in (lambda: aligner.partial_fit(X, y), lambda: aligner.forget(X[:1], y[:1])):
        with pytest.raises(ZeroDivisionError):
            call()
    assert vars(aligner) == state
    np.testing.assert_array_equal(aligner.predict_proba(data.X_test), before)


def test_the_caller_is_warned(data):
    table = data.class_embeddings.to_dict()
    aligner = FlowMatchingAligner(table).fit(data.X_train, data.y_train)
    with pytest.warns(UserWarning, match="equal for") as caught:
        aligner.partial_fit(data.X_train[:0], [], {"twin": table["class 0"]})
    assert caught[0].filename == __file__
