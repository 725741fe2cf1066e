"""Files that appear under their final name complete or not at all.

A file is written under a temporary name beside its destination and then renamed. The temporary name is
`.colorize-{host}-{process}-{random}-{number}{suffix}`. Each part has a fixed length, so that the name fits
even where the final name is long. The random part has 64 bits and belongs to the process, so that containers
with equal host names never share a name.

From host and process a later run knows which files are left over from a killed run. The host is a digest of
the machine's name, its boot and its namespace of processes, within which a number names one process.
Files of another host are left over if nobody has written to them for `_OLD` seconds or holds a lock on them,
which can be found out only where the file system has locks.
"""

import contextlib
import errno
import hashlib
import io
import itertools
import os
import re
import secrets
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from colorize_cli.core import interrupt

if sys.platform != "win32":
    import fcntl


def _host() -> str:
    """Return a digest of the machine, its boot and its namespace, in which process numbers are unique."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):  # on Linux only
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        parts.append(os.readlink("/proc/self/ns/pid"))  # noqa: PTH115  (not a path)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]


_HOST = _host()
_RANDOM = secrets.token_hex(8)
# Directories have no random part, and files of earlier versions had none.
_NAME = re.compile(r"\.colorize-([0-9a-f]{8})-([0-9]{10})-(?:[0-9a-f]{16}-)?[0-9]{6}\..*")
_PREFIX = re.compile(r"\.colorize-[0-9a-f]{8}-[0-9]{10}-[0-9a-f]{16}-")
_OLD = 86400.0  # seconds
# Errors of locks where a file system has none, or (EBADF, NFS) none on directories.
_NO_LOCKS = frozenset(
    {errno.EBADF, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
)
_BUFFER = 1 << 17
# Errors of fsync that say nothing about the content of the file.
_CANNOT_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EROFS})
_numbers = itertools.count()
_in_use: set[str] = set()
_unfinished: set[Path] = set()
_directories: set[Path] = set()
_in_use_lock = threading.Lock()


def process_prefix() -> str:
    """Return the prefix of all names that this process claims."""
    return f".colorize-{_HOST}-{os.getpid():010d}-{_RANDOM}-"


def claim(suffix: str, *, short: bool = False) -> str:
    """Return a new name. Other processes can tell from it if this process has ended.

    Args:
        suffix: Suffix of the name.
        short: True to leave out the random part, for directories, which are never created twice.
    """
    prefix = process_prefix().removesuffix(f"{_RANDOM}-") if short else process_prefix()
    name = f"{prefix}{next(_numbers) % 1_000_000:06d}{suffix}"
    with _in_use_lock:
        _in_use.add(name)
    return name


def release(name: str) -> None:
    """Release a claimed name, when the process no longer writes to its file."""
    with _in_use_lock:
        _in_use.discard(name)


@contextlib.contextmanager
def writing(
    destination: Path,
    ready: Callable[[os.stat_result], None] = lambda _: None,
    suffix: str | None = None,
) -> Iterator[BinaryIO]:
    """Open a file that becomes `destination` when the block ends, and is removed if the block raises.

    Args:
        destination: The final path.
        ready: Called with the status of the complete file before it is renamed. Renaming does not change the
            size and modification time.
        suffix: Suffix of the temporary name; None for the suffix of the final name.
    """
    with (
        _placed(destination, ready, suffix) as temporary,
        temporary.open("xb", buffering=0) as raw,
        _Writer(raw, _BUFFER) as file,
    ):
        yield file
        file.flush()
        sync(raw.fileno())


@contextlib.contextmanager
def naming(
    destination: Path,
    ready: Callable[[os.stat_result], None] = lambda _: None,
    suffix: str | None = None,
) -> Iterator[Path]:
    """Like `writing`, but yield the temporary path, at which the caller creates the file."""
    with _placed(destination, ready, suffix) as temporary:
        yield temporary
        file = os.open(temporary, os.O_RDWR)  # SMB and Windows do not flush what is open for reading only
        try:
            sync(file)
        finally:
            os.close(file)


@contextlib.contextmanager
def _placed(destination: Path, ready: Callable[[os.stat_result], None], suffix: str | None) -> Iterator[Path]:
    """Yield a temporary path, whose file gets its final name when the block ends."""
    name = claim(destination.suffix if suffix is None else suffix)
    temporary = destination.with_name(name)
    _unfinished.add(temporary)
    try:
        yield temporary
        ready(temporary.lstat())
        temporary.replace(destination)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        _unfinished.discard(temporary)
        release(name)


@contextlib.contextmanager
def passing(path: Path) -> Iterator[None]:
    """Have the file at a path removed if the process is interrupted while the block runs."""
    _unfinished.add(path)
    try:
        yield
    finally:
        _unfinished.discard(path)


def sync(file: int) -> None:
    """Flush a file, open for writing, to the disk, so that a power cut cannot leave it empty or short.

    Some file systems cannot do that, shares on a network for example. They are trusted to write the file.

    Raises:
        OSError: The disk reports an error.
    """
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise


class _Writer(io.BufferedWriter):
    """A buffered writer that hides its file descriptor.

    Pillow's encoders would write to the descriptor directly, and would take a partial write on a full disk
    for a complete one.
    """

    def fileno(self) -> int:
        """Raise UnsupportedOperation."""
        raise io.UnsupportedOperation("fileno")


def abandon() -> None:
    """Remove all files that are being written at this moment. Writing them then fails."""
    for path in tuple(_unfinished):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _abandon_all() -> None:
    abandon()
    for path in tuple(_directories):
        shutil.rmtree(path, ignore_errors=True)


interrupt.cleanups.append(_abandon_all)


def sweep(directory: Path, suffix: str = "") -> None:
    """Remove the files that killed runs left in a directory.

    Files that cannot be listed or removed stay. Writing there will report the reason.

    Args:
        directory: Directory to clean; it need not exist.
        suffix: Remove only files whose names end with it.
    """
    try:
        with os.scandir(directory) as entries:
            names = [
                entry.name for entry in entries if entry.name.endswith(suffix) and _NAME.fullmatch(entry.name)
            ]
    except OSError:
        return
    for name in names:
        if is_dead(directory / name):
            with contextlib.suppress(OSError):
                (directory / name).unlink(missing_ok=True)


def remove_prefixed(directory: Path, prefix: str) -> None:
    """Remove the files that an ended process, perhaps on another host, left in a directory.

    Args:
        directory: Directory to clean; it need not exist.
        prefix: Return value of `process_prefix` in that process.

    Raises:
        ValueError: `prefix` is not such a value.
    """
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(f"not the prefix of a process: {prefix!r}")
    _remove(directory, prefix)


def remove_named_after(path: Path) -> None:
    """Remove a file with a claimed name, and the files beside it that differ only in their suffixes.

    Files that cannot be listed or removed stay.

    Raises:
        ValueError: The name has not the form of a claimed name.
    """
    if not _NAME.fullmatch(path.name):
        raise ValueError(f"not a claimed name: {path.name!r}")
    _remove(path.parent, f"{path.stem}.")


def _remove(directory: Path, beginning: str) -> None:
    with contextlib.suppress(OSError), os.scandir(directory) as entries:  # there may be millions of files
        for entry in entries:
            if entry.name.startswith(beginning):
                with contextlib.suppress(OSError):
                    (directory / entry.name).unlink(missing_ok=True)


@contextlib.contextmanager
def directory(parent: Path, suffix: str, prefix: str = "") -> Iterator[Path]:
    """Create a directory that only its user can read, and remove it when the block ends.

    First removes the directories that killed runs of this user left in `parent`.

    Args:
        parent: Existing directory in which to create the new one.
        suffix: Suffix of the new name.
        prefix: Prefix of the new name. It must not be empty if `sweep` may be called for `parent`.

    Raises:
        OSError: The directory cannot be created.
    """
    for path in parent.glob(f"{prefix}.colorize-*{suffix}"):
        with contextlib.suppress(OSError):
            owned = not hasattr(os, "getuid") or path.lstat().st_uid == os.getuid()
            if owned and not path.is_symlink() and is_dead(path, path.name.removeprefix(prefix)):
                shutil.rmtree(path, ignore_errors=True)
    name = claim(suffix, short=True)
    path = parent / f"{prefix}{name}"
    path.mkdir(mode=0o700)
    _directories.add(path)
    try:
        with _locked(path):
            yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        _directories.discard(path)
        release(name)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[bool | None]:
    """Lock a file or directory for the block; yields the return value of `lock`."""
    if sys.platform == "win32":
        yield None
        return
    mode = os.O_RDONLY if path.is_dir() else os.O_RDWR  # NFS locks only files that may be written
    file = os.open(path, mode | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        yield lock(file)
    finally:
        os.close(file)


def lock(file: int) -> bool | None:
    """Lock an open file, against processes on all hosts, until it is closed or this process ends.

    Returns:
        False if another has the lock. None if the file system has no locks.

    Raises:
        OSError: The disk reports an error.
    """
    if sys.platform == "win32":
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return None
    return True


def is_dead(path: Path, name: str | None = None) -> bool:
    """Return True if a file or directory with a claimed name is surely left over from a process that ended.

    Args:
        path: The file or directory.
        name: The claimed name, if the last part of `path` has more.
    """
    name = name or path.name
    if not _NAME.fullmatch(name):
        return False
    if name.startswith(f".colorize-{_HOST}-"):
        return is_left_over(name)
    with contextlib.suppress(OSError), _locked(path) as locked:
        return locked is True and time.time() - path.lstat().st_mtime > _OLD
    return False


def is_left_over(name: str) -> bool:
    """Return True if a process of this host claimed the name, and has ended or released the name."""
    match = _NAME.fullmatch(name)
    if match is None or match[1] != _HOST:
        return False
    process = int(match[2])
    if process == os.getpid():
        with _in_use_lock:
            return name not in _in_use
    return not _is_alive(process)


def _is_alive(process: int) -> bool:
    if sys.platform == "win32":  # os.kill would end the process here, so left-over files stay
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
