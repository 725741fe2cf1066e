"""A film in parts: divided and joined in one process, its parts coloured in whichever others.

begin -> pieces -> colour, of each, anywhere -> answered, by each -> the film's outcome
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from colorize_cli.core.jobs import Job, Outcome, Position, Progress, Status
from colorize_cli.core.settings import Settings
from colorize_cli.engine import videos
from colorize_cli.engine.outputs import Outputs
from colorize_cli.engine.videos import Work
from colorize_cli.engine.work_items import Piece
from colorize_cli.inference.adapters import Card
from colorize_cli.inference.model import Model
from colorize_cli.video import chunks, reader
from colorize_cli.video.chunks import Part
from colorize_cli.video.stages import Told
from colorize_cli.video.work_dir import WorkFolder

# Seconds. Dividing takes reading the film once more, by the process that hands out all work; of shorter films
# each worker has its own.
SHORTEST = 20.0


class Divided:
    """A film whose parts are under way. Its work folder is claimed until `close`.

    Attributes:
        pieces: What is to be coloured.
    """

    def __init__(
        self, job: Job, work: Work, parts: Sequence[Part], settings: Settings, release: Callable[[], None]
    ) -> None:
        """Of a film that was divided; `release` ends the claim."""
        self.pieces = [Piece(job, work.folder.path, part) for part in parts]
        self._job, self._work, self._parts, self._settings = job, work, parts, settings
        self._answers: dict[int, Outcome] = {}
        self._frames: dict[int, int] = {}
        self.close = release

    def advanced(self, piece: Piece, position: Position) -> Position:
        """How far the film is, when one of its parts is so far, as far as is known of the others."""
        self._frames[piece.part.number] = position.frames
        expected = sum(part.frames for part in self._parts)
        return replace(position, frames=sum(self._frames.values()), expected=expected)

    def answered(self, piece: Piece, outcome: Outcome) -> Outcome | None:
        """Takes what became of a part; with the last of them joins the film and gives its outcome.

        Where a part failed the film has. What the others are stays in its work folder, for the next run.
        """
        self._answers[piece.part.number] = outcome
        self._frames[piece.part.number] = piece.part.frames
        if len(self._answers) < len(self._parts):
            return None
        try:
            for _, answer in sorted(self._answers.items()):
                if answer.status is not Status.DONE:
                    return answer
            return videos.explained(self._job, self._joined)
        finally:
            self.close()

    def _joined(self) -> Outcome:
        told = Told()

        def whole(path: Path) -> None:
            work = self._work
            chunks.join_parts(
                self._job.source, path, work.kind, work.folder, self._parts, self._settings, told
            )

        self._work.write(told, whole)
        for answer in self._answers.values():
            for stage, seconds in answer.seconds.items():
                told.seconds[stage] = told.seconds.get(stage, 0.0) + seconds
        last = self._answers[len(self._parts) - 1]
        return videos.ended(self._job, told, last.device, last.batch)


def begin(job: Job, card: Card, settings: Settings, outputs: Outputs, count: int) -> Divided | Outcome | None:
    """Divides a film, if it is to be coloured at all and worth it.

    Args:
        job: The film.
        card: Of the network that is to colour it.
        settings: How.
        outputs: What is there, and notes on what is made.
        count: About how many parts there are to be.

    Returns:
        The film in parts; its outcome, if it has one already; or None if one worker is to do all of it.
    """
    if not videos.in_stretches(job, settings):
        return None
    return videos.explained(job, lambda: _begun(job, card, settings, outputs, count))


def _begun(
    job: Job, card: Card, settings: Settings, outputs: Outputs, count: int
) -> Divided | Outcome | None:
    if not _is_long(job.source, settings):
        return None
    read = videos.prepared(job, settings, outputs)
    if read is None:
        return videos.ended(job, Told(), None, None)
    with contextlib.ExitStack() as stack:
        work = stack.enter_context(videos.claimed(job, read, outputs))
        if work.folder.done:  # it was begun in one go, and is gone on with like that
            return None
        parts = chunks.parts(job.source, work.folder, card, settings, count)
        if len(parts) == 1:
            return None
        return Divided(job, work, parts, settings, stack.pop_all().close)


def _is_long(path: Path, settings: Settings) -> bool:
    """Whether what is asked for of a film is worth dividing, as far as the file says how long it is."""
    with reader.opened(path) as film:
        length = film.seconds - settings.film.start
    asked = settings.film.duration
    return (length if asked is None else min(length, asked)) >= SHORTEST


def colour(piece: Piece, network: Model, settings: Settings, progress: Progress) -> Outcome:
    """Colours a part of a film.

    Args:
        piece: Which.
        network: What colours.
        settings: How.
        progress: Is told how far the part is.

    Returns:
        An outcome of the film's job that is about this part of it. That the part is damaged is no failure of
        its; the film's outcome will tell of that.
    """
    job = piece.job

    def work() -> Outcome:
        told, kind, folder = Told(), job.destination.suffix.lower(), WorkFolder(piece.folder)
        chunks.colour_part(job.source, kind, folder, piece.part, network, settings, told, progress)
        told.damaged = 0
        return videos.ended(job, told, network.device, settings.batch_size or network.batch_size)

    return videos.explained(job, work)
