"""Mixers that take turns: several mixers, or the rounds of a schedule, one after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int

from cdjax._checks import check_auto_axes, check_mixer, check_stacked, check_step
from cdjax._trees import along_agents, map_floats
from cdjax._types import Mixer, Params
from cdjax.mixing._auto import auto, product_is_faster
from cdjax.mixing._exchange import exchange
from cdjax.sharding import AXIS
from cdjax.topology import Schedule


def cycle(*mixers: Mixer | Schedule, mesh: Mesh | None = None, axis: str = AXIS) -> Mixer:
    r"""Mixes with one mixer after another, or along the rounds of a schedule.

    .. math:: \Pi_k = \Pi^{(k \bmod n)} \text{ of the mixers } \Pi^{(0)}, \dots, \Pi^{(n - 1)}

    The rounds of a schedule in which agents hear few others are one program, however many they are:
    it reads from a table whom each agent hears in the step, and takes one row of x for each.

    Args:
        *mixers: at least one; each is given the step. Or one schedule, see
            :class:`cdjax.topology.Schedule`.
        mesh: the devices over which the agents are divided, for a schedule; in each round they
            exchange no more than that round's links need, see :func:`exchange`.
        axis: the name of the agents' axis of the mesh.

    Returns:
        A mixer; it needs the step.

    Raises:
        ValueError: without a mixer, or with a mesh for mixers, which have their own.

    Example: ``mix = cdjax.mixing.cycle(cdjax.topology.one_peer_exponential(8))``
    """
    if not mixers:
        raise ValueError("cycle needs at least one mixer")
    if schedules := [mix for mix in mixers if isinstance(mix, Schedule)]:
        if len(mixers) > 1:
            raise ValueError("cycle takes one schedule; join several by cdjax.topology.round_robin")
        return _along_schedule(schedules[0], mesh, axis)
    if mesh is not None:
        raise ValueError("mesh is for a schedule; give every mixer its own, as mixing.auto does")
    for mix in mixers:
        check_mixer(mix)
    return _in_turn(mixers)


def _in_turn(mixers: Sequence[Any]) -> Mixer:
    def mix_in_turn(tree: Params, step: int | Int[Array, ""] | None = None) -> Params:
        step = check_step(step, "cycle")
        return jax.lax.switch(step % len(mixers), mixers, tree, jnp.asarray(step))

    return mix_in_turn


def _along_schedule(schedule: Schedule, mesh: Mesh | None, axis: str) -> Mixer:
    rounds = range(schedule.period)
    if mesh is not None and mesh.shape.get(axis, 0) != 1:
        return _in_turn([exchange(schedule.round(k), mesh, axis=axis) for k in rounds])
    num_slots = schedule.senders.shape[2]
    if product_is_faster(num_slots, schedule.num_agents):
        return _in_turn([auto(schedule.round(k)) for k in rounds])
    senders = np.moveaxis(schedule.senders, 2, 1)
    weights = np.moveaxis(schedule.weights, 2, 1)

    def mix_round(tree: Params, step: int | Int[Array, ""] | None = None) -> Params:
        number = check_step(step, "cycle") % schedule.period
        check_stacked(tree, schedule.num_agents, holder="the schedule")
        check_auto_axes(tree)
        heard, given = jnp.asarray(senders)[number], jnp.asarray(weights)[number]

        def mix_leaf(x: Array) -> Array:
            moved = jnp.zeros_like(x)
            for slot in range(num_slots):
                moved += along_agents(given[slot], x) * (x[heard[slot]] - x)
            return x + moved

        return map_floats(mix_leaf, tree)

    return mix_round
