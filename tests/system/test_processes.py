"""Runs of several processes: by the launcher, and as the processes of several machines."""

import ast
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

import numpy as np
import pytest

from cdjax import checkpoint, data, topology
from experiments.launch import channel, processes, secret
from experiments.run import alike, signals
from experiments.run.config import Machine, Run, flat, replaced
from experiments.run.errors import UsageError
from experiments.run.signals import common_folder

ROOT = Path(__file__).parents[2]
LAUNCH = (sys.executable, "-m", "experiments.launch", "--num-processes")
OPTIONS = "--agents 8 --topology ring --model softmax --train-samples 320 --batch-size 8"
RUN = (sys.executable, "-m", "experiments.digits", *OPTIONS.split(), "--algorithm", "cdmsgd")
STEPS_PER_EPOCH = 5
SECRET = "for the tests: 0123456789"
WORD = SECRET.encode()
# A process that joins the others and then does as it is told. It spares the seconds of importing
# JAX, which the options' module does too; the runs below have JAX.
MEMBER = """
import os, signal, sys, time, types
distributed = types.SimpleNamespace(
    initialize=lambda *_, **options: None, is_initialized=lambda: False
)
sys.modules["jax"] = types.SimpleNamespace(distributed=distributed)
sys.modules["experiments.run.config"] = types.SimpleNamespace(
    Machine=types.SimpleNamespace, flat=vars
)
from experiments.launch import processes
address, number, process = sys.argv[-5], int(sys.argv[-3]), int(sys.argv[-1])
machine = processes.Machine(
    coordinator=address, num_processes=number, process_id=process, secret_file=None
)
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
            cwd=ROOT, text=True,
            env=os.environ | {"XLA_FLAGS": flags, "COLUMNS": "200", secret.VARIABLE: SECRET},
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
@pytest.mark.parametrize(
    ("name", "values"),
    [("--learning-rate", (0.1, 0.5)), ("--epochs", (2, 3)), ("--agents", (2, 4))],
)
def test_processes_with_unlike_options_end_before_a_folder_is_made(name, values, tmp_path, start):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    common = ("--out", tmp_path / "out", "--coordinator", address, "--num-processes", 2)
    begun = time.monotonic()
    started = [start(*RUN, *common, name, values[i], "--process-id", i) for i in (0, 1)]
    results = finish(*started)
    assert [(code, errors) for code, _, errors in results] == [
        (2, f"error: {name}: {a} here, but {b} in process {i}; start all processes alike\n")
        for a, b, i in ((*values, 1), (*values[::-1], 0))
    ]
    assert not (tmp_path / "out").exists()
    assert time.monotonic() - begun < 60


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
@pytest.mark.sampled(3)
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
            # The others wait, as in a step: who ends at the same moment may be taken for lost too.
            "process == 1 and sys.exit('why'); time.sleep(100)", "", 1,
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
@pytest.mark.sampled(5)
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
        ((None, 2, 1), "--num-processes: it takes --coordinator beside it"),
        ((None, None, 0), "--process-id: it takes --coordinator beside it"),
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
    for found in processes._peers:
        found.peer.close()


@pytest.mark.parametrize(
    ("process_id", "message"), [(0, r"\[1\] did not come within"), (1, "cannot be reached")]
)
def test_a_process_that_is_alone_gives_up(process_id, message, address, monkeypatch):
    monkeypatch.setattr(processes, "_JOIN_SECONDS", 0.5)
    machine = Machine(coordinator=f"127.0.0.1:{address[1]}", num_processes=2, process_id=process_id)
    with pytest.raises(UsageError, match=message):
        processes.join(machine, kept="")


@pytest.fixture
def process_0(address):
    """Process 0 of three, in a thread, and what it returned or raised."""
    ended = []

    def gather():
        try:
            ended.append(processes._gather(address, WORD, 3, {"--seed": "0"}))
        except UsageError as error:
            ended.append(str(error))

    thread = threading.Thread(target=gather)
    thread.start()
    while True:  # until it listens
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(address):
            break
    yield thread, ended
    thread.join()


@pytest.fixture
def member(address):
    """A function by which a process calls process 0; it returns the channel."""
    with contextlib.ExitStack() as stack:

        def call(process, num_processes=3, word=WORD, **facts):
            peer = stack.enter_context(socket.create_connection(address))
            found = channel.called(peer, word)
            facts = {"--seed": "0"} | facts
            found.send({"process": process, "processes": num_processes, "facts": facts})
            return found

        yield call


def test_process_0_takes_each_process_once(process_0, member):
    misfits = [member(1, 2), member(0)]
    assert [misfit.receive(5)["error"] for misfit in misfits] == [
        "--num-processes: process 0 has 3; start each process once",
        "--process-id: there is a process 0 already; start each process once",
    ]  # fmt: skip
    members = [member(process) for process in (2, 1)]
    process_0[0].join()
    assert [found.receive(5) for found in members] == [{"jax_port": process_0[1][0]}] * 2
    assert sorted(processes._peers.values()) == [1, 2]


def answer_to(address, said):
    """All that a caller who says something hears; "" after its end."""
    with socket.create_connection(address) as caller:
        caller.settimeout(20)
        caller.sendall(said)
        with contextlib.suppress(ConnectionResetError):
            heard = b""
            while more := caller.recv(1000):
                heard += more
        return heard


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b'{"process": 1, "processes": 3}\n',
        b"[" * 100_000,
        b"\0" * 1_000_000,
        b"\xff\xfe\n" * 100,
        b"0" * 64 + b" " + b"0" * 64 + b"\n",
    ],
    ids=["web", "hello", "nested", "zeros", "bytes", "guess"],
)
def test_a_stranger_is_turned_away_and_changes_nothing(said, process_0, member, address):
    with contextlib.suppress(OSError):
        challenge, _, rest = answer_to(address, said).partition(b"\n")
        assert len(challenge) == 64 and rest in (b"", b"refused\n")
    assert processes._peers == {}
    found = [member(process) for process in (1, 2)]
    assert "jax_port" in found[0].receive(5) and "jax_port" in found[1].receive(5)


def test_another_secret_is_named_and_the_secret_is_never_sent(
    process_0, member, address, monkeypatch
):
    monkeypatch.setenv(secret.VARIABLE, "another secret: 0123456789")
    machine = Machine(coordinator=f"127.0.0.1:{address[1]}", num_processes=3, process_id=1)
    with pytest.raises(UsageError, match="--secret-file: process 0 at .* has another secret; give"):
        processes._meet(machine, {})
    said = []

    class Overheard(socket.socket):
        def sendall(self, data):
            said.append(data)
            super().sendall(data)

    with Overheard() as caller:
        caller.connect(address)
        channel.called(caller, WORD).send({"process": 1, "processes": 3, "facts": {"--seed": "0"}})
        assert len(said) == 2 and not any(WORD in words for words in said)
        # Nor does what was said let anyone in again: process 0 makes another challenge.
        assert answer_to(address, said[0]).endswith(b"\nrefused\n")
        member(2)
        process_0[0].join()


def test_a_flood_of_silent_and_slow_callers_keeps_nobody_out(process_0, member, address):
    with contextlib.ExitStack() as stack:
        flood = [stack.enter_context(socket.create_connection(address)) for _ in range(150)]
        for caller in flood[::2]:
            with contextlib.suppress(OSError):
                caller.sendall(b"a")
        started = time.monotonic()
        found = [member(process) for process in (1, 2)]
        assert "jax_port" in found[0].receive(5) and "jax_port" in found[1].receive(5)
        assert time.monotonic() - started < 5


@pytest.mark.slow
def test_a_stranger_in_the_place_of_process_0_learns_nothing(address, monkeypatch):
    monkeypatch.setattr(processes, "_JOIN_SECONDS", 0.5)
    heard = []
    with socket.create_server(address) as listener:

        def pretend():
            peer, _ = listener.accept()
            with peer:
                peer.sendall(b"0" * 64 + b"\n")
                heard.append(peer.recv(1000))
                peer.sendall(b"0" * 64 + b"\n")
                heard.append(peer.recv(1000))

        stranger = threading.Thread(target=pretend)
        stranger.start()
        hello = {"process": 1, "processes": 2, "facts": {}}
        with pytest.raises(UsageError, match="cannot be reached"):
            processes._call(address, WORD, hello)
        stranger.join()
    assert len(heard[0]) == 130 and heard[1] == b""


def ends():
    """The two ends of a channel."""
    with contextlib.ExitStack() as stack:
        here, there = (stack.enter_context(end) for end in socket.socketpair())
        found = []
        thread = threading.Thread(target=lambda: found.append(channel.answered(there, WORD)))
        thread.start()
        caller = channel.called(here, WORD)
        thread.join()
        yield caller, found[0]


@pytest.mark.parametrize("flaw", ["another text", "another key", "no key", "too long", "cut"])
def test_a_message_that_is_not_the_other_ends_is_garbled(flaw):
    for caller, other in ends():
        other.send({"end": ""})
        assert caller.receive(5) == {"end": ""}
        said = {
            "another text": channel._proof(other.sending, b"{}") + b' {"end": "has died"}\n',
            "another key": channel._proof(other.receiving, b"{}") + b" {}\n",
            "no key": b'{"end": "has died"}\n',
            "too long": b"0" * 70_000,
            "cut": b'{"end": ',
        }[flaw]
        threading.Thread(target=lambda: other.peer.sendall(said)).start()  # noqa: B023
        with pytest.raises(channel.BROKEN):
            caller.receive(0.5)


def test_processes_that_were_started_unlike_are_told_the_option_and_the_process(process_0, member):
    found = [member(1), member(2, **{"--seed": "1"})]
    assert [one.receive(5)["error"] for one in found] == [
        "--seed: 0 here, but 1 in process 2; start all processes alike",
        "--seed: 1 here, but 0 in process 0; start all processes alike",
    ]
    process_0[0].join()
    assert process_0[1] == ["--seed: 0 here, but 1 in process 2; start all processes alike"]


def test_every_option_is_compared_but_those_of_a_machine(tmp_path):
    own = alike.facts(Run())
    free = {"process_id", "coordinator", "secret_file", "log_every", "data_dir", "out"}
    free |= {"log", "quiet"}  # which the first process reads
    for name in flat(Run()):
        facts = alike.facts(replaced(Run(), **{name: tmp_path / "other"}))
        expected = "" if name in free else f"--{name.replace('_', '-')}: "
        assert alike.difference(own, {3: facts}).startswith(expected), name
        assert ("but" in alike.difference(own, {3: facts})) == (name not in free)
        assert alike.difference(own, {3: dict(own)}) == ""


def test_unlike_code_versions_data_graphs_and_settings_are_told(monkeypatch):
    own = alike.facts(Run())
    monkeypatch.setattr(alike.metadata, "version", lambda package: "0.0.1")
    assert alike.difference(own, {0: alike.facts(Run())}).startswith("jax: ")
    monkeypatch.undo()
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read(path) + b"\n")
    assert "the code of cdjax and" in alike.difference(own, {0: alike.facts(Run())})

    images, labels, ring = np.zeros((4, 2, 2, 1), np.uint8), np.arange(4), topology.ring(4)
    own = alike.of_content(data.Dataset("a", images, labels, images, labels, 4), ring)
    same = data.Dataset("a", images.copy(), labels, images, labels, 4)
    assert alike.difference(own, {0: alike.of_content(same, ring)}) == ""
    other = data.Dataset("a", images, labels, images, labels[::-1], 4)
    assert "the data of " in alike.difference(own, {0: alike.of_content(other, ring)})
    lazy = topology.ring(4, "lazy")
    assert "the graph of " in alike.difference(own, {0: alike.of_content(same, lazy)})

    assert "--resume: step 5 here, but none in" in alike.difference(
        alike.of_settings(5), {0: alike.of_settings(None)}
    )


def test_facts_are_compared_between_the_processes_of_every_launcher(monkeypatch):
    mine, other = {"--seed": "1"}, {"--seed": "0", "more": "x"}
    signals.check_alike(mine)  # alone

    def gathered(own):
        """As of two processes, of which the other has another text, or another number."""
        text = json.dumps(other).encode()
        if own.ndim == 0:
            return np.array([len(text) if own == len(json.dumps(mine)) else 7, own])
        return np.stack([np.frombuffer(text.ljust(len(own)), np.uint8), own])

    monkeypatch.setattr(signals.jax, "process_count", lambda: 2)
    monkeypatch.setattr(signals.jax, "process_index", lambda: 1)
    monkeypatch.setattr(signals.multihost_utils, "process_allgather", gathered)
    with pytest.raises(UsageError, match="--seed: 1 here, but 0 in process 0; start all"):
        signals.check_alike(mine)


def test_a_secret_comes_from_a_file_that_nobody_else_reads(tmp_path, monkeypatch):
    monkeypatch.delenv(secret.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    made = []
    makers = [threading.Thread(target=lambda: made.append(secret.given(None))) for _ in range(8)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    own = tmp_path / "cdjax" / "secret"
    assert {*made} == {own.read_text().strip().encode()} and [*own.parent.iterdir()] == [own]
    assert own.stat().st_mode & 0o777 == 0o600 and len(made[0]) == 64

    own.chmod(0o640)
    with pytest.raises(UsageError, match=r"--secret-file: .*secret can be read by others; chmod"):
        secret.given(None)
    with pytest.raises(UsageError, match="--secret-file: .*nowhere cannot be read .No such file"):
        secret.given(tmp_path / "nowhere")
    (tmp_path / "short").write_text("1234\n")
    (tmp_path / "short").chmod(0o600)
    with pytest.raises(UsageError, match="short is no secret: it has 4 letters; give at least 16"):
        secret.given(tmp_path / "short")
    monkeypatch.setenv(secret.VARIABLE, SECRET)
    assert secret.given(None) == WORD
    with pytest.raises(UsageError, match="short is no secret"):
        secret.given(tmp_path / "short")


def test_nothing_that_is_read_can_run_code():
    """No file of the package or the programs names what executes text or bytes."""
    doors = {"eval", "exec", "compile", "__import__", "pickle", "marshal", "shelve", "dill",
             "cloudpickle", "joblib", "Unpickler", "allow_pickle", "os.system"}  # fmt: skip
    safe = {"yaml.safe_load", "yaml.safe_dump"}
    for path in [*ROOT.glob("cdjax/**/*.py"), *ROOT.glob("experiments/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = set()
            if isinstance(node, ast.Import):
                names = {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {str(node.module).split(".")[0], *(alias.name for alias in node.names)}
                assert "yaml" not in names, (path, node.lineno, "call yaml.safe_load by this name")
            elif isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert not called.startswith("yaml.") or called in safe, (path, node.lineno, called)
                names = {called, *(word.arg for word in node.keywords)}
            assert not names & doors, (path, node.lineno, names & doors)


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
