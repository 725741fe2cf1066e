"""The settings of the C library."""

import platform
import subprocess
import sys

import pytest

_PAGE_FAULTS = """
import resource, sys
import numpy as np
from colorize_cli.engine import process_setup

if sys.argv[1] == "prepared":
    process_setup.prepare()
def work():
    arrays = [np.ones(1 << 18, np.float32) for _ in range(8)]  # 1 MiB each
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_prepare_keeps_freed_memory_for_later_arrays():
    def faults(how: str) -> int:
        said = subprocess.run([sys.executable, "-c", _PAGE_FAULTS, how], capture_output=True, check=True)
        return int(said.stdout)

    assert faults("prepared") < faults("as it is") / 20
