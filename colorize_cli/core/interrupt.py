"""Ctrl-C and SIGTERM: the process of a command ends with status 130 within two seconds, whatever it does.

Before there is work to finish, and at a second signal, it ends at once. Within `graceful`, KeyboardInterrupt
is raised, so that the run can sum up. If a call of a native library or of a store delays that, a thread ends
the process. A command never ends as Python does, which waits for some threads and breaks native calls of
others.

Only `__main__` installs this. A program that imports this package keeps its handlers.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

from colorize_cli.core.errors import EXIT_FAILED, EXIT_INTERRUPTED

PATIENCE = 1.7  # seconds from a signal to the end of the process
_LATE = b"colorize: interrupted: did not wait for what was running\n"
# Called before a process ends in the middle of its work.
cleanups: list[Callable[[], None]] = []


class _State:
    """The state of this process.

    Attributes:
        patience: Seconds to wait after a signal; 0 to end at once.
        interrupted: True if KeyboardInterrupt was raised.
    """

    patience = 0.0
    interrupted = False


def install() -> None:
    """End the process at SIGTERM and, unless the parent process has it ignored, at SIGINT."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)


@contextlib.contextmanager
def graceful(patience: float = PATIENCE) -> Iterator[None]:
    """Raise KeyboardInterrupt in the block at a signal, and end the process `patience` seconds later."""
    _State.patience = patience
    yield  # after the block too, the first signal has counted or the process is about to end
    _State.patience = 0.0


def happened() -> bool:
    """Return True if KeyboardInterrupt was raised. Native modules turn it into other errors."""
    return _State.interrupted


def leave(status: object) -> NoReturn:
    """End the process with a status as of SystemExit, without waiting for threads.

    After an interrupt the status is that of interrupts.

    Raises:
        SystemExit: The status is a message.
    """
    if isinstance(status, str) and not _State.interrupted:
        raise SystemExit(status)
    code = int(status) if isinstance(status, int) else 0
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except Exception:  # a stream may raise errors of its class
            code = code or EXIT_FAILED
    os._exit(EXIT_INTERRUPTED if _State.interrupted else code)


def _interrupt(_: int, __: FrameType | None) -> None:
    patience, _State.patience = _State.patience, 0.0
    if not patience:
        _end()
    _State.interrupted = True
    threading.Thread(target=_end, args=(patience,), name="interrupt", daemon=True).start()
    raise KeyboardInterrupt


def _end(after: float = 0.0) -> None:
    """End the process in the middle of its work."""
    time.sleep(after)
    for clean in cleanups:
        with contextlib.suppress(Exception):  # nothing may keep the process alive
            clean()
    if after:
        with contextlib.suppress(OSError):
            os.write(2, _LATE)
    os._exit(EXIT_INTERRUPTED)
