"""The options of the robustness study."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from experiments.run import config
from experiments.run.disturbance import ATTACKS, MIXERS

FaultName: TypeAlias = Literal["link-failure", "message-loss", "absence", "lag"]


@dataclass(frozen=True)
class Robustness:
    """Test accuracy by mixer and attack, and by fault of the network.

    Every mixer is run under every attack, and the weighted mean under each fault separately, all
    with the same step size. Runs that --out already holds are not run again.
    """

    network: config.Network = config.Network(agents=10)
    training: config.Training = config.Training(epochs=5)
    data: config.Data = config.Data(dataset="fashion_mnist")
    model: config.Model = config.Model(model="mlp")
    machine: config.Machine = config.Machine()

    algorithm: config.AlgorithmName = "cdsgd"
    """One that mixes over the topology: cdsgd, cdmsgd, cdmsgd-polyak or atc."""
    learning_rate: float = 0.1
    """Step size alpha in the first step."""
    schedule: config.ScheduleName = "fixed"
    """The step size over time; diminishing is Theta / (k^power + offset)."""
    decay_power: float | None = None
    """The power of the diminishing schedule, in (0.5, 1] (default: 0.6)."""
    decay_offset: float | None = None
    """The offset of the diminishing schedule, in steps^power (default: 100)."""
    momentum: float | None = None
    """Momentum mu of cdmsgd and cdmsgd-polyak, in [0, 1) (default: 0.9)."""
    seeds: int = 5
    """Runs of each, with the seeds from --seed on."""
    mixers: tuple[config.MixerName, ...] = tuple(MIXERS)
    """How agents combine what they hear; auto is the weighted mean."""
    num_trimmed: int = 2
    """Values that trimmed-mean cuts off at either end."""
    clip_radii: tuple[float, ...] = (0.1, 1.0, 10.0)
    """The radii with which clipped is tried: the right one is not known before training."""
    attacks: tuple[config.AttackName, ...] = tuple(ATTACKS)
    """What malicious agents send."""
    malicious: int = 2
    """How many agents are malicious, those with the highest numbers."""
    attack_strength: float | None = None
    """The factor of sign-flip, the standard deviation of noise, the number of standard deviations
    off the honest mean of alie (default: 1, 1 and the largest that stays hidden)."""
    faults: tuple[FaultName, ...] = ("link-failure", "message-loss", "absence", "lag")
    """Which faults; the option of the same name says how strong each is."""
    fault_topology: str = "ring"
    """The graph on which faults happen; attacks happen on --topology."""
    link_failure: float = 0.2
    """Probability that a link fails in a step, in both directions, in [0, 1]."""
    message_loss: float = 0.2
    """Probability that a message gets lost, in one direction, in [0, 1]."""
    absence: float = 0.2
    """Probability that an agent is away from the network, in [0, 1]; it trains alone then."""
    absence_duration: int = 50
    """Steps from one draw of who is away to the next."""
    lag: int = 5
    """Steps by which all that agents hear of each other is late."""
    jobs: int = 1
    """Runs at a time, each in a process with its share of the cores."""
    out: Path = Path("runs/robustness")
    """Folder of the tables, the figure and all runs."""
