"""From the command line to a run: options in, one line for an error, an exit code out."""

from __future__ import annotations

import itertools
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

import tyro

from experiments.launch import memory, processes
from experiments.launch.output import lossy_output
from experiments.run.alike import facts
from experiments.run.config import Machine, Run, flat, number_hints, paths_expanded, replaced
from experiments.run.errors import RunEnded, UsageError, flag
from experiments.run.interrupts import ended_by_two

Config = TypeVar("Config")


def main(
    default: Config,
    run: Callable[[Config], Any] | None = None,
    *,
    dataset: str | None = None,
    description: str | None = None,
) -> None:
    """Parses the options, runs the experiment, exits with 2 on a usage error.

    A run that ends early exits with 1, or with 128 plus the signal's number.

    Args:
        default: the options of a run or a study, before any is given.
        run: what to do with them; one run by default.
        dataset: the data set if ``--dataset`` is not given; if ``--data-dir`` is not either and it
            cannot be had, the digits stand in.
        description: what ``--help`` says first.
    """
    with lossy_output(), ended_by_two():
        _main(default, run, dataset, description)


def _main(
    default: Config,
    run: Callable[[Config], Any] | None,
    dataset: str | None,
    description: str | None,
) -> None:
    try:
        config = _parsed(default, description)
        if getattr(config, "jobs", 1) > 1:
            # Those processes share an accelerator, whose memory this one would take.
            os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        # A preset's own model is not known yet.
        if (flat(config).get("model") or "cnn") != "cnn":
            memory.keep_pages()
        machine = getattr(config, "machine", Machine())
        processes.join(machine, kept=_kept(config), facts=facts(config))
        if dataset and config.data.dataset is None:
            # Several processes would not all stand in the digits, or somebody would miss the line.
            stand_in = config.data.stand_in or not (config.data.data_dir or processes.are_several())
            config = replaced(config, dataset=dataset, stand_in=stand_in)
        if run is None:
            from experiments.run.runner import run
        run(config)
    except UsageError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        processes.leave(2)
    except RunEnded as end:
        print(f"{'stopped' if end.code > 128 else 'error'}: {end}", file=sys.stderr)
        processes.leave(end.code)
    except KeyboardInterrupt:
        print("interrupted; the metrics so far are kept", file=sys.stderr)
        processes.leave(130)
    except Exception:
        processes.await_verdict()
        traceback.print_exc()
        processes.leave(1)


def _parsed(default: Config, description: str | None) -> Config:
    """The options; those of a run that is resumed are its own unless they are given."""
    flags = (tyro.conf.OmitArgPrefixes,)
    _check_numbers(default, sys.argv[1:])
    config = tyro.cli(type(default), default=default, description=description, config=flags)
    config = paths_expanded(config)
    if isinstance(config, Run) and config.saving.resume:
        from experiments.run.resume import recorded_options  # and with it JAX

        default = recorded_options(config.saving.resume)
        config = tyro.cli(Run, default=default, description=description, config=flags)
    return paths_expanded(config)


def _check_numbers(default: Any, words: list[str]) -> None:
    """Raises a UsageError for what is no number where one belongs, which tyro tells in its types.

    Flags that are unknown, or lack their value, are left to tyro.
    """
    for name, (kind, several) in number_hints(default).items():
        for i, word in enumerate(words):
            option, equals, value = word.partition("=")
            if option.replace("_", "-") != flag(name):
                continue
            given = itertools.takewhile(lambda x: not x.startswith("--"), words[i + 1 :])
            values = [value] if equals else [*given][: None if several else 1]
            for one in values:
                if one == "None":
                    continue
                try:
                    kind(one)
                except ValueError as error:
                    what = "whole number" if kind is int else "number"
                    raise UsageError(f"{flag(name)}: {one!r} is no {what}") from error


def _kept(config: Any) -> str:
    """What is left of a run that has to end."""
    saves = isinstance(config, Run) and config.saving.checkpoint_every
    resuming = "; start all processes again with --resume" if saves else ""
    return f"the metrics so far are kept{resuming}"
