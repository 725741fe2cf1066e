"""A cluster that is there already, or one of this machine alone that ends with the run."""

import contextlib
import io
import logging
import os
import re
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import ray

from colorize_cli.core.errors import ColorizeError, UsageError, one_line
from colorize_cli.core.settings import available_cores
from colorize_cli.storage import atomic

# Of a cluster on this machine: it tells nobody of itself, and its workers are as important as this process.
_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
# It holds nothing but jobs and outcomes, a few at a time.
_OBJECT_STORE = 128 << 20
_SUFFIX = ".ray"
_ADDRESS = re.compile(r"[^/]+:[0-9]+")
# Seconds that the head of a cluster has to answer.
_PATIENCE = 10.0


@contextlib.contextmanager
def joined(address: str | None) -> Iterator[None]:
    """This process as a part of a cluster; if it is that already, of that one.

    Args:
        address: host:port of the cluster's head, or "auto" for the one that this machine belongs to; None to
            start one with the cores and GPUs of this machine.

    Raises:
        UsageError: There is no such cluster.
        ColorizeError: None could be started.
    """
    if ray.is_initialized():
        yield
        return
    with contextlib.ExitStack() as stack:
        begin = partial(_join, address) if address else partial(_start, stack.enter_context(_folder()))
        stack.enter_context(contextlib.redirect_stdout(_Stdout(sys.stdout)))
        stack.callback(_leave)
        with _own_signals():
            begin()
        yield


def _start(folder: Path) -> None:
    os.environ.update(_ENVIRONMENT)
    try:
        ray.init(
            "local",
            num_cpus=available_cores(),
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE,
            _temp_dir=str(folder),
            **_quiet(),
        )
    except Exception as error:
        raise ColorizeError(f"Ray does not start: {one_line(error)}") from error


def _join(address: str) -> None:
    if address != "auto" and not _ADDRESS.fullmatch(address):
        raise UsageError(f"the address of a cluster is host:port or auto, not {address}")
    try:
        if address != "auto":  # Ray itself waits long
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), _PATIENCE).close()
        ray.init(address, **_quiet())
    except Exception as error:
        raise UsageError(f"there is no cluster to be joined at {address}: {one_line(error)}") from error


def _leave() -> None:
    with contextlib.redirect_stdout(io.StringIO()):  # what Ray's threads had yet to print, it prints now
        ray.shutdown()


def _quiet() -> dict[str, Any]:
    return {"log_to_driver": False, "logging_level": logging.CRITICAL}


class _Stdout:
    """Standard output as it was, but for what Ray's threads print there of the health of nodes."""

    def __init__(self, own: Any) -> None:
        self._own = own

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def write(self, text: str) -> int:
        """As of a file."""
        if self._own is not None and not threading.current_thread().name.startswith("ray_"):
            self._own.write(text)
        return len(text)


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """SIGTERM means afterwards what it meant before, which Ray changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as error:  # what Ray made of one that came meanwhile
        raise KeyboardInterrupt from error
    finally:
        signal.signal(signal.SIGTERM, handler)


def _folder() -> contextlib.AbstractContextManager[Path]:
    """Where a cluster keeps its sockets and logs; those of runs that were killed are removed.

    The names of sockets may not be longer than about 100 bytes, of which Ray itself needs 60.
    """
    parent = Path("/tmp") if os.name == "posix" else Path(tempfile.gettempdir())  # noqa: S108
    return atomic.directory(parent, _SUFFIX)
