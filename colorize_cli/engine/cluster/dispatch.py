"""Dispatch of items to workers, in batches, with a bound on the work under way.

Independent of Ray and of images. Items are collected into batches. A batch goes to the worker with the lowest
load, and answers are yielded as batches end. Guarantees:

- Memory does not grow with the number of items. The dispatcher holds only the batch being filled, the batches
  under way (at most `Worker.max_batches` per worker), and batches of lost workers.
- Each item gets exactly one answer. If a worker is lost, each of its batches is repeated by another worker,
  which does nothing else meanwhile. If that worker is lost too, the batch is split and its items are done one
  by one. After the loss of `MOST_LOSSES` workers in succession an item is given up, and its answer has no
  result.
- Workers may come and go at any time. While there are none, the dispatcher waits.
"""

import queue
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

Item = TypeVar("Item")
Given = TypeVar("Given", contravariant=True)
Result = TypeVar("Result")

MOST_LOSSES = 3
# Seconds between two checks for new workers, and the longest wait for further items to fill a batch.
_TICK = 1.0
_SHORT_TICK = 0.05  # the same while there are no workers


class Worker(Protocol[Given, Result]):
    """A worker that processes batches, several at one time.

    Attributes:
        max_batches: Maximum number of batches under way at one time.
    """

    max_batches: int

    def submit(self, items: Sequence[Given]) -> "Future[Sequence[Result]]":
        """Start a batch. Returns a future of its results in the order of its items."""

    def mark_lost(self, items: Sequence[Given]) -> None:
        """Mark the worker as lost. Called once for each batch that it did not finish."""


@dataclass(frozen=True)
class Answer(Generic[Item, Result]):
    """The result of an item.

    Attributes:
        item: The item.
        result: The worker's result; None if the item was given up.
        losses: Number of workers that were lost while they had the item.
    """

    item: Item
    result: Result | None
    losses: int


@dataclass(frozen=True)
class _Batch(Generic[Item]):
    items: tuple[Item, ...]
    losses: int = 0
    alone: bool = False

    def retries(self) -> "list[_Batch[Item]]":
        """Return the batches to try after a worker was lost with this one."""
        losses = self.losses + 1
        groups = [self.items] if losses == 1 else [(item,) for item in self.items]
        return [_Batch(group, losses, alone=True) for group in groups]


@dataclass(eq=False)
class _Slot(Generic[Item, Result]):
    """A worker and its load.

    Attributes:
        worker: The worker.
        load: Number of batches under way.
        alone: True if the batch under way excludes others.
        next: An exclusive batch that waits until the worker is idle.
    """

    worker: Worker[Item, Result]
    load: int = 0
    alone: bool = False
    next: _Batch[Item] | None = None

    def share(self) -> float:
        """Return the load as a fraction of capacity."""
        return self.load / self.worker.max_batches

    def takes_more(self) -> bool:
        """Return True if the worker can take one more batch."""
        return self.load < self.worker.max_batches and self.next is None and not self.alone


