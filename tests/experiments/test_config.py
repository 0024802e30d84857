"""Options by subject: found, replaced, written down, and refused where nothing reads them."""

import dataclasses
import json
from pathlib import Path
from typing import get_type_hints

import pytest

from experiments.run import config
from experiments.run.algorithm import ALGORITHMS
from experiments.run.checks import check_options
from experiments.run.config import Run, flat, from_record, replaced, run_of
from experiments.run.disturbance import ATTACKS, FAULTS, MIXERS
from experiments.run.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Study:
    """A study that has two of a run's parts, and a word of its own."""

    network: config.Network = dataclasses.field(default_factory=config.Network)
    data: config.Data = dataclasses.field(default_factory=config.Data)
    seeds: int = 3


def test_every_option_stands_in_one_part_only():
    names = [
        name
        for part in dataclasses.fields(Run)
        for name in get_type_hints(type(getattr(Run(), part.name)))
    ]
    assert len(names) == len(set(names)) == len(flat(Run()))


def test_options_are_replaced_wherever_they_stand():
    run = replaced(Run(), agents=7, algorithm="cdsgd", dataset="digits")
    assert (run.network.agents, run.algorithm.algorithm, run.data.dataset) == (7, "cdsgd", "digits")
    assert {n for n, v in flat(run).items() if v != flat(Run())[n]} == {
        "agents", "algorithm", "dataset"
    }  # fmt: skip
    with pytest.raises(TypeError, match="no such options: agent$"):
        replaced(Run(), agent=7)


def test_a_study_lends_its_parts_to_its_runs():
    study = replaced(Study(), agents=3, seeds=1)
    assert study.seeds == 1
    run = run_of(study, algorithm="atc")
    assert run == replaced(Run(), agents=3, algorithm="atc")


def test_options_come_back_from_json_as_they_were():
    run = replaced(
        Run(), out=Path("a/b"), data_dir=Path("c"), without_agents=(1, 2), momentum=0.5, agents=4
    )
    record = json.loads(json.dumps(flat(run) | {"format": config.FORMAT}, default=str))
    assert from_record(record) == run
    with pytest.raises(UsageError, match="older version"):
        from_record({"agents": 4, "schedule": ["fixed", "synchronous"]})


# Every option that only some rows read, with a value that is not its default.
GIVEN = {
    "momentum": 0.5, "period": 3, "client_fraction": 0.5, "talk_probability": 0.5,
    "asynchronous": True, "num_trimmed": 2, "clip_radius": 2.0, "malicious": 2,
    "attack_strength": 2.0, "absence_duration": 2, "rounds": 3, "accelerated": True,
    "own_weight": 0.2, "tracking_form": "atc", "buffer_decay": 0.5, "nesterov": True,
    "outer_learning_rate": 0.5, "outer_momentum": 0.3, "fragments": 2, "delay": 1, "merge": 0.5,
    "compressor": "sign", "fraction": 0.5, "consensus_step": 0.5, "margin": 0.2, "rank": 2,
    "kept": 8, "chunk": 16, "value_bits": 4,
}  # fmt: skip


@pytest.mark.parametrize(
    ("option", "rows"), [("algorithm", ALGORITHMS), ("mixer", MIXERS), ("attack", ATTACKS)]
)
@pytest.mark.sampled(3)
def test_an_option_that_the_choice_does_not_read_is_an_error_that_names_both(option, rows):
    optional = {name for row in rows.values() for name in row.options}
    assert optional
    for choice, row in rows.items():
        for name in optional:
            run = replaced(Run(), **{option: choice, name: GIVEN[name]})
            if name in row.options:
                check_options(run)
                continue
            with pytest.raises(UsageError, match=f"--{name.replace('_', '-')}: .*{choice} has no"):
                check_options(run)


def test_every_option_of_a_row_is_one_of_the_command_line():
    rows = [*ALGORITHMS.values(), *MIXERS.values(), *ATTACKS.values(), *FAULTS.values()]
    assert {name for row in rows for name in row.options} <= {*flat(Run())}
    assert {*FAULTS} <= {*flat(Run())}


def test_size_weighting_is_refused_where_it_is_always_so_or_cannot_be():
    check_options(replaced(Run(), size_weighted=True, algorithm="centralized"))
    with pytest.raises(UsageError, match="--size-weighted: fedavg always is"):
        check_options(replaced(Run(), size_weighted=True, algorithm="fedavg"))
    with pytest.raises(UsageError, match="--size-weighted: cga has none"):
        check_options(replaced(Run(), size_weighted=True, algorithm="cga"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"algorithm": "adam"}, "--algorithm: unknown choice 'adam'; expected cdmsgd, cdmsgd-po"),
        ({"dataset": "imagenet"}, "--dataset: unknown choice 'imagenet'; expected cifar10"),
        ({"schedule": "slow"}, "--schedule: unknown choice 'slow'; expected fixed, diminishing"),
        ({"on_nan": "panic"}, "--on-nan: unknown choice 'panic'; expected stop, drop, ignore"),
        ({"mixer": "mean"}, "--mixer: unknown choice 'mean'; expected auto, trimmed-mean"),
    ],
)
def test_a_run_made_in_python_has_its_choices_checked_too(options, message):
    with pytest.raises(UsageError, match=message):
        check_options(replaced(Run(), **options))
