"""Test accuracy by mixer and attack, and by fault, as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.report.plots import panels
from experiments.report.tables import Runs, percents


def bars(
    by_attack: Mapping[str, Mapping[str, Runs]],
    by_fault: Mapping[str, Runs],
    *,
    title: str,
    labels: tuple[str, str],
) -> Figure:
    """Bars of the mean over the seeds; lines over them from the worst seed to the best.

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


def _draw_bars(axes: Any, runs: Sequence[Runs], shift: float = 0, **bar: Any) -> None:
    cells = [percents(of_seeds) for of_seeds in runs]
    means, low, high = (reduce(cells, axis=1) for reduce in (np.mean, np.min, np.max))
    axes.bar(np.arange(len(cells)) + shift, means, yerr=[means - low, high - means], **bar)
