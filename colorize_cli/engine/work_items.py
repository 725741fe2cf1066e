"""What is handed out to other processes: jobs, and parts of films. Without PyAV, which only films need."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from colorize_cli.core.jobs import Job
from colorize_cli.video import work_dir

if TYPE_CHECKING:
    from colorize_cli.video.chunks import Part


@dataclass(frozen=True)
class Piece:
    """A part of a film that one worker colours.

    Attributes:
        job: The film.
        folder: Its work folder, which whoever divided it has claimed.
        part: Which of its parts.
    """

    job: Job
    folder: Path
    part: "Part"


Item = Job | Piece


def job_of(item: Item) -> Job:
    """The job that it is, or is a part of."""
    return item.job if isinstance(item, Piece) else item


def absolute(job: Job) -> Job:
    """A job for processes that have another working directory."""
    return Job(job.source.absolute(), job.destination.absolute())


def absolute_piece(piece: Piece) -> Piece:
    """Likewise."""
    return replace(piece, job=absolute(piece.job), folder=piece.folder.absolute())


def folder_of(item: Item) -> Path:
    """Where whoever does it has files that are half written."""
    if isinstance(item, Piece):
        return work_dir.part_of(item.folder, item.part.number)
    return item.destination.parent
