"""Files of this machine and of remote stores, behind one interface: `Storages.of` returns that of a location.

Stores need fsspec, which is imported with `remote` at the first URL. Fingerprints detect changes of a file.
"""

import contextlib
import glob
import hashlib
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from colorize_cli.core.jobs import FileInfo
from colorize_cli.core.location import STREAM, Location

if TYPE_CHECKING:
    from colorize_cli.storage.remote import RemoteStorage

NOT_THERE = "there is no such object"
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
    def of(stat: os.stat_result | FileInfo) -> "Fingerprint":
        """Return the fingerprint of a file or object. Without a version it is unlike any other."""
        if not isinstance(stat, FileInfo):
            return Fingerprint(stat.st_size, stat.st_mtime_ns)
        version = stat.version or f"unknown {secrets.token_hex(8)}"
        return Fingerprint(-1 if stat.size is None else stat.size, 0, version)


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
        with path.open("rb") as file:
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
        error: Why a directory cannot be searched, or a listed file cannot be used; otherwise None.
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

    @property
    def remote(self) -> "RemoteStorage":
        """The stores."""
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
            return Entry(location, location.name, location != STREAM and location.is_dir())
        return None

    def glob(self, pattern: Path) -> list[Entry]:
        """Return what matches a pattern, sorted, and the directories on its way that cannot be searched.

        Python's `glob` passes over these in silence.
        """
        text = str(pattern)
        if not glob.has_magic(text):
            return []
        found = {path: Entry(path, path.name, path.is_dir()) for path in _matches(text)}
        directories = [path for path, entry in found.items() if entry.is_directory]
        parts = pattern.parts[pattern.is_absolute() :]
        for above, part in zip(reversed(pattern.parents), parts, strict=True):
            if glob.has_magic(part):
                directories += _matches(f"{above}{os.sep}")
        for directory in directories:
            try:
                with os.scandir(directory):
                    pass
            except OSError as error:
                problem = f"cannot search it: {error.strerror}"
                found[directory] = Entry(directory, directory.name, is_directory=True, error=problem)
        return [found[path] for path in sorted(found)]

    def walk(self, directory: Path, output: Path | None, excludes: Callable[[str], bool]) -> Iterator[Entry]:
        """Yield the files below a directory. Follows links unless they lead back to a directory above."""
        left_out = None if output is None else inode(output)

        def walk(relative: str, above: frozenset[tuple[int, int] | None]) -> Iterator[Entry]:
            try:
                with os.scandir(directory / relative) as entries:
                    listed = sorted(entries, key=lambda entry: entry.name)
            except OSError as error:
                if not relative:
                    raise
                problem = f"cannot search it: {error.strerror}"
                yield Entry(directory / relative, relative, is_directory=True, error=problem)
                return
            if relative and any(each.name == DIRECTORY and _holds_manifest(each.path) for each in listed):
                yield Entry(directory / relative, relative, is_directory=True)
                return
            for each in listed:
                if is_hidden(each.name):
                    continue
                below = f"{relative}/{each.name}" if relative else each.name
                if excludes(below):
                    continue
                is_directory = False
                with contextlib.suppress(OSError):  # a link that leads to itself will fail as a separate job
                    is_directory = each.is_dir()
                if not is_directory:
                    yield Entry(directory / below, below, is_directory=False)
                    continue
                number = inode(Path(each.path))
                if number is None or (number != left_out and number not in above):
                    yield from walk(below, above | {number})

        yield from walk("", frozenset({inode(directory)}))

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


def _matches(pattern: str) -> list[Path]:
    return [Path(path) for path in glob.glob(pattern, recursive=True)]  # noqa: PTH207


def is_hidden(name: str) -> bool:
    """Return True for the names of files and directories that are not searched for pictures."""
    return name.startswith(".") or name.lower() in _OF_SYSTEMS


def _holds_manifest(directory: str) -> bool:
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        return any(entry.name.endswith(MANIFEST_SUFFIX) for entry in entries)
    return False


def inode(path: Path) -> tuple[int, int] | None:
    """Return the device and inode numbers of a path; None if nothing can be found there."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino
