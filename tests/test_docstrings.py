"""The examples in docstrings do what they say."""

import doctest
import importlib
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import bsdenoise
from bsdenoise.methods import registry

PACKAGE = Path(bsdenoise.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if ">>> " in path.read_text()
)


def examples(name):
    """Gives the docstrings of a module that have examples, with what its reader has imported."""
    module = importlib.import_module(name)
    shared = vars(module) | {"bsdenoise": bsdenoise, "np": np, "keras": keras, "tf": tf}
    return [test for test in doctest.DocTestFinder().find(module, globs=shared) if test.examples]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name, monkeypatch):
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))  # an example adds one
    said = []
    for test in examples(name):
        doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=said.append)
    assert not said, "".join(said)


def test_a_wrong_example_is_found():
    test = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, None)
    assert doctest.DocTestRunner().run(test, out=lambda text: None).failed == 1
    assert sum(len(examples(name)) for name in MODULES) > 8
