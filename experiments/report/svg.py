"""Pictures for a page as SVG text: curves, a graph, a map of counts.

They take their colours from the page's style, so that they follow its light or dark scheme, and
hold what a screen reader says. Nothing in them is fetched.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

import numpy as np

# On a telephone a picture is as wide as this, and its letters are as large as they are here.
WIDTH, HEIGHT = 420, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 12, 10, 42
_MOST_POINTS = 60  # that are drawn as points, with a text each, on a line
_TICKS = 5
_TICK_LETTERS = 5
# Viridis at equal distances: it is read in grey and by the colour-blind, on white and on black.
_VIRIDIS = np.array([
    (68, 1, 84), (72, 40, 120), (62, 74, 137), (49, 104, 142), (38, 130, 142), (31, 158, 137),
    (53, 183, 121), (110, 206, 88), (181, 222, 43), (253, 231, 37),
])  # fmt: skip


class Line(NamedTuple):
    """A line of a chart: its label, its points, its style, and the range around it if there is one.

    ``color`` counts the page's colours; ``dash`` is solid, dashed or dotted. Points that are not
    finite, or not positive on a logarithmic axis, are gaps.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    color: int = 0
    dash: str = "solid"
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


class _Axis(NamedTuple):
    """An axis: the values at its ends, whether it is logarithmic, and the pixels of its ends.

    One of ``whole`` numbers, such as epochs, has ticks at these.
    """

    low: float
    high: float
    log: bool
    start: float
    end: float
    whole: bool = False

    def place(self, value: float) -> float:
        """The pixel of a value; NaN of one that the axis cannot show."""
        if not math.isfinite(value) or (self.log and value <= 0):
            return math.nan
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log10(low), math.log10(high), math.log10(value)
        return self.start + (self.end - self.start) * (at - low) / (high - low)


def chart(
    lines: Sequence[Line], *, title: str, x_label: str, y_label: str, log: bool = False
) -> str:
    """Lines over axes, with their legend.

    A logarithmic vertical axis becomes a linear one where nothing is positive.
    """
    values = _finite(
        v for line in lines for part in (line.y, line.low, line.high) for v in part or ()
    )
    log = log and any(v > 0 for v in values)
    values = [v for v in values if v > 0] if log else values
    across = _finite(v for line in lines for v in line.x)
    x_axis = _axis(across, False, _LEFT, WIDTH - _RIGHT)._replace(
        whole=all(value == round(value) for value in across)
    )
    y_axis = _axis(values, log, HEIGHT - _BOTTOM, _TOP)
    parts = [*_frame(x_axis, y_axis, x_label, y_label)]
    for line in lines:
        parts += _band(line, x_axis, y_axis)
    for line in lines:
        parts += _curve(line, x_axis, y_axis)
    alt = f"{title}: {'; '.join(filter(None, map(_in_words, lines)))}"
    return _picture(parts, alt, (WIDTH, HEIGHT)) + _legend(lines)


def graph(
    places: np.ndarray,
    edges: Sequence[tuple[int, int]],
    *,
    names: Sequence[str],
    values: Sequence[float | None],
    unit: str,
    title: str,
) -> str:
    """A graph whose discs are coloured by a value each; those without one are hollow.

    Args:
        places: of the agents, in [-1, 1]², shape (N, 2).
        edges: pairs of positions in ``places``.
        names: of the agents.
        values: of the agents.
        unit: what follows a value.
        title: what the picture shows.
    """
    size, margin = 440, 34
    points = margin + (size - 2 * margin) * (np.asarray(places) * (1, -1) + 1) / 2
    radius = float(np.clip(160 / math.sqrt(max(len(names), 1)) / 2, 4, 18))
    known = [value for value in values if value is not None and math.isfinite(value)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    parts = [
        f'<line class="edge" x1="{points[a][0]:.1f}" y1="{points[a][1]:.1f}" '
        f'x2="{points[b][0]:.1f}" y2="{points[b][1]:.1f}"/>'
        for a, b in edges
    ]
    for (x, y), name, value in zip(points, names, values, strict=True):
        is_known = value is not None and math.isfinite(value)
        text = f"{name}: {value:.2f}{unit}" if is_known else f"{name}: not evaluated"
        style = 'class="hollow"' if not is_known else f'fill="{_color(_share(value, low, high))}"'
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" {style}>'
            f"<title>{escape(text)}</title></circle>"
        )
        if radius >= 9:
            ink = _ink(_share(value, low, high)) if is_known else "var(--ink)"
            parts.append(
                f'<text class="name" x="{x:.1f}" y="{y + 4:.1f}" fill="{ink}">'
                f"{escape(name[:6])}</text>"
            )
    alt = f"{title}: {len(names)} agents, {len(edges)} edges"
    alt += f", from {low:.2f}{unit} to {high:.2f}{unit}" if known else ""
    return _picture(parts, alt, (size, size)) + (_scale(low, high, unit) if known else "")


