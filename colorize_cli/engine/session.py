"""A session, with one loaded model and one output root in one process, and the engine that needs no more.

The engine runs images in a pipeline of concurrent stages, then videos one after the other.
"""

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from colorize_cli.core.errors import ReadError, UsageError, WriteError
from colorize_cli.core.jobs import Job, LocalFiles, Outcome, Plan, Position, Progress
from colorize_cli.core.location import STREAM, Location, Url
from colorize_cli.core.settings import Settings, available_cores
from colorize_cli.engine.images import PATIENCE, Images
from colorize_cli.engine.outputs import Outputs, own_files
from colorize_cli.guidance import Guidance, PaletteModel
from colorize_cli.inference import batch_size as batch_sizes
from colorize_cli.inference import model
from colorize_cli.inference.adapters import ModelInfo
from colorize_cli.inference.model import Model
from colorize_cli.storage import atomic, stdio
from colorize_cli.storage.manifest import State
from colorize_cli.video import work_dir
from colorize_cli.video.work_dir import Chunk

if TYPE_CHECKING:
    from colorize_cli.engine.transfer import Transfer
    from colorize_cli.engine.videos import ClaimedVideo

# Images in the network at one time on the CPU: as many as frames of a video.
_MAX_IMAGES_IN_NETWORK = Model.batch_size


def are_many(images: int, *, videos: bool) -> bool:
    """Return True if there are no videos and at least as many images as cores."""
    return images >= available_cores() and not videos


