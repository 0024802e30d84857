"""The comparison of algorithms, each at its own step size, and its table."""

import json
from dataclasses import replace

import pytest
from rich.console import Console

from experiments.compare.config import Compare
from experiments.compare.study import (
    Result,
    System,
    _check,
    _loss,
    _options,
    _rows,
    _tuned,
    compare,
)
from experiments.run.algorithm import ALGORITHMS
from experiments.run.config import Data, Model, Network, Training, flat
from experiments.run.errors import UsageError
from experiments.run.job import check


@pytest.mark.slow
def test_algorithms_are_tuned_run_and_drawn_once(tmp_path, capsys):
    config = Compare(
        network=Network(agents=3), training=Training(batch_size=8, epochs=1), target=0.5,
        data=Data(dataset="digits", train_samples=240, test_samples=60), seeds=1, tune_seeds=1,
        model=Model(model="softmax"), algorithms=("cdsgd", "fedavg"), momentum=0.0,
        learning_rates=(1e-9, 0.01, 1e9), out=tmp_path,
    )  # fmt: skip
    results = compare(config)
    for system, rate, (records,) in results:
        folders = [
            tmp_path / f"{system.label}-{rate:g}-epochs-1-seed-1000" for rate in (1e-9, 0.01)
        ]
        losses = [
            json.loads((folder / "metrics.jsonl").read_text())["train_loss"] for folder in folders
        ]
        assert rate == 0.01 and losses[1] < losses[0]
        assert 0 < records[-1]["train_loss"] != losses[1]  # of another seed
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("metrics.jsonl")}
    assert len(made) == 8  # three step sizes of either, and the reported run
    assert compare(config) == results
    assert made == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("metrics.jsonl")}
    table = (tmp_path / "table.md").read_text().splitlines()
    names = [row.split("|")[1].strip() for row in table if row.startswith("|")]
    assert names == ["algorithm", "---", "cdsgd", "fedavg"]
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_step_sizes_are_chosen_by_one_program_as_one_after_another(tmp_path):
    alone = Compare(
        network=Network(agents=3), training=Training(batch_size=16, epochs=1), data=Data("digits"),
        model=Model(model="softmax"), learning_rates=(1e-4, 1e-2, 1e38), tune_seeds=1, out=tmp_path,
    )  # fmt: skip
    systems = [System("cdmsgd"), System("fedavg")]  # whose runs cannot share a program
    chosen = _tuned(alone, systems, Console(quiet=True))
    losses = [_loss(alone, systems[0], rate) for rate in alone.learning_rates]
    config = replace(alone, together=4, out=tmp_path / "shared")
    assert _tuned(config, systems, Console(quiet=True)) == chosen
    found = [_loss(config, systems[0], rate) for rate in alone.learning_rates]
    assert found == pytest.approx(losses, rel=1e-4) and found[-1] > 1e300
    assert {path.suffix for path in config.out.iterdir() if "cdmsgd" in path.name} == {".json"}
    assert any(path.is_dir() for path in config.out.iterdir() if "fedavg" in path.name)
    weighted = replace(config, training=Training(epochs=1, size_weighted=True))
    with pytest.raises(UsageError, match="--size-weighted: not for runs that are made together"):
        _check(weighted, systems)


def test_an_algorithm_gets_the_options_that_it_reads():
    config = Compare(momentum=0.5, period=3, training=Training(size_weighted=True))
    for name in ALGORITHMS:
        run = _options(config, System(name), 0.1)
        check(run)
        read = ALGORITHMS[name].options
        assert flat(run)["momentum"] == (0.5 if read.get("momentum") else None)
        if read.get("momentum") == 0:
            assert flat(_options(config, System(name, 0.5), 0.1))["momentum"] == 0.5
        assert flat(run)["period"] == (3 if "period" in read else None)
        assert run.training.size_weighted == (name not in ("cga", "fedavg"))  # which always is


def run(*accuracies):
    """A run that is evaluated so often, made up."""
    columns = ("mean_params_test_accuracy", "train_accuracy", "test_accuracy_max",
               "test_accuracy_min", "consensus_distance")  # fmt: skip
    return [
        dict.fromkeys(columns, 0.5)
        | {"step": 10 * number, "bytes_sent": 1000 * number, "test_accuracy": accuracy}
        for number, accuracy in enumerate(accuracies, 1)
    ]


def test_steps_and_bytes_are_counted_to_the_target():
    (row,) = _rows([Result(System("cdsgd"), 0.1, [run(0.3, 0.6, 0.7), run(0.3, 0.4, 0.9)])], 0.6)
    assert row["test %"] == "80.00 ± 14.14" and row["gap"] == "-30.00"  # √2 · 10, n − 1 = 1
    assert row["steps to 60%"] == "25" and row["sent to 60%"] == "2.5 kB"
    (row,) = _rows([Result(System("cdsgd"), 0.1, [run(0.7), run(0.3)])], target=0.6)
    assert row["steps to 60%"] == row["sent to 60%"] == "never"


def test_systems_are_compared_with_cdmsgd_seed_by_seed():
    finals = {
        System("fedavg"): (0.80, 0.82, 0.81),
        System("cdmsgd"): (0.90, 0.921, 0.911),
        System("fedavg", 0.9): (0.90, 0.93, 0.90),
    }
    results = [Result(s, 0.1, [run(a) for a in accuracies]) for s, accuracies in finals.items()]
    below, itself, alike = [row["against cdmsgd"] for row in _rows(results, 0.5)]
    assert below.startswith("-10.07 (-10.21 to -9.92)") and below.endswith("*")
    assert itself == "" and "*" not in alike
    assert [row["algorithm"] for row in _rows(results, 0.5)][2] == "fedavg, momentum"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"algorithms": ("adam",)}, "--algorithms: unknown choice 'adam'; expected all, cdmsgd"),
        ({"algorithms": ()}, "--algorithms, --learning-rates: give one"),
        ({"learning_rates": ()}, "--algorithms, --learning-rates: give one"),
        ({"learning_rates": (0.1, -1.0)}, "--learning-rate: "),
        ({"seeds": 0}, "--seeds: 0 is too few; give at least 1"),
        ({"momentum": 2.0}, "--momentum: "),
        ({"network": Network(agents=5, topology="torus")}, "--topology: "),
    ],
)
def test_bad_options_are_named_before_a_folder_is_made(options, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        compare(Compare(**options, out=tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()
