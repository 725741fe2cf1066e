"""Connection to a Ray cluster: an existing one, or one of this machine alone that ends with the run."""

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

# For a cluster of this machine: no telemetry, and workers with the priority of this process.
_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
# Bytes. The store holds only jobs and outcomes, a few at a time.
_OBJECT_STORE = 128 << 20
_SUFFIX = ".ray"
_ADDRESS = re.compile(r"[^/]+:[0-9]+")
# Seconds to wait for an answer of the cluster's head.
_PATIENCE = 10.0


@contextlib.contextmanager
def joined(address: str | None) -> Iterator[None]:
    """Connect this process to a cluster as long as the block lasts. An existing connection is used and kept.

    Args:
        address: host:port of the cluster's head, or "auto" for the cluster that this machine belongs to; None
            to start a cluster with the cores and GPUs of this machine.

    Raises:
        UsageError: There is no cluster at `address`.
        ColorizeError: A cluster could not be started.
    """
    if ray.is_initialized():
        yield
        return
    with contextlib.ExitStack() as stack:
        connect = partial(_join, address) if address else partial(_start, stack.enter_context(_folder()))
        stack.enter_context(contextlib.redirect_stdout(_Stdout(sys.stdout)))
        stack.callback(_leave)
        with _kept_signals():
            connect()
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
        raise ColorizeError(f"Ray cannot be started; try --engine local: {one_line(error)}") from error


def _join(address: str) -> None:
    if address != "auto" and not _ADDRESS.fullmatch(address):
        raise UsageError(f"the address of a cluster must be host:port or auto, not {address}")
    try:
        if address != "auto":  # Ray's timeout is long
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), _PATIENCE).close()
        ray.init(address, **_quiet())
    except Exception as error:
        raise UsageError(
            f"cannot connect to a cluster at {address}; check --address and that the cluster runs:"
            f" {one_line(error)}"
        ) from error


def _leave() -> None:
    with contextlib.redirect_stdout(io.StringIO()):  # Ray prints the pending lines of its threads now
        ray.shutdown()


def _quiet() -> dict[str, Any]:
    return {"log_to_driver": False, "logging_level": logging.CRITICAL}


class _Stdout:
    """Standard output without the lines that Ray's threads print about the health of nodes."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text unless the caller is a thread of Ray. Returns its length in both cases."""
        if self._stream is not None and not threading.current_thread().name.startswith("ray_"):
            self._stream.write(text)
        return len(text)


@contextlib.contextmanager
def _kept_signals() -> Iterator[None]:
    """Restore the handler of SIGTERM, which Ray replaces, after the block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as error:  # raised by Ray's handler if a SIGTERM arrived within the block
        raise KeyboardInterrupt from error
    finally:
        signal.signal(signal.SIGTERM, handler)


def _folder() -> contextlib.AbstractContextManager[Path]:
    """Create a directory for a cluster's sockets and logs. Removes the directories of killed runs.

    Its path must be short: the path of a socket is limited to about 100 bytes, and Ray needs 60 of them.
    """
    parent = Path("/tmp") if os.name == "posix" else Path(tempfile.gettempdir())  # noqa: S108
    return atomic.directory(parent, _SUFFIX)
