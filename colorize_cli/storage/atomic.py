"""Files that appear under their final name complete or not at all.

A file is written under a temporary name beside its destination and then renamed. The temporary name is
`.colorize-{host}-{process}-{number}{suffix}` with each part of a fixed length, so that it fits wherever the
final name may be long, and so that a later run knows which of them are left over from a run that was killed.
"""

import contextlib
import hashlib
import io
import itertools
import os
import re
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

_HOST = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
_NAME = re.compile(r"\.colorize-([0-9a-f]{8})-([0-9]{10})-[0-9]{6}\..*")
_PREFIX = re.compile(r"\.colorize-[0-9a-f]{8}-[0-9]{10}-")
_BUFFER = 1 << 17
_numbers = itertools.count()
_in_use: set[str] = set()
_unfinished: set[Path] = set()
_in_use_lock = threading.Lock()


def process_prefix() -> str:
    """What the names that this process claims begin with."""
    return f".colorize-{_HOST}-{os.getpid():010d}-"


def claim(suffix: str) -> str:
    """A name for a file of this process, by which others can tell when the process has ended."""
    name = f"{process_prefix()}{next(_numbers) % 1_000_000:06d}{suffix}"
    with _in_use_lock:
        _in_use.add(name)
    return name


def release(name: str) -> None:
    """The process no longer writes to the file of this name."""
    with _in_use_lock:
        _in_use.discard(name)


@contextlib.contextmanager
def writing(
    destination: Path,
    ready: Callable[[os.stat_result], None] = lambda _: None,
    suffix: str | None = None,
) -> Iterator[BinaryIO]:
    """A file to write to, which becomes `destination` when the block ends, and vanishes if it raises.

    Args:
        destination: Its final name.
        ready: Called with the status of the complete file, which the renaming will not change.
        suffix: Of its temporary name, if not that of the final one.
    """
    with (
        naming(destination, ready, suffix) as temporary,
        temporary.open("xb", buffering=0) as raw,
        _Writer(raw, _BUFFER) as file,
    ):
        yield file


@contextlib.contextmanager
def naming(
    destination: Path,
    ready: Callable[[os.stat_result], None] = lambda _: None,
    suffix: str | None = None,
) -> Iterator[Path]:
    """As `writing`, but gives the name of a file that is yet to be made."""
    name = claim(destination.suffix if suffix is None else suffix)
    temporary = destination.with_name(name)
    _unfinished.add(temporary)
    try:
        yield temporary
        _sync(temporary)
        ready(temporary.lstat())
        temporary.replace(destination)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        _unfinished.discard(temporary)
        release(name)


def _sync(path: Path) -> None:
    """Puts a file's content onto the disk; else a power cut may leave the final name with nothing in it."""
    file = os.open(path, os.O_RDONLY if sys.platform != "win32" else os.O_RDWR)
    try:
        os.fsync(file)
    finally:
        os.close(file)


class _Writer(io.BufferedWriter):
    """A file that does not give away its descriptor.

    Pillow's encoders would write to that themselves, and take it for done when, on a full disk, only a part
    was written.
    """

    def fileno(self) -> int:
        """There is none."""
        raise io.UnsupportedOperation("fileno")


def abandon() -> None:
    """Removes what is being written at this moment; the writing then fails."""
    for path in tuple(_unfinished):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def sweep(directory: Path, suffix: str = "") -> None:
    """Removes what runs that were killed on this host left in a directory, if there is such a directory.

    What may not be listed or removed stays; writing there will say why.

    Args:
        directory: Where to look.
        suffix: Of it, what ends so.
    """
    try:
        with os.scandir(directory) as entries:
            names = [
                entry.name for entry in entries if entry.name.endswith(suffix) and _NAME.fullmatch(entry.name)
            ]
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    for name in names:
        if is_left_over(name):
            with contextlib.suppress(PermissionError):
                (directory / name).unlink(missing_ok=True)


def remove_prefixed(directory: Path, prefix: str) -> None:
    """Removes what a process that has ended, perhaps on another host, left in a directory.

    Args:
        directory: Where to look; it need not exist.
        prefix: What `process_prefix` said there.

    Raises:
        ValueError: It says nothing of the kind.
    """
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(f"no mark of a process: {prefix!r}")
    _remove(directory, prefix)


def remove_named_after(path: Path) -> None:
    """Removes a file of a claimed name, and those beside it that are called as it is but for their suffixes.

    What may not be listed or removed stays.
    """
    if not _NAME.fullmatch(path.name):
        raise ValueError(f"no name that was claimed: {path.name!r}")
    _remove(path.parent, f"{path.stem}.")


def _remove(directory: Path, beginning: str) -> None:
    with contextlib.suppress(OSError), os.scandir(directory) as entries:  # which may be millions
        for entry in entries:
            if entry.name.startswith(beginning):
                with contextlib.suppress(OSError):
                    (directory / entry.name).unlink(missing_ok=True)


@contextlib.contextmanager
def directory(parent: Path, suffix: str, prefix: str = "") -> Iterator[Path]:
    """A new directory that its user alone can read, for as long as the block lasts.

    Those that runs of this user which were killed on this host have left there are removed.

    Args:
        parent: What it lies in.
        suffix: The end of its name.
        prefix: What its name begins with; not empty, if `sweep` may be asked to look at the parent.

    Raises:
        OSError: It cannot be made.
    """
    for path in parent.glob(f"{prefix}.colorize-*{suffix}"):
        with contextlib.suppress(OSError):
            own = not hasattr(os, "getuid") or path.lstat().st_uid == os.getuid()
            if own and not path.is_symlink() and is_left_over(path.name.removeprefix(prefix)):
                shutil.rmtree(path, ignore_errors=True)
    name = claim(suffix)
    path = parent / f"{prefix}{name}"
    path.mkdir(mode=0o700)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        release(name)


def is_left_over(name: str) -> bool:
    """Whether a file of this name was claimed by a process of this host that has ended or released it."""
    match = _NAME.fullmatch(name)
    if match is None or match[1] != _HOST:
        return False
    process = int(match[2])
    if process == os.getpid():
        with _in_use_lock:
            return name not in _in_use
    return not _is_alive(process)


def _is_alive(process: int) -> bool:
    if sys.platform == "win32":  # where os.kill would end the process; what is left over stays
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
