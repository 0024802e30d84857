"""A run, ready to train: its network, its problem and its algorithm, and the jitted programs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from jax.sharding import Mesh

import cdjax
from cdjax import data, sharding, training
from experiments.run import alike, clock, config, network, problem
from experiments.run.algorithm import (
    ALGORITHMS,
    bytes_of_message,
    messages_per_step,
    transformation,
)
from experiments.run.algorithms.row import Algorithm, Setting
from experiments.run.checks import check_options, check_spectrum
from experiments.run.compiling import jit_once
from experiments.run.config import SCHEDULES, Run, option_values
from experiments.run.errors import UsageError, blame
from experiments.run.signals import check_alike
from experiments.run.wires import check_clock

_MOST_STEPS = 2**31 - 1  # a step is counted in 32 bits


class Keys(NamedTuple):
    """What a run draws from: its initial parameters, its steps, and its peers."""

    init: jax.Array
    run: jax.Array
    peers: jax.Array

    @classmethod
    def of(cls, seed: int) -> Keys:
        """Those of ``--seed``."""
        return cls(*jax.random.split(jax.random.key(seed), 3))


class View(NamedTuple):
    """What is looked at: all iterates; of the honest agents their one model and their distance."""

    params: cdjax.Params
    model: cdjax.Params
    model_state: cdjax.Params
    consensus_distance: jax.Array


class Programs(NamedTuple):
    """The jitted programs of a run: its loop, the evaluation of all agents and of one model."""

    loop: Callable[..., tuple[training.TrainState, training.Metrics]]
    evaluate: Callable[..., training.Metrics]
    evaluate_model: Callable[..., training.Metrics]
    view: Callable[[training.TrainState], View]


class Job(NamedTuple):
    """All that is made of a run's options before its first step.

    ``sample_sets`` are those on which it is evaluated: ``test``, and ``train`` if it is asked for.
    """

    run: Run
    network: network.Network
    problem: problem.Problem
    setting: Setting
    mesh: Mesh
    programs: Programs
    state: training.TrainState
    agent_data: data.AgentData
    sample_sets: dict[str, tuple[jax.Array, jax.Array]]
    message_bytes: int
    bytes_per_step: float
    timing: clock.Timing | None = None

    @property
    def algorithm(self) -> Algorithm:
        """The row of the run's algorithm."""
        return ALGORITHMS[self.run.algorithm.algorithm]

    @property
    def options(self) -> dict[str, Any]:
        """The options that the run's algorithm reads, defaults filled in."""
        return option_values(self.algorithm.options, self.run.algorithm)

    @property
    def in_turns(self) -> bool:
        """Whether agents train one after another."""
        return self.run.algorithm.turns == "sequential"

    @property
    def steps_per_dispatch(self) -> int | None:
        """A fixed number of them; None to let the time decide. A turn, of an epoch, is one."""
        return self.problem.steps_per_epoch if self.in_turns else self.run.machine.log_every


def check(run: Run) -> None:
    """Raises a UsageError for what is wrong with the options, the topology among them."""
    check_options(run)
    check_clock(run.clock)
    check_spectrum(run, network.build(run.network, run.trouble).topology)


def prepare(run: Run, *, held: Job | None = None) -> Job:
    """Checks the options and builds all that they ask for; nothing is written to disk.

    The graph and the data of a job that is ``held``, among more agents, are not read again.

    Raises a UsageError for an option that cannot work, which names it and the remedy.
    """
    check_options(run)
    check_clock(run.clock)
    net = network.build(run.network, run.trouble, whole=held and held.network.whole)
    check_spectrum(run, net.topology)
    task = problem.build(
        run.data, run.model, length=run.training, network=net, held=held and held.problem
    )
    check_alike(alike.of_content(task.dataset, net.topology))
    row = ALGORITHMS[run.algorithm.algorithm]
    options = option_values(row.options, run.algorithm)
    if row.own_passes and not options["period"]:
        task = task._replace(steps_per_epoch=int(task.own_steps.max()))
    if task.num_steps > _MOST_STEPS:
        most = _MOST_STEPS // task.steps_per_epoch
        raise UsageError(f"--epochs: {task.epochs} are too many; give at most {most}")
    in_turns = run.algorithm.turns == "sequential"
    on_one = in_turns or row.has_events
    mesh = network.build_mesh(run.machine, net.num_agents, in_turns=on_one)
    keys = Keys.of(run.training.seed)

    shared = network.shared_leaves(
        jax.eval_shape(jax.vmap(task.initial), jax.random.split(keys.init, net.num_agents))[0],
        run.network.personal,
    )
    mix = None
    if row.over_topology:
        mix = network.build_mixer(
            net, mesh, trouble=run.trouble, key=keys.peers,
            personal=run.network.personal, mix_fraction=run.network.mix_fraction,
        )  # fmt: skip
    setting = Setting(
        topology=net.topology,
        mix=mix,
        alpha=step_size(run.algorithm, task.num_steps),
        sizes=task.sizes,
        own_steps=task.own_steps,
        size_weighted=run.training.size_weighted,
        num_steps=task.num_steps,
        key=keys.peers,
        messages=net.varying.messages if net.varying else None,
        mesh=mesh,
    )
    message_bytes = bytes_of_message(row, setting, options, shared)
    if row.has_events:
        events = clock.events_of(
            run, net, num_events=task.num_steps * net.num_agents, message_bytes=message_bytes,
            key=keys.peers,
        )  # fmt: skip
        setting = setting._replace(events=events)
    with blame("--algorithm"):
        tx = transformation(row, setting, options=options, lag=run.trouble.lag)
        state = _initial_state(task, tx, init=run.model.init, mesh=mesh, keys=keys)
    messages = messages_per_step(row, setting, options) * network.share_sent(run.trouble)
    timing = clock.timing_of(
        run, net, row, setting=setting, options=options, message_bytes=message_bytes
    )
    messages *= run.network.mix_fraction
    if in_turns:  # the neighbours stand still, so each is heard once a turn
        messages /= task.steps_per_epoch
    plan = run.machine.agent_plan
    if in_turns:
        loop = training.sequential_loop(task.loss, tx)
    elif row.loop and mesh.size == 1:
        loop = row.loop(setting, task.loss, plan=plan, **options)
    else:
        graph = net.topology if row.crosses else None
        step = training.train_step(task.loss, tx, plan=plan, mesh=mesh, topology=graph)
        loop = training.train_loop(step, mesh=mesh)
    return Job(
        run=run,
        network=net,
        problem=task,
        setting=setting,
        mesh=mesh,
        programs=_programs(task, loop, plan=plan, mesh=mesh, view=view_of(row, net)),
        state=state,
        agent_data=_agent_data(task, mesh),
        sample_sets=_sample_sets(task, mesh, with_train=run.training.evaluate_train),
        message_bytes=message_bytes,
        bytes_per_step=messages * message_bytes,
        timing=timing,
    )


