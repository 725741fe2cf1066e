"""Stages over bounded queues, independent of pictures.

A `Pipeline` is a description. `run` builds it, with threads for every stage, and yields one `Result` per item
in the order of completion, or in the order of the items if the pipeline is `ordered`. It guarantees:

- Every queue is bounded, so memory does not grow with the number of items. With a `Gate` it does not grow
  with their size either.
- An item that fails ends in its own result. The others neither stop nor wait. If a batch fails, its items are
  tried one by one, so that only faulty items fail.
- Batches are greedy: a stage takes the first item and all others that are ready, and never waits for more.
- When the consumer stops, by `close`, `break` or an exception such as KeyboardInterrupt, the stages finish
  their current calls and begin no new ones, and no thread is left. Only calls that take longer than the
  pipeline's `patience` are abandoned.
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
    """A budget of weight, for instance in pixels, shared by all items from a stage to the pipeline's end.

    An item heavier than the whole budget passes alone. Items pass in the order of their arrival.

    Attributes:
        weigh: Function that returns the weight of an item, called with the item as the stage receives it.
        budget: Maximum sum of the weights at one time.
    """

    weigh: Callable[[Any], int]
    budget: int


@dataclass(frozen=True)
class Stage:
    """One step of a pipeline.

    Attributes:
        name: Name for timings and threads.
        run: Function of one item, or, if `batch` is set, of a list of items. It then returns a list of the
            same length in the same order.
        workers: Number of threads.
        batch: Maximum number of items per call; None if `run` takes one item.
        key: Function that returns an item's key. Only items with equal keys share a batch.
        gate: Gate that an item must pass before this stage begins with it; None for no gate.
    """

    name: str
    run: Callable[[Any], Any]
    workers: int = 1
    batch: int | None = None
    key: Callable[[Any], Hashable] = field(default=lambda _: None)
    gate: Gate | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for a stage that cannot work."""
        if self.workers < 1 or (self.batch is not None and self.batch < 1):
            raise ValueError(f"stage {self.name}: workers and batch must be at least 1")
        if self.gate is not None and self.batch is not None:
            raise ValueError(f"stage {self.name}: a batch would wait at the gate for its own items")


@dataclass(frozen=True)
class Result(Generic[S]):
    """The result of one item.

    Attributes:
        source: The item as it was given to the pipeline.
        value: Return value of the last stage; None if the item failed.
        error: Exception of the stage that failed; None if the item succeeded.
        seconds: Time spent on the item, by stage name. For a batch it is the item's share.
        batch: Number of items in its last batch; None if it reached no stage with batches.
    """

    source: S
    value: Any
    error: Exception | None
    seconds: dict[str, float]
    batch: int | None


