"""A session: one loaded model and one output root, in one process."""

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
from colorize_cli.guidance import Guidance
from colorize_cli.inference import batch_size as batch_sizes
from colorize_cli.inference import model
from colorize_cli.inference.adapters import ModelInfo
from colorize_cli.inference.model import Model
from colorize_cli.storage import atomic, stdio
from colorize_cli.storage.fingerprint import Fingerprint
from colorize_cli.storage.manifest import State
from colorize_cli.video import work_dir
from colorize_cli.video.work_dir import Chunk

if TYPE_CHECKING:
    from colorize_cli.engine.videos import SplitVideo

# Images in the network at one time on the CPU: as many as frames of a video.
_MAX_IMAGES_IN_NETWORK = Model.batch_size


def is_video_job(job: Job) -> bool:
    """Return True if the job's source is a video. Standard input is recognized by its first bytes."""
    if job.source != STREAM:
        return is_video(job.source)
    try:
        return stdio.video_format() is not None
    except ReadError:  # reading it as an image will report the error
        return False


def are_many(images: int, *, videos: bool) -> bool:
    """Return True if there are no videos and at least as many images as cores."""
    return images >= available_cores() and not videos


def _calls(cores: int, batch_size: int | None) -> int:
    """Return how many concurrent calls of the network share the cores.

    Each call gets the same number of threads, ceil(cores / limit), so that few cores are idle.
    """
    limit = max(1, _MAX_IMAGES_IN_NETWORK // (batch_size or 1))
    threads = -(-cores // limit)
    return cores // threads


class Session:
    """One loaded model and one output root, in this process. Colorizes jobs."""

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
        """Open the manifest of the outputs. The model is loaded by `open`.

        Args:
            root: The directory that contains all outputs; None if a single file becomes a single file.
            settings: The settings of the run.
            guidance: The hints and the reference of the run.
            announce: See `local.run`.
            progress: See `local.run`.
            cores: Number of cores for the network; None for all cores available to this process.
            origins: See `LocalManifest`.
        """
        self._settings, self._guidance = settings, guidance
        self._cores = cores or available_cores()
        self._announce, self._progress = announce, progress
        self._outputs = Outputs(root, settings, guidance, origins=origins)
        self._network: Model | None = None
        self._swept: set[Path] = set()

    def skipped(self, job: Job) -> Outcome | None:
        """Return the outcome of a job whose output can be left as it is, or None if it must be made.

        Removes what killed runs left beside it: temporary files, and the work directory of a finished video.
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
        """Return a digest of everything that determines the job's output, except its source."""
        return self._outputs.recipe_of(job)

    @functools.cached_property
    def _info(self) -> ModelInfo:
        """Metadata of the model, read without a device."""
        asked = self._settings
        return model.load(asked.model, "cpu", 1, "fp32", asked.model_kind).info

    def open(self, *, many: bool = False) -> Model:
        """Create the output directory and load the model on the first call. Return the model.

        Args:
            many: True if many images and no videos follow. On the CPU, several calls of the network then
                share the cores. Otherwise one call at a time uses all of them.

        Raises:
            ModelError: The model cannot be loaded.
            DeviceError: The requested device does not work.
            UsageError: The output directory cannot be created.
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
        """Colorize images and yield outcomes as they end. `jobs` may be a stream that is still growing.

        Raises:
            Exception: Any error of `open`.
        """
        yield from Images(self.open(), self._settings, self._guidance, self._outputs).colorize(jobs)

    def colorize_video(self, job: Job) -> Outcome:
        """Colorize a video.

        Raises:
            Exception: Any error of `open`.
        """
        from colorize_cli.engine import videos  # PyAV takes longer to load than all of Pillow

        return videos.colorize_video(job, self.open(), self._settings, self._outputs, self._progress)

    def split_video(self, job: Job, count: int) -> "SplitVideo | Outcome | None":
        """Split a video into about `count` chunks; see `videos.split_video` for the result.

        Raises:
            ModelError: The model cannot be loaded.
        """
        from colorize_cli.engine import videos

        return videos.split_video(job, self._info, self._settings, self._outputs, count)

    def colorize_chunk(self, chunk: Chunk) -> Outcome:
        """Colorize a chunk of a video that another process split.

        Raises:
            Exception: Any error of `open`.
        """
        from colorize_cli.engine import videos

        return videos.colorize_chunk(chunk, self.open(), self._settings, self._progress)

    def close(self) -> None:
        """Close the manifest."""
        self._outputs.close()
