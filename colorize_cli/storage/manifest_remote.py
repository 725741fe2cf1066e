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
import itertools
import secrets
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from colorize_cli.core.errors import ReadError
from colorize_cli.core.jobs import FileInfo, LocalFiles
from colorize_cli.core.location import Url
from colorize_cli.storage import atomic
from colorize_cli.storage.filesystem import DIRECTORY, MANIFEST_SUFFIX, Fingerprint, SourceFingerprint
from colorize_cli.storage.manifest import Record, State, earlier_name, made_from, state_of
from colorize_cli.storage.remote import MissingError, RemotePath

_MOST_LINES = 128  # per object, because each added line writes the object again
_MOST_OBJECTS = 16  # of ended runs; more are merged into one
_READ_THREADS = 16
_READ_TRIES = 3


class RemoteManifest:
    """The records of one directory in a store, for one run. May be used from several threads."""

    def __init__(
        self, root: RemotePath, *, read_only: bool = False, listed: bool = True, checksum: bool = False
    ) -> None:
        """List the outputs, and read the records of earlier runs.

        Args:
            root: The output directory, which need not exist.
            read_only: True to write nothing.
            listed: False to ask the store for single outputs instead, and for records only if an output
                exists. This is for the workers of a run, which get only jobs whose output must be made.
            checksum: See `manifest.state_of`.

        Raises:
            ReadError: The store cannot be read.
            WriteError: The records of earlier runs cannot be merged.
        """
        self._root = root
        self._read_only, self._listed, self._checksum = read_only, listed, checksum
        self._folder = root.below(DIRECTORY)
        self._records: dict[str, set[Record]] = {}
        self._lock = threading.Lock()
        self._writer = _Writer(self._folder)
        self._found: dict[str, FileInfo | None] = {}
        if listed:
            outputs = [each for each in _below(root) if not root.relative(each).startswith(f"{DIRECTORY}/")]
            self._found = {root.relative(each): each for each in outputs}
            objects = self._read_objects()
            if not read_only:
                # Partial files that killed runs on this host left, in stores with files.
                root.file_system.remove(each.path for each in outputs if atomic.is_left_over(_last(each)))
                self._compact(objects)

    def found(self, files: LocalFiles) -> FileInfo | None:
        """Return the object that an output had when the run began, or was asked for first; None without."""
        name = self._name(files)
        if not self._listed and name not in self._found:
            self._found[name] = self._root.file_system.info(self._root.below(name).path)
        return self._found.get(name)

    def recipes(self, files: LocalFiles) -> list[str]:
        """Return the recipes in the records of an output's version or, if it is unknown, of its size.

        Raises:
            ReadError: The store cannot be read.
        """
        found = self.found(files)
        if found is None:
            return []
        known, matching = self._matching(files, found)
        return [record.recipe for record in matching or known if record.written.size == found.size]

    def earlier(self, files: LocalFiles) -> str | None:
        """Return the name of an output of the same source that an earlier version made under another name."""
        name = earlier_name(self._name(files), files)
        found = None if name is None else self._found.get(name)
        if name is None or found is None:
            return None
        with self._lock:
            known = tuple(self._records.get(name, ()))
        same = any(each.written.size == found.size and made_from(each, files) for each in known)
        return name if same else None

    def state(self, files: LocalFiles, recipe: str) -> State:
        """Return the state of an output; UNDECIDED if only its content can decide (see `state_by_content`).

        Args:
            files: The files of the job.
            recipe: Digest of the model and of the options that decide pixels.

        Raises:
            ReadError: The store cannot be read.
        """
        found = self.found(files)
        if found is None:
            return State.ABSENT
        known, matching = self._matching(files, found)
        if not matching and not self._listed:  # its records are not read yet, or are new
            self._read_objects()
            known, matching = self._matching(files, found)
        if not matching and any(record.written.size == found.size for record in known):
            return State.UNDECIDED
        return self._decided(matching, files, recipe)

    def state_by_content(self, files: LocalFiles, recipe: str, content: str) -> State:
        """Like `state`, for an output whose content is known. Records its version for the next run.

        Args:
            files: The files of the job.
            recipe: Digest of the model and of the options that decide pixels.
            content: Digest of the output's content.
        """
        found = self.found(files)
        if found is None:
            return State.ABSENT
        matching = [
            record
            for record in self._known(files)
            if (record.written.size, record.content) == (found.size, content)
        ]
        for record in matching:
            self.note(record, found)
        return self._decided(matching, files, recipe)

    def _matching(self, files: LocalFiles, found: FileInfo) -> tuple[tuple[Record, ...], list[Record]]:
        """Return the records of an output, and those whose size and version are the object's."""
        known = self._known(files)
        return known, [
            record for record in known if record.written.version and record.written == Fingerprint.of(found)
        ]

    def _decided(self, matching: list[Record], files: LocalFiles, recipe: str) -> State:
        try:
            state, changed = state_of(matching, files, recipe, checksum=self._checksum)
        except OSError:  # reading the source will report the error
            return State.ABSENT
        found = self.found(files)
        if changed is not None and found is not None:
            self.note(changed, found)
        return state

    def prepare(self) -> None:
        """Check that records can be written, by writing an object.

        Raises:
            WriteError: They cannot be written.
        """
        self._writer.flush(even_if_empty=True)

    def intend(
        self, files: LocalFiles, source: SourceFingerprint, made: SourceFingerprint, recipe: str
    ) -> Record:
        """Record an output before it is uploaded. The record is in the store when this returns.

        Args:
            files: The files of the job.
            source: Fingerprint of the source.
            made: Fingerprint of the output.
            recipe: Digest of the model and of the options that decide pixels.

        Raises:
            WriteError: The record cannot be written.
        """
        written = Fingerprint(made.stamp.size)
        record = Record(self._name(files), written, source, recipe, made.content, str(files.job.source))
        self._add(record)
        self._writer.flush()
        return record

    def note(self, record: Record, found: FileInfo) -> None:
        """Record the version that the store gave an output. It is written by the next `intend` or `close`."""
        if found.version is not None:
            self._add(replace(record, written=replace(record.written, version=found.version)))

    def close(self) -> None:
        """Write the records that are not written yet.

        Raises:
            WriteError: They cannot be written.
        """
        self._writer.close()

    def _add(self, record: Record) -> None:
        if self._read_only:
            return
        with self._lock:
            self._records.setdefault(record.output, set()).add(record)
        self._writer.add(record.to_line())

    def _name(self, files: LocalFiles) -> str:
        destination = files.job.destination
        assert isinstance(destination, Url)  # noqa: S101 - it is below the root
        return (destination.path or "").removeprefix(f"{self._root.path}/")

    def _known(self, files: LocalFiles) -> tuple[Record, ...]:
        with self._lock:
            return tuple(self._records.get(self._name(files), ()))

    def _read_objects(self) -> list[FileInfo]:
        """Read the records of earlier and other runs. Lists again if one is removed by a merge meanwhile."""
        for _ in range(_READ_TRIES):
            objects = [each for each in _below(self._folder) if each.path.endswith(MANIFEST_SUFFIX)]
            with ThreadPoolExecutor(_READ_THREADS) as pool, contextlib.suppress(MissingError):
                contents = pool.map(lambda each: self._folder.file_system.read(each.path), objects)
                for line in itertools.chain.from_iterable(map(bytes.splitlines, contents)):
                    with contextlib.suppress(ValueError):  # its output will count as foreign
                        record = Record.from_line(line)
                        with self._lock:
                            self._records.setdefault(record.output, set()).add(record)
                return objects
        raise ReadError(f"{self._folder.url}: another run removes objects while they are read; try again")

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
                written = record.written
                if found and found.size == written.size and written.version in ("", found.version):
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
                self._names.append(atomic.claim(f".{secrets.token_hex(4)}{MANIFEST_SUFFIX}"))
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
