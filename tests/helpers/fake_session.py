"""A fake session for the workers of a cluster. It reads no pictures and fails on command."""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from colorize_cli.core.jobs import Job, Outcome, Position, Progress, Status
from colorize_cli.core.pipeline import Pipeline, Stage
from colorize_cli.core.settings import Settings
from colorize_cli.engine.cluster.node_check import NodeCheck
from colorize_cli.storage import atomic
from colorize_cli.video.work_dir import Chunk

POISON = "poison.png"


@dataclass
class FakeSession:
    """Passes jobs through two stages. An outcome's `device` is the process, its `batch` the number of cores.

    Attributes:
        seconds: Duration of each job.
        cores: Number of cores given to the session.
        progress: Called with the position in a video.
    """

    seconds: float = 0.0
    cores: int = 0
    progress: Progress = lambda _: None

    def ended(self, _: Job) -> Outcome | None:
        return None

    def open(self) -> None:
        """Do nothing."""

    def colorize_images(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
        stages = (Stage("look", self._look), Stage("see", lambda job: job))
        for result in Pipeline(stages).run(jobs):
            yield self._outcome(result.source)

    def colorize_videos(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
        for job in jobs:
            for frame in range(3):
                self.progress(Position(job.source, frame, 3, 25.0))
                time.sleep(self.seconds)
            yield self._outcome(job)

    def split_video(self, job: Job, count: int) -> None:
        """Leave videos whole."""

    def colorize_chunk(self, chunk: Chunk) -> Outcome:
        raise AssertionError(chunk)

    def close(self, patience: float | None = None) -> None:
        """Do nothing."""

    def _look(self, job: Job) -> Job:
        if job.source.name == POISON:
            folder = job.destination.parent
            for place in (folder, *folder.glob(".colorize/film-*")):
                (place / atomic.claim(".png")).touch()
            os._exit(1)
        time.sleep(self.seconds)
        return job

    def _outcome(self, job: Job) -> Outcome:
        return Outcome(job, Status.DONE, device=str(os.getpid()), batch=self.cores)


def opened(seconds: float, cores: int, _: Callable[[str], None], progress: Progress) -> FakeSession:
    return FakeSession(seconds, cores, progress)


def build(seconds: float = 0.0) -> Callable[..., FakeSession]:
    """Return a function that makes a fake session in a worker."""
    return partial(opened, seconds)


def jobs(count: int) -> Iterator[Job]:
    for number in range(count):
        yield Job(Path(f"{number}.png"), Path("out") / f"{number}.png")


@dataclass(frozen=True)
class AcceptingCheck(NodeCheck):
    """A check that every node passes."""

    def examine(self) -> Path:
        return self.file

    def confirm(self, answer: Path) -> None:
        assert answer == self.file


ACCEPTING = AcceptingCheck("", Settings(), "", Path("out"), b"", Path("in"), ("", ""))
