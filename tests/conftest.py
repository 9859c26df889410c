import functools
import os

# Read when scipy is imported: without it scikit-learn skips its check of array API input.
os.environ.setdefault("SCIPY_ARRAY_API", "1")
if "PYTEST_XDIST_WORKER" in os.environ:  # a process for each core: one thread is its share
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import stub_clip
from second_device import second_device

from flowalign import FlowMatchingAligner, parameters, save
from flowalign.command import main
from flowalign.datasets import make_cross_modal

# What pytest -m core runs: files about the mathematics, which need no estimator and no files.
CORE = {
    "blocks", "calibration", "closed_form", "coupling", "evidence", "fields_gaussian", "fields_mlp",
    "gaussian_invariances", "gaussian_model", "held_out", "kinds", "leave_one_out",
    "means_and_covariance", "novelty", "ode", "path", "posterior", "reserve", "samples", "spaces",
    "sphere", "spreads", "statistics", "stopping", "training",
}  # fmt: skip


def pytest_addoption(parser):
    parser.addoption(
        "--second-device", action="store_true", help="fit on a stand-in for a GPU; second_device.py"
    )


@pytest.fixture(scope="session", autouse=True)
def automatic_device(request):
    """What device="auto" is: a stand-in for a GPU if that was asked for."""
    if not request.config.getoption("second_device"):
        yield
        return
    check = parameters.check_device
    with second_device() as device, pytest.MonkeyPatch.context() as patch:
        patch.setattr(parameters, "check_device", lambda x: device if x == "auto" else check(x))
        yield


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.stem.removeprefix("test_") in CORE:
            item.add_marker("core")


@pytest.fixture(scope="session")
def data():
    """Six classes, four samples each, in a joint space of 32 dimensions."""
    return make_cross_modal(n_classes=6, n_train=4, n_test=10, n_features=32, random_state=0)


@pytest.fixture(scope="session", params=["gaussian", "mlp"])
def fitted(data, request):
    """A fitted aligner of either field that no test changes."""
    model = FlowMatchingAligner(
        velocity_field=request.param, max_iter=30, n_blocks=2, random_state=0
    )
    return model.fit(data.X_train, data.y_train, data.class_embeddings)


@pytest.fixture
def model(fitted):
    """The fitted model, whose solver parameters a test may set; they are put back."""
    params = fitted.get_params(deep=False)
    yield fitted
    fitted.set_params(**params)


@pytest.fixture(params=["gaussian", "mlp"])
def velocity_field(request):
    """The name of either field."""
    return request.param


@pytest.fixture(scope="session")
def X(data):
    """New features in float64."""
    return data.X_test.astype(np.float64)


@pytest.fixture
def model_file(fitted, tmp_path):
    """A file of that aligner."""
    save(fitted, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def command(tmp_path, monkeypatch, capfd):
    """The command, beside a stand-in for open_clip: arguments to (status, output, errors)."""
    stub_clip.put_in_place(monkeypatch)
    monkeypatch.chdir(tmp_path)
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))

    def run(*arguments):
        capfd.readouterr()
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = end.code
        return status, *capfd.readouterr()

    return run


def _small(velocity_field, class_embeddings=None, **params):
    quick = {"max_iter": 5, "n_blocks": 1, "random_state": 0, "n_steps": 5, "logit_scale": 100}
    return FlowMatchingAligner(class_embeddings, velocity_field=velocity_field, **quick | params)


@pytest.fixture(params=["gaussian", "mlp"])
def small(request):
    """A constructor of quick aligners, of either field; they choose nothing unless told to."""
    return functools.partial(_small, request.param)


@pytest.fixture
def small_mlp():
    """A constructor of quick aligners with the trained field."""
    return functools.partial(_small, "mlp")


@pytest.fixture
def one_shot():
    """Twelve classes with one sample each: as many class embeddings as samples."""
    data = make_cross_modal(n_classes=12, n_train=1, n_test=5, n_features=32, random_state=1)
    assert len(data.X_train) == len(np.unique(data.y_train)) == 12
    return data
