"""Whole runs of the experiments, from the options to the last evaluation."""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks._sections.setting import Row, Setting

_LEAST_SECONDS = 5  # to import what a run needs, and to compile its programs


def runs(setting: Setting) -> None:
    """16 agents on a ring on the digits, and a curve of the figures on Fashion-MNIST."""
    # A CPU takes a tenth of a second for a step of the small run, and seconds for one of the CNN.
    model, epochs = setting.sized(("cnn", None), ("softmax", 1))
    options = {"dataset": "digits", "agents": 16, "topology": "ring"}
    measure = partial(_run, model=model, epochs=epochs, **options)
    setting.attempt({"run": "digits"}, measure, least_seconds=_LEAST_SECONDS)
    folder = setting.options.data_dir
    if folder is None:
        setting.record({"run": "fashion_mnist", "skipped": "no --data-dir"})
        return
    model, epochs, samples = setting.sized(("cnn", 5, None), ("softmax", 1, 2000))
    options = {"dataset": "fashion_mnist", "data_dir": folder, "train_samples": samples}
    # The curve "CDMSGD" of the figures: five agents, a complete graph, batches of 128.
    facts = {"run": "fashion_mnist", "epochs": epochs}
    measure = partial(_run, model=model, epochs=epochs, **options)
    setting.attempt(facts, measure, least_seconds=_LEAST_SECONDS)


def _run(**options: Any) -> Row:
    # Here, since the experiments need packages that the other sections do without.
    from experiments.run.config import Run, replaced
    from experiments.run.runner import run

    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        records = run(replaced(Run(), **options), folder=Path(folder) / "run", quiet=True)
        seconds = time.perf_counter() - start
    first, last = records[0], records[-1]
    steps = last["step"] - first["step"]
    after_first = last["seconds"] - first["seconds"]
    return {
        "model": options["model"],
        "seconds": seconds,
        "steps": last["step"],
        # Evaluations included, the first epoch and its compilations not.
        "seconds_of_a_step": after_first / steps if steps else None,
        "seconds_to_first_evaluation": first["seconds"],
        "test_accuracy_mean": last["test_accuracy_mean"],
        "consensus_distance": last["consensus_distance"],
    }
