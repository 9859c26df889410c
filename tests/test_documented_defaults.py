"""What docstrings say of defaults is what signatures have."""

import ast
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import flowalign
from flowalign import FlowMatchingAligner
from flowalign.benchmark.peer import Peer
from flowalign.benchmark.runner import EXTRA_METHODS, METHODS
from flowalign.benchmark.unlabeled_peers import UNLABELED

PACKAGES = [flowalign.__name__] + [
    f"{flowalign.__name__}.{m.name}" for m in pkgutil.iter_modules(flowalign.__path__) if m.ispkg
]


def public():
    """All public classes and functions, and the methods of classes, by their names."""
    found = {}
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.isfunction(thing):
                found[f"{module.__name__}.{name}"] = thing
            elif inspect.isclass(thing):
                found[f"{module.__name__}.{name}"] = thing
                for method in vars(thing).values():
                    method = getattr(method, "__func__", method)
                    if inspect.isfunction(method) and not method.__name__.startswith("_"):
                        found[f"{module.__name__}.{name}.{method.__name__}"] = method
    return found


def documented(docstring):
    """Defaults of the section on parameters: of name, the value; several names share a line."""
    section = re.search(r"^Parameters\n-+\n(.*?)(?=\n\n?\w[\w ]*\n-+\n|\Z)", docstring, re.M | re.S)
    defaults = {}
    for names, values in re.findall(
        r"^(\w[\w, ]*) :.*?, default=(.+)$", section.group(1) if section else "", re.M
    ):
        values = ast.literal_eval(values)
        names = names.split(", ")
        values = values if len(names) > 1 and isinstance(values, tuple) else [values] * len(names)
        defaults |= dict(zip(names, values, strict=True))
    return defaults


@pytest.mark.parametrize("name", public())
def test_documented_defaults(name):
    thing = public()[name]
    signature = inspect.signature(thing).parameters
    for parameter, value in documented(inspect.getdoc(thing) or "").items():
        default = signature[parameter].default
        assert (type(default), default) == (type(value), value), parameter


def test_every_parameter_of_the_aligner_has_a_documented_default():
    signature = inspect.signature(FlowMatchingAligner).parameters
    expected = set(signature) - {"class_embeddings"}  # whose None is explained in words
    assert set(documented(inspect.getdoc(FlowMatchingAligner))) == expected


PEERS = {
    name: type(peer)
    for name, peer in {**METHODS, **EXTRA_METHODS, **UNLABELED}.items()
    if isinstance(peer, Peer)
}


@pytest.mark.parametrize("name", [n for n, peer in PEERS.items() if vars(peer).get("usual")])
def test_documented_values_for_a_single_sample(name):
    text = " ".join(inspect.getdoc(PEERS[name]).split())
    found = re.findall(r"single sample a class: (\d[\d.,]*(?: and \d[\d.,]*)*)", text)
    values = [float(v.rstrip(".,").replace(",", "")) for part in found for v in part.split(" and ")]
    assert values == list(PEERS[name].usual.values())


def test_every_peer_is_in_the_reference():
    text = (Path(__file__).parents[1] / "docs" / "api.rst").read_text()
    for peer in PEERS.values():
        module = peer.__module__.removeprefix("flowalign.benchmark.")
        assert f"\n   {module}.{peer.__name__}\n" in text
