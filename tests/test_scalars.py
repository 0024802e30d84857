"""Every option that is one number refuses an array, which would spread over some axis."""

import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cdjax
from cdjax import compress, mixing, robust, topology

RING, KEY = topology.ring(3), jax.random.key(0)
# Whatever is required, by its name.
GIVEN = {
    "inner": optax.sgd(0.1), "mix": mixing.dense(RING), "compressor": compress.top_k(0.5),
    "topology": RING, "key": KEY, "learning_rate": 0.1, "server_learning_rate": 0.1, "period": 2,
    "local_steps": 2, "consensus_step": 0.5, "gain": 0.1, "smallest_eigenvalue": 0.0, "rounds": 2,
    "sigma": 0.5, "fraction": 0.5, "radius": 1.0, "deviation": 1.0, "num_agents": 3,
    "probability": 0.5, "init_value": 0.1, "outer_optimizer": optax.sgd(0.7), "rank": 1,
}  # fmt: skip
MODULES = {"cdjax": cdjax, "mixing": mixing, "robust": robust, "compress": compress}


def options():
    """Each public function, the name of an option that is a number, and a shape that it has not."""
    for place, module in MODULES.items():
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if name.startswith("_"):
                continue
            for option, parameter in inspect.signature(function).parameters.items():
                kind = str(parameter.annotation)
                if kind.startswith("AgentScalar") or option in ("beta", "init_value"):
                    yield place, name, option, (2, 2)
                elif kind.startswith(("float", "ScalarOrSchedule")) or option == "probability":
                    yield place, name, option, (3,)


OPTIONS = sorted(options())


def test_the_table_holds_the_library():
    assert len(OPTIONS) > 50
    assert {("cdjax", "downpour", "server_learning_rate", (3,)), ("cdjax", "easgd", "beta", (2, 2)),
            ("compress", "top_k", "fraction", (3,)), ("mixing", "lazy", "weight", (3,)),
            ("robust", "clipped_gossip", "radius", (3,))} <= {*OPTIONS}  # fmt: skip


@pytest.mark.parametrize(("place", "name", "option", "shape"), OPTIONS)
def test_an_option_that_is_a_number_refuses_an_array(place, name, option, shape):
    function = getattr(MODULES[place], name)
    required = [
        key
        for key, parameter in inspect.signature(function).parameters.items()
        if parameter.default is parameter.empty and parameter.kind != parameter.VAR_POSITIONAL
    ]
    given = {key: GIVEN[key] for key in required} | {option: jnp.full(shape, 0.6)}
    # The tests' type checks refuse some arrays first, where a helper looks at the option.
    message = rf"^{re.escape(option)} (has shape|must be one)|parameter '{re.escape(option)}'"
    with pytest.raises((ValueError, TypeError), match=message):
        inspect.unwrap(function)(**given)


@pytest.mark.parametrize(
    "tx",
    [
        cdjax.fedavg(optax.sgd(0.1), local_steps=1, weights=np.ones(3)),
        cdjax.fedavg(optax.sgd(0.1), local_steps=np.array([1, 2, 1])),
        cdjax.easgd(0.1, clocks=np.arange(3)),
        cdjax.downpour(0.1, 0.1, clocks=np.arange(3)),
    ],
)
def test_flat_parameters_are_refused_where_the_number_of_agents_is_known(tx):
    params, flat = {"w": jnp.ones((3, 2))}, optax.flatten(tx)
    with pytest.raises(ValueError, match=r"local_steps has 3|weights has 3|\(6,\)"):
        flat.update(params, flat.init(params), params)
