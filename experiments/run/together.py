"""Runs that differ in their seed and their step size only, as one program.

A small model leaves most of a device idle, and every run compiles anew and waits for the host. So
whole runs get an axis of their own, by a second ``vmap`` around that of the agents: the step size
and the keys are traced, and the samples of each run are those of its own partition.

What comes out is what each run by itself gives, up to rounding. Step by step (CDMSGD, a perceptron,
eight agents, digits, 55 steps) the parameters of one seed end 6e-7 apart in float32. Those of
another jump from 3e-8 to 2e-5 between steps 8 and 12, as if rounding had carried a unit over the
edge of its ReLU, and end 3e-3 apart, with a loss that differs by one per cent. In float64 both stay
at 1e-18 throughout, so it is nothing but rounding: runs at an edge, or that diverge, make it grow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cdjax import data, metrics, sharding, training
from experiments.run import network, problem
from experiments.run.algorithm import ALGORITHMS, Algorithm, Setting, transformation
from experiments.run.checks import check_options
from experiments.run.compiling import jit_once, keep_compilations
from experiments.run.config import Run, flat, option_values
from experiments.run.errors import UsageError, blame, flag
from experiments.run.evaluate import summary
from experiments.run.job import Keys, initial_state, step_size, view_of

_OWN = ("seed", "learning_rate", "out")  # options in which the runs may differ


class _Plan(NamedTuple):
    """What is made of the options before the first step.

    ``tasks`` are the problems of the different ``seeds``, ``which`` is the position in them of
    every run; ``rates`` and ``keys`` are those of every run.
    """

    run: Run
    row: Algorithm
    network: network.Network
    seeds: list[int]
    tasks: list[problem.Problem]
    which: np.ndarray
    rates: jax.Array
    keys: Keys

    @property
    def task(self) -> problem.Problem:
        """The problem of the first seed; loss, metrics, data set and lengths are those of all."""
        return self.tasks[0]


def run_together(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The last record of each of several runs, made by one program on one device.

    Args:
        runs: options that are alike but for ``--seed`` and ``--learning-rate``.

    Returns:
        For every run the numbers that it ends with, as in the last line of its metrics.jsonl, but
        for those that are counted on the way there. Of a run whose parameters or test losses are
        not finite at its end, ``diverged`` is true.

    Raises:
        UsageError: for an option that cannot work, or that the runs cannot share.
    """
    keep_compilations()
    plan = _planned(runs)
    with blame("--algorithm"):
        states = _started(plan)
    states = _trained(plan, states)
    return _looked_at(plan, states)


def check_together(run: Run) -> None:
    """Raises a UsageError for an option that runs cannot share one program with."""
    refused = []
    # Cut data sets differ from seed to seed, and so do what an agent weighs and its own passes.
    refused += [name for name in ("train_samples", "test_samples") if getattr(run.data, name)]
    refused += ["size_weighted"] * run.training.size_weighted
    refused += ["feature_skew"] * (run.data.feature_skew != "none")
    refused += ["turns"] * (run.algorithm.turns == "sequential")
    refused += ["algorithm"] * is_made_alone(run.algorithm.algorithm)
    refused += ["devices"] * (run.machine.devices not in ("auto", "1"))
    if refused:
        remedy = "leave it out" if refused[0] != "algorithm" else "give another"
        raise UsageError(
            f"{flag(refused[0])}: not for runs that are made together by one program; {remedy}"
        )


def is_made_alone(algorithm: str) -> bool:
    """Whether the runs of an algorithm cannot share a program, whatever the other options are."""
    row = ALGORITHMS[algorithm]
    return row.own_passes or row.loop is not None


def _planned(runs: Sequence[Run]) -> _Plan:
    first = runs[0]
    check_options(first)
    check_together(first)
    _check_alike(runs)
    net = network.build(first.network, first.trouble)
    # In the order of the first run of each.
    seeds = list(dict.fromkeys(run.training.seed for run in runs))
    keys = [Keys.of(run.training.seed) for run in runs]
    return _Plan(
        run=first,
        row=ALGORITHMS[first.algorithm.algorithm],
        network=net,
        seeds=seeds,
        tasks=[
            problem.build(
                first.data, first.model, length=replace(first.training, seed=seed), network=net
            )
            for seed in seeds
        ],
        which=np.array([seeds.index(run.training.seed) for run in runs]),
        rates=jnp.array([run.algorithm.learning_rate for run in runs], jnp.float32),
        keys=jax.tree.map(lambda *of_runs: jnp.stack(of_runs), *keys),
    )


def _check_alike(runs: Sequence[Run]) -> None:
    described = [flat(run) for run in runs]
    for other in described[1:]:
        differing = [name for name in other if other[name] != described[0][name]]
        if unlike := [name for name in differing if name not in _OWN]:
            raise UsageError(f"{flag(unlike[0])}: runs made together differ in it; give them one")


