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
