"""The manifest of an output directory in a store: which outputs are up to date, and which are not ours.

Stores have no rename, and no files to which lines can be appended. So each run writes complete objects of
lines to `.colorize/` below the output. With every added line it writes the last object again, until that is
long enough. A line records that an output of this name, size and content is made from this source by this
recipe. It is written before the output is uploaded. So an output of a killed run is recognized by its
content, even if nothing else was recorded about it. An output without a record was put there by someone else,
and is left alone.

When the output has been uploaded, a second line adds the version that the store gave it. With the version the
next run recognizes the output from the listing alone. This line may be lost. Then the output is downloaded
once to check its content.
"""

import contextlib
import json
import secrets
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

from colorize_cli.core.errors import ReadError
from colorize_cli.storage import atomic
from colorize_cli.storage.fingerprint import Fingerprint, SourceFingerprint
from colorize_cli.storage.manifest import DIRECTORY, State
from colorize_cli.storage.remote import FileInfo, MissingError, RemotePath

_SUFFIX = ".jsonl"
_MOST_LINES = 128  # per object, because each added line writes the object again
_MOST_OBJECTS = 16  # of ended runs; more are merged into one
_READ_THREADS = 16
_READ_TRIES = 3


@dataclass(frozen=True)
class RemoteRecord:
    """One line of a manifest, which records how an output in a store was made.

    Attributes:
        output: Path of the output below the output directory.
        size: Size of the output in bytes.
        content: Digest of the output's content.
        address: Location of the source, without secrets.
        source: Fingerprint of the source.
        recipe: Digest of the model and of the options that decide pixels.
        version: Version that the store gave the output; empty if it is not known.
    """

    output: str
    size: int
    content: str
    address: str
    source: SourceFingerprint
    recipe: str
    version: str = ""

    def is_of(self, found: FileInfo) -> bool:
        """Return True if size and version of an output in the store match this record."""
        return bool(self.version) and (found.size, found.version) == (self.size, self.version)

    def to_line(self) -> bytes:
        """Return the record as a line of JSON."""
        return json.dumps(asdict(self), separators=(",", ":")).encode() + b"\n"

    @staticmethod
    def from_line(line: bytes) -> "RemoteRecord":
        """Parse a line made by `to_line`.

        Raises:
            ValueError: The line is not a record.
        """
        try:
            values: dict[str, Any] = json.loads(line)
            return RemoteRecord(source=SourceFingerprint.from_values(values.pop("source")), **values)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"not a record: {line!r}") from error


