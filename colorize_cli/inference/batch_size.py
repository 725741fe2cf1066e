"""How many pictures a GPU is given at once: found by trial, and remembered for the next run."""

import contextlib
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import platformdirs

from colorize_cli.color.lab import Floats
from colorize_cli.inference import cuda
from colorize_cli.inference.model import Model
from colorize_cli.storage import atomic

# More are tried while each picture takes less than this part of the time that it took before.
_WORTHWHILE = 0.9
_MOST = 64
_RUNS = 3


def batch_size(network: Model, size: int | None, clock: Callable[[], float] = time.perf_counter) -> int:
    """Of how many pictures one call of the network is to be.

    On a GPU the batch is doubled, from what suits the CPU on, while that pays and memory suffices.

    Args:
        network: Which is run for it, unless it has been before on such GPUs.
        size: Short side in pixels of the copies that it will see; None for its own.
        clock: Seconds.
    """
    if network.device == "cpu":
        return network.batch_size
    side = size or network.info.working_size
    gpus = cuda.ask()
    about = repr((network.info, side, network.parallel, gpus and gpus.gpus))
    key = hashlib.sha256(about.encode()).hexdigest()[:16]
    known = _read()
    if key not in known:
        known[key] = _tried(network, side, clock)
        _write(known)
    return known[key]


def _tried(network: Model, side: int, clock: Callable[[], float]) -> int:
    multiple = network.info.multiple_of
    height, width = (max(1, round(s / multiple)) * multiple for s in (side, side * 1.5))
    best, fastest = network.batch_size, float("inf")
    count = best
    while count <= _MOST:
        copies = np.full((count, 1, height, width), 50, np.float32)
        network.predict(copies)  # the first of a shape prepares it
        if network.most is not None:  # memory did not suffice
            break
        seconds = min(_timed(network, copies, clock) for _ in range(_RUNS)) / count
        if seconds > _WORTHWHILE * fastest:
            break
        best, fastest, count = count, seconds, 2 * count
    return best


def _timed(network: Model, copies: Floats, clock: Callable[[], float]) -> float:
    begun = clock()
    network.predict(copies)
    return clock() - begun


def _file() -> Path:
    return platformdirs.user_cache_path("colorize", appauthor=False) / "batches.json"


def _read() -> dict[str, int]:
    """What was found before; nothing where that cannot be read, which costs a trial."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        known = json.loads(_file().read_text())
        return {key: value for key, value in known.items() if isinstance(value, int) and 1 <= value <= _MOST}
    return {}


def _write(known: dict[str, int]) -> None:
    with contextlib.suppress(OSError):
        _file().parent.mkdir(parents=True, exist_ok=True)
        with atomic.writing(_file()) as file:
            file.write(json.dumps(known).encode())
