"""Data classes shared by all packages."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Self

from colorize_cli.core.errors import reason_of
from colorize_cli.core.location import Location


@dataclass(frozen=True)
class FileInfo:
    """A store's metadata of an object or directory.

    Attributes:
        path: Path in the store's form. On the web it is the URL, which may hold secrets.
        is_directory: True for a directory, or a prefix of object names.
        size: Size in bytes; None if the store does not give it.
        version: Value that changes with every write; None if the store does not give one.
    """

    path: str = field(repr=False)
    is_directory: bool
    size: int | None
    version: str | None


@dataclass(frozen=True)
class Job:
    """The source and the destination of one picture or video.

    Attributes:
        source: Location of the input, or `STREAM`.
        destination: Location of the output, or `STREAM`.
        found: The store's metadata of the source when it was listed; None for a path.
        refused: Reason why the job cannot be done; None if it can.
        hints: Location of the file with hints beside the source; None if there is none.
    """

    source: Location
    destination: Location
    found: FileInfo | None = field(default=None, compare=False)
    refused: str | None = field(default=None, compare=False)
    hints: Location | None = field(default=None, compare=False)


@dataclass(frozen=True)
class LocalFiles:
    """The files of a job on this machine: its own, or staged copies of those in a store.

    Attributes:
        job: The job.
        source: Path of the input, or `STREAM`. A staged copy exists once it is fetched.
        destination: Path of the output, or `STREAM`.
    """

    job: Job
    source: Path
    destination: Path


UP_TO_DATE = "up to date"  # reason of jobs that an earlier run did


class Status(Enum):
    """The ways in which a job can end."""

    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True)
class Outcome:
    """The result of a job. `done`, `skipped` and `failed` make one.

    Attributes:
        job: The job.
        status: How the job ended.
        reason: One line on why it was skipped or failed; otherwise None.
        seconds: Time spent, by stage.
        device: Device that ran the network, "cuda" or "cpu"; None if the network was not needed.
        batch: Number of pictures in the call of the network; None if the network was not needed.
        frames: Number of frames of a video; None for pictures.
        cuts: Number of cuts found in a video; None for pictures.
        size: Short side in pixels of the network's input, if memory did not suffice for a larger one;
            otherwise None.
        ignored: Numbers of the ignored files by ending, for a directory; otherwise None.
        notes: Lines on what the output lacks or holds in another form than the source.
        files: The files on this machine, until the next outcome is requested; None if there are none.
    """

    job: Job
    status: Status
    reason: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    device: str | None = None
    batch: int | None = None
    frames: int | None = None
    cuts: int | None = None
    size: int | None = None
    ignored: Mapping[str, int] | None = None
    notes: tuple[str, ...] = ()
    files: LocalFiles | None = field(default=None, compare=False)

    @property
    def is_up_to_date(self) -> bool:
        """True if the job was skipped because an earlier run did it."""
        return self.status is Status.SKIPPED and self.reason == UP_TO_DATE

    @classmethod
    def done(cls, job: Job, **figures: Any) -> Self:
        """Return the outcome of a job whose output was made. `figures` are attributes by name."""
        return cls(job, Status.DONE, **figures)

    @classmethod
    def skipped(cls, job: Job, reason: str) -> Self:
        """Return the outcome of a job that need not be done."""
        return cls(job, Status.SKIPPED, reason)

    @classmethod
    def failed(cls, job: Job, why: str | Exception, **figures: Any) -> Self:
        """Return the outcome of a job that failed, with the reason or the error. `figures` as for `done`."""
        reason = why if isinstance(why, str) else reason_of(why)
        return cls(job, Status.FAILED, reason, **figures)


@dataclass(frozen=True)
class Position:
    """The progress of a video.

    Attributes:
        path: Location of the video.
        frames: Number of frames that are done.
        expected: Number of frames in total according to the file; None if the file does not give it.
        rate: Playback rate in frames per second.
        kept: Number of frames in finished segments, from which the next run goes on after an interruption.
    """

    path: Location
    frames: int
    expected: int | None
    rate: float
    kept: int = 0


Progress = Callable[[Position], None]


@dataclass(frozen=True)
class Plan:
    """All jobs of a run.

    Attributes:
        jobs: In the order of the inputs on the command line; within a directory sorted by path.
        left_out: Outcomes of directories that are not read completely. Files of other kinds are left out, or
            all files, if the directory holds outputs of an earlier run or stands in a list.
        root: Directory that contains all outputs; None if a single file is written to a single file.
        elsewhere: Jobs of the other shards.
        searched: True if a directory was searched.
    """

    jobs: tuple[Job, ...]
    left_out: tuple[Outcome, ...]
    root: Location | None
    elsewhere: tuple[Job, ...] = ()
    searched: bool = False
