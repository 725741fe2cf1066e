"""Files of this machine and of remote stores, behind one interface: `Storages.of` returns that of a location.

Stores need fsspec, which is imported with `remote` at the first URL. Fingerprints detect changes of a file.
"""

import contextlib
import errno
import glob
import hashlib
import io
import os
import secrets
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from colorize_cli.core.jobs import FileInfo
from colorize_cli.core.location import STREAM, Location

if TYPE_CHECKING:
    from colorize_cli.storage.remote import RemoteStorage

NOT_THERE = "there is no such object"
_SPECIAL = "it is neither a file nor a directory, but a pipe or a device; pipe its content into - instead"
DOT_PARTS = frozenset({".", ".."})  # parts of an object's name that are not hidden, but lead elsewhere
DIRECTORY = ".colorize"  # holds the manifest, below the output directory
MANIFEST_SUFFIX = ".jsonl"
# Of the records of outputs that a user named one by one. The directory may hold inputs too.
SINGLE_SUFFIX = ".single"
# Names that systems give to their own files and directories, in lower case. Most others are hidden.
_OF_SYSTEMS = frozenset({"@eadir", "desktop.ini", "thumbs.db"})
_DIGITS = 32  # hexadecimal digits of a digest that are recorded


@dataclass(frozen=True)
class Fingerprint:
    """Properties of a file or object that change when it is written to.

    Attributes:
        size: Size in bytes.
        mtime_ns: Modification time of a file in nanoseconds; 0 for an object in a store.
        version: Version of an object, in whatever form the store gives it; empty for a file.
    """

    size: int
    mtime_ns: int = 0
    version: str = ""

    @staticmethod
    def of(status: os.stat_result | FileInfo) -> "Fingerprint":
        """Return the fingerprint of a file or object. Without a version it is unlike any other."""
        if not isinstance(status, FileInfo):
            return Fingerprint(status.st_size, status.st_mtime_ns)
        version = status.version or f"unknown {secrets.token_hex(8)}"
        return Fingerprint(-1 if status.size is None else status.size, 0, version)


@dataclass(frozen=True)
class SourceFingerprint:
    """Fingerprint and content digest of a source as it was read.

    Attributes:
        stamp: Size and time, or size and version.
        content: First 32 hexadecimal digits of the content's SHA-256.
    """

    stamp: Fingerprint
    content: str

    @staticmethod
    def from_values(values: dict[str, Any]) -> "SourceFingerprint":
        """Invert `asdict`, for values that were read from JSON.

        Raises:
            KeyError, TypeError: The values are not those of a SourceFingerprint.
        """
        return SourceFingerprint(Fingerprint(**values["stamp"]), str(values["content"]))

    @staticmethod
    def of(path: Path) -> "SourceFingerprint":
        """Read a file and return its fingerprint.

        Raises:
            OSError: The file cannot be read.
        """
        with open_regular(path) as file:
            fingerprint = Fingerprint.of(os.fstat(file.fileno()))
            return SourceFingerprint(fingerprint, hashlib.file_digest(file, "sha256").hexdigest()[:_DIGITS])


