"""A run with an input or the output in a remote store, through a staging directory on this machine.

    fetch -> color -> put

A source is fetched whole into the staging directory and colorized there by a local session. Its record is
written to the manifest (see `manifest_remote`), and then the output is uploaded whole under its final name.
Finally its staged files are removed. Each stage has separate threads. The objects between the start of their
fetch and the end of their put are bounded in bytes and in number. Videos follow one by one after the images.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from colorize_cli.core.errors import ReadError, WriteError, reason_of
from colorize_cli.core.formats import check_kind
from colorize_cli.core.jobs import Outcome, Position, Progress, Status, Transfer
from colorize_cli.core.location import STREAM, Location, redacted
from colorize_cli.core.pipeline import Gate, Pipeline, Result, Stage
from colorize_cli.core.settings import Settings
from colorize_cli.engine.outputs import Outputs, Skip
from colorize_cli.engine.session import Session, are_many, is_video_job
from colorize_cli.engine.shared_run import SharedRun
from colorize_cli.engine.transfer import staging
from colorize_cli.engine.transfer.outputs import RemoteOutputs
from colorize_cli.engine.transfer.staged_jobs import StagedJob, guidance_of, stage_jobs
from colorize_cli.image import reader
from colorize_cli.storage.fingerprint import DAMAGED, Fingerprint, SourceFingerprint
from colorize_cli.storage.manifest import State
from colorize_cli.storage.remote import MissingError, RemotePath
from colorize_cli.storage.remote_discovery import RemotePlan

# Maximum sum of the bytes of all objects between the start of their fetch and the end of their put. A larger
# object is processed alone.
BYTES_IN_FLIGHT = 256 << 20
_UNKNOWN_SIZE = 16 << 20  # bytes assumed for an object if the store does not report its size
_FETCH_THREADS, _PUT_THREADS = 8, 16
# Seconds. An interrupt by the user must take effect within two.
_PATIENCE = 1.2
_FINAL = (State.CURRENT, State.FOREIGN)


@dataclass(frozen=True)
class _Fetched:
    """A job with its source on this machine, and the source's fingerprint if a manifest will record it."""

    staged_job: StagedJob
    source: SourceFingerprint | None


@dataclass(frozen=True)
class _Colorized:
    """A fetched job, and the outcome of its local job."""

    fetched: _Fetched
    outcome: Outcome


def run(
    plan: RemotePlan,
    settings: Settings,
    announce: Callable[[str], None],
    progress: Progress = lambda _: None,
) -> Generator[Outcome, None, None]:
    """Colorize images, then videos. Yields skipped jobs first, then outcomes as they end.

    The staged files of an outcome exist until the next outcome is requested.

    Args:
        plan: The remote jobs.
        settings: The settings of the run.
        announce: Called with lines for the user; see `Engine`.
        progress: Called with the position in a video; see `Engine`.

    Raises:
        ColorizeError: Any error of `engine.local.run`, or the store cannot be read or written.
    """
    if not plan.jobs:
        return
    with staging.directory() as folder:
        staged_jobs = stage_jobs(plan, folder)
        work = _Run(plan, settings, staged_jobs, announce, progress)
        try:
            yield from work.outcomes()
        except BaseException:
            work.close(_PATIENCE)
            raise
        work.close()


def preview(plan: RemotePlan, settings: Settings) -> Iterator[tuple[Transfer, str | None]]:
    """Yield each job with the reason why `run` would not do it, or None. Writes nothing to the store.

    Raises:
        ColorizeError: Any error of `run`.
    """
    with staging.directory() as folder:
        staged_jobs = stage_jobs(plan, folder)
        guidance = guidance_of(plan, settings, staged_jobs)
        local_root, remote_root = _roots(plan)
        local = Outputs(local_root, settings, guidance, origins=_origins(staged_jobs), read_only=True)
        remote = RemoteOutputs(remote_root, overwrite=settings.overwrite, read_only=True)
        for staged_job in staged_jobs:
            reason = staged_job.remote_job.refused
            if reason is None and isinstance(staged_job.remote_job.destination, RemotePath):
                recipe = local.recipe_of(staged_job.job)
                state = remote.state(
                    staged_job.remote_job, staged_job.remote_job.destination, recipe
                ) or remote.state_by_content(
                    staged_job.remote_job,
                    staged_job.remote_job.destination,
                    recipe,
                    staged_job.job.destination,
                )
                reason = state.value if state in (State.CURRENT, State.FOREIGN) else None
            elif reason is None:
                reason = local.reason_to_skip(staged_job.job)
            yield staged_job.remote_job.transfer, reason


