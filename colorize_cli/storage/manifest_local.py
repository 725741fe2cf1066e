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
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from colorize_cli.core.errors import WriteError
from colorize_cli.core.jobs import LocalFiles
from colorize_cli.storage import atomic
from colorize_cli.storage.filesystem import (
    DIRECTORY,
    MANIFEST_SUFFIX,
    SINGLE_SUFFIX,
    Fingerprint,
    SourceFingerprint,
    holds_manifest,
    open_regular,
)
from colorize_cli.storage.manifest import Record, State, earlier_name, made_from, state_of

_UNFINISHED = ".unfinished"  # suffix of a file that others are merged into
# Maximum bytes of a file. A record's position is one number: its file's number times this, plus its offset.
_LONGEST = 1 << 40
_BLOCK = 1 << 16  # bytes, and longer than any line
_TRIES = 10
_MOST_FILES = 16  # of ended runs; more are merged into one
_Numbers = npt.NDArray[np.uint64]
# Entries of a `Lookup` that wait in a dictionary, where each takes ten times as much memory, before a merge.
_MOST_WAITING = 1 << 16


class LocalManifest:
    """The records of one output directory, for one run. May be used from several threads."""

    def __init__(
        self,
        root: Path,
        *,
        read_only: bool = False,
        suffix: str = MANIFEST_SUFFIX,
        checksum: bool = False,
    ) -> None:
        """Open the manifest. Records are not read before an output exists for which they are needed.

        Args:
            root: The output directory, which need not exist.
            read_only: True to write nothing.
            suffix: MANIFEST_SUFFIX, or SINGLE_SUFFIX if the directory is not the output of a run on a
                directory. Records of both are read.
            checksum: See `manifest.state_of`.
        """
        self._read_only, self._checksum = read_only, checksum
        self._root, self._suffix = root, suffix
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

    def state(self, files: LocalFiles, recipe: str) -> State:
        """Return the state of a job's output.

        If the source's time has changed, but not its content, the new time is recorded for the next run.

        Args:
            files: The files of the job.
            recipe: Digest of the model and of the options that decide pixels, for this run.
        """
        try:
            written = Fingerprint.of(files.destination.lstat())
            record = self._known(self._name(files), written)
            known = [] if record is None else [record]
            state, changed = state_of(known, files, recipe, checksum=self._checksum)
        except OSError:
            return State.ABSENT  # if the source is missing instead, reading it will report that
        if changed is not None and not self._read_only:
            with contextlib.suppress(WriteError):  # without the record only the next check takes longer
                self._append(changed)
        return state

    def recipes(self, files: LocalFiles) -> list[str]:
        """Return the recipe by which an output was made; none unless it is there as this program left it."""
        with contextlib.suppress(OSError):
            record = self._known(self._name(files), Fingerprint.of(files.destination.lstat()))
            return [] if record is None else [record.recipe]
        return []

    def earlier(self, files: LocalFiles) -> str | None:
        """Return the name of an output of the same source that an earlier version made under another name."""
        name = earlier_name(self._name(files), files)
        if name is None:
            return None
        with contextlib.suppress(OSError):
            record = self._known(name, Fingerprint.of((self._root / name).lstat()))
            return name if record is not None and made_from(record, files) else None
        return None

    def add(self, files: LocalFiles, source: SourceFingerprint, written: Fingerprint, recipe: str) -> None:
        """Record that this run made a job's output.

        Args:
            files: The files of the job.
            source: Fingerprint of the source.
            written: Fingerprint of the output.
            recipe: Digest of the model and of the options that decide pixels.

        Raises:
            WriteError: The record cannot be written.
        """
        self._append(Record(self._name(files), written, source, recipe))

    def _append(self, record: Record) -> None:
        try:
            with self._lock:
                if self._file is None:
                    self._file = _ManifestFile(self._folder, self._suffix)
                self._file.append(record.to_line())
        except OSError as error:
            raise WriteError(f"cannot write below {self._folder}: {error.strerror}") from error

    def close(self) -> None:
        """Close the file of this run.

        Raises:
            WriteError: The disk reports an error, so records may be lost.
        """
        with self._lock:
            file, self._file = self._file, None
        try:
            if file is not None:
                file.close()
        except OSError as error:
            raise WriteError(f"cannot write below {self._folder}: {error.strerror}") from error

    def _name(self, files: LocalFiles) -> str:
        destination = files.destination
        if self._root.is_absolute():
            destination = destination.absolute()
        return destination.relative_to(self._root).as_posix()

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
            with open_regular(self._folder / list(self._numbers)[number]) as file:
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
            if not self._folder.is_symlink():
                both = (MANIFEST_SUFFIX, SINGLE_SUFFIX)
                yield from sorted(path for path in self._folder.iterdir() if path.suffix in both)

    def _compact(self) -> None:
        """Merge the files of ended runs into one, with only the records that still hold.

        Another run that does this at the same time writes the same records. A record may then exist twice,
        but none is lost, because the new file exists before the old ones are removed.
        """
        ended = [path for path in self._files() if atomic.is_dead(path)]
        if len(ended) <= _MOST_FILES:
            return
        atomic.sweep(self._folder, _UNFINISHED)
        with contextlib.suppress(OSError):  # if one file cannot be read to its end, all stay
            last = Lookup()
            for position, record, _ in _records(ended):
                last[_key(record.output, record.written)] = position
            name = atomic.claim(self._suffix)
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


