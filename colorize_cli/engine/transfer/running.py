"""A run of which an input or the output is in a remote store, by way of a directory on this machine.

    fetch -> colour -> put

An object is fetched whole into the staging directory, coloured there by what colours files on this machine,
and put whole under its final name, after it was noted what will be there (see `manifest_remote`). Then its
files go. Each step has threads of its own, and what is between the start of its fetching and the end of its
putting is bounded by bytes and by number. Films are fetched, coloured and put one by one, after the pictures.
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
from colorize_cli.core.location import STREAM, Place, redacted
from colorize_cli.core.pipeline import Gate, Pipeline, Result, Stage
from colorize_cli.core.settings import Settings
from colorize_cli.engine.outputs import Outputs, SkippedError
from colorize_cli.engine.session import Workshop, are_many, is_film_job
from colorize_cli.engine.shared_run import Endless
from colorize_cli.engine.transfer import staging
from colorize_cli.engine.transfer.outputs import RemoteOutputs
from colorize_cli.engine.transfer.tasks import Task, steering_of, tasks_of
from colorize_cli.image import reader
from colorize_cli.storage.fingerprint import DAMAGED, Source, Stamp
from colorize_cli.storage.manifest import State
from colorize_cli.storage.remote import MissingError, Object
from colorize_cli.storage.remote_discovery import RemotePlan

# Bytes of objects between the start of their fetching and the end of their putting. A larger one is worked on
# alone.
BYTES_IN_FLIGHT = 256 << 20
_UNKNOWN_SIZE = 16 << 20  # what an object counts for if the store does not tell
_FETCHING, _PUTTING = 8, 16  # threads
# Who interrupts is answered within two seconds.
_PATIENCE = 1.2
_FINAL = (State.CURRENT, State.FOREIGN)


@dataclass(frozen=True)
class _Fetched:
    """A picture that is here, and what is to be noted of it, if anything is."""

    task: Task
    source: Source | None


@dataclass(frozen=True)
class _Coloured:
    """A picture, and what became of its job on this machine."""

    fetched: _Fetched
    outcome: Outcome


def run(
    plan: RemotePlan,
    settings: Settings,
    announce: Callable[[str], None],
    progress: Progress = lambda _: None,
) -> Generator[Outcome, None, None]:
    """Colours pictures, then films; yields outcomes as they end, those skipped first.

    The files of an outcome are there until the next one is asked for.

    Args:
        plan: What to colour.
        settings: How.
        announce: As of an engine.
        progress: As of an engine.

    Raises:
        ColorizeError: As `engines.local.run` does; also where the store cannot be asked or written to.
    """
    if not plan.jobs:
        return
    with staging.directory() as folder:
        tasks = tasks_of(plan, folder)
        work = _Run(plan, settings, tasks, announce, progress)
        try:
            yield from work.outcomes()
        except BaseException:
            work.close(_PATIENCE)
            raise
        work.close()


def preview(plan: RemotePlan, settings: Settings) -> Iterator[tuple[Transfer, str | None]]:
    """What `run` would do: the jobs, and why each would not be done, if that is known. Nothing is written.

    Raises:
        ColorizeError: As `run`.
    """
    with staging.directory() as folder:
        tasks = tasks_of(plan, folder)
        steering = steering_of(plan, settings, tasks)
        here, there = _roots(plan)
        local = Outputs(here, settings, steering, origins=_origins(tasks), read_only=True)
        remote = RemoteOutputs(there, overwrite=settings.overwrite, read_only=True)
        for task in tasks:
            reason = task.errand.refused
            if reason is None and isinstance(task.errand.destination, Object):
                recipe = local.recipe_of(task.job)
                state = remote.state(task.errand, task.errand.destination, recipe) or remote.state_by_content(
                    task.errand, task.errand.destination, recipe, task.job.destination
                )
                reason = state.value if state in (State.CURRENT, State.FOREIGN) else None
            elif reason is None:
                reason = local.reason_to_skip(task.job)
            yield task.errand.transfer, reason


class _Run:
    """A run, with what it knows of what is there."""

    def __init__(
        self,
        plan: RemotePlan,
        settings: Settings,
        tasks: list[Task],
        announce: Callable[[str], None],
        progress: Progress,
    ) -> None:
        self._stores = plan.stores
        self._announce = announce
        self._settings = settings
        self._tasks = tasks
        self._origins = _origins(tasks)
        here, there = _roots(plan)
        shown: dict[Place, Place] = {task.job.source: task.errand.transfer.source for task in tasks}

        def show(position: Position) -> None:
            progress(replace(position, path=shown[position.path]))

        steering = steering_of(plan, settings, tasks)
        self._workshop = Workshop(here, settings, steering, announce, show, origins=self._origins)
        self._outputs = RemoteOutputs(there, overwrite=settings.overwrite)

    def outcomes(self) -> Generator[Outcome, None, None]:
        pictures: list[Task] = []
        films: list[Task] = []
        for task in self._tasks:
            if (ended := self._ended_already(task)) is not None:
                yield ended
            else:
                (films if is_film_job(task.job) else pictures).append(task)
        if pictures or films:
            self._outputs.prepare()
            self._workshop.open(many=are_many(len(pictures), films=bool(films)))
        if pictures:
            yield from self._pictures(pictures)
        for task in films:
            yield from _ended(self._film(task))

    def close(self, patience: float | None = None) -> None:
        """Ends the notes, here and in the store; waits for the store no longer than so many seconds."""
        self._workshop.close()
        ending = threading.Thread(target=self._end_notes, name="notes", daemon=True)
        ending.start()
        ending.join(patience)

    def _end_notes(self) -> None:
        try:
            self._outputs.close()
        except (ReadError, WriteError) as error:  # the next run has to look at the content of some outputs
            self._announce(f"the notes on the outputs are not complete: {error}")

    def _ended_already(self, task: Task) -> Outcome | None:
        """The end of what cannot or need not be done, as far as the listings tell."""
        errand = task.errand
        if errand.refused is not None:
            return task.ended(Status.FAILED, errand.refused)
        if not isinstance(errand.destination, Object):
            skipped = self._workshop.skipped(task.job)
            return None if skipped is None else task.shown(skipped)
        try:
            state = self._outputs.state(errand, errand.destination, self._workshop.recipe_of(task.job))
        except ReadError as error:
            return task.ended(Status.FAILED, str(error))
        return task.ended(Status.SKIPPED, state.value) if state in _FINAL else None

    def _pictures(self, tasks: list[Task]) -> Generator[Outcome, None, None]:
        # As many as there can be in the workshop at once.
        network = self._workshop.open()
        batch = self._settings.batch_size or network.batch_size
        colouring = 3 * self._settings.workers + 2 * max(batch, network.parallel)
        stream = Endless(self._workshop.pictures)
        pipeline = Pipeline(
            stages=(
                Stage("fetch", self._fetch, _FETCHING, gate=Gate(_weight, BYTES_IN_FLIGHT)),
                Stage("colour", lambda got: _Coloured(got, *stream.outcomes([got.task.job])), colouring),
                Stage("put", self._put, _PUTTING),
            ),
            patience=_PATIENCE,
        )
        results = pipeline.run(tasks)
        try:
            for result in results:
                yield from _ended(result)
        except BaseException:
            self._stores.stop()
            raise
        finally:
            stream.stop()
            results.close()
            stream.join(_PATIENCE)

    def _film(self, task: Task) -> Result[Task]:
        """As the pictures' stages, but in this thread."""
        seconds: dict[str, float] = {}
        try:
            with _timed(seconds, "fetch"):
                fetched = self._fetch(task)
            coloured = _Coloured(fetched, self._workshop.film(task.job))
            with _timed(seconds, "put"):
                outcome = self._put(coloured)
        except Exception as error:  # this film's failure, as a stage's is a picture's
            return Result(task, None, error, seconds, None)
        return Result(task, outcome, None, seconds, None)

    def _fetch(self, task: Task) -> _Fetched:
        errand, job = task.errand, task.job
        recipe = self._workshop.recipe_of(job)
        if job.source != STREAM:
            check_kind(job.source)
        if isinstance(errand.destination, Object):
            self._look(task, errand.destination, recipe)
        if isinstance(errand.source, Object) and errand.found is not None:
            try:
                found = errand.source.store.fetch(errand.found, job.source)
            except MissingError as error:
                raise ReadError("it is no longer there") from error
            self._origins[job.source] = found.stamp
        if not (isinstance(errand.destination, Object) and self._outputs.are_noted):
            return _Fetched(task, None)
        with reader.explained():
            source = Source.of(job.source)
        source = replace(source, stamp=self._origins.get(job.source, source.stamp))
        if self._outputs.is_made_from(errand, source, recipe):
            raise SkippedError(State.CURRENT.value)
        return _Fetched(task, source)

    def _look(self, task: Task, destination: Object, recipe: str) -> None:
        """Looks at the content of an output, where no version is noted of it that would tell whose it is."""
        if self._outputs.state(task.errand, destination, recipe) is None:
            state = self._outputs.state_by_content(task.errand, destination, recipe, task.job.destination)
            if state in _FINAL:
                raise SkippedError(state.value)

    def _put(self, coloured: _Coloured) -> Outcome:
        task, source, outcome = coloured.fetched.task, coloured.fetched.source, coloured.outcome
        destination, file = task.errand.destination, task.job.destination
        if isinstance(destination, Object) and file.is_file():
            if source is not None and outcome.status is Status.FAILED:
                source = DAMAGED
            self._outputs.put(task.errand, destination, source, self._workshop.recipe_of(task.job), file)
        return task.shown(outcome)


