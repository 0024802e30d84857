"""How a program ends, or goes on: by signals, and where its output cannot be written."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.slow import slow

ROOT = Path(__file__).parents[2]
# A thread that is not a daemon and never ends, as those of a save in progress may be.
STUCK = "threading.Thread(target=threading.Event().wait).start()"
SAVING = f"""
with ended_by_two(), caught_signals() as caught:
    print("ready", flush=True)
    while not caught: time.sleep(0.01)
    print(caught[0].name, flush=True)
    {STUCK}
    time.sleep(2)
print("saved", len(caught), flush=True)
os._exit(0)
"""
PROGRAM = """
import hashlib, os, sys, threading, time
from experiments.run.interrupts import caught_signals, ended_by_two
"""


def started(program, *, ignored=None, **options):
    """A program that has said that it is ready, and ignores a signal from the start."""
    ignore = f"import signal; signal.signal({int(ignored)}, signal.SIG_IGN)" if ignored else ""
    words = [sys.executable, "-c", ignore + PROGRAM + program]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(words, cwd=ROOT, **pipes, **options)
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(
    "program",
    [
        SAVING,
        # After the first signal: between the end of the run and that of the program.
        f"""
with ended_by_two():
    with caught_signals() as caught:
        print("ready", flush=True)
        while not caught: time.sleep(0.01)
    print("SIGINT", flush=True)
    {STUCK}
""",
        # In a call of C that no signal ends.
        """
with ended_by_two():
    print("ready\\nSIGINT", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
""",
        # Before training, where a thread hangs while the program ends.
        f"""
with ended_by_two():
    try:
        print("ready", flush=True)
        time.sleep(100)
    except KeyboardInterrupt:
        print("SIGINT", flush=True)
        {STUCK}
        sys.exit(130)
""",
    ],
    ids=["saving", "ending", "compiling", "loading"],
)
def test_a_second_ctrl_c_ends_at_once_without_a_traceback(program):
    process = started(program)
    time.sleep(0.3)  # until it is in its call
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "SIGINT\n"
    time.sleep(0.05)
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 130 and time.monotonic() - begun < 2


@pytest.mark.parametrize(
    ("sent", "end"),
    [
        ("SIGHUP SIGHUP", "SIGHUP"),  # of a terminal that is closed
        ("SIGUSR1 SIGTERM", "SIGUSR1"),  # of a scheduler that warns, and then means it
        ("SIGTERM SIGTERM", "SIGTERM"),  # of the command timeout, in one moment
        ("SIGUSR2 SIGXCPU", "SIGUSR2"),
    ],
)
@pytest.mark.sampled(4)
def test_who_does_not_insist_leaves_the_time_to_save(sent, end):
    process = started(SAVING)
    for name in sent.split():
        process.send_signal(getattr(signal, name))
        time.sleep(0.05)
    assert process.communicate(timeout=60) == (f"{end}\nsaved 2\n", "")
    assert process.returncode == 0


def test_a_signal_that_is_ignored_stays_so():
    process = started(SAVING, ignored=signal.SIGHUP)
    for number in (signal.SIGHUP, signal.SIGINT):
        process.send_signal(number)
        time.sleep(0.05)
    assert process.communicate(timeout=60) == ("SIGINT\nsaved 1\n", "")


def test_signals_are_as_before_where_none_has_come():
    from experiments.run.interrupts import caught_signals, ended_by_two

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    with ended_by_two(), caught_signals() as caught:
        assert [signal.getsignal(number) for number in numbers] != before
    assert [signal.getsignal(number) for number in numbers] == before and caught == []


LINES = """
import sys
from experiments.launch.output import lossy_output
with lossy_output():
    for i in range(3000):
        print("\\u03bb", i)
    sys.stdout.flush()
    print("\\xe9", file=sys.stderr)
open(sys.argv[1], "w").write("done")
"""


@pytest.mark.parametrize("buffering", ["", "1"])
@pytest.mark.parametrize(
    ("redirection", "errors"),
    [
        ("> /dev/full", "warning: standard output is lost from here on (No space left on device)"),
        ("| head -1 > /dev/null", ""),
        (">&-", ""),
        ("<&- >&- 2>&-", ""),
        ("> /dev/full 2> /dev/full", ""),
    ],
)
def test_output_that_cannot_be_written_ends_no_program(redirection, errors, buffering, tmp_path):
    command = f'set -o pipefail; "$0" -c "$1" {tmp_path / "done"} {redirection}'
    result = subprocess.run(
        ["bash", "-c", command, sys.executable, LINES], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"PYTHONUNBUFFERED": buffering, "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    assert result.returncode == 0 and (tmp_path / "done").read_text() == "done"
    assert [line for line in result.stderr.splitlines() if line != "é"] == [errors] * bool(errors)


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "latin-1"},
    ],
)
def test_what_an_encoding_lacks_is_a_question_mark(environment, tmp_path):
    env = {name: value for name, value in os.environ.items() if name != "PYTHONIOENCODING"}
    result = subprocess.run(
        [sys.executable, "-c", LINES, str(tmp_path / "done")],
        cwd=ROOT, capture_output=True, env=env | environment,
    )  # fmt: skip
    assert result.returncode == 0 and result.stdout.startswith(b"? 0\n? 1\n")


def test_a_pipe_that_does_not_block_loses_nothing():
    program = LINES.replace("open(", "0 and open(")
    program = "import os; os.set_blocking(1, False)" + program
    words = [sys.executable, "-c", program]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    time.sleep(1)  # until the pipe is full
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and len(output.splitlines()) == 3000


def wait_until(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.parametrize("num_tries", [1, *slow(15)])
@pytest.mark.slow
def test_a_run_that_saves_ends_at_the_second_ctrl_c(num_tries, server, tmp_path):
    for attempt in range(num_tries):
        out = tmp_path / str(attempt)
        process = server.start("--epochs", 10**6, "--checkpoint-every", 10**6, "--out", out)
        wait_until(lambda: any(p.stat().st_size for p in out.glob("*/metrics.jsonl")))  # noqa: B023
        os.kill(process, signal.SIGINT)
        time.sleep(0.005 + 0.01 * attempt)
        os.kill(process, signal.SIGINT)
        begun = time.monotonic()
        code, _, errors = server.finish()
        # The first may have been quick enough to save and to end the run.
        lines = [line for line in errors.splitlines() if not line.startswith("stopped: SIGINT")]
        assert code == 130 and lines == [] and time.monotonic() - begun < 4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"])
def test_every_signal_that_ends_a_program_saves_first(name, server, tmp_path):
    process = server.start("--epochs", 10**6, "--checkpoint-every", 10**6, "--out", tmp_path)
    wait_until(lambda: any(p.stat().st_size for p in tmp_path.glob("*/metrics.jsonl")))
    os.kill(process, getattr(signal, name))
    code, _, errors = server.finish()
    assert code == 128 + getattr(signal, name) and errors.startswith(f"stopped: {name} after ")
    assert [*tmp_path.glob("*/checkpoints/[0-9]*")]
