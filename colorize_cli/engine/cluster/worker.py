"""The worker process on a node of a cluster: its session, and the transport form of jobs and outcomes."""

import os
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from colorize_cli.core.formats import is_video
from colorize_cli.core.jobs import Job, Outcome, Position, Progress
from colorize_cli.core.location import Url, absolute
from colorize_cli.engine import process_setup
from colorize_cli.engine.shared_run import SharedRun
from colorize_cli.storage import atomic
from colorize_cli.video.work_dir import Chunk

if TYPE_CHECKING:
    from colorize_cli.engine.videos import ClaimedVideo

Item = Job | Chunk  # what a worker does at one time, apart from other images


class SessionProtocol(Protocol):
    """The methods of `session.Session` that a worker uses."""

    def ended(self, job: Job) -> Outcome | None:
        """Return the outcome of a job that cannot or need not be done, or None."""

    def open(self) -> Any:
        """Load the model."""

    def colorize_images(self, jobs: Iterable[Job]) -> Generator[Outcome, None, None]:
        """Colorize a stream of images."""

    def colorize_videos(self, jobs: Iterable[Job]) -> Generator[Outcome, None, None]:
        """Colorize videos."""

    def split_video(self, job: Job, count: int) -> "ClaimedVideo | Outcome | None":
        """Split a video into chunks for workers.

        Returns:
            The video in several chunks; its outcome if the job has ended already; or None if one worker must
            do it whole.
        """

    def colorize_chunk(self, chunk: Chunk) -> Outcome:
        """Colorize a chunk of a video."""

    def close(self, patience: float | None = None) -> None:
        """Close the manifest and remove staged files, waiting for a store for at most `patience` seconds."""


# Transport form, at half the cost of pickled objects: a job as its two paths, and an outcome as its fields
# without the job, in the order of the jobs. Jobs with URLs, and chunks of videos, are sent as they are.
Sent = tuple[str, str] | Job | Chunk
Returned = dict[str, Any]

# Makes a session from its number of cores, a function for lines to the user, and a function for positions.
Build = Callable[[int, Callable[[str], None], Progress], SessionProtocol]


class Actor:
    """A session in a separate process. Its methods are called from several threads."""

    def open(self, build: Build, cores: int) -> tuple[list[str], str]:
        """Build and open the session.

        Returns:
            Lines for the user, and the name prefix of this process's temporary files.
        """
        process_setup.prepare()
        lines: list[str] = []
        self._position: Position | None = None
        self._session = build(cores, lines.append, self._note)
        self._images = SharedRun(self._session.colorize_images)
        self._session.open()
        return lines, atomic.process_prefix()

    def outcomes(self, batch: Sequence[Sent]) -> list[Returned]:
        """Process a batch: images, or one video, or one chunk of a video."""
        items = [Job(Path(item[0]), Path(item[1])) if isinstance(item, tuple) else item for item in batch]
        left_out = ("job", "files")  # they are of this process
        return [
            {name: value for name, value in vars(outcome).items() if name not in left_out}
            for outcome in self._outcomes(items)
        ]

    def _outcomes(self, items: Sequence[Item]) -> list[Outcome]:
        jobs = [item for item in items if isinstance(item, Job)]
        self._position = None
        if len(jobs) < len(items):
            return [self._session.colorize_chunk(item) for item in items if isinstance(item, Chunk)]
        if is_video(jobs[0].source):
            return list(self._session.colorize_videos(jobs))
        # A worker that was lost may have finished some of them without an answer.
        known = [self._session.ended(job) for job in jobs]
        done = iter(self._images.outcomes([job for job, out in zip(jobs, known, strict=True) if not out]))
        return [out or next(done) for out in known]

    def position(self) -> Position | None:
        """Return the position in the video or chunk under way; None if there is none."""
        return self._position

    def close(self) -> None:
        """End the shared run and close the session."""
        self._images.close()
        self._session.close()

    def leave(self) -> None:
        """Remove temporary files and exit the process."""
        atomic.abandon()
        self._session.close(0.0)
        os._exit(0)

    def _note(self, position: Position) -> None:
        self._position = position


def absolute_job(job: Job) -> Job:
    """Return the job with absolute paths, for a process with another working directory."""
    return replace(job, source=absolute(job.source), destination=absolute(job.destination))


def sent(item: Item) -> Sent:
    """Convert an item to its transport form. Its paths become absolute."""
    if isinstance(item, Chunk):
        source, destination, folder = (
            path.absolute() for path in (item.source, item.destination, item.folder)
        )
        return replace(item, source=source, destination=destination, folder=folder)
    if isinstance(item.source, Url) or isinstance(item.destination, Url):
        return absolute_job(item)
    here = Path.cwd()
    return os.path.join(here, item.source), os.path.join(here, item.destination)  # noqa: PTH118