def _roots(plan: RemotePlan) -> tuple[Path | None, Object | None]:
    """The output directory, if it is on this machine, and if it is in a store."""
    here = plan.root if isinstance(plan.root, Path) else None
    return here, plan.root if isinstance(plan.root, Object) else None


def _origins(tasks: list[Task]) -> dict[Path, Stamp]:
    """The stamps of objects, by the files that will be copies of them."""
    return {task.job.source: task.errand.found.stamp for task in tasks if task.errand.found is not None}


def _weight(task: Task) -> int:
    """The bytes that a task takes of what may be in flight."""
    if task.errand.found is None:
        return 0
    return _UNKNOWN_SIZE if task.errand.found.size is None else task.errand.found.size


def _ended(result: Result[Task]) -> Iterator[Outcome]:
    """The outcome of a task, whose files go when the next one is asked for."""
    task, error = result.source, result.error
    try:
        if isinstance(error, SkippedError):
            yield task.ended(Status.SKIPPED, str(error))
        elif error is not None:
            failed = task.ended(Status.FAILED, redacted(reason_of(error)))
            yield replace(failed, seconds=_seconds(result))
        else:
            yield replace(result.value, seconds=_seconds(result))
    finally:
        task.forget()


def _seconds(result: Result[Task]) -> dict[str, float]:
    """The time of all stages, those of the colouring among them."""
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
