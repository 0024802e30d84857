"""The clock held against this machine: processes over a loopback that ``tc`` slows down.

``python -m benchmarks.slow_link`` starts the processes of one run in a network namespace of their
own, whose loopback lets so many bits per second through (the token bucket of Linux), and measures a
step: a gradient of a known length, then mixing, as XLA:CPU does them one after the other. Loopback
is one medium that all links share, so the predicted bandwidth of each link is its share of it. It
needs Linux, ``unshare``, ``ip`` and ``tc``.
"""

from __future__ import annotations

import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

# A bucket smaller than a packet of the loopback, of 64 KiB, would let none through.
_BUCKET = "128kb"
_WORKER = "--as-process"
_ADDRESS = "127.0.0.1:{}"


@dataclass(frozen=True)
class Options:
    """Measures seconds per step of several processes over a slow loopback, and predicts them."""

    processes: int = 4
    """Processes, each with one agent, on a ring."""
    rates: tuple[str, ...] = ("40Mbit", "160Mbit")
    """Bits per second of the loopback."""
    floats: int = 250_000
    """Parameters of an agent, in float32."""
    compute_ms: float = 100.0
    """Milliseconds of every gradient."""
    steps: int = 8
    """Steps that are measured, after two that are not."""
    json: Path | None = None
    """File for the results, as JSON (default: none)."""


def main(options: Options) -> None:
    """Prints predicted and measured seconds per step for every rate."""
    from benchmarks._timing import report
    from cdjax import network, topology

    ring, rows = topology.ring(options.processes), []
    num_links = len(ring.entries.off_diagonal.receivers)
    for rate in options.rates:
        share = network.bytes_per_second(rate) / num_links
        wires = network.links(ring, bandwidth=share)
        compute, size = options.compute_ms / 1000, 4 * options.floats
        predicted = {
            name: network.seconds_per_step(order, wires, compute, size)
            for name, order in (
                ("overlapped", network.consensus()),
                ("one after the other", network.adapt_then_combine()),
            )
        }
        # Begun together, no process sends while another computes, as the prediction has it.
        for begun in ("together", "each by itself"):
            measured = _measured(options, rate, barrier=begun == "together")
            ratio = measured / predicted["one after the other"]
            rows.append(
                {"rate": rate, "begun": begun, **predicted, "measured": measured, "ratio": ratio}
            )
    report("seconds per step over a slow loopback", rows, options.json)


def _measured(options: Options, rate: str, *, barrier: bool) -> float:
    """Seconds per step, the median, as process 0 measures them."""
    needed = [name for name in ("unshare", "ip", "tc") if not shutil.which(name)]
    if needed:
        sys.exit(f"error: {', '.join(needed)} is not installed")
    slow = f"ip link set lo up && tc qdisc add dev lo root tbf rate {rate} burst {_BUCKET} "
    slow += 'latency 60s && exec "$@"'
    values = (options.processes, options.floats, options.compute_ms, options.steps, int(barrier))
    program = [sys.executable, "-m", "benchmarks.slow_link", _WORKER, *map(str, values)]
    command = ["unshare", "--map-root-user", "--net", "sh", "-c", slow, "slow", *program]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"error: {(result.stderr.strip().splitlines() or ['it ended'])[-1]}")
    return float(result.stdout.split()[-1])


def _start_processes(values: Sequence[str]) -> None:
    """Inside of the namespace: starts all processes, and prints what the first has measured."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=1"
    }  # fmt: skip
    program = [sys.executable, "-m", "benchmarks.slow_link", _WORKER, *values, port]
    children = [
        subprocess.Popen([*program, str(i)], stdout=subprocess.PIPE, text=True, env=environment)
        for i in range(int(values[0]))
    ]
    texts = [child.communicate()[0] for child in children]
    if any(child.returncode for child in children):
        sys.exit(1)
    print(texts[0])


def _be_process(values: Sequence[str]) -> None:
    """One process of the run: an agent that waits as long as a gradient takes, and mixes."""
    processes, floats, compute_ms, steps, barrier, port, process = values
    import jax
    import jax.numpy as jnp
    from jax.experimental import multihost_utils

    from cdjax import mixing, sharding, topology

    jax.distributed.initialize(_ADDRESS.format(port), int(processes), int(process))
    mesh = sharding.agent_mesh()
    mix = jax.jit(mixing.exchange(topology.ring(int(processes)), mesh))
    make = lambda agents: jnp.ones((len(agents), int(floats)))  # noqa: E731
    params = sharding.build_agents(make, int(processes), mesh=mesh)
    seconds = []
    for step in range(int(steps) + 2):
        start = time.monotonic()
        if int(barrier):
            multihost_utils.sync_global_devices(f"step {step}")
        time.sleep(float(compute_ms) / 1000)
        params = jax.block_until_ready(mix(params))
        seconds.append(time.monotonic() - start)
    print(statistics.median(seconds[2:]))


if __name__ == "__main__":
    words = sys.argv[1:]
    if words[:1] == [_WORKER]:
        (_be_process if len(words) > 6 else _start_processes)(words[1:])
    else:
        main(tyro.cli(Options))
