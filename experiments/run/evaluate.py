"""One evaluation of a run: a line of metrics.jsonl, and each agent's share in it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from cdjax import metrics, training
from experiments.run.bounds import consensus_bound
from experiments.run.clock import simulated_seconds
from experiments.run.dispatch import fetched
from experiments.run.job import Job
from experiments.run.progress import Progress, agent_means, bytes_sent


class Evaluation(NamedTuple):
    """A record, and the test metrics of every honest agent, each of shape (agents,)."""

    record: dict[str, Any]
    test: training.Metrics


def evaluated(job: Job, state: training.TrainState, progress: Progress) -> Evaluation:
    """A state, evaluated; training metrics are means over the steps since the last record."""
    step = int(state.step)
    steps = step - progress.last_recorded
    of_agents, test = _of_agents(job, state, progress.sums, steps=steps)
    record = {
        "dataset": job.problem.dataset.name,
        "epoch": step // job.problem.steps_per_epoch,
        "step": step,
    } | of_agents
    bound = consensus_bound(
        job, step, largest_gradient=progress.largest_gradient,
        initial_distance=progress.initial_distance,
    )  # fmt: skip
    record |= {} if bound is None else {"consensus_bound": bound}
    record["bytes_sent"] = round(bytes_sent(job, progress, step))
    if job.timing and progress.clock:
        now = progress.clock
        record["simulated_seconds"] = simulated_seconds(job.timing, now, job.network.honest)
    record["seconds"] = time.monotonic() - progress.started
    return Evaluation(record, test)


def _of_agents(
    job: Job, state: training.TrainState, sums: dict[str, np.ndarray], *, steps: int
) -> tuple[dict[str, float], training.Metrics]:
    """The numbers of a record, and the honest agents' own on the test set.

    ``sums`` are those of each training metric over ``steps`` steps, of all agents.

    What is trained are the parameters of the server, or else of the agents: then it is their mean.
    """
    programs, honest = job.programs, job.network.honest
    # One program at a time: several at once can wait for each other for ever between processes.
    view = jax.block_until_ready(programs.view(state))

    def of_agents(samples: Any) -> training.Metrics:
        values = fetched(job, programs.evaluate(view.params, state.model_state, samples))
        return {name: of_all[honest] for name, of_all in values.items()}

    def of_model(samples: Any) -> training.Metrics:
        return fetched(job, programs.evaluate_model(view.model, view.model_state, samples))

    test, model_test = of_agents(job.sample_sets["test"]), of_model(job.sample_sets["test"])
    trained = {"test": model_test if job.algorithm.server else test}
    if "train" in job.sample_sets:
        of_trained = of_model if job.algorithm.server else of_agents
        trained["train"] = of_trained(job.sample_sets["train"])
    train = agent_means({name: total[honest] for name, total in sums.items()}, steps)
    distance = view.consensus_distance
    found = summary(test, model_test, trained=trained, consensus_distance=distance, train=train)
    return found, test


def summary(
    test: training.Metrics,
    model_test: training.Metrics,
    *,
    trained: Mapping[str, training.Metrics],
    consensus_distance: Any,
    train: Mapping[str, np.ndarray] | None = None,
) -> dict[str, float]:
    """The numbers of a record.

    Args:
        test: the agents' metrics on the test set, each of shape (agents,).
        model_test: those of their one model, of shape (1,).
        trained: the metrics of what is trained on each set of samples.
        consensus_distance: of the agents.
        train: means of each agent's training metrics over the steps since the last record, if any.
    """
    accuracy = metrics.agent_statistics(test["accuracy"])
    record = {
        f"{split}_{name}": np.mean(values[name])
        for split, values in trained.items()
        for name in ("loss", "accuracy")
    }
    if train is not None:
        record |= {f"train_{name}_mean": np.mean(train[name]) for name in ("loss", "accuracy")}
    record |= {
        "test_loss_mean": np.mean(test["loss"]),
        "test_accuracy_mean": accuracy.mean,
        "test_accuracy_min": accuracy.min,
        "test_accuracy_max": accuracy.max,
        "test_accuracy_variance": accuracy.variance,
        "mean_params_test_accuracy": model_test["accuracy"][0],
        "consensus_distance": consensus_distance,
    }
    return {name: float(value) for name, value in record.items()}
