"""The scripts in examples/: they run, fail without mixing, and change as few lines as stated."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import cdjax
from tests.slow import slow

ROOT = Path(__file__).parents[1]
SCRIPTS = {path.stem: path for path in sorted((ROOT / "examples").glob("*.py"))}
PAGE = ROOT / "docs" / "your-code.md"
MARK = re.compile(r"  # [+~]( .*)?$|^ *# - ")
# These set up JAX, which can only be done before it has started.
OWN_PROCESS = [name for name, path in SCRIPTS.items() if "jax.config" in path.read_text()]
IN_PROCESS = [name for name in SCRIPTS if name not in OWN_PROCESS]
# One that maps the step and one that stacks.
QUICK = ["flax_train_state", "clipping"]


def changed_lines(name):
    return [line for line in SCRIPTS[name].read_text().splitlines() if MARK.search(line)]


@pytest.mark.parametrize("name", [*QUICK, *slow(*(x for x in IN_PROCESS if x not in QUICK))])
@pytest.mark.sampled(2)
def test_a_script_runs(name, capsys):
    with jax.numpy_rank_promotion("allow"):  # JAX's default, which users have
        runpy.run_path(str(SCRIPTS[name]), run_name="__main__")
    assert re.search(r"\d", capsys.readouterr().out)


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN_PROCESS)
@pytest.mark.parametrize("devices", [1, 4])
def test_a_script_runs_on_any_number_of_devices(name, devices):
    flags = f"--xla_force_host_platform_device_count={devices}"
    command = [sys.executable, "-W", "error", SCRIPTS[name]]
    output = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert output.returncode == 0 and re.search(r"accuracy \d", output.stdout), output.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", IN_PROCESS)
def test_without_mixing_a_script_fails(name, monkeypatch):
    monkeypatch.setattr(cdjax.mixing, "auto", lambda topology: lambda tree, step=0: tree)
    with pytest.raises(AssertionError), jax.numpy_rank_promotion("allow"):
        runpy.run_path(str(SCRIPTS[name]), run_name="__main__")


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_page_says_how_many_lines_change_and_ten_are_enough(name):
    (row,) = [line for line in PAGE.read_text().splitlines() if f"(../examples/{name}.py)" in line]
    assert int(row.split("|")[-2]) == len(changed_lines(name)) <= 10


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_line_with_cdjax_is_marked(name):
    code = re.sub(r'"""(?s:.)*?"""|^ *# [^-].*$', "", SCRIPTS[name].read_text(), flags=re.M)
    lines = [line for line in code.splitlines() if "cdjax" in line]
    # What ends in # = serves the comparison that a script prints, and not its training.
    unmarked = [line for line in lines if not (MARK.search(line) or line.endswith("  # ="))]
    assert lines and not unmarked
