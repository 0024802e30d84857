"""What the agents learn: their samples, the model, its loss and its metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

import cdjax
from cdjax import data, models, training
from experiments.run import config
from experiments.run.config import PARTITIONS, option_values
from experiments.run.errors import UsageError, blame
from experiments.run.network import Network

Batch: TypeAlias = tuple[jax.Array, jax.Array]

_NETWORKS = {
    "cnn": models.CNN,
    "resnet20": models.ResNet20,
    "mlp": models.MLP,
    "softmax": models.SoftmaxRegression,
}


class Problem(NamedTuple):
    """What the agents of a run learn.

    ``notice`` says why the data set is a stand-in, if it is one; ``parts`` are the indices of each
    agent's training samples, ``sizes`` how many these are; ``loss`` and ``metrics`` are those of
    one agent on raw images; ``initial`` makes its parameters and model state from a key.
    """

    dataset: data.Dataset
    notice: str
    parts: list[np.ndarray]
    sizes: np.ndarray
    batch_size: int
    steps_per_epoch: int
    epochs: int
    eval_every: int
    loss: training.LossFn
    metrics: Callable[..., training.Metrics]
    initial: Callable[[jax.Array], tuple[cdjax.Params, cdjax.Params]]

    @property
    def num_steps(self) -> int:
        """The steps of the whole run."""
        return self.epochs * self.steps_per_epoch

    @property
    def class_counts(self) -> np.ndarray:
        """How many samples of each class every agent has, shape (N, classes)."""
        labels, num_classes = self.dataset.train_labels, self.dataset.num_classes
        return np.stack([np.bincount(labels[own], minlength=num_classes) for own in self.parts])

    @property
    def own_steps(self) -> np.ndarray:
        """The whole batches of each agent's own samples, shape (N,)."""
        return self.sizes // self.batch_size


