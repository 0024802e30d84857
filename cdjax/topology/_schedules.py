"""Topologies that change with the step, one round after another and then from the start again.

A round has few links, so that an agent sends to one or a few peers per step, and yet all rounds of
a period together may bring exact consensus, which no fixed sparse graph does.

Ying, Yuan, Chen, Hu, Pan, Yin, *Exponential Graph is Provably Efficient for Decentralized Deep
Training*, NeurIPS 2021, arXiv:2110.13363 (one-peer exponential).

Takezawa, Sato, Bao, Niwa, Yamada, *Beyond Exponential Graph: Communication-Efficient Topologies for
Decentralized Learning via Finite-time Convergence*, NeurIPS 2023, arXiv:2305.11420 (Base-(k+1)).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from jaxtyping import Float, Int

from cdjax._checks import check_count, check_num_agents, check_topology
from cdjax.topology._builders import from_matrix
from cdjax.topology._topology import TOLERANCE, Topology

# Agents who meet in a round, and average.
_Groups = list[list[int]]
# Who hears whom in a round, and at which weight: (receiver, sender) -> weight.
_Links = dict[tuple[int, int], float]


@dataclass(frozen=True, eq=False)
class Schedule:
    r"""Mixing matrices that take turns, :math:`\Pi_k = \Pi^{(k \bmod \tau)}`.

    Build one with :func:`one_peer_exponential`, :func:`one_peer_hypercube`, :func:`base_graph` or
    :func:`round_robin`; mix with :func:`cdjax.mixing.cycle`. Rounds are stored by what agents hear,
    not as matrices: of a round with one peer, two numbers per agent.

    Attributes:
        name: what tables and plots call it.
        senders: whom each agent hears in each round, shape (τ, N, slots); itself where a slot is
            unused.
        weights: what each agent gives to them, shape (τ, N, slots), 0 where a slot is unused. Its
            own weight is what is left to one.
    """

    name: str
    senders: Int[np.ndarray, "rounds agents slots"]
    weights: Float[np.ndarray, "rounds agents slots"]

    def __post_init__(self) -> None:
        for name, dtype in (("senders", np.int32), ("weights", np.float64)):
            array = np.array(getattr(self, name), dtype)
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    @property
    def num_agents(self) -> int:
        """N."""
        return self.senders.shape[1]

    @property
    def period(self) -> int:
        """τ, the number of rounds."""
        return len(self.senders)

    @property
    def messages_per_step(self) -> float:
        """Messages that all agents send per step, on average over a period."""
        return float(np.count_nonzero(self.weights)) / self.period

    def mixing_matrix(self, step: int) -> Float[np.ndarray, "agents agents"]:
        """Π of a step, float64, shape (N, N). Row = receiver."""
        senders, weights = self.senders[step % self.period], self.weights[step % self.period]
        matrix = np.zeros((self.num_agents, self.num_agents))
        agents = np.arange(self.num_agents)
        np.add.at(matrix, (agents[:, None], senders), weights)
        matrix[agents, agents] += 1 - weights.sum(axis=1)
        return matrix

    def product(self) -> Float[np.ndarray, "agents agents"]:
        r"""What a whole period does, :math:`\Pi^{(\tau - 1)} \cdots \Pi^{(1)} \Pi^{(0)}`."""
        matrices = (self.mixing_matrix(step) for step in range(self.period))
        return functools.reduce(lambda done, matrix: matrix @ done, matrices)

    def round(self, step: int) -> Topology:
        """The topology of a step; it need not be connected, nor its matrix symmetric."""
        number = step % self.period
        name = f"{self.name}, round {number + 1} of {self.period}"
        return from_matrix(self.mixing_matrix(number), name=name, validate=False)

    def mean(self) -> Topology:
        """All links of a period, with the mean of its mixing matrices."""
        matrices = (self.mixing_matrix(step) for step in range(self.period))
        total = functools.reduce(np.add, matrices)
        return from_matrix(total / self.period, name=self.name, validate=False)

    def __repr__(self) -> str:
        return f"Schedule({self.name!r}, num_agents={self.num_agents}, period={self.period})"


def round_robin(topologies: Sequence[Topology], *, name: str = "round robin") -> Schedule:
    """Any topologies in turn.

    Args:
        topologies: at least one, all of as many agents; the rows of their matrices sum to one.
        name: what tables and plots call it.

    Raises:
        ValueError: if there is none, or their numbers of agents differ, or a row does not sum to
            one.

    Example::

        in_turn = [cdjax.topology.ring(8), cdjax.topology.star(8)]
        schedule = cdjax.topology.round_robin(in_turn)
    """
    topologies = list(topologies)
    if not topologies:
        raise ValueError("topologies is empty; give at least one, as in [cdjax.topology.ring(8)]")
    for topology in topologies:
        check_topology(topology)
    sizes = {topology.num_agents for topology in topologies}
    if len(sizes) > 1:
        raise ValueError(f"topologies have {sorted(sizes)} agents; give them all the same number")
    for topology in topologies:
        sums = topology.mixing_matrix.sum(axis=1)
        worst = int(np.argmax(np.abs(sums - 1)))
        if abs(sums[worst] - 1) > TOLERANCE:
            raise ValueError(
                f"row {worst} of {topology.name} sums to {sums[worst]:.9g}, not to 1; give "
                "topologies that keep agents in consensus where they are"
            )
    links = [_links_of(topology.mixing_matrix) for topology in topologies]
    return _schedule(name, topologies[0].num_agents, links)


def one_peer_exponential(num_agents: int) -> Schedule:
    r"""Agent j averages with agent :math:`j + 2^k` mod N in round k, :math:`2^k < N`.

    .. math:: \Pi^{(k)} = (I + S^{2^k}) / 2, \quad (S x)^j = x^{(j + 1) \bmod N}

    Every agent sends one message per step. For N a power of two a period of
    :math:`\log_2 N` rounds ends in exact consensus, and so does one that starts at any round.

    Args:
        num_agents: N.

    Returns:
        A schedule of doubly stochastic, not symmetric, matrices.

    Reference: Ying et al. (2021), eq. 7 and Lemma 1 (numbers not verified).
    """
    check_num_agents(num_agents)
    hops = [1 << k for k in range(max(1, (num_agents - 1).bit_length()))]
    agents = np.arange(num_agents)
    senders = np.stack([(agents + hop) % num_agents for hop in hops])[..., None]
    weights = np.full(senders.shape, 0.5 if num_agents > 1 else 0.0)
    return Schedule("one-peer exponential", senders, weights)


def one_peer_hypercube(num_agents: int) -> Schedule:
    """Agents whose numbers differ in bit k average in round k; N is a power of two.

    The edges of a hypercube, one direction at a time, all weights one half: a period of log2 N
    rounds ends in exact consensus. The matrices are symmetric.

    Args:
        num_agents: N.

    Raises:
        ValueError: if N is no power of two.

    Reference: Ying et al. (2021), Appendix (one-peer hypercube; place not verified).
    """
    check_num_agents(num_agents)
    bits = (num_agents - 1).bit_length()
    if 1 << bits != num_agents:
        raise ValueError(
            f"a hypercube's num_agents is a power of two, not {num_agents}; the nearest are "
            f"{1 << (bits - 1)} and {1 << bits}"
        )
    agents = np.arange(num_agents)
    senders = np.stack([agents ^ (1 << k) for k in range(bits)] or [agents])[..., None]
    weights = np.full(senders.shape, 0.5 if num_agents > 1 else 0.0)
    return Schedule("one-peer hypercube", senders, weights)


def base_graph(num_agents: int, degree: int = 1) -> Schedule:
    r"""The Base-(k+1) graph: exact consensus after a period, for every number of agents.

    In every round an agent talks to at most k others, and all matrices are symmetric. A period has
    at most :math:`2 \log_{k+1} N + 2` rounds.

    If N has prime factors up to k + 1 only, agents average in groups of so many, one factor after
    another. Any other N is written in base k + 1, so that agents form parts of
    :math:`a_l (k+1)^{p_l}`. Each part finds its own mean. Then each part gives to, and takes from,
    the smaller ones so much that what remains has the global mean on either side, and both average
    among themselves. Where it takes fewer rounds, agents do so in groups first, and the groups'
    members of equal number among each other afterwards.

    Args:
        num_agents: N.
        degree: k, the most peers of an agent in a round, at least 1.

    Returns:
        The schedule.

    Raises:
        ValueError: if N or k is below 1.

    Example: ``mix = cdjax.mixing.cycle(cdjax.topology.base_graph(25, 1))``

    Reference: Takezawa et al. (2023), Algorithms 1 to 3, Theorem 1 (numbers not verified).
    """
    check_num_agents(num_agents)
    check_count("degree", degree, low=1)
    num_agents, base = int(num_agents), int(degree) + 1
    name = f"base-{base} graph"
    smooth = _smooth_part(num_agents, base)
    in_parts = _by_digits(list(range(num_agents)), base)
    if smooth == 1:
        return _schedule(name, num_agents, in_parts or [{}])
    rest = num_agents // smooth
    groups = [list(range(g * rest, (g + 1) * rest)) for g in range(smooth)]
    inside = [_by_digits(group, base) for group in groups]
    across = [_by_factors([group[member] for group in groups], base) for member in range(rest)]
    in_groups = [*map(_joined, zip(*inside, strict=True)), *map(_joined, zip(*across, strict=True))]
    shortest = min(in_parts, in_groups, key=len)
    return _schedule(name, num_agents, shortest or [{}])


SCHEDULES: Mapping[str, Callable[..., Schedule]] = MappingProxyType(
    {build.__name__: build for build in (one_peer_exponential, one_peer_hypercube, base_graph)}
)


def _schedule(name: str, num_agents: int, rounds: Sequence[_Links]) -> Schedule:
    """A schedule from the links of its rounds."""
    heard = [[[] for _ in range(num_agents)] for _ in rounds]
    for links, by_agent in zip(rounds, heard, strict=True):
        for (receiver, sender), weight in links.items():
            by_agent[receiver].append((sender, weight))
    slots = max(len(row) for by_agent in heard for row in by_agent)
    senders = np.tile(np.arange(num_agents)[:, None], (len(rounds), 1, max(slots, 1)))
    weights = np.zeros(senders.shape)
    for number, by_agent in enumerate(heard):
        for agent, row in enumerate(by_agent):
            for slot, (sender, weight) in enumerate(row):
                senders[number, agent, slot], weights[number, agent, slot] = sender, weight
    return Schedule(name, senders, weights)


def _links_of(matrix: np.ndarray) -> _Links:
    receivers, senders = np.nonzero(matrix * ~np.eye(len(matrix), dtype=bool))
    pairs = zip(receivers.tolist(), senders.tolist(), strict=True)
    return {(j, k): float(matrix[j, k]) for j, k in pairs}


def _joined(rounds: Sequence[_Links]) -> _Links:
    """Links of one round, among agents of which none has two kinds."""
    return dict(itertools.chain.from_iterable(links.items() for links in rounds))


def _averaging(groups: _Groups) -> _Links:
    """The links by which each group takes its mean."""
    return {(j, k): 1 / len(group) for group in groups for j in group for k in group if j != k}


def _smooth_part(number: int, largest: int) -> int:
    """The largest divisor whose prime factors are all at most ``largest``."""
    smooth, rest = 1, number
    for factor in range(2, largest + 1):
        while rest % factor == 0:
            smooth, rest = smooth * factor, rest // factor
    return smooth


@functools.cache
def _fewest_factors(number: int, largest: int) -> tuple[int, ...]:
    """The fewest factors, each at most ``largest``, of a number that has such."""
    if number == 1:
        return ()
    usable = (f for f in range(min(largest, number), 1, -1) if number % f == 0)
    choices = [(f, *_fewest_factors(number // f, largest)) for f in usable]
    return min(choices, key=len)


def _by_factors(agents: list[int], base: int) -> list[_Links]:
    """Rounds after which agents, of a smooth number, agree: the k-peer hyper-hypercube.

    Agents are numbered by digits, one per factor; in a round those average who differ in one digit.
    """
    rounds, stride = [], 1
    for factor in _fewest_factors(len(agents), base):
        starts = (i for i in range(len(agents)) if i // stride % factor == 0)
        rounds.append(_averaging([agents[i : i + stride * factor : stride] for i in starts]))
        stride *= factor
    return rounds


def _by_digits(agents: list[int], base: int) -> list[_Links]:
    """Rounds after which any number of agents agree: the simple Base-(k+1) graph.

    Parts are of :math:`a (k+1)^p` agents, largest first, each cut into a blocks. First every part
    agrees. In exchange l each agent of the parts after l, together of m agents, hears one agent of
    every block of part l at the weight w, and the other way round, w being the size of a block over
    that of part l and those after it. All of part l had the mean x, those after it the mean y, so
    that these have the mean :math:`(1 - a w) y + a w x`, the mean of both; by the sum that stays
    and by symmetry, every block of part l has it, too. The blocks average among themselves while
    the exchange of part l + 1 goes on.
    """
    if _smooth_part(len(agents), base) == len(agents):
        return _by_factors(agents, base)
    parts = _parts(agents, base)
    first = [_by_factors([agent for block in blocks for agent in block], base) for blocks in parts]
    tracks = [_padded(rounds, len(first[0])) for rounds in first]
    for number, blocks in enumerate(parts):
        later = [agent for part in parts[number + 1 :] for block in part for agent in block]
        remaining = len(later) + sum(map(len, blocks))
        weight = len(blocks[0]) / remaining
        pairs = [(block[i], agent) for block in blocks for i, agent in enumerate(later)]
        exchange = {link: weight for j, k in pairs for link in ((j, k), (k, j))}
        if later:
            tracks[number] += [exchange]
            finish = [_by_factors(block, base) for block in blocks]
            tracks[number] += [_joined(rounds) for rounds in zip(*finish, strict=True)]
            for track in tracks[number + 1 :]:
                track.append({})
    length = max(map(len, tracks))
    return [_joined(rounds) for rounds in zip(*(_padded(t, length) for t in tracks), strict=True)]


def _parts(agents: list[int], base: int) -> list[_Groups]:
    """Agents by the digits of their number: a part per digit, of blocks of a power of the base."""
    parts, rest = [], list(agents)
    while rest:
        size = 1
        while size * base <= len(rest):
            size *= base
        count = len(rest) // size
        parts.append([rest[i * size : (i + 1) * size] for i in range(count)])
        rest = rest[count * size :]
    return parts


def _padded(rounds: list[_Links], length: int) -> list[_Links]:
    return rounds + [{}] * (length - len(rounds))
