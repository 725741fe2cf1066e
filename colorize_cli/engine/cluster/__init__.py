"""The engine for a Ray cluster: this process dispatches jobs to workers on all nodes, each with a session.

    jobs -> jobs that are not skipped -> batches -> workers -> outcomes in the order of completion

This process decides job by job which outputs can be left as they are, before it connects to a cluster. If
nothing is to be done, no cluster is started, and no node reads the manifest, which may have millions of
records. Workers fetch sources from stores, and put outputs there, themselves. Jobs and outcomes are never
held in a complete list, and the work under way is bounded (see `dispatch`).

If a worker is lost, alone or with its node, another worker repeats its unfinished jobs. Outputs are renamed
into place, so outputs that the lost worker had finished are found up to date. Its temporary files are removed
at the latest when the run ends.

If there are several workers, this process splits a long video into chunks and joins them afterwards (see
`engine.videos`).
"""

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ray import exceptions

from colorize_cli.core.errors import ColorizeError, UsageError, one_line
from colorize_cli.core.formats import is_video
from colorize_cli.core.jobs import Job, Outcome, Plan, Position, Progress, Status
from colorize_cli.core.location import STREAM, Location, Url, absolute
from colorize_cli.core.settings import Settings, available_cores
from colorize_cli.engine.cluster.connect import joined
from colorize_cli.engine.cluster.dispatch import Answer, Dispatcher
from colorize_cli.engine.cluster.node_check import NodeCheck, prepared_check
from colorize_cli.engine.cluster.pool import LOSS_ERRORS, WorkerPool
from colorize_cli.engine.cluster.worker import Build, Item, Returned, SessionProtocol, absolute_job
from colorize_cli.engine.images import PATIENCE
from colorize_cli.engine.outputs import make_directory
from colorize_cli.engine.session import Session, are_many, in_stores
from colorize_cli.guidance import Guidance
from colorize_cli.storage.filesystem import DIRECTORY
from colorize_cli.video.work_dir import Chunk

if TYPE_CHECKING:
    from colorize_cli.engine.videos import ClaimedVideo

# Jobs per batch. A batch is sent to a worker, and its outcomes come back, together.
JOBS_PER_BATCH = 16
# Chunks of a video per worker. With two, a worker can start its second chunk at once, and a slow or lost
# worker delays the video less.
CHUNKS_PER_WORKER = 2


def run(
    plan: Plan,
    settings: Settings,
    announce: Callable[[str], None],
    progress: Progress = lambda _: None,
) -> Generator[Outcome, None, None]:
    """Colorize on a cluster. Yields outcomes as jobs end.

    Args:
        plan: The jobs.
        settings: The settings of the run; `settings.address` is the address of the cluster.
        announce: Called with one line for each kind of device chosen if `settings.device` is "auto", and with
            a line for each change of the cluster.
        progress: Called about once a second with the position in one of the videos under way.

    Raises:
        ModelError: The model cannot be loaded. This and the errors of the cluster are raised only if at least
            one job is not skipped.
        DeviceError: The requested device does not work, or no node has it.
        UsageError: The cluster does not exist, one of its nodes does not see the same files, or the settings
            cannot be used on a cluster.
        ColorizeError: The connection to the cluster is lost.
    """
    if any(STREAM in (job.source, job.destination) for job in plan.jobs):
        raise UsageError(
            "--engine ray cannot use - (standard input or output), which exists on this machine only;"
            " use --engine local"
        )
    if ":" in settings.device:
        raise UsageError("--engine ray uses all GPUs of all nodes; use --device auto, cpu or cuda")
    guidance = Guidance.of(settings, plan, announce)
    if not plan.jobs:
        return
    worker_settings = replace(settings, model=settings.model and settings.model.absolute())

    def check(job: Job) -> contextlib.AbstractContextManager[NodeCheck]:
        # The check writes to the folder of an output, where a later run sweeps files that this run may leave.
        source = absolute(job.source)
        if isinstance(job.destination, Url):
            root = plan.root if isinstance(plan.root, Url) else job.destination.above(1)
            return prepared_check(worker_settings, root / DIRECTORY, source)
        folder = job.destination.parent.absolute()
        make_directory(folder)
        return prepared_check(worker_settings, folder, source)

    stores = in_stores(plan.jobs)
    build = partial(
        _session,
        root=plan.root and absolute(plan.root),
        stores=stores,
        settings=worker_settings,
        guidance=replace(guidance, hints={absolute_job(job): hints for job, hints in guidance.hints.items()}),
        # A value equal to the cores of this machine is the default and not a choice of the user. A worker
        # then takes the number of its cores.
        by_cores=settings.workers == available_cores(),
        many=are_many(len(plan.jobs), videos=any(is_video(job.source) for job in plan.jobs)),
    )
    local_session = Session(plan.root, settings, guidance, announce, stores=stores)
    yield from run_jobs(plan.jobs, local_session, build, settings, check, announce, progress)


