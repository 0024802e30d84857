"""The walls of the house: who may import whom, and what the core needs."""

import ast
import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Data flows graph → Topology → mixer → transformation → train step → run; a file imports only from
# lower ranks, or from its own package.
RANKS = {
    "_types": 0, "_checks": 0, "_axes": 0,
    "_graphs": 1, "_weights": 1, "_topology": 1, "topology": 1, "sharding": 1,
    "mixing": 2,
    "agents": 3,
    "transforms": 4, "metrics": 4, "theory": 4,
    "_conv": 4, "_pool": 4, "models": 5, "data": 5,
    "training": 6, "sequential": 7, "_sums": 6, "_disk": 6, "checkpoint": 7,
}  # fmt: skip
# Third-party packages that live in one place each.
HOMES = {
    "flax": {"models"},
    "tensorflow": {"data"},
    "tensorflow_datasets": {"data"},
    "sklearn": {"data"},
    "orbax": {"checkpoint"},
    "networkx": {"_graphs", "_weights", "_topology", "topology"},
}
EXTRAS = "flax orbax sklearn matplotlib rich tyro tensorflow_datasets tensorflow array_record"
EXTRAS += " PIL jaxtyping beartype pytest hypothesis experiments"


def modules():
    for path in sorted((ROOT / "cdjax").rglob("*.py")):
        parts = path.relative_to(ROOT / "cdjax").with_suffix("").parts
        if parts != ("__init__",):
            yield parts[0], path


def imported_names(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(
    ("place", "path"), list(modules()), ids=lambda x: str(x).rpartition("cdjax/")[2]
)
def test_a_file_imports_from_lower_ranks_only(place, path):
    for name in imported_names(path):
        package, _, rest = name.partition(".")
        if package == "cdjax":
            other = rest.partition(".")[0]
            same_shelf = {place, other} <= {"_graphs", "_weights", "_topology", "topology"}
            assert other == place or same_shelf or RANKS[other] < RANKS[place] or {
                place, other
            } <= {"_types", "_checks"}, f"{place} imports {name}"  # fmt: skip
        assert package != "experiments"
        assert place in HOMES.get(package, {place}), f"{place} imports {name}"


def test_transforms_see_no_topology():
    for place, path in modules():
        if place == "transforms":
            assert not any("topology" in name for name in imported_names(path))


@pytest.fixture(scope="module")
def wheel_contents(tmp_path_factory):
    """The built wheel, unpacked outside of the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def test_the_wheel_holds_the_library_alone(wheel_contents):
    assert {path.name for path in wheel_contents.iterdir() if "dist-info" not in path.name} == {
        "cdjax"
    }


def test_the_core_of_the_wheel_works_without_any_extra(wheel_contents, tmp_path):
    program = f"""
import sys
for name in {EXTRAS.split()}:
    sys.modules[name] = None  # an import of it raises ModuleNotFoundError
sys.path.insert(0, {str(wheel_contents)!r})
import jax.numpy as jnp, optax, cdjax
assert cdjax.__file__.startswith({str(wheel_contents)!r})
mix = cdjax.mixing.auto(cdjax.topology.erdos_renyi(8))
params = cdjax.replicate({{"w": jnp.ones(3)}}, 8)
for tx in (cdjax.cdsgd(0.1, mix), cdjax.cdmsgd(0.1, mix),
           cdjax.adapt_then_combine(optax.adam(0.1), mix)):
    updates, state = tx.update(params, tx.init(params), params)
    cdjax.metrics.consensus_distance(cdjax.eval_params(state, optax.apply_updates(params, updates)))
import cdjax.training, cdjax.data
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)


def test_importing_cdjax_starts_no_backend():
    program = "import cdjax, jax; assert not jax._src.xla_bridge._backends"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_every_file_of_cdjax_stays_below_300_lines():
    for _, path in modules():
        assert len(path.read_text().splitlines()) <= 300, path


def test_every_module_of_cdjax_has_a_file_of_tests():
    assert importlib.util.find_spec("cdjax")
    for place, path in modules():
        if path.name == "__init__.py" or path.stem == "_types":
            continue
        folder = ROOT / "tests" / (place if path.parent.name == place else "")
        stem = path.stem.lstrip("_")
        assert (folder / f"test_{stem}.py").exists(), f"no tests of {path}"
