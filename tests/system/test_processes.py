"""Runs of several processes: by the launcher, and as the processes of several machines."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cdjax import checkpoint
from experiments.launch import processes
from experiments.run.config import Machine
from experiments.run.errors import UsageError
from experiments.run.signals import common_folder

ROOT = Path(__file__).parents[2]
LAUNCH = (sys.executable, "-m", "experiments.launch", "--num-processes")
OPTIONS = "--agents 8 --topology ring --model softmax --train-samples 320 --batch-size 8"
RUN = (sys.executable, "-m", "experiments.digits", *OPTIONS.split(), "--algorithm", "cdmsgd")
STEPS_PER_EPOCH = 5
# A process that joins the others and then does as it is told. It spares the seconds of importing
# JAX, which the options' module does too; the runs below have JAX.
MEMBER = """
import os, signal, sys, time, types
distributed = types.SimpleNamespace(initialize=lambda *_: None, is_initialized=lambda: False)
sys.modules["jax"] = types.SimpleNamespace(distributed=distributed)
sys.modules["experiments.run.config"] = types.SimpleNamespace(Machine=types.SimpleNamespace)
from experiments.launch import processes
address, number, process = sys.argv[-5], int(sys.argv[-3]), int(sys.argv[-1])
machine = processes.Machine(coordinator=address, num_processes=number, process_id=process)
processes.join(machine, kept="the rest is kept")
print("joined", flush=True)
exec(sys.argv[1])
"""


@pytest.fixture
def start():
    """Starts a process that ends with the test, children and all."""
    started = []

    def start(*command, devices=1):
        flags = f"--xla_force_host_platform_device_count={devices}"
        started.append(subprocess.Popen(
            [*map(str, command)],
            cwd=ROOT, env=os.environ | {"XLA_FLAGS": flags, "COLUMNS": "200"}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        ))  # fmt: skip
        return started[-1]

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def start_all(start):
    """Starts processes as the users of several machines do, one by one."""

    def start_all(num_processes, *command):
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = f"127.0.0.1:{server.getsockname()[1]}"
        common = ("--coordinator", address, "--num-processes", num_processes, "--process-id")
        return [start(*command, *common, i) for i in range(num_processes)]

    return start_all


def finish(*started):
    """Exit code, output and errors of each."""
    results = [process.communicate(timeout=300) for process in started]
    return [(p.returncode, *result) for p, result in zip(started, results, strict=True)]


def finish_well(*started):
    results = finish(*started)
    for code, _, errors in results:
        assert code == 0, errors
    return results[0][1]


def wait_for_records(out, started):
    deadline = time.monotonic() + 300
    while not any(path.stat().st_size for path in out.glob("*/metrics.jsonl")):
        assert time.monotonic() < deadline and all(p.poll() is None for p in started)
        time.sleep(0.05)


def only_folder(out):
    (folder,) = out.iterdir()
    return folder


def assert_same_records(out, expected_out):
    records, expected = (
        [json.loads(line) | {"seconds": 0} for line in path.read_text().splitlines()]
        for path in (only_folder(folder) / "metrics.jsonl" for folder in (out, expected_out))
    )
    for record, other in zip(records, expected, strict=True):
        assert record.pop("dataset") == other.pop("dataset") == "digits"
        assert record == pytest.approx(other, rel=1e-4)


@pytest.mark.slow
def test_two_processes_of_two_devices_record_what_one_process_does(tmp_path, start):
    together = start(*LAUNCH, 2, "--", *RUN, "--epochs", 2, "--out", tmp_path / "two", devices=2)
    assert "4 × cpu" in finish_well(together)
    finish_well(start(*RUN, "--epochs", 2, "--out", tmp_path / "one"))
    assert_same_records(tmp_path / "two", tmp_path / "one")


@pytest.mark.slow
def test_processes_go_on_together_from_a_checkpoint_and_alone(tmp_path, start):
    half = (*LAUNCH, 2, "--", *RUN, "--checkpoint-every", 1, "--out", tmp_path / "half")
    finish_well(start(*half, "--epochs", 1, devices=2))
    finish_well(start(*RUN, "--epochs", 2, "--out", tmp_path / "whole"))
    folder = only_folder(tmp_path / "half")
    assert checkpoint.steps(folder / "checkpoints") == [STEPS_PER_EPOCH]
    alone = tmp_path / "alone" / "run"
    shutil.copytree(folder, alone)

    more = (*RUN[:3], "--epochs", 2, "--resume")
    finish_well(start(*LAUNCH, 2, "--", *more, folder))
    output = finish_well(start(*more, alone))
    assert f"at step {STEPS_PER_EPOCH}\n" in output
    for name in ("half", "alone"):
        assert_same_records(tmp_path / name, tmp_path / "whole")


@pytest.mark.slow
def test_a_signal_to_one_process_makes_all_save_the_same_step(tmp_path, start_all):
    options = ("--checkpoint-every", 100, "--epochs", 100_000, "--out", tmp_path)
    started = start_all(2, *RUN, *options)
    wait_for_records(tmp_path, started)
    started[1].terminate()
    results = finish(*started)
    folder = only_folder(tmp_path)
    (step,) = checkpoint.steps(folder / "checkpoints")
    for code, _, errors in results:
        assert code == 143
        assert errors == f"stopped: SIGTERM after {step} steps; go on with --resume {folder}\n"


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_the_death_of_a_process_of_a_run_ends_the_other_with_its_name(victim, tmp_path, start_all):
    keep = ("--checkpoint-every", 1) if victim else ()
    started = start_all(2, *RUN, "--epochs", 100_000, "--out", tmp_path, *keep)
    wait_for_records(tmp_path, started)
    started[victim].kill()
    code, _, errors = finish(*started)[1 - victim]
    assert code == 1 and "Traceback" not in errors
    line = f"error: process {victim} has died, so the run cannot go on; the metrics so far are kept"
    line += "; start all processes again with --resume" if victim else ""
    assert errors.endswith(f"{line}\n")  # JAX may have said more above it


@pytest.mark.slow
def test_an_option_wrong_in_every_process_is_one_line(tmp_path, start):
    options = ("--agents", 5, "--out", tmp_path / "out")
    ((code, _, errors),) = finish(start(*LAUNCH, 2, "--", *RUN, *options))
    assert code == 2
    assert errors == (
        "error: --devices: 5 agents do not divide among 2 devices; take 4 or 6 agents, or 1 "
        "device\n"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("act", "codes", "end"),
    [
        ("time.sleep(process / 5)", [0, 0, 0], ""),
        ("time.sleep((2 - process) / 5)", [0, 0, 0], ""),
        ("processes.leave(2)", [2, 2, 2], ""),
        ("process == 2 and processes.leave(3); time.sleep(100)", [1, 1, 3],
         "process 2 has ended with exit code 3"),
        ("process == 1 and os.kill(os.getpid(), 9); time.sleep(100)", [1, -9, 1],
         "process 1 has died"),
        ("process == 0 and os.kill(os.getpid(), 9); time.sleep(100)", [-9, 1, 1],
         "process 0 has died"),
    ],
)  # fmt: skip
def test_the_others_end_in_their_own_way_or_name_the_process_that_is_lost(
    act, codes, end, start_all
):
    line = f"error: {end}, so the run cannot go on; the rest is kept\n"
    results = finish(*start_all(3, sys.executable, "-c", MEMBER, act))
    assert [(code, errors) for code, _, errors in results] == [
        (code, line if code == 1 else "") for code in codes
    ]


@pytest.mark.parametrize(
    ("act", "words", "code", "errors"),
    [
        ("pass", "", 0, ""),
        (
            "sys.exit('why' if process == 1 else 0)", "", 1,
            "why\nerror: process 1 has died (exit code 1), so the run cannot go on; the "
            "metrics so far are kept\n",
        ),
        ("print('error: --x: no', file=sys.stderr); processes.leave(2)", "", 2, "error: --x: no\n"),
        (
            "process == 1 and os.kill(os.getpid(), 9); time.sleep(100)", "", 137,
            "error: process 1 has died (signal 9), so the run cannot go on; the metrics so far are "
            "kept\n",
        ),
        (
            "process == 0 and os.kill(os.getpid(), 9); time.sleep(100)",
            "--checkpoint-every 1", 137,
            "error: process 0 has died (signal 9), so the run cannot go on; the metrics so far are "
            "kept; start again with --resume\n",
        ),
    ],
)  # fmt: skip
def test_the_launcher_ends_all_processes_and_says_why_once(act, words, code, errors, start):
    command = (*LAUNCH, 3, "--", sys.executable, "-c", MEMBER, act, *words.split())
    assert finish(start(*command)) == [(code, "joined\n", errors)]


def test_the_launcher_passes_a_signal_on_once(start):
    act = """
