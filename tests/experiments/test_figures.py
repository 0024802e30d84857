"""The figures of the paper in one command, on the smallest preset."""

import csv
import subprocess
import sys

import pytest

from experiments.figures import claims as _claims
from experiments.figures import study as _figures
from experiments.figures.config import Figures
from experiments.run.config import RunConfig
from experiments.run.records import Entry

FORMS = {"png": b"\x89PNG", "pdf": b"%PDF"}


def figures(*options):
    command = [sys.executable, "-m", "experiments.figures", *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def test_the_smoke_preset_draws_all_figures_once(tmp_path):
    options = ("--preset", "smoke", "--epochs", 2, "--train-samples", 700, "--out", tmp_path)
    result = figures(*options)
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "smoke"
    names = _figures.specifications(Figures(preset="smoke"))
    for name in names:
        for form, start in FORMS.items():
            assert (folder / f"{name}.{form}").read_bytes().startswith(start)
    with (folder / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["figure"] for row in rows} == {*names}
    assert {row["epoch"] for row in rows} == {"1", "2"}
    page = (folder / "claims.md").read_text()
    for figure in ("Fig. 1a", "Fig. 1b", "Fig. 2a", "Fig. 2b", "Prop. 1", "Prop. 3", "IID"):
        assert page.count(figure) >= 1
    verdicts = [line.split("|")[4].strip() for line in page.splitlines() if line[:4] == "| Fi"]
    assert {*verdicts} <= {"holds", "does not", "unclear"}

    made = {path: path.stat().st_mtime_ns for path in folder.rglob("metrics.jsonl")}
    assert figures(*options, "--figures", "fig1a").returncode == 0
    assert made == {path: path.stat().st_mtime_ns for path in folder.rglob("metrics.jsonl")}


def entry(label, *accuracies):
    """A curve of one evaluation a run."""
    run = {"test_accuracy_mean": 0.0, "train_accuracy_mean": 1.0, "step": 10}
    return Entry(label, RunConfig(), [[run | {"test_accuracy_mean": a}] for a in accuracies])


@pytest.mark.parametrize(
    ("slower", "verdict"),
    [((0.7, 0.8), "holds"), ((0.95, 0.96), "does not"), ((0.7, 0.95), "unclear")],
)
def test_a_claim_holds_when_every_seed_says_so(slower, verdict):
    columns = {"synchronous": [entry("N = 2", 0.9, 0.9), entry("N = 16", *slower)]}
    by_epoch, by_steps = _claims._fig2a(columns)
    assert by_epoch.verdict == by_steps.verdict == verdict
    assert f"N = 2 90.00, N = 16 {50 * sum(slower):.2f}" in by_epoch.measured


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--preset big", "--preset: unknown choice 'big'; expected smoke, fashion, paper"),
        ("--figures fig9", "--figures: unknown ['fig9']; expected all or of"),
        ("--seeds 0", "--seeds: 0 is too few"),
    ],
)
def test_bad_options_are_one_line(options, message, tmp_path):
    result = figures(*options.split(), "--out", tmp_path / "runs")
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1 and message in result.stderr
    assert not (tmp_path / "runs").exists()
