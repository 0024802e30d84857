"""The theory beside a run."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.run import bounds as _bounds
from experiments.run.config import RunConfig
from experiments.run.runner import run
from experiments.run.setup import prepare

SMALL = {"model": "softmax", "dataset": "digits", "train_samples": 300, "epochs": 2}


def test_the_largest_gradient_is_the_largest_norm_of_all_agents_together():
    rng = np.random.default_rng(0)
    tx = _bounds.largest_gradient()
    params = {"x": jnp.asarray([[0.0, 3.0], [0.0, -3.0]])}
    state, norms = tx.init(params), []
    assert float(state.initial_distance) == pytest.approx(np.sqrt(18))
    for _ in range(4):
        grads = {"x": jnp.asarray(rng.normal(size=(2, 2)))}
        updates, state = tx.update(grads, state, params)
        assert updates is grads
        norms.append(np.linalg.norm(grads["x"]))
    assert float(state.gradient_bound) == pytest.approx(max(norms), rel=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"algorithm": "cdsgd", "topology": "ring"},
        {"algorithm": "cdsgd", "init": "independent", "schedule": ("diminishing",)},
        {"algorithm": "cdmsgd", "topology": "path", "init": "independent"},
        {"algorithm": "cdmsgd-polyak", "learning_rate": 0.001},
    ],
)
def test_no_run_leaves_its_bound(options, tmp_path):
    records = run(RunConfig(**SMALL, **options), folder=tmp_path, quiet=True)
    for record in records:
        assert 0 < record["consensus_distance"] <= record["consensus_bound"]


@pytest.mark.parametrize(
    "options",
    [{"algorithm": "fedavg"}, {"schedule": ("sequential",)}, {"size_weighted": True}],
)
def test_without_a_theory_there_is_no_bound(options, tmp_path):
    records = run(RunConfig(**SMALL, **options), folder=tmp_path, quiet=True)
    assert "consensus_bound" not in records[-1]
    assert _bounds.step_limits(prepare(RunConfig(**SMALL, **options))) == ("", "")


def test_a_step_beyond_the_tight_limit_is_warned_of():
    """Softmax regression on two samples of two classes: γ is that of the whole Hessian."""
    config = RunConfig(**SMALL | {"train_samples": 10}, batch_size=2, algorithm="cdsgd")
    job = prepare(config)
    images, labels = (np.asarray(x)[0] for x in job.agent_data)
    batch = jax.tree.map(jnp.asarray, (images[:2], labels[:2]))
    start = jax.tree.map(lambda x: x[0], job.state.params)
    flat, unflatten = jax.flatten_util.ravel_pytree(start)

    def loss(vector):
        return job.loss(unflatten(vector), {}, batch, job.state.key)[0]

    # Few rows of the Hessian span it: it is A Aᵀ with A the images' features times classes.
    columns = jax.vmap(lambda g: jax.jvp(jax.grad(loss), (flat,), (g,))[1])
    basis = jnp.linalg.qr(columns(jax.random.normal(jax.random.key(0), (40, len(flat)))).T)[0]
    gamma = float(jnp.linalg.eigvalsh(basis.T @ columns(basis.T).T)[-1])
    line, warning = _bounds.step_limits(job)
    assert float(line.split()[0]) == pytest.approx(1 / gamma, rel=0.02)  # λN = 0
    assert config.learning_rate > 1 / gamma and "diverge" in warning
    assert not _bounds.step_limits(prepare(dataclasses.replace(config, learning_rate=1e-6)))[1]