@dataclass(frozen=True)
class Pipeline:
    """Stages in order, with a bounded queue before each and at the end.

    Attributes:
        stages: The steps, at least one.
        capacity: Maximum number of items in each queue.
        patience: Seconds to wait for the current calls of the stages when the pipeline is stopped. Longer
            calls are abandoned to threads that end with the process. None waits without a limit.
        ordered: True to yield results in the order of the items. A result that waits for an earlier one still
            counts in the pipeline's gates.
    """

    stages: tuple[Stage, ...]
    capacity: int = 4
    patience: float | None = None
    ordered: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for a pipeline that cannot work."""
        if not self.stages or self.capacity < 1:
            raise ValueError("a pipeline needs at least one stage and a capacity of at least 1")
        # Otherwise later items could fill the gate, and wait for an item that waits at the gate.
        if self.ordered and any(stage.gate for stage in self.stages[1:]):
            raise ValueError("in an ordered pipeline only the first stage may have a gate")
        if self.ordered and self.stages[0].gate and self.stages[0].workers > 1:
            raise ValueError("in an ordered pipeline a stage with a gate must have one worker")

    def run(self, items: Iterable[S]) -> Generator[Result[S], None, None]:
        """Run the items through the stages.

        Yields:
            One result per item, in the order of completion or, if `ordered`, of the items.

        Raises:
            Exception: The exception of `items` itself, after the results of all items that it yielded.
        """
        running = _Running[S](self, items)
        try:
            running.start()
            yield from running.results()
        finally:
            running.stop(self.patience)


class _Ended(Exception):  # noqa: N818  (not an error)
    """No more items will come or are taken: all were, or the consumer has stopped."""


@dataclass
class _Parcel(Generic[S]):
    """An item on its way through the stages."""

    number: int
    source: S
    value: Any
    seconds: dict[str, float] = field(default_factory=dict)
    batch: int | None = None
    leave: list[Callable[[], None]] = field(default_factory=list)

    def release(self) -> None:
        """Leave the gates that the item has passed."""
        while self.leave:
            self.leave.pop()()

    def result(self) -> Result[S]:
        """Return the result of an item that has ended, and leave the gates."""
        self.release()
        failed = isinstance(self.value, _Failure)
        value = None if failed else self.value
        return Result(self.source, value, self.value.error if failed else None, self.seconds, self.batch)


@dataclass(frozen=True)
class _Failure:
    """The exception of a stage, in place of its return value."""

    error: Exception


class _Queue:
    """A bounded queue. Its producers close it, and its consumer may stop it at any time."""

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
                raise _Ended
            self._items.append(item)
            self._changed.notify_all()

    def get(self) -> Any:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._items or not self._producers)
            if self._stopped or not self._items:
                raise _Ended
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def get_ready(self, limit: int, wanted: Callable[[Any], bool]) -> list[Any]:
        """Take at most `limit` of the wanted items in the queue, without waiting for more."""
        with self._changed:
            if self._stopped:
                raise _Ended
            taken: list[Any] = []
            kept: deque[Any] = deque()
            for item in self._items:
                (taken if len(taken) < limit and wanted(item) else kept).append(item)
            self._items = kept
            if taken:
                self._changed.notify_all()
            return taken

    def close(self) -> None:
        """Close the queue for one producer. It ends when all producers have closed it."""
        with self._changed:
            self._producers -= 1
            self._changed.notify_all()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._items.clear()
            self._changed.notify_all()


class _GateState:
    """The current load of a `Gate`, and the items that wait at it."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._load = 0
        self._waiting: deque[object] = deque()
        self._stopped = False
        self._changed = threading.Condition()

    def admit(self, item: Any) -> Callable[[], None]:
        """Wait until the item may pass. Return a function to call once, at the item's end."""
        weight = self._gate.weigh(item)
        ticket = object()

        def is_free() -> bool:
            fits = not self._load or self._load + weight <= self._gate.budget
            return self._stopped or (self._waiting[0] is ticket and fits)

        with self._changed:
            self._waiting.append(ticket)
            self._changed.wait_for(is_free)
            if self._stopped:
                raise _Ended
            self._waiting.popleft()
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
    """The queues and threads of a running pipeline."""

    def __init__(self, pipeline: Pipeline, items: Iterable[S]) -> None:
        stages = pipeline.stages
        self._ordered = pipeline.ordered
        producers = [1, *(stage.workers for stage in stages)]
        self._queues = [_Queue(pipeline.capacity, count) for count in producers[:-1]]
        # Every worker may put failures into the last queue. The feeder closes it too, so that the queue does
        # not end before an exception of the items is recorded.
        self._done = _Queue(pipeline.capacity, sum(producers))
        self._gates = {stage.name: _GateState(stage.gate) for stage in stages if stage.gate}
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
        waiting: dict[int, _Parcel[S]] = {}  # of an ordered pipeline, until all earlier ones are there
        following = 0
        while True:
            try:
                parcel: _Parcel[S] = self._done.get()
            except _Ended:
                break
            if not self._ordered:
                yield parcel.result()
                continue
            waiting[parcel.number] = parcel
            while following in waiting:
                yield waiting.pop(following).result()
                following += 1
        if self._defect is not None:
            raise self._defect
        if self._feed_error is not None:
            raise self._feed_error

    def stop(self, patience: float | None) -> None:
        """Begin nothing new, and wait at most `patience` seconds for the current calls."""
        self._halt()
        deadline = None if patience is None else time.monotonic() + patience
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))

    def _halt(self) -> None:
        for queue in (*self._queues, self._done):
            queue.stop()
        for gate in self._gates.values():
            gate.stop()

    def _feed(self, items: Iterable[S]) -> None:
        try:
            for number, item in enumerate(items):
                self._queues[0].put(_Parcel(number, item, item))
        except _Ended:
            pass
        except BaseException as error:  # raised again for the consumer, in another thread
            self._feed_error = error
        finally:
            self._queues[0].close()
            self._done.close()

    def _work(self, stage: Stage, index: int) -> None:
        try:
            while True:
                self._step(stage, index)
        except _Ended:
            pass
        except BaseException as error:  # a defect of the pipeline itself, for instance a key that raises
            self._defect = error
            self._halt()
        finally:
            if index + 1 < len(self._queues):
                self._queues[index + 1].close()
            self._done.close()

    def _step(self, stage: Stage, index: int) -> None:
        """Take one item or one batch through a stage."""
        parcels = self._take(stage, index)
        begun = time.perf_counter()
        made: list[Any] = []
        try:
            if stage.gate is not None:
                parcels[0].leave.append(self._gates[stage.name].admit(parcels[0].value))
                begun = time.perf_counter()
            made = _call(stage, [parcel.value for parcel in parcels])
        except _Ended:
            raise
        except Exception as error:  # any exception of a stage fails its item alone
            values = [parcel.value for parcel in parcels]
            made = [_alone(stage, value) for value in values] if len(values) > 1 else [_Failure(error)]
        share = (time.perf_counter() - begun) / len(parcels)
        for parcel, value in zip(parcels, made, strict=True):
            parcel.value = value
            parcel.seconds[stage.name] = share
            if stage.batch is not None:
                parcel.batch = len(parcels)
            if isinstance(value, _Failure) or index + 1 == len(self._queues):
                if not self._ordered:
                    parcel.release()
                self._done.put(parcel)
            else:
                self._queues[index + 1].put(parcel)

    def _take(self, stage: Stage, index: int) -> list[_Parcel[S]]:
        queue = self._queues[index]
        first: _Parcel[S] = queue.get()
        if stage.batch is None or stage.batch == 1:
            return [first]
        key = stage.key(first.value)
        return [first, *queue.get_ready(stage.batch - 1, lambda other: stage.key(other.value) == key)]


def _call(stage: Stage, values: list[Any]) -> list[Any]:
    if stage.batch is None:
        return [stage.run(values[0])]
    made = list(stage.run(values))
    if len(made) != len(values):
        raise RuntimeError(f"stage {stage.name} returned {len(made)} items for {len(values)}")
    return made


def _alone(stage: Stage, value: Any) -> Any:
    """Try an item of a failed batch by itself."""
    try:
        return _call(stage, [value])[0]
    except Exception as error:  # any exception of a stage fails its item alone
        return _Failure(error)
