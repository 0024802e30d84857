"""The study of heterogeneous data, its verdicts and its table."""

import json

import pytest

from experiments.heterogeneity.config import PRESETS, Heterogeneity
from experiments.heterogeneity.study import (
    Cell,
    Result,
    _markdown,
    _run,
    _with_preset,
    compare,
    differences,
)
from experiments.run.algorithm import ALGORITHMS
from experiments.run.config import Network, Training, flat
from experiments.run.errors import UsageError
from experiments.run.job import check
from experiments.run.together import check_together

TINY = Heterogeneity(
    network=Network(agents=3, topology="ring"), training=Training(epochs=1, batch_size=64),
    preset="smoke", model="softmax", algorithms=("cdsgd",), dirichlet_alphas=(1.0,),
    seeds=2, tune_seeds=1, learning_rates=(1e-9, 0.01, 1e9),
)  # fmt: skip


@pytest.mark.slow
def test_the_study_tunes_runs_and_draws_and_makes_nothing_twice(tmp_path, capsys):
    config = _with_out(TINY, tmp_path)
    results = compare(config)
    ((cell, result),) = results.items()
    assert cell == Cell("cdsgd", 1.0) and result.learning_rate == 0.01
    folder = tmp_path / "smoke"
    made = {path: path.stat().st_mtime_ns for path in (folder / "runs").iterdir()}
    assert len(made) == 3 + 2
    assert compare(config) == results
    assert made == {path: path.stat().st_mtime_ns for path in (folder / "runs").iterdir()}
    written = json.loads((folder / "results.json").read_text(), parse_constant=pytest.fail)
    assert written["results"][0]["records"] == result.records
    mean = sum(result.percents("test_accuracy_min")) / 2
    assert f"{mean:.2f} ±" in (folder / "table.md").read_text()
    assert (folder / "heterogeneity.png").read_bytes().startswith(b"\x89PNG")


def _with_out(config, folder):
    return Heterogeneity(**{**vars(config), "out": folder})


@pytest.mark.parametrize("preset", PRESETS)
def test_every_algorithm_gets_the_options_that_it_reads(preset):
    config = _with_preset(Heterogeneity(preset=preset, momentum=0.5))
    for name in config.algorithms:
        run = _run(config, Cell(name, 0.01), 0.1, seed=3)
        check(run)
        check_together(run)
        options, read = flat(run), ALGORITHMS[name].options
        of_rounds = "period" in read
        assert options["momentum"] == (0.5 if "momentum" in read and not of_rounds else None)
        assert (options["partition"], options["dirichlet_alpha"]) == ("dirichlet-equal", 0.01)
        assert (options["dataset"], options["model"]) == tuple(
            PRESETS[preset][name] for name in ("dataset", "model")
        )


def result(mean, worst, *, diverged=False):
    """A made-up result with these accuracies of every seed."""
    columns = {"mean_params_test_accuracy": 0.5, "consensus_distance": 0.1, "diverged": diverged}
    pairs = zip(mean, worst, strict=True)
    return Result(0.1, [columns | {"test_accuracy_mean": m, "test_accuracy_min": w}
                        for m, w in pairs])  # fmt: skip


def test_differences_are_paired_and_verdicts_of_one_family():
    config = _with_preset(
        Heterogeneity(algorithms=("atc", "cdmsgd", "kgt"), dirichlet_alphas=(0.1,), seeds=3)
    )
    results = {
        Cell("atc", 0.1): result((0.80, 0.82, 0.81), (0.70, 0.60, 0.80)),
        Cell("cdmsgd", 0.1): result((0.90, 0.921, 0.911), (0.70, 0.62, 0.78)),
        Cell("kgt", 0.1): result((0.1, 0.1, 0.1), (0.1, 0.1, 0.1), diverged=True),
    }
    found = differences(config, results)
    assert {cell.algorithm for cell, _ in found} == {"atc"}  # the reference is none of its own
    difference, verdict = found[Cell("atc", 0.1), "test_accuracy_mean"]
    assert difference.mean == pytest.approx(-10.0667, abs=1e-3) and verdict == "below"
    assert found[Cell("atc", 0.1), "test_accuracy_min"][1] == "no difference seen"
    table = _markdown(config, results)
    assert "| atc | 81.00 ± 2.48 | 70.00 ± 24.84 |" in table  # t(0.975, 2) = 4.303
    assert "| kgt | diverges | diverges |" in table
    assert "Holm's correction for 2 comparisons" in table


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"algorithms": ("adam",)}, "--algorithms: unknown choice 'adam'"),
        ({"algorithms": ()}, "--algorithms: give one or more"),
        ({"algorithms": ("atc", "atc")}, "--algorithms: one is given twice"),
        ({"algorithms": ("fedavg",)}, "--algorithm: not for runs that are made together"),
        ({"algorithms": ("atc",), "reference": "kgt"}, "--reference: kgt is not compared"),
        ({"dirichlet_alphas": (0.0,)}, "--dirichlet-alpha: 0.0 is not in"),
        ({"learning_rates": (0.1, -1.0)}, "--learning-rate: -1.0 is not in"),
        ({"together": 0}, "--together: 0 is too few; give at least 1"),
        ({"training": Training(size_weighted=True)}, "--size-weighted: not for runs"),
    ],
)
def test_bad_options_are_named_before_a_folder_is_made(options, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        compare(Heterogeneity(**options, out=tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()
