"""What a run that colours a film has done so far, so that another goes on where it was killed.

A folder `.colorize/film-{key}` beside the output, where the key stands for the output's name, the source's
content and all that shapes pixels. In it lie stretches of coloured film and a journal of one line for each
that is whole. A line is written after its stretch, and says how it left matters, so that what comes after it
is as if there had been no interruption.

A run claims the folder by a file of its own (see `atomic.claim`). Of two that come at once one gives way.

Of a film that is coloured in parts each has such a folder below that of the film. It is claimed by nobody: if
two work on a part, because one was taken for dead, files that are whole replace each other.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from colorize_cli.color.lab import Floats
from colorize_cli.storage import atomic

_JOURNAL = "stretches.jsonl"
_CLAIM = ".claim"
_FOLDERS = ".colorize"


@dataclass(frozen=True)
class Segment:
    """A stretch of coloured film that is whole, as a line of the journal.

    Attributes:
        file: Its name in the folder.
        first: When its first frame is shown, by the time base of the picture.
        frames: How many it has.
        size: Of the file, in bytes.
        cuts: How many the film has until its end.
        place: Number of the frame at the last place that was taken until then (see `segments`).
    """

    file: str
    first: int
    frames: int
    size: int
    cuts: int
    place: int


class WorkDir:
    """The folder of one film.

    Attributes:
        path: Where it is.
        done: The stretches that are whole, in their order.
    """

    def __init__(self, path: Path) -> None:
        """Reads what is there."""
        self.path = path
        self.done: list[Segment] = []
        with contextlib.suppress(FileNotFoundError):
            for line in (path / _JOURNAL).read_bytes().splitlines():
                segment = _read(line)
                if segment is not None and segment.file == self.name() and self._is_whole(segment):
                    self.done.append(segment)

    def name(self) -> str:
        """The next stretch's."""
        return f"{len(self.done):06d}.nut"

    def state(self) -> tuple[Floats, Floats] | None:
        """Lightness and chroma of the last frame of the last stretch that is whole, small."""
        if not self.done:
            return None
        with np.load(self.path / _state_of(self.done[-1].file)) as arrays:
            return arrays["small"], arrays["ab"]

    def add(self, segment: Segment, small: Floats, ab: Floats) -> None:
        """Notes a stretch that is whole, and how its last frame was coloured.

        Raises:
            OSError: It cannot be noted.
        """
        with atomic.writing(self.path / _state_of(segment.file)) as file:
            np.savez(file, small=small, ab=ab)
        line = f"\n{json.dumps(asdict(segment))}\n".encode()  # the one before may have been torn off
        with (self.path / _JOURNAL).open("ab") as journal:
            journal.write(line)
            journal.flush()
            os.fsync(journal.fileno())
        self.done.append(segment)

    def chunk(self, number: int) -> "WorkDir":
        """That of a part of the film, which is made if there is none.

        Raises:
            OSError: It cannot be made.
        """
        path = chunk_dir(self.path, number)
        path.mkdir(exist_ok=True)
        atomic.sweep(path)
        return WorkDir(path)

    def clear(self) -> None:
        """Removes all that is in it.

        Raises:
            OSError: It cannot be removed.
        """
        shutil.rmtree(self.path)
        self.path.mkdir()
        self.done = []

    def remove(self) -> None:
        """Removes it, and `.colorize` if that is empty now."""
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()

    def _is_whole(self, segment: Segment) -> bool:
        try:
            size = (self.path / segment.file).stat().st_size
        except OSError:
            return False
        return size == segment.size and (self.path / _state_of(segment.file)).is_file()


@contextlib.contextmanager
def claimed(destination: Path, key: str) -> Iterator[WorkDir | None]:
    """The folder of the film that becomes `destination`; None while another run of this host works on it.

    Args:
        destination: The output.
        key: Stands for the source's content and all that shapes pixels.

    Raises:
        OSError: The folder cannot be made.
    """
    path = destination.parent / _FOLDERS / f"{_prefix(destination)}{_digest(key)}"
    path.mkdir(parents=True, exist_ok=True)
    own = atomic.claim(_CLAIM)
    try:
        (path / own).touch()
        atomic.sweep(path)
        claims = [p.name for p in path.iterdir() if p.name.endswith(_CLAIM)]
        yield None if any(name < own for name in claims) else WorkDir(path)
    finally:
        with contextlib.suppress(OSError):
            (path / own).unlink(missing_ok=True)
        atomic.release(own)


def discard(destination: Path) -> None:
    """Remove the work directories of a finished output, which a run that was killed at its very end left.

    A directory that another run has claimed stays.
    """
    for path in (destination.parent / _FOLDERS).glob(f"{_prefix(destination)}*"):
        atomic.sweep(path)
        if not any(file.name.endswith(_CLAIM) for file in path.iterdir()):
            WorkDir(path).remove()


def _prefix(destination: Path) -> str:
    """Return the beginning of the names of all work directories of an output."""
    return f"film-{_digest(destination.name)}-"


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def chunk_dir(folder: Path, number: int) -> Path:
    """Where that of a part of the film lies, whose own is `folder`."""
    return folder / f"part-{number:04d}"


def release_claims(directory: Path, prefix: str) -> None:
    """Ends the claims of a process that has ended, perhaps on another host, on films of a directory.

    Args:
        directory: The one of the films' outputs.
        prefix: What `atomic.process_prefix` said in that process.
    """
    for folder in (directory / _FOLDERS).glob("film-*"):
        atomic.remove_prefixed(folder, prefix)


def _state_of(file: str) -> str:
    return f"{file}.npz"


def _read(line: bytes) -> Segment | None:
    try:
        values: dict[str, Any] = json.loads(line)
        return Segment(**values)
    except (ValueError, TypeError):
        return None
