"""Figures of time on a network: topologies and orders, and accuracy against simulated seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from experiments.report.plots import panels


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
    for number, order in enumerate(dict.fromkeys(point.order for point in shown)):
        mine = [point for point in shown if point.order == order]
        steps = [point.steps_to_halve for point in mine]
        seconds = [point.seconds_per_step for point in mine]
        axes.scatter(steps, seconds, color=f"C{number}", label=order)
        if number == 0 or len(mine) < 3:
            for point in mine:
                axes.annotate(
                    point.topology, (point.steps_to_halve, point.seconds_per_step),
                    fontsize="x-small", xytext=(3, 3), textcoords="offset points",
                )  # fmt: skip
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
