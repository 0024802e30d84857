"""No algorithm's compiled step holds more memory than its equations need, see benchmarks._memory.

Bytes are read from the compiled program; nothing runs.
"""

import jax
import pytest

from benchmarks._memory import (
    PLANS,
    further_algorithms,
    mixing_algorithms,
    needed_bytes,
    num_bytes,
    other_algorithms,
    train_step,
    update_step,
)
from benchmarks._sections.setting import bytes_needed
from cdjax import models, topology
from tests.slow import slow

NUM_AGENTS = 16
RING = topology.ring(NUM_AGENTS)
# Agents' own numbers, random keys and the compiler's padding.
SMALL = 1.01

SHAPES = {"one leaf": [(200, 300)], "several leaves": [(200, 100), (30, 1000), (50, 200), (1, 64)]}
OTHERS = other_algorithms(NUM_AGENTS)
FURTHER = further_algorithms(RING)
MIXING = {plan: mixing_algorithms(RING, plan) for plan in PLANS}


def tree(name):
    shapes = [(NUM_AGENTS, *shape) for shape in SHAPES[name]]
    return {str(i): jax.ShapeDtypeStruct(shape, "float32") for i, shape in enumerate(shapes)}


def assert_holds_what_it_needs(step, algorithm, name):
    exchange, spare = algorithm.exchange, algorithm.spare
    unit = num_bytes(step.params)
    held, needed = bytes_needed(step.compiled()) / unit, needed_bytes(step, exchange) / unit
    assert held <= SMALL * (needed + spare), (
        f"{name} holds {held:.2f} times the parameters, but needs {needed:.2f}: "
        f"its arguments, a gradient, and {', '.join(exchange) or 'no exchange'}; {spare} are spare"
    )
    return held - needed


@pytest.mark.parametrize("leaves", ["one leaf", *slow("several leaves")])
@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.sampled(4)
def test_an_update_holds_no_more_than_its_equations_need(name, leaves):
    assert_holds_what_it_needs(update_step(OTHERS[name], tree(leaves)), OTHERS[name], name)


QUICK = ("gradient tracking", "extra", "outer", "choco")  # one of each family


@pytest.mark.parametrize("name", [*QUICK, *slow(*sorted(FURTHER.keys() - {*QUICK}))])
def test_an_update_holds_no_more_than_its_equations_need_and_what_is_known(name):
    algorithm = FURTHER[name]
    step = update_step(algorithm, tree("one leaf"))
    more = assert_holds_what_it_needs(step, algorithm, name)
    if algorithm.spare:
        assert more > algorithm.spare - 1, f"{name} holds {more:.2f} copies more: take some off"


@pytest.mark.parametrize("leaves", ["one leaf", *slow("several leaves")])
@pytest.mark.parametrize("plan", ["neighbors", *slow("shifts", "dense")])
@pytest.mark.parametrize("name", MIXING["neighbors"])
def test_an_update_that_mixes_holds_no_more_than_its_equations_need(name, plan, leaves):
    algorithm = MIXING[plan][name]
    step = update_step(algorithm, tree(leaves))
    assert_holds_what_it_needs(step, algorithm, f"{name} by {plan}")


@pytest.mark.slow
@pytest.mark.parametrize("plan", ["vmap", "map", "unroll"])
@pytest.mark.parametrize("name", MIXING["neighbors"])
def test_a_train_step_holds_no_more_than_its_equations_need(name, plan):
    algorithm = MIXING["neighbors"][name]
    step = train_step(algorithm, models.MLP(hidden=(128, 128)), NUM_AGENTS, plan=plan)
    assert_holds_what_it_needs(step, algorithm, f"{name}, its gradients by {plan}")
