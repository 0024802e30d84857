"""Test accuracy by mixer and attack, and by fault, as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.report.plots import panels


def bars(
    by_attack: Mapping[str, Mapping[str, Sequence[float]]],
    by_fault: Mapping[str, Sequence[float]],
    *,
    title: str,
    labels: tuple[str, str],
) -> Figure:
    """Bars of the mean over the seeds; lines over them from the worst seed to the best.

    ``by_attack`` holds the test accuracy of every seed in %, by mixer and attack, and ``by_fault``
    likewise; ``labels`` are those of the two horizontal axes.
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


def _draw_bars(axes: Any, cells: Sequence[Sequence[float]], shift: float = 0, **bar: Any) -> None:
    means, low, high = (reduce(cells, axis=1) for reduce in (np.mean, np.min, np.max))
    axes.bar(np.arange(len(cells)) + shift, means, yerr=[means - low, high - means], **bar)
