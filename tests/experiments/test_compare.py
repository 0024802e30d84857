"""The comparison of algorithms, each at its own step size, and its table."""

import json

import pytest

from experiments.compare.config import Compare
from experiments.compare.study import SYSTEMS, Result, _options, _row, compare
from experiments.run.algorithm import ALGORITHMS
from experiments.run.config import Data, Model, Network, Training, flat
from experiments.run.errors import UsageError
from experiments.run.job import check


@pytest.mark.slow
def test_algorithms_are_tuned_run_and_drawn_once(tmp_path, capsys):
    config = Compare(
        network=Network(agents=3), training=Training(batch_size=8, epochs=1), target=0.5,
        data=Data(dataset="digits", train_samples=240, test_samples=60), seeds=1, tune_epochs=1,
        model=Model(model="softmax"), algorithms=("centralized", "fedavg"),
        learning_rates=(1e-9, 0.01), out=tmp_path,
    )  # fmt: skip
    results = compare(config)
    for name, rate, (records,) in results:
        lines = {
            rate: (tmp_path / f"{name}-{rate:g}-epochs-1-seed-0" / "metrics.jsonl").read_text()
            for rate in config.learning_rates
        }
        losses = {rate: json.loads(line)["train_loss_mean"] for rate, line in lines.items()}
        assert rate == min(losses, key=losses.get) and records == [json.loads(lines[rate])]
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("metrics.jsonl")}
    assert len(made) == 4  # the run that chose the step size is the run of the first seed
    assert compare(config) == results
    assert made == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("metrics.jsonl")}
    table = (tmp_path / "table.md").read_text().splitlines()
    assert [row.split("|")[1].strip() for row in table] == [
        "algorithm", "---", "centralized", "fedavg",
    ]  # fmt: skip
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_an_algorithm_gets_the_options_that_it_reads():
    config = Compare(momentum=0.5, period=3, training=Training(size_weighted=True))
    for name in SYSTEMS:
        run = _options(config, name, 0.1)
        check(run)
        read = ALGORITHMS[name].options
        assert flat(run)["momentum"] == (0.5 if "momentum" in read else None)
        assert flat(run)["period"] == (3 if "period" in read else None)
        assert run.training.size_weighted == (name != "fedavg")  # which always is


def test_steps_and_bytes_are_counted_to_the_target():
    columns = ("mean_params_test_accuracy", "train_accuracy_mean", "test_accuracy_max",
               "test_accuracy_min", "consensus_distance")  # fmt: skip

    def run(*accuracies):
        return [
            dict.fromkeys(columns, 0.5)
            | {"step": 10 * number, "bytes_sent": 1000 * number, "test_accuracy_mean": accuracy}
            for number, accuracy in enumerate(accuracies, 1)
        ]

    row = _row(Result("cdsgd", 0.1, [run(0.3, 0.6, 0.7), run(0.3, 0.4, 0.9)]), target=0.6)
    assert row["test %"] == "80.00 ± 10.00" and row["gap"] == "-30.00"
    assert row["steps to 60%"] == "25" and row["sent to 60%"] == "2.5 kB"
    row = _row(Result("cdsgd", 0.1, [run(0.7), run(0.3)]), target=0.6)
    assert row["steps to 60%"] == row["sent to 60%"] == "never"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"algorithms": ("adam",)}, "--algorithms: unknown choice 'adam'; expected all, cdmsgd"),
        ({"algorithms": ()}, "--algorithms, --learning-rates: give one"),
        ({"learning_rates": ()}, "--algorithms, --learning-rates: give one"),
        ({"learning_rates": (0.1, -1.0)}, "--learning-rate: "),
        ({"seeds": 0}, "--seeds, --tune-epochs: give at least 1"),
        ({"momentum": 2.0}, "--momentum: "),
        ({"network": Network(agents=5, topology="torus")}, "--topology: "),
    ],
)
def test_bad_options_are_named_before_a_folder_is_made(options, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        compare(Compare(**options, out=tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()
