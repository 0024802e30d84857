"""Who talks to whom over which links: from the options to the topology, the devices, the mixer."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import numpy.typing as npt
from jax.sharding import Mesh

import cdjax
from cdjax import mixing, robust, sharding, topology
from cdjax._divisors import largest_divisor
from experiments.run import config
from experiments.run.config import option_values
from experiments.run.disturbance import ATTACKS, FAULTS, MIXERS
from experiments.run.errors import UsageError, blame, flag
from experiments.run.varying import VARYING, Varying, of_matchings


class Network(NamedTuple):
    """The agents of a run and the graph among them.

    ``numbers`` are those of the agents that take part in the ``whole`` graph; ``malicious`` are
    positions in ``numbers``; ``from_file`` says whether the graph has a file. Where the topology
    changes with the step, it is ``varying``, and ``topology`` holds all its links.
    """

    topology: cdjax.Topology
    numbers: np.ndarray
    whole: cdjax.Topology
    malicious: list[int]
    from_file: bool = False
    varying: Varying | None = None

    @property
    def num_agents(self) -> int:
        """The number of agents N that take part."""
        return len(self.numbers)

    @property
    def num_whole(self) -> int:
        """The number of agents of the whole graph."""
        return self.whole.num_agents

    def names(self, agents: npt.ArrayLike) -> list[Hashable]:
        """What the graph's file calls agents, or else their numbers; from positions in these."""
        return [self.whole.labels[number] for number in self.numbers[np.asarray(agents, int)]]

    @property
    def honest(self) -> np.ndarray:
        """Whose metrics are looked at, as positions in ``numbers``."""
        return np.delete(np.arange(self.num_agents), self.malicious)


def build(
    options: config.Network, trouble: config.Trouble, *, whole: cdjax.Topology | None = None
) -> Network:
    """The network of a run; raises a UsageError if there is no such graph or attack on it.

    A ``whole`` graph that has been read before is not read again: its file may have moved.
    """
    varying = _varying(options)
    if varying:
        whole = varying.graph
    whole = whole or _whole_topology(options)
    gone = _numbers(whole, trouble.without_agents)
    with blame("--without-agents"):
        graph = topology.without_agents(whole, gone)
    numbers = np.delete(np.arange(whole.num_agents), gone)
    # Both raise for what they are not for, before any data are read.
    _mixer_over(graph, [], trouble, plain=lambda: lambda tree, step=0: tree)
    _attack(trouble, jax.random.key(0))
    malicious = _malicious(numbers, whole.num_agents, trouble)
    from_file = options.topology not in (*topology.FAMILIES, *VARYING)
    return Network(graph, numbers, whole, malicious, from_file, varying)


def _numbers(whole: cdjax.Topology, agents: Sequence[int | str]) -> list[int]:
    """The numbers of agents that are given by name or number; a name comes first.

    Where names are whole numbers themselves, a number of the library's would be mistaken for one.
    """
    names = {str(label): number for number, label in enumerate(whole.labels)}
    known = {} if any(map(str.isdecimal, names)) else {str(j): j for j in range(len(names))}
    known |= names
    for agent in agents:
        if str(agent) not in known:
            most = ", ".join([*names][:6]) + (", ..." if len(names) > 6 else "")
            raise UsageError(
                f"--without-agents: {str(agent)!r} is no agent of {whole.name}; its agents are "
                f"{most}"
            )
    return sorted({known[str(agent)] for agent in agents})


def _varying(options: config.Network) -> Varying | None:
    """The topology that changes with the step; None if it does not."""
    if row := VARYING.get(options.topology):
        num_agents = 5 if options.agents is None else options.agents
        read = option_values(row.options, options)
        with blame(flag(next(iter(row.options), "topology"))):
            if read and read["peers_per_step"] >= num_agents:
                raise UsageError(
                    f"--peers-per-step: {read['peers_per_step']} are more than the "
                    f"{num_agents - 1} others; give at most that, or more agents"
                )
            return row.build(num_agents, **read)
    if options.matcha_budget is None:
        return None
    whole = _whole_topology(options)
    with blame("--matcha-budget"):
        return of_matchings(whole, options.matcha_budget)


def _whole_topology(options: config.Network) -> topology.Topology:
    with blame("--topology"):
        if options.topology in topology.FAMILIES:
            num_agents = 5 if options.agents is None else options.agents
            return topology.create(options.topology, num_agents, weights=options.weights)
        if not Path(options.topology).is_file():
            raise UsageError(
                f"--topology: {options.topology!r} is neither a family "
                f"({', '.join([*topology.FAMILIES, *VARYING])}) nor a graph's file: an edge list, "
                "GraphML or GML"
            )
        return topology.from_edge_list(options.topology, options.weights, num_agents=options.agents)


