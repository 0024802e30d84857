"""The vocabulary that all files share.

- *agent*: one of N learners with its own parameters and private data.
- *stacked*: said of a pytree in which every leaf leads with the *agent axis*, shape ``(N, ...)``.
  ``params``, ``grads`` and ``updates`` are stacked everywhere unless a docstring says "of one
  agent".
- *mixing matrix* Π: ``Π[j, l]`` is the weight that agent j (the receiver, a row) gives to agent l
  (the sender, a column).
- *mixer*: a plain function ``mix(tree, step=0)`` that replaces every agent's leaves by a weighted
  mean over its neighbours. It holds no state. Only fixed mixers have a default for ``step``; those
  that change with it (random, periodic, over failing links) raise ValueError without.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias, runtime_checkable

import jax
import numpy as np
import optax
from jaxtyping import Array, Int

# A pytree; Python's types cannot say more.
Params: TypeAlias = Any
# Not optax.OptState, a recursive alias that typing.get_type_hints resolves only inside of optax.
OptState: TypeAlias = Any
ScalarOrSchedule: TypeAlias = float | jax.Array | optax.Schedule
# The same, or one number per agent, of shape (N,).
AgentScalarOrSchedule: TypeAlias = float | jax.Array | np.ndarray | optax.Schedule


@runtime_checkable
class Mixer(Protocol):
    """Mixes a stacked pytree: ``mixed[j] = Σ_l Π[j, l] tree[l]``, leaf by leaf."""

    def __call__(self, tree: Params, step: int | Int[Array, ""] = 0) -> Params:
        """Returns the mixed tree, with the structure, shapes and dtypes of ``tree``."""
        ...
