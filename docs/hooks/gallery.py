"""The pictures and the table of docs/topologies.md, computed from the library.

``python docs/hooks/gallery.py`` writes the table into the page; the pictures are on the site only.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from cdjax import topology
from cdjax.topology import Topology

PAGE = Path(__file__).parents[1] / "topologies.md"
TABLE = re.compile(r"(<!-- spectra -->\n).*?(\n<!-- /spectra -->)", re.S)
PICTURES = "<!-- pictures -->"
NUM_AGENTS = 16
SIZES = 16, 64

_WIDTH, _HEIGHT, _RADIUS = 240, 210, 92


def families(num_agents: int) -> dict[str, Topology]:
    """Each family with this many agents, from the sparsest graph to the densest."""
    found = {name: topology.create(name, num_agents) for name in topology.FAMILIES}
    return dict(sorted(found.items(), key=lambda item: item[1].graph.number_of_edges()))


def sigma(graph: Topology) -> float:
    """What is left of a disagreement after a mix."""
    return 1 - graph.spectral_gap


def steps_to_a_tenth(graph: Topology) -> int:
    """Mixes after which a tenth of any disagreement is left, at most."""
    return max(1, math.ceil(math.log(10) / -math.log(max(sigma(graph), 1e-9)) - 1e-9))


def degrees(graph: Topology) -> str:
    """The smallest and the largest number of neighbours."""
    found = [degree for _, degree in graph.graph.degree()]
    return f"{min(found)}" if min(found) == max(found) else f"{min(found)} to {max(found)}"


def table() -> str:
    """The spectra of all families in two sizes, in Markdown."""
    lines = ["| graph | neighbours | σ | steps to a tenth | neighbours | σ | steps to a tenth |"]
    lines += ["| --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
    first, second = (families(size) for size in SIZES)
    for name in first:
        cells = [
            cell
            for graph in (first[name], second[name])
            for cell in (degrees(graph), f"{sigma(graph):.3f}", str(steps_to_a_tenth(graph)))
        ]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def on_page_markdown(markdown: str, page: Any, **kwargs: Any) -> str:
    """Puts the pictures into their page."""
    return markdown.replace(PICTURES, pictures()) if PICTURES in markdown else markdown


def pictures() -> str:
    """A picture of each family's graph and eigenvalues, in HTML."""
    figures = "\n".join(figure(name, graph) for name, graph in families(NUM_AGENTS).items())
    return f'<div class="gallery">\n{figures}\n</div>'


def figure(name: str, graph: Topology) -> str:
    """One family's picture with its numbers."""
    edges = graph.graph.number_of_edges()
    told = f"{degrees(graph)} neighbours, {edges} edges, σ = {sigma(graph):.3f}"
    return (
        f'<figure id="{name}"><svg viewBox="0 0 {_WIDTH} {_HEIGHT + 46}" role="img" '
        f'aria-label="{name} of {graph.num_agents} agents: {told}">'
        f"{_drawn(name, graph)}{_spectrum(graph)}</svg>"
        f"<figcaption><strong>{name}</strong>{told}</figcaption></figure>"
    )


def _drawn(name: str, graph: Topology) -> str:
    places = _places(name, graph)
    columns = round(math.sqrt(graph.num_agents))
    edges = []
    for start, end in graph.graph.edges:
        (x, y), (u, v) = places[start], places[end]
        # The edges that close a torus pass behind the agents between their ends.
        bent = name == "torus" and abs(start - end) in (columns - 1, columns * (columns - 1))
        bow = 16 * np.array([v - y, x - u]) / math.hypot(u - x, v - y) if bent else np.zeros(2)
        middle = (x + u) / 2 + bow[0], (y + v) / 2 + bow[1]
        edges.append(f"M{x:.1f} {y:.1f}Q{middle[0]:.1f} {middle[1]:.1f} {u:.1f} {v:.1f}")
    agents = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5"/>' for x, y in places)
    return f'<path class="edges" d="{"".join(edges)}"/><g class="agents">{agents}</g>'


def _places(name: str, graph: Topology) -> np.ndarray:
    """Where a family's agents are drawn, shape (N, 2)."""
    agents = np.arange(graph.num_agents)
    columns = round(math.sqrt(graph.num_agents))
    if name in ("grid", "torus", "path"):
        rows = agents // columns
        # A path turns at the end of each row.
        turned = np.where(rows % 2, columns - 1 - agents % columns, agents % columns)
        x = turned if name == "path" else agents % columns
        unit = np.stack([x, rows], axis=1) / (columns - 1) * 1.5 - 0.75
    elif name == "hypercube":
        axes = np.array([[0.62, 0.0], [0.0, 0.62], [0.3, -0.18], [0.72, 0.56]])
        bits = agents[:, None] >> np.arange(len(axes)) & 1
        unit = bits @ axes
        unit = (unit - (unit.max(0) + unit.min(0)) / 2) * 1.05
    elif name == "binary_tree":
        depth = np.floor(np.log2(agents + 1)).astype(int)
        in_row = agents + 1 - 2**depth
        x = 2 * (in_row + 0.5) / 2**depth - 1
        unit = np.stack([x, depth / depth.max() * 1.6 - 0.8], axis=1)
    else:
        angles = 2 * np.pi * agents / graph.num_agents - np.pi / 2
        if name == "star":  # the hub in the middle
            angles = 2 * np.pi * (agents - 1) / (graph.num_agents - 1) - np.pi / 2
        unit = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        unit[0] = 0 if name == "star" else unit[0]
    return unit * _RADIUS + [_WIDTH / 2, _HEIGHT / 2]


def _spectrum(graph: Topology) -> str:
    """The eigenvalues of Π on a line from -1 to 1; darker where there are several."""
    y, left, length = _HEIGHT + 18, 20, _WIDTH - 40

    def at(value: float) -> str:
        return f"{left + length * (value + 1) / 2:.1f}"

    bound = sigma(graph)
    marks = "".join(
        f'<path d="M{at(float(value))} {y - 9}v18"/>' for value in np.real(graph.eigenvalues)
    )
    labels = "".join(
        f'<text x="{at(value)}" y="{y + 24}">{str(value).replace("-", "−")}</text>'
        for value in (-1, 0, 1)
    )
    return (
        f'<rect class="sigma" x="{at(-bound)}" y="{y - 9}" height="18" '
        f'width="{length * bound:.1f}"/><path class="axis" d="M{left} {y}h{length}"/>'
        f'<g class="eigenvalues">{marks}</g><g class="labels">{labels}</g>'
    )


if __name__ == "__main__":
    PAGE.write_text(TABLE.sub(lambda match: match[1] + table() + match[2], PAGE.read_text()))
