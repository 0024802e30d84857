"""Figures of time on a network: topologies and orders, and accuracy against simulated seconds."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from experiments.report.plots import Line, panels


class Point(NamedTuple):
    """A topology with an order: how long a step takes, and how many halve disagreement."""

    topology: str
    order: str
    seconds_per_step: float
    steps_to_halve: float


def trade_off(points: Sequence[Point], title: str) -> Figure:
    """Seconds per step against steps to halve disagreement; on dashed lines, the same product."""
    figure, ((axes,),) = panels(title, size=(10, 6), shape=(1, 1))
    shown = [point for point in points if np.isfinite(point.seconds_per_step)]
    named: set[str] = set()
    places: list[tuple[float, float]] = []
    for number, order in enumerate(dict.fromkeys(point.order for point in shown)):
        mine = [point for point in shown if point.order == order]
        steps = [point.steps_to_halve for point in mine]
        seconds = [point.seconds_per_step for point in mine]
        # Rings within each other where orders take equally long.
        size, color = 30 * (number + 1), f"C{number}"
        axes.scatter(steps, seconds, size, facecolors="none", edgecolors=color, label=order)
        for point in mine:
            place = (round(np.log(point.steps_to_halve), 1), round(np.log(point.seconds_per_step)))
            if point.topology not in named:
                below = sum(other == place for other in places)
                places.append(place)
                axes.annotate(
                    point.topology, (point.steps_to_halve, point.seconds_per_step),
                    fontsize="x-small", xytext=(9, -3 - 9 * below), textcoords="offset points",
                )  # fmt: skip
            named.add(point.topology)
    axes.set(
        xscale="log", yscale="log", xlabel="steps to halve disagreement", ylabel="seconds per step"
    )
    limits = axes.get_xlim(), axes.get_ylim()
    products = [x * y for x in limits[0] for y in limits[1]]
    grid = np.geomspace(*limits[0], 50)
    for product in np.geomspace(min(products), max(products), 7)[1:-1]:
        axes.plot(grid, product / grid, "k--", linewidth=0.5, alpha=0.5)
        axes.annotate(f"{product:.2g} s", (grid[-1], product / grid[-1]), fontsize="x-small")
    axes.set(xlim=limits[0], ylim=limits[1])
    axes.legend(fontsize="small")
    return figure


def over_time(networks: Mapping[str, Sequence[Line]], title: str) -> Figure:
    """Test accuracy against simulated seconds, a panel per network; means and ranges over seeds."""
    figure, (row,) = panels(
        title, size=(1.5 + 5 * len(networks), 4.5), shape=(1, len(networks)), sharey=True
    )
    for axes, (network, lines) in zip(row, networks.items(), strict=True):
        for number, line in enumerate(lines):
            seconds, accuracy = (
                np.array([*itertools.zip_longest(*columns, fillvalue=np.nan)], float).T
                for columns in (
                    [[record[name] for record in run] for run in line.runs]
                    for name in ("simulated_seconds", "test_accuracy")
                )
            )
            style = {"color": f"C{number}", "marker": "."}
            middle = np.nanmean(seconds, axis=0)
            axes.plot(middle, 100 * np.nanmean(accuracy, axis=0), label=line.label, **style)
            low, high = 100 * np.nanmin(accuracy, axis=0), 100 * np.nanmax(accuracy, axis=0)
            axes.fill_between(middle, low, high, color=f"C{number}", alpha=0.15, linewidth=0)
        axes.set(title=network, xlabel="simulated seconds", xscale="log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    row[0].set(ylabel="test accuracy (%)")
    row[0].legend(fontsize="small")
    return figure


def against_agents(agents: Sequence[int], seconds: Mapping[str, Sequence[float]]) -> Figure:
    """Seconds per step of several orders against the number of agents."""
    figure, ((axes,),) = panels("rings of agents", size=(6, 4), shape=(1, 1))
    for name, values in seconds.items():
        axes.plot(agents, values, marker="o", label=name)
    axes.set(xlabel="agents", ylabel="seconds per step", xscale="log", ylim=(0, None))
    axes.legend()
    return figure
