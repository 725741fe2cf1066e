"""Stages over bounded queues. Knows nothing of pictures.

A `Pipeline` is a description; `run` builds it, with threads for every stage, and yields one `Result` per item
in the order in which they finish. What it promises:

- Every queue is bounded, so memory does not grow with the number of items, and with a `Gate` not with their
  size.
- An item that fails ends in its own result; the others neither stop nor wait. Where a batch fails, its items
  are tried one by one, so that only those fail that fail alone.
- Batches are greedy: a stage takes the first item and whatever else is ready, and never waits for more.
- When the consumer stops, by `close`, `break` or an exception such as KeyboardInterrupt, what the stages are
  doing at that moment is finished, nothing new is begun, and no thread is left; unless it takes longer than
  the pipeline's `patience`.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

S = TypeVar("S")


@dataclass(frozen=True)
class Gate:
    """A budget of weight, for instance pixels, shared by all items between a stage's start and their end.

    An item heavier than the whole budget is let through alone. First come, first served.

    Attributes:
        weigh: The weight of an item, as the stage receives it.
        budget: The greatest sum of weights at one time.
    """

    weigh: Callable[[Any], int]
    budget: int


@dataclass(frozen=True)
class Stage:
    """One step.

    Attributes:
        name: For timings and thread names.
        run: The step: item to item, or, where `batch` is set, a list of items to as many items in the same
            order.
        workers: Threads.
        batch: Most items per call; None where `run` takes one item.
        key: Only items of equal key share a batch.
        gate: What an item must pass before this stage begins with it.
    """

    name: str
    run: Callable[[Any], Any]
    workers: int = 1
    batch: int | None = None
    key: Callable[[Any], Hashable] = field(default=lambda _: None)
    gate: Gate | None = None

    def __post_init__(self) -> None:
        """Rejects what cannot work."""
        if self.workers < 1 or (self.batch is not None and self.batch < 1):
            raise ValueError(f"stage {self.name}: workers and batch are at least 1")
        if self.gate is not None and self.batch is not None:
            raise ValueError(f"stage {self.name}: a batch would wait at the gate for its own items")


@dataclass(frozen=True)
class Result(Generic[S]):
    """What became of one item.

    Attributes:
        source: The item as it was put in.
        value: What the last stage made of it; None where it failed.
        error: What a stage raised; None where it succeeded.
        seconds: By stage name, the time spent on it; for a batch, its share.
        batch: How many items shared its last batch; None where it got to no stage that has batches.
    """

    source: S
    value: Any
    error: Exception | None
    seconds: dict[str, float]
    batch: int | None


@dataclass(frozen=True)
class Pipeline:
    """Stages in order, with at most `capacity` items waiting before each and at the end.

    Attributes:
        stages: The steps.
        capacity: Most items waiting.
        patience: Seconds that stopping waits for what the stages are doing; what takes longer is abandoned
            to threads that end with the process. None to wait for as long as it takes.
    """

    stages: tuple[Stage, ...]
    capacity: int = 4
    patience: float | None = None

    def __post_init__(self) -> None:
        """Rejects what cannot work."""
        if not self.stages or self.capacity < 1:
            raise ValueError("a pipeline has at least one stage and a capacity of at least one")

    def run(self, items: Iterable[S]) -> Generator[Result[S], None, None]:
        """Puts the items through the stages.

        Raises:
            Exception: What `items` itself raises, after the results of all the items that it gave.
        """
        running = _Running[S](self, items)
        try:
            running.start()
            yield from running.results()
        finally:
            running.stop(self.patience)


class _StoppedError(Exception):
    """The consumer wants no more."""


class _Ended(Exception):  # noqa: N818  (not an error)
    """No more items will come."""


@dataclass
class _Parcel(Generic[S]):
    """An item on its way."""

    source: S
    value: Any
    seconds: dict[str, float] = field(default_factory=dict)
    batch: int | None = None
    release: Callable[[], None] | None = None


@dataclass(frozen=True)
class _Failure:
    """What a stage raised, in place of what it would have made."""

    error: Exception


class _Queue:
    """A bounded queue that is closed by its producers and may be stopped by its consumer at any time."""

    def __init__(self, capacity: int, producers: int) -> None:
        self._items: deque[Any] = deque()
        self._capacity = capacity
        self._producers = producers
        self._stopped = False
        self._changed = threading.Condition()

    def put(self, item: Any) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or len(self._items) < self._capacity)
            if self._stopped:
                raise _StoppedError
            self._items.append(item)
            self._changed.notify_all()

    def get(self) -> Any:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._items or not self._producers)
            if self._stopped:
                raise _StoppedError
            if not self._items:
                raise _Ended
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def get_ready(self, limit: int, wanted: Callable[[Any], bool]) -> list[Any]:
        """Takes what is there and wanted, at most `limit` items, without waiting."""
        with self._changed:
            if self._stopped:
                raise _StoppedError
            taken: list[Any] = []
            kept: deque[Any] = deque()
            for item in self._items:
                (taken if len(taken) < limit and wanted(item) else kept).append(item)
            self._items = kept
            if taken:
                self._changed.notify_all()
            return taken

    def close(self) -> None:
        """One producer will put no more; after the last one the queue ends."""
        with self._changed:
            self._producers -= 1
            self._changed.notify_all()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._items.clear()
            self._changed.notify_all()


class _Scale:
    """The running side of a `Gate`."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._load = 0
        self._line: deque[object] = deque()
        self._stopped = False
        self._changed = threading.Condition()

    def admit(self, item: Any) -> Callable[[], None]:
        """Waits until the item may pass; what it returns is to be called once, at the item's end."""
        weight = self._gate.weigh(item)
        ticket = object()

        def is_free() -> bool:
            fits = not self._load or self._load + weight <= self._gate.budget
            return self._stopped or (self._line[0] is ticket and fits)

        with self._changed:
            self._line.append(ticket)
            self._changed.wait_for(is_free)
            if self._stopped:
                raise _StoppedError
            self._line.popleft()
            self._load += weight
            self._changed.notify_all()

        def release() -> None:
            with self._changed:
                self._load -= weight
                self._changed.notify_all()

        return release

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()


