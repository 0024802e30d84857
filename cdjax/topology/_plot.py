"""A topology as a picture, for ``python -m cdjax.topology --plot``; matplotlib is imported here."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from cdjax._checks import check_topology
from cdjax.topology._layout import positions
from cdjax.topology._spectrum import MOST_SOLVED
from cdjax.topology._topology import Topology

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_NAMED = 64  # more names than these cover each other
_DECAY = 1e-6  # to which share of it the decay of disagreement is drawn
_MOST_STEPS = 400


def save(topology: Topology, path: str | os.PathLike[str]) -> None:
    """Writes :func:`draw`'s figure; the name's suffix is the format (png, svg, pdf, ...).

    Raises:
        ValueError: for a format that matplotlib does not know, or more than 2,000 agents.
        OSError: if the file cannot be written.
        ImportError: if there is no matplotlib.
    """
    draw(topology).savefig(path, dpi=120)


def draw(topology: Topology) -> Figure:
    """The graph, Π as a heat map, its eigenvalues, and how fast disagreement decays."""
    check_topology(topology)
    if topology.num_agents > MOST_SOLVED:
        raise ValueError(
            f"topology has {topology.num_agents} agents, and a picture shows at most "
            f"{MOST_SOLVED}; draw a smaller one of the family"
        )
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        needs = "a picture of a topology needs matplotlib; pip install 'cdjax[experiments]'"
        raise ImportError(needs) from error
    figure = Figure(figsize=(11, 9), layout="constrained")
    count = topology.num_agents
    figure.suptitle(f"{topology.name}, {count} agent{'s' if count > 1 else ''}")
    (graph, matrix), (spectrum, decay) = figure.subplots(2, 2)
    _draw_graph(graph, topology)
    _draw_matrix(figure, matrix, topology)
    _draw_spectrum(spectrum, topology)
    _draw_decay(decay, topology)
    return figure


def disagreement(topology: Topology, num_steps: int) -> np.ndarray:
    r"""What is left after each step where agent 0 alone begins at another value.

    .. math:: \| (\Pi^k - 11^\top / N) e_0 \| / \| (I - 11^\top / N) e_0 \|, \quad k = 0, ..., K
    """
    count = topology.num_agents
    values = np.zeros(count)
    values[0] = 1.0
    start = np.linalg.norm(values - 1 / count) or 1.0  # one agent never disagrees
    left = []
    for _ in range(num_steps + 1):
        left.append(np.linalg.norm(values - 1 / count) / start)
        values = topology.mixing_matrix @ values
    return np.array(left)


def _draw_graph(axes: Any, topology: Topology) -> None:
    places = positions(topology)
    # One line with gaps: a collection would have to be imported.
    ends = np.array(topology.graph.edges, int).reshape(-1, 2)
    gap = np.full((len(ends), 1, 2), np.nan)
    edges = np.concatenate([places[ends], gap], axis=1).reshape(-1, 2)
    axes.plot(*edges.T, color="0.6", linewidth=1, zorder=1)
    is_small = topology.num_agents <= _MOST_NAMED
    axes.scatter(*places.T, s=300 if is_small else 15, color="C0", zorder=2)
    if is_small:
        for place, label in zip(places, topology.labels, strict=True):
            axes.text(*place, str(label), ha="center", va="center", color="w", fontsize="small")
    axes.set(title="graph", xlim=(-1.2, 1.2), ylim=(-1.2, 1.2), aspect="equal")
    axes.set_axis_off()


def _draw_matrix(figure: Any, axes: Any, topology: Topology) -> None:
    # Zero is white: the largest weight of either sign ends the scale.
    most = np.max(np.abs(topology.mixing_matrix))
    image = axes.imshow(topology.mixing_matrix, cmap="RdBu_r", vmin=-most, vmax=most)
    axes.set(title="mixing matrix Π", xlabel="agent l, who is heard", ylabel="agent j, who hears")
    axes.locator_params(integer=True)
    figure.colorbar(image, ax=axes, label="weight")


def _draw_spectrum(axes: Any, topology: Topology) -> None:
    values = topology.eigenvalues
    axes.grid(alpha=0.3)
    axes.axhline(0, color="0.6", linewidth=1)
    if np.iscomplexobj(values):
        axes.plot(np.real(values), np.imag(values), "o", markersize=4)
        axes.set(title="eigenvalues", xlabel="real part", ylabel="imaginary part", aspect="equal")
        return
    axes.plot(np.arange(1, len(values) + 1), values, "o", markersize=4)
    axes.set(title="eigenvalues", xlabel="i", ylabel="λᵢ", ylim=(-1.05, 1.05))
    axes.locator_params(axis="x", integer=True)


def _draw_decay(axes: Any, topology: Topology) -> None:
    sigma = 1 - topology.spectral_gap
    wanted = np.log(_DECAY) / np.log(sigma) if 1e-12 < sigma < 1 else 1
    steps = np.arange(int(np.clip(np.ceil(wanted), 5, _MOST_STEPS)) + 1)
    floor = _DECAY / 10
    for label, left, style in (
        (f"σ^k, the worst start, σ = {sigma:.6f}", sigma**steps, "--"),
        ("agent 0 alone begins elsewhere", disagreement(topology, len(steps) - 1), "-"),
    ):
        axes.plot(steps, np.where(left > floor, left, np.nan), style, label=label)
    axes.set(title="decay of disagreement", xlabel="mixes k", ylabel="share that is left")
    axes.set(yscale="log", ylim=(floor, 2))
    axes.grid(alpha=0.3)
    axes.legend()
