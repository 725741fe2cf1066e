"""On a cluster, by Ray: this process hands out jobs, and in actors on every node workshops do them.

    jobs -> those that are to be done -> chunks -> actors, a workshop each -> outcomes, as they are there

What can stay as it is is found out here, job by job, before there is a cluster: where nothing is to be done
none is started, and no node reads the ledger of millions of outputs for that. There is no list of all jobs or
outcomes; what is under way is bounded (see `dispatch`).

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
from colorize_cli.core.formats import is_film
from colorize_cli.core.jobs import Job, Outcome, Plan, Position, Progress, Status
from colorize_cli.core.location import STREAM
from colorize_cli.core.settings import Settings, available_cores
from colorize_cli.engine.cluster.connect import joined
from colorize_cli.engine.cluster.dispatch import Answer, Dispatcher
from colorize_cli.engine.cluster.node_check import Probe, probing
from colorize_cli.engine.cluster.pool import LOST, Crew
from colorize_cli.engine.cluster.worker import Build, Returned, Shop
from colorize_cli.engine.outputs import make_directory
from colorize_cli.engine.session import Workshop, are_many
from colorize_cli.engine.work_items import Item, Piece, absolute
from colorize_cli.guidance import Steering
from colorize_cli.storage.manifest import State

if TYPE_CHECKING:
    from colorize_cli.engine.video_chunks import Divided

# Jobs that are handed out, and come back, together.
CHUNK = 16
# Into so many parts for each actor a film is divided: so each has its next one at hand, and there is less to
# wait for where one is slow, or lost.
PARTS = 2


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
    steering = Steering.of(settings, plan)
    if not plan.jobs:
        return
    there = replace(settings, model=settings.model and settings.model.absolute())

    def probe(job: Job) -> contextlib.AbstractContextManager[Probe]:
        # Where a later run will look for what this one might leave behind.
        folder = job.destination.parent.absolute()
        make_directory(folder)
        return probing(there, folder, job.source.absolute())

    build = partial(
        _workshop,
        plan.root and plan.root.absolute(),
        there,
        replace(steering, hints={absolute(job): hints for job, hints in steering.hints.items()}),
        # What is as many as here was not asked for, but is the default.
        settings.workers == available_cores(),
        are_many(len(plan.jobs), films=any(is_film(job.source) for job in plan.jobs)),
    )
    office = Workshop(plan.root, settings, steering)
    yield from labour(plan.jobs, office, build, settings, probe, announce, progress)


def labour(
    jobs: Iterable[Job],
    office: Shop,
    build: Build,
    settings: Settings,
    probe: Callable[[Job], contextlib.AbstractContextManager[Probe]],
    announce: Callable[[str], None],
    progress: Progress = lambda _: None,
) -> Generator[Outcome, None, None]:
    """Does jobs, which are taken as there is room for them, in shops on a cluster.

    Args:
        jobs: Any number of them.
        office: Says here which of them need not be done.
        build: Makes a shop, in an actor.
        settings: Of them `device` and `address`.
        probe: Given the first job that is to be done, what each node has to see before it gets any.
        announce: As in `run`.
        progress: As in `run`.

    Raises:
        ColorizeError: As `run`.
    """
    crew: Crew | None = None
    films = _Films(progress)
    with _explained(), contextlib.ExitStack() as stack:
        stack.callback(office.close)
        stack.callback(films.close)  # when the actors are no more
        for job in jobs:
            if (skipped := office.skipped(job)) is not None:
                yield skipped
                continue
            if crew is None:
                stack.enter_context(joined(settings.address))
                seen = stack.enter_context(probe(job))
                crew = Crew(build, settings.device, seen, announce, films.tell)
                stack.callback(crew.end)
                dispatcher = Dispatcher[Item, Returned](crew.arrived, CHUNK, LOST)
            items: Sequence[Item] = [job]
            if is_film(job.source) and (actors := crew.size()) > 1:
                # Read here, while the actors do what they have in hand.
                divided = office.divided(job, PARTS * actors)
                if isinstance(divided, Outcome):
                    yield divided
                    continue
                if divided is not None:
                    items = films.add(job, divided)
            for item in items:
                yield from films.outcomes(dispatcher.put(item, alone=is_film(job.source)))
        if crew is not None:
            yield from films.outcomes(dispatcher.finish())
            crew.dismiss()


class _Films:
    """The films that are under way in parts."""

    def __init__(self, progress: Progress) -> None:
        """None yet; `progress` is told how far a film is."""
        self._progress = progress
        self._divided: dict[Job, Divided] = {}

    def add(self, job: Job, divided: "Divided") -> Sequence[Piece]:
        """Takes one; what is to be done of it."""
        self._divided[job] = divided
        return divided.pieces

    def tell(self, item: Item, position: Position) -> None:
        """Is told how far an actor is with something."""
        if isinstance(item, Piece):
            position = self._divided[item.job].advanced(item, position)
        self._progress(position)

    def outcomes(self, answers: Iterable[Answer[Item, Returned]]) -> Iterator[Outcome]:
        """The outcomes of the jobs that end with these answers."""
        for answer in answers:
            item = answer.item
            if not isinstance(item, Piece):
                yield _outcome(item, answer)
                continue
            film = self._divided[item.job].answered(item, _outcome(item.job, answer))
            if film is not None:
                del self._divided[item.job]
                yield film

    def close(self) -> None:
        """Gives up those that are still under way; what is done of them stays for the next run."""
        for divided in self._divided.values():
            divided.close()


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


def _workshop(
    root: Path | None,
    settings: Settings,
    steering: Steering,
    by_cores: bool,
    many: bool,
    cores: int,
    announce: Callable[[str], None],
    progress: Progress,
) -> Workshop:
    workers = cores if by_cores else settings.workers
    own = replace(settings, workers=workers)
    shop = Workshop(root, own, steering, announce, progress, cores)
    shop.open(many=many)
    return shop


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
