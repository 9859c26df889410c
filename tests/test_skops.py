"""Pipelines through skops.io, which opens what is on a list of types and nothing else."""

import importlib

import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
from encoder_models import tone, write_clap, write_clip, write_pictures
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer
from skops.io.exceptions import UntrustedTypesFoundException

from flowalign import ClassEmbeddings, FlowMatchingAligner
from flowalign.encoders import CallableEncoder, ClapEncoder, OpenCLIPEncoder
from flowalign.persistence import SKOPS_TRUSTED


def through(model, *more):
    return skops.io.loads(skops.io.dumps(model), trusted=[*SKOPS_TRUSTED, *more])


def predicts_as(model, loaded, X):
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))


def test_both_fields_to_the_bit(fitted, data):
    loaded = through(fitted)
    predicts_as(fitted, loaded, data.X_test)
    assert str(loaded.get_params()) == str(fitted.get_params())
    assert loaded.loss_curve_ == fitted.loss_curve_


def test_a_mapped_space(small, data):
    table = data.class_embeddings
    table = ClassEmbeddings(table.labels, table.vectors[:, ::2])
    model = small(table, n_steps="auto", logit_scale="auto").fit(data.X_train, data.y_train)
    assert not model.joint_
    predicts_as(model, through(model), data.X_test)


def test_unlabelled_rows_and_what_comes_later(data):
    """What is left of the rows goes along, and so do the samples that a later fit goes on from."""
    model = FlowMatchingAligner(data.class_embeddings)
    model.fit(data.X_train[::2], data.y_train[::2], X_unlabeled=data.X_test)
    loaded = through(model)
    predicts_as(model, loaded, data.X_test)
    more = data.X_train[1::2], data.y_train[1::2]
    predicts_as(model.partial_fit(*more), loaded.partial_fit(*more), data.X_test)


def priors(labels):
    return dict.fromkeys(labels.tolist(), 1 / len(labels))


@pytest.mark.parametrize(
    "given",
    [
        lambda table: {"class_embeddings": table},
        lambda table: {"class_embeddings": table.vectors},
        lambda table: {"class_embeddings": table.vectors.tolist()},
        lambda table: {"class_embeddings": table.to_dict()},
        # What the advice makes of a DataFrame, a tensor and a Series.
        lambda table: {
            "class_embeddings": ClassEmbeddings.from_frame(
                pd.DataFrame(table.vectors, index=table.labels)
            )
        },
        lambda table: {
            "class_embeddings": ClassEmbeddings(table.labels, torch.tensor(table.vectors))
        },
        lambda table: {"class_prior": pd.Series(priors(table.labels)).to_dict()},
        lambda table: {"class_prior": np.full(len(table.labels), 1 / len(table.labels))},
        lambda table: {"device": "cpu", "random_state": np.random.RandomState(0)},
        lambda table: {"noise": np.float64(0.2), "n_steps": np.int64(3)},
    ],
)
def test_parameters(given, data):
    params = {"class_embeddings": data.class_embeddings} | given(data.class_embeddings)
    model = make_pipeline(Normalizer(), FlowMatchingAligner(**params))
    model.fit(data.X_train, data.y_train)
    loaded = through(model)
    predicts_as(model, loaded, data.X_test)
    predicts_as(model, loaded.fit(data.X_train, data.y_train), data.X_test)


def test_features_with_names_and_labels_that_are_objects(data):
    X = pd.DataFrame(data.X_train).add_prefix("f")
    model = FlowMatchingAligner(data.class_embeddings).fit(X, data.y_train.astype(object))
    loaded = through(model)
    assert loaded.feature_names_in_.tolist() == X.columns.tolist()
    predicts_as(model, loaded, X)


def test_a_folder_of_fitted_fields(data, tmp_path):
    model = FlowMatchingAligner(data.class_embeddings, memory=str(tmp_path), random_state=0)
    loaded = through(model.fit(data.X_train, data.y_train))
    assert loaded.memory == str(tmp_path)
    predicts_as(model, loaded, data.X_test)


@pytest.mark.parametrize(
    "encoder",
    [
        OpenCLIPEncoder("ViT-B-32", "laion2b_s34b_b79k", cache="features", n_views=3),
        ClapEncoder(cache="features", batch_size=8),
    ],
    ids=lambda encoder: type(encoder).__name__,
)
def test_pipelines_with_encoders(encoder, fitted, data):
    loaded = through(make_pipeline(encoder, fitted))
    assert type(loaded[0]) is type(encoder)
    assert loaded[0].get_params() == encoder.get_params()
    predicts_as(fitted, loaded[1], data.X_test)


def half(items):
    return np.stack(items) / 2


def test_a_function_is_its_users(fitted, data):
    model = make_pipeline(CallableEncoder(half, name="half"), fitted)
    with pytest.raises(UntrustedTypesFoundException, match=r"test_skops\.half") as caught:
        through(model)
    assert "flowalign" not in str(caught.value)
    loaded = through(model, f"{__name__}.half")
    assert loaded[0].function is half
    predicts_as(model, loaded, list(data.X_test))


def test_the_list_names_our_own_classes():
    assert sorted(SKOPS_TRUSTED) == SKOPS_TRUSTED
    for name in SKOPS_TRUSTED:
        module, _, kind = name.rpartition(".")
        assert module.split(".")[0] == "flowalign"
        assert isinstance(getattr(importlib.import_module(module), kind), type)


def test_pictures(tmp_path):
    pytest.importorskip("open_clip")
    pytest.importorskip("PIL")
    paths = sorted(write_pictures(tmp_path / "pictures").glob("*/*.png"))
    labels = [path.parent.name for path in paths]
    encoder = OpenCLIPEncoder(write_clip(tmp_path / "clip"), cache=str(tmp_path / "cache"))
    text = encoder.class_embeddings(sorted(set(labels)))
    model = make_pipeline(encoder, FlowMatchingAligner(text)).fit(paths, labels)
    predicts_as(model, through(model), paths)


def test_sounds(tmp_path):
    pytest.importorskip("transformers")
    encoder = ClapEncoder(write_clap(tmp_path / "clap"))
    sounds = [tone(frequency) for frequency in (200, 300, 2000, 3000)]
    model = make_pipeline(encoder, FlowMatchingAligner())
    model.fit(sounds, ["low", "low", "high", "high"])
    predicts_as(model, through(model), sounds)
