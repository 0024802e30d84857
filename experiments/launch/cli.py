"""From the command line to a run: options in, one line for an error, an exit code out."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import tyro

from experiments.launch import processes as _processes
from experiments.launch.memory import allocate_in_one_arena
from experiments.run.config import RunConfig, recorded_config
from experiments.run.endings import RunEnded
from experiments.run.errors import UsageError

Config = TypeVar("Config")

# What a resumed run doesn't take over from its beginning.
_OF_A_PROCESS = {"coordinator": None, "num_processes": None, "process_id": None}


def main(config_class: type[Config], run: Callable[[Config], Any] | None = None) -> None:
    """Parses the options, runs the experiment, exits with 2 on a usage error.

    A run that ends early exits with 1, or with 128 and the signal's number.

    Args:
        config_class: the experiment's options.
        run: what to do with them; one run by default.
    """
    config = _parse(config_class)
    try:
        code = _processes.watch(config)
        if code is None:
            allocate_in_one_arena()
            _processes.join(config)
            (run or _run)(config)
    except UsageError as error:
        _fail(str(error))
    except RunEnded as end:
        print(f"{'stopped' if end.code > 128 else 'error'}: {end}", file=sys.stderr)
        _processes.leave(end.code)
    except KeyboardInterrupt:
        print("interrupted; the metrics so far are kept", file=sys.stderr)
        _processes.leave(130)
    except Exception:
        _processes.await_verdict()
        traceback.print_exc()
        _processes.leave(1)
    if code:
        sys.exit(code)


def _run(config: RunConfig) -> None:
    # JAX takes seconds to import; --help and misspelled options should not wait for it.
    from experiments.run.runner import run

    run(config)


def _parse(config_class: type[Config]) -> Config:
    """Tyro's parser, with its boxed errors folded into one line."""
    captured = io.StringIO()
    try:
        with contextlib.redirect_stderr(captured):
            return tyro.cli(config_class, default=_defaults(config_class))
    except SystemExit as stop:
        if not stop.code:
            raise
        _fail(_unboxed(captured.getvalue()))


def _defaults(config_class: type[Config]) -> Config | None:
    """The options of the run that ``--resume`` names; None for the program's own."""
    if not issubclass(config_class, RunConfig):
        return None
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--resume", type=Path)
    with contextlib.suppress(argparse.ArgumentError, OSError, ValueError, AttributeError):
        folder = parser.parse_known_args()[0].resume
        if folder:
            record = json.loads((folder / "config.json").read_text())
            return dataclasses.replace(recorded_config(config_class, record), **_OF_A_PROCESS)
    return None  # the run tells what is wrong with the folder


def _unboxed(box: str) -> str:
    lines = [line.strip("│ ") for line in box.splitlines() if line.startswith("│")]
    # Where the terminal has no UTF-8 there is no box: a title, and a rule below it.
    text = " ".join(lines) or re.split(r"-{20,}", box, maxsplit=1)[-1]
    # Below the next rule stands help; below "Got errors" the parser's attempts type by type.
    message = re.split(r"─{3}|-{20,}|Got errors:", text)[0].strip()
    return message or " ".join(box.split())


def _fail(message: str) -> NoReturn:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    _processes.leave(2)
