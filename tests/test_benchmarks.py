"""The command that measures an accelerator, in miniature."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks._sections.checks import marked_files, read_output
from benchmarks._sections.setting import Options
from benchmarks.accelerator import wanted_sections

ROOT = Path(__file__).parents[1]
SECTIONS = ["tests", "cnn", "products", "mixing", "torch", "capacity", "runs", "compiling"]
# A machine with an accelerator may lack these.
MISSING = ("tyro", "tensorflow_datasets", "beartype", "typeguard")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The command's file and output, from where some packages are missing."""
    path = tmp_path_factory.mktemp("results") / "results.json"
    tests = "tests/test_metrics.py"  # has no mark: those with one are run as they are
    words = ["accelerator", "--json", str(path), "--tests", tests]
    words += ["--minutes", "0.25", "--grace", "100"]
    program = f"import runpy, sys; sys.argv = {words!r}; "
    program += f"sys.modules.update(dict.fromkeys({MISSING!r})); "
    program += "runpy.run_module('benchmarks.accelerator', run_name='__main__', alter_sys=True)"
    process = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    return json.loads(path.read_text()), process.stdout


@pytest.mark.slow
def test_every_section_leaves_rows_and_its_time(results):
    found, output = results
    assert list(found["sections"]) == SECTIONS and found["finished"]
    for name, section in found["sections"].items():
        assert section["rows"] and section["seconds"] >= 0, name
        assert "error" not in section, section
        assert f"{name}: " in output


@pytest.mark.slow
def test_the_rows_hold_times_or_say_why_not(results):
    rows = [row for section in results[0]["sections"].values() for row in section["rows"]]
    assert not [row for row in rows if "error" in row]
    timed = [row for row in results[0]["sections"]["cnn"]["rows"] if "seconds" in row]
    assert timed and all(row["share_of_matmul_peak"] > 0 for row in timed)


@pytest.mark.slow
def test_the_results_name_the_machine_and_the_command(results):
    assert {"device", "versions", "command", "memory"} <= {*results[0]}


def test_sections_are_chosen_by_letter_or_name():
    chosen = Options(Path("results.json"), sections=("b", "mixing"))
    assert wanted_sections(chosen) == ["cnn", "mixing"]
    assert wanted_sections(Options(Path("results.json"))) == SECTIONS


def test_every_marked_file_is_found():
    assert "tests/test_accelerator.py" in marked_files()
    assert "tests/mixing/test_consensus_is_exact.py" in marked_files()


def test_outcomes_are_counted_where_time_ends_the_tests():
    text = (
        "jax 0.10.2 on cpu\ntests/a.py::test_b[c] PASSED [ 10%]\ntests/a.py::test_d FAILED [ 20%]\n"
    )
    row = read_output(text + "tests/a.py::test_e", None)
    assert (row["passed"], row["failed"], row["out_of_time"]) == (1, 1, True)
    assert row["failures"] == ["tests/a.py::test_d"]
    assert row["device"] == "jax 0.10.2 on cpu"
