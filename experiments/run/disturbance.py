"""Networks that fail and agents that lie: one row for each fault, mixer and attack.

Each row has the options that it reads, with their defaults, and a phrase that describes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from experiments.run.lazy import LazyModule

cdjax, jax, robust = (LazyModule(name) for name in ("cdjax", "jax", "cdjax.robust"))


class Fault(NamedTuple):
    """One way in which links fail.

    ``build`` makes the fault from the topology, the probability, a key and the options; a message
    is sent if ``ends`` draws of that probability all spare it.
    """

    build: Callable[..., robust.Fault]
    describe: Callable[..., str]
    ends: int
    options: Mapping[str, Any] = {}


class RobustMixer(NamedTuple):
    """One way to combine what an agent hears.

    ``build`` makes the mixer from the topology, the faults and the options; it is None for the
    weighted mean.
    """

    build: Callable[..., cdjax.Mixer] | None
    describe: Callable[..., str]
    options: Mapping[str, Any] = {}


class Attack(NamedTuple):
    """One kind of lie; ``build`` makes it from its strength and a key, None if all are honest."""

    build: Callable[[float, jax.Array], robust.Attack] | None
    options: Mapping[str, Any] = {}


def _absence(
    topology: cdjax.Topology, probability: float, key: jax.Array, absence_duration: int
) -> robust.Fault:
    away = robust.random_absence(
        topology.num_agents, probability, key=key, duration=absence_duration
    )
    return robust.absent_agents(topology, away)


FAULTS: dict[str, Fault] = {
    "link_failure": Fault(
        lambda topology, probability, key: robust.failing_links(topology, probability, key=key),
        lambda probability: f"links fail with probability {probability:g}",
        ends=1,
    ),
    "message_loss": Fault(
        lambda topology, probability, key: robust.lost_messages(topology, probability, key=key),
        lambda probability: f"messages get lost with probability {probability:g}",
        ends=0,  # a message that gets lost has been sent
    ),
    "absence": Fault(
        _absence,
        lambda probability, absence_duration: (
            f"agents are away with probability {probability:g}, drawn every {absence_duration} "
            "steps"
        ),
        ends=2,
        options={"absence_duration": 1},
    ),
}

MIXERS: dict[str, RobustMixer] = {
    "auto": RobustMixer(None, lambda: "weighted mean"),
    "trimmed-mean": RobustMixer(
        lambda topology, faults, num_trimmed: robust.trimmed_mean(topology, num_trimmed, *faults),
        lambda num_trimmed: f"trimmed mean, {num_trimmed} cut off at either end",
        {"num_trimmed": 1},
    ),
    "median": RobustMixer(
        lambda topology, faults: robust.median(topology, *faults), lambda: "median"
    ),
    "clipped": RobustMixer(
        lambda topology, faults, clip_radius: robust.clipped_gossip(topology, clip_radius, *faults),
        lambda clip_radius: f"clipped gossip, radius {clip_radius:g}",
        {"clip_radius": 1.0},
    ),
}

ATTACKS: dict[str, Attack] = {
    "none": Attack(None),
    "sign-flip": Attack(
        lambda strength, key: robust.sign_flip(strength), {"malicious": 1, "attack_strength": 1.0}
    ),
    "noise": Attack(
        lambda strength, key: robust.gaussian_noise(strength, key),
        {"malicious": 1, "attack_strength": 1.0},
    ),
    "alie": Attack(
        lambda strength, key: robust.alie(strength), {"malicious": 1, "attack_strength": None}
    ),
}