def counts(table: np.ndarray, *, rows: Sequence[str], columns: Sequence[str], title: str) -> str:
    """A map of counts: a square each, the darker the more; shape (rows, columns)."""
    cell, left, top = 22, 64, 22
    width, height = left + cell * table.shape[1] + 8, top + cell * table.shape[0] + 8
    most = max(int(table.max(initial=0)), 1)
    parts = [
        f'<text class="tick end" x="{left - 6}" y="{top + cell * (i + 0.7):.1f}">'
        f"{escape(name[:8])}</text>"
        for i, name in enumerate(rows)
    ]
    parts += [
        f'<text class="tick middle" x="{left + cell * (k + 0.5):.1f}" y="{top - 6}">'
        f"{escape(name[:4])}</text>"
        for k, name in enumerate(columns)
    ]
    for (i, k), count in np.ndenumerate(table):
        text = f"{rows[i]}, class {columns[k]}: {count}"
        parts.append(
            f'<rect class="cell" x="{left + cell * k}" y="{top + cell * i}" width="{cell - 1}" '
            f'height="{cell - 1}" fill-opacity="{count / most:.3f}">'
            f"<title>{escape(text)}</title></rect>"
        )
    alt = f"{title}: {table.shape[0]} agents, {table.shape[1]} classes, at most {most} samples each"
    return _picture(parts, alt, (width, height), natural=True)


def _picture(
    parts: Iterable[str], alt: str, size: tuple[float, float], *, natural: bool = False
) -> str:
    """An SVG that is as wide as its place, or as large as it is drawn where that is ``natural``."""
    width, height = size
    bound = f' style="max-width:{width}px"' if natural else ""
    return (
        f'<svg role="img" aria-label="{escape(alt)}" viewBox="0 0 {width} {height}"{bound}>'
        f"{''.join(parts)}</svg>"
    )


def _finite(values: Iterable[float | None]) -> list[float]:
    return [float(v) for v in values if v is not None and math.isfinite(v)]


def _axis(values: Sequence[float], log: bool, start: float, end: float) -> _Axis:
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if log:
        low, high = low / 1.3, high * 1.3
    elif low == high:
        low, high = low - max(abs(low) / 10, 0.5), high + max(abs(high) / 10, 0.5)
    elif start > end:  # the vertical one leaves some room
        room = (high - low) / 20
        low, high = low - room * (low != 0), high + room
    return _Axis(low, high, log, start, end)


