"""Items to workers, in chunks, with a bound on what is under way. Knows neither Ray nor pictures.

Items are gathered to chunks; a chunk is handed to the worker that has the least to do, and its results come
back as they are there. What it promises:

- Nothing is held but the chunk that is being gathered, the chunks under way, of which each worker has at most
  so many as it says, and those that lost their worker. So memory does not grow with the number of items.
- Each item has one answer. Where a worker is lost, what it had in hand is done again by another, chunk by
  chunk, each of which has a worker to itself; if that one is lost too, the chunk is taken apart and its items
  are done one by one. An item that lost `MOST_LOST` workers in a row is given up, and its answer says so.
- Workers may come and go at any time; while there are none, it waits for some.
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

MOST_LOST = 3
# Seconds: so often it is asked for new workers, and so long items wait for others to fill their chunk.
_TICK = 1.0
_SHORT_TICK = 0.05  # while there are no workers


class Worker(Protocol[Given, Result]):
    """What does chunks, several of which may be under way.

    Attributes:
        most: How many chunks it is to have at one time.
    """

    most: int

    def submit(self, items: Sequence[Given]) -> "Future[Sequence[Result]]":
        """Begins with a chunk; gives its results in the order of its items."""

    def lost(self, items: Sequence[Given]) -> None:
        """Is told of a chunk that it did not live to finish; of each, if there are several."""


@dataclass(frozen=True)
class Answer(Generic[Item, Result]):
    """What became of an item.

    Attributes:
        item: The item.
        result: What a worker made of it; None where it was given up.
        lost: How many workers were lost before with the item among what they had in hand.
    """

    item: Item
    result: Result | None
    lost: int


@dataclass(frozen=True)
class _Chunk(Generic[Item]):
    items: tuple[Item, ...]
    lost: int = 0
    alone: bool = False

    def again(self) -> "list[_Chunk[Item]]":
        """What is to be done after a worker was lost with it."""
        lost = self.lost + 1
        parts = [self.items] if lost == 1 else [(item,) for item in self.items]
        return [_Chunk(part, lost, alone=True) for part in parts]


@dataclass(eq=False)
class _Slot(Generic[Item, Result]):
    """A worker's place.

    Attributes:
        worker: The worker.
        load: How many chunks it has.
        alone: Whether that is one which is to have the worker to itself.
        next: Such a one, which waits until the worker has nothing to do.
    """

    worker: Worker[Item, Result]
    load: int = 0
    alone: bool = False
    next: _Chunk[Item] | None = None

    def share(self) -> float:
        """Of what it may have, how much it has."""
        return self.load / self.worker.most

    def takes_more(self) -> bool:
        """Whether it may have a chunk beside those that it has."""
        return self.load < self.worker.most and self.next is None and not self.alone


class Dispatcher(Generic[Item, Result]):
    """Hands items to workers. To be used from one thread; each item put in has its answer sometime after."""

    def __init__(
        self,
        arrived: Callable[[], Iterable[Worker[Item, Result]]],
        size: int,
        lost: tuple[type[BaseException], ...],
    ) -> None:
        """Begins with no items.

        Args:
            arrived: Gives the workers that came since it was called last; it is called about once a second.
            size: Items in a chunk.
            lost: What a worker's future raises where the worker is gone. Everything else that it raises is
                raised by `put` and `finish`.
        """
        self._arrived, self._size, self._lost = arrived, size, lost
        self._gathered: list[Item] = []
        self._gathered_since = 0.0
        self._whole: _Chunk[Item] | None = None
        self._aside: deque[_Chunk[Item]] = deque()  # each of these is to have a worker to itself
        self._slots: list[_Slot[Item, Result]] = []
        self._under_way: dict[Future[Sequence[Result]], tuple[_Slot[Item, Result], _Chunk[Item]]] = {}
        self._ended: queue.SimpleQueue[Future[Sequence[Result]]] = queue.SimpleQueue()
        self._asked = float("-inf")

    def put(self, item: Item, *, alone: bool = False) -> Iterator[Answer[Item, Result]]:
        """Takes an item, as soon as there is room for it, and yields what answers there are by then.

        Args:
            item: The item.
            alone: Whether it is a chunk by itself, during which its worker does nothing else.
        """
        yield from self._collect(wait=False)
        now = time.monotonic()
        if alone:
            self._aside.append(_Chunk((item,), alone=True))
        else:
            if not self._gathered:
                self._gathered_since = now
            self._gathered.append(item)
        if len(self._gathered) >= self._size or (self._gathered and now - self._gathered_since >= _TICK):
            self._close()
        while not self._all_placed():
            yield from self._collect(wait=True)

    def finish(self) -> Iterator[Answer[Item, Result]]:
        """Yields the answers that are outstanding; there are no more items."""
        self._close()
        while not self._all_placed() or self._under_way:
            yield from self._collect(wait=True)

    def _close(self) -> None:
        """Ends the chunk that is being gathered."""
        if self._gathered:
            self._whole = _Chunk(tuple(self._gathered))
            self._gathered = []

    def _all_placed(self) -> bool:
        """Gives chunks to workers that have room; whether none is left."""
        if self._aside:
            for slot in sorted(self._slots, key=_Slot.share):
                if self._aside and slot.next is None and not slot.alone:
                    slot.next = self._aside.popleft()
                    self._advance(slot)
        if self._whole is not None:
            open_ = [
                slot for slot in self._slots if slot.next is None and not slot.alone and slot.share() < 1
            ]
            if open_:
                chunk, self._whole = self._whole, None
                self._hand(min(open_, key=_Slot.share), chunk)
        return not self._aside and self._whole is None

    def _advance(self, slot: _Slot[Item, Result]) -> None:
        """Gives a worker that has nothing to do what waits for that."""
        if slot.next is not None and not slot.load:
            chunk, slot.next = slot.next, None
            self._hand(slot, chunk)

    def _hand(self, slot: _Slot[Item, Result], chunk: _Chunk[Item]) -> None:
        future = slot.worker.submit(chunk.items)
        slot.load += 1
        slot.alone = chunk.alone
        self._under_way[future] = slot, chunk
        future.add_done_callback(self._ended.put)

    def _collect(self, *, wait: bool) -> Iterator[Answer[Item, Result]]:
        """The answers that are there; with `wait` at least one chunk's, or else it takes a tick."""
        tick = _TICK if self._slots else _SHORT_TICK
        self._recruit(tick)
        while True:
            try:
                future = self._ended.get(wait, tick)
            except queue.Empty:
                return
            wait = False
            yield from self._answers(future)

    def _recruit(self, tick: float) -> None:
        now = time.monotonic()
        if now - self._asked >= tick:
            self._asked = now
            self._slots += [_Slot(worker) for worker in self._arrived()]

    def _answers(self, future: "Future[Sequence[Result]]") -> Iterator[Answer[Item, Result]]:
        slot, chunk = self._under_way.pop(future)
        slot.load -= 1
        slot.alone = False
        try:
            results = future.result()
        except self._lost:
            self._lose(slot, chunk)
            again = chunk.again()
            self._aside += [part for part in again if part.lost < MOST_LOST]
            for part in again:
                if part.lost >= MOST_LOST:
                    yield from (Answer(item, None, part.lost) for item in part.items)
            return
        self._advance(slot)
        for item, result in zip(chunk.items, results, strict=True):
            yield Answer(item, result, chunk.lost)

    def _lose(self, slot: _Slot[Item, Result], chunk: _Chunk[Item]) -> None:
        if slot in self._slots:
            self._slots.remove(slot)
            if slot.next is not None:
                self._aside.append(slot.next)
                slot.next = None
        slot.worker.lost(chunk.items)
