"""A session: what colours jobs below one output directory, with one model, in one process."""

import functools
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from colorize_cli.core.errors import ReadError
from colorize_cli.core.formats import is_video
from colorize_cli.core.jobs import Job, Outcome, Progress, Status
from colorize_cli.core.location import STREAM
from colorize_cli.core.settings import Settings, available_cores
from colorize_cli.engine.images import Images
from colorize_cli.engine.outputs import Outputs
from colorize_cli.engine.work_items import ChunkJob
from colorize_cli.guidance import Guidance
from colorize_cli.inference import batch_size as batch_sizes
from colorize_cli.inference import model
from colorize_cli.inference.adapters import ModelInfo
from colorize_cli.inference.model import Model
from colorize_cli.storage import atomic, stdio
from colorize_cli.storage.fingerprint import Fingerprint
from colorize_cli.storage.manifest import State
from colorize_cli.video import work_dir

if TYPE_CHECKING:
    from colorize_cli.engine.video_chunks import SplitVideo

# Pictures that are in the network at the same time on the CPU, as many as frames of a film.
_MOST_PICTURES = Model.batch_size


def is_video_job(job: Job) -> bool:
    """Whether a job's source is a film, which from standard input its first bytes say."""
    if job.source != STREAM:
        return is_video(job.source)
    try:
        return stdio.video_format() is not None
    except ReadError:  # whoever reads it as a picture will say so
        return False


def are_many(pictures: int, *, videos: bool) -> bool:
    """Whether there are pictures alone, and enough of them for all cores."""
    return pictures >= available_cores() and not videos


def _calls(cores: int, batch_size: int | None) -> int:
    """How many calls of the network are to share the cores: each has as many threads, and few idle."""
    most = max(1, _MOST_PICTURES // (batch_size or 1))
    return cores // -(-cores // most)


class Session:
    """What colours jobs below one output directory, with one model, in this process."""

    def __init__(
        self,
        root: Path | None,
        settings: Settings,
        guidance: Guidance,
        announce: Callable[[str], None] = lambda _: None,
        progress: Progress = lambda _: None,
        cores: int | None = None,
        origins: Mapping[Path, Fingerprint] | None = None,
    ) -> None:
        """Reads what there is already.

        Args:
            root: The directory that all outputs lie below; None where a single file becomes a single file.
            settings: How to colour.
            guidance: What is asked of the colours.
            announce: As in `local.run`.
            progress: As in `local.run`.
            cores: How many the network may use; None for all that this process may.
            origins: As of `LocalManifest`.
        """
        self._settings, self._guidance = settings, guidance
        self._cores = cores or available_cores()
        self._announce, self._progress = announce, progress
        self._outputs = Outputs(root, settings, guidance, origins=origins)
        self._network: Model | None = None
        self._swept: set[Path] = set()

    def skipped(self, job: Job) -> Outcome | None:
        """The outcome of a job whose output can stay as it is; None if it is to be made.

        What runs that were killed left beside it is removed.
        """
        directory = job.destination.parent
        if job.destination != STREAM and directory not in self._swept:
            self._swept.add(directory)
            atomic.sweep(directory)
        reason = self._outputs.reason_to_skip(job)
        if reason == State.CURRENT.value and is_video_job(job):
            work_dir.discard(job.destination)
        return None if reason is None else Outcome(job, Status.SKIPPED, reason)

    def recipe_of(self, job: Job) -> str:
        """A digest of all but the source that decides what the job's output is."""
        return self._outputs.recipe_of(job)

    @functools.cached_property
    def _info(self) -> ModelInfo:
        """The model's, for which no device is needed."""
        asked = self._settings
        return model.load(asked.model, "cpu", 1, "fp32", asked.model_kind).info

    def open(self, *, many: bool = False) -> Model:
        """Makes the output directory and loads the model, the first time; gives what that loaded.

        Args:
            many: Whether many pictures are to come, and no films: on the CPU, calls of the network are to
                share its cores, and else one at a time to have them all.

        Raises:
            ModelError: The model cannot be loaded.
            DeviceError: The device asked for does not work.
            UsageError: The output directory cannot be made.
        """
        if self._network is None:
            self._outputs.make_root()
            asked = self._settings
            calls = _calls(self._cores, asked.batch_size) if many else 1
            network = model.load(
                asked.model, asked.device, self._cores, asked.precision, asked.model_kind, calls
            )
            if asked.device == "auto":
                self._announce(f"device: {network.device} ({network.reason}), {network.precision}")
            if asked.batch_size is None:
                network = replace(network, batch_size=batch_sizes.batch_size(network, asked.size))
            self._network = network
        return self._network

    def colorize_images(self, jobs: Iterable[Job]) -> Generator[Outcome, None, None]:
        """Colours pictures, which may be given while others are being worked on; yields outcomes as they end.

        Raises:
            Exception: As `open`.
        """
        yield from Images(self.open(), self._settings, self._guidance, self._outputs).colorize(jobs)

    def colorize_video(self, job: Job) -> Outcome:
        """Colours a film.

        Raises:
            Exception: As `open`.
        """
        from colorize_cli.engine import videos  # PyAV takes longer to load than all of Pillow

        return videos.colorize_video(job, self.open(), self._settings, self._outputs, self._progress)

    def split_video(self, job: Job, count: int) -> "SplitVideo | Outcome | None":
        """A film in about so many parts, as `video_chunks.begin` gives it.

        Raises:
            ModelError: The model cannot be loaded.
        """
        from colorize_cli.engine import video_chunks

        return video_chunks.begin(job, self._info, self._settings, self._outputs, count)

    def colorize_chunk(self, chunk_job: ChunkJob) -> Outcome:
        """Colours a part of a film that was divided elsewhere.

        Raises:
            Exception: As `open`.
        """
        from colorize_cli.engine import video_chunks

        return video_chunks.colorize(chunk_job, self.open(), self._settings, self._progress)

    def close(self) -> None:
        """Ends the notes on what was made."""
        self._outputs.close()
