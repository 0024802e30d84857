"""The walls of the house: who may import whom, and what the core needs."""

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).parents[1]

# Data flows one way: a file imports only from lower floors, or from its own folder.
FLOORS = {
    "cdjax": {
        "_types": 0, "_checks": 0, "_trees": 0,
        "topology": 1,
        "sharding": 2,
        "mixing": 3,
        "robust": 4, "agents": 4,
        "metrics": 5, "transforms": 5, "theory": 5,
        "models": 6, "data": 6,
        "training": 7, "checkpoint": 7,
    },
    "experiments": {
        "report": 0, "run": 1, "launch": 2,
        "cifar10": 3, "cifar100": 3, "mnist": 3, "fashion_mnist": 3, "digits": 3,
        "compare": 3, "figures": 3, "robustness": 3, "convex": 3,
    },
}  # fmt: skip
# Third-party packages that live in one place each.
HOMES = {
    "flax": {"models"},
    "tensorflow": {"data"},
    "tensorflow_datasets": {"data"},
    "sklearn": {"data"},
    "orbax": {"checkpoint"},
    "networkx": {"topology", "run"},
    "matplotlib": {"report", "convex", "robustness"},
}
EXTRAS = "flax orbax sklearn matplotlib rich tyro tensorflow_datasets tensorflow array_record"
EXTRAS += " PIL beartype pytest hypothesis experiments"


def modules(tree):
    """The name, the floor's name and the path of every file of a tree."""
    for path in sorted((ROOT / tree).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[1:] != ("__init__",):
            yield ".".join(parts).removesuffix(".__init__"), parts[1], path


MODULES = {name: path for tree in FLOORS for name, _, path in modules(tree)}


def imported_names(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_modules(path):
    """The files of both trees that a file imports, at whatever place in it."""
    for name in imported_names(path):
        while name and name not in MODULES:
            name = name.rpartition(".")[0]
        if name:
            yield name


@pytest.mark.parametrize(
    ("tree", "floor", "path"),
    [(tree, floor, path) for tree in FLOORS for _, floor, path in modules(tree)],
    ids=lambda x: str(x).removeprefix(f"{ROOT}/"),
)
def test_a_file_imports_from_lower_floors_only(tree, floor, path):
    for name in imported_names(path):
        package, _, rest = name.partition(".")
        other = rest.partition(".")[0]
        if package == tree and other in FLOORS[tree] and other != floor:
            same = {floor, other} <= {"_types", "_checks", "_trees"}
            assert same or FLOORS[tree][other] < FLOORS[tree][floor], f"{floor} imports {name}"
        assert (tree, package) != ("cdjax", "experiments")
        assert floor in HOMES.get(package, {floor}), f"{floor} imports {name}"


@pytest.mark.parametrize("tree", ["cdjax"])
def test_no_file_imports_itself_by_way_of_others(tree):
    # An __init__ gathers the names of its folder, whose files do not import it.
    graph = nx.DiGraph(
        (name, other)
        for name, _, path in modules(tree)
        for other in imported_modules(path)
        if other.startswith(tree) and path.name != "__init__.py" and "." in other
    )
    assert list(nx.simple_cycles(graph)) == []


def test_transforms_see_no_topology():
    for _, floor, path in modules("cdjax"):
        if floor == "transforms":
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
