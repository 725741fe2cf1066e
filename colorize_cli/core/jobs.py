"""Data classes shared by all packages."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Self

from colorize_cli.core.errors import reason_of
from colorize_cli.core.location import Location


@dataclass(frozen=True)
class Job:
    """The source and the destination of one picture or video. Either may be `STREAM`."""

    source: Path
    destination: Path


@dataclass(frozen=True)
class Transfer:
    """A job with its source, its destination or both in a remote store.

    Attributes:
        source: Location of the input.
        destination: Location of the output.
        files: The job with local copies of the files, while they exist; otherwise None.
    """

    source: Location
    destination: Location
    files: Job | None = field(default=None, compare=False)


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
    """

    job: Job | Transfer
    status: Status
    reason: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    device: str | None = None
    batch: int | None = None
    frames: int | None = None
    cuts: int | None = None
    size: int | None = None

    @classmethod
    def done(cls, job: Job | Transfer, **figures: Any) -> Self:
        """Return the outcome of a job whose output was made. `figures` are attributes by name."""
        return cls(job, Status.DONE, **figures)

    @classmethod
    def skipped(cls, job: Job | Transfer, reason: str) -> Self:
        """Return the outcome of a job that need not be done."""
        return cls(job, Status.SKIPPED, reason)

    @classmethod
    def failed(cls, job: Job | Transfer, why: str | Exception, **figures: Any) -> Self:
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
    """

    path: Location
    frames: int
    expected: int | None
    rate: float


Progress = Callable[[Position], None]


@dataclass(frozen=True)
class Plan:
    """All jobs of a run.

    Attributes:
        jobs: In the order of the inputs on the command line; within a directory sorted by path.
        ignored: Number of files of unsupported types in the searched directories.
        root: Directory that contains all outputs; None if a single file is written to a single file.
        elsewhere: Jobs of the other shards.
    """

    jobs: tuple[Job, ...]
    ignored: int
    root: Path | None
    elsewhere: tuple[Job, ...] = ()