def _malicious(numbers: np.ndarray, num_whole: int, trouble: config.Trouble) -> list[int]:
    """Those with the highest numbers in the whole graph."""
    options = option_values(ATTACKS[trouble.attack].options, trouble)
    num_malicious = options.get("malicious", 0)
    malicious = np.flatnonzero(numbers >= num_whole - num_malicious).tolist()
    if len(malicious) == len(numbers):
        raise UsageError(
            f"--malicious: {num_malicious} leave nobody honest of the {len(numbers)} agents; give "
            "fewer"
        )
    return malicious


def build_mesh(machine: config.Machine, num_agents: int, *, in_turns: bool) -> Mesh:
    """The devices of ``--devices``."""
    with blame("--devices"):
        if in_turns:
            if machine.devices not in ("auto", "1") or jax.process_count() > 1:
                raise UsageError("--devices: agents that train in turn share one; leave it out")
            num_devices = 1
        elif machine.devices == "auto" and jax.process_count() == 1:
            most = min(jax.device_count(), num_agents)
            num_devices = largest_divisor(num_agents, most)
        elif machine.devices in ("all", "auto"):
            num_devices = jax.device_count()
        else:
            num_devices = int(machine.devices)
        mesh = sharding.agent_mesh(num_devices)
        sharding.block_size(num_agents, mesh)
        return mesh


def build_mixer(
    network: Network,
    mesh: Mesh,
    *,
    trouble: config.Trouble,
    key: jax.Array,
    personal: tuple[str, ...] = (),
    mix_fraction: float = 1.0,
) -> cdjax.Mixer:
    """The mixer of a run, with its faults and its attack; each draws from a key of its own.

    The leaves that ``personal`` names are not mixed.
    """
    graph = network.topology
    attack_key = jax.random.split(key, len(FAULTS) + 1)[-1]
    faults = faults_of(graph, trouble, key)

    # Further keys are folded in: with a larger split the runs of old seeds would change.
    link_key, mask_key = (jax.random.fold_in(key, i) for i in range(2))

    def plain() -> cdjax.Mixer:
        if network.varying:
            return network.varying.mixer(link_key, mesh)
        return mixing.auto(graph) if mesh.size == 1 else mixing.exchange(graph, mesh)

    mix = _mixer_over(graph, faults, trouble, plain=plain)
    attack = _attack(trouble, attack_key)
    mix = robust.attacked(mix, attack, malicious=network.malicious) if attack else mix
    mix = mixing.masked(mix, mix_fraction, mask_key)
    return mixing.personal(mix, personal) if personal else mix


def faults_of(graph: cdjax.Topology, trouble: config.Trouble, key: jax.Array) -> list[robust.Fault]:
    """The faults of a run's links; each draws from a key of its own."""
    *fault_keys, _ = jax.random.split(key, len(FAULTS) + 1)  # the last is the attack's
    return [
        row.build(graph, probability, fault_key, **option_values(row.options, trouble))
        for (name, row), fault_key in zip(FAULTS.items(), fault_keys, strict=True)
        if (probability := getattr(trouble, name))
    ]


def shared_leaves(params: cdjax.Params, personal: tuple[str, ...]) -> cdjax.Params:
    """What is left of the parameters, or of their shapes, without those that stay at home."""
    if not personal:
        return params
    shared: dict[str, Any] = {}

    def mix(tree: dict[str, Any], step: int = 0) -> dict[str, Any]:
        shared.update(tree)
        return tree

    with blame("--personal"):
        mixing.personal(mix, personal)(params)
    if not shared:
        raise UsageError(f"--personal: {' '.join(personal)} leave nothing to share; give fewer")
    return shared


def _attack(trouble: config.Trouble, key: jax.Array) -> robust.Attack | None:
    row = ATTACKS[trouble.attack]
    if row.build is None:
        return None
    with blame("--attack-strength"):
        return row.build(option_values(row.options, trouble)["attack_strength"], key)


def _mixer_over(
    graph: cdjax.Topology,
    faults: list[robust.Fault],
    trouble: config.Trouble,
    *,
    plain: Callable[[], cdjax.Mixer],
) -> cdjax.Mixer:
    row = MIXERS[trouble.mixer]
    if row.build is None:
        return robust.faulty(graph, *faults) if faults else plain()
    options = option_values(row.options, trouble)
    with blame(flag(next(iter(options), "mixer"))):
        return row.build(graph, faults, **options)


def share_sent(trouble: config.Trouble) -> float:
    """The share of messages that are sent, on average; those that get lost have been."""
    return float(
        np.prod([(1 - getattr(trouble, name)) ** row.ends for name, row in FAULTS.items()])
    )
