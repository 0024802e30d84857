"""From records to figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator


def curves(records: Sequence[dict[str, Any]], title: str) -> Figure:
    """Accuracy, loss and consensus distance against epochs.

    Training is solid, test dashed; the range of test accuracy over the agents is shaded.

    Args:
        records: the lines of metrics.jsonl.
        title: the figure's title; it should name the data set.

    Returns:
        The figure, for ``figure.savefig(path)``.
    """
    columns = {name: np.array([r[name] for r in records]) for name in records[0]}
    epochs = columns["epoch"]
    marker = "o" if len(records) == 1 else None
    figure = Figure(figsize=(12, 4), layout="constrained")
    figure.suptitle(title)
    accuracy, loss, distance = figure.subplots(1, 3)

    accuracy.plot(epochs, 100 * columns["train_accuracy_mean"], "C0-", marker=marker, label="train")
    accuracy.plot(
        epochs, 100 * columns["test_accuracy_mean"], "C1--", marker=marker, label="test, mean"
    )
    accuracy.fill_between(
        epochs,
        100 * columns["test_accuracy_min"],
        100 * columns["test_accuracy_max"],
        color="C1",
        alpha=0.25,
        label="test, range over agents",
    )
    accuracy.plot(
        epochs,
        100 * columns["mean_params_test_accuracy"],
        "C2:",
        marker=marker,
        label="test, mean parameters",
    )
    accuracy.set(xlabel="epoch", ylabel="accuracy (%)")
    accuracy.legend()

    loss.plot(epochs, columns["train_loss_mean"], "C0-", marker=marker, label="train")
    loss.plot(epochs, columns["test_loss_mean"], "C1--", marker=marker, label="test")
    loss.set(xlabel="epoch", ylabel="loss (nats)", yscale="log")
    loss.legend()

    distance.plot(epochs, columns["consensus_distance"], "C3-", marker=marker)
    distance.set(xlabel="epoch", ylabel="consensus distance", ylim=(0, None))
    for axes in (accuracy, loss, distance):
        axes.grid(alpha=0.3)
    return figure


def comparison(entries: Sequence[Any], title: str) -> Figure:
    """Test accuracy of several algorithms against epochs and against bytes sent.

    Lines are means over the seeds, shades their range.

    Args:
        entries: each with ``label``, ``config`` and ``runs``, the records of every seed.
        title: the figure's title; it should name the data set.

    Returns:
        The figure, for ``figure.savefig(path)``.
    """
    figure = Figure(figsize=(12, 5), layout="constrained")
    figure.suptitle(title)
    by_epoch, by_bytes = figure.subplots(1, 2, sharey=True)
    for number, entry in enumerate(entries):
        accuracy = 100 * np.array([[r["test_accuracy_mean"] for r in run] for run in entry.runs])
        for axes, column, unit in ((by_epoch, "epoch", 1), (by_bytes, "bytes_sent", 1e9)):
            x = np.array([record[column] / unit for record in entry.runs[0]])
            label = f"{entry.label} ({entry.config.learning_rate:g})"
            axes.plot(x, accuracy.mean(axis=0), f"C{number}", label=label)
            axes.fill_between(x, accuracy.min(axis=0), accuracy.max(axis=0), color=f"C{number}",
                              alpha=0.15, linewidth=0)  # fmt: skip
    by_epoch.set(xlabel="epoch", ylabel="test accuracy, mean over agents (%)")
    by_epoch.legend(title="algorithm (step size)")
    by_bytes.set(xlabel="sent by all, GB", xscale="log")
    for axes in (by_epoch, by_bytes):
        axes.grid(alpha=0.3)
    return figure


# For each row: its label, and its lines as (style, column of the records, factor).
ROWS = {
    "accuracy": (
        "accuracy (%)", [("-", "train_accuracy_mean", 100), ("--", "test_accuracy_mean", 100)],
    ),
    "loss": ("training loss (nats)", [("-", "train_loss_mean", 1)]),
    "distance": ("consensus distance", [("-", "consensus_distance", 1)]),
    "variance": ("variance over agents (%²)", [("-", "test_accuracy_variance", 1e4)]),
    "gap": ("train − test accuracy (%)", []),
}  # fmt: skip


def columns(
    entries: Mapping[str, Sequence[Any]], rows: Sequence[str], *, title: str, x: str = "epoch"
) -> Figure:
    """Several curves side by side; a column a setting, a row a quantity.

    Lines are means over the seeds, shades their range. Training is solid, test dashed; the variance
    is a moving average of three evaluations.

    Args:
        entries: for each column its curves, each with ``label`` and ``runs``, the records of every
            seed.
        rows: names of :data:`ROWS`.
        title: the figure's title; it should name the data set.
        x: against what: ``epoch`` or ``step``.

    Returns:
        The figure, for ``figure.savefig(path)``.
    """
    size = (1.5 + 5 * len(entries), 0.8 + 3 * len(rows))
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title)
    grid = figure.subplots(len(rows), len(entries), squeeze=False, sharex="col", sharey="row")
    for across, (heading, curves) in enumerate(entries.items()):
        grid[0, across].set_title(heading)
        grid[-1, across].set_xlabel(x)
        grid[-1, across].xaxis.set_major_locator(MaxNLocator(integer=True))
        for down, row in enumerate(rows):
            axes = grid[down, across]
            axes.grid(alpha=0.3)
            for number, entry in enumerate(curves):
                for style, y in _lines(entry, row):
                    steps = np.nanmax(_stacked(entry, x), axis=0)
                    label = entry.label if style == "-" else None
                    axes.plot(steps, np.nanmean(y, axis=0), f"C{number}{style}", label=label)
                    low, high = np.nanmin(y, axis=0), np.nanmax(y, axis=0)
                    axes.fill_between(steps, low, high, color=f"C{number}", alpha=0.15, linewidth=0)
            if row in ("loss", "distance", "variance"):
                axes.set_yscale("log")
            if not across:
                axes.set_ylabel(ROWS[row][0])
        grid[0, across].legend(fontsize="small")
    return figure


def _lines(entry: Any, row: str) -> list[tuple[str, np.ndarray]]:
    """Styles and values, of shape (seeds, evaluations)."""
    if row == "gap":
        train, test = (_stacked(entry, f"{part}_accuracy_mean") for part in ("train", "test"))
        return [("-", 100 * (train - test))]
    lines = [(style, factor * _stacked(entry, name)) for style, name, factor in ROWS[row][1]]
    return [(style, _moving_mean(y) if row == "variance" else y) for style, y in lines]


def _stacked(entry: Any, column: str) -> np.ndarray:
    """A column of the records of every seed; NaN where a run has ended early."""
    longest = max(len(run) for run in entry.runs)
    values = np.full((len(entry.runs), longest), np.nan)
    for row, run in zip(values, entry.runs, strict=True):
        row[: len(run)] = [record[column] for record in run]
    return values


def _moving_mean(values: np.ndarray, width: int = 3) -> np.ndarray:
    """The mean of each value and those before it, three at most."""
    starts = [max(0, i + 1 - width) for i in range(values.shape[1])]
    return np.stack([values[:, s : i + 1].mean(axis=1) for i, s in enumerate(starts)], axis=1)
