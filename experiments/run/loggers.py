"""Where a run's records go besides its folder: TensorBoard, Weights & Biases.

A logger is opened with the run and told of every record. Its package is an extra, and is imported
when it is asked for.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from experiments.run.errors import RunEnded, UsageError

Record = Mapping[str, Any]
Write = Callable[[Record], None]

_UNLOGGED = ("epoch", "step")  # what all other numbers are drawn against


class Logger(NamedTuple):
    """A place for records.

    ``open`` takes the run's folder, its options and the step from which it goes on, and gives a
    context in which records are written; ``package`` is what it imports, ``extra`` what brings it;
    ``remedy`` is what one can do where it cannot be opened.
    """

    open: Callable[[Path, Mapping[str, Any], int], AbstractContextManager[Write]]
    package: str
    extra: str
    remedy: str


@contextlib.contextmanager
def _tensorboard(folder: Path, options: Mapping[str, Any], step: int) -> Iterator[Write]:
    """Event files in the run's folder, written without TensorFlow."""
    from tensorboardX import SummaryWriter

    # What an interrupted run has written after its checkpoint is taken back.
    with SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None) as file:
        if not step:
            rows = [f"| {name} | {value} |" for name, value in options.items()]
            file.add_text("options", "\n".join(["| option | value |", "| --- | --- |", *rows]), 0)

        def write(record: Record) -> None:
            for name, value in _numbers(record).items():
                file.add_scalar(name, value, record["step"])
            file.flush()

        yield write


@contextlib.contextmanager
def _wandb(folder: Path, options: Mapping[str, Any], step: int) -> Iterator[Write]:
    """A run of Weights & Biases; its mode, project and entity are those of the environment."""
    import wandb

    name = folder.resolve().name  # by which the run is also known when it goes on
    # The terminal is the progress bar's.
    settings = wandb.Settings(console="off", silent=True)
    run = wandb.init(
        dir=str(folder), id=name, name=name, resume="allow", config=dict(options), settings=settings
    )

    def write(record: Record) -> None:
        run.log(_numbers(record) | {"epoch": record["epoch"]}, step=record["step"])

    failed = True
    try:
        yield write
        failed = False
    finally:
        run.finish(exit_code=int(failed))


LOGGERS: dict[str, Logger] = {
    "tensorboard": Logger(_tensorboard, "tensorboardX", "tensorboard", "leave it out"),
    "wandb": Logger(_wandb, "wandb", "wandb", "set WANDB_MODE=offline to log without an account"),
}


def check_loggers(names: Sequence[str]) -> None:
    """Raises a UsageError for a logger whose package is not installed."""
    for name in names:
        row = LOGGERS[name]
        if importlib.util.find_spec(row.package) is None:
            raise UsageError(
                f"--log: {name} needs {row.package}; pip install 'cdjax[{row.extra}]', or leave "
                "it out"
            )


@contextlib.contextmanager
def opened(
    names: Sequence[str],
    *,
    folder: Path,
    options: Mapping[str, Any],
    step: int,
    warn: Callable[[str], None],
) -> Iterator[Write]:
    """A function that writes a record everywhere; a logger that fails is told of and left out.

    Args:
        names: keys of ``LOGGERS``.
        folder: of the run.
        options: of the run.
        step: of the last record that is there already; 0 at the start.
        warn: is told in one line of a logger that has failed, while the run goes on.

    Raises:
        RunEnded: if a logger cannot be opened.
    """
    with contextlib.ExitStack() as stack:
        writers: dict[str, Write] = {}
        for name in names:
            logger = LOGGERS[name].open(folder, options, step)
            try:
                writers[name] = stack.enter_context(_closed_quietly(name, logger, warn))
            except Exception as error:  # no account, no network, no room
                text = f"{' '.join(str(error).split())}; {LOGGERS[name].remedy}"
                raise RunEnded(f"--log: {name} cannot be opened: {text}") from error

        def write(record: Record) -> None:
            for name, write_to in [*writers.items()]:
                try:
                    write_to(record)
                except Exception as error:
                    del writers[name]
                    warn(f"--log: {name} has failed and is left out from here on: {error}")

        yield write


@contextlib.contextmanager
def _closed_quietly(
    name: str, logger: AbstractContextManager[Write], warn: Callable[[str], None]
) -> Iterator[Write]:
    """A logger that fails when it is closed is told of: the run has not failed."""
    write = logger.__enter__()
    try:
        yield write
    except BaseException as end:
        with contextlib.suppress(Exception):
            logger.__exit__(type(end), end, end.__traceback__)
        raise
    try:
        logger.__exit__(None, None, None)
    except Exception as error:
        warn(f"--log: {name} could not be closed: {error}")


def _numbers(record: Record) -> dict[str, float]:
    """What is drawn as a curve."""
    return {
        name: value
        for name, value in record.items()
        if isinstance(value, int | float) and name not in _UNLOGGED
    }
