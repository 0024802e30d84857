"""Finished runs in one figure and one table."""

import json
import re
import sys

import numpy as np
import pytest

from experiments.launch.cli import main
from experiments.overlay import Overlay, found_in, labels_of, overlay
from experiments.report import plots
from experiments.run.config import FORMAT, Run, flat
from tests.experiments.test_page import record


def made(folder, *, epochs=2, records=None, **options):
    """The folder of a run as it leaves it."""
    folder.mkdir(parents=True)
    config = flat(Run()) | {"epochs": epochs, "dataset": "digits", "format": FORMAT} | options
    (folder / "config.json").write_text(json.dumps(config, default=str))
    records = [record(k) for k in (1, 2)] if records is None else records
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in records))
    return folder


def test_runs_are_named_by_what_tells_them_apart(tmp_path):
    def labels(*folders):
        return labels_of([found_in(folder) for folder in folders])

    ring = made(tmp_path / "ring", topology="ring", out="elsewhere", seed=0)
    star = made(tmp_path / "star", topology="star")
    assert labels(ring, star) == ["topology ring", "topology star"]
    assert labels(ring, made(tmp_path / "again", topology="ring")) == ["ring", "again"]
    assert labels(ring, ring) == [str(ring), f"{ring} (1)"]
    many = made(tmp_path / "many", agents=9, learning_rate=0.5, algorithm="atc", model="mlp")
    assert labels(ring, many) == ["ring", "many"]


def test_the_table_holds_each_run_s_last_numbers(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    good = made(tmp_path / "a", algorithm="cdmsgd")
    cut = made(tmp_path / "b", algorithm="atc", epochs=9, records=[record(1, bytes_sent=3e9)])
    overlay(Overlay((good, cut), out=tmp_path / "out"))
    printed = capsys.readouterr().out
    written = (tmp_path / "out" / "overlay.md").read_text(encoding="utf-8")
    for text in (printed, written):
        assert re.search(r"algorithm cdmsgd.* 2 .*80.00% \(70.00% to 90.00%\).*2 kB", text)
        assert re.search(r"algorithm atc.* 1 of 9 .*3 GB", text)
    assert (tmp_path / "out" / "overlay.png").read_bytes().startswith(b"\x89PNG")


def test_the_figure_draws_each_run_against_epochs_and_against_bytes():
    runs = {"a": [record(1), record(2)], "b": [record(1, consensus_distance=0.0)]}
    by_epoch, by_bytes, below_epoch, _ = plots.overlay(runs, "two").axes
    for axes, x in ((by_epoch, [1, 2]), (by_bytes, [1e-6, 2e-6])):
        np.testing.assert_allclose(axes.lines[0].get_xdata(), x)
        np.testing.assert_allclose(axes.lines[0].get_ydata(), [80, 80])
    assert np.isnan(below_epoch.lines[1].get_ydata()).all()  # one agent never disagrees
    assert below_epoch.get_yscale() == "log"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "RUN: .*nowhere is no run's folder: it has no config.json"),
        ("empty", "RUN: .*empty has no evaluation yet; give a finished run"),
        ("no-metrics", "RUN: .*no-metrics has no metrics.jsonl; give a finished run"),
        ("bad-metrics", "RUN: .*metrics.jsonl is damaged"),
        ("bad-options", "RUN: .*config.json is damaged"),
        ("", "RUN: no run is given"),
    ],
)
def test_a_bad_folder_is_one_line(name, message, tmp_path, monkeypatch, capsys):
    made(tmp_path / "empty", records=[])
    (made(tmp_path / "no-metrics") / "metrics.jsonl").unlink()
    (made(tmp_path / "bad-metrics") / "metrics.jsonl").write_text('{"epoch": 1')
    (made(tmp_path / "bad-options") / "config.json").write_text("{")
    monkeypatch.setattr("experiments.launch.processes.join", lambda *args, **kwargs: None)
    words = [str(tmp_path / name)] if name else []
    monkeypatch.setattr(sys, "argv", ["overlay", *words, "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as stop:
        main(Overlay(()), overlay)
    out, errors = capsys.readouterr()
    (line,) = errors.splitlines()
    assert stop.value.code == 2 and not out and re.search(f"^error: {message}", line), line
    assert not (tmp_path / "out").exists()
