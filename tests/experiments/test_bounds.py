"""The theory beside a run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.run import bounds, progress
from experiments.run.config import Run, replaced
from experiments.run.job import prepare
from experiments.run.runner import run
from tests.slow import slow

SMALL = replaced(
    Run(), model="softmax", dataset="digits", train_samples=300, test_samples=60, epochs=2
)


def test_the_largest_gradient_is_the_largest_norm_of_all_agents_together():
    so_far = progress.Progress([], {}, 0.0, 0.0, 0.0, [], (0, 0.0))
    norms = np.random.default_rng(0).uniform(size=(5, 3)).astype(np.float32)
    for rows in (norms[:2], norms[2:]):
        so_far = progress.advanced(so_far, {"gradient_norm": rows, "loss": rows})
    assert so_far.largest_gradient == max(np.sqrt(np.sum(norms.astype(float) ** 2, axis=1)))
    np.testing.assert_array_equal(so_far.sums["loss"], norms.astype(float).sum(axis=0))
    rows = {"gradient_norm": np.full((1, 3), np.nan)}
    assert np.isnan(progress.advanced(so_far, rows).largest_gradient)


def test_agents_that_start_alike_have_no_distance_and_others_theirs():
    same, apart = (prepare(replaced(SMALL, init=init)) for init in ("same", "independent"))
    assert bounds.initial_distance(same) == 0
    kernel = np.asarray(apart.state.params["Dense_0"]["kernel"], float)  # the bias starts at 0
    expected = np.linalg.norm(kernel - kernel.mean(axis=0))
    np.testing.assert_allclose(bounds.initial_distance(apart), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"algorithm": "cdmsgd", "topology": "path", "init": "independent"},
        *slow(
            {"algorithm": "cdsgd", "topology": "ring"},
            {"algorithm": "cdsgd", "init": "independent", "schedule": "diminishing"},
            {"algorithm": "cdmsgd-polyak", "learning_rate": 0.001},
        ),
    ],
)
@pytest.mark.slow
def test_no_run_leaves_its_bound(options, tmp_path):
    records = run(replaced(SMALL, **options), folder=tmp_path, quiet=True)
    for record in records:
        assert 0 < record["consensus_distance"] <= record["consensus_bound"]


@pytest.mark.parametrize(
    "options",
    [{"algorithm": "fedavg"}, *slow({"turns": "sequential"}, {"size_weighted": True})],
)
@pytest.mark.slow
def test_without_a_theory_there_is_no_bound(options, tmp_path):
    records = run(replaced(SMALL, **options), folder=tmp_path, quiet=True)
    assert "consensus_bound" not in records[-1]
    assert bounds.step_limits(prepare(replaced(SMALL, **options))) == ("", "")


@pytest.mark.slow
def test_a_step_beyond_the_tight_limit_is_warned_of():
    """Softmax regression on two samples of two classes: γ is that of the whole Hessian."""
    options = replaced(SMALL, train_samples=10, batch_size=2, algorithm="cdsgd")
    job = prepare(options)
    images, labels = (np.asarray(x)[0] for x in job.agent_data)
    batch = jax.tree.map(jnp.asarray, (images[:2], labels[:2]))
    start = jax.tree.map(lambda x: x[0], job.state.params)
    flat, unflatten = jax.flatten_util.ravel_pytree(start)

    def loss(vector):
        return job.problem.loss(unflatten(vector), {}, batch, job.state.key)[0]

    # Few rows of the Hessian span it: it is A Aᵀ with A the images' features times classes.
    columns = jax.vmap(lambda g: jax.jvp(jax.grad(loss), (flat,), (g,))[1])
    basis = jnp.linalg.qr(columns(jax.random.normal(jax.random.key(0), (40, len(flat)))).T)[0]
    gamma = float(jnp.linalg.eigvalsh(basis.T @ columns(basis.T).T)[-1])
    line, warning = bounds.step_limits(job)
    assert float(line.split()[0]) == pytest.approx(1 / gamma, rel=0.02)  # λN = 0
    assert options.algorithm.learning_rate > 1 / gamma and "diverge" in warning
    assert not bounds.step_limits(prepare(replaced(options, learning_rate=1e-6)))[1]
