"""The manifest of a local output directory: how its outputs were made, and so which are up to date.

Each run appends records to a separate file in `.colorize/` below the output directory. So two runs that share
the directory never write to the same file, and a killed run leaves complete lines or none. A record states
that the output of this name, size and modification time was made from a source of this size, time and
content, by this recipe (the model and the options that decide pixels). It is written just before the output
gets its name. So an output without a matching record was created or changed by someone else, and is left
alone.

Memory holds only the position of each record, in 16 bytes, not its content.
"""

import contextlib
import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from colorize_cli.core.errors import WriteError
from colorize_cli.core.jobs import Job
from colorize_cli.storage import atomic
from colorize_cli.storage.fingerprint import Fingerprint, SourceFingerprint
from colorize_cli.storage.manifest import DIRECTORY, Record, State
from colorize_cli.storage.manifest_index import Lookup

_SUFFIX = ".jsonl"
_UNFINISHED = ".unfinished"  # suffix of a file that others are merged into
# Maximum bytes of a file. A record's position is one number: its file's number times this, plus its offset.
_LONGEST = 1 << 40
_BLOCK = 1 << 16  # bytes, and longer than any line
_MOST_FILES = 16  # of ended runs; more are merged into one


class LocalManifest:
    """The records of one output directory, for one run. May be used from several threads."""

    def __init__(
        self,
        root: Path,
        recipe: str,
        own: Callable[[Job], str] = lambda _: "",
        *,
        origins: Mapping[Path, Fingerprint] | None = None,
        read_only: bool = False,
    ) -> None:
        """Open the manifest. Records are not read before an output exists for which they are needed.

        Args:
            root: The output directory, which need not exist.
            recipe: Digest of the model and of the options that decide pixels, for this run.
            own: Function that returns the part of the recipe that is specific to a job, as letters.
            origins: Fingerprints of objects in a store, by the paths of their present or future local copies.
            read_only: True to write nothing.
        """
        self._read_only = read_only
        self._root = root
        self._recipe = recipe
        self._own = own
        self._origins = origins or {}
        self._folder = root / DIRECTORY
        self._positions = Lookup()
        self._numbers: dict[str, int] = {}  # numbers of the files by name
        self._read: dict[str, int] = {}  # bytes read so far by file name
        self._block: tuple[int, int, bytes] = 0, 0, b""  # number of a file, offset, and content read last
        self._file: _ManifestFile | None = None
        self._lock = threading.Lock()
        if not read_only:
            with self._lock:
                self._compact()

    def state(self, job: Job) -> State:
        """Return the state of the job's output.

        If the source's time has changed, but not its content, the new time is recorded for the next run.
        """
        try:
            written = Fingerprint.of(job.destination.lstat())
            fingerprint = self._origins.get(job.source) or Fingerprint.of(job.source.stat())
        except OSError:
            return State.ABSENT  # if the source is missing instead, reading it will report that
        record = self._known(self._name(job), written)
        if record is None:
            return State.FOREIGN
        if record.recipe != self._recipe + self._own(job):
            return State.STALE
        if record.source.stamp == fingerprint:
            return State.CURRENT
        try:
            source = self.source_of(job)
        except OSError:
            return State.STALE
        if source.content != record.source.content:
            return State.STALE
        if not self._read_only:
            with contextlib.suppress(WriteError):  # without the record only the next check takes longer
                self.add(job, source, written)
        return State.CURRENT

    def source_of(self, job: Job) -> SourceFingerprint:
        """Read the job's source and return its fingerprint.

        Raises:
            OSError: The source cannot be read.
        """
        source = SourceFingerprint.of(job.source)
        origin = self._origins.get(job.source)
        return source if origin is None else replace(source, stamp=origin)

    def add(self, job: Job, source: SourceFingerprint, written: Fingerprint) -> None:
        """Record that this run made the job's output from a source.

        Args:
            job: The job.
            source: Fingerprint of the source.
            written: Fingerprint of the output.

        Raises:
            WriteError: The record cannot be written.
        """
        record = Record(self._name(job), written, source, self._recipe + self._own(job))
        try:
            with self._lock:
                if self._file is None:
                    self._file = _ManifestFile(self._folder)
                self._file.append(record.to_line())
        except OSError as error:
            raise WriteError(f"cannot write below {self._folder}: {error.strerror}") from error

    def close(self) -> None:
        """Close the file of this run."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def _name(self, job: Job) -> str:
        return job.destination.relative_to(self._root).as_posix()

    def _known(self, name: str, written: Fingerprint) -> Record | None:
        with self._lock:
            record = self._found(name, written)
            if record is None:  # another run may have made it meanwhile
                self._refresh()
                record = self._found(name, written)
            return record

    def _found(self, name: str, written: Fingerprint) -> Record | None:
        position = self._positions.get(_key(name, written))
        if position is None:
            return None
        try:
            record = Record.from_line(self._line(*divmod(position, _LONGEST)))
        except (OSError, ValueError):  # another run has merged the file with others
            return None
        return record if (record.output, record.written) == (name, written) else None

    def _line(self, number: int, start: int) -> bytes:
        """Return a line of a file. Reads a block, as lines of neighboring outputs are often neighbors too."""
        last, first, block = self._block
        end = block.find(b"\n", start - first) if last == number and start >= first else -1
        if end < 0:
            with (self._folder / list(self._numbers)[number]).open("rb") as file:
                file.seek(start)
                first, block = start, file.read(_BLOCK)
            self._block = number, first, block
            end = block.find(b"\n")
        return block[start - first : end + 1]

    def _refresh(self) -> None:
        """Read the lines added to all files since the last call."""
        for path in self._files():
            number = self._numbers.setdefault(path.name, len(self._numbers))
            with contextlib.suppress(OSError):
                for start, line in _lines(path, self._read.get(path.name, 0)):
                    self._read[path.name] = start + len(line)
                    with contextlib.suppress(ValueError):  # its output will count as foreign
                        record = Record.from_line(line)
                        self._positions[_key(record.output, record.written)] = number * _LONGEST + start

    def _files(self) -> Iterator[Path]:
        with contextlib.suppress(OSError):
            yield from sorted(path for path in self._folder.iterdir() if path.suffix == _SUFFIX)

    def _compact(self) -> None:
        """Merge the files of ended runs into one, with only the records that still hold.

        Another run that does this at the same time writes the same records. A record may then exist twice,
        but none is lost, because the new file exists before the old ones are removed.
        """
        ended = [path for path in self._files() if atomic.is_left_over(path.name)]
        if len(ended) <= _MOST_FILES:
            return
        atomic.sweep(self._folder, _UNFINISHED)
        with contextlib.suppress(OSError):  # if one file cannot be read to its end, all stay
            last = Lookup()
            for position, record, _ in _records(ended):
                last[_key(record.output, record.written)] = position
            name = atomic.claim(_SUFFIX)
            atomic.release(name)
            with atomic.writing(self._folder / name, suffix=_UNFINISHED) as file:
                for position, record, line in _records(ended):
                    if last.get(_key(record.output, record.written)) == position and self._is_there(record):
                        file.write(line)
            for path in ended:
                path.unlink(missing_ok=True)

    def _is_there(self, record: Record) -> bool:
        """Return True if the output of the record exists and is unchanged."""
        try:
            return Fingerprint.of((self._root / record.output).lstat()) == record.written
        except (OSError, ValueError):
            return False


class _ManifestFile:
    """The file to which a run appends its lines."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._name = atomic.claim(_SUFFIX)
        self._file = os.open(folder / self._name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        self._torn = False

    def append(self, line: bytes) -> None:
        """Write a line with a single call, so that a killed process leaves no partial line."""
        text = b"\n" + line if self._torn else line
        self._torn = True
        if os.write(self._file, text) < len(text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._torn = False

    def close(self) -> None:
        with contextlib.suppress(OSError):  # not every file system supports it
            os.fsync(self._file)
        os.close(self._file)
        atomic.release(self._name)


def _lines(path: Path, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield the complete lines of a file from offset `start` on, each with its offset."""
    with path.open("rb") as file:
        file.seek(start)
        for line in file:
            if not line.endswith(b"\n"):
                return
            yield start, line
            start += len(line)


def _records(files: list[Path]) -> Iterator[tuple[int, Record, bytes]]:
    """Yield the records of several files, each with a unique number and its line."""
    for number, path in enumerate(files):
        for start, line in _lines(path):
            with contextlib.suppress(ValueError):
                yield number * _LONGEST + start, Record.from_line(line), line


def _key(output: str, written: Fingerprint) -> int:
    text = f"{written.size} {written.mtime_ns} {output}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
