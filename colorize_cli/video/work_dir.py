"""Work directories: the finished segments of a video, from which an interrupted run resumes.

A work directory is `.colorize/film-{name}-{key}` beside the output. The name is a digest of the output's
name. The key is a digest of the source's content, the encoding, and all settings that affect pixels. A
directory with the same key and another name is taken over if no run has claimed it: the user has given the
output another name. A work directory holds encoded segments and a journal with one line for each finished
segment. A line is written after its segment and its state, which is the network input and chroma of the
segment's last frame. So the output after an interruption is the same as without.

A run claims the work directory with a file (see `atomic.claim`). If two runs claim it at once, one gives way.

Every chunk of a split video has such a directory inside the video's. It is not claimed: if two workers
process a chunk, because one was presumed dead, complete files replace each other.
"""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from colorize_cli.color.lab import Floats
from colorize_cli.storage import atomic

_JOURNAL = "stretches.jsonl"
_CLAIM = ".claim"
_FOLDERS = ".colorize"


@dataclass(frozen=True)
class Segment:
    """A finished segment of the colorized video, as recorded in the journal.

    Attributes:
        file: File name in the work directory.
        first: Presentation time of its first frame, in units of the video stream's time base.
        frames: Number of frames.
        size: Size of the file in bytes.
        cuts: Number of cuts in the video up to the segment's end.
        place: Number of the frame at the latest split point up to the segment's end (see `stages`).
    """

    file: str
    first: int
    frames: int
    size: int
    cuts: int
    place: int


@dataclass(frozen=True)
class Chunk:
    """A chunk of a video, or of its requested time range, that is colorized by itself.

    Attributes:
        source: The video.
        destination: The output of the whole video.
        folder: The video's work directory, claimed by the process that will write the output.
        number: Number of the chunk, from 0.
        first: Number of its first frame.
        begins: Presentation time of its first frame, in units of the stream's time base.
        frames: Number of frames; None for the chunk that is the whole video, which was not surveyed.
        damaged: Number of its packets and frames that could not be decoded in the survey.
        cut_off: How much of the source is there, if it is cut off in this chunk; else empty.
        mark: Checksum of its first frame.
        marks: Combined checksum of all its frames.
    """

    source: Path
    destination: Path
    folder: Path
    number: int = 0
    first: int = 0
    begins: int = 0
    frames: int | None = None
    damaged: int = 0
    mark: int = 0
    marks: int = 0
    cut_off: str = ""

    @property
    def directory(self) -> Path:
        """The work directory of the chunk, inside the video's. The whole video has no other."""
        return self.folder if self.frames is None else self.folder / f"part-{self.number:04d}"

    @property
    def kind(self) -> str:
        """Suffix of the output with the dot, in lower case."""
        return self.destination.suffix.lower()


class WorkDir:
    """The work directory of a video or a chunk.

    Attributes:
        path: Path of the directory.
        done: The finished segments, in order.
    """

    def __init__(self, path: Path) -> None:
        """Read the journal."""
        self.path = path
        self.done: list[Segment] = []
        with contextlib.suppress(FileNotFoundError):
            for line in (path / _JOURNAL).read_bytes().splitlines():
                with contextlib.suppress(ValueError, TypeError, OSError):  # torn, or the files are not there
                    segment = Segment(**json.loads(line))
                    size = (path / segment.file).stat().st_size
                    state = (path / _state_of(segment.file)).is_file()
                    if segment.file == self.name() and size == segment.size and state:
                        self.done.append(segment)

    @property
    def frames(self) -> int:
        """Number of frames in the finished segments."""
        return sum(segment.frames for segment in self.done)

    def name(self) -> str:
        """Return the file name of the next segment."""
        return f"{len(self.done):06d}.nut"

    def state(self) -> tuple[Floats, Floats] | None:
        """Return L* and a* and b* of the last finished frame at network resolution; None if there is none."""
        if not self.done:
            return None
        with np.load(self.path / _state_of(self.done[-1].file)) as arrays:
            return arrays["small"], arrays["ab"]

    def add(self, segment: Segment, small: Floats, ab: Floats) -> None:
        """Record a finished segment with the L* and the a* and b* of its last frame.

        Raises:
            OSError: The files cannot be written.
        """
        with atomic.writing(self.path / _state_of(segment.file)) as file:
            np.savez(file, small=small, ab=ab)
        line = f"\n{json.dumps(asdict(segment))}\n".encode()  # the previous line may be incomplete
        with (self.path / _JOURNAL).open("ab") as journal:
            journal.write(line)
            journal.flush()
            atomic.sync(journal.fileno())
        self.done.append(segment)

    def clear(self) -> None:
        """Remove everything in the directory.

        Raises:
            OSError: Something cannot be removed.
        """
        shutil.rmtree(self.path)
        self.path.mkdir()
        self.done = []

    def remove(self) -> None:
        """Remove the directory, and `.colorize` if it is then empty. Errors are ignored."""
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()


@contextlib.contextmanager
def claimed(destination: Path, key: str) -> Iterator[WorkDir | None]:
    """Claim the work directory for `destination`; yields None if another run on this host has claimed it.

    Args:
        destination: The output.
        key: Identifies the source's content, the encoding and all settings that affect pixels.

    Raises:
        OSError: The directory cannot be created.
    """
    path = destination.parent / _FOLDERS / f"{_prefix(destination)}{_digest(key)}"
    claim = atomic.claim(_CLAIM)
    try:
        if not path.exists():
            for other in path.parent.glob(f"film-*-{_digest(key)}"):
                with contextlib.suppress(OSError):  # another run takes it over or finishes it meanwhile
                    if _claims(other, claim) == [claim]:
                        other.rename(path)
                        break
                    (other / claim).unlink()
        path.mkdir(parents=True, exist_ok=True)
        yield None if any(name < claim for name in _claims(path, claim)) else WorkDir(path)
    finally:
        with contextlib.suppress(OSError):
            (path / claim).unlink(missing_ok=True)
        atomic.release(claim)


def _claims(path: Path, claim: str) -> list[str]:
    """Put a claim into a work directory, and return the names of all claims there."""
    (path / claim).touch()
    atomic.sweep(path)
    return [file.name for file in path.iterdir() if file.name.endswith(_CLAIM)]


def discard(destination: Path) -> None:
    """Remove the work directories of a finished output, which a run that was killed at its very end left.

    A directory that another run has claimed stays, and so does one that cannot be listed.
    """
    with contextlib.suppress(OSError):  # another run may remove the directory meanwhile
        for path in (destination.parent / _FOLDERS).glob(f"{_prefix(destination)}*"):
            atomic.sweep(path)
            if not any(file.name.endswith(_CLAIM) for file in path.iterdir()):
                WorkDir(path).remove()


def _prefix(destination: Path) -> str:
    """Return the beginning of the names of all work directories of an output."""
    return f"film-{_digest(destination.name)}-"


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def release_claims(directory: Path, prefix: str) -> None:
    """Release the claims of a process that has ended, perhaps on another host.

    Args:
        directory: Directory of the outputs.
        prefix: Result of `atomic.process_prefix` in that process.
    """
    for folder in (directory / _FOLDERS).glob("film-*"):
        atomic.remove_prefixed(folder, prefix)


def _state_of(file: str) -> str:
    return f"{file}.npz"