def step_size(options: config.Algorithm, num_steps: int) -> cdjax.ScalarOrSchedule:
    """The step size of ``--learning-rate`` and ``--schedule``."""
    decay = option_values(SCHEDULES[options.schedule], options)
    match options.schedule:
        case "fixed":
            return options.learning_rate
        case "cosine":
            return optax.cosine_decay_schedule(options.learning_rate, num_steps)
    power, offset = decay["decay_power"], decay["decay_offset"]
    return cdjax.diminishing_schedule(options.learning_rate, power=power, offset=offset)


def _initial_state(
    task: problem.Problem,
    tx: optax.GradientTransformation,
    *,
    init: str,
    mesh: Mesh,
    keys: Keys,
) -> training.TrainState:
    """The state before the first step; each agent's part is made on its own device."""
    make = functools.partial(initial_state, task, tx, init=init, keys=keys)
    places = sharding.agent_shardings(jax.eval_shape(make), mesh, num_agents=len(task.sizes))
    return jit_once(make, out_shardings=places)()


def initial_state(
    task: problem.Problem, tx: optax.GradientTransformation, *, init: str, keys: Keys
) -> training.TrainState:
    """The state before the first step; its keys may be traced."""
    num_agents = len(task.sizes)
    if init == "same":
        stacked = cdjax.replicate(task.initial(keys.init), num_agents)
    else:
        stacked = jax.vmap(task.initial)(jax.random.split(keys.init, num_agents))
    params, model_state = stacked
    return training.init_state(params, tx, key=keys.run, model_state=model_state)


def _agent_data(task: problem.Problem, mesh: Mesh) -> data.AgentData:
    images, labels = task.dataset.train_images, task.dataset.train_labels
    longest = int(task.sizes.max())

    def of(agents: range) -> data.AgentData:
        own = task.parts[agents.start : agents.stop]
        return data.stack_agents(images, labels, partition=own, longest=longest)

    return sharding.build_agents(of, len(task.parts), mesh=mesh)


def _sample_sets(
    task: problem.Problem, mesh: Mesh, *, with_train: bool
) -> dict[str, tuple[jax.Array, jax.Array]]:
    sets = {"test": (task.dataset.test_images, task.dataset.test_labels)}
    if with_train:
        sets["train"] = (task.dataset.train_images, task.dataset.train_labels)
    return sharding.replicate_on_devices(sets, mesh)


def _programs(
    task: problem.Problem,
    loop: Callable[..., tuple[training.TrainState, training.Metrics]],
    *,
    plan: str,
    mesh: Mesh,
    view: Callable[[training.TrainState], View],
) -> Programs:
    evaluate = functools.partial(training.evaluation, task.metrics, plan=plan)
    return Programs(loop, evaluate(mesh=mesh), evaluate(mesh=None), jax.jit(view))


def view_of(row: Algorithm, net: network.Network) -> Callable[[training.TrainState], View]:
    """What is looked at of a state, see :class:`View`."""
    honest, num_agents, has_server = net.honest, net.num_agents, row.server == "stateful"

    def view(state: training.TrainState) -> View:
        params = cdjax.eval_params(state.opt_state, state.params)
        seen = (params, state.model_state)
        if len(honest) < num_agents:
            seen = jax.tree.map(lambda x: x[honest], seen)
        model, model_state = cdjax.mean_params(seen)
        if has_server:
            model = cdjax.server_params(state.opt_state)
        one_agent = cdjax.replicate((model, model_state), 1)
        return View(params, *one_agent, cdjax.metrics.consensus_distance(seen[0]))

    return view