def run_jobs(
    jobs: Iterable[Job],
    local_session: SessionProtocol,
    build: Build,
    settings: Settings,
    check: Callable[[Job], contextlib.AbstractContextManager[NodeCheck]],
    announce: Callable[[str], None],
    progress: Progress = lambda _: None,
) -> Generator[Outcome, None, None]:
    """Run jobs in sessions on a cluster. Jobs are taken from `jobs` only when there is room for them.

    Args:
        jobs: Any number of jobs.
        local_session: The session of this process, which skips jobs and splits videos.
        build: Makes the session of a worker, in the worker's process.
        settings: The settings of the run; only `device` and `address` are used.
        check: Given the first job to be done, returns the check that each node must pass before it gets
            workers.
        announce: See `run`.
        progress: See `run`.

    Raises:
        ColorizeError: Any error of `run`.
    """
    pool: WorkerPool | None = None
    videos = _VideosUnderWay(progress)
    with _explained(), contextlib.ExitStack() as stack:
        stack.push(lambda kind, *_: local_session.close(None if kind is None else PATIENCE))
        stack.callback(videos.close)  # runs after the workers have ended
        for job in jobs:
            if (ended := local_session.ended(job)) is not None:
                yield ended
                continue
            if pool is None:
                stack.enter_context(joined(settings.address))
                seen = stack.enter_context(check(job))
                pool = WorkerPool(build, settings.device, seen, announce, videos.tell)
                stack.callback(pool.end)
                dispatcher = Dispatcher[Item, Returned](pool.arrived, JOBS_PER_BATCH, LOSS_ERRORS)
            items: Sequence[Item] = [job]
            here = isinstance(job.source, Path) and isinstance(job.destination, Path)
            if here and is_video(job.source) and (workers := pool.size()) > 1:
                # This process reads the video while the workers are busy.
                claimed = local_session.split_video(job, CHUNKS_PER_WORKER * workers)
                if isinstance(claimed, Outcome):
                    yield claimed
                    continue
                if claimed is not None:
                    items = videos.add(job, claimed)
            for item in items:
                yield from videos.outcomes(dispatcher.put(item, alone=is_video(job.source)))
        if pool is not None:
            yield from videos.outcomes(dispatcher.finish())
            pool.shut_down()


class _VideosUnderWay:
    """The videos that are under way in chunks."""

    def __init__(self, progress: Progress) -> None:
        """Start without videos; `progress` is called with the position in a video."""
        self._progress = progress
        self._claimed: dict[Job, ClaimedVideo] = {}

    def add(self, job: Job, claimed: "ClaimedVideo") -> Sequence[Chunk]:
        """Add a video and return its chunks."""
        self._claimed[job] = claimed
        return claimed.chunks

    def tell(self, item: Item, position: Position) -> None:
        """Report the position of a worker in a video or chunk as the position in the whole video."""
        if isinstance(item, Chunk):
            position = self._claimed[_job_of(item)].advanced(item, position)
        self._progress(position)

    def outcomes(self, answers: Iterable[Answer[Item, Returned]]) -> Iterator[Outcome]:
        """Yield the outcomes of the jobs that end with these answers."""
        for answer in answers:
            item, job = answer.item, _job_of(answer.item)
            outcome: Outcome | None = _outcome(job, answer)
            if isinstance(item, Chunk) and outcome is not None:
                outcome = self._claimed[job].answered(item, outcome)
                if outcome is not None:
                    del self._claimed[job]
            if outcome is not None:
                yield outcome

    def close(self) -> None:
        """Give up the claims on videos still under way. Their finished segments stay for the next run."""
        for claimed in self._claimed.values():
            claimed.close()


def _job_of(item: Item) -> Job:
    """Return the job itself, or the job that a chunk belongs to."""
    return Job(item.source, item.destination) if isinstance(item, Chunk) else item


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Convert errors of Ray into errors of this program."""
    try:
        yield
    except exceptions.RayTaskError as error:  # raised by our code in a worker
        if isinstance(error.cause, ColorizeError):
            raise error.cause from error
        raise
    except exceptions.RayError as error:
        raise ColorizeError(
            f"the cluster does not answer; run the same command again to continue: {one_line(error)}"
        ) from error


def _session(
    cores: int,
    announce: Callable[[str], None],
    progress: Progress,
    *,
    root: Location | None,
    stores: tuple[bool, bool],
    settings: Settings,
    guidance: Guidance,
    by_cores: bool,
    many: bool,
) -> Session:
    """Open the session of a worker in its process, as `Build` describes. `by_cores`: a thread per core."""
    workers = cores if by_cores else settings.workers
    session = Session(
        root,
        replace(settings, workers=workers),
        guidance,
        announce,
        progress,
        cores=cores,
        stores=stores,
        listed=False,
    )
    session.open(many=many)
    return session


def _outcome(job: Job, answer: Answer[Item, Returned]) -> Outcome:
    """Return the outcome of a job, or of a chunk of a video, with the paths as the user gave them."""
    if answer.result is None:
        reason = f"{answer.losses} workers of the cluster ended unexpectedly while they processed it"
        return Outcome.failed(job, reason)
    outcome = Outcome(job, **answer.result)
    if answer.losses and outcome.is_up_to_date:
        # It was not up to date when the run began, so a worker finished it and was lost before it answered.
        return replace(outcome, status=Status.DONE, reason=None)
    return outcome
