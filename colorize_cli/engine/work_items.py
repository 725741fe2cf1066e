"""Units of work for other processes: jobs, and chunks of videos.

Imports no PyAV, which only videos need.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from colorize_cli.core.jobs import Job
from colorize_cli.video import work_dir

if TYPE_CHECKING:
    from colorize_cli.video.chunks import Chunk


@dataclass(frozen=True)
class ChunkJob:
    """A chunk of a video, colorized by one worker.

    Attributes:
        job: The job of the whole video.
        folder: The video's work directory, claimed by the process that split the video.
        chunk: The chunk to colorize.
    """

    job: Job
    folder: Path
    chunk: "Chunk"


Item = Job | ChunkJob


def job_of(item: Item) -> Job:
    """Return the job itself, or the job that a chunk belongs to."""
    return item.job if isinstance(item, ChunkJob) else item


def absolute(job: Job) -> Job:
    """Return the job with absolute paths, for a process with another working directory."""
    return Job(job.source.absolute(), job.destination.absolute())


def absolute_chunk_job(chunk_job: ChunkJob) -> ChunkJob:
    """Return the chunk job with absolute paths, for a worker with another working directory."""
    return replace(chunk_job, job=absolute(chunk_job.job), folder=chunk_job.folder.absolute())


def folder_of(item: Item) -> Path:
    """Return the directory in which a worker writes the temporary files of `item`."""
    if isinstance(item, ChunkJob):
        return work_dir.chunk_dir(item.folder, item.chunk.number)
    return item.destination.parent
