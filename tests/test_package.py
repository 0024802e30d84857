"""What users of the package see: documented, typed, reachable names, a wheel and an sdist."""

import importlib
import inspect
import pkgutil
import subprocess
import sys
import tarfile
import typing
import venv
import zipfile
from pathlib import Path

import pytest

import cdjax

ROOT = Path(__file__).parents[1]
MODULES = ["cdjax"] + [
    f"cdjax.{module.name}"
    for module in pkgutil.iter_modules(cdjax.__path__)
    if not module.name.startswith("_")
]
# The third argument is as much the subject as the first two, or the signature is another library's.
POSITIONAL = {
    "beer": "the compressor is as much the subject as the mixer",
    "choco": "the compressor is as much the subject as the mixer",
    "network.averagings": "as network.clock",
    "network.clock": "(order, links, compute, message_bytes): the four that a time is made of",
    "network.clockwork": "(order, links, message_bytes), as network.clock",
    "network.pace": "as network.clock",
    "network.seconds_per_step": "as network.clock",
    "mixing.masked": "(mix, fraction, key), as random mixers take their key by position",
    "outer": "(inner, outer_optimizer, mix): two optimizers, and the mixer",
    "checkpoint.restore": "(folder, step, like), as save's (checkpoints, step, state)",
    "checkpoint.save": "(checkpoints, step, state)",
    "theory.lyapunov": "V is a function of the losses, the parameters and the topology",
    "theory.lyapunov_gradient": "as lyapunov",
    "models.init_model": "(model, key, example), the order of Flax's model.init",
    "models.conv_general_dilated": "the signature of jax.lax.conv_general_dilated",
}


def public_names():
    """Every public function and class, once, by the shortest name that leads to it."""
    found = {}
    for name in MODULES:
        module = importlib.import_module(name)
        # A folder's __init__ gathers public names; a file has its own, and imports others'.
        home = "cdjax" if hasattr(module, "__path__") else name
        for attribute, value in vars(module).items():
            own = callable(value) and getattr(value, "__module__", "").startswith(home)
            if own and not attribute.startswith("_"):
                found.setdefault(value, f"{name}.{attribute}".removeprefix("cdjax."))
    return {name: value for value, name in found.items()}


PUBLIC = public_names()
EXTRAS = "flax orbax sklearn matplotlib rich tyro tensorflow_datasets tensorflow array_record"
EXTRAS += " pooch tqdm tensorboardX wandb yaml PIL equinox beartype pytest hypothesis"
EXTRAS += " experiments"
FUNCTIONS = {name: value for name, value in PUBLIC.items() if inspect.isfunction(value)}


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_has_a_docstring_and_resolvable_types(name):
    value = PUBLIC[name]
    # A NamedTuple or dataclass without a docstring is given its signature as one.
    assert value.__doc__ and not value.__doc__.startswith(f"{value.__name__}(")
    typing.get_type_hints(value)
    if inspect.isclass(value):
        for attribute in vars(value).values():
            if inspect.isfunction(attribute) and attribute.__module__ == value.__module__:
                typing.get_type_hints(attribute)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arguments_are_keyword_only_from_the_third_on(name):
    parameters = inspect.signature(FUNCTIONS[name]).parameters.values()
    positional = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    if name not in POSITIONAL:
        assert len(positional) <= 2
    assert not any(isinstance(p.default, bool) for p in positional)


def test_the_exceptions_are_public_functions():
    assert set(POSITIONAL) <= set(FUNCTIONS)


def run(program, folder=ROOT):
    subprocess.run([sys.executable, "-c", program], cwd=folder, check=True)


def test_import_starts_no_backend_and_finds_every_module_when_it_is_used():
    run(f"""
import cdjax, jax, sys
assert not jax._src.xla_bridge._backends
assert not {{"flax", "orbax"}} & set(sys.modules)
for name in {[module.partition(".")[2] for module in MODULES[1:]]}:
    assert name in dir(cdjax)
    getattr(cdjax, name)
""")