def _ticks(axis: _Axis) -> list[float]:
    """Round numbers within an axis."""
    if axis.log:
        first, last = math.floor(math.log10(axis.low)), math.ceil(math.log10(axis.high))
        every = max(1, (last - first) // _TICKS)
        tens = [10.0**power for power in range(first, last + 1, every)]
        inside = [tick for tick in tens if axis.low <= tick <= axis.high]
        if len(inside) > 1:
            return inside
        steps = [factor * 10.0**power for power in range(first, last + 1) for factor in (1, 2, 5)]
        return [tick for tick in steps if axis.low <= tick <= axis.high]
    raw = (axis.high - axis.low) / _TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    step = max(step, 1.0) if axis.whole else step
    first = math.ceil(axis.low / step - 1e-9)
    return [k * step for k in range(first, math.floor(axis.high / step + 1e-9) + 1)]


def _short(tick: float) -> str:
    """A number that fits beside an axis."""
    text = f"{tick:g}"
    if len(text) <= _TICK_LETTERS:
        return text
    mantissa, exponent = f"{tick:.1e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _frame(x_axis: _Axis, y_axis: _Axis, x_label: str, y_label: str) -> Iterable[str]:
    """Grid lines, numbers and labels of both axes."""
    foot = HEIGHT - _BOTTOM
    for tick in _ticks(x_axis):
        x = x_axis.place(tick)
        yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{foot}"/>'
        yield f'<text class="tick middle" x="{x:.1f}" y="{foot + 16}">{_short(tick)}</text>'
    for tick in _ticks(y_axis):
        y = y_axis.place(tick)
        yield f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text class="tick end" x="{_LEFT - 6}" y="{y + 4:.1f}">{_short(tick)}</text>'
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    yield f'<text class="label middle" x="{middle}" y="{HEIGHT - 7}">{escape(x_label)}</text>'
    place = f"rotate(-90) translate({-(_TOP + HEIGHT - _BOTTOM) / 2} 13)"
    yield f'<text class="label middle" transform="{place}">{escape(y_label)}</text>'


def _places(line: Line, x_axis: _Axis, y_axis: _Axis) -> list[tuple[float, float]]:
    return [
        (x_axis.place(x), math.nan if y is None else y_axis.place(y))
        for x, y in zip(line.x, line.y, strict=True)
    ]


def _curve(line: Line, x_axis: _Axis, y_axis: _Axis) -> Iterable[str]:
    places = _places(line, x_axis, y_axis)
    path, pen = [], "M"
    for x, y in places:
        if math.isfinite(x) and math.isfinite(y):
            path.append(f"{pen}{x:.1f} {y:.1f}")
            pen = "L"
        else:
            pen = "M"
    style = f"line c{line.color} {line.dash}"
    yield f'<path class="{style}" d="{"".join(path)}"/>'
    if len(places) > _MOST_POINTS:
        return
    for (x, y), at, value in zip(places, line.x, line.y, strict=True):
        if math.isfinite(x) and math.isfinite(y):
            text = f"{line.label}: {value:.5g} at {at:g}"
            yield (
                f'<circle class="point f{line.color}" cx="{x:.1f}" cy="{y:.1f}" r="3">'
                f"<title>{escape(text)}</title></circle>"
            )


def _band(line: Line, x_axis: _Axis, y_axis: _Axis) -> Iterable[str]:
    if line.low is None or line.high is None:
        return
    low = _places(line._replace(y=line.low), x_axis, y_axis)
    high = _places(line._replace(y=line.high), x_axis, y_axis)
    whole = [
        (*below, *above)
        for below, above in zip(low, high, strict=True)
        if all(map(math.isfinite, (*below, *above)))
    ]
    if len(whole) > 1:
        around = [f"{x:.1f} {y:.1f}" for _, _, x, y in whole]
        around += [f"{x:.1f} {y:.1f}" for x, y, _, _ in reversed(whole)]
        yield f'<polygon class="band f{line.color}" points="{" ".join(around)}"/>'
    for x, bottom, _, top in whole if len(whole) == 1 else ():
        yield f'<path class="line c{line.color}" d="M{x:.1f} {bottom:.1f}V{top:.1f}"/>'


def _legend(lines: Sequence[Line]) -> str:
    items = []
    for line in lines:
        sample = f'<path class="line c{line.color} {line.dash}" d="M0 6H28"/>'
        icon = f'<svg class="sample" viewBox="0 0 28 12" aria-hidden="true">{sample}</svg>'
        range_of = " (shaded: lowest to highest)" if line.low is not None else ""
        items.append(f"<li>{icon}{escape(line.label)}{range_of}</li>")
    return f'<ul class="legend">{"".join(items)}</ul>'


def _in_words(line: Line) -> str:
    known = _finite(line.y)
    return f"{line.label} from {known[0]:.4g} to {known[-1]:.4g}" if known else ""


def _share(value: float | None, low: float, high: float) -> float:
    return 1.0 if high == low or value is None else (value - low) / (high - low)


def _rgb(share: float) -> np.ndarray:
    """A colour of the scale from 0 to 1."""
    places = np.linspace(0, 1, len(_VIRIDIS))
    return np.array([np.interp(share, places, channel) for channel in _VIRIDIS.T])


def _color(share: float) -> str:
    return "#" + "".join(f"{round(channel):02x}" for channel in _rgb(share))


def _ink(share: float) -> str:
    """Black or white, whichever is read on the colour of the scale."""
    return "#000" if _rgb(share) @ (0.299, 0.587, 0.114) > 128 else "#fff"


def _scale(low: float, high: float, unit: str) -> str:
    """The colours' meaning."""
    if low == high:
        return f'<p class="legend">all {low:.2f}{escape(unit)}</p>'
    steps = 24
    cells = "".join(
        f'<rect x="{10 * i}" y="0" width="10.5" height="12" fill="{_color(i / (steps - 1))}"/>'
        for i in range(steps)
    )
    bar = f'<svg class="scale" viewBox="0 0 {10 * steps} 12" aria-hidden="true">{cells}</svg>'
    return f'<p class="legend">{low:.2f}{escape(unit)} {bar} {high:.2f}{escape(unit)}</p>'
