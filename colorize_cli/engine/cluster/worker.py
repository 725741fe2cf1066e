"""What runs in the processes of a cluster's nodes: a session each, and how jobs and outcomes travel."""

import os
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from colorize_cli.core.formats import is_video
from colorize_cli.core.jobs import Job, Outcome, Position, Progress
from colorize_cli.engine import process_setup
from colorize_cli.engine.shared_run import SharedRun
from colorize_cli.engine.work_items import ChunkJob, Item, absolute_chunk_job
from colorize_cli.storage import atomic

if TYPE_CHECKING:
    from colorize_cli.engine.video_chunks import SplitVideo


class SessionProtocol(Protocol):
    """What does jobs in one process, as `session.Session` does."""

    def skipped(self, job: Job) -> Outcome | None:
        """The outcome of a job that need not be done."""

    def open(self) -> Any:
        """Gets ready."""

    def colorize_images(self, jobs: Iterable[Job]) -> Generator[Outcome, None, None]:
        """Does pictures as they come."""

    def colorize_video(self, job: Job) -> Outcome:
        """Does a film."""

    def split_video(self, job: Job, count: int) -> "SplitVideo | Outcome | None":
        """Divides a film, of which the parts are then done by others, or says what became of it."""

    def colorize_chunk(self, chunk_job: ChunkJob) -> Outcome:
        """Does a part of a film."""

    def close(self) -> None:
        """Ends what is open."""


# How jobs and outcomes travel, which is half the price of the objects: a job as its two paths, and an outcome
# as its fields but for the job, in the order of the jobs. Parts of films are few.
Sent = tuple[str, str] | ChunkJob
Returned = dict[str, Any]

# Makes a session; is given how many cores it has, whom to tell the user's lines, and whom how far a film is.
Build = Callable[[int, Callable[[str], None], Progress], SessionProtocol]


class Actor:
    """A session in a process of its own. Its methods are called from several threads."""

    def open(self, build: Build, cores: int) -> tuple[list[str], str]:
        """Gets ready; the lines for the user, and the mark of the files that are being written here."""
        process_setup.prepare()
        lines: list[str] = []
        self._position: Position | None = None
        self._session = build(cores, lines.append, self._note)
        self._pictures = SharedRun(self._session.colorize_images)
        self._session.open()
        return lines, atomic.process_prefix()

    def outcomes(self, chunk: Sequence[Sent]) -> list[Returned]:
        """Does a chunk: pictures, or one film or part of one."""
        items = [item if isinstance(item, ChunkJob) else Job(Path(item[0]), Path(item[1])) for item in chunk]
        return [_fields(outcome) for outcome in self._outcomes(items)]

    def _outcomes(self, items: Sequence[Item]) -> list[Outcome]:
        jobs = [item for item in items if isinstance(item, Job)]
        self._position = None
        if len(jobs) < len(items):
            return [self._session.colorize_chunk(item) for item in items if isinstance(item, ChunkJob)]
        if is_video(jobs[0].source):
            return [self._session.colorize_video(job) for job in jobs]
        # Asked once more, as a worker may have done them that did not live to say so.
        known = [self._session.skipped(job) for job in jobs]
        done = iter(self._pictures.outcomes([job for job, out in zip(jobs, known, strict=True) if not out]))
        return [out or next(done) for out in known]

    def position(self) -> Position | None:
        """How far its film is, if it has one."""
        return self._position

    def close(self) -> None:
        """Ends what is open."""
        self._pictures.close()
        self._session.close()

    def leave(self) -> None:
        """Ends the process, with what is half written removed."""
        atomic.abandon()
        os._exit(0)

    def _note(self, position: Position) -> None:
        self._position = position


def sent(item: Item, here: str) -> Sent:
    """An item as it travels; `here` is the directory that relative paths of jobs begin in."""
    if isinstance(item, ChunkJob):
        return absolute_chunk_job(item)
    return os.path.join(here, item.source), os.path.join(here, item.destination)  # noqa: PTH118


def _fields(outcome: Outcome) -> Returned:
    return {name: value for name, value in vars(outcome).items() if name != "job"}
