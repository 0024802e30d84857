"""What is written as JSON is JSON for every parser."""

import ast
import json
import math
from pathlib import Path

import numpy as np
import pytest

from cdjax._json import as_json, to_json

ROOT = Path(__file__).parents[1]
WRITER = "cdjax/_json.py"
# Messages between two processes of Python, of which one may have nothing but NumPy, or should not
# wait for JAX.
MESSAGES = ("benchmarks/_peers/", "experiments/launch/channel.py")


def strictly_read(text):
    return json.loads(text, parse_constant=pytest.fail)


PLAIN = {"b": 1, "a": {"d": True, "c": None, "é": "NaN"}}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"norms": (math.inf, [-math.inf, 1.5])}, {"norms": [None, [None, 1.5]]}),
        ({"b": np.float64("nan"), "a": np.float64(0.1)}, {"b": None, "a": 0.1}),
        (PLAIN, PLAIN),
        (PLAIN | {"nan": math.nan}, PLAIN | {"nan": None}),
    ],
)
def test_numbers_that_are_not_finite_are_null_and_the_rest_is_as_it_was(value, expected):
    found = strictly_read(to_json(value))
    assert found == expected == as_json(value)
    assert [*found] == [*value]  # in the same order


def test_options_are_those_of_the_standard_library():
    value = {"path": Path("a"), "loss": math.nan}
    assert to_json(value, default=str, indent=1) == '{\n "path": "a",\n "loss": null\n}'


def test_what_is_no_json_is_an_error():
    circle = []
    circle.append(circle)
    with pytest.raises(ValueError, match="Circular"):
        to_json(circle)
    with pytest.raises(TypeError, match="float32 is not JSON"):
        to_json({"loss": np.float32(1)})


def calls_of_writers(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr in ("dump", "dumps"):
            yield node.lineno
        if isinstance(node, ast.ImportFrom) and node.module == "json":
            yield node.lineno


def test_nothing_else_writes_json():
    trees = ("cdjax", "experiments", "benchmarks", "examples")
    found = {
        f"{path.relative_to(ROOT)}:{line}"
        for tree in trees
        for path in (ROOT / tree).rglob("*.py")
        for line in calls_of_writers(path)
    }
    others = {place for place in found if not place.startswith((WRITER, *MESSAGES))}
    assert found - others and not others
