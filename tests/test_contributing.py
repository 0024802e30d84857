"""The algorithm that CONTRIBUTING.md adds in three places works, in a copy of the repository."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SECTION = re.compile(r"^--- .*\n\+\+\+ b/(.*)\n@@\n((?:[ +].*\n)*)", re.M)


def apply(diff, folder):
    """Adds the lines of each file of a diff below the one line of context that it shows, if any."""
    for name, lines in SECTION.findall(diff):
        path = folder / name
        text = path.read_text() if path.exists() else ""
        context = "".join(line[1:] for line in lines.splitlines(True) if line[0] == " ")
        added = "".join(line[1:] for line in lines.splitlines(True) if line[0] == "+")
        assert not context or text.count(context) == 1
        path.write_text(text.replace(context, context + added, 1) if context else added)


@pytest.mark.slow
def test_the_algorithm_of_the_example_trains_and_passes_its_tests(tmp_path):
    for folder in ("cdjax", "experiments", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    page = (ROOT / "CONTRIBUTING.md").read_text()
    diffs = re.findall(r"^```diff\n(.*?)^```$", page, re.M | re.S)
    assert len(diffs) == 3
    apply("".join(diffs), tmp_path)
    run = "-m experiments.digits --algorithm local-sgd --agents 4 --model softmax --epochs 1"
    tests = "-m pytest -n 0 -q tests/test_transforms_common.py -k local-sgd"
    for command in (run, tests):
        subprocess.run([sys.executable, *command.split()], cwd=tmp_path, check=True)
