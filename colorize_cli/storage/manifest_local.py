"""What an output directory knows of how its pictures were made, and so which of them are up to date.

Each run appends lines to a journal of its own in `.colorize/` below the output directory, so that two runs
which share the directory never write to one file, and what a killed run wrote is a line or no line. A line
says: the output of this name, size and time of modification was made from a source of this size, time and
content, by this recipe (the model and the options that shape pixels). It is written just before the output
gets its name. So an output that no line matches was put there, or changed, by someone else; it is left alone.

In memory there is only where each line is, not what it says, in 16 bytes.
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
_UNFINISHED = ".unfinished"  # of a journal that is made of others
_LONGEST = 1 << 40  # bytes of a journal
_BLOCK = 1 << 16  # bytes, and longer than any line
_MOST_JOURNALS = 16  # of ended runs; more are made into one


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
        """Reads nothing yet: what earlier and other runs wrote is needed only where an output exists.

        Args:
            root: The output directory, which need not exist.
            recipe: Digest of the model and the options that shape pixels, of this run.
            own: What else decides the pixels of one job's output, as letters.
            origins: Of sources that are, or will be, copies of objects in a store the stamps of these.
            read_only: Ask only; nothing is written.
        """
        self._read_only = read_only
        self._root = root
        self._recipe = recipe
        self._own = own
        self._origins = origins or {}
        self._folder = root / DIRECTORY
        self._positions = Lookup()
        self._numbers: dict[str, int] = {}  # of the journals, by their names
        self._read: dict[str, int] = {}
        self._block: tuple[int, int, bytes] = 0, 0, b""  # of a journal, from a place on, what was read last
        self._journal: _Journal | None = None
        self._lock = threading.Lock()
        if not read_only:
            with self._lock:
                self._compact()

    def state(self, job: Job) -> State:
        """What the job's output is to this run.

        Where the source's time has changed, but not its content, that is noted for the next run.
        """
        try:
            written = Fingerprint.of(job.destination.lstat())
            fingerprint = self._origins.get(job.source) or Fingerprint.of(job.source.stat())
        except OSError:
            return State.ABSENT  # if it is the source that is missing, reading it will say so
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
            with contextlib.suppress(WriteError):  # only the next check will take longer
                self.add(job, source, written)
        return State.CURRENT

    def source_of(self, job: Job) -> SourceFingerprint:
        """Reads the job's source.

        Raises:
            OSError: It cannot be read.
        """
        source = SourceFingerprint.of(job.source)
        origin = self._origins.get(job.source)
        return source if origin is None else replace(source, stamp=origin)

    def add(self, job: Job, source: SourceFingerprint, written: Fingerprint) -> None:
        """Notes that the job's output, with that stamp, is what this run made of that source.

        Raises:
            WriteError: It cannot be noted.
        """
        record = Record(self._name(job), written, source, self._recipe + self._own(job))
        try:
            with self._lock:
                if self._journal is None:
                    self._journal = _Journal(self._folder)
                self._journal.append(record.to_line())
        except OSError as error:
            raise WriteError(f"cannot write below {self._folder}: {error.strerror}") from error

    def close(self) -> None:
        """Ends the journal."""
        with self._lock:
            if self._journal is not None:
                self._journal.close()
                self._journal = None

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
        except (OSError, ValueError):  # another run made its journal and others into one
            return None
        return record if (record.output, record.written) == (name, written) else None

    def _line(self, number: int, start: int) -> bytes:
        """A line of a journal. Those of outputs that lie together often do so too: many are read at once."""
        journal, first, block = self._block
        end = block.find(b"\n", start - first) if journal == number and start >= first else -1
        if end < 0:
            with (self._folder / list(self._numbers)[number]).open("rb") as file:
                file.seek(start)
                first, block = start, file.read(_BLOCK)
            self._block = number, first, block
            end = block.find(b"\n")
        return block[start - first : end + 1]

    def _refresh(self) -> None:
        """Reads what the journals have grown by."""
        for path in self._journals():
            number = self._numbers.setdefault(path.name, len(self._numbers))
            with contextlib.suppress(OSError):
                for start, line in _lines(path, self._read.get(path.name, 0)):
                    self._read[path.name] = start + len(line)
                    with contextlib.suppress(ValueError):  # its output will count as foreign
                        record = Record.from_line(line)
                        self._positions[_key(record.output, record.written)] = number * _LONGEST + start

    def _journals(self) -> Iterator[Path]:
        with contextlib.suppress(OSError):
            yield from sorted(path for path in self._folder.iterdir() if path.suffix == _SUFFIX)

    def _compact(self) -> None:
        """Makes the journals of ended runs into one, of the records that still hold.

        Another run that does the same at the same time writes the same; a record may come twice, never be
        lost, for the new journal is there before the old ones go.
        """
        ended = [path for path in self._journals() if atomic.is_left_over(path.name)]
        if len(ended) <= _MOST_JOURNALS:
            return
        atomic.sweep(self._folder, _UNFINISHED)
        with contextlib.suppress(OSError):  # one that cannot be read to its end among it: all stay
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
        """Whether the output that a record is of is as it says."""
        try:
            return Fingerprint.of((self._root / record.output).lstat()) == record.written
        except (OSError, ValueError):
            return False


class _Journal:
    """A file that lines are appended to."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._name = atomic.claim(_SUFFIX)
        self._file = os.open(folder / self._name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        self._torn = False

    def append(self, line: bytes) -> None:
        """Writes a line at once, so that none is half there if the process is killed."""
        text = b"\n" + line if self._torn else line
        self._torn = True
        if os.write(self._file, text) < len(text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._torn = False

    def close(self) -> None:
        with contextlib.suppress(OSError):  # not every file system has it
            os.fsync(self._file)
        os.close(self._file)
        atomic.release(self._name)


def _lines(path: Path, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """The whole lines of a journal from a place on, each with its own place."""
    with path.open("rb") as file:
        file.seek(start)
        for line in file:
            if not line.endswith(b"\n"):
                return
            yield start, line
            start += len(line)


def _records(journals: list[Path]) -> Iterator[tuple[int, Record, bytes]]:
    """The records of several journals, with a number that tells each from the others, and their lines."""
    for number, path in enumerate(journals):
        for start, line in _lines(path):
            with contextlib.suppress(ValueError):
                yield number * _LONGEST + start, Record.from_line(line), line


def _key(output: str, written: Fingerprint) -> int:
    text = f"{written.size} {written.mtime_ns} {output}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