class Dispatcher(Generic[Item, Result]):
    """Dispatches items to workers. Use from one thread only; each item gets its answer in some later call."""

    def __init__(
        self,
        arrived: Callable[[], Iterable[Worker[Item, Result]]],
        size: int,
        loss_errors: tuple[type[BaseException], ...],
    ) -> None:
        """Start without items.

        Args:
            arrived: Returns the workers that became ready since its last call. Called about once a second.
            size: Maximum number of items in a batch.
            loss_errors: Exceptions of a worker's future that mean the loss of the worker. `put` and `finish`
                raise all others.
        """
        self._arrived, self._size, self._loss_errors = arrived, size, loss_errors
        self._gathered: list[Item] = []
        self._gathered_since = 0.0
        self._full: _Batch[Item] | None = None
        self._exclusive: deque[_Batch[Item]] = deque()  # each needs a worker without other batches
        self._slots: list[_Slot[Item, Result]] = []
        self._under_way: dict[Future[Sequence[Result]], tuple[_Slot[Item, Result], _Batch[Item]]] = {}
        self._ended: queue.SimpleQueue[Future[Sequence[Result]]] = queue.SimpleQueue()
        self._last_arrivals = float("-inf")

    def put(self, item: Item, *, alone: bool = False) -> Iterator[Answer[Item, Result]]:
        """Add an item and yield the answers that are ready. Waits until a worker has room.

        Args:
            item: The item.
            alone: True to make the item a batch by itself, during which its worker does nothing else.
        """
        yield from self._collect(wait=False)
        now = time.monotonic()
        if alone:
            self._exclusive.append(_Batch((item,), alone=True))
        else:
            if not self._gathered:
                self._gathered_since = now
            self._gathered.append(item)
        if len(self._gathered) >= self._size or (self._gathered and now - self._gathered_since >= _TICK):
            self._close()
        while not self._all_placed():
            yield from self._collect(wait=True)

    def finish(self) -> Iterator[Answer[Item, Result]]:
        """Yield all outstanding answers. Call after the last item."""
        self._close()
        while not self._all_placed() or self._under_way:
            yield from self._collect(wait=True)

    def _close(self) -> None:
        """Complete the batch being filled."""
        if self._gathered:
            self._full = _Batch(tuple(self._gathered))
            self._gathered = []

    def _all_placed(self) -> bool:
        """Submit waiting batches to workers with room. Returns True if no batch is left waiting."""
        if self._exclusive:
            for slot in sorted(self._slots, key=_Slot.share):
                if self._exclusive and slot.next is None and not slot.alone:
                    slot.next = self._exclusive.popleft()
                    self._advance(slot)
        candidates = [slot for slot in self._slots if slot.takes_more()]
        if self._full is not None and candidates:
            batch, self._full = self._full, None
            self._submit(min(candidates, key=_Slot.share), batch)
        return not self._exclusive and self._full is None

    def _advance(self, slot: _Slot[Item, Result]) -> None:
        """Submit the exclusive batch that waits for this worker, if the worker is idle."""
        if slot.next is not None and not slot.load:
            batch, slot.next = slot.next, None
            self._submit(slot, batch)

    def _submit(self, slot: _Slot[Item, Result], batch: _Batch[Item]) -> None:
        future = slot.worker.submit(batch.items)
        slot.load += 1
        slot.alone = batch.alone
        self._under_way[future] = slot, batch
        future.add_done_callback(self._ended.put)

    def _collect(self, *, wait: bool) -> Iterator[Answer[Item, Result]]:
        """Yield the answers that are ready. With `wait`, wait up to one tick for at least one batch."""
        tick = _TICK if self._slots else _SHORT_TICK
        now = time.monotonic()
        if now - self._last_arrivals >= tick:
            self._last_arrivals = now
            self._slots += [_Slot(worker) for worker in self._arrived()]
        while True:
            try:
                future = self._ended.get(wait, tick)
            except queue.Empty:
                return
            wait = False
            yield from self._answers(future)

    def _answers(self, future: "Future[Sequence[Result]]") -> Iterator[Answer[Item, Result]]:
        slot, batch = self._under_way.pop(future)
        slot.load -= 1
        slot.alone = False
        try:
            results = future.result()
        except self._loss_errors:
            self._drop(slot, batch)
            for retry in batch.retries():
                if retry.losses < MOST_LOSSES:
                    self._exclusive.append(retry)
                else:
                    yield from (Answer(item, None, retry.losses) for item in retry.items)
            return
        self._advance(slot)
        for item, result in zip(batch.items, results, strict=True):
            yield Answer(item, result, batch.losses)

    def _drop(self, slot: _Slot[Item, Result], batch: _Batch[Item]) -> None:
        if slot in self._slots:
            self._slots.remove(slot)
            if slot.next is not None:
                self._exclusive.append(slot.next)
                slot.next = None
        slot.worker.mark_lost(batch.items)