def in_stores(jobs: Sequence[Job]) -> tuple[bool, bool]:
    """Return if any source, and if the outputs, are in stores. All outputs of a run are, or none."""
    return any(isinstance(job.source, Url) for job in jobs), any(
        isinstance(job.destination, Url) for job in jobs[:1]
    )


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
        root: Location | None,
        settings: Settings,
        guidance: Guidance,
        announce: Callable[[str], None] = lambda _: None,
        progress: Progress = lambda _: None,
        *,
        cores: int | None = None,
        stores: tuple[bool, bool] = (False, False),
        listed: bool = True,
        read_only: bool = False,
    ) -> None:
        """Open the manifest of the outputs. The model is loaded by `open`.

        Args:
            root: The directory that contains all outputs; None if a single file becomes a single file.
            settings: The settings of the run.
            guidance: The hints and the reference of the run.
            announce: See `run`.
            progress: See `run`.
            cores: Number of cores for the network; None for all cores available to this process.
            stores: Two values, true if a source of the run, and if its outputs, are in stores.
            listed: See `RemoteManifest`.
            read_only: True to write nothing.

        Raises:
            UsageError: The store of the outputs cannot be read, or there is no directory for staged files.
        """
        self._settings, self._guidance = settings, guidance
        self._is_single = root is None
        self._cores = cores or available_cores()
        self._announce, self._progress = announce, progress
        self._network: Model | None = None
        self._swept: set[Path] = set()
        self._stack = contextlib.ExitStack()
        self._transfer: Transfer | None = None
        self._outputs = Outputs(root, settings, guidance, read_only=read_only)
        if any(stores):
            from colorize_cli.engine import transfer
            from colorize_cli.storage.remote import RemoteStorage

            storage = RemoteStorage()
            _, outputs_in_store = stores
            if outputs_in_store:
                self._outputs = transfer.RemoteOutputs(
                    root if isinstance(root, Url) else None,
                    settings,
                    guidance,
                    storage,
                    read_only=read_only,
                    listed=listed,
                )
            folder = self._stack.enter_context(transfer.staging_directory())
            self._transfer = transfer.Transfer(folder, storage, self._outputs)

    def files_of(self, job: Job) -> LocalFiles:
        """Return the files of a job on this machine."""
        return own_files(job) if self._transfer is None else self._transfer.files_of(job)

    def expected(self, job: Job) -> Outcome | None:
        """Like `ended`, but writes nothing."""
        destination = job.destination
        if (refused := job.refused or self._guidance.problems.get(job)) is not None:
            return Outcome.failed(job, refused)
        try:
            files = self.files_of(job)
            kept = self._outputs.kept(files)
            if kept is None:
                if self._outputs.loses_hints(files):
                    self._announce(
                        f"{destination} was made with hints, and is made again without, as this run has none"
                        f" for {job.source}"
                    )
                return None
        except UsageError:  # the run cannot be carried out
            raise
        except Exception as error:  # any error fails this job only
            return Outcome.failed(job, error)
        if kept is State.FOREIGN and self._is_single:
            is_recorded = isinstance(destination, Path) and job.source != STREAM
            why = " and was not made by colorize, or was changed since" if is_recorded else ""
            return Outcome.failed(job, f"{destination} exists{why}; use --overwrite to replace it")
        return Outcome.skipped(job, kept.value)

    def ended(self, job: Job) -> Outcome | None:
        """Return the outcome of a job that cannot or need not be done, or None if it must be done.

        Removes what killed runs left beside its output: temporary files, and the work directory of a finished
        video.
        """
        destination = job.destination
        folder = destination.parent if isinstance(destination, Path) and destination != STREAM else None
        if folder is not None and folder not in self._swept and job.refused is None:
            self._swept.add(folder)
            atomic.sweep(folder)
        outcome = self.expected(job)
        if outcome is None and (earlier := self._outputs.earlier(self.files_of(job))) is not None:
            self._announce(
                f"{earlier} was made from {job.source} by an earlier version; the output is now called"
                f" {destination.name} and is made again"
            )
        is_finished = outcome is not None and outcome.is_up_to_date
        if is_finished and isinstance(destination, Path) and stdio.is_video(job.source):
            work_dir.discard(destination)
        return outcome

    @functools.cached_property
    def _info(self) -> ModelInfo:
        """Metadata of the model, read without a device."""
        return model.load(self._settings.model, "cpu", 1, "fp32", self._settings.model_kind).info

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
            settings = self._settings
            calls = _calls(self._cores, settings.batch_size) if many else 1
            network = model.load(
                settings.model, settings.device, self._cores, settings.precision, settings.model_kind, calls
            )
            if settings.device == "auto":
                self._announce(f"device: {network.device} ({network.reason}), {network.precision}")
            fixed = network.info.kind != "native" and network.info.multiple_of == 1
            if settings.size is not None and fixed:
                side = network.info.working_size
                self._announce(f"size has no effect: the model takes only pictures of {side} x {side} pixels")
            if settings.batch_size is None:
                network = replace(network, batch_size=batch_sizes.batch_size(network, settings.size))
            self._network = network
        return self._network

    def colorize_images(self, jobs: Iterable[Job]) -> Generator[Outcome, None, None]:
        """Colorize images and yield outcomes as they end. `jobs` may be a stream that is still growing.

        Raises:
            Exception: Any error of `open`.
        """
        images = Images(self.open(), self._settings, self._guidance, self._outputs, self._transfer)
        yield from images.colorize(jobs)

    def colorize_videos(self, jobs: Iterable[Job]) -> Generator[Outcome, None, None]:
        """Colorize videos one after the other and yield their outcomes.

        Staged copies of an outcome's files exist until the next outcome is requested.

        Raises:
            Exception: Any error of `open`.
        """
        from colorize_cli.engine import videos  # PyAV takes longer to load than all of Pillow

        network, transfer = self._guided(), self._transfer
        for job in jobs:
            files = self.files_of(job)
            if job.source == STREAM and stdio.must_spool():
                self._announce("-: an MP4 cannot be read as a stream; it is copied to TMPDIR first")

            def progress(position: Position, job: Job = job) -> None:
                self._progress(replace(position, path=job.source))

            if transfer is None:
                yield videos.colorize_video(files, network, self._settings, self._outputs, progress)
                continue
            seconds: dict[str, float] = {}

            def work(files: LocalFiles = files, seconds: dict[str, float] = seconds) -> Outcome:
                with _timed(seconds, "fetch"):
                    fetched = transfer.fetch(files)
                outcome = videos.colorize_video(fetched, network, self._settings, self._outputs, progress)
                seconds.update(outcome.seconds)
                with _timed(seconds, "put"):
                    transfer.put(files)
                return outcome

            try:
                yield replace(videos.explained(files, work), seconds=seconds)
            except BaseException:
                transfer.stop()
                raise
            finally:
                transfer.forget(files)

    def split_video(self, job: Job, count: int) -> "ClaimedVideo | Outcome | None":
        """Split a video into about `count` chunks; see `videos.split_video` for the result.

        Raises:
            ModelError: The model cannot be loaded.
        """
        from colorize_cli.engine import videos

        return videos.split_video(own_files(job), self._info, self._settings, self._outputs, count)

    def colorize_chunk(self, chunk: Chunk) -> Outcome:
        """Colorize a chunk of a video that another process split.

        Raises:
            Exception: Any error of `open`.
        """
        from colorize_cli.engine import videos

        return videos.colorize_chunk(chunk, self._guided(), self._settings, self._progress)

    def _guided(self) -> Model:
        """Return the model for films, with the palette of the reference if there is one."""
        network, palette = self.open(), self._guidance.reference
        return network if palette is None else PaletteModel(**vars(network), palette=palette)

    def close(self, patience: float | None = None) -> None:
        """Close the manifest and remove staged files. Waits for a store for at most `patience` seconds."""
        if self._transfer is None:
            try:
                self._outputs.close()
            except WriteError as error:
                self._announce(f"the next run may not recognize all outputs of this one: {error}")
            return
        closing = threading.Thread(target=self._close_manifest, name="manifest", daemon=True)
        closing.start()
        closing.join(patience)
        self._stack.close()

    def _close_manifest(self) -> None:
        try:
            self._outputs.close()
        except (ReadError, WriteError) as error:  # the next run fetches the affected outputs to compare them
            self._announce(
                f"the manifest in the store is incomplete, and the next run will take longer: {error}"
            )


