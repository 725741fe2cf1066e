"""The nouns that every part shares."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from colorize_cli.core.location import Location


@dataclass(frozen=True)
class Job:
    """One picture to be coloured: where it is, and where its coloured copy goes; either may be `STREAM`."""

    source: Path
    destination: Path


@dataclass(frozen=True)
class Transfer:
    """A job of which one end or both are in a remote store.

    Attributes:
        source: Where the picture is.
        destination: Where its coloured copy goes.
        files: The job on this machine that stands for it, while its files are there; otherwise None.
    """

    source: Location
    destination: Location
    files: Job | None = field(default=None, compare=False)


class Status(Enum):
    """What became of a job."""

    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True)
class Outcome:
    """The end of a job.

    Attributes:
        job: The job.
        status: What became of it.
        reason: Why it was skipped or failed, in one line; otherwise None.
        seconds: Time spent by stage.
        device: Where the network ran, "cuda" or "cpu"; None where it was not needed.
        batch: How many pictures shared the call of the network; None likewise.
        frames: How many a film has; None for pictures.
        cuts: How many were found in it; None likewise.
        size: Short side in pixels of the copy that the network saw, where memory sufficed for no larger one.
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


@dataclass(frozen=True)
class Position:
    """How far a film is.

    Attributes:
        path: The film.
        frames: How many are done.
        expected: How many there will be, as far as the file says; None where it does not.
        rate: Frames a second when it is shown.
    """

    path: Location
    frames: int
    expected: int | None
    rate: float


Progress = Callable[[Position], None]


@dataclass(frozen=True)
class Plan:
    """What a run will do.

    Attributes:
        jobs: In the order of their sources' paths, as given on the command line.
        ignored: How many files in the searched directories are of no known kind.
        root: The directory that all outputs lie below; None where a single file becomes a single file.
        elsewhere: The jobs of the other shards.
    """

    jobs: tuple[Job, ...]
    ignored: int
    root: Path | None
    elsewhere: tuple[Job, ...] = ()
