"""What is handed out to other processes: jobs, and parts of films. Without PyAV, which only films need."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from colorize_cli.core.jobs import Job
from colorize_cli.video import work_dir

if TYPE_CHECKING:
    from colorize_cli.video.chunks import Chunk


@dataclass(frozen=True)
class ChunkJob:
    """A part of a film that one worker colours.

    Attributes:
        job: The film.
        folder: Its work folder, which whoever divided it has claimed.
        chunk: Which of its parts.
    """

    job: Job
    folder: Path
    chunk: "Chunk"


Item = Job | ChunkJob


def job_of(item: Item) -> Job:
    """The job that it is, or is a part of."""
    return item.job if isinstance(item, ChunkJob) else item


def absolute(job: Job) -> Job:
    """A job for processes that have another working directory."""
    return Job(job.source.absolute(), job.destination.absolute())


def absolute_chunk_job(chunk_job: ChunkJob) -> ChunkJob:
    """Likewise."""
    return replace(chunk_job, job=absolute(chunk_job.job), folder=chunk_job.folder.absolute())


def folder_of(item: Item) -> Path:
    """Where whoever does it has files that are half written."""
    if isinstance(item, ChunkJob):
        return work_dir.chunk_dir(item.folder, item.chunk.number)
    return item.destination.parent