# Stands for a source that could not be read to its end. It counts as changed, so the next run tries it again.
DAMAGED = SourceFingerprint(Fingerprint(0), "damaged")


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or directory that exists.

    Attributes:
        location: Its location.
        name: Path below the searched directory, with / between its parts; its file name if it was not
            searched for.
        is_directory: True for a directory.
        info: The store's metadata; None on this machine.
        error: Why a directory cannot be searched, or a file cannot be used; otherwise None.
        hints: Location of the file with hints beside a file; None if there is none.
    """

    location: Location
    name: str
    is_directory: bool
    info: FileInfo | None = None
    error: str | None = None
    hints: Location | None = None


class Storage(Protocol):
    """Files of this machine, or of all remote stores."""

    def entry(self, location: Any) -> Entry | None:
        """Return the file or directory at a location; None if nothing is there.

        Raises:
            ReadError: The store cannot be queried.
        """

    def glob(self, pattern: Any) -> list[Entry]:
        """Return what matches a pattern, sorted; nothing if it is not a pattern.

        A directory that it leads to, but that cannot be searched, is returned too, with the error.

        Raises:
            ReadError: The store cannot be queried.
        """

    def walk(self, directory: Any, output: Any, excludes: Callable[[str], bool]) -> Iterator[Entry]:
        """Yield the files below a directory, sorted by path, without those that `is_hidden`.

        A pipe or device is yielded with an error. A directory that is reached by several paths is searched
        once.

        A directory below it that cannot be searched is yielded too, with the error. So is one that holds a
        manifest, and thus the outputs of an earlier run, in place of its files.

        Args:
            directory: The directory.
            output: Directory to leave out; None if it is elsewhere.
            excludes: True for paths below `directory`, of files or directories, to leave out.

        Raises:
            ReadError: The store cannot be queried.
            OSError: The directory itself cannot be searched.
        """

    def identity(self, location: Any) -> str:
        """Return a text that is equal for locations of the same file, and for no others of any storage."""

    def may_fold(self, location: Any) -> bool:
        """Return True unless names there that differ, in case for example, are surely of different files."""

    def nearest(self, directory: Any) -> Any:
        """Return the directory if it exists, otherwise the nearest one above that does.

        Raises:
            ReadError: The store cannot be queried.
        """

    def read(self, location: Any, size: int | None = None) -> bytes:
        """Return the first `size` bytes of a file, or all.

        Raises:
            OSError, ReadError: It cannot be read.
        """

    def write(self, location: Any, content: bytes) -> None:
        """Write a small file.

        Raises:
            OSError, WriteError: It cannot be written.
        """

    def remove(self, locations: Iterable[Any]) -> None:
        """Remove files. Those that do not exist are ignored.

        Raises:
            OSError, ReadError: A file cannot be removed.
        """


class Storages:
    """The storage of each location of a run."""

    def __init__(self, remote: "RemoteStorage | None" = None) -> None:
        """Use `remote` for URLs, or make one at the first."""
        self._local, self._remote = LocalStorage(), remote
        self._lock = threading.Lock()

    @property
    def remote(self) -> "RemoteStorage":
        """The stores. May be used from several threads."""
        with self._lock:
            if self._remote is None:
                from colorize_cli.storage.remote import RemoteStorage

                self._remote = RemoteStorage()
            return self._remote

    def of(self, location: Location) -> Storage:
        """Return the storage of a location."""
        return self._local if isinstance(location, Path) else self.remote


class LocalStorage:
    """The files of this machine."""

    def __init__(self) -> None:
        """Resolve links in directories once per directory."""
        self._directories: dict[str, str] = {}

    def entry(self, location: Path) -> Entry | None:
        """Return the file or directory at a path. A broken link is a file."""
        if location == STREAM or location.exists() or location.is_symlink():
            is_directory = location != STREAM and location.is_dir()
            error = None if location == STREAM or is_directory else _refusal(location)
            return Entry(location, location.name, is_directory, error=error)
        return None

    def glob(self, pattern: Path) -> list[Entry]:
        """Return what matches a pattern, sorted, and the directories on its way that cannot be searched.

        Python's `glob` passes over these in silence.
        """
        if not glob.has_magic(str(pattern)):
            return []
        found = {path: entry for path in _matches(pattern) if (entry := self.entry(path)) is not None}
        directories = [path for path, entry in found.items() if entry.is_directory]
        parts = pattern.parts[pattern.is_absolute() :]
        for above, part in zip(reversed(pattern.parents), parts, strict=True):
            if glob.has_magic(part):
                directories += _matches(above, directories=True)
        for directory in directories:
            try:
                with os.scandir(directory):
                    pass
            except OSError as error:
                problem = f"cannot search it: {error.strerror}"
                found[directory] = Entry(directory, directory.name, is_directory=True, error=problem)
        return [found[path] for path in sorted(found)]

    def walk(self, directory: Path, output: Path | None, excludes: Callable[[str], bool]) -> Iterator[Entry]:
        """Yield the files below a directory. Follows links to directories that are not searched already."""
        seen = {inode(directory), None if output is None else inode(output)}
        found: list[Entry] = []
        directories, links = [""], deque[str]()
        while directories or links:
            # Links come last, so that files keep their real paths.
            relative = directories.pop() if directories else links.popleft()
            if relative and (number := inode(directory / relative)) is not None:
                if number in seen:
                    continue
                seen.add(number)
            try:
                with os.scandir(directory / relative) as entries:
                    listed = sorted(entries, key=lambda entry: entry.name)
            except OSError as error:
                if not relative:
                    raise
                problem = f"cannot search it: {error.strerror}"
                found.append(Entry(directory / relative, relative, is_directory=True, error=problem))
                continue
            if relative and any(each.name == DIRECTORY and holds_manifest(each.path) for each in listed):
                found.append(Entry(directory / relative, relative, is_directory=True))
                continue
            for each in listed:
                below = f"{relative}/{each.name}" if relative else each.name
                if is_hidden(each.name) or excludes(below):
                    continue
                is_directory = is_file = False
                with contextlib.suppress(OSError):  # a link that leads to itself will fail as a separate job
                    is_directory, is_file = each.is_dir(), each.is_file()
                if is_directory:
                    (links if each.is_symlink() else directories).append(below)
                else:
                    path = directory / below
                    error_of_file = None if is_file else _refusal(path)
                    found.append(Entry(path, below, is_directory=False, error=error_of_file))
        yield from sorted(found, key=lambda entry: entry.name.split("/"))

    def identity(self, location: Path) -> str:
        """Return the path with the links in its directory resolved."""
        parent, name = os.path.split(location)
        if parent not in self._directories:
            self._directories[parent] = os.path.realpath(parent)
        return os.path.normcase(f"{self._directories[parent]}{os.sep}{name}")

    def may_fold(self, location: Path) -> bool:  # noqa: ARG002
        """Return True: file systems and their directories differ in that."""
        return True

    def nearest(self, directory: Path) -> Path:
        """Return the directory if it exists, otherwise the nearest one above that does."""
        return next((path for path in (directory, *directory.parents) if path.is_dir()), Path())

    def read(self, location: Path, size: int | None = None) -> bytes:
        """Return the first `size` bytes of a file, or all."""
        with location.open("rb") as file:
            return file.read(-1 if size is None else size)

    def write(self, location: Path, content: bytes) -> None:
        """Write a small file."""
        location.write_bytes(content)

    def remove(self, locations: Iterable[Path]) -> None:
        """Remove files. Those that do not exist are ignored."""
        for path in locations:
            path.unlink(missing_ok=True)


def _matches(pattern: Path, *, directories: bool = False) -> list[Path]:
    """Return what matches a pattern, or the directories that do. A ** at its end stands for these only."""
    first, *others = _split(pattern.parts)
    found = glob.glob(first) if glob.has_magic(first) else [first]  # noqa: PTH207
    for other in others:  # each follows a **, which stands for all directories below
        tops = [glob.escape(str(path)) for top in found for path in _directories(Path(top))]
        found = [path for top in tops for path in glob.glob(os.path.join(top, other))]  # noqa: PTH118, PTH207
    paths = sorted(set(map(Path, found)))
    if directories and pattern.name == "**":
        return [path for top in paths for path in _directories(top)]
    return [path for path in paths if path.is_dir()] if directories else paths


def _split(parts: Sequence[str]) -> list[str]:
    """Return the patterns between the parts ** of a pattern. A ** at the end adds nothing and is left out."""
    groups: list[list[str]] = [[]]
    for part in parts:
        if part == "**":
            groups.append([])
        else:
            groups[-1].append(part)
    return [str(Path(*group)) for number, group in enumerate(groups) if group or not number]


def _directories(top: Path) -> Iterator[Path]:
    """Yield a directory and those below it, each real directory once, without hidden ones."""
    seen: set[tuple[int, int] | None] = set()
    waiting = deque([top])
    while waiting:
        path = waiting.popleft()
        if (number := inode(path)) is not None and number in seen:
            continue
        seen.add(number)
        yield path
        with contextlib.suppress(OSError), os.scandir(path) as entries:
            for each in sorted(entries, key=lambda entry: (entry.is_symlink(), entry.name)):
                with contextlib.suppress(OSError):  # a link that leads to itself
                    if not each.name.startswith(".") and each.is_dir():
                        waiting.append(path / each.name)


def open_regular(path: Path) -> io.BufferedReader:
    """Open a regular file for reading. Does not wait for the writer of a pipe.

    Raises:
        OSError: The file cannot be opened, or is a pipe or a device.
    """
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(errno.EINVAL, "not a regular file but a directory, a pipe or a device", str(path))
    return open(number, "rb")  # noqa: PTH123  (a descriptor; the caller closes it)


def _refusal(path: Path) -> str | None:
    """Return why a path cannot be opened as a file; None if it can, or if nothing is there."""
    with contextlib.suppress(OSError):
        if not stat.S_ISREG(path.stat().st_mode):
            return _SPECIAL
    return None


def is_hidden(name: str) -> bool:
    """Return True for the names of files and directories that are not searched for pictures."""
    return name.startswith(".") or name.lower() in _OF_SYSTEMS


def holds_manifest(directory: Path | str) -> bool:
    """Return True if a directory has the records of a run on the directory above it."""
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        return any(entry.name.endswith(MANIFEST_SUFFIX) for entry in entries)
    return False


def inode(path: Path) -> tuple[int, int] | None:
    """Return the device and inode numbers of a path; None if nothing can be found there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