def manifest_of(output: Path, *, read_only: bool, checksum: bool) -> LocalManifest:
    """Open the manifest for an output that the user named itself.

    If the output lies in the output directory of an earlier run, it is the manifest of that directory.
    Otherwise it lies beside the output.
    """
    folders = output.absolute().parents
    for folder in folders:
        if holds_manifest(folder / DIRECTORY):
            return LocalManifest(folder, read_only=read_only, checksum=checksum)
    return LocalManifest(folders[0], read_only=read_only, suffix=SINGLE_SUFFIX, checksum=checksum)


class Lookup:
    """A mapping from 64-bit keys to 64-bit numbers that only grows. Setting a key again replaces its number.

    Entries are stored in sorted arrays, each at least twice as long as the next. So an entry is moved only
    about log2(n) times among n entries.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, int] = {}
        self._sorted: list[tuple[_Numbers, _Numbers]] = []

    def __setitem__(self, key: int, number: int) -> None:
        self._waiting[key] = number
        if len(self._waiting) >= _MOST_WAITING:
            self._merge()

    def get(self, key: int) -> int | None:
        """Return the number of a key; None if it has none."""
        if key in self._waiting:
            return self._waiting[key]
        wanted = np.uint64(key)
        for keys, numbers in reversed(self._sorted):
            position = int(np.searchsorted(keys, wanted))
            if position < len(keys) and keys[position] == wanted:
                return int(numbers[position])
        return None

    def _merge(self) -> None:
        keys = np.fromiter(self._waiting.keys(), np.uint64, len(self._waiting))
        numbers = np.fromiter(self._waiting.values(), np.uint64, len(self._waiting))
        self._waiting = {}
        while self._sorted and len(self._sorted[-1][0]) < 2 * len(keys):
            older_keys, older_numbers = self._sorted.pop()
            keys, numbers = np.concatenate([older_keys, keys]), np.concatenate([older_numbers, numbers])
        order = np.argsort(keys, kind="stable")
        keys, numbers = keys[order], numbers[order]
        # The sort is stable and newer entries come last, so the last of equal keys holds the current number.
        last = np.append(keys[1:] != keys[:-1], True)
        self._sorted.append((keys[last], numbers[last]))


class _ManifestFile:
    """The file to which a run appends its lines."""

    def __init__(self, folder: Path, suffix: str) -> None:
        self._name = atomic.claim(suffix)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        for left in reversed(range(_TRIES)):
            try:
                folder.mkdir(exist_ok=True)
                if folder.is_symlink():
                    raise OSError(errno.ELOOP, "it is a link")
                self._file = os.open(folder / self._name, flags, 0o666)
                break
            except (FileNotFoundError, FileExistsError):  # another run may have removed the empty folder
                if not left:
                    raise
        atomic.lock(self._file)
        self._torn = False

    def append(self, line: bytes) -> None:
        """Write a line with a single call, so that a killed process leaves no partial line."""
        text = b"\n" + line if self._torn else line
        self._torn = True
        if os.write(self._file, text) < len(text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._torn = False

    def close(self) -> None:
        try:
            atomic.sync(self._file)
        finally:
            os.close(self._file)
            atomic.release(self._name)


def _lines(path: Path, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield the complete lines of a file from offset `start` on, each with its offset.

    Lines that are longer than any record come in pieces, which are no records.
    """
    with open_regular(path) as file:
        file.seek(start)
        while line := file.readline(_BLOCK):
            if not line.endswith(b"\n") and len(line) < _BLOCK:
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
