"""The figures of the paper: which runs they show, the claims measured on them, and their files."""

import csv

import pytest

from experiments.figures import study
from experiments.figures.claims import findings
from experiments.figures.config import Figures
from experiments.figures.curves import CDMSGD, CDSGD, FEDAVG, PRESETS, specifications
from experiments.report.plots import ROWS, Line
from experiments.run.config import Data, Network, Training
from experiments.run.errors import UsageError

FORMS = {"png": b"\x89PNG", "pdf": b"%PDF"}


def record(accuracy, epoch=1):
    """One evaluation, made up."""
    columns = ("train_loss_mean", "train_accuracy_mean", "test_accuracy_variance",
               "consensus_distance")  # fmt: skip
    made_up = dict.fromkeys(columns, 0.5 / epoch) | {"dataset": "digits", "step": 10 * epoch}
    return made_up | {"epoch": epoch, "test_accuracy_mean": accuracy}


def line(label, *accuracies):
    """A line of runs that are evaluated once."""
    return Line(label, [[record(accuracy)] for accuracy in accuracies])


def test_every_figure_of_every_preset_asks_for_runs_that_can_be(tmp_path):
    for preset in PRESETS:
        config = study._with_preset(Figures(preset=preset, momentum=0.8, out=tmp_path))
        wanted = study._wanted(config)
        assert {"fig1a", "fig1b", "fig2a", "fig2b", "steps", "non_iid"} <= {*wanted}
        assert {*PRESETS[preset].others} < {*wanted}


def test_turns_are_taken_by_those_who_have_neighbours():
    for name, figure in specifications(0.01, others=["digits"]).items():
        if "sequential" in figure.columns:
            pairs = zip(*figure.columns.values(), strict=True)
            in_turn = [(a.label, a.options["algorithm"]) for a, b in pairs if a != b]
            over_topology = {"cdsgd", "cdmsgd"}
            assert in_turn and {algorithm for _, algorithm in in_turn} <= over_topology, name
            assert not any("one machine" in label for label, _ in in_turn)


def test_figures_curves_and_claims_are_written(tmp_path):
    wanted = specifications(0.01, others=["mnist"])
    drawn = {
        name: {
            column: [Line(c.label, [[record(0.4, 1), record(0.6, 2)]]) for c in curves]
            for column, curves in figure.columns.items()
        }
        for name, figure in wanted.items()
    }
    every_row = wanted["fig1a_steps"]._replace(rows=[*ROWS])
    study.write(Figures(seeds=1, out=tmp_path), {"fig1a_steps": every_row}, drawn)
    for form, start in FORMS.items():
        assert (tmp_path / f"fig1a_steps.{form}").read_bytes().startswith(start)
    with (tmp_path / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["figure"] for row in rows} == {*wanted}
    assert {row["epoch"] for row in rows} == {"1", "2"}
    page = (tmp_path / "claims.md").read_text()
    for figure in ("Fig. 1a", "Fig. 1b", "Fig. 2a", "Fig. 2b", "Prop. 1", "Prop. 3", "IID"):
        assert page.count(figure) >= 1
    verdicts = [text.split("|")[4].strip() for text in page.splitlines() if text[:4] == "| Fi"]
    assert {*verdicts} <= {"holds", "does not", "unclear"}
    # Equal curves end within 0 points of each other, five times in two columns; the distance falls.
    assert page.count("| holds |") == 11 and "at most 0.5, at the end 0.25 distance" in page


@pytest.mark.slow
def test_what_figures_share_is_run_once(tmp_path):
    options = {"network": Network(agents=3), "training": Training(epochs=1), "out": tmp_path}
    options["data"] = Data(train_samples=96, test_samples=30)
    drawn = study.draw(Figures(figures=("fig1a",), **options))
    assert [*drawn["fig1a"]] == ["synchronous", "sequential"]
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("metrics.jsonl")}
    assert len(made) == 4  # only one of the three curves differs in turn
    again = study.draw(Figures(figures=("fig1a_steps",), **options))
    assert again["fig1a_steps"]["synchronous"] == drawn["fig1a"]["synchronous"]
    assert made == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("metrics.jsonl")}
    assert (tmp_path / "smoke" / "fig1a_steps.png").exists()


@pytest.mark.parametrize(
    ("slower", "verdict"),
    [((0.7, 0.8), "holds"), ((0.95, 0.96), "does not"), ((0.7, 0.95), "unclear")],
)
def test_a_claim_holds_when_every_seed_says_so(slower, verdict):
    columns = {"synchronous": [line("N = 2", 0.9, 0.9), line("N = 16", *slower)]}
    by_epoch, by_steps = findings("fig2a", columns)
    assert by_epoch.verdict == by_steps.verdict == verdict
    assert f"N = 2 90.00, N = 16 {50 * sum(slower):.2f}" in by_epoch.measured
    assert by_steps.measured.endswith("% after 10 steps")


@pytest.mark.parametrize(
    ("accuracy", "verdict"), [(0.81, "holds"), (0.8, "holds"), (0.79, "does not")]
)
def test_claims_find_their_curves_by_label(accuracy, verdict):
    lines = [line(CDSGD.label, 0.1), line(CDMSGD.label, accuracy), line(FEDAVG.label, 0.8)]
    (finding,) = findings("non_iid", {"whole classes": lines})
    assert finding.verdict == verdict and finding.setting == "whole classes"
    assert finding.measured == f"FedAvg, E = 1, C = 1 80.00, CDMSGD {100 * accuracy:.2f} %"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "big"}, "--preset: unknown choice 'big'; expected smoke, fashion, paper"),
        ({"figures": ("fig9",)}, "--figures: unknown figure 'fig9'.*; expected one of all, fig1a"),
        ({"figures": ("mnist",)}, "--figures: unknown figure 'mnist'"),
        ({"seeds": 0}, "--seeds: 0 is too few"),
        ({"model": "transformer"}, "--model: unknown choice 'transformer'"),
        ({"learning_rate": -1.0}, "--learning-rate: "),
    ],
)
def test_bad_options_are_named_before_a_folder_is_made(options, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        study.draw(Figures(**options, out=tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()
