"""Mixing of some leaves: the others stay with their agents."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import jax
from jaxtyping import Array, Int

from cdjax._checks import check_mixer
from cdjax._trees import leaf_name
from cdjax._types import Mixer, Params


def personal(mix: Mixer, leaves: str | Sequence[str] | Callable[[str], bool]) -> Mixer:
    """Mixes all leaves but the personal ones, which stay with their agents and are not sent.

    For those leaves Π is the identity. An agent trains them on its own data, by whichever
    algorithm; the others it shares, such as the layers below a head for its own classes.

    Args:
        mix: the mixer of the other leaves.
        leaves: which leaves are personal: a regular expression, or several, that match the whole
            path of a leaf, such as ``"head/.*"`` for ``head/kernel`` and ``head/bias``; or a
            function of the path.

    Returns:
        A mixer. It goes outermost, around attacks and faults; in code under ``jax.vmap`` around
        :func:`cdjax.mixing.for_each`, which hands on leaves without their paths.

    Raises:
        ValueError: if ``leaves`` are neither; from the call, if an expression matches no leaf, or
            the function none.

    Example: ``tx = cdjax.cdmsgd(0.01, cdjax.mixing.personal(mix, ".*bias"))``

    Reference: Arivazhagan, Aggarwal, Singh, Choudhary, *Federated Learning with Personalization
    Layers*, 2019, arXiv:1912.00818 (not verified).
    """
    check_mixer(mix)
    tests = _tests(leaves)

    def mix_others(tree: Params, step: int | Int[Array, ""] | None = None) -> Params:
        with_paths, structure = jax.tree.flatten_with_path(tree)
        named = {leaf_name(path): leaf for path, leaf in with_paths}
        for wanted, is_personal in tests.items():
            if not any(map(is_personal, named)):
                names = ", ".join(repr(name) for name in list(named)[:8])
                more = ", ..." if len(named) > 8 else ""
                raise ValueError(f"leaves: {wanted} matches none of {names}{more}")
        shared = {
            name: leaf
            for name, leaf in named.items()
            if not any(is_personal(name) for is_personal in tests.values())
        }
        mixed = mix(shared) if step is None else mix(shared, step)
        return structure.unflatten((named | mixed).values())

    return mix_others


def _tests(
    leaves: str | Sequence[str] | Callable[[str], bool],
) -> dict[str, Callable[[str], bool]]:
    """From what an error calls them to the functions that tell whether a path is personal."""
    if callable(leaves):
        return {"the function": leaves}
    expressions = [leaves] if isinstance(leaves, str) else leaves
    if not isinstance(expressions, Sequence) or not expressions:
        raise ValueError(f"leaves is {leaves!r}; give a regular expression of paths, or several")
    tests: dict[str, Callable[[str], bool]] = {}
    for expression in expressions:
        try:
            compiled = re.compile(expression)
        except (re.error, TypeError) as error:
            raise ValueError(
                f"leaves has {expression!r}, which is no regular expression: {error}"
            ) from error
        tests[repr(expression)] = lambda path, compiled=compiled: bool(compiled.fullmatch(path))
    return tests
