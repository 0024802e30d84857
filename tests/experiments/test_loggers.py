"""Where records go besides the run's folder."""

import contextlib
import math
import struct
import sys
import time
import types

import pytest

from experiments.run import files, loggers
from experiments.run.checks import check_options
from experiments.run.config import Run, replaced
from experiments.run.errors import RunEnded, UsageError
from experiments.run.runner import run
from tests.experiments.test_page import SMALL, record

RECORDS = [record(1), record(2, train_loss_mean=math.inf)]


def log(names, folder, records=RECORDS, *, step=0, warn=pytest.fail):
    options = {"agents": 4, "algorithm": "cdmsgd"}
    with loggers.opened(names, folder=folder, options=options, step=step, warn=warn) as write:
        for one in records:
            write(one)


def read_events(path):
    """What is in one of TensorBoard's files."""
    from tensorboardX.proto.event_pb2 import Event

    data = path.read_bytes()
    while data:  # a length and its checksum, the event and its
        (size,) = struct.unpack("<Q", data[:8])
        yield Event.FromString(data[12 : 12 + size])
        data = data[16 + size :]


def scalars_of(folder):
    """The scalars in TensorBoard's files, by tag and step."""
    events = [event for path in (folder / "tensorboard").iterdir() for event in read_events(path)]
    return {
        (value.tag, event.step): value.simple_value
        for event in events
        for value in event.summary.value
        if value.HasField("simple_value")
    }


def test_tensorboard_s_files_hold_every_number_and_need_no_tensorflow(tmp_path):
    pytest.importorskip("tensorboardX")
    before = {*sys.modules}
    log(["tensorboard"], tmp_path)
    assert not {name for name in sys.modules if name.split(".")[0] == "tensorflow"} - before
    found = scalars_of(tmp_path)
    assert found["test_accuracy_mean", 5] == pytest.approx(0.8)
    assert found["bytes_sent", 10] == 2000 and found["train_loss_mean", 10] == math.inf
    assert {tag for tag, _ in found} == {*RECORDS[0]} - {"dataset", "epoch", "step"}


def test_a_run_that_goes_on_takes_back_what_tensorboard_has_beyond_its_checkpoint(tmp_path):
    pytest.importorskip("tensorboardX")
    log(["tensorboard"], tmp_path, step=5)
    (path,) = (tmp_path / "tensorboard").iterdir()
    starts = [event.step for event in read_events(path) if event.HasField("session_log")]
    assert starts == [6]


class FakeRun:
    """Notes what it is told, as a run of Weights & Biases."""

    def __init__(self, calls):
        self.calls = calls

    def log(self, values, step):
        self.calls.append(("log", values, step))

    def finish(self, exit_code):
        self.calls.append(("finish", exit_code))


@pytest.fixture
def wandb(monkeypatch):
    """A module in wandb's place, and the calls to it."""
    calls = []

    def init(**options):
        calls.append(("init", options))
        return FakeRun(calls)

    fake = types.SimpleNamespace(init=init, Settings=lambda **options: options, calls=calls)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_wandb_is_told_of_the_options_of_every_record_and_of_the_end(wandb, tmp_path):
    folder = tmp_path / "digits-ring"
    log(["wandb"], folder)
    (_, options), first, second, end = wandb.calls
    assert options["config"] == {"agents": 4, "algorithm": "cdmsgd"}
    # The same run when it goes on, and no hands on the terminal.
    assert options["id"] == options["name"] == "digits-ring" and options["resume"] == "allow"
    assert options["dir"] == str(folder) and options["settings"]["console"] == "off"
    assert first[1]["test_accuracy_mean"] == 0.8 and first[1]["epoch"] == 1
    assert "dataset" not in first[1] and (first[2], second[2]) == (5, 10)
    assert end == ("finish", 0)


def test_wandb_learns_that_a_run_has_failed(wandb, tmp_path):
    with pytest.raises(RunEnded):
        with loggers.opened(["wandb"], folder=tmp_path, options={}, step=0, warn=print):
            raise RunEnded("diverged")
    assert wandb.calls[-1] == ("finish", 1)


@pytest.mark.slow
def test_wandb_itself_logs_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    log(["wandb"], tmp_path)
    (found,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    deadline = time.monotonic() + 60  # it is written by a process of wandb's own
    while b"test_accuracy_mean" not in found.read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_logger_that_fails_is_told_of_once_and_the_others_go_on(wandb, tmp_path, monkeypatch):
    told, written = [], []

    def broken(self, values, step):
        raise OSError("no room")

    @contextlib.contextmanager
    def healthy(folder, options, step):
        yield written.append

    monkeypatch.setattr(FakeRun, "log", broken)
    monkeypatch.setitem(loggers.LOGGERS, "healthy", loggers.Logger(healthy, "json", "", ""))
    log(["wandb", "healthy"], tmp_path, warn=told.append)
    assert told == ["--log: wandb has failed and is left out from here on: no room"]
    assert written == RECORDS


def test_a_logger_that_cannot_be_opened_ends_the_run_in_one_line(wandb, tmp_path, monkeypatch):
    monkeypatch.setattr(wandb, "init", lambda **options: 1 / 0)
    message = "^--log: wandb cannot be opened: division by zero; set WANDB_MODE=offline to log"
    with pytest.raises(RunEnded, match=message):
        log(["wandb"], tmp_path)


@pytest.mark.parametrize(("name", "row"), loggers.LOGGERS.items())
def test_a_package_that_is_missing_is_named_with_its_extra(name, row, monkeypatch):
    monkeypatch.setitem(sys.modules, row.package, None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    message = rf"--log: {name} needs {row.package}; pip install 'cdjax\[{row.extra}\]'"
    with pytest.raises(UsageError, match=message):
        check_options(replaced(Run(), log=(name,)))


@pytest.mark.slow
def test_a_quiet_run_prints_nothing_logs_and_leaves_the_same_folder(
    wandb, tmp_path, capfd, monkeypatch
):
    monkeypatch.setattr(loggers, "check_loggers", lambda names: None)
    monkeypatch.setattr("experiments.run.checks.check_loggers", lambda names: None)
    records = run(replaced(SMALL, quiet=True, log=("wandb",)), folder=tmp_path)
    assert capfd.readouterr() == ("", "")
    names = {path.name for path in tmp_path.iterdir()}
    assert {"report.html", "curves.png", "metrics.jsonl", "config.json"} <= names
    assert [call[2] for call in wandb.calls if call[0] == "log"] == [records[-1]["step"]]
    assert wandb.calls[0][1]["config"] == files.read_options(tmp_path)
