"""Work directories: the finished segments of a video, from which an interrupted run resumes.

A work directory is `.colorize/film-{name}-{key}` beside the output. The name is a digest of the output's
name. The key is a digest of the source's content, the encoding, and all settings that affect pixels. A
directory with the same key and another name is taken over if no run has claimed it: the user has given the
output another name. A work directory holds encoded segments and a journal with one line for each finished
segment. A line is written after its segment and its state, which is the network input and chroma of the
segment's last frame. So the output after an interruption is the same as without. The line has a digest
of all these. What does not fit it is not used, and is made again.

A run claims the work directory by a lock on a file in it. The lock ends with the process, on whatever host,
and with the host. A run that has claimed one removes the output's other work directories, of other options or
another source, unless a run has claimed them.

Every chunk of a split video has such a directory inside the video's. It is not claimed: if two workers
process a chunk, because one was presumed dead, complete files replace each other.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from colorize_cli.color.lab import Floats
from colorize_cli.core.errors import WriteError
from colorize_cli.storage import atomic
from colorize_cli.storage.filesystem import inode, open_regular

_JOURNAL = "stretches.jsonl"
_CLAIM = ".claim"
_CHUNK = "part-"
_TRIES = 100
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
        digest: Digest of the other fields, and of the content of the file and of its state.
    """

    file: str
    first: int
    frames: int
    size: int
    cuts: int
    place: int
    digest: str = ""


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
        return self.folder if self.frames is None else self.folder / f"{_CHUNK}{self.number:04d}"

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

    def __init__(self, path: Path, *, check: bool = True) -> None:
        """Read the journal.

        Args:
            path: Path of the directory.
            check: False to trust the content of files whose sizes are right.
        """
        self.path = path
        self.done: list[Segment] = []
        self._inode = inode(path)
        with contextlib.suppress(FileNotFoundError), open_regular(path / _JOURNAL) as journal:
            for line in journal:
                # Torn or damaged, or the files are not there.
                with contextlib.suppress(ValueError, TypeError, OSError, RecursionError):
                    segment = Segment(**json.loads(line))
                    size = (path / segment.file).stat().st_size
                    state = (path / _state_of(segment.file)).is_file()
                    if segment.file != self.name() or size != segment.size or not state:
                        continue
                    if not check or segment.digest == self._digest(segment):
                        self.done.append(segment)

    def check(self) -> None:
        """Check that the path still names the same directory.

        Raises:
            WriteError: It was moved away, or exchanged for another directory or a link.
        """
        if self.path.is_symlink() or inode(self.path) != self._inode:
            raise WriteError(f"{self.path} was removed or exchanged during the run")

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
        segment = replace(segment, digest=self._digest(segment))
        line = f"\n{json.dumps(asdict(segment))}\n".encode()  # the previous line may be incomplete
        with (self.path / _JOURNAL).open("ab") as journal:
            journal.write(line)
            journal.flush()
            atomic.sync(journal.fileno())
        self.done.append(segment)

    def _digest(self, segment: Segment) -> str:
        digest = hashlib.blake2b(repr(replace(segment, digest="")).encode(), digest_size=16)
        for name in (segment.file, _state_of(segment.file)):
            with open_regular(self.path / name) as file:
                digest.update(hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest())
        return digest.hexdigest()

    def clear(self) -> None:
        """Remove everything in the directory.

        Raises:
            OSError: Something cannot be removed.
        """
        shutil.rmtree(self.path)
        self.path.mkdir()
        self.done, self._inode = [], inode(self.path)

    def remove(self) -> None:
        """Remove the directory, and `.colorize` if it is then empty. Errors are ignored."""
        with contextlib.suppress(OSError):
            # The claim goes last: from then on another run may use the directory.
            for each in sorted(self.path.iterdir(), key=lambda path: path.name == _CLAIM):
                if each.is_dir() and not each.is_symlink():
                    shutil.rmtree(each, ignore_errors=True)
                else:
                    each.unlink(missing_ok=True)
            self.path.rmdir()
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()


@contextlib.contextmanager
def claimed(destination: Path, key: str) -> Iterator[WorkDir | None]:
    """Claim the work directory for `destination`; yields None if another run has claimed it.

    Args:
        destination: The output.
        key: Identifies the source's content, the encoding and all settings that affect pixels.

    Raises:
        WriteError: `.colorize` or the directory in it is a link.
        OSError: The directory cannot be created.
    """
    path = destination.parent / _FOLDERS / f"{_prefix(destination)}{_digest(key)}"
    if not path.exists():
        for other in path.parent.glob(f"film-*-{_digest(key)}"):
            with contextlib.suppress(OSError, WriteError), _locked(other) as free:
                if free:  # else another run finishes it
                    other.rename(path)
                    break
    with _locked(path) as locked:
        if locked:
            sweep(path)
            discard(destination, path)
        yield WorkDir(path, check=False) if locked else None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Create a work directory and lock it for the block; yields False if another run has locked it.

    Raises:
        WriteError, OSError: As in `claimed`.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    for left in reversed(range(_TRIES)):
        try:
            for directory in (path.parent, path):
                directory.mkdir(parents=True, exist_ok=True)
                if directory.is_symlink():
                    raise WriteError(f"{directory} is a link; remove it")
            file = os.open(path / _CLAIM, flags, 0o666)
        except (FileNotFoundError, FileExistsError):  # another run has removed it meanwhile
            if not left:
                raise
            continue
        try:
            locked = atomic.lock(file) is not False
            if locked and inode(path / _CLAIM) != (os.fstat(file).st_dev, os.fstat(file).st_ino):
                continue  # another run has removed it meanwhile
            if locked:
                os.ftruncate(file, 0)
                os.write(file, atomic.process_prefix().encode())
            yield locked
            return
        finally:
            os.close(file)
    raise WriteError(f"{path} is removed by other runs again and again")


def sweep(path: Path) -> None:
    """Remove temporary files of killed workers from a work directory, and what cannot be of a run."""
    atomic.sweep(path)
    for each in list(path.iterdir()):
        if each.is_symlink() or not (each.is_file() or each.is_dir()):  # opening a pipe would wait
            each.unlink(missing_ok=True)
        elif each.is_dir() and not each.name.startswith(_CHUNK):
            shutil.rmtree(each, ignore_errors=True)


def discard(destination: Path, kept: Path | None = None) -> None:
    """Remove the work directories of an output that no run has claimed.

    A directory that cannot be listed stays.

    Args:
        destination: The output.
        kept: Work directory to keep.
    """
    with contextlib.suppress(OSError, WriteError):  # another run may remove the directory meanwhile
        for path in (destination.parent / _FOLDERS).glob(f"{_prefix(destination)}*"):
            if path != kept:
                with _locked(path) as locked:
                    if locked:
                        WorkDir(path, check=False).remove()


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
        with contextlib.suppress(OSError):
            # A process that still runs, cut off from the others, keeps its lock on a file without a name.
            if (folder / _CLAIM).read_text() == prefix:
                (folder / _CLAIM).unlink()


def _state_of(file: str) -> str:
    return f"{file}.npz"
