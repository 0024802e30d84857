"""From records to figures, for ``figure.savefig(path)``; titles should name the data set."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.report.tables import Runs, percents


class Line(NamedTuple):
    """What is drawn as one line: its label, and the records of a run for each seed."""

    label: str
    runs: Runs


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

    If the run has a network, accuracy also against simulated seconds.

    The records are the lines of metrics.jsonl. Training is solid, test dashed; the range of test
    accuracy over the agents is shaded.
    """
    is_timed = "simulated_seconds" in records[0]
    number = 3 + is_timed
    figure, ((accuracy, loss, distance, *timed),) = panels(
        title, size=(4 * number, 4), shape=(1, number)
    )
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
    for axes in timed:
        seconds = values["simulated_seconds"]
        axes.plot(seconds, 100 * values["test_accuracy_mean"], "C1--", marker=marker)
        axes.fill_between(seconds, low, high, color="C1", alpha=0.25)
        axes.set(xlabel="simulated seconds on the network", ylabel="test accuracy (%)")
    accuracy.legend()
    loss.legend()
    return figure


def class_counts(counts: np.ndarray, title: str) -> Figure:
    """How many samples of each class every agent has: a disc per pair, its area the number.

    Args:
        counts: of shape (agents, classes).
        title: what stands above.
    """
    num_agents, num_classes = counts.shape
    size = (2 + 0.35 * min(num_agents, 60), 1.5 + 0.35 * min(num_classes, 40))
    figure, ((axes,),) = panels(title, size=size, shape=(1, 1))
    agents, classes = np.nonzero(counts)
    areas = 200 * counts[agents, classes] / counts.max()
    axes.scatter(agents, classes, s=areas, color="C0")
    axes.set(xlabel="agent", ylabel="class", xlim=(-1, num_agents), ylim=(-1, num_classes))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    return figure


def comparison(lines: Sequence[Line], *, title: str, legend: str) -> Figure:
    """Test accuracy of several algorithms against epochs and against bytes sent.

    Lines are means over the seeds, shades their range; ``legend`` says what the labels are.
    """
    figure, ((by_epoch, by_bytes),) = panels(title, size=(14, 5), shape=(1, 2), sharey=True)
    for number, line in enumerate(lines):
        for axes, column, unit in ((by_epoch, "epoch", 1), (by_bytes, "bytes_sent", 1e9)):
            x = _stacked(line, column) / unit
            # There are ten colours.
            style = {"color": f"C{number % 10}", "linestyle": "-" if number < 10 else "--"}
            _plot_range(axes, x, _test(line), label=line.label, **style)
    by_epoch.set(xlabel="epoch", ylabel="test accuracy (%)")
    figure.legend(*by_epoch.get_legend_handles_labels(), title=legend, loc="outside right center")
    by_bytes.set(xlabel="sent by all, GB", xscale="log")
    return figure


def overlay(runs: Mapping[str, Sequence[Mapping[str, Any]]], title: str) -> Figure:
    """Several runs in one figure: accuracy and distance, against epochs and against bytes sent.

    Lines are means over the agents, shades their range; ``runs`` holds the records by label.
    """
    shared = {"sharex": "col", "sharey": "row"}
    figure, grid = panels(title, size=(14, 8), shape=(2, 2), **shared)
    for number, (label, records) in enumerate(runs.items()):
        values = {name: np.array([one.get(name, np.nan) for one in records]) for name in _OVERLAID}
        style = {"color": f"C{number % 10}", "linestyle": "-" if number < 10 else "--"}
        style["marker"] = "o" if len(records) == 1 else None
        low, high = 100 * values["test_accuracy_min"], 100 * values["test_accuracy_max"]
        places = values["epoch"], values["bytes_sent"] / 1e9
        for (above, below), x in zip(grid.T, places, strict=True):
            above.plot(x, 100 * values["test_accuracy_mean"], label=label, **style)
            above.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)
            distance = values["consensus_distance"]  # of one agent, or of a server's, it is zero
            below.plot(x, np.where(distance > 0, distance, np.nan), **style)
    (by_epoch, _), (below_epoch, below_bytes) = grid
    by_epoch.set(ylabel="test accuracy (%)")
    below_epoch.set(ylabel="consensus distance", yscale="log", xlabel="epoch")
    below_bytes.set(xlabel="sent by all, GB")
    figure.legend(*by_epoch.get_legend_handles_labels(), loc="outside lower center")
    return figure


_OVERLAID = (
    "epoch", "bytes_sent", "test_accuracy_mean", "test_accuracy_min", "test_accuracy_max",
    "consensus_distance",
)  # fmt: skip


