import subprocess
import sys

import pytest

PROGRAM = """
import resource
import numpy as np
from experiments.launch.memory import keep_pages

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.ones(1 << 22)  # 32 MiB, 8,192 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

returned = faults()
keep_pages()
faults()
print(returned, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_pages_are_kept():
    found = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    returned, kept = map(int, found.stdout.split())
    assert returned > 1_000
    assert kept < 100
