"""Files of each format open, and say what they said."""

from pathlib import Path

import numpy as np
import pytest

import flowalign
from flowalign.persistence.file_format import read

FIXTURES = Path(__file__).parent / "models"


@pytest.mark.parametrize("name", ["gaussian", "mlp"])
def test_files_of_format_1_open(name):
    """Written by flowalign 0.1; see models/make.py."""
    loaded = flowalign.load(FIXTURES / f"{name}_format_1.safetensors")
    assert loaded.velocity_field == name
    assert loaded.classes_.tolist() == ["ant", "bee", "cat"]
    with np.load(FIXTURES / f"{name}_format_1.npz") as expected:
        found = loaded.predict_proba(expected["X"])
        np.testing.assert_allclose(found, expected["proba"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["gaussian", "mlp"])
def test_files_of_format_2_open(name, tmp_path):
    """Written by flowalign 0.2.0; see models/make.py."""
    file = FIXTURES / f"{name}_format_2.safetensors"
    loaded = flowalign.load(file)
    assert loaded.velocity_field == name
    flowalign.save(loaded, tmp_path / "again")
    (header, arrays, _), (before, arrays_before, _) = read(tmp_path / "again"), read(file)
    assert sorted(arrays) == sorted(arrays_before)
    for key, array in arrays.items():
        assert array.dtype == arrays_before[key].dtype
        np.testing.assert_array_equal(array, arrays_before[key])
    assert (before.pop("version"), "encoder" in before) == ("0.2.0", name == "gaussian")
    assert header | {"encoder": None} == before | {"encoder": None, "version": header["version"]}
    with np.load(FIXTURES / f"{name}_format_2.npz") as expected:
        found = loaded.predict_proba(expected["X"])
        again = flowalign.load(tmp_path / "again").predict_proba(expected["X"])
        np.testing.assert_array_equal(found, again)
        np.testing.assert_allclose(found, expected["proba"], rtol=1e-5, atol=1e-7)
