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
from colorize_cli.engine.videos import VideoWork
from colorize_cli.engine.work_items import ChunkJob
from colorize_cli.inference.adapters import ModelInfo
from colorize_cli.inference.model import Model
from colorize_cli.video import chunks, reader
from colorize_cli.video.chunks import Chunk
from colorize_cli.video.stages import VideoStats
from colorize_cli.video.work_dir import WorkDir

# Seconds. Dividing takes reading the film once more, by the process that hands out all work; of shorter films
# each worker has its own.
SHORTEST = 20.0


class SplitVideo:
    """A film whose parts are under way. Its work folder is claimed until `close`.

    Attributes:
        chunk_jobs: What is to be coloured.
    """

    def __init__(
        self,
        job: Job,
        work: VideoWork,
        all_chunks: Sequence[Chunk],
        settings: Settings,
        release: Callable[[], None],
    ) -> None:
        """Of a film that was divided; `release` ends the claim."""
        self.chunk_jobs = [ChunkJob(job, work.folder.path, chunk) for chunk in all_chunks]
        self._job, self._work, self._chunks, self._settings = job, work, all_chunks, settings
        self._answers: dict[int, Outcome] = {}
        self._frames: dict[int, int] = {}
        self.close = release

    def advanced(self, chunk_job: ChunkJob, position: Position) -> Position:
        """How far the film is, when one of its parts is so far, as far as is known of the others."""
        self._frames[chunk_job.chunk.number] = position.frames
        expected = sum(chunk.frames for chunk in self._chunks)
        return replace(position, frames=sum(self._frames.values()), expected=expected)

    def answered(self, chunk_job: ChunkJob, outcome: Outcome) -> Outcome | None:
        """Takes what became of a part; with the last of them joins the film and gives its outcome.

        Where a part failed the film has. What the others are stays in its work folder, for the next run.
        """
        self._answers[chunk_job.chunk.number] = outcome
        self._frames[chunk_job.chunk.number] = chunk_job.chunk.frames
        if len(self._answers) < len(self._chunks):
            return None
        try:
            for _, answer in sorted(self._answers.items()):
                if answer.status is not Status.DONE:
                    return answer
            return videos.explained(self._job, self._joined)
        finally:
            self.close()

    def _joined(self) -> Outcome:
        stats = VideoStats()

        def whole(path: Path) -> None:
            work = self._work
            chunks.concat_chunks(
                self._job.source, path, work.kind, work.folder, self._chunks, self._settings, stats
            )

        self._work.write(stats, whole)
        for answer in self._answers.values():
            for stage, seconds in answer.seconds.items():
                stats.seconds[stage] = stats.seconds.get(stage, 0.0) + seconds
        last = self._answers[len(self._chunks) - 1]
        return videos.ended(self._job, stats, last.device, last.batch)


def begin(
    job: Job, info: ModelInfo, settings: Settings, outputs: Outputs, count: int
) -> SplitVideo | Outcome | None:
    """Divides a film, if it is to be coloured at all and worth it.

    Args:
        job: The film.
        info: Of the network that is to colour it.
        settings: How.
        outputs: What is there, and notes on what is made.
        count: About how many parts there are to be.

    Returns:
        The film in parts; its outcome, if it has one already; or None if one worker is to do all of it.
    """
    if not videos.in_segments(job, settings):
        return None
    return videos.explained(job, lambda: _begun(job, info, settings, outputs, count))


def _begun(
    job: Job, info: ModelInfo, settings: Settings, outputs: Outputs, count: int
) -> SplitVideo | Outcome | None:
    if not _is_long(job.source, settings):
        return None
    read = videos.prepared(job, settings, outputs)
    if read is None:
        return videos.ended(job, VideoStats(), None, None)
    with contextlib.ExitStack() as stack:
        work = stack.enter_context(videos.claimed(job, read, outputs))
        if work.folder.done:  # it was begun in one go, and is gone on with like that
            return None
        all_chunks = chunks.split(job.source, work.folder, info, settings, count)
        if len(all_chunks) == 1:
            return None
        return SplitVideo(job, work, all_chunks, settings, stack.pop_all().close)


def _is_long(path: Path, settings: Settings) -> bool:
    """Whether what is asked for of a film is worth dividing, as far as the file says how long it is."""
    with reader.opened(path) as video:
        length = video.seconds - settings.video.start
    asked = settings.video.duration
    return (length if asked is None else min(length, asked)) >= SHORTEST


def colorize(chunk_job: ChunkJob, network: Model, settings: Settings, progress: Progress) -> Outcome:
    """Colours a part of a film.

    Args:
        chunk_job: Which.
        network: What colours.
        settings: How.
        progress: Is told how far the part is.

    Returns:
        An outcome of the film's job that is about this part of it. That the part is damaged is no failure of
        its; the film's outcome will tell of that.
    """
    job = chunk_job.job

    def work() -> Outcome:
        stats, kind, folder = VideoStats(), job.destination.suffix.lower(), WorkDir(chunk_job.folder)
        chunks.colorize_chunk(job.source, kind, folder, chunk_job.chunk, network, settings, stats, progress)
        stats.damaged = 0
        return videos.ended(job, stats, network.device, settings.batch_size or network.batch_size)

    return videos.explained(job, work)
