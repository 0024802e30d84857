"""How often a run is evaluated by default, and what the training metrics are means over."""

import dataclasses

import numpy as np
import pytest

from experiments.run import config, network, problem
from experiments.run.progress import agent_means


@pytest.mark.parametrize(
    ("agents", "options", "epochs"),
    [
        (16, {}, 4),  # 17 · 360 evaluated images cost as much as 2040 trained on: 5, but 4 of 20
        (2, {}, 1),  # 3 · 360 images
        (6, {"epochs": 100}, 2),  # 7 · 360
        (1, {"epochs": 100, "evaluate_train": True}, 3),  # 2 · (360 + 1437)
        (16, {"epochs": 9}, 1),
        (16, {"eval_every": 7}, 7),
    ],
)
def test_evaluations_take_a_third_of_the_training_at_most(agents, options, epochs):
    run = config.Run(training=config.Training(**options))
    run = dataclasses.replace(
        run,
        network=dataclasses.replace(run.network, agents=agents),
        data=dataclasses.replace(run.data, dataset="digits"),
    )
    net = network.build(run.network, run.trouble)
    task = problem.build(run.data, run.model, length=run.training, network=net)
    assert task.eval_every == epochs


def test_training_metrics_are_means_over_the_steps_in_which_an_agent_trained():
    sums = {"loss": np.array([6.0, 0.0, 2.0])}
    np.testing.assert_array_equal(agent_means(sums, 2)["loss"], [3, 0, 1])
    means = agent_means(sums | {"trained": np.array([3, 0, 1])}, 4)
    np.testing.assert_array_equal(means["loss"], [2, 2])
