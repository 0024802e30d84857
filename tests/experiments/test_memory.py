import os
import platform
import subprocess
import sys

import pytest

# Threads that hold memory at the same time, so that each would take it from an arena of its own;
# glibc's account of itself says how many arenas there are.
PROGRAM = """
import ctypes, sys, threading
from experiments.launch.memory import allocate_in_one_arena
if sys.argv[1:]:
    allocate_in_one_arena()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
barrier = threading.Barrier(8)
def allocate():
    block = libc.malloc(1000)
    barrier.wait()
    libc.free(block)
threads = [threading.Thread(target=allocate) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc.malloc_stats()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has no arenas")
@pytest.mark.parametrize(
    ("words", "chosen", "is_one"),
    [(["one"], {}, True), ([], {}, False), (["one"], {"MALLOC_ARENA_MAX": "4"}, False)],
)
def test_threads_share_one_arena_unless_the_user_has_chosen(words, chosen, is_one):
    env = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    command = [sys.executable, "-c", PROGRAM, *words]
    run = subprocess.run(command, env=env | chosen, capture_output=True, text=True, check=True)
    assert (run.stderr.count("Arena ") == 1) == is_one