caught = []
signal.signal(signal.SIGINT, lambda *_: caught.append(1))
print("ready", flush=True)
while not caught: time.sleep(0.01)
time.sleep(0.5)
print("caught", len(caught), file=sys.stderr)
processes.leave(130)
"""
    launcher = start(*LAUNCH, 2, "--", sys.executable, "-c", MEMBER, act)
    assert [launcher.stdout.readline() for _ in range(2)] == ["joined\n", "ready\n"]
    time.sleep(0.5)  # for process 1, whose output is kept back
    os.killpg(launcher.pid, signal.SIGINT)  # as the terminal does at Ctrl-C
    assert finish(launcher) == [(130, "", "caught 1\n")]


@pytest.mark.parametrize(
    ("machine", "message"),
    [
        (("127.0.0.1:1", None, None), "--coordinator: it takes --num-processes and --process-id"),
        (("nowhere", 2, 0), "--coordinator: 'nowhere' is not of the form HOST:PORT"),
        (("127.0.0.1:9", 2, 2), "--process-id: 2 is none of 2 processes; give 0 to 1"),
        (("127.0.0.1:9", 0, 0), "--num-processes: 0 is too few"),
        (("192.0.2.1:9", 2, 0), "--coordinator: process 0 cannot listen at 192.0.2"),
        (("127.0.0.1:0", 2, 0), "--coordinator: .* is not of the form"),
    ],
)
def test_bad_options_are_named(machine, message):
    names = ("coordinator", "num_processes", "process_id")
    with pytest.raises(UsageError, match=message):
        processes.join(Machine(**dict(zip(names, machine, strict=True))), kept="")


@pytest.fixture
def address(monkeypatch):
    """A port that is free."""
    monkeypatch.setattr(processes, "_peers", {})
    with socket.create_server(("127.0.0.1", 0)) as server:
        where = server.getsockname()
    yield where
    for peer in processes._peers:
        peer.close()


@pytest.mark.parametrize(
    ("process_id", "message"), [(0, r"\[1\] did not come within"), (1, "cannot be reached")]
)
def test_a_process_that_is_alone_gives_up(process_id, message, address, monkeypatch):
    monkeypatch.setattr(processes, "_JOIN_SECONDS", 0.5)
    machine = Machine(coordinator=f"127.0.0.1:{address[1]}", num_processes=2, process_id=process_id)
    with pytest.raises(UsageError, match=message):
        processes.join(machine, kept="")


def test_process_0_takes_each_process_once_and_no_stranger(address):
    ports = []
    gather = threading.Thread(target=lambda: ports.append(processes._gather(address, 3)))
    gather.start()
    while True:  # until it listens
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(address):
            break

    with contextlib.ExitStack() as stack:

        def call(hello):
            caller = stack.enter_context(socket.create_connection(address))
            caller.sendall(f"{hello}\n".encode())
            return stack.enter_context(caller.makefile())

        strangers = [call("GET / HTTP/1.1"), call("[1]"), call("{}")]
        misfits = [call('{"process": 1, "processes": 2}'), call('{"process": 0, "processes": 3}')]
        members = [call(f'{{"process": {process}, "processes": 3}}') for process in (2, 1)]
        gather.join()
        assert [json.loads(lines.readline()) for lines in members] == [{"jax_port": ports[0]}] * 2
        assert [json.loads(lines.readline())["error"] for lines in misfits] == [
            "process 0 has --num-processes 3", "there is a process 0 already",
        ]  # fmt: skip
        assert [lines.readline() for lines in strangers] == [""] * 3
        assert [*processes._peers.values()] == [2, 1]


def test_a_folder_that_a_process_does_not_see_is_named(tmp_path):
    assert common_folder(tmp_path) == tmp_path
    with pytest.raises(UsageError, match="--out: process 0 does not see .*/nowhere; give a folder"):
        common_folder(tmp_path / "nowhere")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("devices", "message"),
    [
        ("3", "--devices: num_devices is 3, but JAX finds 1; give at most 1"),
        ("some", "--devices: 'some' is neither a number, all nor auto"),
    ],
)
def test_a_bad_number_of_devices_is_one_line(devices, message, tmp_path, start):
    ((code, _, errors),) = finish(start(*RUN, "--devices", devices, "--out", tmp_path / "out"))
    assert (code, errors) == (2, f"error: {message}\n")