class RemoteManifest:
    """The records of one directory in a store, for one run. May be used from several threads."""

    def __init__(self, root: RemotePath, *, read_only: bool = False) -> None:
        """List the outputs, and read the records of earlier runs.

        Args:
            root: The output directory, which need not exist.
            read_only: True to write nothing.

        Raises:
            ReadError: The store cannot be read.
            WriteError: The records of earlier runs cannot be merged.
        """
        self._root = root
        self._folder = root.below(DIRECTORY)
        self._records: dict[str, set[RemoteRecord]] = {}
        self._lock = threading.Lock()
        self._writer = _Writer(self._folder)
        below = {root.relative(found): found for found in _below(root)}
        self._found = {name: found for name, found in below.items() if not name.startswith(f"{DIRECTORY}/")}
        objects = self._read_objects()
        if not read_only:
            self._sweep()
            self._compact(objects)

    def found(self, name: str) -> FileInfo | None:
        """Return the object that an output's name had when the run began; None if there was none."""
        return self._found.get(name)

    def state(self, name: str, source: Fingerprint, recipe: str) -> State | None:
        """Return the state of an output; None if only its content can decide.

        Args:
            name: Path of the output below the output directory.
            source: Fingerprint of the source.
            recipe: Digest of the model and of the options that decide pixels.
        """
        found = self._found.get(name)
        if found is None:
            return State.ABSENT
        known = self._known(name)
        matching = [record for record in known if record.is_of(found)]
        if not matching:
            return None if any(record.size == found.size for record in known) else State.FOREIGN
        current = any(record.recipe == recipe and record.source.stamp == source for record in matching)
        return State.CURRENT if current else State.STALE

    def state_by_content(self, name: str, content: str, source: Fingerprint, recipe: str) -> State:
        """Like `state`, for an output whose content is known. Records its version for the next run.

        Args:
            name: Path of the output below the output directory.
            content: Digest of the output's content.
            source: Fingerprint of the source.
            recipe: Digest of the model and of the options that decide pixels.
        """
        found = self._found[name]
        matching = [
            record for record in self._known(name) if (record.size, record.content) == (found.size, content)
        ]
        for record in matching:
            self.note(record, found)
        if not matching:
            return State.FOREIGN
        current = any(record.recipe == recipe and record.source.stamp == source for record in matching)
        return State.CURRENT if current else State.STALE

    def is_made_from(self, name: str, source: SourceFingerprint, recipe: str) -> bool:
        """Return True if an output was made by that recipe from a source of the same content.

        The source's present fingerprint is then recorded for the next run.
        """
        found = self._found.get(name)
        for record in self._known(name):
            same = (record.recipe, record.source.content) == (recipe, source.content)
            if same and found is not None and record.is_of(found):
                self.note(replace(record, source=source), found)
                return True
        return False

    def prepare(self) -> None:
        """Check that records can be written, by writing an object.

        Raises:
            WriteError: They cannot be written.
        """
        self._writer.flush(even_if_empty=True)

    def intend(self, record: RemoteRecord) -> None:
        """Record an output before it is uploaded. The record is in the store when this returns.

        Raises:
            WriteError: The record cannot be written.
        """
        self._add(record)
        self._writer.flush()

    def note(self, record: RemoteRecord, found: FileInfo) -> None:
        """Record the version that the store gave an output. It is written by the next `intend` or `close`."""
        if found.version is not None:
            self._add(replace(record, version=found.version))

    def close(self) -> None:
        """Write the records that are not written yet.

        Raises:
            WriteError: They cannot be written.
        """
        self._writer.close()

    def _add(self, record: RemoteRecord) -> None:
        with self._lock:
            self._records.setdefault(record.output, set()).add(record)
        self._writer.add(record.to_line())

    def _known(self, name: str) -> tuple[RemoteRecord, ...]:
        with self._lock:
            return tuple(self._records.get(name, ()))

    def _read_objects(self) -> list[FileInfo]:
        """Read the records of earlier and other runs. Lists again if one is removed by a merge meanwhile."""
        for _ in range(_READ_TRIES):
            objects = [each for each in _below(self._folder) if each.path.endswith(_SUFFIX)]
            with ThreadPoolExecutor(_READ_THREADS) as pool, contextlib.suppress(MissingError):
                for content in pool.map(lambda each: self._folder.file_system.read(each.path), objects):
                    self._add_lines(content)
                return objects
        raise ReadError(f"{self._folder.url}: another run removes objects while they are read; try again")

    def _add_lines(self, content: bytes) -> None:
        for line in content.splitlines():
            with contextlib.suppress(ValueError):  # its output will count as foreign
                record = RemoteRecord.from_line(line)
                self._records.setdefault(record.output, set()).add(record)

    def _sweep(self) -> None:
        """Remove the partial files that killed runs on this host left in stores with files."""
        left = [found.path for found in self._found.values() if atomic.is_left_over(_last(found))]
        self._root.file_system.remove(left)

    def _compact(self, objects: Iterable[FileInfo]) -> None:
        """Merge the objects of ended runs on this host, with only the records that still hold.

        If two runs do this at the same time, each writes all records before it removes any object.
        """
        ended = [each for each in objects if atomic.is_left_over(_last(each))]
        if len(ended) <= _MOST_OBJECTS:
            return
        for name, records in self._records.items():
            found = self._found.get(name)
            for record in records:
                if found is not None and (
                    record.is_of(found) or (record.size == found.size and not record.version)
                ):
                    self._writer.add(record.to_line())
        self._writer.flush()
        unchanged = {(each.path, each.version) for each in _below(self._folder)}
        self._folder.file_system.remove(each.path for each in ended if (each.path, each.version) in unchanged)


class _Writer:
    """Writes lines to a series of objects. Each write replaces the whole last object."""

    def __init__(self, folder: RemotePath) -> None:
        self._folder = folder
        self._names: list[str] = []
        self._lines: list[bytes] = []  # of the last object
        self._written: int | None = None  # number of them in the store; None before the object is created
        self._lock = threading.Lock()
        self._writing = threading.Lock()

    def add(self, line: bytes) -> None:
        with self._lock:
            self._lines.append(line)

    def flush(self, *, even_if_empty: bool = False) -> None:
        """Write the added lines. If several threads call, one writes for all."""
        with self._writing:
            with self._lock:
                lines = list(self._lines)
            if len(lines) == (self._written or 0) and not even_if_empty:
                return
            if self._written is None:
                # Processes with equal numbers, in containers with equal names, must not share an object.
                self._names.append(atomic.claim(f".{secrets.token_hex(4)}{_SUFFIX}"))
            self._folder.file_system.write(self._folder.below(self._names[-1]).path, b"".join(lines))
            self._written = len(lines)
            if len(lines) >= _MOST_LINES:
                with self._lock:
                    del self._lines[: len(lines)]
                self._written = None

    def close(self) -> None:
        self.flush()
        with self._writing:
            if self._written == 0:
                self._folder.file_system.remove([self._folder.below(self._names[-1]).path])
            for name in self._names:
                atomic.release(name)


def _below(directory: RemotePath) -> list[FileInfo]:
    """Return the objects below a directory, which need not exist."""
    if directory.file_system.info(directory.path) is None:
        return []
    return directory.file_system.find(directory.path)


def _last(found: FileInfo) -> str:
    return found.path.rpartition("/")[2]
