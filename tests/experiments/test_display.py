"""What a run prints fits where it is printed: terminals of any width, pipes, notebooks, CI."""

import io
import re
import types

import numpy as np
import pytest
from rich.console import Console

from experiments.report.tables import pairs
from experiments.run import display, terminal

ROWS = {"loss": np.full((3, 4), 0.5), "accuracy": np.full((3, 4), 0.25)}
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


@pytest.fixture
def job():
    """As much of a job as a bar reads."""
    problem = types.SimpleNamespace(num_steps=1000, batch_size=8)
    state = types.SimpleNamespace(step=np.int32(0))
    return types.SimpleNamespace(
        problem=problem, state=state, network=types.SimpleNamespace(num_agents=4)
    )


def console_of(monkeypatch, **options):
    """A console of these options, with no variable but those of ``env`` that changes it."""
    for name in ("CI", "NO_COLOR", "TERM", "COLUMNS", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in options.pop("env", {}).items():
        monkeypatch.setenv(name, value)
    return Console(file=io.StringIO(), **options)


def shown(job, monkeypatch, *, reports=2, **options):
    """What a console of these options shows of a run."""
    console = console_of(monkeypatch, **options)
    with terminal.waiting(console, "preparing"):
        pass
    with display.progress_bar(console) as bars:
        report = display.reporter(bars, job)
        for _ in range(reports):
            report(3, 0.1, ROWS, 0.01)
            bars.refresh()
    return console.file.getvalue()


def shown_of_a_study(monkeypatch, **options):
    """What a console of these options shows of a study of three runs."""
    console = console_of(monkeypatch, **options)
    terminal.tracked(console, "runs", iter(range(3)), total=3)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80, 140, 200])
def test_a_bar_is_one_line_however_narrow_the_terminal(width, job, monkeypatch):
    text = shown(job, monkeypatch, force_terminal=True, width=width)
    lines = [line for line in CONTROL.sub("\n", text).split("\n") if line.strip()]
    assert lines and max(map(len, lines)) <= width
    assert any("6/1000" in line for line in lines)
    assert any("loss 0.500 acc 25.0%" in line for line in lines) == (width >= 60)
    assert any("30.0 steps/s" in line for line in lines) == (width >= 80)
    assert any("distance 1.0e-02" in line for line in lines) == (width >= 140)
    assert "…" not in text


NO_BAR = pytest.mark.parametrize(
    "options",
    [
        {"force_terminal": False},  # a file, a pipe, nohup
        {"force_jupyter": True},
        {"force_terminal": True, "env": {"CI": "true"}},
        {"force_terminal": True, "env": {"TERM": "dumb"}},
        {"force_terminal": True, "quiet": True},
    ],
    ids=["pipe", "notebook", "CI", "dumb", "quiet"],
)


@NO_BAR
def test_where_a_line_cannot_be_redrawn_there_is_no_bar(options, job, monkeypatch):
    assert shown(job, monkeypatch, **options) == ""


@NO_BAR
def test_nor_does_a_study_draw_one_there(options, monkeypatch):
    assert shown_of_a_study(monkeypatch, **options) == ""


def test_a_study_counts_its_runs(monkeypatch):
    assert "3/3" in shown_of_a_study(monkeypatch, force_terminal=True, width=80)
    monkeypatch.setattr(terminal, "_SECONDS_PER_LINE", 0.0)
    lines = shown_of_a_study(monkeypatch, force_terminal=False, width=80).splitlines()
    assert lines == ["runs: 1 of 3", "runs: 2 of 3", "runs: 3 of 3"]


def test_without_a_bar_a_line_a_minute_says_that_the_run_goes_on(job, monkeypatch):
    monkeypatch.setattr(terminal, "_SECONDS_PER_LINE", 0.0)
    text = shown(job, monkeypatch, force_terminal=False, width=80)
    first, second = text.splitlines()
    assert first == "step 3 of 1000  30.0 steps/s  loss 0.500 acc 25.0%"
    assert second.startswith("step 6 of 1000")


def test_no_color_means_none(job, monkeypatch):
    text = shown(job, monkeypatch, force_terminal=True, width=80, env={"NO_COLOR": "1"})
    colors = [code for code in re.findall(r"\x1b\[([0-9;]*)m", text) if code not in ("", "0")]
    assert not [code for code in colors if re.search(r"(^|;)(3[0-8]|4[0-8]|9\d)", code)]


def test_a_table_shows_a_long_path_whole_in_a_narrow_terminal():
    file, path = io.StringIO(), "runs/" + "x" * 90
    Console(file=file, width=40).print(pairs("title", {"folder": path}))
    folded = re.sub(r"[^x/runs]", "", "".join(file.getvalue().splitlines()[2:-1]))
    assert path in folded.replace("folder", "")
    assert max(map(len, file.getvalue().splitlines())) <= 40
