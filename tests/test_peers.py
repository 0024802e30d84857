"""The comparison with peers: the processes, the check of what they compute, and the programs."""

import dataclasses
import fcntl
import itertools
import json
import time
from contextlib import suppress

import jax
import numpy as np
import pytest

from benchmarks import peers
from benchmarks._peers import jax_mlp, ours, problem, problems
from benchmarks._peers.forms import FORMS, forms_for
from benchmarks._peers.problem import Problem, Program, disagreement, fingerprint
from benchmarks._peers.processes import Entrant, ProgramError, compete
from benchmarks._peers.systems import SYSTEMS
from benchmarks._timing import ratio

TARGETS = np.arange(12, dtype=np.float32).reshape(4, 1, 3)
TOY = Problem({"rate": 0.1}, {"x": np.zeros(3, np.float32)}, TARGETS, np.zeros((4, 1), np.int32))


def toy(name, *, malloc="glibc", **options):
    return Entrant(name, "tests.toy_program:steps", "numpy", options, malloc)


def competed(*entrants, work=TOY):
    return compete(work, entrants, turns=2, seconds=1e-4)


@pytest.mark.slow
def test_cdjax_against_cdjax_gives_a_ratio():
    work = problems.steps("mlp", agents=3, batch=2, algorithm="cdmsgd")
    one = Entrant("cdjax", "benchmarks._peers.ours:steps", "jax")
    other = one._replace(malloc="kept", options={"gradient_norm": True})
    times, wrong = competed(one, other, work=work)
    assert not wrong and list(times) == ["cdjax", "cdjax, pages kept"]
    assert 0 < ratio({label: found.wall for label, found in times.items()}, *times) < 1000
    assert all(len(found.wall) == len(found.cpu) == 2 for found in times.values())
    assert times["cdjax"].version == f"jax {jax.__version__}"


def test_a_program_gets_its_allocator():
    times, wrong = competed(toy("one"), toy("one", malloc="kept", kept=True))
    assert not wrong and len(times) == 2


@pytest.mark.parametrize(
    "options, reason",
    [({"factor": 1.01}, "losses differ by 0.01"), ({"mixes": False}, "distances that x moved")],
)
def test_a_program_that_computes_something_else_is_refused(options, reason):
    times, wrong = competed(toy("right"), toy("wrong", **options))
    assert list(times) == ["right"]
    assert reason in wrong["wrong"]


@pytest.mark.parametrize("lasts", [0, problem.STEPS + 1])
def test_a_program_that_ends_is_reported_with_what_it_said(lasts):
    times, wrong = competed(toy("right"), toy("broken", lasts=lasts))
    assert list(times) == ["right"]
    assert "exit code 1" in wrong["broken"] and "the toy is broken" in wrong["broken"]


def test_what_a_program_started_ends_with_it(tmp_path):
    file, end = tmp_path / "lock", time.monotonic() + 30
    competed(toy("right"), toy("starter", locks=str(file)))
    while time.monotonic() < end:
        with file.open() as held, suppress(BlockingIOError):
            return fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(0.01)
    pytest.fail("the process of a program outlives it")


def test_without_the_first_program_there_is_nothing_to_time():
    with pytest.raises(ProgramError, match="broken: .*(\n.*)*the toy is broken"):
        competed(toy("broken", lasts=problem.STEPS + 1), toy("right"))


def test_a_problem_is_read_as_it_was_written(tmp_path):
    work = problems.rounds(clients=4, cohort=2, samples=4, batch=2)
    problem.save(work, tmp_path / "problem.npz")
    read = problem.load(tmp_path / "problem.npz")
    assert read.facts == work.facts
    jax.tree.map(np.testing.assert_array_equal, read[1:], work[1:])


@pytest.mark.slow
def test_the_check_tells_algorithms_apart():
    first = {
        algorithm: fingerprint(
            ours.steps(problems.steps("mlp", agents=4, batch=2, algorithm=algorithm))
        )
        for algorithm in ("cdsgd", "cdmsgd", "atc")
    }
    for one, other in itertools.permutations(first.values(), 2):
        assert disagreement(one, other, tolerance=0.1)