class _Running(Generic[S]):
    """A pipeline that was built: its queues and threads."""

    def __init__(self, pipeline: Pipeline, items: Iterable[S]) -> None:
        stages = pipeline.stages
        producers = [1, *(stage.workers for stage in stages)]
        self._queues = [_Queue(pipeline.capacity, count) for count in producers[:-1]]
        # Every worker may put failures into the last queue, and the feeder its own.
        self._done = _Queue(pipeline.capacity, sum(producers))
        self._scales = {stage.name: _Scale(stage.gate) for stage in stages if stage.gate}
        self._feed_error: BaseException | None = None
        self._defect: BaseException | None = None
        self._threads = [threading.Thread(target=self._feed, args=(items,), name="feed", daemon=True)]
        for index, stage in enumerate(stages):
            for number in range(stage.workers):
                name = f"{stage.name}-{number}"
                self._threads.append(
                    threading.Thread(target=self._work, args=(stage, index), name=name, daemon=True)
                )

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def results(self) -> Generator[Result[S], None, None]:
        while True:
            try:
                yield self._done.get()
            except (_Ended, _StoppedError):
                break
        if self._defect is not None:
            raise self._defect
        if self._feed_error is not None:
            raise self._feed_error

    def stop(self, patience: float | None) -> None:
        """Begins nothing new, and waits for what is being done."""
        self._halt()
        deadline = None if patience is None else time.monotonic() + patience
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))

    def _halt(self) -> None:
        for queue in (*self._queues, self._done):
            queue.stop()
        for scale in self._scales.values():
            scale.stop()

    def _feed(self, items: Iterable[S]) -> None:
        try:
            for item in items:
                self._queues[0].put(_Parcel(item, item))
        except _StoppedError:
            pass
        except BaseException as error:  # handed to the consumer, who is in another thread
            self._feed_error = error
        finally:
            self._queues[0].close()
            self._done.close()

    def _work(self, stage: Stage, index: int) -> None:
        try:
            while True:
                self._step(stage, index)
        except (_StoppedError, _Ended):
            pass
        except BaseException as error:  # a defect of the description, a key that raises for instance
            self._defect = error
            self._halt()
        finally:
            if index + 1 < len(self._queues):
                self._queues[index + 1].close()
            self._done.close()

    def _step(self, stage: Stage, index: int) -> None:
        """Takes one item, or one batch, through a stage."""
        parcels = self._take(stage, index)
        begun = time.perf_counter()
        made: list[Any] = []
        try:
            if stage.gate is not None:
                parcels[0].release = self._scales[stage.name].admit(parcels[0].value)
                begun = time.perf_counter()
            made = _call(stage, [parcel.value for parcel in parcels])
        except _StoppedError:
            raise
        except Exception as error:  # whatever a stage raises is its item's failure
            values = [parcel.value for parcel in parcels]
            made = [_alone(stage, value) for value in values] if len(values) > 1 else [_Failure(error)]
        share = (time.perf_counter() - begun) / len(parcels)
        for parcel, value in zip(parcels, made, strict=True):
            parcel.value = value
            parcel.seconds[stage.name] = share
            if stage.batch is not None:
                parcel.batch = len(parcels)
            if isinstance(value, _Failure) or index + 1 == len(self._queues):
                self._finish(parcel)
            else:
                self._queues[index + 1].put(parcel)

    def _take(self, stage: Stage, index: int) -> list[_Parcel[S]]:
        queue = self._queues[index]
        first: _Parcel[S] = queue.get()
        if stage.batch is None or stage.batch == 1:
            return [first]
        key = stage.key(first.value)
        return [first, *queue.get_ready(stage.batch - 1, lambda other: stage.key(other.value) == key)]

    def _finish(self, parcel: _Parcel[S]) -> None:
        if parcel.release is not None:
            parcel.release()
        failed = isinstance(parcel.value, _Failure)
        value = None if failed else parcel.value
        error = parcel.value.error if failed else None
        self._done.put(Result(parcel.source, value, error, parcel.seconds, parcel.batch))


def _call(stage: Stage, values: list[Any]) -> list[Any]:
    if stage.batch is None:
        return [stage.run(values[0])]
    made = list(stage.run(values))
    if len(made) != len(values):
        raise RuntimeError(f"stage {stage.name} made {len(made)} of {len(values)} items")
    return made


def _alone(stage: Stage, value: Any) -> Any:
    """An item of a batch that failed, tried by itself."""
    try:
        return _call(stage, [value])[0]
    except Exception as error:  # whatever a stage raises is its item's failure
        return _Failure(error)
