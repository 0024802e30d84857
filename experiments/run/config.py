"""The options of a run, by subject, with the paper's defaults; a field's name is its flag.

An option that only some algorithms, mixers or attacks read is None unless it is given: its default
stands in the row that reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, get_args, get_origin, get_type_hints

from experiments.run.algorithm import ALGORITHMS
from experiments.run.algorithms.compressed import COMPRESSORS
from experiments.run.disturbance import ATTACKS, MIXERS
from experiments.run.errors import UsageError, flag
from experiments.run.loggers import LOGGERS

# The format of config.json and of what lies beside a checkpoint's state. A run of another format
# cannot be resumed.
FORMAT = 2

AlgorithmName: TypeAlias = Literal[tuple(ALGORITHMS)]  # type: ignore[valid-type]
CompressorName: TypeAlias = Literal[tuple(COMPRESSORS)]  # type: ignore[valid-type]
MixerName: TypeAlias = Literal[tuple(MIXERS)]  # type: ignore[valid-type]
AttackName: TypeAlias = Literal[tuple(ATTACKS)]  # type: ignore[valid-type]
LoggerName: TypeAlias = Literal[tuple(LOGGERS)]  # type: ignore[valid-type]
# Each choice of these options, with the options that it reads and their defaults.
SCHEDULES: Mapping[str, Mapping[str, Any]] = {
    "fixed": {},
    "diminishing": {"decay_power": 0.6, "decay_offset": 100.0},
    "cosine": {},
}
PARTITIONS: Mapping[str, Mapping[str, Any]] = {
    "iid": {},
    "dirichlet": {"dirichlet_alpha": 0.5},
    "dirichlet-equal": {"dirichlet_alpha": 0.5},
    "shards": {"shards_per_agent": 2},
    "classes": {},
    "quantity": {"quantity_power": 1.0},
}

ScheduleName: TypeAlias = Literal[tuple(SCHEDULES)]  # type: ignore[valid-type]
PartitionName: TypeAlias = Literal[tuple(PARTITIONS)]  # type: ignore[valid-type]
DatasetName: TypeAlias = Literal["cifar10", "cifar100", "mnist", "fashion_mnist", "digits"]
ModelName: TypeAlias = Literal["cnn", "resnet20", "mlp", "softmax"]

Config = TypeVar("Config")


@dataclass(frozen=True)
class Network:
    """Who talks to whom."""

    agents: int | None = None
    """Number of agents N (default: 5, or as many as the edge list has)."""
    topology: str = "complete"
    """A graph family (ring, torus, erdos_renyi, ...), a file (an edge list, GraphML or GML), or one
    that changes with the step: one-peer-exponential, one-peer-hypercube, base-2 to base-5,
    epidemic, random-circle, random-matching, equitopo."""
    weights: Literal[
        "metropolis_hastings",
        "uniform",
        "max_degree",
        "laplacian",
        "lazy",
        "fastest",
        "fastest_signed",
    ] = "metropolis_hastings"
    """Mixing weights of a topology that does not change."""
    matcha_budget: float | None = None
    """MATCHA: the share of the graph's matchings that a step uses, on average, in (0, 1]; which
    ones is drawn in every step (default: all edges in every step, at --weights)."""
    peers_per_step: int | None = None
    """To how many random others an agent of epidemic and random-circle sends (default: 1)."""
    mix_fraction: float = 1.0
    """SPARTA: the share of all parameters that are mixed in a step, in (0, 1]; which ones is drawn
    in every step."""
    personal: tuple[str, ...] = ()
    """Parameters that stay with each agent, as regular expressions of their whole paths, such as
    'Dense_1/.*' for the last layer of the cnn. They are neither mixed nor sent."""


@dataclass(frozen=True)
class Algorithm:
    """How agents learn. Each algorithm reads some of the options; any other one is an error."""

    algorithm: AlgorithmName = "cdmsgd"
    """cdmsgd has Nesterov momentum inside of consensus, cdmsgd-released outside, as the paper's
    released code; atc is SGD, adapt then combine; centralized averages gradients."""
    learning_rate: float = 0.01
    """Step size alpha in the first step."""
    momentum: float | None = None
    """Momentum mu, in [0, 1) (default: 0.9 for cdmsgd, cdmsgd-polyak, cga, eamsgd,
    momentum-tracking, decentlam and quasi-global, 0.95 for cdmsgd-released, 0.999 for demo, 0
    for others, whose momentum is each agent's own)."""
    schedule: ScheduleName = "fixed"
    """The step size over time; diminishing is Theta / (k^power + offset)."""
    decay_power: float | None = None
    """The power of the diminishing schedule, in (0.5, 1] (default: 0.6)."""
    decay_offset: float | None = None
    """The offset of the diminishing schedule, in steps^power (default: 100)."""
    turns: Literal["synchronous", "sequential"] = "synchronous"
    """Whether all agents move at once (the paper's Algorithm 1), or one after another for an epoch
    each (the schedule of the paper's released code)."""
    period: int | None = None
    """Steps between exchanges of gossip and the servers, or of a round (default: fedavg a pass of
    every agent over its own data, easgd, eamsgd and algorithms of rounds 10, sparse-loco 30,
    downpour and gossip 1)."""
    rounds: int | None = None
    """Exchanges per step of icdsgd (default: 2)."""
    accelerated: bool = False
    """Let Chebyshev's polynomial weigh icdsgd's exchanges."""
    own_weight: float | None = None
    """Weight omega of an agent's own step in gcdsgd, in [0, 1] (default: 0.5)."""
    margin: float | None = None
    """The least factor of each neighbour's weighted gradient in cga (default: 0.5)."""
    tracking_form: Literal["diging", "semi-atc", "atc"] | None = None
    """Order of steps and exchanges in gradient-tracking (default: diging)."""
    buffer_decay: float | None = None
    """How much of its buffer quasi-global keeps in a step, in [0, 1] (default: 0.9)."""
    nesterov: bool = False
    """Let quasi-global look ahead."""
    outer_learning_rate: float | None = None
    """Step size at the end of a round (default: 0.7; 1 for slowmo, kgt and sparse-loco)."""
    outer_momentum: float | None = None
    """Momentum over the rounds, in [0, 1) (default: 0.9 for diloco, outer and factored, 0.5 for
    slowmo, noloco and accelerated, 0.95 for sparse-loco, of what was not sent)."""
    fragments: int | None = None
    """Parts in which diloco and outer send the parameters, one after another in a round; a divisor
    of --period (default: 1)."""
    delay: int | None = None
    """Steps that a fragment is on its way, below --period / --fragments (default: 0)."""
    merge: float | None = None
    """Weight of an agent's own parameters when a fragment arrives, in [0, 1) (default: 0)."""
    client_fraction: float | None = None
    """Share of the agents that are fedavg's clients in a round, in [0, 1] (default: 1)."""
    talk_probability: float | None = None
    """Probability that an agent of gosgd talks in a step, in [0, 1] (default: 0.1)."""
    compressor: CompressorName | None = None
    """What choco and beer compress messages with (default: top-k); int4 rounds at random, int8 to
    the nearest."""
    fraction: float | None = None
    """Share of the entries that top-k and random-k send, in (0, 1] (default: 0.1)."""
    rank: int | None = None
    """How many directions of each matrix power-gossip averages along in a step (default: 1)."""
    kept: int | None = None
    """Entries of each chunk that sparse-loco sends, and coefficients of its cosine transform that
    demo sends (default: 64 and 32)."""
    chunk: int | None = None
    """Side of the squares into which demo and sparse-loco cut matrices, or the largest divisor
    below; length of the pieces of vectors (default: 64)."""
    value_bits: int | None = None
    """Bits of each value that sparse-loco sends (default: 2)."""
    consensus_step: float | None = None
    """How far agents of choco and beer move towards their neighbours' public copies, in (0, 1]; the
    coarser the messages, the smaller (default: 0.1)."""
    asynchronous: bool = False
    """Sets the agents' clocks apart by a step each, in easgd, eamsgd and downpour."""


@dataclass(frozen=True)
class Training:
    """How long, in which batches, and how often it is evaluated."""

    epochs: int | None = None
    """Passes over all agents' data together (default: 50; 20 on digits)."""
    batch_size: int | None = None
    """Samples per agent and step (default: 128; 16 on digits)."""
    seed: int = 0
    """Seed of the partition, the initial parameters and the order of the data."""
    eval_every: int | None = None
    """Epochs between evaluations (default: so many that they take a third of the training's time at
    most, and one for --epochs below 10)."""
    evaluate_train: bool = False
    """Also evaluate what is trained on all training samples; the training loss and accuracy are
    means over the steps otherwise."""
    size_weighted: bool = False
    """Weigh agent j's loss by N n_j / n, for partitions of unequal sizes."""


@dataclass(frozen=True)
class Data:
    """Which data, and how it is dealt to the agents."""

    dataset: DatasetName | None = None
    """The data set (default: the program's own)."""
    data_dir: Path | None = None
    """Folder of the data set's archive files, or of tensorflow-datasets' prepared copies."""
    stand_in: bool = False
    """Train on scikit-learn's digits if the data set cannot be had, as the programs do when neither
    --dataset nor --data-dir is given."""
    train_samples: int | None = None
    """How many training samples to take, at random (default: all)."""
    test_samples: int | None = None
    """How many test samples to take, at random (default: all)."""
    partition: PartitionName = "iid"
    """How data is dealt to the agents."""
    dirichlet_alpha: float | None = None
    """Concentration of --partition dirichlet, of agents of unequal sizes, and dirichlet-equal;
    small is far from iid (default: 0.5)."""
    shards_per_agent: int | None = None
    """Label-sorted shards per agent, of --partition shards (default: 2)."""
    quantity_power: float | None = None
    """How unequal the numbers of samples are, of --partition quantity: as 1 / rank^power (default:
    1)."""
    feature_skew: Literal["none", "rotation", "tint"] = "none"
    """How images differ between agents: turned by quarters, or of other brightness per channel.
    Test images are those of all agents in turn."""


@dataclass(frozen=True)
class Model:
    """What every agent trains."""

    model: ModelName = "cnn"
    """cnn (the paper's), resnet20 (with GroupNorm), mlp or softmax (regression)."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """In which to compute gradients. Parameters and mixing stay float32."""
    init: Literal["same", "independent"] = "same"
    """Whether agents start from the same parameters or from independent ones."""


@dataclass(frozen=True)
class Trouble:
    """Networks that fail and agents that lie."""

    link_failure: float = 0.0
    """Probability that a link fails in a step, in both directions, in [0, 1]."""
    message_loss: float = 0.0
    """Probability that a message gets lost, in one direction, in [0, 1]."""
    absence: float = 0.0
    """Probability that an agent is away from the network, in [0, 1]; it trains alone then."""
    absence_duration: int | None = None
    """Steps from one draw of who is away to the next (default: 1)."""
    lag: int = 0
    """Steps by which all that agents hear of each other is late."""
    mixer: MixerName = "auto"
    """How agents combine what they hear: auto is the weighted mean, the others are robust."""
    num_trimmed: int | None = None
    """Values that --mixer trimmed-mean cuts off at either end (default: 1)."""
    clip_radius: float | None = None
    """Distance beyond which --mixer clipped cuts, in the units of the parameters (default: 1)."""
    attack: AttackName = "none"
    """What malicious agents send. Metrics are then those of the honest agents."""
    malicious: int | None = None
    """How many agents are malicious, those with the highest numbers (default: 1)."""
    attack_strength: float | None = None
    """The factor of sign-flip, the standard deviation of noise, the number of standard deviations
    off the honest mean of alie (default: 1, 1 and the largest that stays hidden)."""
    without_agents: tuple[int | str, ...] = ()
    """Agents to leave out, by their names in the graph's file or their numbers from 0; the others
    keep the weights they gave them."""
    on_nan: Literal["stop", "drop", "ignore"] = "stop"
    """When an agent's loss or parameters are not finite: stop, drop the agent, or ignore it."""


@dataclass(frozen=True)
class Clock:
    """How long all of it takes on a network, in simulated seconds."""

    network: str | None = None
    """datacenter, campus, wide-area, home or mobile; regions (of a cloud, all over the world); or a
    CSV file of links, with the columns from, to, latency, bandwidth (default: none, and no
    simulated seconds, unless --latency or --bandwidth is given)."""
    latency: str | None = None
    """Time that a message takes beside its bytes, one way, such as 50ms (default: the network's, or
    else none)."""
    bandwidth: str | None = None
    """Of each agent's own connection, up and down, which all that passes at once shares, such as
    100Mbit or 12.5MB (default: the network's, or else without limit)."""
    server_bandwidth: str | None = None
    """Of a server's connection (default: that of an agent's uplink)."""
    compute_time: str | None = None
    """Time of an agent's gradient, such as 0.4s (default: measured on this machine)."""
    jitter: float = 0.0
    """Standard deviation of that time, as a share of it; it is lognormal."""
    stragglers: float = 0.0
    """Probability that an agent is slow in a step, in [0, 1]."""
    slowdown: float | None = None
    """How many times as long a slow step takes (default: 10)."""

    @property
    def is_on(self) -> bool:
        """Whether there is a network."""
        return any(x is not None for x in (self.network, self.latency, self.bandwidth))


@dataclass(frozen=True)
class Saving:
    """Where results go, and checkpoints."""

    out: Path = Path("runs")
    """Folder in which the run's own folder is made."""
    checkpoint_every: int | None = None
    """Epochs between checkpoints (default: only at SIGTERM and SIGINT). Some are skipped if
    training would wait more than 4 % of its time for them."""
    keep_checkpoints: int = 3
    """How many of the last checkpoints are kept, beside the best by mean test accuracy."""
    resume: Path | None = None
    """Folder of a run to go on with; its options need not be given again."""


@dataclass(frozen=True)
class Output:
    """What is told while a run goes on, and where its numbers go besides its folder."""

    quiet: bool = False
    """Print nothing but errors and a stand-in for the data set; the folder is the same."""
    log: tuple[LoggerName, ...] = ()
    """Where to log besides metrics.jsonl: tensorboard, wandb, or both (--log tensorboard,wandb).
    Each needs its extra."""


@dataclass(frozen=True)
class Machine:
    """On which devices, and by how many processes."""

    agent_plan: Literal["auto", "vmap", "map", "unroll"] = "auto"
    """How agents share a device."""
    devices: str = "auto"
    """Devices that share the agents: a number, all, or auto (as many as divide the agents)."""
    log_every: int | None = None
    """Steps per dispatch, between updates of the bar (default: as many as take half a second)."""
    coordinator: str | None = None
    """HOST:PORT of process 0, to run as one of several processes; the same for each of them."""
    num_processes: int | None = None
    """How many processes take part."""
    process_id: int | None = None
    """Which of the processes this one is, from 0."""
    secret_file: Path | None = None
    """File of the secret by which the processes know each other (default: what the environment
    holds as CDJAX_SECRET, or else a file that is made in ~/.config/cdjax)."""


@dataclass(frozen=True)
class Run:
    """Trains agents that hold private data and talk to their graph neighbours only."""

    network: Network = field(default_factory=Network)
    algorithm: Algorithm = field(default_factory=Algorithm)
    training: Training = field(default_factory=Training)
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    trouble: Trouble = field(default_factory=Trouble)
    clock: Clock = field(default_factory=Clock)
    saving: Saving = field(default_factory=Saving)
    output: Output = field(default_factory=Output)
    machine: Machine = field(default_factory=Machine)


def flat(config: Any) -> dict[str, Any]:
    """Every option of a run or a study by its name."""
    options: dict[str, Any] = {}
    for part in fields(config):
        value = getattr(config, part.name)
        options |= flat(value) if is_dataclass(value) else {part.name: value}
    return options


def replaced(config: Config, **options: Any) -> Config:
    """A run, a study or a part with other values for some options, wherever they stand in it."""
    changes: dict[str, Any] = {}
    for part in fields(config):  # type: ignore[arg-type]
        value = getattr(config, part.name)
        if part.name in options and not is_dataclass(value):
            changes[part.name] = options.pop(part.name)
        elif is_dataclass(value):
            names = [own.name for own in fields(value) if own.name in options]
            own_options = {name: options.pop(name) for name in names}
            changes[part.name] = replace(value, **own_options) if own_options else value
    if options:
        raise TypeError(f"no such options: {', '.join(options)}")
    return replace(config, **changes)  # type: ignore[type-var]


def option_values(options: Mapping[str, Any], part: Any) -> dict[str, Any]:
    """The options that a row reads, with its defaults for those that are not given."""
    given = {name: getattr(part, name) for name in options}
    return {name: options[name] if value is None else value for name, value in given.items()}


def run_of(study: Any, **options: Any) -> Run:
    """One run of a study: the parts that the study has, the defaults of others, and ``options``."""
    names = [part.name for part in fields(Run) if is_dataclass(getattr(study, part.name, None))]
    return replaced(Run(**{name: getattr(study, name) for name in names}), **options)


def from_record(record: Mapping[str, Any]) -> Run:
    """The options that were written to config.json; raises for those of another version."""
    if record.get("format") != FORMAT:
        raise UsageError(
            "it was made by an older version of cdjax, whose runs cannot be resumed; start it anew"
        )
    run = Run()
    for part in fields(Run):
        value = getattr(run, part.name)
        hints = get_type_hints(type(value))
        own = {name: _typed(record[name], hints[name]) for name in hints if name in record}
        run = replace(run, **{part.name: replace(value, **own)})
    return run


def paths_expanded(config: Config) -> Config:
    """A run or a study with the home of a user in the place of ``~`` in every path."""
    changes: dict[str, Any] = {}
    for part in fields(config):  # type: ignore[arg-type]
        name, value = part.name, getattr(config, part.name)
        if is_dataclass(value):
            changes[name] = paths_expanded(value)
        elif isinstance(value, Path) or (name == "topology" and str(value).startswith("~")):
            try:
                changes[name] = type(value)(Path(value).expanduser())
            except RuntimeError as error:
                raise UsageError(f"{flag(name)}: {value}: no such user's home is known") from error
    return replace(config, **changes)  # type: ignore[type-var]


def option_hints(config: Any) -> dict[str, Any]:
    """The type of every option."""
    found: dict[str, Any] = {}
    for name, hint in get_type_hints(type(config)).items():
        value = getattr(config, name)
        found |= option_hints(value) if is_dataclass(value) else {name: hint}
    return found


def check_choices(config: Any) -> None:
    """Raises for a value that is none of its option's choices: tyro checks what is typed only."""
    for part in (config, *filter(is_dataclass, vars(config).values())):
        for name, hint in get_type_hints(type(part)).items():
            value = getattr(part, name)
            given = value if isinstance(value, tuple) else (value,)
            for choices in (x for x in (hint, *get_args(hint)) if get_origin(x) is Literal):
                for one in given:
                    if one is not None and one not in get_args(choices):
                        wanted = ", ".join(get_args(choices))
                        raise UsageError(f"{flag(name)}: unknown choice {one!r}; expected {wanted}")


def _typed(value: Any, hint: Any) -> Any:
    """What JSON does not know, as it was."""
    if isinstance(value, list):
        return tuple(value)
    return Path(value) if value is not None and Path in (hint, *get_args(hint)) else value