@contextlib.contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    begun = time.perf_counter()
    try:
        yield
    finally:
        seconds[name] = time.perf_counter() - begun


def run(
    plan: Plan,
    settings: Settings,
    announce: Callable[[str], None],
    progress: Progress = lambda _: None,
) -> Generator[Outcome, None, None]:
    """Colorize images, then videos. Yields skipped jobs first, then outcomes as they end.

    Args:
        plan: The jobs.
        settings: The settings of the run.
        announce: Called with lines for the user: about the chosen device if `settings.device` is "auto".
        progress: Called with the position in a video after each frame.

    Raises:
        ModelError: The model cannot be loaded. Raised only if at least one job is not skipped.
        DeviceError: The requested device does not work. Raised only if at least one job is not skipped.
        UsageError: The output directory cannot be created, a store cannot be read or written, or the hints or
            the reference cannot be used.
    """
    guidance = Guidance.of(settings, plan, announce)
    if not plan.jobs:
        return
    session = Session(plan.root, settings, guidance, announce, progress, stores=in_stores(plan.jobs))
    try:
        images: list[Job] = []
        videos: list[Job] = []
        for job in plan.jobs:
            if (ended := session.ended(job)) is not None:
                yield ended
            else:
                (videos if stdio.is_video(job.source) else images).append(job)
        if images or videos:
            session.open(many=are_many(len(images), videos=bool(videos)))
        if images:
            yield from session.colorize_images(images)
        if videos:
            yield from session.colorize_videos(videos)
    except BaseException:
        session.close(PATIENCE)
        raise
    session.close()


def preview(
    plan: Plan, settings: Settings, announce: Callable[[str], None] = lambda _: None
) -> Iterator[tuple[Job, Outcome | None]]:
    """Yield each job with its outcome if `run` would not do it, or None. Writes nothing.

    Args:
        plan: The jobs.
        settings: The settings of the run.
        announce: Called with lines for the user on hints that are not used or would be lost.

    Raises:
        ModelError: The model cannot be read.
        UsageError: The hints or the reference cannot be used, or a store cannot be read.
    """
    session = Session(
        plan.root,
        settings,
        Guidance.of(settings, plan, announce),
        announce,
        stores=in_stores(plan.jobs),
        read_only=True,
    )
    with contextlib.closing(session):
        for job in plan.jobs:
            yield job, session.expected(job)
