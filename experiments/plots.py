"""From records to figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure


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
