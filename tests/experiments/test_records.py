"""The records of a run as they are written and read."""

import json
import math

import numpy as np
import pytest

from experiments.run.files import read_records, write_record

RECORD = {"epoch": 1, "step": 5, "dataset": "digits", "train_loss_mean": math.nan, "seconds": 0.5}


def written(folder, *records):
    with (folder / "metrics.jsonl").open("w") as file:
        for record in records:
            write_record(file, record)
    return (folder / "metrics.jsonl").read_text().splitlines()


def test_a_loss_that_is_not_finite_is_null_in_the_file_and_nan_once_read(tmp_path):
    lines = written(tmp_path, RECORD, RECORD | {"train_loss_mean": math.inf})
    for line in lines:
        assert json.loads(line, parse_constant=pytest.fail)["train_loss_mean"] is None
    np.testing.assert_equal(read_records(tmp_path), [RECORD, RECORD])


def test_the_nan_of_an_earlier_version_is_read_alike(tmp_path):
    (line,) = written(tmp_path, RECORD)
    (tmp_path / "metrics.jsonl").write_text(line.replace("null", "NaN") + "\n")
    np.testing.assert_equal(read_records(tmp_path), [RECORD])
