"""The records of a run as they are written and read."""

import json
import math

import numpy as np
import pytest

from experiments.run import records
from experiments.run.config import Run, replaced
from experiments.run.files import read_records, write_record

RECORD = {"epoch": 1, "step": 5, "dataset": "digits", "train_loss_mean": math.nan, "seconds": 0.5}
FINITE = RECORD | {"train_loss_mean": 0.25}


def written(folder, *records):
    with (folder / "metrics.jsonl").open("w") as file:
        for record in records:
            write_record(file, record)
    return (folder / "metrics.jsonl").read_text().splitlines()


def test_a_number_that_is_not_finite_is_null_is_named_beside_and_comes_back(tmp_path):
    rows = [RECORD, RECORD | {"train_loss_mean": math.inf, "seconds": -math.inf}, FINITE]
    first, second, third = (
        json.loads(line, parse_constant=pytest.fail) for line in written(tmp_path, *rows)
    )
    assert first["train_loss_mean"] is None and first["not_finite"] == {"train_loss_mean": "nan"}
    assert second["not_finite"] == {"train_loss_mean": "inf", "seconds": "-inf"}
    assert third == FINITE
    np.testing.assert_equal(read_records(tmp_path), rows)


def test_a_null_of_an_earlier_version_which_is_not_named_is_nan(tmp_path):
    (line,) = written(tmp_path, RECORD)
    plain = {name: value for name, value in json.loads(line).items() if name != "not_finite"}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(plain) + "\n")
    np.testing.assert_equal(read_records(tmp_path), [RECORD])


def test_the_nan_of_an_earlier_version_is_read_alike(tmp_path):
    (line,) = written(tmp_path, RECORD)
    (tmp_path / "metrics.jsonl").write_text(line.replace("null", "NaN") + "\n")
    np.testing.assert_equal(read_records(tmp_path), [RECORD])


def test_runs_that_are_kept_may_move_but_other_options_are_other_runs(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(
        records, "run_together", lambda runs: [{"step": made.append(run) or 1} for run in runs]
    )
    first = replaced(Run(), out=tmp_path / "a")
    moved = replaced(first, out=tmp_path / "b")
    for run in (first, moved, moved):
        [*records.make_together([(run, tmp_path / "run.json")], at_most=2)]
        assert records.kept_records([(run, tmp_path / "run.json")]) == [{"step": 1}]
    assert made == [first]
    other = replaced(moved, seed=1)
    [*records.make_together([(other, tmp_path / "run.json")], at_most=2)]
    assert made == [first, other]
