"""Agents that compress what they send, to neighbours or to all, and their compressors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from experiments.run.algorithms.row import (
    CORRECTS,
    TRACKS,
    Algorithm,
    Setting,
    combines,
    from_all_to_all,
    sgd,
    to_neighbors,
    tracks,
)
from experiments.run.lazy import LazyModule

cdjax, compress = LazyModule("cdjax"), LazyModule("cdjax.compress")
jax, optax = LazyModule("jax"), LazyModule("optax")


class CompressorRow(NamedTuple):
    """One way to compress messages; ``build`` makes it from a key and the options that it reads."""

    build: Callable[..., compress.Compressor]
    options: Mapping[str, Any] = {}


_FRACTION = 0.1

COMPRESSORS: dict[str, CompressorRow] = {
    "top-k": CompressorRow(
        lambda key, fraction: compress.top_k(fraction), options={"fraction": _FRACTION}
    ),
    "random-k": CompressorRow(
        lambda key, fraction: compress.random_k(fraction, key), options={"fraction": _FRACTION}
    ),
    "sign": CompressorRow(lambda key: compress.sign()),
    "int8": CompressorRow(lambda key: compress.quantize(8)),
    "int4": CompressorRow(lambda key: compress.quantize(4, key=key)),
}


def _compressor(run: Setting, *, compressor: str, fraction: float, **_: Any) -> compress.Compressor:
    row = COMPRESSORS[compressor]
    return row.build(run.key, **({"fraction": fraction} if "fraction" in row.options else {}))


def _choco(
    run: Setting,
    *,
    momentum: float = 0.0,
    compressor: str = "top-k",
    fraction: float = _FRACTION,
    consensus_step: float = 0.1,
) -> optax.GradientTransformation:
    return cdjax.choco(
        sgd(run.alpha, momentum),
        run.mix,
        _compressor(run, compressor=compressor, fraction=fraction),
        consensus_step=consensus_step,
    )


def _beer(
    run: Setting,
    *,
    momentum: float = 0.0,
    compressor: str = "top-k",
    fraction: float = _FRACTION,
    consensus_step: float = 0.1,
) -> optax.GradientTransformation:
    return cdjax.beer(
        run.alpha,
        run.mix,
        _compressor(run, compressor=compressor, fraction=fraction),
        consensus_step=consensus_step,
        momentum=momentum,
    )


def _power_gossip(
    run: Setting, *, momentum: float = 0.0, rank: int = 1
) -> optax.GradientTransformation:
    matrix = run.topology.mixing_matrix
    return cdjax.power_gossip(sgd(run.alpha, momentum), matrix, key=run.key, rank=rank)


def _factor_bytes(params: cdjax.Params, *, rank: int, **_: Any) -> float:
    """The factors of rows and of columns are sent in turn, leaves that have none whole."""
    total = 0.0
    for leaf in jax.tree.leaves(params):
        one = {"leaf": leaf}
        whole, both = (
            make.message_bytes(one)
            for make in (compress.identity(), compress.low_rank(rank, jax.random.key(0)))
        )
        total += both / 2 if both < whole else whole
    return total


def _demo(
    run: Setting, *, momentum: float = 0.999, kept: int = 32, chunk: int = 64
) -> optax.GradientTransformation:
    return cdjax.demo(run.alpha, _coefficients(run, kept=kept, chunk=chunk), decay=momentum)


def _coefficients(run: Setting, *, kept: int, chunk: int, **_: Any) -> compress.Compressor:
    return compress.dct_top_k(kept, chunk)


def _sparse_loco(
    run: Setting,
    *,
    momentum: float = 0.0,
    period: int = 30,
    outer_learning_rate: float = 1.0,
    outer_momentum: float = 0.95,
    kept: int = 64,
    chunk: int = 64,
    value_bits: int = 2,
) -> optax.GradientTransformation:
    return cdjax.sparse_loco(
        sgd(run.alpha, momentum),
        _entries(run, kept=kept, chunk=chunk, value_bits=value_bits),
        period=period,
        decay=outer_momentum,
        outer_step=outer_learning_rate,
    )


def _entries(
    run: Setting, *, kept: int, chunk: int, value_bits: int, **_: Any
) -> compress.Compressor:
    return compress.chunk_top_k(kept, chunk, value_bits=value_bits)


_COPIES: dict[str, Any] = {"compressor": _compressor, "holds_copies": True}
_TO_ALL: dict[str, Any] = {
    "messages": from_all_to_all,
    "talks": "with all agents",
    "order": combines,
}

COMPRESSED: dict[str, Algorithm] = {
    "choco": Algorithm(
        _choco, title="CHOCO-SGD", reference="Koloskova, Stich, Jaggi (2019), Algorithm 2",
        order=combines, **_COPIES, **CORRECTS,
    ),
    "beer": Algorithm(
        _beer, title="BEER, and MoTEF with momentum",
        reference="Zhao, Li, Li, Richtárik, Chi (2022), Algorithm 1", order=tracks, **_COPIES,
        **TRACKS,
    ),
    "power-gossip": Algorithm(
        _power_gossip, to_neighbors, "PowerGossip", "Vogels, Karimireddy, Jaggi (2020)",
        order=combines, talks="with all neighbours", message_bytes=_factor_bytes,
    ),
    "demo": Algorithm(
        _demo, title="DeMo", reference="Peng, Quesnelle, Kingma (2024)",
        compressor=_coefficients, **_TO_ALL,
    ),
    "sparse-loco": Algorithm(
        _sparse_loco, title="SparseLoCo", reference="Sarfi et al. (2025)", compressor=_entries,
        **_TO_ALL | {"talks": "with all agents, once per round"},
    ),
}  # fmt: skip
