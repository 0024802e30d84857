"""The figures of the paper: which runs they show, and their files."""

import csv

import pytest

from experiments.figures import study
from experiments.figures.config import Figures
from experiments.figures.curves import (
    CDMSGD,
    CDSGD,
    FEDAVG,
    PRESETS,
    TURNS,
    specifications,
    with_momentum,
)
from experiments.report.plots import ROWS, Line
from experiments.run.config import Data, Network, Training
from experiments.run.errors import UsageError
from tests.experiments.test_claims import record

FORMS = {"png": b"\x89PNG", "pdf": b"%PDF"}


@pytest.mark.slow
def test_every_figure_of_every_preset_asks_for_runs_that_can_be(tmp_path):
    for preset in PRESETS:
        config = study._with_preset(Figures(preset=preset, momentum=0.8, out=tmp_path))
        wanted = study._wanted(config)
        assert {"fig1a", "fig1b", "fig2a", "fig2b", "steps", "non_iid"} <= {*wanted}
        assert {*PRESETS[preset].others} < {*wanted}


@pytest.mark.parametrize(
    ("curve", "momentum"),
    [(CDSGD, None), (CDMSGD, 0.8), (FEDAVG, None), (with_momentum(FEDAVG, 0.7), 0.7)],
)
def test_a_curve_has_the_momentum_of_the_study_where_it_has_one_by_itself(
    curve, momentum, tmp_path
):
    ((run, _),) = study._runs(Figures(momentum=0.8, seeds=1, out=tmp_path), curve)
    assert run.algorithm.momentum == momentum and run.training.evaluate_train


def test_one_after_another_train_those_who_have_neighbours_and_cdmsgd_is_the_released_code():
    for name, figure in specifications(0.01, others=["digits"]).items():
        if TURNS[1] not in figure.columns:
            continue
        pairs = [*zip(*figure.columns.values(), strict=True)]
        changed = {a.options["algorithm"]: b.options for a, b in pairs if a != b}
        assert changed and {*changed} <= {"cdsgd", "cdmsgd"}, name
        for algorithm, options in changed.items():
            wanted = {"cdsgd": "cdsgd", "cdmsgd": "cdmsgd-released"}[algorithm]
            assert (options["algorithm"], options["turns"]) == (wanted, "sequential")
            assert "momentum" not in options  # 0.95, as in that code
        assert not any("one machine" in a.label for a, b in pairs if a != b)
    released = [
        curve.options
        for figure in specifications(0.01).values()
        for curves in figure.columns.values()
        for curve in curves
        if "released" in curve.label
    ]
    assert released and all(
        {"algorithm": "cdmsgd-released", "turns": "sequential"}.items() <= options.items()
        for options in released
    )


def test_far_from_iid_all_weigh_agents_by_their_data(tmp_path):
    config = Figures(seeds=1, out=tmp_path)
    for curves in specifications(0.01)["non_iid"].columns.values():
        for curve in curves:
            ((run, _),) = study._runs(config, curve)
            assert run.training.size_weighted == (run.algorithm.algorithm != "fedavg"), curve


@pytest.mark.slow
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
    for subject in ("Section 5.1", "Section 5.2", "Proposition 1", "Supplement", "IID"):
        assert page.count(subject) >= 1
    # One seed shows nothing.
    found = [text.split("|")[5].strip() for text in page.splitlines() if text[:3] == "| S"]
    assert {*found} == {"no difference seen", "not decided"}


@pytest.mark.slow
def test_what_figures_share_is_run_once(tmp_path):
    options = {"network": Network(agents=3), "training": Training(epochs=1), "out": tmp_path}
    options["data"] = Data(train_samples=96, test_samples=30)
    drawn = study.draw(Figures(figures=("fig1a",), seeds=1, jobs=2, **options))
    assert [*drawn["fig1a"]] == [*TURNS]
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("metrics.jsonl")}
    assert len(made) == 4  # only one of the three curves differs in turn
    again = study.draw(Figures(figures=("fig1a_steps",), seeds=1, **options))
    assert again["fig1a_steps"][TURNS[0]] == drawn["fig1a"][TURNS[0]]
    assert made == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("metrics.jsonl")}
    assert (tmp_path / "smoke" / "fig1a_steps.png").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "big"}, "--preset: unknown choice 'big'; expected smoke, fashion, paper"),
        ({"figures": ("fig9",)}, "--figures: unknown figure 'fig9'.*; expected one of all, fig1a"),
        ({"figures": ("mnist",)}, "--figures: unknown figure 'mnist'"),
        ({"seeds": 0}, "--seeds: 0 is too few"),
        ({"jobs": 0}, "--jobs: 0 is too few"),
        ({"model": "transformer"}, "--model: unknown choice 'transformer'"),
        ({"learning_rate": -1.0}, "--learning-rate: "),
    ],
)
def test_bad_options_are_named_before_a_folder_is_made(options, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        study.draw(Figures(**options, out=tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()