def build(
    options: config.Data,
    model: config.Model,
    *,
    length: config.Training,
    network: Network,
    held: Problem | None = None,
) -> Problem:
    """The problem of a run; raises a UsageError if the data cannot be had, or not be dealt so.

    The data of a problem that is ``held``, with other agents, are not read again.
    """
    if held:
        dataset, notice = held.dataset, held.notice
    else:
        dataset, notice = load_dataset(options, seed=length.seed)
    on_digits = dataset.name == "digits"
    batch_size = length.batch_size or (16 if on_digits else 128)
    # Agents that are left out have their samples dealt too: those of the others stay the same.
    dealt = deal(options, dataset, network.num_whole, seed=length.seed)
    if not held:  # its images are skewed
        dataset = _skewed(dataset, dealt, options.feature_skew)
    parts = [dealt[number] for number in network.numbers]
    sizes = np.array([len(part) for part in parts])
    if batch_size > sizes.min():
        raise UsageError(
            f"--batch-size: {batch_size} is more than the {sizes.min()} samples of agent "
            f"{network.names([sizes.argmin()])[0]}; give at most that, fewer agents or another "
            "--partition"
        )
    net = _NETWORKS[model.model](num_classes=dataset.num_classes, dtype=jnp.dtype(model.dtype))
    loss, metrics = _on_raw_images(net, dataset)
    example = jnp.zeros((1, *dataset.train_images.shape[1:]))
    epochs = length.epochs or (20 if on_digits else 50)
    return Problem(
        dataset=dataset,
        notice=notice,
        parts=parts,
        sizes=sizes,
        batch_size=batch_size,
        steps_per_epoch=max(1, int(sizes.sum()) // (network.num_agents * batch_size)),
        epochs=epochs,
        eval_every=length.eval_every or _eval_every(epochs, len(parts), dataset, length),
        loss=loss,
        metrics=metrics,
        initial=lambda key: models.init_model(net, key, example),
    )


def _eval_every(
    epochs: int, num_agents: int, dataset: data.Dataset, length: config.Training
) -> int:
    """Epochs between evaluations that take a third of the training's time at most.

    A sample costs a third as much to evaluate as to train on, which needs two gradients. There are
    at least five evaluations, for the sake of the curves.
    """
    num_train = len(dataset.train_labels)
    evaluated = len(dataset.test_labels) + num_train * length.evaluate_train
    wanted = -(-(num_agents + 1) * evaluated // num_train)  # all agents, and the mean of them
    return max(1, min(wanted, epochs // 5))


def load_dataset(options: config.Data, *, seed: int) -> tuple[data.Dataset, str]:
    """The data set, cut to ``--train-samples`` and ``--test-samples``; a notice of a stand-in."""
    dataset, notice = _load(options)
    for split, wanted in (("train", options.train_samples), ("test", options.test_samples)):
        labels = getattr(dataset, f"{split}_labels")
        if wanted is None:
            continue
        if wanted > len(labels):
            raise UsageError(
                f"--{split}-samples: {wanted} are more than the {len(labels)} of {dataset.name}; "
                "give at most that"
            )
        kept = np.random.default_rng(seed).permutation(len(labels))[:wanted]
        images = getattr(dataset, f"{split}_images")
        cut = {f"{split}_images": images[kept], f"{split}_labels": labels[kept]}
        dataset = dataclasses.replace(dataset, **cut)
    return dataset, notice


def _load(options: config.Data) -> tuple[data.Dataset, str]:
    name = options.dataset or "digits"
    try:
        return data.load(name, options.data_dir), ""
    except data.DataNotFoundError as error:
        if not options.stand_in:
            raise UsageError(
                f"--data-dir: {error}; or give --dataset digits, which needs no files"
            ) from error
        notice = f"{name} is NOT available; training on the embedded DIGITS instead.\n{error}"
        return data.load("digits"), notice
    except (ValueError, OSError) as error:
        raise UsageError(f"--data-dir: {error}") from error


def deal(
    options: config.Data, dataset: data.Dataset, num_agents: int, *, seed: int
) -> list[np.ndarray]:
    """The indices of each agent's training samples."""
    if num_agents > len(dataset.train_labels):
        raise UsageError(
            f"--agents: {num_agents} agents are more than the {len(dataset.train_labels)} "
            f"training samples of {dataset.name}; give fewer"
        )
    read = option_values(PARTITIONS[options.partition], options)
    names = {"dirichlet_alpha": "alpha", "quantity_power": "power"}  # what the library calls them
    with blame("--partition"):
        return data.partition(
            dataset.train_labels,
            num_agents,
            scheme=options.partition,
            seed=seed,
            **{names.get(name, name): value for name, value in read.items()},
        )


def _skewed(dataset: data.Dataset, dealt: list[np.ndarray], skew: str) -> data.Dataset:
    """The data set with the images that each agent sees; test images go to the agents in turn."""
    if skew == "none":
        return dataset
    num_agents = len(dealt)
    of_train = np.zeros(len(dataset.train_labels), int)
    for agent, samples in enumerate(dealt):
        of_train[samples] = agent
    of_test = np.arange(len(dataset.test_labels)) % num_agents
    with blame("--feature-skew"):
        skewed = {
            f"{split}_images": data.skew_features(
                getattr(dataset, f"{split}_images"), agents, num_agents=num_agents, kind=skew
            )
            for split, agents in (("train", of_train), ("test", of_test))
        }
    return dataclasses.replace(dataset, **skewed)


def _on_raw_images(
    net: models.Model, dataset: data.Dataset
) -> tuple[training.LossFn, Callable[..., training.Metrics]]:
    """Loss and metrics that scale the images themselves: samples stay uint8 on the devices."""
    loss, metrics = models.classification_loss(net), models.classification_metrics(net)
    mean, std = data.channel_statistics(dataset.train_images)

    def scaled(batch: Batch) -> Batch:
        images, labels = batch
        return data.normalise(images, mean=mean, std=std), labels

    return (
        lambda params, state, batch, key: loss(params, state, scaled(batch), key),
        lambda params, state, batch: metrics(params, state, scaled(batch)),
    )