def columns(
    lines: Mapping[str, Sequence[Line]], rows: Sequence[str], *, title: str, x: str = "epoch"
) -> Figure:
    """Several settings side by side: one column per setting, one row per quantity.

    Lines are means over the seeds, shades their range. Training is solid, test dashed; the variance
    is a moving average of three evaluations. ``lines`` are those of each column, ``rows`` names of
    :data:`ROWS`, and ``x`` is ``epoch`` or ``step``.
    """
    size, shape = (1.5 + 5 * len(lines), 0.8 + 3 * len(rows)), (len(rows), len(lines))
    figure, grid = panels(title, size=size, shape=shape, sharex="col", sharey="row")
    for places, (label, scale, drawn) in zip(grid, (ROWS[row] for row in rows), strict=True):
        for axes, column in zip(places, lines.values(), strict=True):
            for number, line in enumerate(column):
                for style, values in drawn.items():
                    named = {"label": line.label if style == "-" else None, "linestyle": style}
                    _plot_range(axes, _stacked(line, x), values(line), color=f"C{number}", **named)
        places[0].set(ylabel=label, yscale=scale)
    for top, bottom, heading in zip(grid[0], grid[-1], lines, strict=True):
        top.set_title(heading)
        top.legend(fontsize="small")
        bottom.set_xlabel(x)
        bottom.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def bars(
    by_attack: Mapping[str, Mapping[str, Runs]],
    by_fault: Mapping[str, Runs],
    *,
    title: str,
    labels: tuple[str, str],
) -> Figure:
    """Test accuracy of several mixers under attack, and under faults, as bars.

    Bars are means over the seeds, lines over them go from the worst seed to the best.
    ``by_attack`` holds the runs by mixer and attack; ``labels`` are those of the horizontal axes.
    """
    places = {"shape": (1, 2), "size": (12, 4), "sharey": True, "width_ratios": (3, 2)}
    figure, ((attacks, faults),) = panels(title, **places)
    names = list(next(iter(by_attack.values())))
    width = 0.8 / len(names)
    for number, name in enumerate(names):
        cells = [row[name] for row in by_attack.values()]
        _draw_bars(attacks, cells, shift=number * width, width=width, label=name)
    attacks.set_xticks(np.arange(len(by_attack)) + 0.4 - width / 2, [*by_attack], fontsize="small")
    attacks.set(ylabel="test accuracy, honest agents (%)", xlabel=labels[0])
    place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": len(names)}
    attacks.legend(title="attack", fontsize="small", **place)
    if by_fault:
        _draw_bars(faults, [*by_fault.values()], width=0.6)
        rows = [row.replace(" ", "\n") for row in by_fault]
        faults.set_xticks(np.arange(len(by_fault)), rows, fontsize="small")
    faults.set(xlabel=labels[1])
    for axes in (attacks, faults):
        axes.grid(visible=False, axis="x")
    return figure


def against_setting(
    values: Sequence[float],
    means: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    title: str,
    label: str,
) -> Figure:
    """Test accuracy of several algorithms against a setting, on a logarithmic axis that falls.

    Args:
        values: of the setting.
        means: by measure, of which the first is solid and others are dashed, and by algorithm, the
            accuracy in % at each of the values.
        title: what stands above.
        label: of the setting.
    """
    figure, ((axes,),) = panels(title, size=(9, 5), shape=(1, 1))
    order = np.argsort(values)[::-1]
    for position, (measure, by_algorithm) in enumerate(means.items()):
        style = "--" if position else "-"
        for number, (name, accuracy) in enumerate(by_algorithm.items()):
            axes.plot(
                np.take(values, order), np.take(accuracy, order), style, marker="o",
                color=f"C{number}", label=f"{name}, {measure}",
            )  # fmt: skip
    axes.set(xlabel=label, ylabel="test accuracy (%)", xscale="log")
    axes.invert_xaxis()
    figure.legend(loc="outside right center", fontsize="small")
    return figure


def _stacked(line: Line, column: str, factor: float = 1) -> np.ndarray:
    """A column of the records, shape (seeds, evaluations); NaN where a run has ended early."""
    values = ([factor * record[column] for record in run] for run in line.runs)
    return np.array([*itertools.zip_longest(*values, fillvalue=np.nan)], dtype=float).T


def _plot_range(axes: Any, x: np.ndarray, values: np.ndarray, *, color: str, **style: Any) -> None:
    """The mean over the seeds, which share their x, as a line; the range over them as a shade."""
    x = np.nanmax(x, axis=0)
    marker = "o" if len(x) == 1 else None  # a line through one point cannot be seen
    axes.plot(x, np.nanmean(values, axis=0), color=color, marker=marker, **style)
    low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
    axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)


def _draw_bars(axes: Any, runs: Sequence[Runs], shift: float = 0, **bar: Any) -> None:
    cells = [percents(of_seeds) for of_seeds in runs]
    means, low, high = (reduce(cells, axis=1) for reduce in (np.mean, np.min, np.max))
    axes.bar(np.arange(len(cells)) + shift, means, yerr=[means - low, high - means], **bar)


def _train(line: Line) -> np.ndarray:
    return _stacked(line, "train_accuracy", 100)


def _test(line: Line) -> np.ndarray:
    return _stacked(line, "test_accuracy", 100)


def _variance(line: Line) -> np.ndarray:
    """The mean of each variance and those before it, three at most."""
    values = _stacked(line, "test_accuracy_variance", 1e4)
    ends = range(1, values.shape[1] + 1)
    return np.stack([values[:, max(0, end - 3) : end].mean(axis=1) for end in ends], axis=1)


# For each row of a figure: its label, the scale of its axis, and its lines' values by style.
ROWS: dict[str, tuple[str, str, dict[str, Callable[[Line], np.ndarray]]]] = {
    "accuracy": ("accuracy (%)", "linear", {"-": _train, "--": _test}),
    "loss": ("training loss (nats)", "log", {"-": lambda line: _stacked(line, "train_loss")}),
    "distance": ("consensus distance", "log", {"-": lambda of: _stacked(of, "consensus_distance")}),
    "variance": ("variance over agents (%²)", "log", {"-": _variance}),
    "gap": ("train − test accuracy (%)", "linear", {"-": lambda line: _train(line) - _test(line)}),
}