@pytest.mark.slow
def test_rounds_are_those_of_the_drawn_clients():
    work = problems.rounds(clients=5, cohort=2, samples=6, batch=2)
    found = fingerprint(ours.rounds(work))
    wanted = fingerprint(plain_rounds(work))
    assert disagreement(found, wanted, tolerance=1e-5) is None


def plain_rounds(work):
    """FedAvg as a loop over the drawn clients."""
    params, draws = jax_mlp.initial_params(work), iter(work.clients)
    rate = work.facts["learning_rate"]
    gradient = jax.jit(jax.grad(jax_mlp.loss))

    def trained(params, client):
        for first in range(0, work.labels.shape[1], 2):
            batch = (x[client, first : first + 2] for x in (work.images, work.labels))
            params = jax.tree.map(lambda x, g: x - rate * g, params, gradient(params, *batch))
        return params

    def step():
        nonlocal params
        clients = [trained(params, client) for client in next(draws)]
        params = jax.tree.map(lambda *xs: sum(xs) / len(xs), *clients)

    return Program(step, lambda: {name: x[None] for name, x in params.items()})


SLOW = {"compile", "vmap", "vmap_channels_last"}
CASES = [
    pytest.param(work, form, id=f"{work}-{form}", marks=[pytest.mark.slow] * (form in SLOW))
    for work in ("cnn", "mlp")
    for form in forms_for(work, gpu=False)
]


@pytest.mark.parametrize("algorithm", ["cdsgd", "cdmsgd"])
@pytest.mark.parametrize("work, form", CASES)
def test_every_form_of_pytorch_takes_the_same_steps(work, form, algorithm):
    pytest.importorskip("torch")
    from benchmarks._peers import torch_forms

    same = problems.steps(work, agents=3, batch=2, algorithm=algorithm)
    build = getattr(torch_forms, FORMS[form].function)
    found = fingerprint(build(same, **FORMS[form].options))
    assert disagreement(found, fingerprint(ours.steps(same)), tolerance=5e-3) is None


@pytest.mark.parametrize(
    "options, message",
    [
        ({"forms": ("plane",)}, "plane is none of plain, in_place"),
        ({"forms": ("baddbmm",)}, "baddbmm cannot do --work cnn"),
        ({"systems": ("fedjx",)}, "fedjx is none of torch, decent-bench"),
        ({"agents": (2,)}, "--agents: 2 is no ring"),
        ({"interpreter": ("torch=/none",)}, "torch=/none is not SYSTEM=/path/to/python"),
    ],
)
def test_options_that_cannot_be_are_told(options, message):
    with pytest.raises(SystemExit, match=message):
        peers.main(peers.Options(**options))


def test_a_system_that_is_not_installed_says_how_to_install_it(capfd, monkeypatch):
    missing = SYSTEMS["fedjax"]._replace(module="no_such_module")
    monkeypatch.setitem(SYSTEMS, "fedjax", missing)
    with pytest.raises(SystemExit, match="nothing to compare with"):
        peers.main(peers.Options(systems=("fedjax",)))
    assert "pip install fedjax" in capfd.readouterr().out


@pytest.mark.slow
def test_the_command_names_the_peer_and_writes_its_rows(tmp_path, capfd):
    pytest.importorskip("torch")
    path = tmp_path / "peers.json"
    small = peers.Options(work="mlp", agents=(3,), batch=2, turns=1, seconds=1e-3, json=path)
    peers.main(dataclasses.replace(small, forms=("by_hand",), malloc=("kept",)))
    assert "the peer: PyTorch, by hand, pages kept, " in capfd.readouterr().out
    record = json.loads(path.read_text())
    assert [row["program"] for row in record["rows"]] == ["cdjax", "PyTorch, by hand"]
    assert record["rows"][0]["times_cdjax"] == 1 and not record["errors"]
