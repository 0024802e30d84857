"""The same step in PyTorch, where it is installed, in one process with cdjax's."""

from __future__ import annotations

import importlib.util
from functools import partial
from statistics import median

from benchmarks._peers import ours
from benchmarks._peers.forms import FORMS, Form, forms_for
from benchmarks._peers.problem import Fingerprint, Problem, Program, disagreement, fingerprint
from benchmarks._peers.problems import steps
from benchmarks._sections.setting import Row, Setting, failure
from benchmarks._timing import ratio
from benchmarks._training import cnn_operations

_LEAST_SECONDS = 5  # to import PyTorch and to compile cdjax's step
# The forms that may be the fastest come first, in case time ends; torch.compile takes longest.
_ORDER = ("graph", "vmap", "graph_of_streams", "streams", "vmap_channels_last")
_ORDER += ("by_hand", "in_place", "plain", "compile")


def torch(setting: Setting) -> None:
    """PyTorch: loops over modules, ``torch.func.vmap``, CUDA graphs and streams."""
    if not importlib.util.find_spec("torch"):
        setting.record({"skipped": "PyTorch is not installed"})
        return
    if setting.time_left() < _LEAST_SECONDS:
        setting.record({"skipped": f"{setting.time_left():.1f} s are left"})
        return
    import torch

    gpu = torch.cuda.is_available()
    agents, batch = setting.sized((16, 64), (3, 4))
    facts = {"agents": agents, "batch": batch, "device": "cuda" if gpu else "cpu", "tf32": gpu}
    problem = steps("cnn", agents=agents, batch=batch, algorithm="cdmsgd")
    program = ours.steps(problem)
    wanted = fingerprint(program)
    for name in _ORDER:
        if name in forms_for("cnn", gpu=gpu):
            measure = partial(_compared, setting, problem, program, FORMS[name], wanted=wanted)
            setting.attempt({**facts, "program": f"torch {name}"}, measure)
    if gpu:
        torch.cuda.empty_cache()


def _compared(
    setting: Setting, problem: Problem, program: Program, form: Form, *, wanted: Fingerprint
) -> Row:
    """The time of a form and cdjax's in turn, and whether its first steps are the same."""
    from benchmarks._peers import torch_forms

    peer: Program = getattr(torch_forms, form.function)(problem, **form.options)
    found = fingerprint(peer)
    other = disagreement(found, wanted, tolerance=2e-2)
    row: Row = {
        "first_losses": found.losses.mean(axis=1).tolist(),
        "first_losses_of_cdjax": wanted.losses.mean(axis=1).tolist(),
        "same": other is None,
    }
    if other:
        return row | {"other": other}
    try:
        times = setting.times({"cdjax": program.step, "torch": peer.step})
    except Exception as error:
        return row | failure(error)
    seconds, samples = median(times["torch"]), problem.labels.size
    return row | {
        "seconds": seconds,
        "cdjax_seconds": median(times["cdjax"]),
        "times_cdjax": ratio(times, "torch", "cdjax"),
        "share_of_matmul_peak": samples * cnn_operations() / seconds / setting.peak("float32"),
    }