class _Run:
    """The state of one run: its session, its staged jobs, and the outputs in the store."""

    def __init__(
        self,
        plan: RemotePlan,
        settings: Settings,
        staged_jobs: list[StagedJob],
        announce: Callable[[str], None],
        progress: Progress,
    ) -> None:
        self._file_systems = plan.file_systems
        self._announce = announce
        self._settings = settings
        self._staged_jobs = staged_jobs
        self._origins = _origins(staged_jobs)
        local_root, remote_root = _roots(plan)
        shown: dict[Location, Location] = {
            staged_job.job.source: staged_job.remote_job.transfer.source for staged_job in staged_jobs
        }

        def show(position: Position) -> None:
            progress(replace(position, path=shown[position.path]))

        guidance = guidance_of(plan, settings, staged_jobs)
        self._session = Session(local_root, settings, guidance, announce, show, origins=self._origins)
        self._outputs = RemoteOutputs(remote_root, overwrite=settings.overwrite)

    def outcomes(self) -> Generator[Outcome, None, None]:
        images: list[StagedJob] = []
        videos: list[StagedJob] = []
        for staged_job in self._staged_jobs:
            if (ended := self._ended_already(staged_job)) is not None:
                yield ended
            else:
                (videos if is_video_job(staged_job.job) else images).append(staged_job)
        if images or videos:
            self._outputs.prepare()
            self._session.open(many=are_many(len(images), videos=bool(videos)))
        if images:
            yield from self._images(images)
        for staged_job in videos:
            yield from _ended(self._video(staged_job))

    def close(self, patience: float | None = None) -> None:
        """Close the manifests, here and in the store. Waits for the store for at most `patience` seconds."""
        self._session.close()
        closing = threading.Thread(target=self._close_manifest, name="manifest", daemon=True)
        closing.start()
        closing.join(patience)

    def _close_manifest(self) -> None:
        try:
            self._outputs.close()
        except (ReadError, WriteError) as error:  # the next run fetches the affected outputs to compare them
            self._announce(
                f"the manifest in the store is incomplete, and the next run will take longer: {error}"
            )

    def _ended_already(self, staged_job: StagedJob) -> Outcome | None:
        """Return the outcome of a job that cannot or need not be done, judged by the listings alone."""
        remote_job = staged_job.remote_job
        if remote_job.refused is not None:
            return Outcome.failed(remote_job.transfer, remote_job.refused)
        if not isinstance(remote_job.destination, RemotePath):
            skipped = self._session.skipped(staged_job.job)
            return None if skipped is None else staged_job.shown(skipped)
        try:
            state = self._outputs.state(
                remote_job, remote_job.destination, self._session.recipe_of(staged_job.job)
            )
        except ReadError as error:
            return Outcome.failed(remote_job.transfer, str(error))
        return Outcome.skipped(remote_job.transfer, state.value) if state in _FINAL else None

    def _images(self, staged_jobs: list[StagedJob]) -> Generator[Outcome, None, None]:
        network = self._session.open()
        batch = self._settings.batch_size or network.batch_size
        # As many jobs as the session's pipeline can hold at one time.
        color_threads = 3 * self._settings.workers + 2 * max(batch, network.parallel)
        stream = SharedRun(self._session.colorize_images)
        pipeline = Pipeline(
            stages=(
                Stage("fetch", self._fetch, _FETCH_THREADS, gate=Gate(_weight, BYTES_IN_FLIGHT)),
                Stage(
                    "color",
                    lambda item: _Colorized(item, *stream.outcomes([item.staged_job.job])),
                    color_threads,
                ),
                Stage("put", self._put, _PUT_THREADS),
            ),
            patience=_PATIENCE,
        )
        results = pipeline.run(staged_jobs)
        try:
            for result in results:
                yield from _ended(result)
        except BaseException:
            self._file_systems.stop()
            raise
        finally:
            stream.stop()
            results.close()
            stream.join(_PATIENCE)

    def _video(self, staged_job: StagedJob) -> Result[StagedJob]:
        """Run the same three stages as for images, in this thread."""
        seconds: dict[str, float] = {}
        try:
            with _timed(seconds, "fetch"):
                fetched = self._fetch(staged_job)
            colorized = _Colorized(fetched, self._session.colorize_video(staged_job.job))
            with _timed(seconds, "put"):
                outcome = self._put(colorized)
        except Exception as error:  # any error fails this job only, as for images
            return Result(staged_job, None, error, seconds, None)
        return Result(staged_job, outcome, None, seconds, None)

    def _fetch(self, staged_job: StagedJob) -> _Fetched:
        remote_job, job = staged_job.remote_job, staged_job.job
        recipe = self._session.recipe_of(job)
        if job.source != STREAM:
            check_kind(job.source)
        if isinstance(remote_job.destination, RemotePath):
            self._check_content(staged_job, remote_job.destination, recipe)
        if isinstance(remote_job.source, RemotePath) and remote_job.found is not None:
            try:
                found = remote_job.source.file_system.fetch(remote_job.found, job.source)
            except MissingError as error:
                raise ReadError("it no longer exists in the store") from error
            self._origins[job.source] = found.fingerprint
        if not (isinstance(remote_job.destination, RemotePath) and self._outputs.are_noted):
            return _Fetched(staged_job, None)
        with reader.explained():
            source = SourceFingerprint.of(job.source)
        source = replace(source, stamp=self._origins.get(job.source, source.stamp))
        if self._outputs.is_made_from(remote_job, source, recipe):
            raise Skip(State.CURRENT.value)
        return _Fetched(staged_job, source)

    def _check_content(self, staged_job: StagedJob, destination: RemotePath, recipe: str) -> None:
        """Fetch an output and compare its content, if no record has its version.

        Raises:
            Skip: The output can be left as it is.
        """
        if self._outputs.state(staged_job.remote_job, destination, recipe) is None:
            state = self._outputs.state_by_content(
                staged_job.remote_job, destination, recipe, staged_job.job.destination
            )
            if state in _FINAL:
                raise Skip(state.value)

    def _put(self, colorized: _Colorized) -> Outcome:
        staged_job, source, outcome = (
            colorized.fetched.staged_job,
            colorized.fetched.source,
            colorized.outcome,
        )
        destination, file = staged_job.remote_job.destination, staged_job.job.destination
        if isinstance(destination, RemotePath) and file.is_file():
            if source is not None and outcome.status is Status.FAILED:
                source = DAMAGED
            self._outputs.put(
                staged_job.remote_job, destination, source, self._session.recipe_of(staged_job.job), file
            )
        return staged_job.shown(outcome)


