"""Page faults of large tensors, counted by the kernel in a process of its own."""

import subprocess
import sys

import pytest

COUNT = """
import resource, torch
from unmask.training.memory import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(16):
        torch.ones(4 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
default = faults()
if keep_freed_memory():
    print(default, min(faults() for _ in range(4)))  # the heap grows a little at first
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc")
def test_a_large_tensor_reuses_the_pages_of_the_last_one():
    done = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True, check=True)
    if not done.stdout:
        pytest.skip("this C library has no mallopt")
    default, kept = map(int, done.stdout.split())
    assert kept < default / 2
