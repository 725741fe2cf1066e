"""Videos in chunks: split and joined in one process, colorized in any others.

begin -> chunk_jobs -> colorize (in any process) -> answered -> the outcome of the video
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

# Seconds. Splitting reads the video once more, in the process that dispatches all work. A shorter video is
# done by one worker.
SHORTEST = 20.0


class SplitVideo:
    """A video with its chunks under way. Its work directory is claimed until `close`.

    Attributes:
        chunk_jobs: The chunks to colorize.
    """

    def __init__(
        self,
        job: Job,
        work: VideoWork,
        all_chunks: Sequence[Chunk],
        settings: Settings,
        release: Callable[[], None],
    ) -> None:
        """Make a job of each chunk; `release` gives up the claim on the work directory."""
        self.chunk_jobs = [ChunkJob(job, work.folder.path, chunk) for chunk in all_chunks]
        self._job, self._work, self._chunks, self._settings = job, work, all_chunks, settings
        self._answers: dict[int, Outcome] = {}
        self._frames: dict[int, int] = {}
        self.close = release

    def advanced(self, chunk_job: ChunkJob, position: Position) -> Position:
        """Return the position in the whole video, given a new position in one chunk.

        The other chunks count with their last known positions.
        """
        self._frames[chunk_job.chunk.number] = position.frames
        expected = sum(chunk.frames for chunk in self._chunks)
        return replace(position, frames=sum(self._frames.values()), expected=expected)

    def answered(self, chunk_job: ChunkJob, outcome: Outcome) -> Outcome | None:
        """Take the outcome of a chunk. After the last chunk, join the video and return its outcome.

        The video fails if one of its chunks failed. The other chunks then stay in the work directory for the
        next run.
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
    """Split a video into chunks if it needs colorizing and is long enough.

    Args:
        job: The job of the video.
        info: Metadata of the model.
        settings: The settings of the run.
        outputs: The outputs of the run.
        count: Approximate number of chunks.

    Returns:
        The split video; its outcome if the job has ended already; or None if one worker must do the whole
        video.
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
        if work.folder.done:  # an earlier run began the whole video without chunks, and must be resumed so
            return None
        all_chunks = chunks.split(job.source, work.folder, info, settings, count)
        if len(all_chunks) == 1:
            return None
        return SplitVideo(job, work, all_chunks, settings, stack.pop_all().close)


def _is_long(path: Path, settings: Settings) -> bool:
    """Return True if the requested duration, as far as the file declares its length, is worth splitting."""
    with reader.opened(path) as video:
        length = video.seconds - settings.video.start
    asked = settings.video.duration
    return (length if asked is None else min(length, asked)) >= SHORTEST


def colorize(chunk_job: ChunkJob, network: Model, settings: Settings, progress: Progress) -> Outcome:
    """Colorize a chunk of a video.

    Args:
        chunk_job: The chunk.
        network: The model.
        settings: The settings of the run.
        progress: Called with the position in the chunk.

    Returns:
        An outcome of the video's job that covers only this chunk. A damaged chunk does not fail: damage is
        reported in the outcome of the video.
    """
    job = chunk_job.job

    def work() -> Outcome:
        stats, kind, folder = VideoStats(), job.destination.suffix.lower(), WorkDir(chunk_job.folder)
        chunks.colorize_chunk(job.source, kind, folder, chunk_job.chunk, network, settings, stats, progress)
        stats.damaged = 0
        return videos.ended(job, stats, network.device, settings.batch_size or network.batch_size)

    return videos.explained(job, work)
