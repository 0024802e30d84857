"""Which parts of an optax transformation couple agents whose parameters are stacked.

A part that reduces over more than single numbers (a norm, a mean, an orthogonalization) takes the
agent axis for one of the parameters. optax has no mark for such parts, but the functions that a
transformation closes over tell which ones it is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

# By name of the function that makes them; tests/transforms/test_coupling.py measures all of optax.
COUPLING = frozenset(
    {
        "adaptive_grad_clip", "apply_if_finite", "centralize", "clip_by_block_rms",
        "clip_by_global_norm", "dadapt_adamw", "mechanize", "normalize",
        "normalize_by_update_norm", "prodigy", "scale_by_distance_over_gradients",
        "scale_by_dog", "scale_by_dowg",
        "scale_by_galore", "scale_by_lbfgs", "scale_by_muon", "scale_by_novograd",
        "scale_by_param_block_norm", "scale_by_param_block_rms", "scale_by_sm3",
        "scale_by_trust_ratio",
    }
)  # fmt: skip
# What is inside of these sees one agent at a time.
_PER_AGENT = "per_agent"


def coupling_parts(tx: Any) -> list[str]:
    """The names of the parts of a transformation that couple stacked agents, in their order."""
    return [name for name in parts_of(tx.update) if name in COUPLING]


def parts_of(function: Callable[..., Any]) -> list[str]:
    """The names of what made a function and all that it closes over, outside of ``per_agent``."""
    return list(dict.fromkeys(_parts(function, set())))


def _parts(function: Callable[..., Any], seen: set[int]) -> Iterator[str]:
    """The names of the factories of a function and of all functions that it closes over."""
    if id(function) in seen:
        return
    seen.add(id(function))
    name = getattr(function, "__qualname__", "").partition(".")[0]
    if name == _PER_AGENT:
        return
    yield name
    for cell in getattr(function, "__closure__", None) or ():
        try:
            held = cell.cell_contents
        except ValueError:  # a name that is not bound yet
            continue
        for value in _held(held):
            # A transformation is taken for its update; other functions as they are.
            inner = getattr(value, "update", value)
            if callable(inner):
                yield from _parts(inner, seen)


def _held(value: Any) -> Iterator[Any]:
    """A value, or the elements of a plain container."""
    if type(value) in (list, tuple):
        yield from value
    elif type(value) is dict:
        yield from value.values()
    else:
        yield value
