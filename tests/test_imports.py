"""The walls of the house: who may import whom."""

import ast
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).parents[1]

# Data flows one way: a file imports only from lower floors, or from its own folder.
FLOORS = {
    "cdjax": {
        "_types": 0, "_checks": 0, "_trees": 0, "_plans": 0, "_contents": 0, "_json": 0,
        "_divisors": 0,
        "_stored": 1, "topology": 1,
        "sharding": 2,
        "mixing": 3,
        "robust": 4, "agents": 4, "compress": 4, "network": 4,
        "metrics": 5, "transforms": 5, "theory": 5,
        "models": 6, "data": 6,
        "training": 7, "checkpoint": 7,
    },
    "experiments": {
        "report": 0, "run": 1, "launch": 2,
        "cifar10": 3, "cifar100": 3, "mnist": 3, "fashion_mnist": 3, "digits": 3,
        "compare": 3, "figures": 3, "robustness": 3, "convex": 3,
        "heterogeneity": 3, "overlay": 3, "advise": 3, "network": 3,
    },
}  # fmt: skip
# Third-party packages that live in one place each.
HOMES = {
    "flax": {"models"},
    "tensorflow": {"data"},
    "tensorflow_datasets": {"data"},
    "array_record": {"data"},
    "pooch": {"data"},
    "sklearn": {"data"},
    "orbax": {"checkpoint"},
    "networkx": {"topology"},
    "matplotlib": {"report", "topology"},
}
# In the library only the picture of a topology draws, and matplotlib is imported when it is asked.
DRAWS = "topology/_plot.py"


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


@pytest.mark.parametrize("tree", FLOORS)
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


def test_the_library_imports_matplotlib_in_one_file_and_only_when_something_is_drawn():
    for _, _, path in modules("cdjax"):
        at_import = [node for node in ast.parse(path.read_text()).body if not is_for_types(node)]
        anywhere = any(name.startswith("matplotlib") for name in imported_names(path))
        assert anywhere == (path.relative_to(ROOT / "cdjax").as_posix() == DRAWS)
        for node in at_import:
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert "matplotlib" not in ast.unparse(node)


def is_for_types(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
