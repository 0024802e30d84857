"""The convex study: its problem, its minima, and a tiny run."""

import csv
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from cdjax import data
from experiments.convex import problem as problems
from experiments.convex.config import Convex
from experiments.convex.results import power_of_steps
from experiments.convex.study import convex
from experiments.launch.cli import main
from experiments.run.errors import UsageError


def small_problem(num_agents=4, num_samples=120, l2=0.05):
    digits = data.load("digits")
    parts = np.array_split(np.arange(num_samples), num_agents)
    return problems.build(digits, parts, l2=l2), digits.train_labels[:num_samples]


def objective(problem):
    shape = problem.shape
    return jax.jit(lambda x: problems.losses(problem, jnp.broadcast_to(x, shape)).mean())


def test_the_optimum_is_scikit_learns(x64):
    problem, labels = small_problem()
    optimum = problems.minimise(objective(problem), jnp.zeros(problem.shape[1:]))
    features = np.asarray(problem.features).reshape(120, -1)
    reference = LogisticRegression(C=1 / (120 * 0.05), fit_intercept=False, tol=1e-9, max_iter=2000)
    reference.fit(features, labels)
    np.testing.assert_allclose(optimum, reference.coef_.T, atol=1e-5)


@pytest.mark.slow
def test_unequal_agents_have_the_mean_over_their_own_samples(x64):
    digits = data.load("digits")
    parts, losses = [np.arange(3), np.arange(3, 10)], jax.jit(problems.losses)
    both = problems.build(digits, parts, l2=0.1)
    params = jax.random.normal(jax.random.key(0), both.shape)
    for agent, part in enumerate(parts):
        alone = problems.build(digits, [part], l2=0.1)
        (expected,) = losses(alone, params[agent : agent + 1])
        assert float(losses(both, params)[agent]) == pytest.approx(float(expected), rel=1e-13)


def test_the_smoothness_bound_is_met_by_two_classes_at_zero(x64):
    problem, _ = small_problem(num_agents=1)
    problem = problem._replace(
        labels=problem.labels % 2, num_classes=2, features=problem.features[..., :9]
    )
    hessian = jax.jit(jax.hessian(lambda x: problems.losses(problem, x.reshape(1, 9, 2))[0]))
    spectrum = np.linalg.eigvalsh(hessian(jnp.zeros(18)))
    assert problems.smoothness_bound(problem) == pytest.approx(spectrum[-1], rel=1e-12)
    assert spectrum[0] == pytest.approx(0.05, rel=1e-12)


def test_newtons_method_goes_to_the_minimum_from_far_away(x64):
    """Full steps on √(1 + x²) diverge from any start beyond 1."""
    value_fn = jax.jit(lambda x, weight: jnp.sum(jnp.sqrt(1 + (x - 2) ** 2)) + weight * x @ x / 2)
    minimum = problems.minimise(value_fn, jnp.array([30.0, -7.0]), 1e-3)
    slope = (minimum - 2) / np.sqrt(1 + (minimum - 2) ** 2) + 1e-3 * minimum
    np.testing.assert_allclose(slope, 0, atol=1e-9)


def test_minibatches_are_drawn_from_the_agents_own_samples(x64):
    digits = data.load("digits")
    problem = problems.build(digits, [np.arange(3), np.arange(3, 10)], l2=0.1)
    batch = problems.minibatch(problem, jax.random.key(0), 50)
    for agent, size in enumerate((3, 7)):
        own = {row.tobytes() for row in np.asarray(problem.features[agent, :size])}
        assert {row.tobytes() for row in np.asarray(batch.features[agent])} == own
    np.testing.assert_allclose(batch.weights.sum(axis=1), 1)


def test_the_power_of_steps_is_that_of_the_last_decade():
    steps = np.unique(np.geomspace(1, 5000, 60).astype(int)) - 1
    values = (steps + 1.0) ** -0.7
    assert power_of_steps(steps, values) == pytest.approx(-0.7)
    values[:30] = 1.0
    assert power_of_steps(steps, values) == pytest.approx(-0.7)
    assert power_of_steps(steps, 0 * values) == 0


@pytest.fixture(scope="module")
def full_gradients(tmp_path_factory):
    out = tmp_path_factory.mktemp("convex")
    options = {"agents": 3, "graphs": ("ring:lazy", "star"), "train_samples": 90}
    return convex(Convex(**options, steps=40, out=out)), out


