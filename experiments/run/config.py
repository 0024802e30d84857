"""The options of every experiment, with the paper's defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args, get_type_hints

# Those that mix over the whole topology in every step.
CONSENSUS = ("cdmsgd", "cdmsgd-polyak", "cdsgd", "atc")
ALGORITHMS = (
    *CONSENSUS, "centralized", "fedavg", "easgd", "eamsgd", "downpour",
    "gossip-pair", "gossip-pull", "gossip-push", "gosgd",
)  # fmt: skip
STEP_SIZES = ("fixed", "diminishing", "cosine")
TURNS = ("synchronous", "sequential")
MODELS = ("cnn", "mlp", "softmax")
ON_NAN = ("stop", "drop", "ignore")
INITS = ("same", "independent")
DTYPES = ("float32", "bfloat16")
MIXERS = ("auto", "trimmed-mean", "median", "clipped")
ATTACKS = ("none", "sign-flip", "noise", "alie")

Config = TypeVar("Config", bound="RunConfig")


@dataclass(frozen=True)
class RunConfig:
    """Trains agents that hold private data and talk to their graph neighbours only."""

    default_dataset: ClassVar[str] = "digits"

    agents: int | None = None
    """Number of agents N (default: 5, or as many as the edge list has)."""
    topology: str = "complete"
    """A graph family (ring, torus, erdos_renyi, ...) or the path of an edge-list file."""
    weights: str = "metropolis_hastings"
    """Mixing weights: metropolis_hastings, uniform, max_degree, laplacian or lazy."""
    algorithm: str = "cdmsgd"
    """cdmsgd (Nesterov momentum), cdmsgd-polyak, cdsgd, atc (SGD, adapt then combine), centralized
    (SGD), fedavg, easgd, eamsgd, downpour, gossip-pair, gossip-pull, gossip-push or gosgd."""
    learning_rate: float = 0.01
    """Step size alpha at the first step."""
    schedule: tuple[str, ...] = ("fixed", "synchronous")
    """One or both of: the step size over time, fixed, diminishing (Theta / (k^power + offset)) or
    cosine; and the agents' turns, synchronous (the paper's Algorithm 1) or sequential (one agent
    after another for an epoch each, as the paper's released code)."""
    decay_power: float = 0.6
    """The power of the diminishing schedule, in (0.5, 1]."""
    decay_offset: float = 100.0
    """The offset of the diminishing schedule, in steps^power."""
    momentum: float = 0.9
    """Momentum mu of cdmsgd, cdmsgd-polyak and eamsgd, in [0, 1)."""
    period: int | None = None
    """Steps between exchanges of gossip and the servers (default: fedavg an epoch of the agents'
    own data, easgd and eamsgd 10, downpour and gossip 1)."""
    client_fraction: float = 1.0
    """Share of the agents that are fedavg's clients in a round, in [0, 1]."""
    talk_probability: float = 0.1
    """Probability that an agent of gosgd talks in a step, in [0, 1]."""
    asynchronous: bool = False
    """Sets the agents' clocks apart by a step each, in easgd, eamsgd and downpour."""
    batch_size: int | None = None
    """Samples an agent takes in a step (default: 128; 16 on digits)."""
    epochs: int | None = None
    """Passes over all agents' data together (default: 50; 20 on digits)."""
    partition: str = "iid"
    """How data is dealt to the agents: iid, dirichlet, shards or classes."""
    dirichlet_alpha: float = 0.5
    """Concentration of --partition dirichlet; small is far from iid."""
    shards_per_agent: int = 2
    """Label-sorted shards an agent gets from --partition shards."""
    size_weighted: bool = False
    """Weigh agent j's loss by N n_j / n, for partitions of unequal sizes."""
    model: str = "cnn"
    """cnn (the paper's), mlp or softmax (regression)."""
    dtype: str = "float32"
    """In which to compute gradients: float32 or bfloat16. Parameters and mixing stay float32."""
    init: str = "same"
    """Whether agents start from the same parameters or from independent ones."""
    seed: int = 0
    """Seed of the partition, the initial parameters and the order of the data."""
    eval_every: int = 1
    """Epochs between evaluations."""
    log_every: int | None = None
    """Steps a dispatch, between updates of the bar (default: as many as take half a second)."""
    dataset: str | None = None
    """cifar10, cifar100, mnist, fashion_mnist or digits (default: the program's own)."""
    data_dir: Path | None = None
    """Folder of the data set's archive files, or of tensorflow-datasets' prepared copies."""
    train_samples: int | None = None
    """How many training samples to take, at random (default: all)."""
    test_samples: int | None = None
    """How many test samples to take, at random (default: all)."""
    agent_plan: str = "auto"
    """How agents share the device: vmap, map, unroll or auto."""
    devices: str = "auto"
    """Devices that share the agents: a number, all, or auto (as many as divide the agents)."""
    coordinator: str | None = None
    """HOST:PORT of process 0, to run as one of several processes; the same for each of them."""
    num_processes: int | None = None
    """How many processes take part."""
    process_id: int | None = None
    """Which of the processes this one is, from 0."""
    checkpoint_every: int | None = None
    """Epochs between checkpoints (default: none but at SIGTERM and SIGINT). Some are left out where
    training would wait more than 4 % of its time for them."""
    keep_checkpoints: int = 3
    """How many of the last checkpoints are kept, beside the best by mean test accuracy."""
    resume: Path | None = None
    """Folder of a run to go on with; its options need not be given again."""
    on_nan: str = "stop"
    """When an agent's loss or parameters are not finite: stop, drop the agent, or ignore it."""
    link_failure: float = 0.0
    """Probability that a link fails in a step, in both directions, in [0, 1]."""
    message_loss: float = 0.0
    """Probability that a message gets lost, in one direction, in [0, 1]."""
    absence: float = 0.0
    """Probability that an agent is away from the network, in [0, 1]; it trains alone then."""
    absence_duration: int = 1
    """Steps from one draw of who is away to the next."""
    lag: int = 0
    """Steps by which all that agents hear of each other is late."""
    mixer: str = "auto"
    """How agents combine what they hear: auto (the weighted mean), or by robust means:
    trimmed-mean, median or clipped (gossip)."""
    num_trimmed: int = 1
    """Values that --mixer trimmed-mean cuts off at either end."""
    clip_radius: float = 1.0
    """Distance beyond which --mixer clipped cuts, in the units of the parameters."""
    attack: str = "none"
    """What malicious agents send: none (all are honest), sign-flip, noise or alie (a little is
    enough). Metrics are then those of the honest agents."""
    malicious: int | None = None
    """How many agents are malicious, those with the highest numbers (default: 1)."""
    attack_strength: float | None = None
    """Of sign-flip the factor, of noise the standard deviation, of alie the standard deviations off
    the honest mean (default: 1, 1 and 1.5)."""
    without_agents: tuple[int, ...] = ()
    """Agents to leave out, by their numbers from 0; the others keep the weights they gave them."""
    out: Path = Path("runs")
    """Folder in which the run's own folder is made."""

    @property
    def step_sizes(self) -> str:
        """The step size over time that the schedule names, or else fixed."""
        return next((name for name in self.schedule if name in STEP_SIZES), "fixed")

    @property
    def sequential(self) -> bool:
        """Whether agents train one after another."""
        return "sequential" in self.schedule

    @property
    def wanted_dataset(self) -> str:
        """The data set asked for, or else the program's own."""
        return self.default_dataset if self.dataset is None else self.dataset


def run_config(config: Any, **options: Any) -> RunConfig:
    """One run of a program that makes many: those of its options that a run has, but for some."""
    names = [field.name for field in fields(RunConfig) if hasattr(config, field.name)]
    return RunConfig(**{name: getattr(config, name) for name in names} | options)


def recorded_config(config_class: type[Config], record: Mapping[str, Any]) -> Config:
    """The options of a run's config.json; those that JSON doesn't know, as they were."""
    types = get_type_hints(config_class)
    options = {}
    for field in fields(config_class):
        value = record.get(field.name, field.default)
        if isinstance(value, list):
            value = tuple(value)
        elif value is not None and Path in (types[field.name], *get_args(types[field.name])):
            value = Path(value)
        options[field.name] = value
    return config_class(**options)
