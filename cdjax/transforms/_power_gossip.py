r"""PowerGossip: neighbours find the largest directions of their difference, and average along them.

Vogels, Karimireddy, Jaggi, *Practical Low-Rank Communication Compression in Decentralized Deep
Learning*, NeurIPS 2020, arXiv:2008.01425; github.com/epfml/powergossip, algorithms.py.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from cdjax._checks import check_count, check_inner, check_key, check_params, check_stacked
from cdjax._trees import displacement, is_floating, is_leafless, widened
from cdjax._types import OptState, Params
from cdjax.compress._low_rank import is_reduced, matrix_shape, orthonormalize


class PowerGossipState(NamedTuple):
    """State of :func:`power_gossip`: a pair of factors for each edge and each leaf that is reduced.

    ``left`` holds directions of the rows, of shape ``(edges, m, r)``, ``right`` of the columns,
    ``(edges, n, r)``; empty for leaves that are sent as they are.
    """

    step: Int[Array, ""]
    left: list[Float[Array, "edges rows rank"]]
    right: list[Float[Array, "edges columns rank"]]
    inner: OptState


def power_gossip(
    inner: optax.GradientTransformation,
    mixing_matrix: Float[np.ndarray, "agents agents"],
    *,
    key: PRNGKeyArray,
    rank: int = 1,
) -> optax.GradientTransformationExtraArgs:
    r"""Local steps, and a mix in which each edge carries its difference's leading directions.

    For each edge (i, l) and each leaf as an m × n matrix, at every other step

    .. math::
        \hat{p} = \operatorname{orthonormalize}(p), \qquad q = (X_i - X_l)^\top \hat{p}, \qquad
        X_i \leftarrow X_i - \Pi_{il} \, \hat{p} q^\top, \qquad
        X_l \leftarrow X_l + \Pi_{il} \, \hat{p} q^\top

    and at the others the same of the transposes, from the last step's q. So every step is half a
    power iteration for the difference of two neighbours, who both know p and q and send each other
    r numbers per column, or per row, and no index. The sum over the agents stays. Of the random
    first directions nothing is averaged. A difference of rank r is found in two steps; from then on
    it is the mix with :math:`\Pi`. Leaves that are no larger than their factors (vectors among
    them) are mixed as they are.

    Args:
        inner: any optax optimizer.
        mixing_matrix: :math:`\Pi`, symmetric, of shape (N, N), such as
            ``topology.mixing_matrix``; its edges are the entries that are not zero.
        key: of the first directions.
        rank: r, at least 1.

    Returns:
        An optax transformation; its ``update`` needs ``params`` and passes on extra arguments.

    Raises:
        ValueError: if the rank is below 1, or the matrix is not symmetric.

    Example: ``tx = cdjax.power_gossip(optax.sgd(0.1), topology.mixing_matrix, key=key, rank=2)``

    Reference: Vogels et al. (2020), Algorithm 1 (number not verified), and the released code with
    one iteration per step and warm starts.
    """
    check_inner(inner)
    check_key(key)
    check_count("rank", rank, low=1)
    matrix = np.asarray(mixing_matrix)
    if matrix.ndim != 2 or not np.allclose(matrix, matrix.T, rtol=0, atol=1e-8):
        raise ValueError("mixing_matrix is not symmetric; edges here carry the same both ways")
    first, second = np.nonzero(np.tril(matrix, -1))
    weights = matrix[first, second]
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> PowerGossipState:
        if not is_leafless(params):
            check_stacked(params, len(matrix))
        left, right = [], []
        for number, x in enumerate(jax.tree.leaves(params)):
            rows, columns = matrix_shape(x.shape[1:])
            reduced = is_floating(x) and is_reduced(x.shape[1:], rank)
            wide = jnp.result_type(widened(x)) if reduced else jnp.float32
            shape = (len(first), rows, rank) if reduced else (0, 0, rank)
            left.append(jax.random.normal(jax.random.fold_in(key, number), shape, wide))
            right.append(jnp.zeros((len(first), columns, rank) if reduced else (0, 0, rank), wide))
        return PowerGossipState(jnp.zeros([], jnp.int32), left, right, inner.init(params))

    def averaged(x: Array, left: Array, right: Array, step: Array) -> tuple[Array, Array, Array]:
        """One leaf of all agents after the exchange along all edges, and the factors."""
        if not is_floating(x):
            return x, left, right
        wide = widened(x)
        along = jnp.asarray(weights, wide.dtype)
        if not is_reduced(x.shape[1:], rank):
            apart = wide[first] - wide[second]
            pulls = along.reshape(-1, *[1] * (x.ndim - 1)) * apart
            return moved(wide, pulls).astype(x.dtype), left, right
        wide = wide.reshape(len(x), *matrix_shape(x.shape[1:]))

        def by_columns() -> tuple[Array, Array, Array]:
            unit = jax.vmap(orthonormalize)(left)
            other = products("emn,emr->enr", wide, unit)
            return unit, other, jnp.where(step > 0, along, 0)

        def by_rows() -> tuple[Array, Array, Array]:
            unit = jax.vmap(orthonormalize)(right)
            other = products("emn,enr->emr", wide, unit)
            return other, unit, along

        left, right, along = jax.lax.cond(step % 2 == 0, by_columns, by_rows)
        pulls = jnp.einsum("e,emr,enr->emn", along, left, right, precision="highest")
        return moved(wide, pulls).reshape(x.shape).astype(x.dtype), left, right

    def products(subscripts: str, x: Array, unit: Array) -> Array:
        product = lambda x: jnp.einsum(subscripts, x, unit, precision="highest")  # noqa: E731
        return product(x[first]) - product(x[second])

    def moved(x: Array, pulls: Array) -> Array:
        return x.at[first].add(-pulls).at[second].add(pulls)

    def update(
        updates: optax.Updates,
        state: PowerGossipState,
        params: Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, PowerGossipState]:
        x = check_params(params, "power_gossip", updates)
        updates, inner_state = inner.update(updates, state.inner, x, **extra_args)
        leaves, structure = jax.tree.flatten(optax.apply_updates(x, updates))
        results = [
            averaged(leaf, left, right, state.step)
            for leaf, left, right in zip(leaves, state.left, state.right, strict=True)
        ]
        leaves, left, right = (list(parts) for parts in zip(*results, strict=True))
        state = PowerGossipState(state.step + 1, left, right, inner_state)
        return displacement(structure.unflatten(leaves), x), state

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]
