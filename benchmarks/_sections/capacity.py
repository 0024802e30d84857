"""How many agents fit on one device, and a run of a hundred thousand."""

from __future__ import annotations

import math
import resource
import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

import cdjax
from benchmarks._sections.setting import Row, Setting, bytes_needed, compiled, device_bytes, failure
from benchmarks._training import TrainParts, random_batches, running, train_parts
from cdjax import models

_GREY = (28, 28, 1)
# name: the model, the shape of its images, the first number of agents on an accelerator
_MODELS: dict[str, tuple[models.Model, tuple[int, ...], int]] = {
    "cnn": (models.CNN(), (32, 32, 3), 128),
    "mlp": (models.MLP(), _GREY, 4096),
    "softmax": (models.SoftmaxRegression(), _GREY, 2**17),
}
_BATCH = 8


def fit(setting: Setting) -> None:
    """10^5 softmax regressions from start to end, and the N at which memory ends."""
    agents, steps = setting.sized((100_000, 100), (200, 5))
    facts = {"model": "softmax", "agents": agents, "steps": steps, "batch": _BATCH}
    setting.attempt(facts, lambda: _whole_run(agents, steps))
    for name in _MODELS:
        _largest(setting, name)


def ring_of_rolls(tree: cdjax.Params, step: Any = 0) -> cdjax.Params:
    """The mixer of a ring written out, as the N × N matrix of a topology is too large here."""
    del step
    return jax.tree.map(
        lambda x: x + ((jnp.roll(x, 1, 0) - x) + (jnp.roll(x, -1, 0) - x)) / 3, tree
    )


def _whole_run(agents: int, steps: int) -> Row:
    model, shape, _ = _MODELS["softmax"]
    start = time.perf_counter()
    options: dict[str, Any] = {"batch_size": _BATCH, "plan": "vmap", "shape": shape}
    parts = train_parts(model, agents, mix=ring_of_rolls, num_steps=steps, **options)
    step, compile_seconds = compiled(parts.step, parts.shapes)
    state, batches = jax.block_until_ready((parts.init(), parts.batches()))
    trained = time.perf_counter()
    state, metrics = step(state, *batches)
    last_loss = float(metrics["loss"][-1].mean())
    end = time.perf_counter()
    statistics = jax.devices()[0].memory_stats() or {}
    return {
        "seconds": end - start,
        "compile_seconds": compile_seconds,
        "seconds_of_a_step": (end - trained) / steps,
        "first_loss": float(metrics["loss"][0].mean()),
        "last_loss": last_loss,
        "bytes_needed": bytes_needed(step),
        "peak_bytes_of_device_so_far": statistics.get("peak_bytes_in_use"),
        "peak_bytes_of_host_so_far": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }


def _largest(setting: Setting, name: str) -> None:
    """Raises N, a power of two, until a step does not fit; what needs too much is not run."""
    agents, most = setting.sized((_MODELS[name][2], math.inf), (2, 2))
    limit, half = device_bytes(), setting.time_left() / 2
    while agents <= most and setting.time_left() > half:  # the models that follow need time too
        measure = partial(_step, name, agents, limit)
        row = setting.attempt({"model": name, "agents": agents}, measure)
        if not row or not row["fits"]:
            return
        # Straight to the N at which memory should just do: every N is compiled anew.
        room = limit / row["bytes_needed"]
        agents *= 2 ** max(1, int(math.log2(room))) if math.isfinite(room) else 2


def _step(name: str, agents: int, limit: float) -> Row:
    model, shape, _ = _MODELS[name]
    parts = train_parts(
        model, agents, batch_size=_BATCH, plan="vmap", shape=shape, mix=ring_of_rolls
    )
    step, compile_seconds = compiled(parts.step, parts.shapes)
    needed = bytes_needed(step)
    facts = {"bytes_needed": needed, "bytes_limit": limit, "compile_seconds": compile_seconds}
    if needed > limit:
        return {"fits": False, **facts}
    try:
        program = running(step, parts.init(), _same_batch(parts, agents, shape))
        jax.block_until_ready(program())
        start = time.perf_counter()
        jax.block_until_ready(program())
        return {"fits": True, "seconds": time.perf_counter() - start, **facts}
    except jax.errors.JaxRuntimeError as error:
        return {"fits": False, **facts, **failure(error)}


def _same_batch(parts: TrainParts, agents: int, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """The arguments behind the state, one random batch for all agents: a host makes few at once."""
    _, _, indices, num_steps = parts.shapes
    batch = jax.tree.map(lambda x: x[0], random_batches(1, _BATCH, shape=shape))
    own = jnp.broadcast_to(jnp.arange(_BATCH, dtype=indices.dtype), indices.shape)
    return jax.jit(cdjax.replicate, static_argnums=1)(batch, agents), own, num_steps
