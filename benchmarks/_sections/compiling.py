"""How long the main programs compile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from benchmarks._models import AttentionClassifier
from benchmarks._sections.setting import Row, Setting, bytes_needed, compiled
from benchmarks._training import SHAPE, train_parts
from cdjax import mixing, models, topology, training


def compiling(setting: Setting) -> None:
    """Compile seconds of train steps, evaluation and mixers."""
    agents, batch = setting.sized((8, 32), (2, 2))
    steps = {
        "cnn": (models.CNN(), "vmap"),
        "cnn, map": (models.CNN(), "map"),
        "cnn, bfloat16": (models.CNN(dtype="bfloat16"), "vmap"),
        "mlp": (models.MLP(), "vmap"),
        "softmax": (models.SoftmaxRegression(), "vmap"),
        "attention": (AttentionClassifier(width=64), "vmap"),
    }
    programs: dict[str, Callable[[], tuple[Any, Any]]] = {
        f"step of {name}": lambda model=model, plan=plan: _step(model, plan, agents, batch=batch)
        for name, (model, plan) in steps.items()
    }
    programs["evaluation of cnn"] = lambda: _evaluation(agents, setting.sized(1000, 20))
    for plan in ("dense", "shifts", "neighbors"):
        programs[f"mix by {plan}"] = lambda plan=plan: _mix(plan, setting.sized(256, 16))
    for name, make in programs.items():
        setting.attempt({"program": name, "agents": agents}, lambda make=make: _row(*make()))


def _row(step: Any, shapes: Any) -> Row:
    program, seconds = compiled(step, shapes)
    return {"compile_seconds": seconds, "bytes_needed": bytes_needed(program)}


def _step(model: models.Model, plan: str, agents: int, *, batch: int) -> tuple[Any, Any]:
    parts = train_parts(model, agents, batch_size=batch, plan=plan)
    return parts.step, parts.shapes


def _evaluation(agents: int, samples: int) -> tuple[Any, Any]:
    model = models.CNN()
    state = train_parts(model, agents, batch_size=1).shapes[0]
    images = jax.ShapeDtypeStruct((samples, *SHAPE), "float32")
    labels = jax.ShapeDtypeStruct((samples,), "int32")
    evaluate = training.evaluation(models.classification_metrics(model))
    return jax.jit(evaluate), (state.params, {}, (images, labels))


def _mix(plan: str, agents: int) -> tuple[Any, Any]:
    mix = getattr(mixing, plan)(topology.random_regular(agents, degree=4))
    return jax.jit(mix), (jax.ShapeDtypeStruct((agents, 1000), "float32"),)
