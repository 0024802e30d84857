"""Whole train steps: the paper's CNN by each plan, and two models of matrix products alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from statistics import median
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks._models import (
    AttentionClassifier,
    FlaxCNN,
    attention_operations,
    mlp_operations,
)
from benchmarks._sections.setting import PRECISIONS, Row, Setting, compiled, failure
from benchmarks._timing import ratio
from benchmarks._training import SHAPE, TrainParts, cnn_operations, running, train_parts
from cdjax import models

_MOST_UNROLLED = 16


class _Plan(NamedTuple):
    """A way to compute the step: its model, the plan of ``agent_map``, and whether in a loop."""

    model: Callable[..., models.Model]
    plan: str
    in_loop: bool = True


_PLANS = {
    "vmap": _Plan(models.CNN, "vmap"),
    "flax_vmap": _Plan(FlaxCNN, "vmap", in_loop=False),
    "map": _Plan(models.CNN, "map"),
    "unroll": _Plan(models.CNN, "unroll"),
}
# Agents, batch, dtype; what tells most comes first, after four agents, which tell what the plan
# unroll takes to compile for more.
_LARGE = [
    (4, 64, "float32"), (16, 64, "float32"), (16, 64, "bfloat16"), (64, 64, "float32"),
    (64, 64, "bfloat16"), (4, 64, "bfloat16"), (16, 128, "float32"), (64, 128, "float32"),
    (16, 128, "bfloat16"), (64, 128, "bfloat16"), (4, 128, "float32"), (4, 128, "bfloat16"),
]  # fmt: skip
_SMALL = [(2, 2, "float32"), (2, 2, "bfloat16")]


def cnn(setting: Setting) -> None:
    """The paper's CNN by each plan: N = 4, 16, 64, batch 64 and 128, float32 and bfloat16."""
    seconds: dict[str, float] = {}  # of compiling each plan, as last measured, per unrolled agent
    for agents, batch, dtype in setting.sized(_LARGE, _SMALL):
        facts = {"agents": agents, "batch": batch, "dtype": dtype}
        programs, rows = {}, {}
        for name, program, row in _compiled_plans(setting, facts, seconds):
            rows[name] = facts | {"plan": name} | row
            setting.record(rows[name])  # and again with times, should time end before that
            if program:
                programs[name] = program
        if programs:
            _time_plans(setting, facts, programs=programs, rows=rows)
        for name in programs:
            setting.record(rows[name])
        del programs  # their arrays, before those of the next
        if setting.time_left() < 0:
            return


def _compiled_plans(
    setting: Setting, facts: Row, seconds: dict[str, float]
) -> Iterator[tuple[str, Callable[[], Any] | None, Row]]:
    """Each plan with its program, None if there is no time for it or it fails, and its columns."""
    agents, start = facts["agents"], None
    for name, plan in _PLANS.items():
        copies = agents if plan.plan == "unroll" else 1
        if copies > _MOST_UNROLLED:
            continue
        # A plan that is not known yet is taken to be like the slowest.
        unknown = max(seconds.values(), default=0.0) / min(copies, 4)
        expected = copies * seconds.get(name, unknown)
        if setting.time_left() < expected:
            left = f"{setting.time_left():.0f} s are left, compiling takes about {expected:.0f}"
            yield name, None, {"skipped": left}
            continue
        try:
            parts = _parts(plan, facts)
            step, compile_seconds = compiled(parts.step, parts.shapes)
            seconds[name] = compile_seconds / copies
            start = parts.init() if start is None else start
            program = running(step, jax.tree.map(jnp.copy, start), parts.batches())
            row = {"compile_seconds": compile_seconds, "auto": parts.auto_plan()}
            yield name, program, row
        except Exception as error:
            yield name, None, failure(error)


def _parts(plan: _Plan, facts: Row) -> TrainParts:
    dtype = None if facts["dtype"] == "float32" else facts["dtype"]
    model = plan.model(dtype=dtype)
    options = {"batch_size": facts["batch"], "plan": plan.plan, "in_loop": plan.in_loop}
    return train_parts(model, facts["agents"], **options)


def _time_plans(
    setting: Setting, facts: Row, *, programs: dict[str, Callable[[], Any]], rows: dict[str, Row]
) -> None:
    """Adds times to the rows."""
    try:
        times = setting.times(programs)
        peak = setting.peak(facts["dtype"])
    except Exception as error:
        for name in programs:
            rows[name] |= failure(error)
        return
    own = [name for name in programs if not name.startswith("flax")]
    fastest = min(own, key=lambda name: median(times[name]), default="")
    samples, first = facts["agents"] * facts["batch"], next(iter(programs))
    for name in programs:
        rows[name] |= {
            "seconds": median(times[name]),
            "samples_per_second": samples / median(times[name]),
            f"times_{first}": ratio(times, name, first),
            "share_of_matmul_peak": samples * cnn_operations() / median(times[name]) / peak,
        }
        if name in own:
            rows[name]["auto_is_fastest"] = rows[name]["auto"] == fastest


def products(setting: Setting) -> None:
    """An MLP's and an attention block's step as shares of the peak of matrix products."""
    agents, batch = setting.sized((16, 1024), (2, 4))
    hidden, width = setting.sized(((4096, 4096), 512), ((64, 64), 32))
    block = AttentionClassifier(width=width)
    cases = {
        "mlp": (models.MLP(hidden), mlp_operations((SHAPE[0] ** 2 * SHAPE[2], *hidden, 10))),
        "attention": (block, attention_operations(block, SHAPE[0], SHAPE[2])),
    }
    for kind in PRECISIONS:
        peak = setting.attempt(
            {"model": "matrix product", "arithmetic": kind},
            lambda kind=kind: {"operations_per_second": setting.peak(kind)},
        )
        for name, (model, operations) in cases.items() if peak else ():
            # An image is 256 tokens of the block, a sample of the perceptron one row.
            own_batch = batch if name == "mlp" else max(1, batch // 16)
            facts = {"model": name, "arithmetic": kind, "agents": agents, "batch": own_batch}
            setting.attempt(
                facts, lambda m=model, f=facts, o=operations: _products_row(setting, m, f, o)
            )


def _products_row(setting: Setting, model: Any, facts: Row, operations: float) -> Row:
    dtype, precision = PRECISIONS[facts["arithmetic"]]
    model = model.clone(dtype=None if dtype == "float32" else dtype)
    with jax.default_matmul_precision(precision) if precision else nullcontext():
        parts = train_parts(model, facts["agents"], batch_size=facts["batch"], plan="vmap")
        step, compile_seconds = compiled(parts.step, parts.shapes)
        state = parts.init()
    numbers = sum(x.size for x in jax.tree.leaves(state.params))
    times = setting.times({"step": running(step, state, parts.batches())})
    seconds, samples = median(times["step"]), facts["agents"] * facts["batch"]
    achieved = samples * operations / seconds
    return {
        "compile_seconds": compile_seconds,
        "seconds": seconds,
        "operations_per_second": achieved,
        "share_of_matmul_peak": achieved / setting.peak(facts["arithmetic"]),
        "parameters_of_all_agents": numbers,
    }
