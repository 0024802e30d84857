"""Workers, eight virtual CPU devices, strict JAX settings, and runtime shape checks of cdjax.

With JAX_PLATFORMS set, to an empty value for JAX's own choice, tests run elsewhere than on the CPU:
``JAX_PLATFORMS= python -m pytest -m accelerator -n 0``.
"""

import argparse
import collections
import gc
import importlib.util
import os
import resource
import signal
import zlib
from pathlib import Path

import pytest

from tests.system.forked import start_server, xla_flags

server = pytest.fixture(scope="session")(start_server)

if os.environ.setdefault("JAX_PLATFORMS", "cpu") == "cpu":
    # What XLA_FLAGS says comes later, and wins.
    os.environ["XLA_FLAGS"] = f"{xla_flags(devices=8)} {os.environ.get('XLA_FLAGS', '')}"

_BYTES_PER_WORKER = 2 << 30
_LARGE_KB = 3 << 19  # of a worker, past which it lets go of compiled programs


def pytest_xdist_auto_num_workers():
    """As many workers as cores and free memory allow."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min([cores, *(free // _BYTES_PER_WORKER for free in _free_bytes())]))


def _free_bytes():
    """What Linux says is free in the machine, and in the container if there is one."""
    meminfo, cgroup = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
    if meminfo.exists():
        words = meminfo.read_text().split()
        yield 1024 * int(words[words.index("MemAvailable:") + 1])
    limit = cgroup / "memory.max"
    if limit.exists() and limit.read_text().strip() != "max":
        yield int(limit.read_text()) - int((cgroup / "memory.current").read_text())


def pytest_addoption(parser):
    """Adds ``--part K/N``."""
    parser.addoption(
        "--part",
        type=_part,
        metavar="K/N",
        help="run the K-th of N parts of the tests",
    )


def _part(text):
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is not K/N with 1 <= K <= N, such as 1/3")
    return int(number), int(count)


def pytest_configure(config):
    """Prepares a process that runs tests; the one that only hands them out needs no JAX."""
    if config.getoption("numprocesses", None):
        return

    # A shell starts what it puts into the background with interrupts ignored, and nohup what it
    # starts with SIGHUP. The runs that tests interrupt would inherit that, and wait for ever.
    for number, handler in {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGHUP: signal.SIG_DFL,
    }.items():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)

    # Traces are many small objects; looking for cycles among them takes 8 % of the time.
    gc.set_threshold(100_000, 20, 100)

    import jax

    if importlib.util.find_spec("beartype"):  # a machine with an accelerator may lack it
        from jaxtyping import install_import_hook

        import tests.typechecker  # noqa: F401

        with install_import_hook("cdjax", "tests.typechecker.typechecker"):
            import cdjax.checkpoint
            import cdjax.models  # noqa: F401

    jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Marks as slow what ``sampled`` leaves out: cases of a test, or fast tests of a whole file.

    It counts from the last one back. Then it leaves the tests of ``--part``.
    """
    numbers = collections.Counter()
    for item in reversed(items):
        for node, marker in item.iter_markers_with_node("sampled"):  # the test's own comes first
            if item.get_closest_marker("slow"):
                break
            group = item.nodeid.partition("[")[0] if node is item else node.nodeid
            if numbers[group] % marker.args[0]:
                item.add_marker(pytest.mark.slow)
            numbers[group] += 1
    if config.option.part:
        number, count = config.option.part
        parts = [zlib.crc32(item.nodeid.encode()) % count + 1 for item in items]
        left_out = [item for item, part in zip(items, parts, strict=True) if part != number]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item, part in zip(items, parts, strict=True) if part == number]


def pytest_report_header(config):
    """Says on which device the tests of accelerators run."""
    if config.getoption("markexpr") == "accelerator" and not config.getoption("numprocesses", None):
        import jax

        return f"jax {jax.__version__} on {jax.devices()[0].device_kind}"


@pytest.fixture(scope="session", autouse=True)
def compiled_programs(tmp_path_factory):
    """Keeps compiled programs for the other tests of this worker, and for the runs they start."""
    import jax

    caches = tmp_path_factory.getbasetemp() / "caches"
    os.environ["XDG_CACHE_HOME"] = str(caches)
    jax.config.update("jax_compilation_cache_dir", str(caches / "cdjax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@pytest.fixture(scope="module", autouse=True)
def few_programs():
    """Lets go of a file's programs where they take much memory: JAX keeps all that it compiles."""
    yield
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > _LARGE_KB:
        import jax

        jax.clear_caches()


@pytest.fixture
def x64():
    """Float64 for the tests of mathematics."""
    import jax

    with jax.enable_x64(True):
        yield