def assert_within_bounds(curve):
    for measured, bound in (
        (curve.lyapunov_gap, curve.lyapunov_bound),
        (curve.mean_error, curve.mean_error_bound),
        (curve.disagreement, curve.consensus_bound),
    ):
        assert np.all(measured <= bound * (1 + 1e-9) + 1e-12) and measured[-1] > 0


@pytest.mark.slow
def test_every_run_stays_within_its_bounds(full_gradients):
    for curve in full_gradients[0]:
        assert_within_bounds(curve)


@pytest.mark.slow
def test_the_run_of_minibatches_stays_within_its_bounds(tmp_path):
    options = {"agents": 3, "graphs": ("complete",), "train_samples": 90, "batch_size": 4}
    curves = convex(Convex(**options, steps=20, out=tmp_path))
    for curve in curves:
        assert_within_bounds(curve)
    assert json.loads((tmp_path / "constants.json").read_text())["Q"] > 0


@pytest.mark.slow
def test_a_run_leaves_figure_curves_and_constants(full_gradients):
    curves, out = full_gradients
    names = [(curve.graph, curve.schedule) for curve in curves]
    assert names == [(g, s) for g in ("ring:lazy", "star") for s in ("fixed", "diminishing")]
    assert (out / "convex.png").read_bytes().startswith(b"\x89PNG")
    with (out / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(len(curve.step) for curve in curves)
    assert float(rows[-1]["disagreement"]) == curves[-1].disagreement[-1]
    record = json.loads((out / "constants.json").read_text())
    assert record["options"]["steps"] == 40 and record["H"] == 0.01 and record["Q"] == 0
    assert record["gamma at the optimum"] <= record["gamma"]
    assert [row["graph"] for row in record["graphs"]] == ["ring:lazy", "star"]


@pytest.mark.slow
def test_a_step_size_that_diverges_is_named_with_one_that_does_not(tmp_path):
    options = {"agents": 2, "graphs": ("ring",), "train_samples": 40, "steps": 200}
    with pytest.raises(UsageError, match=r"--step-size: 1e\+06 diverges on ring; any below \d"):
        convex(Convex(**options, step_size=1e6, out=tmp_path))


@pytest.mark.slow
def test_one_agent_has_a_page_too(tmp_path):
    options = {"agents": 1, "graphs": ("ring",), "train_samples": 40, "steps": 10}
    curves = convex(Convex(**options, out=tmp_path))
    assert all(curve.disagreement.max() == 0 for curve in curves)
    assert (tmp_path / "convex.png").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"agents": 0}, "--agents: 0 is too few"),
        ({"steps": 1}, "--steps: 1 is too few; give at least 2"),
        ({"batch_size": 0}, "--batch-size: 0 is too few"),
        ({"step_size": -1.0}, "--step-size: -1.0 is not positive and finite"),
        ({"l2": 0.0}, "--l2: 0.0 is not positive"),
        ({"graphs": ()}, "--graphs: give one or more"),
        ({"graphs": ("rng",)}, "--graphs: unknown topology 'rng'"),
        ({"graphs": ("ring:best",)}, "--graphs: unknown weights 'best'"),
        ({"graphs": ("torus",), "agents": 7}, "--graphs: .* nearest sizes that fit are 6 and 8"),
        ({"partition": "best"}, "--partition: unknown choice 'best'"),
        ({"decay_power": 2.0}, "--decay-power: 2.0 is not in"),
        ({"shards_per_agent": 2, "partition": "iid"}, "--shards-per-agent: partition iid has none"),
        ({"dataset": "imagenet"}, "--dataset: unknown choice 'imagenet'"),
        ({"agents": 2000, "graphs": ("ring",)}, "--agents: 2000 agents are more than the 1437"),
    ],
)
def test_bad_options_are_named_before_a_folder_is_made(options, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        convex(Convex(**options, out=tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


def test_from_the_command_line_a_bad_option_is_one_line(tmp_path, monkeypatch, capsys):
    # JAX has long started here, and can no longer look for other processes.
    monkeypatch.setattr("experiments.launch.processes.join", lambda *args, **kwargs: None)
    monkeypatch.setattr(sys, "argv", ["convex", "--steps", "1", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        main(Convex(), convex)
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: --steps: 1 is too few; give at least 2\n"
