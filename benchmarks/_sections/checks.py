"""Whether cdjax computes on this machine what it should: the tests marked ``accelerator``."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from benchmarks._sections.setting import Row, Setting

ROOT = Path(__file__).parents[2]
_MARK = "mark.accelerator"
_SECONDS_TO_REPORT = 5


def tests(setting: Setting) -> None:
    """The tests marked ``accelerator``, in a process of their own."""
    files = setting.options.tests or marked_files()
    command = [sys.executable, "-m", "pytest", *files, "-m", "accelerator", "-n", "0", "-v"]
    # On a new version of JAX or Python a warning is not an error.
    command += ["-p", "no:cacheprovider", "-W", "default", "--tb=short", "--durations=10"]
    setting.attempt({"files": len(files)}, lambda: _run(setting, command))


def marked_files() -> tuple[str, ...]:
    """The test files with a mark; others may need packages that the machine lacks."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    marked = [x for x in files if _MARK in x.read_text()]
    # That of which every test has the mark comes first: time may end the others.
    marked.sort(key=lambda x: x.stem != "test_accelerator")
    return tuple(str(x.relative_to(ROOT)) for x in marked)


def _run(setting: Setting, command: list[str]) -> Row:
    # An empty JAX_PLATFORMS is JAX's own choice; without one the tests run on the CPU, which some
    # compare with. They share the device with programs to come.
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if platforms and "cpu" not in platforms.split(","):
        platforms += ",cpu"
    environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ}
    environment["JAX_PLATFORMS"] = platforms
    environment["PYTHONUNBUFFERED"] = "1"  # or nothing is there when time ends
    path = setting.options.json.with_suffix(".tests.txt")
    with path.open("w") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT
        )
        code = _waited(process, setting.time_left())
    return read_output(path.read_text(), code)


def _waited(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """The exit code; None if time ends the process, which reports failures when interrupted."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(_SECONDS_TO_REPORT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    return None


def read_output(text: str, code: int | None) -> Row:
    """What pytest's output says; the code is None if time ended the tests."""
    outcomes = {
        "passed": "PASSED",
        "failed": "FAILED",
        "errors": "ERROR",
        "skipped_tests": "SKIPPED",
    }
    counts = {
        name: len(re.findall(rf"^tests/\S.* {word} +\[", text, re.MULTILINE))
        for name, word in outcomes.items()
    }
    device = re.search(r"^jax .*", text, re.MULTILINE)
    return {
        "exit_code": code,
        "out_of_time": code is None,
        **counts,
        "device": device[0] if device else "",
        "failures": re.findall(r"^(tests/\S.*) (?:FAILED|ERROR) +\[", text, re.MULTILINE),
        "end": [] if code == 0 else text.splitlines()[-60:],
    }