def _roots(plan: RemotePlan) -> tuple[Path | None, RemotePath | None]:
    """Return the output directory as (local path or None, remote path or None)."""
    local_root = plan.root if isinstance(plan.root, Path) else None
    return local_root, plan.root if isinstance(plan.root, RemotePath) else None


def _origins(staged_jobs: list[StagedJob]) -> dict[Path, Fingerprint]:
    """Map the staged copies of objects to the fingerprints of the objects."""
    return {
        staged_job.job.source: staged_job.remote_job.found.fingerprint
        for staged_job in staged_jobs
        if staged_job.remote_job.found is not None
    }


def _weight(staged_job: StagedJob) -> int:
    """Return the number of bytes that a job counts for in `BYTES_IN_FLIGHT`."""
    if staged_job.remote_job.found is None:
        return 0
    return _UNKNOWN_SIZE if staged_job.remote_job.found.size is None else staged_job.remote_job.found.size


def _ended(result: Result[StagedJob]) -> Iterator[Outcome]:
    """Yield the outcome of a job. Its staged files are removed when the next outcome is requested."""
    staged_job, error = result.source, result.error
    try:
        if isinstance(error, Skip):
            yield Outcome.skipped(staged_job.remote_job.transfer, str(error))
        elif error is not None:
            reason = redacted(reason_of(error))
            yield Outcome.failed(staged_job.remote_job.transfer, reason, seconds=_seconds(result))
        else:
            yield replace(result.value, seconds=_seconds(result))
    finally:
        staged_job.forget()


def _seconds(result: Result[StagedJob]) -> dict[str, float]:
    """Return the seconds of all stages, with the stages of the local session between fetch and put."""
    inner = {} if result.value is None else result.value.seconds
    seconds = {"fetch": result.seconds.get("fetch"), **inner, "put": result.seconds.get("put")}
    return {name: taken for name, taken in seconds.items() if taken is not None}


@contextlib.contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    begun = time.perf_counter()
    try:
        yield
    finally:
        seconds[name] = time.perf_counter() - begun
