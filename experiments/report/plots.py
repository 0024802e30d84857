"""From records to figures, for ``figure.savefig(path)``; titles should name the data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator


class Line(NamedTuple):
    """What is drawn as one line: its label, and the records of a run for each seed."""

    label: str
    runs: Sequence[Sequence[Mapping[str, Any]]]


def panels(
    title: str, *, shape: tuple[int, int], size: tuple[float, float], **shared: Any
) -> tuple[Figure, np.ndarray]:
    """A figure and its axes, in an array of that shape."""
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title)
    grid = figure.subplots(*shape, squeeze=False, **shared)
    for axes in grid.flat:
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
    return figure, grid


def curves(records: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Accuracy, loss and consensus distance of one run against epochs.

    The records are the lines of metrics.jsonl. Training is solid, test dashed; the range of test
    accuracy over the agents is shaded.
    """
    figure, ((accuracy, loss, distance),) = panels(title, size=(12, 4), shape=(1, 3))
    values = {name: np.array([record[name] for record in records]) for name in records[0]}
    epochs, marker = values["epoch"], "o" if len(records) == 1 else None

    def line(axes: Any, name: str, style: str, label: str | None = None, factor: float = 1) -> None:
        axes.plot(epochs, factor * values[name], style, marker=marker, label=label)

    line(accuracy, "train_accuracy_mean", "C0-", "train", 100)
    line(accuracy, "test_accuracy_mean", "C1--", "test, mean", 100)
    low, high = 100 * values["test_accuracy_min"], 100 * values["test_accuracy_max"]
    label = "test, range over agents"
    accuracy.fill_between(epochs, low, high, color="C1", alpha=0.25, label=label)
    line(accuracy, "mean_params_test_accuracy", "C2:", "test, mean parameters", 100)
    line(loss, "train_loss_mean", "C0-", "train")
    line(loss, "test_loss_mean", "C1--", "test")
    line(distance, "consensus_distance", "C3-")
    accuracy.set(xlabel="epoch", ylabel="accuracy (%)")
    loss.set(xlabel="epoch", ylabel="loss (nats)", yscale="log")
    distance.set(xlabel="epoch", ylabel="consensus distance", ylim=(0, None))
    accuracy.legend()
    loss.legend()
    return figure


def comparison(lines: Sequence[Line], *, title: str, legend: str) -> Figure:
    """Test accuracy of several algorithms against epochs and against bytes sent.

    Lines are means over the seeds, shades their range. The legend's title should say what the
    labels are.
    """
    figure, ((by_epoch, by_bytes),) = panels(title, size=(12, 5), shape=(1, 2), sharey=True)
    for number, line in enumerate(lines):
        accuracy = 100 * _stacked(line, "test_accuracy_mean")
        for axes, column, unit in ((by_epoch, "epoch", 1), (by_bytes, "bytes_sent", 1e9)):
            x = _positions(line, column) / unit
            _plot_range(axes, x, accuracy, color=f"C{number}", label=line.label)
    by_epoch.set(xlabel="epoch", ylabel="test accuracy, mean over agents (%)")
    by_epoch.legend(title=legend)
    by_bytes.set(xlabel="sent by all, GB", xscale="log")
    return figure


# For each row of a figure: its label, and its lines as (style, column of the records, factor).
ROWS = {
    "accuracy": (
        "accuracy (%)",
        [("-", "train_accuracy_mean", 100), ("--", "test_accuracy_mean", 100)],
    ),
    "loss": ("training loss (nats)", [("-", "train_loss_mean", 1)]),
    "distance": ("consensus distance", [("-", "consensus_distance", 1)]),
    "variance": ("variance over agents (%²)", [("-", "test_accuracy_variance", 1e4)]),
    "gap": ("train − test accuracy (%)", []),
}
_LOGARITHMIC = ("loss", "distance", "variance")


def columns(
    lines: Mapping[str, Sequence[Line]], rows: Sequence[str], *, title: str, x: str = "epoch"
) -> Figure:
    """Several settings side by side: one column per setting, one row per quantity.

    Lines are means over the seeds, shades their range. Training is solid, test dashed; the variance
    is a moving average of three evaluations.

    Args:
        lines: those of each column.
        rows: names of :data:`ROWS`.
        title: the figure's title.
        x: against what: ``epoch`` or ``step``.
    """
    shape = (len(rows), len(lines))
    size = (1.5 + 5 * len(lines), 0.8 + 3 * len(rows))
    figure, grid = panels(title, size=size, shape=shape, sharex="col", sharey="row")
    for down, row in enumerate(rows):
        grid[down, 0].set_ylabel(ROWS[row][0])
        for axes, column in zip(grid[down], lines.values(), strict=True):
            for number, line in enumerate(column):
                for style, values in _quantity(line, row):
                    label = line.label if style == "-" else None
                    drawn = {"color": f"C{number}", "linestyle": style, "label": label}
                    _plot_range(axes, _positions(line, x), values, **drawn)
            if row in _LOGARITHMIC:
                axes.set_yscale("log")
    for top, bottom, heading in zip(grid[0], grid[-1], lines, strict=True):
        top.set_title(heading)
        top.legend(fontsize="small")
        bottom.set_xlabel(x)
        bottom.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _quantity(line: Line, row: str) -> list[tuple[str, np.ndarray]]:
    """Styles and values, of shape (seeds, evaluations)."""
    if row == "gap":
        train, test = (_stacked(line, f"{part}_accuracy_mean") for part in ("train", "test"))
        return [("-", 100 * (train - test))]
    values = [(style, factor * _stacked(line, name)) for style, name, factor in ROWS[row][1]]
    return [(style, _moving_mean(y) if row == "variance" else y) for style, y in values]


def _stacked(line: Line, column: str) -> np.ndarray:
    """A column of the records of every seed; NaN where a run has ended early."""
    longest = max(len(run) for run in line.runs)
    values = np.full((len(line.runs), longest), np.nan)
    for row, run in zip(values, line.runs, strict=True):
        row[: len(run)] = [record[column] for record in run]
    return values


def _positions(line: Line, column: str) -> np.ndarray:
    """The epoch, step, ... of every evaluation, which all seeds share."""
    return np.nanmax(_stacked(line, column), axis=0)


def _plot_range(axes: Any, x: np.ndarray, values: np.ndarray, *, color: str, **style: Any) -> None:
    """The mean over the first axis as a line, the range over it as a shade."""
    marker = "o" if len(x) == 1 else None  # a line through one point cannot be seen
    axes.plot(x, np.nanmean(values, axis=0), color=color, marker=marker, **style)
    low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
    axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)


def _moving_mean(values: np.ndarray, width: int = 3) -> np.ndarray:
    """The mean of each value and those before it, three at most."""
    starts = [max(0, i + 1 - width) for i in range(values.shape[1])]
    return np.stack([values[:, s : i + 1].mean(axis=1) for i, s in enumerate(starts)], axis=1)
