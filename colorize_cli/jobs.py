"""The nouns that every part shares, and the plan of a run: which files are read, and where to.

Nothing here opens a picture, and a plan holds only paths, so a directory of 50,000 files is planned in a
second.
"""

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from colorize_cli.errors import UsageError

MOST_STRENGTH = 2.0
SIZES = (16, 4096)


@dataclass(frozen=True)
class Job:
    """One picture to be coloured: where it is, and where its coloured copy goes."""

    source: Path
    destination: Path


@dataclass(frozen=True)
class Settings:
    """What a run is asked to do.

    Attributes:
        model: An ONNX file; None for the model that comes with this package.
        device: "auto", "cuda" or "cpu".
        batch_size: Most pictures in one call of the network.
        workers: Threads for each of reading, composing and writing.
        size: Short side in pixels of the copy that the network sees; None for the model's own.
        strength: Factor on the predicted chroma: 0 is grey, 1 what the model says.
        overwrite: Replace outputs that exist; otherwise they are skipped.
        max_pixels: Pictures of more pixels are refused before they are decoded.
    """

    model: Path | None = None
    device: str = "auto"
    batch_size: int = 8
    workers: int = field(default_factory=lambda: available_cores())
    size: int | None = None
    strength: float = 1.0
    overwrite: bool = False
    max_pixels: int = 250_000_000

    def __post_init__(self) -> None:
        """Refuses what no run can do, with a UsageError."""
        if not 0 <= self.strength <= MOST_STRENGTH:  # false for NaN too
            raise UsageError(f"strength {self.strength} is not between 0 and {MOST_STRENGTH:g}")
        if self.size is not None and not SIZES[0] <= self.size <= SIZES[1]:
            raise UsageError(f"size {self.size} is not between {SIZES[0]} and {SIZES[1]}")
        if min(self.batch_size, self.workers, self.max_pixels) < 1:
            raise UsageError("batch_size, workers and max_pixels are at least 1")


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
        reason: For a failure, why, in one line; otherwise None.
        seconds: Time spent by stage.
    """

    job: Job
    status: Status
    reason: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What a run will do.

    Attributes:
        jobs: In the order of their sources' paths, as given on the command line.
        ignored: How many files in the searched directories are of no known kind.
    """

    jobs: tuple[Job, ...]
    ignored: int


def available_cores() -> int:
    """How many CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def plan(inputs: Sequence[Path], output: Path, suffixes: Collection[str]) -> Plan:
    """Finds the pictures and where they go.

    A directory is searched to its leaves and its tree is kept below `output`; hidden files and directories
    are left out, links are followed unless they lead back, and so is `output` where it lies inside. A file
    that is named goes into `output` under its own name, whatever its kind, or, if it is the only input and
    `output` ends in one of `suffixes` and is no directory, becomes `output`.

    Args:
        inputs: Files and directories.
        output: A directory, which need not exist, or a file.
        suffixes: Known endings of picture files, in lower case, with the dot.

    Raises:
        UsageError: An input does not exist or cannot be searched, `output` is a file where a directory is
            needed or has an unknown ending where a file is meant, two sources have one destination, or a
            destination is a source. Both paths are named.
    """
    try:
        return _plan(inputs, output, suffixes)
    except OSError as error:
        raise UsageError(f"{error.filename}: {error.strerror}") from error


def _plan(inputs: Sequence[Path], output: Path, suffixes: Collection[str]) -> Plan:
    for path in inputs:
        if not path.exists():
            raise UsageError(f"no such file or directory: {path}")
    if _is_file_to_file(inputs, output, suffixes):
        jobs = [Job(inputs[0], output)]
        ignored = 0
    else:
        if output.exists() and not output.is_dir():
            raise UsageError(f"the output {output} is a file; give a directory")
        jobs, ignored = _search(inputs, output, suffixes)
    jobs = list(dict.fromkeys(jobs))
    _refuse_collisions(jobs)
    return Plan(tuple(jobs), ignored)


def _is_file_to_file(inputs: Sequence[Path], output: Path, suffixes: Collection[str]) -> bool:
    if len(inputs) != 1 or inputs[0].is_dir() or output.is_dir():
        return False
    if output.suffix and output.suffix.lower() not in suffixes:
        known = ", ".join(sorted(suffixes))
        raise UsageError(f"{output} is no directory, and {output.suffix} none of the known endings: {known}")
    return bool(output.suffix)


def _search(inputs: Sequence[Path], output: Path, suffixes: Collection[str]) -> tuple[list[Job], int]:
    excluded = _identity(output)
    jobs: list[Job] = []
    ignored = 0
    for path in inputs:
        if not path.is_dir():
            jobs.append(Job(path, output / path.name))
            continue
        if _identity(path) == excluded:
            raise UsageError(f"the output {output} is the input {path}; inputs are never modified")
        for relative in _files(path, excluded):
            if os.path.splitext(relative)[1].lower() in suffixes:  # noqa: PTH122  (50,000 Paths cost seconds)
                jobs.append(Job(path / relative, output / relative))
            else:
                ignored += 1
    return jobs, ignored


def _files(root: Path, excluded: tuple[int, int] | None) -> Iterator[str]:
    """Paths of the files below a directory, relative to it, sorted; hidden ones left out."""

    def walk(relative: str, above: frozenset[tuple[int, int]]) -> Iterator[str]:
        with os.scandir(root / relative) as entries:
            listed = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
        for entry in listed:
            below = f"{relative}{os.sep}{entry.name}" if relative else entry.name
            if not _is_directory(entry):
                yield below
                continue
            identity = _identity(Path(entry.path))
            if identity is not None and identity != excluded and identity not in above:
                yield from walk(below, above | {identity})

    own = _identity(root)
    yield from walk("", frozenset() if own is None else frozenset({own}))


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself: it will fail as a job of its own
        return False


def _identity(path: Path) -> tuple[int, int] | None:
    """What makes two paths the same directory or file; None where there is nothing."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def _refuse_collisions(jobs: Sequence[Job]) -> None:
    directories: dict[Path, str] = {}

    def real(path: Path) -> str:
        """The path without links in its directory, which many files share."""
        if path.parent not in directories:
            directories[path.parent] = os.path.realpath(path.parent)
        return os.path.normcase(f"{directories[path.parent]}{os.sep}{path.name}")

    owners: dict[str, Job] = {}
    for job in jobs:
        other = owners.setdefault(real(job.destination), job)
        if other is not job:
            raise UsageError(f"{other.source} and {job.source} would both become {job.destination}")
    for job in jobs:
        # The path itself, and what it leads to if it is a link.
        for source in {real(job.source), os.path.normcase(os.path.realpath(job.source))}:
            if source in owners:
                raise UsageError(f"{owners[source].source} would replace the input {job.source}")
