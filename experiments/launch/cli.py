"""From the command line to a run: options in, one line for an error, an exit code out."""

from __future__ import annotations

import inspect
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import tyro

from experiments.launch import memory, processes
from experiments.launch.config_file import config_text, read_config
from experiments.launch.output import lossy_output
from experiments.launch.short_help import STARTING, completion, short_help, starting
from experiments.launch.words import check_words
from experiments.run.alike import facts
from experiments.run.config import Machine, Run, flat, paths_expanded, replaced
from experiments.run.errors import RunEnded, UsageError
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


class _Start(NamedTuple):
    """What is asked of the program itself, and the words that are left for the options."""

    config: Path | None
    asked: frozenset[str]
    words: list[str]


def _parsed(default: Config, description: str | None) -> Config:
    """The options: those given, over a file's, over the defaults.

    Those of a run that is resumed are its own unless they are given.
    """
    start, program = _started(sys.argv[1:]), _program()
    if start.asked & {"-h", "--help"}:
        print(short_help(default, program=program, description=description))
        raise SystemExit(0)
    if "--print-completion" in start.asked:
        print(completion(default), end="")
        raise SystemExit(0)
    if start.config:
        default = read_config(start.config, default)
    check_words(default, start.words)

    words = start.words
    if "--help-all" in start.asked:
        words = ["--help"]
        description = f"{description or inspect.getdoc(type(default))}\n\n{starting()}"

    def parse(default: Any) -> Any:
        found = tyro.cli(
            type(default), default=default, args=words, prog=program, description=description,
            config=(tyro.conf.OmitArgPrefixes,),
        )  # fmt: skip
        return paths_expanded(found)

    config = parse(default)
    if isinstance(config, Run) and config.saving.resume:
        if start.config:
            raise UsageError(
                "--config: not together with --resume, which has its own; leave it out"
            )
        from experiments.run.resume import recorded_options  # and with it JAX

        config = parse(recorded_options(config.saving.resume))
    if "--print-config" in start.asked:
        print(config_text(config))
        raise SystemExit(0)
    return config


def _started(words: list[str]) -> _Start:
    """Takes the options of the program out of the words; splits names after ``--log`` at commas."""
    flags = {option: value for option, value, _ in STARTING} | {"-h": ""}
    config, asked, rest, option = None, set(), [], ""
    remaining = iter(words)
    for word in remaining:
        name, equals, value = word.partition("=")
        option = name if name.startswith("--") else option
        if name == "--config":
            value = value if equals else next(remaining, "")
            if not value or (value.startswith("--") and not equals):
                raise UsageError("--config: it lacks its value; give a file, or a run's folder")
            config = Path(value)
        elif name in flags and not equals:
            asked.add(name)
        elif option == "--log" and "," in word:
            rest += _split(word)
        else:
            rest.append(word)
    return _Start(config, frozenset(asked), rest)


def _split(word: str) -> list[str]:
    """``--log=a,b`` or ``a,b`` as words of their own."""
    name, equals, value = word.partition("=")
    parts = (value if equals else word).split(",")
    return [*[name] * bool(equals), *filter(None, parts)]


def _program() -> str:
    """How this program is started, for its help."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    name = (spec.name if spec else "").removesuffix(".__main__")
    return f"python -m {name}" if name.startswith("experiments.") else "python -m experiments.NAME"


def _kept(config: Any) -> str:
    """What is left of a run that has to end."""
    saves = isinstance(config, Run) and config.saving.checkpoint_every
    resuming = "; start all processes again with --resume" if saves else ""
    return f"the metrics so far are kept{resuming}"
