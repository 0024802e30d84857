"""The work that programs share, and the check that they all do it. NumPy only.

A program may run in an interpreter that has neither cdjax nor JAX, so the work travels as a file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

STEPS = 3  # that are checked: from equal starts the first one shows no mixing
MEAN = STD = np.float32(127.5)  # of images in bytes


class Problem(NamedTuple):
    """Networks, samples and an algorithm.

    Attributes:
        facts: ``work`` (the network), ``algorithm``, ``learning_rate``, ``momentum``, and for
            rounds of FedAvg ``batch``.
        params: of one agent, by layer and name, in Flax's layout; all agents start from them.
        images: of every agent, shape (N, samples, ...); bytes are normalised within a step.
        labels: shape (N, samples).
        clients: the agents that train in each round, shape (rounds, clients); empty for steps.
    """

    facts: dict[str, Any]
    params: dict[str, np.ndarray]
    images: np.ndarray
    labels: np.ndarray
    clients: np.ndarray = np.zeros((0, 0), np.int32)


class Program(NamedTuple):
    """A system at work on a problem.

    Attributes:
        step: takes one step of every agent, or one round, waits for its end, and returns each
            agent's loss before the step, or None.
        params: the parameters, leaves of shape (N, ...), or (1, ...) where all agents agree. Names
            are the problem's; the layout may be any, since only norms are compared.
        losses: what the next step would return, where ``step`` returns None; None if a system tells
            no losses, as in rounds.
    """

    step: Callable[[], Any]
    params: Callable[[], Mapping[str, Any]]
    losses: Callable[[], Any] | None = None


class Fingerprint(NamedTuple):
    """What a program computes in its first steps.

    Attributes:
        losses: of every agent in the first two steps, shape (2, N); empty for rounds.
        moved: after each step, how far each layer of each agent is from its start, shape
            (STEPS, N), by layer.
    """

    losses: np.ndarray
    moved: dict[str, np.ndarray]


def save(problem: Problem, path: Path) -> None:
    """Writes a problem to a file."""
    arrays: dict[str, Any] = {f"params/{name}": x for name, x in problem.params.items()}
    arrays |= {name: getattr(problem, name) for name in ("images", "labels", "clients")}
    np.savez(path, facts=json.dumps(problem.facts), **arrays)


def load(path: Path) -> Problem:
    """Reads a problem from a file."""
    with np.load(path) as file:
        arrays = dict(file)
    facts, others = json.loads(str(arrays.pop("facts"))), ("images", "labels", "clients")
    of_problem = [arrays.pop(name) for name in others]
    params = {name.removeprefix("params/"): x for name, x in arrays.items()}
    return Problem(facts, params, *of_problem)


def fingerprint(program: Program) -> Fingerprint:
    """Takes the first steps, and says what they do."""
    start = {name: np.array(x, np.float64) for name, x in program.params().items()}
    losses, moved = [], {name: [] for name in start}
    for step in range(STEPS):
        before = program.losses() if program.losses else None
        found = program.step()
        found = found if before is None else before
        if found is not None and step < 2:
            losses.append(np.asarray(found, np.float64).ravel())
        for name, x in program.params().items():
            change = (np.asarray(x) - start[name]).reshape(len(start[name]), -1)
            moved[name].append(np.linalg.norm(change, axis=1))
    return Fingerprint(np.array(losses), {name: np.array(x) for name, x in moved.items()})


def disagreement(found: Fingerprint, wanted: Fingerprint, *, tolerance: float) -> str | None:
    """What of a program's first steps is other than wanted; None if nothing is.

    Args:
        found: what the program does.
        wanted: what it should do.
        tolerance: of losses and distances, relative to the largest one wanted.
    """
    if sorted(found.moved) != sorted(wanted.moved):
        return f"layers {sorted(found.moved)}, but wanted are {sorted(wanted.moved)}"
    pairs = {"losses": (found.losses, wanted.losses)}
    pairs |= {f"distances that {n} moved": (found.moved[n], x) for n, x in wanted.moved.items()}
    for what, (ours, theirs) in pairs.items():
        if ours.shape != theirs.shape:
            return f"{what} of shape {ours.shape}, but wanted is {theirs.shape}"
        if not ours.size:
            continue
        error = np.max(np.abs(ours - theirs)) / np.max(np.abs(theirs))
        if not error <= tolerance:  # a NaN is an error too
            return f"{what} differ by {error:.2g} of the largest one; {tolerance:g} is allowed"
    return None
