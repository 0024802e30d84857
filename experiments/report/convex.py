"""One page of measured curves beside their bounds: one column per graph, one row per quantity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from experiments.report.plots import panels


class Curves(NamedTuple):
    """One run beside its bounds: arrays over the recorded steps, NaN where there is no bound.

    Norms are over all agents together. ``stated`` bounds are the paper's own; the others hold.
    """

    graph: str
    schedule: str
    step: np.ndarray
    step_size: np.ndarray
    lyapunov_gap: np.ndarray
    lyapunov_bound: np.ndarray
    stated_lyapunov_bound: np.ndarray
    stated_lyapunov_bound_line_2: np.ndarray
    mean_error: np.ndarray
    mean_error_bound: np.ndarray
    disagreement: np.ndarray
    consensus_bound: np.ndarray
    stated_consensus_bound: np.ndarray
    predicted_disagreement: np.ndarray


_COLORS = {"fixed": "C0", "diminishing": "C1"}
# Of each row the label, what is measured, its bound, the paper's own, and the limit.
_ROWS = (
    ("V − V*", "lyapunov_gap", "lyapunov_bound",
     {"stated_lyapunov_bound": "eq. 17", "stated_lyapunov_bound_line_2": "eq. 17, second line"},
     None),
    ("‖s − x*‖", "mean_error", "mean_error_bound", {}, None),
    ("‖x − s‖, all agents", "disagreement", "consensus_bound", {"stated_consensus_bound": "eq. 16"},
     "predicted_disagreement"),
)  # fmt: skip
_STATED = {"stated_lyapunov_bound_line_2": "C4"}  # the others are red


def page(curves: Sequence[Curves], title: str) -> Figure:
    """V − V*, the mean's distance from the optimum and the disagreement, on every graph."""
    graphs = list(dict.fromkeys(curve.graph for curve in curves))
    size, shape = (max(7.0, 3 * len(graphs)), 9), (len(_ROWS), len(graphs))
    figure, grid = panels(title, size=size, shape=shape, sharex=True, sharey="row")
    for row, (label, *quantities) in zip(grid, _ROWS, strict=True):
        for curve in curves:
            _draw(row[graphs.index(curve.graph)], curve, *quantities)
        limits = _limits(curves, *quantities[:2])
        row[0].set(ylabel=label, xscale="log", yscale="log", ylim=limits)
    for top, bottom, name in zip(grid[0], grid[-1], graphs, strict=True):
        top.set_title(name)
        bottom.set_xlabel("step k + 1")
    handles = {line.get_label(): line for axes in grid[:, 0] for line in axes.get_lines()}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3)
    return figure


def _draw(
    axes: Any,
    curve: Curves,
    measured: str,
    bound: str,
    stated: Mapping[str, str],
    predicted: str | None,
) -> None:
    """One run's quantity: solid as measured, dashed its bound, dotted the paper's own bounds."""

    def line(quantity: str, label: str, **style: Any) -> None:
        axes.plot(curve.step + 1, _positive(getattr(curve, quantity)), label=label, **style)

    color, name = _COLORS[curve.schedule], f"{curve.schedule} steps"
    line(bound, f"{name}, bound", color=color, linestyle="--")
    line(measured, f"{name}, measured", color=color, linewidth=1.8)
    for row, (quantity, equation) in enumerate(stated.items() if curve.schedule == "fixed" else ()):
        color = _STATED.get(quantity, "C3")
        line(quantity, f"{name}, the paper's {equation}", color=color, linestyle=":", linewidth=1.8)
        if np.any(getattr(curve, quantity) < 0):
            place = {"fontsize": "small", "transform": axes.transAxes}
            axes.text(0.04, 0.04 + 0.08 * row, f"{equation} is negative", color=color, **place)
    if predicted:
        line(predicted, "α‖(I−Π)⁺∇F(x*)‖", color="0.4", linestyle="-.", linewidth=1)


def _limits(curves: Sequence[Curves], measured: str, bound: str) -> tuple[float, float] | None:
    """All that is measured, and of the bounds, which can be far above it, a part."""
    values, bounds = (
        _positive(np.concatenate([getattr(curve, name) for curve in curves]))
        for name in (measured, bound)
    )
    if np.isnan(values).all():  # one agent never disagrees
        return None
    top = np.nanmax(values)
    return max(np.nanmin(values), 1e-9 * top) / 3, 3 * min(np.nanmax(bounds), 100 * top)


def _positive(values: np.ndarray) -> np.ndarray:
    """What a logarithmic axis can show: NaN for what is below rounding."""
    return np.where(values > 1e-14, values, np.nan)
