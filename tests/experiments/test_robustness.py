"""The comparison of mixers under attack and of faults."""

import pytest

from experiments.robustness.config import Robustness
from experiments.robustness.study import _checked, compare
from experiments.run.config import Data, Model, Network, Training
from experiments.run.errors import UsageError


@pytest.mark.slow
def test_the_comparison_tells_who_withstands_and_runs_nothing_twice(tmp_path, capsys):
    config = Robustness(
        network=Network(agents=5), training=Training(batch_size=8, epochs=3), malicious=1,
        data=Data(dataset="digits", train_samples=800, test_samples=60), learning_rate=0.01,
        model=Model(model="softmax"), mixers=("auto", "median"), attacks=("none", "sign-flip"),
        faults=("link-failure",), seeds=1, out=tmp_path,
    )  # fmt: skip
    by_attack, by_fault = compare(config)
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("metrics.jsonl")}
    assert len(made) == 6
    assert compare(config) == (by_attack, by_fault)
    assert made == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("metrics.jsonl")}
    accuracy = {row: {attack: runs[0][-1]["test_accuracy_mean"] for attack, runs in cells.items()}
                for row, cells in by_attack.items()}  # fmt: skip
    assert accuracy["weighted mean"]["sign-flip"] < 0.5 < accuracy["median"]["sign-flip"]
    assert [*by_fault] == ["no fault", "link-failure 0.2"]
    table = (tmp_path / "table.md").read_text()
    assert f"{100 * accuracy['median']['none']:.2f}" in table
    # One seed has no deviation.
    assert "±" not in table.partition("malicious:")[2] and "(no interval: n = 1)" in table
    assert (tmp_path / "robustness.png").read_bytes().startswith(b"\x89PNG")


def test_every_mixer_attack_and_fault_gets_the_options_that_it_reads():
    attacked, faulty = _checked(Robustness(seeds=2, lag=3, clip_radii=(0.5, 2.0)))
    assert [*attacked] == ["weighted mean", "trimmed mean 2", "median", "clipped 0.5", "clipped 2"]
    for row, cells in attacked.items():
        assert [*cells] == ["none", "sign-flip", "noise", "alie"]
        for attack, runs in cells.items():
            trouble = runs[0].trouble
            assert [run.training.seed for run in runs] == [0, 1]
            assert trouble.attack == attack
            assert trouble.malicious == (None if attack == "none" else 2)
            assert trouble.clip_radius == ({"0.5": 0.5, "2": 2.0}.get(row.removeprefix("clipped ")))
    assert [*faulty][0] == "no fault" and [*faulty][-1] == "lag 3"
    absence = faulty["absence 0.2"][0]
    assert (absence.trouble.absence, absence.trouble.absence_duration) == (0.2, 50)
    assert absence.network.topology == "ring"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixers": ("best",)}, "--mixers: unknown choice 'best'; expected auto"),
        ({"attacks": ()}, "--mixers, --attacks: one or more"),
        ({"faults": ("fire",)}, "--faults: unknown choice 'fire'"),
        ({"algorithm": "easgd"}, "--attack: easgd has none; .* cdmsgd or cdmsgd-polyak or cdsgd"),
        ({"fault_topology": "rng"}, "--topology: 'rng' is neither"),
        ({"training": Training()}, "--epochs: give a number"),
        ({"seeds": 0}, "--seeds, --jobs: give at least 1"),
    ],
)
def test_a_comparison_that_cannot_be_runs_nothing(options, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        compare(Robustness(**options, out=tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()
