"""Mixing by each plan, in units of a plain SGD step and of the memory's bandwidth."""

from __future__ import annotations

import functools
from statistics import median

import jax
import jax.numpy as jnp

from benchmarks._mixing import PLANS, mixing_programs, plans_of
from benchmarks._sections.setting import Row, Setting
from benchmarks._timing import ratio
from cdjax import mixing, topology

_GRAPHS = ("ring", "random_regular", "exponential", "torus")
_AGENTS = (16, 1024, 64, 4096, 256)


def mix(setting: Setting) -> None:
    """Ring, torus, exponential and random regular graphs of 16 to 4096 agents, by each plan."""
    size = setting.sized(10**9, 2 * 10**6)
    found = setting.attempt(
        {"graph": "", "copy_bytes": 8 * size},
        lambda: {"bytes_per_second": _bandwidth(setting, size)},
    )
    bandwidth = found["bytes_per_second"] if found else float("nan")
    for agents in setting.sized(_AGENTS, (16, 64)):
        for family in _GRAPHS:
            facts = {"graph": family, "agents": agents}
            measure = functools.partial(_row, setting, family, agents, size, bandwidth)
            setting.attempt(facts, measure)


def _bandwidth(setting: Setting, size: int) -> float:
    """Bytes read and written per second by a program that writes each number plus one."""
    x = jax.random.normal(jax.random.key(0), (size,))
    step = jax.jit(lambda x: x + 1)
    return 8 * size / median(setting.times({"copy": lambda: step(x)})["copy"])


def _row(setting: Setting, family: str, agents: int, size: int, bandwidth: float) -> Row:
    graph = topology.create(family, agents)
    mixers = plans_of(graph, setting.sized(1024, 64), most_shifts=32)
    times = setting.times(mixing_programs(mixers, (agents, size // agents)))
    medians = {name: median(values) for name, values in times.items()}
    ratios = {f"{name}_times_axpy": ratio(times, name, "axpy") for name in mixers}
    # Parameters and gradient read once, the result written once: no step takes fewer bytes.
    floor = 3 * size * jnp.float32.dtype.itemsize / bandwidth
    shares = {f"{name}_share_of_bandwidth": floor / medians[name] for name in medians}
    fastest = min(mixers, key=lambda name: medians[name])
    return {
        "axpy_ms": 1e3 * medians["axpy"],
        **{name: ratios[name] for name in sorted(ratios)},
        **shares,
        "degree": max(dict(graph.graph.degree).values()),
        "auto": mixing.choose(graph),
        "fastest": fastest,
        "not_timed": [name for name in PLANS if name not in mixers],
    }