def _transformation(plan: _Plan, rate: jax.Array, keys: Keys) -> optax.GradientTransformation:
    """The algorithm with a traced step size, and peers drawn from a traced key."""
    run, task, net = plan.run, plan.task, plan.network
    mix = None
    if plan.row.over_topology:
        mix = network.build_mixer(
            net, sharding.agent_mesh(1), trouble=run.trouble, key=keys.peers,
            personal=run.network.personal, mix_fraction=run.network.mix_fraction,
        )  # fmt: skip
    setting = Setting(
        topology=net.topology,
        mix=mix,
        alpha=step_size(replace(run.algorithm, learning_rate=rate), task.num_steps),
        sizes=task.sizes,
        own_steps=task.own_steps,
        size_weighted=False,
        num_steps=task.num_steps,
        key=keys.peers,
    )
    options = option_values(plan.row.options, run.algorithm)
    return transformation(plan.row, setting, options=options, lag=run.trouble.lag)


def _started(plan: _Plan) -> training.TrainState:
    """The states of all runs before their first step, behind an axis of the runs."""

    def start(rate: jax.Array, keys: Keys) -> training.TrainState:
        tx = _transformation(plan, rate, keys)
        return initial_state(plan.task, tx, init=plan.run.model.init, keys=keys)

    try:
        return jit_once(jax.vmap(start))(plan.rates, plan.keys)
    except jax.errors.ConcretizationTypeError as error:
        name = plan.run.algorithm.algorithm
        raise UsageError(
            f"--algorithm: {name} reads its step size before the first step, so its runs cannot "
            "be made together; give another"
        ) from error


def _trained(plan: _Plan, states: training.TrainState) -> training.TrainState:
    """The states after the last step. A dispatch is an epoch: the host can be interrupted."""
    task, dataset = plan.task, plan.task.dataset
    steps = task.steps_per_epoch
    samples = jax.device_put((dataset.train_images, dataset.train_labels.astype(np.int32)))

    def of_run(
        state: training.TrainState,
        rate: jax.Array,
        keys: Keys,
        own: jax.Array,
        of_seeds: jax.Array,
        samples: problem.Batch,
    ) -> training.TrainState:
        tx = _transformation(plan, rate, keys)
        step = training.train_step(
            task.loss, tx, plan=plan.run.machine.agent_plan,
            topology=plan.network.topology if plan.row.crosses else None,
        )  # fmt: skip

        def body(i: jax.Array, state: training.TrainState) -> training.TrainState:
            # All images stay where they are once, whoever holds them: the batch alone is copied.
            batch = jax.tree.map(lambda x: x[of_seeds[own, i]], samples)
            return step(state, batch)[0]

        return jax.lax.fori_loop(0, steps, body, state)

    epoch = jax.jit(jax.vmap(of_run, in_axes=(0, 0, 0, 0, None, None)), donate_argnums=0)
    for number in range(task.epochs):
        chosen = np.stack([_samples(plan, seed, number * steps) for seed in range(len(plan.tasks))])
        states = epoch(states, plan.rates, plan.keys, plan.which, chosen, samples)
    return jax.block_until_ready(states)


def _samples(plan: _Plan, seed: int, first_step: int) -> np.ndarray:
    """Which samples of the data set each agent takes in the steps of an epoch."""
    task = plan.tasks[seed]
    own = data.batch_indices(
        task.sizes, task.batch_size, first_step=first_step, num_steps=task.steps_per_epoch,
        seed=plan.seeds[seed],
    )  # fmt: skip
    of_agents = [part[own[:, agent]] for agent, part in enumerate(task.parts)]
    return np.stack(of_agents, axis=1).astype(np.int32)


def _looked_at(plan: _Plan, states: training.TrainState) -> list[dict[str, Any]]:
    """The record of each run."""
    task, row = plan.task, plan.row
    view_one = view_of(row, plan.network)
    evaluate = training.evaluation(task.metrics, plan=plan.run.machine.agent_plan)
    dataset = task.dataset
    sets = {"test": (dataset.test_images, dataset.test_labels)}
    if plan.run.training.evaluate_train:
        sets["train"] = (dataset.train_images, dataset.train_labels)
    honest = plan.network.honest

    def look(state: training.TrainState, sets: Any) -> Any:
        view = view_one(state)

        def of_agents(samples: Any) -> training.Metrics:
            values = evaluate(view.params, state.model_state, samples)
            return {name: of_all[honest] for name, of_all in values.items()}

        def of_model(samples: Any) -> training.Metrics:
            return evaluate(view.model, view.model_state, samples)

        test, model_test = of_agents(sets["test"]), of_model(sets["test"])
        trained = {"test": model_test if row.server else test}
        if "train" in sets:
            trained["train"] = (of_model if row.server else of_agents)(sets["train"])
        finite = jnp.all(metrics.finite_agents(state.params))
        return test, model_test, trained, view.consensus_distance, finite

    every = jax.device_get(jax.jit(jax.vmap(look, in_axes=(0, None)))(states, sets))
    steps = {"dataset": dataset.name, "epoch": task.epochs, "step": task.num_steps}
    records = []
    for number in range(len(plan.which)):
        test, model_test, trained, distance, finite = jax.tree.map(lambda x: x[number], every)  # noqa: B023
        record = summary(test, model_test, trained=trained, consensus_distance=distance)
        diverged = not (finite and np.isfinite(record["test_loss"]))
        records.append({**steps, **record, "diverged": diverged})
    return records
