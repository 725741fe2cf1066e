"""Choose the batch size for a GPU by measurement, and cache it for later runs."""

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

# The batch is doubled as long as the time per picture falls below this fraction of the previous one.
_WORTHWHILE = 0.9
_MOST = 64
_RUNS = 3


def batch_size(network: Model, size: int | None, clock: Callable[[], float] = time.perf_counter) -> int:
    """Return the best batch size for a network on its device.

    On the CPU this is the network's default. On a GPU the batch is doubled from that default while throughput
    rises and memory suffices. The result is cached per network, size and GPUs.

    Args:
        network: The network; it is run only if no result is cached.
        size: Short side in pixels of the network's input; None for its working size.
        clock: Returns the time in seconds.
    """
    if network.device == "cpu":
        return network.batch_size
    side = size or network.info.working_size
    gpus = cuda.ask()
    conditions = repr((network.info, side, network.parallel, gpus and gpus.gpus))
    key = hashlib.sha256(conditions.encode()).hexdigest()[:16]
    known = _read()
    if key not in known:
        known[key] = _measured(network, side, clock)
        _write(known)
    return known[key]


def _measured(network: Model, side: int, clock: Callable[[], float]) -> int:
    multiple = network.info.multiple_of
    height, width = (max(1, round(s / multiple)) * multiple for s in (side, side * 1.5))
    best, fastest = network.batch_size, float("inf")
    count = best
    while count <= _MOST:
        copies = np.full((count, 1, height, width), 50, np.float32)
        network.predict(copies)  # warm-up for this shape
        if network.most is not None:  # memory ran out
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
    """Read the cached batch sizes. An unreadable cache counts as empty, which costs a measurement."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        known = json.loads(_file().read_text())
        return {key: value for key, value in known.items() if isinstance(value, int) and 1 <= value <= _MOST}
    return {}


def _write(known: dict[str, int]) -> None:
    with contextlib.suppress(OSError):
        _file().parent.mkdir(parents=True, exist_ok=True)
        with atomic.writing(_file()) as file:
            file.write(json.dumps(known).encode())
