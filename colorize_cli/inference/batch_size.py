"""Choose the batch size for a GPU by measurement, and cache it for later runs."""

import contextlib
import hashlib
import json
import time
from collections.abc import Callable

import numpy as np
import platformdirs

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
    file = platformdirs.user_cache_path("colorize", appauthor=False) / "batches.json"
    known: dict[str, int] = {}
    with contextlib.suppress(OSError, ValueError, AttributeError):  # an unreadable cache counts as empty
        cached = json.loads(file.read_text()).items()
        known = {name: count for name, count in cached if isinstance(count, int) and 1 <= count <= _MOST}
    if key not in known:
        known[key] = _measured(network, side, clock)
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic.writing(file) as written:
                written.write(json.dumps(known).encode())
    return known[key]


def _measured(network: Model, side: int, clock: Callable[[], float]) -> int:
    multiple = network.info.multiple_of
    height, width = (max(1, round(s / multiple)) * multiple for s in (side, side * 1.5))
    best, fastest = network.batch_size, float("inf")
    count = best
    while count <= _MOST:
        copies = np.full((count, 1, height, width), 50, np.float32)
        network.predict(copies)  # warm-up for this shape
        if network.batch_limit is not None:  # memory ran out
            break
        times = []
        for _ in range(_RUNS):
            begun = clock()
            network.predict(copies)
            times.append(clock() - begun)
        seconds = min(times) / count
        if seconds > _WORTHWHILE * fastest:
            break
        best, fastest, count = count, seconds, 2 * count
    return best
