"""The algorithms of ``--algorithm``: one row each, and everything else reads the row.

Choices, help, validation, bytes, bounds, tables and the page docs/algorithms.md follow from it. The
rows stand in ``algorithms/``, in a file for each family.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.report.tables import markdown_table
from experiments.run.algorithms.compressed import COMPRESSED
from experiments.run.algorithms.corrections import CORRECTIONS
from experiments.run.algorithms.directed import DIRECTED
from experiments.run.algorithms.neighbors import NEIGHBORS
from experiments.run.algorithms.peers import PEERS
from experiments.run.algorithms.rounds import ROUNDS
from experiments.run.algorithms.row import Algorithm, Setting
from experiments.run.algorithms.servers import SERVERS
from experiments.run.errors import flag
from experiments.run.lazy import LazyModule

cdjax, jnp, optax = LazyModule("cdjax"), LazyModule("jax.numpy"), LazyModule("optax")

FAMILIES = (NEIGHBORS, CORRECTIONS, COMPRESSED, SERVERS, PEERS, ROUNDS, DIRECTED)
ALGORITHMS: dict[str, Algorithm] = {
    name: row for family in FAMILIES for name, row in family.items()
}


def transformation(
    row: Algorithm, setting: Setting, *, options: Mapping[str, Any], lag: int = 0
) -> optax.GradientTransformation:
    """An algorithm with the values of its options; ``lag`` steps late is what agents hear."""
    make = lambda mix: row.build(setting._replace(mix=mix), **options)  # noqa: E731
    if lag:
        tx = cdjax.delayed(make, setting.mix, delays=np.full(setting.num_agents, lag))
    else:
        tx = make(setting.mix)
    if setting.size_weighted and row.weighting == "loss":
        weights = jnp.asarray(setting.sizes / setting.sizes.mean())
        tx = optax.chain(cdjax.scale_by_agent(weights), tx)
    return tx


def messages_per_step(row: Algorithm, setting: Setting, options: Mapping[str, Any]) -> float:
    """Messages that all agents, and a server, send per step, on average."""
    return row.messages(setting, **options) if setting.num_agents > 1 else 0.0


def bytes_of_message(
    row: Algorithm, setting: Setting, options: Mapping[str, Any], params: Any
) -> int:
    """The bytes of a message: of the model's, or of what the algorithm makes of them."""
    if row.message_bytes:
        return round(row.message_bytes(params, **options))
    if row.compressor is None:
        return cdjax.metrics.message_bytes(params)
    return row.compressor(setting, **options).message_bytes(params)


def algorithm_table() -> str:
    """The table of all algorithms, in Markdown, for docs/algorithms.md."""
    head = ("`--algorithm`", "name", "talks", "options it reads (default)", "reference")
    return markdown_table(head, [_described(name, row) for name, row in ALGORITHMS.items()])


def _described(name: str, row: Algorithm) -> list[str]:
    talks = "with a random peer"
    if row.talks:
        talks = row.talks
    elif row.over_topology:
        talks = "with all neighbours"
    elif row.server:
        talks = "through a server" + (", whose parameters are trained" * (row.server == "stateful"))
    options = [f"`{flag(name)}`{_default_text(value)}" for name, value in row.options.items()]
    return [f"`{name}`", row.title, talks, ", ".join(options), row.reference]


def _default_text(default: float | str | None) -> str:
    """An option's default as it follows the option; of a switch, which is off, nothing."""
    if default is False:
        return ""
    if default is None:
        return " (an epoch)"
    return f" ({default})" if isinstance(default, str) else f" ({default:g})"
