"""What the model says of rows before they move."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from gaussian_toy import make, statistics_of, tensor
from scipy.special import log_softmax

from flowalign import FlowMatchingAligner
from flowalign.datasets import make_cross_modal
from flowalign.gaussian.evidence import Evidence, evenly
from flowalign.gaussian.left_out import LeftOutSamples
from flowalign.gaussian.model import GaussianModel
from flowalign.gaussian.posterior import in_range


@pytest.fixture
def classifier():
    """Of classes that are narrow, in float64."""
    X, codes, _ = make([5, 3, 4, 2])
    E = np.random.default_rng(1).normal(size=(4, 6))
    model = GaussianModel.of(statistics_of(1e-3 * X, codes, 4), tensor(E))
    model = replace(model, evidence=Evidence(0.3, 0.2, 0.1))
    return model.classifier(tensor(E), torch.log(tensor([0.1, 0.2, 0.3, 0.4])))


@pytest.mark.parametrize("what", ["log_proba", "ratios"])
def test_rows_beyond_the_numbers_of_a_dtype_are_refused(what, classifier):
    far = 1e17 * torch.ones(1, 6, dtype=torch.float64)
    said = getattr(classifier, what)(far)
    assert in_range(said) is said
    single = classifier.to(torch.float32)
    with pytest.raises(ValueError, match="so far from the classes that their distances are no"):
        in_range(getattr(single, what)(far.float()))


def test_a_copy_in_another_dtype_leaves_the_first_as_it_was(classifier):
    rows = tensor(np.random.default_rng(2).normal(size=(5, 6)))
    before = classifier.log_proba(rows), classifier.ratios(rows)
    single = classifier.to(torch.float32)
    assert (single.dtype, classifier.dtype) == (torch.float32, torch.float64)
    for found, expected in zip(
        (classifier.log_proba(rows), classifier.ratios(rows)), before, strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("joint", [True, False])
def test_left_out_samples_are_heard_by_what_the_evidence_was_weighed_on(joint):
    """Whatever the field of the twin: noise and other targets are of its flow alone."""
    X, codes, _ = make([5, 3, 4, 2])
    E, log_prior = np.random.default_rng(1).normal(size=(4, 6)), np.log([0.1, 0.2, 0.3, 0.4])
    evidence = Evidence(0.3, 0.2, 0.1) if joint else Evidence(0.3)
    model = replace(GaussianModel.of(statistics_of(X, codes, 4), tensor(E)), evidence=evidence)
    x, rows = torch.tensor(X), torch.from_numpy(codes)
    classifier = model.classifier(tensor(E), tensor(log_prior))
    flow = model.field(tensor(E), tensor(log_prior), noise_std=3.0)
    found = classifier.left_out(model.without_each(flow, x, rows)).log_proba(x)
    said = LeftOutSamples(model, tensor(E), x.float(), rows, joint=joint)
    expected = 0.3 * said.density + log_prior
    if joint:
        expected += 0.2 * said.text[0] + 0.1 * said.text[1]
    np.testing.assert_allclose(found, log_softmax(expected, axis=1), rtol=1e-3, atol=1e-3)


# ------------------------------------------------------------------ priors


@pytest.mark.parametrize("velocity_field", ["gaussian", "mlp"])
def test_samples_are_not_judged_by_a_prior_that_they_were_not_drawn_by(velocity_field):
    """Judged by it, a rare class would ask for weights that overcome it."""
    data = make_cross_modal(6, n_train=4, n_test=100, difficulty=3, random_state=0)
    prior = np.array([0.95, *[0.01] * 5])
    rng = np.random.default_rng(0)
    drawn = rng.choice(6, 300, p=prior)
    codes = np.searchsorted(data.class_names, data.y_test)
    rows = np.array([rng.choice(np.flatnonzero(codes == c)) for c in drawn])
    settings = {"velocity_field": velocity_field, "max_iter": 3, "n_blocks": 1, "random_state": 0}
    even, given = (
        FlowMatchingAligner(data.class_embeddings, class_prior=p, **settings).fit(
            data.X_train, data.y_train
        )
        for p in ("uniform", prior)
    )
    assert given.gaussian_model_.evidence == even.gaussian_model_.evidence
    assert given.stop_time_ == even.stop_time_
    np.testing.assert_array_equal(given.support_scores_, even.support_scores_)
    told, untold = (a.predict_proba(data.X_test[rows]).astype(float) for a in (given, even))
    each = np.arange(len(drawn))
    losses = [-np.log(np.maximum(P[each, drawn], 1e-15)).mean() for P in (told, untold)]
    assert losses[0] < 0.8 * losses[1]


def test_all_classes_alike_but_those_that_must_not_be_predicted():
    log_prior = np.log([0.5, 0.01, 1e-300])
    np.testing.assert_array_equal(evenly(log_prior), [0, 0, log_prior[2]])
