"""Networks that fail and agents that lie: from the options to the mixer of a run."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np

from cdjax import Mixer, Topology, robust
from experiments.run.config import ATTACKS, CONSENSUS, MIXERS, RunConfig
from experiments.run.errors import UsageError, blame, check_choice, flag
from experiments.run.living import living

_FAULTS = ("link_failure", "message_loss", "absence")
_STRENGTHS = {"sign-flip": 1.0, "noise": 1.0, "alie": 1.5}


def is_disturbed(config: RunConfig) -> bool:
    """Whether agents do anything but take the weighted mean of what all others have."""
    return bool(_chosen(config))


def check_disturbances(config: RunConfig) -> None:
    """Raises for options that are out of their range or do not go together."""
    check_choice("--mixer", config.mixer, MIXERS)
    check_choice("--attack", config.attack, ATTACKS)
    for name in _FAULTS:
        if not 0 <= (value := getattr(config, name)) <= 1:
            raise UsageError(f"{flag(name)}: {value} is no probability; give 0 to 1")
    for name, least in (("absence_duration", 1), ("lag", 0), ("num_trimmed", 0)):
        if (value := getattr(config, name)) < least:
            raise UsageError(f"{flag(name)}: {value} is too few; give at least {least}")
    if config.attack == "none":
        for name in ("malicious", "attack_strength"):
            if getattr(config, name) is not None:
                raise UsageError(f"{flag(name)}: nobody attacks; give --attack too")
    elif config.malicious is not None and config.malicious < 1:
        raise UsageError(f"--malicious: {config.malicious} is too few; give at least 1")
    with blame("--attack-strength"):
        _forge(config, jax.random.key(0))
    _check_together(config)


def check_on_graph(config: RunConfig, graph: Topology) -> None:
    """Raises for a mixer or an attack that the graph does not allow."""
    malicious_agents(config, graph.num_agents)
    _robust(config, graph)


def malicious_agents(config: RunConfig, num_agents: int) -> list[int]:
    """Who of a run's agents is malicious: those with the highest numbers in the whole graph.

    Args:
        config: the options.
        num_agents: without those that are left out.

    Returns:
        Their numbers among ``num_agents``.

    Raises:
        UsageError: if nobody is honest.
    """
    if config.attack == "none":
        return []
    num_malicious = 1 if config.malicious is None else config.malicious
    whole = num_agents + len(config.without_agents)
    numbers = living(whole, config.without_agents)
    malicious = [i for i, number in enumerate(numbers) if number >= whole - num_malicious]
    if len(malicious) == num_agents:
        raise UsageError(
            f"--malicious: {num_malicious} leave nobody honest of the {num_agents} agents; give "
            "fewer"
        )
    return malicious


def disturbed(
    config: RunConfig, graph: Topology, key: jax.Array, plain: Callable[[], Mixer]
) -> Mixer:
    """The mixer of a run, with its faults and its attack.

    Args:
        config: the options.
        graph: who talks to whom.
        key: of all draws; each fault and the attack draw on their own.
        plain: makes the weighted mean over the whole graph.
    """
    link_key, message_key, absence_key, attack_key = jax.random.split(key, 4)
    faults = []
    if config.link_failure:
        faults.append(robust.failing_links(graph, config.link_failure, link_key))
    if config.message_loss:
        faults.append(robust.lost_messages(graph, config.message_loss, message_key))
    if config.absence:
        away = robust.random_absence(
            graph.num_agents, config.absence, absence_key, duration=config.absence_duration
        )
        faults.append(robust.absent_agents(graph, away))
    mix = _robust(config, graph, *faults)
    if mix is None:
        mix = robust.faulty(graph, *faults) if faults else plain()
    forge = _forge(config, attack_key)
    return robust.attacked(mix, forge, malicious_agents(config, graph.num_agents)) if forge else mix


def share_sent(config: RunConfig) -> float:
    """How many of the messages are sent, on average; those that get lost have been."""
    return (1 - config.link_failure) * (1 - config.absence) ** 2


def honest_agents(config: RunConfig, num_agents: int) -> np.ndarray:
    """The numbers of those who are looked at."""
    return np.delete(np.arange(num_agents), malicious_agents(config, num_agents))


def mixing_line(config: RunConfig) -> str:
    """How agents combine what they hear, where that is not the plain weighted mean; else ''."""
    match config.mixer:
        case "trimmed-mean":
            return f"trimmed mean, {config.num_trimmed} cut off at either end"
        case "median":
            return "median"
        case "clipped":
            return f"clipped gossip, radius {config.clip_radius:g}"
    fails = any(getattr(config, name) for name in _FAULTS)
    return "over the links that a step has" if fails else ""


def trouble_line(config: RunConfig, num_agents: int) -> str:
    """The faults and the attack of a run; '' if there are none."""
    parts = []
    if config.link_failure:
        parts.append(f"links fail with probability {config.link_failure:g}")
    if config.message_loss:
        parts.append(f"messages get lost with probability {config.message_loss:g}")
    if config.absence:
        parts.append(
            f"agents are away with probability {config.absence:g}, drawn every "
            f"{config.absence_duration} steps"
        )
    if config.lag:
        parts.append(f"messages are {config.lag} steps late")
    if malicious := malicious_agents(config, num_agents):
        numbers = np.array(living(num_agents + len(config.without_agents), config.without_agents))
        who = ", ".join(map(str, numbers[malicious]))
        parts.append(f"{config.attack} of strength {_strength(config):g} by malicious agents {who}")
    return "; ".join(parts)


def trouble_warning(config: RunConfig) -> str:
    """What of a run's troubles its algorithm cannot bear; '' if nothing is known of."""
    if config.lag and config.momentum and config.algorithm.startswith("cdmsgd"):
        return (
            f"late messages make {config.algorithm} diverge, unless its momentum is small: it adds "
            "to what is late; cdsgd and atc stay stable"
        )
    return ""


