"""A file that is no model is refused, whatever it is; nothing in it runs."""

import copy
import json
import pickle
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import flowalign
from flowalign import FlowMatchingAligner
from flowalign.persistence import file_format
from flowalign.persistence.file_format import pack, read

FIXTURES = Path(__file__).parent / "models"


def refused(path, match=None):
    with pytest.raises(ValueError, match=match):
        flowalign.load(path)


def test_foreign_files(tmp_path, fitted):
    path = tmp_path / "model"
    with pytest.raises(FileNotFoundError):
        flowalign.load(path)
    with pytest.raises(OSError):  # noqa: PT011
        flowalign.load(tmp_path)
    for content in (b"", b"short", b"\0" * 100, pickle.dumps(fitted), b"PK\x03\x04" + b"\0" * 99):
        path.write_bytes(content)
        refused(path, "not a safetensors file|damaged")
    save_file({"weight": np.ones(3)}, path)
    refused(path, "no aligner: a safetensors file of something else")
    save_file({"weight": np.ones(3)}, path, {"flowalign": "{"})
    refused(path, "is damaged")
    save_file({"weight": np.ones(3)}, path, {"flowalign": "[" * 100_000})
    refused(path, "damaged")


@pytest.mark.parametrize("length", [2**63, 2**40, 2**27, 10_000])
def test_huge_headers_allocate_nothing(length, tmp_path):
    path = tmp_path / "model"
    path.write_bytes(length.to_bytes(8, "little") + b"{}" * 100)
    tracemalloc.start()
    refused(path, "not a safetensors file")
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_cut_off_anywhere(model_file):
    data = model_file.read_bytes()
    for end in np.random.default_rng(0).integers(len(data), size=100):
        model_file.write_bytes(data[:end])
        refused(model_file)
    model_file.write_bytes(data + b"\0")
    refused(model_file)


def test_any_byte_altered(model_file):
    data = model_file.read_bytes()
    rng = np.random.default_rng(0)
    n_header = int.from_bytes(data[:8], "little") + 8
    places = [*range(8), *rng.integers(8, n_header, size=300), *rng.integers(len(data), size=100)]
    for place in places:
        altered = bytearray(data)
        altered[place] ^= 1 << int(rng.integers(8))
        model_file.write_bytes(altered)
        if place >= n_header or altered[place] not in b" \t\n\r" or data[place] not in b" \t\n\r":
            refused(model_file)


