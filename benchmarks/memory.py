"""The memory of a step by algorithm and plan: ``python -m benchmarks.memory``.

Bytes are those that the compiled program states: arguments, temporaries and the results that take
no argument's memory, in units of the stacked parameters. The state is donated, as in training. No
program runs, so that the numbers do not depend on what else the machine does.

``needed`` counts what the equations need: the arguments (parameters, the optimizer's state and the
batch), one gradient, and what agents exchange, see ``benchmarks._memory``. ``update`` is a step
whose gradient takes no memory but its own; ``vmap``, ``map`` and ``unroll`` are whole train steps
of a perceptron by that plan of ``agent_map``, on two images per agent; activations come on top.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import tyro

from benchmarks._memory import (
    Algorithm,
    Step,
    further_algorithms,
    mixing_algorithms,
    needed_bytes,
    num_bytes,
    other_algorithms,
    train_step,
    update_step,
)
from benchmarks._sections.setting import bytes_needed
from benchmarks._timing import report
from cdjax import models, topology


@dataclass(frozen=True)
class Options:
    """Compiles steps of all algorithms and reads how much memory each takes."""

    agents: int = 16
    """Number of agents N; from 9 on dense mixing is a matrix product."""
    graph: str = "ring"
    """Graph family of the algorithms that mix over a topology."""
    mixers: tuple[str, ...] = ("neighbors", "dense")
    """Plans of mixing: neighbors, shifts or dense."""
    plans: tuple[str, ...] = ("vmap", "map", "unroll")
    """Plans of agent_map for the whole train steps."""
    hidden: tuple[int, ...] = (128, 128)
    """Widths of the perceptron's hidden layers."""
    json: Path | None = None
    """File for the results as JSON."""


def main(options: Options) -> None:
    """Prints the table."""
    graph = topology.create(options.graph, options.agents)
    rows = []
    for name in options.mixers:
        rows += _rows(mixing_algorithms(graph, name), name, options=options)
    rows += _rows(other_algorithms(options.agents), "", options=options)
    rows += _rows(further_algorithms(graph), "", options=options)
    title = f"bytes of a step in units of the parameters, N = {options.agents}, {options.graph}"
    report(title, rows, options.json)


def _rows(
    algorithms: Mapping[str, Algorithm], mixer: str, *, options: Options
) -> list[dict[str, Any]]:
    model = models.MLP(hidden=options.hidden)
    rows = []
    for name, algorithm in algorithms.items():
        steps = {"update": update_step(algorithm, _leaves(options.agents))}
        for plan in options.plans:
            steps[plan] = train_step(algorithm, model, options.agents, plan=plan)
        found = {plan: _units(bytes_needed(step.compiled()), step) for plan, step in steps.items()}
        needed = _units(needed_bytes(steps["update"], algorithm.exchange), steps["update"])
        what = ", ".join(algorithm.exchange)
        rows.append(
            {"algorithm": name, "mixing": mixer, "needed": needed, **found, "exchange": what}
        )
    return rows


def _leaves(num_agents: int) -> dict[str, jax.ShapeDtypeStruct]:
    """A tree with one leaf."""
    return {"kernel": jax.ShapeDtypeStruct((num_agents, 400, 500), "float32")}


def _units(count: int, step: Step) -> float:
    return round(count / num_bytes(step.params), 2)


if __name__ == "__main__":
    main(tyro.cli(Options))
