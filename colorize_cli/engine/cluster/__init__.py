"""On a cluster, by Ray: this process hands out jobs, and in actors on every node sessions do them.

    jobs -> those that are to be done -> chunks -> actors, a session each -> outcomes, as they are there

What can stay as it is is found out here, job by job, before there is a cluster: where nothing is to be done
none is started, and no node reads the manifest of millions of outputs for that. There is no list of all jobs
or outcomes; what is under way is bounded (see `dispatch`).

An actor that is lost, with its node or alone, costs what it had in hand: another does that again. Outputs are
renamed into place, so what the first had finished is found up to date, and what it had half written is
removed when the run ends.

Where there are several actors, a long film is divided here into parts, which any of them do, and joined here
(see `engine.video_chunks`).
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
from colorize_cli.core.location import STREAM
from colorize_cli.core.settings import Settings, available_cores
from colorize_cli.engine.cluster.connect import joined
from colorize_cli.engine.cluster.dispatch import Answer, Dispatcher
from colorize_cli.engine.cluster.node_check import NodeCheck, prepared_check
from colorize_cli.engine.cluster.pool import LOST, WorkerPool
from colorize_cli.engine.cluster.worker import Build, Returned, SessionProtocol
from colorize_cli.engine.outputs import make_directory
from colorize_cli.engine.session import Session, are_many
from colorize_cli.engine.work_items import ChunkJob, Item, absolute
from colorize_cli.guidance import Guidance
from colorize_cli.storage.manifest import State

if TYPE_CHECKING:
    from colorize_cli.engine.video_chunks import SplitVideo

# Jobs that are handed out, and come back, together.
CHUNK = 16
# Into so many parts for each actor a film is divided: so each has its next one at hand, and there is less to
# wait for where one is slow, or lost.
CHUNKS_PER_WORKER = 2


def run(
    plan: Plan,
    settings: Settings,
    announce: Callable[[str], None],
    progress: Progress = lambda _: None,
) -> Generator[Outcome, None, None]:
    """Colours on a cluster; yields outcomes as they are there.

    Args:
        plan: What to colour.
        settings: How; `settings.address` says on which cluster.
        announce: Receives a line for each kind of device chosen where `settings.device` is "auto", and where
            something happens to the cluster.
        progress: Is told about once a second how far a film is; of several, one.

    Raises:
        ModelError: The model cannot be loaded. Like the next ones, only if there is anything to be done.
        DeviceError: The device asked for does not work, or no node has it.
        UsageError: There is no such cluster, one of its nodes does not see the same files, or what is asked
            for cannot be.
        ColorizeError: The cluster is gone.
    """
    if any(STREAM in (job.source, job.destination) for job in plan.jobs):
        raise UsageError("- is standard input or output of this machine alone, and not for --engine ray")
    if ":" in settings.device:
        raise UsageError("--engine ray uses all GPUs of all nodes; its --device is auto, cpu or cuda")
    guidance = Guidance.of(settings, plan)
    if not plan.jobs:
        return
    there = replace(settings, model=settings.model and settings.model.absolute())

    def check(job: Job) -> contextlib.AbstractContextManager[NodeCheck]:
        # Where a later run will look for what this one might leave behind.
        folder = job.destination.parent.absolute()
        make_directory(folder)
        return prepared_check(there, folder, job.source.absolute())

    build = partial(
        _session,
        plan.root and plan.root.absolute(),
        there,
        replace(guidance, hints={absolute(job): hints for job, hints in guidance.hints.items()}),
        # What is as many as here was not asked for, but is the default.
        settings.workers == available_cores(),
        are_many(len(plan.jobs), videos=any(is_video(job.source) for job in plan.jobs)),
    )
    local_session = Session(plan.root, settings, guidance)
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
    """Does jobs, which are taken as there is room for them, in sessions on a cluster.

    Args:
        jobs: Any number of them.
        local_session: Says here which of them need not be done.
        build: Makes a session, in an actor.
        settings: Of them `device` and `address`.
        check: Given the first job that is to be done, what each node has to see before it gets any.
        announce: As in `run`.
        progress: As in `run`.

    Raises:
        ColorizeError: As `run`.
    """
    pool: WorkerPool | None = None
    videos = _SplitVideos(progress)
    with _explained(), contextlib.ExitStack() as stack:
        stack.callback(local_session.close)
        stack.callback(videos.close)  # when the actors are no more
        for job in jobs:
            if (skipped := local_session.skipped(job)) is not None:
                yield skipped
                continue
            if pool is None:
                stack.enter_context(joined(settings.address))
                seen = stack.enter_context(check(job))
                pool = WorkerPool(build, settings.device, seen, announce, videos.tell)
                stack.callback(pool.end)
                dispatcher = Dispatcher[Item, Returned](pool.arrived, CHUNK, LOST)
            items: Sequence[Item] = [job]
            if is_video(job.source) and (actors := pool.size()) > 1:
                # Read here, while the actors do what they have in hand.
                split_video = local_session.split_video(job, CHUNKS_PER_WORKER * actors)
                if isinstance(split_video, Outcome):
                    yield split_video
                    continue
                if split_video is not None:
                    items = videos.add(job, split_video)
            for item in items:
                yield from videos.outcomes(dispatcher.put(item, alone=is_video(job.source)))
        if pool is not None:
            yield from videos.outcomes(dispatcher.finish())
            pool.shut_down()


class _SplitVideos:
    """The films that are under way in parts."""

    def __init__(self, progress: Progress) -> None:
        """None yet; `progress` is told how far a film is."""
        self._progress = progress
        self._split_videos: dict[Job, SplitVideo] = {}

    def add(self, job: Job, split_video: "SplitVideo") -> Sequence[ChunkJob]:
        """Takes one; what is to be done of it."""
        self._split_videos[job] = split_video
        return split_video.chunk_jobs

    def tell(self, item: Item, position: Position) -> None:
        """Is told how far an actor is with something."""
        if isinstance(item, ChunkJob):
            position = self._split_videos[item.job].advanced(item, position)
        self._progress(position)

    def outcomes(self, answers: Iterable[Answer[Item, Returned]]) -> Iterator[Outcome]:
        """The outcomes of the jobs that end with these answers."""
        for answer in answers:
            item = answer.item
            if not isinstance(item, ChunkJob):
                yield _outcome(item, answer)
                continue
            video = self._split_videos[item.job].answered(item, _outcome(item.job, answer))
            if video is not None:
                del self._split_videos[item.job]
                yield video

    def close(self) -> None:
        """Gives up those that are still under way; what is done of them stays for the next run."""
        for split_video in self._split_videos.values():
            split_video.close()


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Errors of Ray as those of this program."""
    try:
        yield
    except exceptions.RayTaskError as error:  # raised by our own code in an actor
        if isinstance(error.cause, ColorizeError):
            raise error.cause from error
        raise
    except exceptions.RayError as error:
        raise ColorizeError(f"the cluster does not answer: {one_line(error)}") from error


def _session(
    root: Path | None,
    settings: Settings,
    guidance: Guidance,
    by_cores: bool,
    many: bool,
    cores: int,
    announce: Callable[[str], None],
    progress: Progress,
) -> Session:
    workers = cores if by_cores else settings.workers
    own = replace(settings, workers=workers)
    session = Session(root, own, guidance, announce, progress, cores)
    session.open(many=many)
    return session


def _outcome(job: Job, answer: Answer[Item, Returned]) -> Outcome:
    """The outcome of a job, or of a part of a film, whose paths are as its user gave them."""
    if answer.result is None:
        why = f"{answer.lost} workers of the cluster ended with it in hand, one after the other"
        return Outcome(job, Status.FAILED, why)
    outcome = Outcome(job, **answer.result)
    if answer.lost and outcome.reason == State.CURRENT.value:
        # It was to be done when the run began, so it was done by the worker that did not live to say so.
        return replace(outcome, status=Status.DONE, reason=None)
    return outcome