def walk(value, path=()):
    """All places of a header."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from walk(value[key], (*path, key))
    elif isinstance(value, list) and value:
        yield from walk(value[0], (*path, 0))


def changed(header, path, change):
    header = copy.deepcopy(header)
    if not path:
        return change(header)
    at = header
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = change(at[path[-1]])
    return header


HOSTILE = [
    None,
    True,
    -1,
    0,
    10**30,
    -0.5,
    1e308,
    "",
    "x",
    "__import__('os')",
    [],
    [[]],
    {},
    {"a": 1},
]


def test_headers_altered_with_a_right_checksum(model_file, data):
    """Each value of the header replaced by others: refused, or an aligner that predicts."""
    header, arrays, _ = read(model_file)
    n_refused = n_opened = 0
    said = set()
    for path in walk(header):
        for value in HOSTILE:
            altered = changed(header, path, lambda _, value=value: value)
            if altered == header:
                continue
            model_file.write_bytes(pack(altered, arrays))
            try:
                loaded = flowalign.load(model_file)
            except ValueError:
                n_refused += 1
            else:
                n_opened += 1
                try:
                    loaded.predict(data.X_test[:2])
                except ValueError as error:
                    said.add(str(error)[:20])
    assert said <= {"The flow left the ra", "n_steps='auto' was s"}
    assert n_refused > 5 * n_opened


def test_headers_with_missing_or_unknown_keys(model_file):
    header, arrays, _ = read(model_file)
    for path in walk(header):
        if path and isinstance(path[-1], str) and path[:1] != ("params",):
            altered = copy.deepcopy(header)
            at = altered
            for key in path[:-1]:
                at = at[key]
            del at[path[-1]]
            model_file.write_bytes(pack(altered, arrays))
            refused(model_file, "no aligner that can be restored")
        altered = changed(header, path, lambda v: v | {"new": 1} if isinstance(v, dict) else v)
        if altered != header:
            model_file.write_bytes(pack(altered, arrays))
            refused(model_file, "unknown keys|field.config is|parts of the model")


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        (("params", "random_state"), [-1, 2**32, 1.0, True]),
        (("params", "step_size"), [0.0, 1.5]),
        (("fitted", "stop"), [-0.1, 1.1]),
        (("fitted", "stop_source"), ["", "x", "Cross-fitting"]),
        (("fitted", "n_iter"), [0, 2, True, 1.0]),
        (("fitted", "joint"), [1, "yes"]),
        (("params", "verbose"), ["1", 1.0]),
        (("params", "device"), [0, None]),
        (("fitted", "feature_names"), ["ab", [1] * 32]),
        (("field", "config", "tail"), [0.0, -1.0]),
        (("field", "config", "noise_std"), [-0.1, 1e30]),
        (("field", "config", "text_weight"), [-0.1, 1e30]),
    ],
    ids=lambda value: value[-1] if isinstance(value, tuple) else "",
)
def test_numbers_that_no_aligner_has(place, wrong, tmp_path, data):
    path = tmp_path / "model"
    flowalign.save(FlowMatchingAligner().fit(data.X_train, data.y_train), path)
    header, arrays, _ = read(path)
    for value in wrong:
        path.write_bytes(pack(changed(header, place, lambda _, value=value: value), arrays))
        refused(path, "no aligner that can be restored")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_headers_with_what_is_no_number(number, tmp_path, data):
    path = tmp_path / "model"
    model = FlowMatchingAligner(joint=False)
    flowalign.save(model.fit(data.X_train, data.y_train, data.class_embeddings), path)
    header, arrays, _ = read(path)
    text = json.dumps(header | {"map_scale": "here"}).replace('"here"', number)
    ours = json.dumps([file_format._checksum(text, arrays), text])
    save_file(arrays, path, {file_format.NAME: ours})
    refused(path, "which is no number")


def test_padded_labels_allocate_nothing(model_file):
    """Strings that are padded to 400 MB, in a file of some kilobytes."""
    header, arrays, _ = read(model_file)
    header["labels"]["dtype"] = f"<U{10**8 // len(header['labels']['strings'])}"
    model_file.write_bytes(pack(header, arrays))
    tracemalloc.start()
    refused(model_file, "fit to labels of that width")
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_labels_out_of_order(model_file, data, tmp_path):
    """Columns and codes follow sorted labels: others would be given to the wrong rows."""
    header, arrays, _ = read(model_file)
    first, second, *rest = header["labels"]["strings"]
    for wrong in ([second, first, *rest], [*rest, first, second], [first, first, *rest]):
        header["labels"]["strings"] = wrong
        model_file.write_bytes(pack(header, arrays))
        refused(model_file, "labels are not sorted, or not distinct")
    codes = np.searchsorted(data.class_names, data.y_train)
    flowalign.save(FlowMatchingAligner().fit(data.X_train, codes), tmp_path / "numbers")
    header, arrays, _ = read(tmp_path / "numbers")
    for labels in ([0, 2, 1, 3, 4, 5], [0, 1, 1, 3, 4, 5]):
        model_file.write_bytes(pack(header, arrays | {"labels": np.array(labels)}))
        refused(model_file, "labels are not sorted, or not distinct")


def test_a_parameter_that_is_not_there_has_its_default(model_file):
    """Files stay readable when a later minor version adds a parameter."""
    header, arrays, _ = read(model_file)
    del header["params"]["noise"]
    model_file.write_bytes(pack(header, arrays))
    assert flowalign.load(model_file).noise == FlowMatchingAligner().noise


def test_arrays_altered_with_a_right_checksum(model_file):
    header, arrays, _ = read(model_file)
    changes = {
        "longer": lambda a: np.concatenate([a, a[:1]]),
        "flat": lambda a: a.reshape(-1, 1) if a.ndim == 1 else a.ravel(),
        "other dtype": lambda a: a.astype(np.float16 if a.dtype.kind == "f" else np.int16),
        "not a number": lambda a: np.full(
            a.shape, np.nan, a.dtype if a.dtype.kind == "f" else "f4"
        ),
        "infinite": lambda a: np.full(a.shape, np.inf, a.dtype if a.dtype.kind == "f" else "f4"),
    }
    for name, array in arrays.items():
        for change in changes.values():
            model_file.write_bytes(pack(header, arrays | {name: change(array)}))
            if name == "class_embeddings" or array.size:
                refused(model_file)
        model_file.write_bytes(pack(header, {k: v for k, v in arrays.items() if k != name}))
        refused(model_file)
    model_file.write_bytes(pack(header, arrays | {"more": np.ones(2)}))
    refused(model_file, "arrays that no aligner has")


def test_sizes_are_not_believed(tmp_path, data):
    """A header that asks for a network of 10^12 weights gets none."""
    model = FlowMatchingAligner(velocity_field="mlp", max_iter=1, n_steps=1, logit_scale=1)
    path = tmp_path / "model"
    flowalign.save(model.fit(data.X_train, data.y_train), path)
    header, arrays, _ = read(path)
    for name in ("hidden_dim", "n_blocks", "dim"):
        altered = copy.deepcopy(header)
        altered["field"]["config"][name] = 10**6
        path.write_bytes(pack(altered, arrays))
        refused(path, "field.config is")


def test_a_newer_format_says_so(model_file):
    header, arrays, _ = read(model_file)
    header |= {"format": 3, "version": "9.1"}
    model_file.write_bytes(pack(header, arrays))
    refused(model_file, r"format is 3.*written by flowalign '9\.1'")


def test_opening_unpickles_nothing():
    model_file = FIXTURES / "mlp_format_1.safetensors"
    code = (
        "import pickle, sys, flowalign\n"
        "def no(*args, **kwargs): raise AssertionError('unpickled')\n"
        "pickle.load = pickle.loads = pickle.Unpickler = no\n"
        f"flowalign.load({str(model_file)!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
