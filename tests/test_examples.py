"""Every example of a docstring and every Python block of the documentation runs.

Each runs in a namespace of its own, which holds the usual imports, cdjax's modules by their names,
and small values under the names that examples use for them.
"""

import ast
import functools
import re
import textwrap
from pathlib import Path

import flax
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import optax
import pytest

import cdjax

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
MODULES = ["checkpoint", "data", "metrics", "mixing", "models", "robust", "sharding", "theory"]
MODULES += ["network", "training"]  # topology is a value, as in most programs
NUM_AGENTS, BATCH, FEATURES = 8, 4, 3

BLOCK = re.compile(r"^Example::\n((?:\n|    .*\n?)+)|^Example: ``(.+)``$", re.M)
FENCED = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)


def docstrings():
    """The name and the text of every docstring of the library."""
    for path in sorted((ROOT / "cdjax").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                name = f"{path.stem}.{getattr(node, 'name', '')}"
                yield f"{path.parent.name}.{name}", ast.get_docstring(node) or ""


def examples():
    for name, text in docstrings():
        for block, line in BLOCK.findall(text):
            yield name, textwrap.dedent(block) or line
    for page in PAGES:
        for number, block in enumerate(FENCED.findall(page.read_text()), start=1):
            yield f"{page.name}-{number}", block


EXAMPLES = list(examples())


def loss_fn(params, batch):
    """One agent's mean squared error."""
    features, targets = batch
    return jnp.mean((features @ params["w"] + params["b"] - targets) ** 2)


@functools.cache
def values():
    """Small values by the names that examples use."""
    topology = cdjax.topology.ring(NUM_AGENTS)
    mix = cdjax.mixing.auto(topology)
    tx = cdjax.cdmsgd(0.01, mix)
    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(keys[0], (NUM_AGENTS, FEATURES))
    params = {"w": x, "b": jnp.zeros(NUM_AGENTS)}
    features = jax.random.normal(keys[1], (NUM_AGENTS, BATCH, FEATURES))
    batch = (features, features.sum(-1))
    images = jax.random.uniform(keys[2], (NUM_AGENTS, BATCH, 4, 4, 1))
    labels = jnp.arange(NUM_AGENTS * BATCH).reshape(NUM_AGENTS, BATCH) % 10
    return {name: getattr(cdjax, name) for name in MODULES} | {
        "jax": jax, "jnp": jnp, "np": np, "optax": optax, "nx": nx, "flax": flax, "cdjax": cdjax,
        "topology": topology, "num_agents": NUM_AGENTS, "mix": mix,
        "mesh": cdjax.sharding.agent_mesh(),
        "params": params, "tree": params, "x": x, "key": keys[3],
        "grads": jax.vmap(jax.grad(loss_fn))(params, batch),
        "tx": tx, "state": tx.init(params), "step": 0,
        "loss_fn": loss_fn, "batch": batch, "images": images, "labels": labels,
        "sizes": np.full(NUM_AGENTS, BATCH),
        "wires": cdjax.network.links(topology, latency=0.05, upload=12.5e6),
        "matchings": cdjax.topology.matcha(topology, 0.5),
        "events": cdjax.network.Averagings(*np.zeros((3, 8 * NUM_AGENTS), int)),
    }  # fmt: skip


def copied(x):
    """A copy, so that an example may donate its arrays."""
    return jnp.copy(x) if isinstance(x, jax.Array) else x


@pytest.mark.parametrize("code", [pytest.param(code, id=name) for name, code in EXAMPLES])
@pytest.mark.sampled(4)
def test_example_runs(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with jax.numpy_rank_promotion("allow"):  # JAX's default, which users have
        exec(compile(code, "<example>", "exec"), jax.tree.map(copied, values()))


def test_no_example_of_a_docstring_is_overlooked():
    written = sum(len(re.findall(r"^Examples?\b", text, re.M)) for _, text in docstrings())
    assert written == sum(len(BLOCK.findall(text)) for _, text in docstrings())


def test_no_python_block_of_a_page_is_overlooked():
    for page in PAGES:
        text = page.read_text()
        written = re.findall(r"^ *(?:```|~~~) *(?:python|py\b|jax|pycon)", text, re.M | re.I)
        assert len(written) == len(FENCED.findall(text)), page
