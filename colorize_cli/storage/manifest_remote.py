"""What was made below a directory in a store, and so which outputs are up to date, and whose they are.

Stores have no rename, and no file that lines can be appended to. So each run writes objects of lines to
`.colorize/` below the output, each whole, and the last of them anew with every line that is added, until it
is long enough. A line says: from this source, by this recipe, comes an output of this name, size and content.
It is written before the output is put. So whatever kills a run, an output that it has made is known by its
content, even if nothing else was noted of it; and what no line knows was put there by someone else and is
left alone.

When the output is there a second line is added, with the version that the store gave it: by that the next run
knows it from the listing. That line may be lost; then the output is fetched, once, to look at its content.
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
_MOST_LINES = 128  # of one object, all of which are written anew with each that is added
_MOST_PARTS = 16  # of ended runs; more are made into one
_READING = 16  # threads
_LOOKS = 3


@dataclass(frozen=True)
class RemoteRecord:
    """A line: how an output was made.

    Attributes:
        output: Its path below the output directory.
        size: Of the output, in bytes.
        content: A digest of it.
        address: Where the source was, as it may be shown.
        source: What the source was.
        recipe: Digest of the model and the options that shape pixels.
        version: Of the output, as the store has it; empty where that is not known.
    """

    output: str
    size: int
    content: str
    address: str
    source: SourceFingerprint
    recipe: str
    version: str = ""

    def is_of(self, found: FileInfo) -> bool:
        """Whether what the store says of an output shows that it is this one."""
        return bool(self.version) and (found.size, found.version) == (self.size, self.version)

    def to_line(self) -> bytes:
        """As JSON."""
        return json.dumps(asdict(self), separators=(",", ":")).encode() + b"\n"

    @staticmethod
    def from_line(line: bytes) -> "RemoteRecord":
        """The inverse of `to_line`.

        Raises:
            ValueError: It is no such line.
        """
        try:
            values: dict[str, Any] = json.loads(line)
            return RemoteRecord(source=SourceFingerprint.from_values(values.pop("source")), **values)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"no entry: {line!r}") from error


class RemoteManifest:
    """The entries of one directory in a store, for one run. May be used from several threads."""

    def __init__(self, root: RemotePath, *, read_only: bool = False) -> None:
        """Reads what is there: the outputs, and what earlier runs wrote of them.

        Args:
            root: The output directory, which need not exist.
            read_only: Ask only; nothing is written.

        Raises:
            ReadError: The store cannot be asked.
            WriteError: What earlier runs left cannot be put in order.
        """
        self._root = root
        self._folder = root.below(DIRECTORY)
        self._records: dict[str, set[RemoteRecord]] = {}
        self._lock = threading.Lock()
        self._log = _Log(self._folder)
        below = {root.relative(found): found for found in _below(root)}
        self._found = {name: found for name, found in below.items() if not name.startswith(f"{DIRECTORY}/")}
        parts = self._read_parts()
        if not read_only:
            self._sweep()
            self._compact(parts)

    def found(self, name: str) -> FileInfo | None:
        """What was there under an output's name when the run began."""
        return self._found.get(name)

    def state(self, name: str, source: Fingerprint, recipe: str) -> State | None:
        """What an output is to a run, as far as that can be said without fetching it; None if it cannot.

        Args:
            name: Its path below the output directory.
            source: The stamp of what it is to be made from.
            recipe: Digest of the model and the options that shape pixels.
        """
        found = self._found.get(name)
        if found is None:
            return State.ABSENT
        known = self._known(name)
        own = [record for record in known if record.is_of(found)]
        if not own:
            return None if any(record.size == found.size for record in known) else State.FOREIGN
        current = any(record.recipe == recipe and record.source.stamp == source for record in own)
        return State.CURRENT if current else State.STALE

    def state_by_content(self, name: str, content: str, source: Fingerprint, recipe: str) -> State:
        """As `state`, of an output with that content; what is learnt is noted for the next run."""
        found = self._found[name]
        own = [
            record for record in self._known(name) if (record.size, record.content) == (found.size, content)
        ]
        for record in own:
            self.note(record, found)
        if not own:
            return State.FOREIGN
        current = any(record.recipe == recipe and record.source.stamp == source for record in own)
        return State.CURRENT if current else State.STALE

    def is_made_from(self, name: str, source: SourceFingerprint, recipe: str) -> bool:
        """Whether an output was made by that recipe of what the source still contains; that is noted then."""
        found = self._found.get(name)
        for record in self._known(name):
            same = (record.recipe, record.source.content) == (recipe, source.content)
            if same and found is not None and record.is_of(found):
                self.note(replace(record, source=source), found)
                return True
        return False

    def prepare(self) -> None:
        """Sees that notes can be written.

        Raises:
            WriteError: They cannot.
        """
        self._log.flush(even_if_empty=True)

    def intend(self, record: RemoteRecord) -> None:
        """Notes what is about to be put; when it returns, that is written.

        Raises:
            WriteError: It cannot be written.
        """
        self._add(record)
        self._log.flush()

    def note(self, record: RemoteRecord, found: FileInfo) -> None:
        """Notes an output as the store has it; that is written with the next intention, or at the end."""
        if found.version is not None:
            self._add(replace(record, version=found.version))

    def close(self) -> None:
        """Writes what is not written yet.

        Raises:
            WriteError: It cannot be written.
        """
        self._log.close()

    def _add(self, record: RemoteRecord) -> None:
        with self._lock:
            self._records.setdefault(record.output, set()).add(record)
        self._log.add(record.to_line())

    def _known(self, name: str) -> tuple[RemoteRecord, ...]:
        with self._lock:
            return tuple(self._records.get(name, ()))

    def _read_parts(self) -> list[FileInfo]:
        """Learns what earlier and other runs wrote."""
        for _ in range(_LOOKS):
            parts = [part for part in _below(self._folder) if part.path.endswith(_SUFFIX)]
            with ThreadPoolExecutor(_READING) as pool, contextlib.suppress(MissingError):
                for content in pool.map(lambda part: self._folder.file_system.read(part.path), parts):
                    self._learn(content)
                return parts
        raise ReadError(f"{self._folder.url}: its objects vanish while they are read")

    def _learn(self, content: bytes) -> None:
        for line in content.splitlines():
            with contextlib.suppress(ValueError):  # its output will count as foreign
                record = RemoteRecord.from_line(line)
                self._records.setdefault(record.output, set()).add(record)

    def _sweep(self) -> None:
        """Removes what runs that were killed on this host had begun to write, in stores that have files."""
        left = [found.path for found in self._found.values() if atomic.is_left_over(_last(found))]
        self._root.file_system.remove(left)

    def _compact(self, parts: Iterable[FileInfo]) -> None:
        """Makes the parts of ended runs of this host into one, of the entries that still hold.

        Of two runs that do the same at the same time each writes all of it before it removes anything.
        """
        ended = [part for part in parts if atomic.is_left_over(_last(part))]
        if len(ended) <= _MOST_PARTS:
            return
        for name, records in self._records.items():
            found = self._found.get(name)
            for record in records:
                if found is not None and (
                    record.is_of(found) or (record.size == found.size and not record.version)
                ):
                    self._log.add(record.to_line())
        self._log.flush()
        unchanged = {(part.path, part.version) for part in _below(self._folder)}
        self._folder.file_system.remove(part.path for part in ended if (part.path, part.version) in unchanged)


class _Log:
    """Lines to objects, each of which is written whole."""

    def __init__(self, folder: RemotePath) -> None:
        self._folder = folder
        self._names: list[str] = []
        self._lines: list[bytes] = []  # of the last object
        self._written: int | None = None  # so many of them; None where that object is not there
        self._lock = threading.Lock()
        self._writing = threading.Lock()

    def add(self, line: bytes) -> None:
        with self._lock:
            self._lines.append(line)

    def flush(self, *, even_if_empty: bool = False) -> None:
        """Writes what was added. Of several that call, one writes for all."""
        with self._writing:
            with self._lock:
                lines = list(self._lines)
            if len(lines) == (self._written or 0) and not even_if_empty:
                return
            if self._written is None:
                # Several processes of one number, in containers of one name, must not share an object.
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
    """What is in a directory, which need not exist."""
    if directory.file_system.info(directory.path) is None:
        return []
    return directory.file_system.find(directory.path)


def _last(found: FileInfo) -> str:
    return found.path.rpartition("/")[2]
