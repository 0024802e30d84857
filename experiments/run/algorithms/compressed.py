"""Agents that compress what they send to all neighbours, and the compressors that they can take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from experiments.run.algorithms.row import (
    CORRECTS,
    TRACKS,
    Algorithm,
    Setting,
    combines,
    sgd,
    tracks,
)
from experiments.run.lazy import LazyModule

cdjax, compress, optax = LazyModule("cdjax"), LazyModule("cdjax.compress"), LazyModule("optax")


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


COMPRESSED: dict[str, Algorithm] = {
    "choco": Algorithm(
        _choco, title="CHOCO-SGD", reference="Koloskova, Stich, Jaggi (2019), Algorithm 2",
        order=combines, compressor=_compressor, **CORRECTS,
    ),
    "beer": Algorithm(
        _beer, title="BEER, and MoTEF with momentum",
        reference="Zhao, Li, Li, Richtárik, Chi (2022), Algorithm 1", order=tracks,
        compressor=_compressor, **TRACKS,
    ),
}  # fmt: skip