@pytest.mark.slow
def test_a_module_without_its_extra_names_the_install_command():
    run("""
import sys
sys.modules["flax"] = sys.modules["orbax"] = None  # an import raises ModuleNotFoundError
import cdjax
for statement in ("from cdjax import models", "cdjax.models.CNN", "cdjax.checkpoint.steps"):
    try:
        exec(statement)
    except ImportError as error:
        assert "pip install 'cdjax[experiments]'" in str(error)
    else:
        raise AssertionError(statement)
assert not hasattr(cdjax, "nothing")
""")


def build(target, source, folder):
    """The wheel or the sdist of a source tree."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (archive,) = folder.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return zipfile.ZipFile(build("wheel", ROOT, tmp_path_factory.mktemp("wheel")))


def test_the_wheel_holds_the_library_only_with_its_types_and_version(wheel):
    information = f"cdjax-{cdjax.__version__}.dist-info"
    assert {name.partition("/")[0] for name in wheel.namelist()} == {"cdjax", information}
    assert "cdjax/py.typed" in wheel.namelist()


@pytest.mark.slow
def test_the_core_of_the_wheel_works_without_any_extra(wheel, tmp_path):
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    wheel.extractall(site)
    elsewhere.mkdir()
    program = f"""
import sys
for name in {EXTRAS.split()}:
    sys.modules[name] = None  # an import of it raises ModuleNotFoundError
sys.path.insert(0, {str(site)!r})
import jax.numpy as jnp, optax, cdjax
assert cdjax.__file__.startswith({str(site)!r})
mix = cdjax.mixing.auto(cdjax.topology.erdos_renyi(8))
params = cdjax.replicate({{"w": jnp.ones(3)}}, 8)
for tx in (cdjax.cdsgd(0.1, mix), cdjax.cdmsgd(0.1, mix),
           cdjax.adapt_then_combine(optax.adam(0.1), mix)):
    updates, state = tx.update(params, tx.init(params), params)
    cdjax.metrics.consensus_distance(cdjax.eval_params(state, optax.apply_updates(params, updates)))
"""
    run(program, elsewhere)


def test_the_sdist_builds_the_same_wheel(wheel, tmp_path):
    with tarfile.open(build("sdist", ROOT, tmp_path)) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert {path.name for path in source.iterdir() if path.is_dir()} == {
        "cdjax", "experiments", "benchmarks", "examples", "tests", "docs"
    }  # fmt: skip
    rebuilt = zipfile.ZipFile(build("wheel", source, tmp_path))
    assert sorted(rebuilt.namelist()) == sorted(wheel.namelist())


@pytest.mark.slow
def test_a_type_checker_sees_the_types_of_the_wheel(wheel, tmp_path):
    venv.create(tmp_path / "venv")
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    wheel.extractall(site)
    (site / "dependencies.pth").write_text(str(Path(pytest.__file__).parents[1]))
    (tmp_path / "script.py").write_text(
        "import cdjax\n"
        "reveal_type(cdjax.topology.ring(4).spectral_gap)\n"
        "reveal_type(cdjax.cdsgd(0.1, cdjax.mixing.auto(cdjax.topology.ring(4))))\n"
        "print(cdjax.models.CNN, cdjax.cdsdg)\n"
    )
    command = [sys.executable, "-m", "pyright", "--pythonpath", str(tmp_path / "venv/bin/python")]
    result = subprocess.run(
        [*command, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    found = [line.split(" - ")[1] for line in result.stdout.splitlines() if " - " in line]
    assert found == [
        'information: Type of "cdjax.topology.ring(4).spectral_gap" is "float"',
        'information: Type of "cdjax.cdsgd(0.1, cdjax.mixing.auto(cdjax.topology.ring(4)))" is '
        '"GradientTransformation"',
        'error: "cdsdg" is not a known attribute of module "cdjax" (reportAttributeAccessIssue)',
    ]
