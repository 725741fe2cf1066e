"""Runs of the command in a child process, with their peak memory."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass

# A child's peak memory begins with that of the process that starts it, so this small one is between.
_STARTER = """
import json, os, subprocess, sys
process = subprocess.Popen(sys.argv[2:])
_, status, usage = os.wait4(process.pid, 0)
with open(int(sys.argv[1]), "w") as result:
    json.dump([os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024], result)
"""
HANG = 124


@dataclass(frozen=True)
class Ended:
    """How a child ended: exit code or `HANG`, peak resident memory in bytes, and the texts that it wrote."""

    code: int
    memory: int
    out: str
    err: str


def measured(*arguments: object, seconds: float = 60) -> Ended:
    """Run `colorize` on the CPU, and kill it after some seconds."""
    line = [sys.executable, "-m", "colorize_cli", "--device", "cpu", *map(str, arguments)]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as result:
        number = result.fileno()
        process = subprocess.Popen(
            [sys.executable, "-S", "-c", _STARTER, str(number), *line],
            stdout=out,
            stderr=err,
            pass_fds=[number],
            start_new_session=True,
        )
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
        texts = []
        for file in (out, err, result):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    code, memory = json.loads(texts[2]) if texts[2] else (HANG, 0)
    return Ended(code, memory, *texts[:2])
