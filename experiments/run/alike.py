"""What the processes of a run must have in common, and how they are told where they have not.

Processes with other options, another graph, other data or other code would train different
experiments into one result, or wait for each other forever.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import zlib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.run.config import flat
from experiments.run.errors import flag

if TYPE_CHECKING:
    from cdjax import Topology, data

# What is said of a process: an option by its flag, or another thing by its name.
Facts = dict[str, str]

# Options that change no number, and paths and addresses that are those of a machine. What is found
# there is compared itself.
_OWN = {
    "process_id", "coordinator", "secret_file", "log_every", "data_dir", "out", "log", "quiet",
}  # fmt: skip
_SETTINGS = (
    "jax_enable_x64", "jax_default_matmul_precision", "jax_default_prng_impl",
    "jax_threefry_partitionable",
)  # fmt: skip
_PACKAGES = ("jax", "jaxlib", "numpy", "optax", "flax", "orbax-checkpoint")


def facts(options: Any) -> Facts:
    """The options of a run or a study, the code that it runs, and the versions below it."""
    found = {flag(k): _shown(k, v) for k, v in flat(options).items() if k not in _OWN}
    found["the code of cdjax and experiments"] = _code()
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def of_settings(step: int | None) -> Facts:
    """The settings of JAX on which numbers depend, and the step from which a run goes on."""
    import jax

    found = {f"the setting {name}": str(getattr(jax.config, name)) for name in _SETTINGS}
    return found | {"the last checkpoint in --resume": "none" if step is None else f"step {step}"}


def of_content(dataset: data.Dataset, topology: Topology) -> Facts:
    """What the data and the graph of a run hold, wherever they have been found."""
    arrays = {
        "the data of --dataset": (
            dataset.train_images, dataset.train_labels, dataset.test_images, dataset.test_labels,
        ),
    }  # fmt: skip
    crc = {name: [zlib.crc32(np.ascontiguousarray(x)) for x in xs] for name, xs in arrays.items()}
    crc["the graph of --topology"] = [topology.entries.checksum()]
    return {name: digest(str(numbers).encode()) for name, numbers in crc.items()}


def difference(own: Facts, others: Mapping[int, Facts]) -> str:
    """The first fact that a process, by number, does not share, as an error; "" if none."""
    for process, other in others.items():
        for name in {**own, **other}:
            here, there = own.get(name, "none"), other.get(name, "none")
            if here != there:
                return (
                    f"{name}: {here} here, but {there} in process {process}; start all processes "
                    "alike"
                )
    return ""


def digest(*parts: bytes) -> str:
    """A few letters that tell contents apart."""
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[
        :12
    ]


def _shown(option: str, value: Any) -> str:
    if value is None:
        return "not given"
    # Each machine may have its folders elsewhere.
    return {"resume": "given", "topology": Path(str(value)).name}.get(option, str(value))


def _code() -> str:
    """The digest of all source files of the two packages, which need not be imported for it."""
    parts = []
    for package in ("cdjax", "experiments"):
        spec = importlib.util.find_spec(package)
        for root in map(Path, spec and spec.submodule_search_locations or ()):
            for path in sorted(root.rglob("*.py")):
                parts += [path.relative_to(root).as_posix().encode(), path.read_bytes()]
    return digest(*parts)
