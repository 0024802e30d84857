"""Runs that are made together by one program."""

import math

import numpy as np
import pytest

from experiments.run.config import Run, replaced
from experiments.run.errors import UsageError
from experiments.run.runner import run
from experiments.run.together import run_together

SMALL = replaced(
    Run(), dataset="digits", model="softmax", agents=3, topology="ring", batch_size=64, epochs=2,
    partition="dirichlet", dirichlet_alpha=5.0, evaluate_train=True, devices="1",
)  # fmt: skip
ON_THE_WAY = {"train_loss_mean", "train_accuracy_mean", "consensus_bound", "bytes_sent", "seconds"}


@pytest.mark.parametrize(
    "options",
    [
        {"algorithm": "cdmsgd"},
        pytest.param(
            {"algorithm": "centralized", "momentum": 0.9, "schedule": "cosine"},
            marks=pytest.mark.slow,
        ),
        pytest.param({"algorithm": "gossip-pair", "init": "independent"}, marks=pytest.mark.slow),
    ],
)
@pytest.mark.slow
def test_runs_made_together_end_where_each_ends_by_itself(options, tmp_path):
    runs = [
        replaced(SMALL, **options, seed=seed, learning_rate=rate, out=tmp_path)
        for seed, rate in [(0, 0.01), (1, 0.03)]
    ]
    for own, record in zip(runs, run_together(runs), strict=True):
        last = run(own, folder=tmp_path / f"{own.training.seed}", quiet=True)[-1]
        assert not record.pop("diverged") and {*last} - {*record} <= ON_THE_WAY
        for name, value in record.items():
            # An image on the verge of two classes may fall to either side.
            slack = {"rel": 1e-4} if "accuracy" not in name else {"abs": 1.5 / 360}
            assert last[name] == (
                value if isinstance(value, str) else pytest.approx(value, **slack)
            )


@pytest.mark.slow
def test_a_run_that_diverges_is_named_and_leaves_the_others_alone():
    calm, wild = (replaced(SMALL, algorithm="cdsgd", learning_rate=rate) for rate in (0.01, 1e38))
    alone, (beside, diverged) = run_together([calm])[0], run_together([calm, wild])
    assert diverged["diverged"] and not beside["diverged"]
    assert beside["test_loss"] == pytest.approx(alone["test_loss"], rel=1e-5)
    assert np.isfinite(beside["test_loss"]) and not math.isfinite(diverged["test_loss"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_samples": 200}, "--train-samples: not for runs that are made together .*; leave"),
        ({"size_weighted": True}, "--size-weighted: not for runs that are made together"),
        ({"algorithm": "fedavg"}, "--algorithm: not for runs .*; give another"),
        ({"algorithm": "led"}, "--algorithm: led reads its step size before the first step"),
        ({"learning_rate": -1.0}, "--learning-rate: -1.0 is not in"),
    ],
)
def test_runs_that_cannot_be_made_together_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        run_together([replaced(SMALL, **options)])


def test_runs_that_differ_in_more_are_refused():
    with pytest.raises(UsageError, match="--agents: runs made together differ in it"):
        run_together([SMALL, replaced(SMALL, agents=4)])
