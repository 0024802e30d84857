"""The scripts in examples/ run, and those that mark cdjax's lines have ten of them at most."""

import re
import runpy
from pathlib import Path

import jax
import pytest

SCRIPTS = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
PAGE = Path(__file__).parents[1] / "docs" / "your-code.md"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script_runs(path, capsys):
    with jax.numpy_rank_promotion("allow"):  # JAX's default, which users have
        runpy.run_path(str(path), run_name="__main__")
    assert re.search(r"accuracy \d", capsys.readouterr().out)


@pytest.mark.parametrize("name", ["flax_train_state", "nnx_batchnorm_dropout"])
def test_ten_lines_are_cdjax_s(name):
    path = next(path for path in SCRIPTS if path.stem == name)
    marked = re.findall(r"# [+~]$", path.read_text(), re.M)
    row = next(line for line in PAGE.read_text().splitlines() if path.name in line)
    assert int(row.split("|")[-2]) == len(marked) <= 10