def _chosen(config: RunConfig) -> list[str]:
    """The options that disturb."""
    names = [name for name in (*_FAULTS, "lag") if getattr(config, name)]
    names += ["mixer"] * (config.mixer != "auto") + ["attack"] * (config.attack != "none")
    return names


def _check_together(config: RunConfig) -> None:
    chosen = _chosen(config)
    if chosen and config.algorithm not in CONSENSUS:
        raise UsageError(
            f"{flag(chosen[0])}: only for {', '.join(CONSENSUS)}, not for {config.algorithm}"
        )
    if chosen and config.sequential:
        raise UsageError(f"{flag(chosen[0])}: not for agents that train in turn; leave it out")
    if config.lag and config.attack != "none":
        raise UsageError("--lag: not together with --attack; leave one out")
    if config.lag and config.mixer != "auto":
        raise UsageError(f"--lag: only with --mixer auto, not with {config.mixer}; leave one out")


def _robust(config: RunConfig, graph: Topology, *faults: robust.Fault) -> Mixer | None:
    match config.mixer:
        case "trimmed-mean":
            with blame("--num-trimmed"):
                return robust.trimmed_mean(graph, config.num_trimmed, *faults)
        case "median":
            return robust.median(graph, *faults)
        case "clipped":
            with blame("--clip-radius"):
                return robust.clipped_gossip(graph, config.clip_radius, *faults)
        case _:
            return None


def _strength(config: RunConfig) -> float:
    return _STRENGTHS[config.attack] if config.attack_strength is None else config.attack_strength


def _forge(config: RunConfig, key: jax.Array) -> robust.Forge | None:
    match config.attack:
        case "sign-flip":
            return robust.sign_flip(_strength(config))
        case "noise":
            return robust.gaussian_noise(_strength(config), key)
        case "alie":
            return robust.alie(_strength(config))
        case _:
            return None
