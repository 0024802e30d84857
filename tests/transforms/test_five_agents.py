"""The table of five agents, and the files that are made of it."""

import json
import subprocess
import sys

import numpy as np
import pytest

from tests.transforms import five_agents
from tests.transforms.five_agents import TABLE
from tests.transforms.traps import TRAPS

REMEDY = "run python -m tests.transforms.five_agents"


@pytest.fixture(scope="module")
def reference():
    return json.loads(five_agents.VECTORS.read_text("utf-8"))


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.sampled(3)
def test_an_algorithm_begins_as_recorded_and_ends_where_linear_algebra_says(name, reference, x64):
    row, found = TABLE[name], five_agents.trajectories(name)
    if row.expected is not None:
        np.testing.assert_allclose(found["constant"][-1], row.expected, atol=1e-9, rtol=0)
    recorded = reference["algorithms"][name]
    assert recorded.pop("call") == row.call, REMEDY
    assert recorded.keys() == found.keys()
    for step, rounds in recorded.items():
        np.testing.assert_allclose(found[step][: len(rounds)], rounds, atol=1e-12, rtol=0)


def test_the_files_are_those_of_the_table(reference):
    assert five_agents.PAGE.read_text("utf-8") == five_agents.page(), REMEDY
    assert list(reference["algorithms"]) == list(TABLE), REMEDY
    expected = five_agents.vectors({}, TRAPS)
    assert reference["problem"] == expected["problem"], REMEDY
    for found, trap in zip(reference["traps"], expected["traps"], strict=True):
        assert (found["algorithm"], found["mistake"]) == (trap["algorithm"], trap["mistake"])
        for step in five_agents.STEP_SIZES:
            np.testing.assert_allclose(found[step], trap[step], atol=1e-12)


def test_fixed_points_are_those_that_were_published():
    ends = {name: row.expected for name, row in TABLE.items() if row.expected is not None}
    means = {name: end.mean() for name, end in ends.items()}
    assert means["CDSGD"] == pytest.approx(2.588034, abs=5e-7)
    assert means["FedAvg"] == pytest.approx(2.449333631497669, abs=1e-14)
    np.testing.assert_allclose(
        TABLE["adapt then combine"].expected,
        [2.624697, 2.466037, 2.547337, 2.747431, 2.762299],
        atol=5e-7,
    )
    np.testing.assert_allclose(
        TABLE["local SGD"].expected,
        [2.24488197, 1.65682551, 2.11928152, 2.94471113, 2.7973189],
        atol=5e-9,
    )


def check(mine, folder):
    path = folder / "mine.json"
    path.write_text(json.dumps(mine))
    program = five_agents.VECTORS.parent / "check.py"
    return subprocess.run([sys.executable, program, path], capture_output=True, text=True)


def test_the_checker_passes_what_agrees_and_names_the_first_difference(tmp_path):
    mine = json.loads(five_agents.VECTORS.read_text())
    assert check(mine, tmp_path).returncode == 0
    cdsgd = {"constant": mine["algorithms"]["CDSGD"]["constant"]}
    result = check({"algorithms": {"CDSGD": cdsgd}}, tmp_path)
    assert result.returncode == 0 and "CDSGD, constant step: agrees" in result.stdout
    cdsgd["constant"][2][4] += 1e-6
    result = check({"algorithms": {"CDSGD": cdsgd}}, tmp_path)
    assert result.returncode == 1
    assert "CDSGD, constant step: differs first in round 3 at agent 4" in result.stdout
    result = check({"algorithms": {"CDSDG": cdsgd}}, tmp_path)
    assert result.returncode == 2 and "'CDSDG' is none of" in result.stderr


@pytest.mark.parametrize(("name", "mistake"), [trap[:2] for trap in TRAPS])
def test_the_checker_names_a_mistake(name, mistake, reference, tmp_path):
    (trap,) = [trap for trap in reference["traps"] if trap["mistake"] == mistake]
    result = check({"algorithms": {name: {"decaying": trap["decaying"]}}}, tmp_path)
    assert result.returncode == 1 and f"as if {mistake}" in result.stdout


def test_the_checker_names_the_other_algorithm(reference, tmp_path):
    other = reference["algorithms"]["adapt then combine"]["constant"]
    result = check({"algorithms": {"CDSGD": {"constant": other}}}, tmp_path)
    assert result.returncode == 1 and "  as adapt then combine: cdjax.adapt" in result.stdout
