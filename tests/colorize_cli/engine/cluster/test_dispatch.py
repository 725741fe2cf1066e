"""Dispatch of batches to workers, which are threads here and die on command."""

import contextlib
import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colorize_cli.engine.cluster import dispatch
from colorize_cli.engine.cluster.dispatch import MOST_LOSSES, Answer, Dispatcher


class DiedError(Exception):
    """Raised in place of results by a worker that has died."""


class WorkerHandle:
    """A worker that doubles numbers in a thread. It dies of the numbers for which `dies` is true."""

    def __init__(self, dies: Callable[[int], bool], most: int, pause: float = 0.0) -> None:
        self.max_batches, self.pause = most, pause
        self.batches: list[tuple[int, ...]] = []
        self.unfinished: list[tuple[int, ...]] = []
        self.largest_load = 0
        self._dies = dies
        self._load = 0
        self._dead = False
        self._lock = threading.Lock()
        self._inbox: queue.SimpleQueue = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def submit(self, items: Sequence[int]) -> Future:
        future: Future = Future()
        with self._lock:
            self._load += 1
            self.largest_load = max(self.largest_load, self._load)
            dead = self._dead
        if dead:
            future.set_exception(DiedError())
        else:
            self._inbox.put((items, future))
        return future

    def mark_lost(self, items: Sequence[int]) -> None:
        self.unfinished.append(tuple(items))

    def end(self) -> None:
        self._inbox.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (entry := self._inbox.get()) is not None:
            items, future = entry
            self.batches.append(tuple(items))
            time.sleep(self.pause)
            if any(map(self._dies, items)):
                with self._lock:
                    self._dead = True
                future.set_exception(DiedError())
                with contextlib.suppress(queue.Empty):
                    while True:
                        self._inbox.get_nowait()[1].set_exception(DiedError())
                return
            with self._lock:
                self._load -= 1
            future.set_result([2 * item for item in items])


class Hands:
    """A fixed number of workers. A dead worker is replaced as soon as there are fewer than `least`."""

    def __init__(self, make: Callable[[], WorkerHandle], count: int, least: int = 1) -> None:
        self._make, self._least = make, least
        self.all = [make() for _ in range(count)]
        self._new = list(self.all)

    def arrived(self) -> Iterable[WorkerHandle]:
        while sum(not handle.unfinished for handle in self.all) < self._least:
            handle = self._make()
            self.all.append(handle)
            self._new.append(handle)
        new, self._new = self._new, []
        return new

    def end(self) -> None:
        for handle in self.all:
            handle.end()


@contextlib.contextmanager
def handles(*args, **options) -> Iterator[Hands]:
    pool = Hands(*args, **options)
    try:
        yield pool
    finally:
        pool.end()


def answers(items: Iterable[int], dispatcher: Dispatcher, alone=lambda _: False) -> Iterator[Answer]:
    for item in items:
        yield from dispatcher.put(item, alone=alone(item))
    yield from dispatcher.finish()


def never(_: int) -> bool:
    return False


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(dispatch, "_TICK", 0.02)
    monkeypatch.setattr(dispatch, "_SHORT_TICK", 0.001)


sizes = {
    "count": st.integers(0, 200),
    "size": st.integers(1, 20),
    "workers": st.integers(1, 4),
    "most": st.integers(1, 3),
}
examples = settings(max_examples=40, deadline=None)


@examples
@given(**sizes)
def test_dispatcher_answers_each_item(count, size, workers, most):
    with handles(lambda: WorkerHandle(never, most), workers) as pool:
        got = list(answers(range(count), Dispatcher(pool.arrived, size, (DiedError,))))
    assert sorted((a.item, a.result, a.losses) for a in got) == [(n, 2 * n, 0) for n in range(count)]
    assert all(len(chunk) <= size for handle in pool.all for chunk in handle.batches)
    assert all(handle.largest_load <= most for handle in pool.all)


@examples
@given(**sizes, seed=st.integers(0, 10**6))
def test_dispatcher_survives_random_deaths(count, size, workers, most, seed):
    dice, left, lock = random.Random(seed), [MOST_LOSSES - 1], threading.Lock()  # noqa: S311

    def dies(_: int) -> bool:
        with lock:
            strikes = left[0] > 0 and dice.random() < 0.1
            left[0] -= strikes
            return strikes

    with handles(lambda: WorkerHandle(dies, most), workers, least=1) as pool:
        got = list(answers(range(count), Dispatcher(pool.arrived, size, (DiedError,))))
    assert sorted((a.item, a.result) for a in got) == [(n, 2 * n) for n in range(count)]


@examples
@given(**sizes, poison=st.sets(st.integers(0, 199), max_size=3))
def test_dispatcher_gives_up_only_poisonous_items(count, size, workers, most, poison):
    with handles(lambda: WorkerHandle(poison.__contains__, most), workers, least=2) as pool:
        got = list(answers(range(count), Dispatcher(pool.arrived, size, (DiedError,))))
    assert sorted(a.item for a in got) == list(range(count))
    assert {a.item for a in got if a.result is None} == {n for n in poison if n < count}
    assert all(a.losses == MOST_LOSSES for a in got if a.result is None)
    deaths = Counter(n for handle in pool.all for chunk in handle.batches for n in chunk if n in poison)
    assert max(deaths.values(), default=0) <= MOST_LOSSES, "no more workers die than it takes to be sure"


@examples
@given(**sizes, poison=st.sets(st.integers(0, 199), max_size=5), seed=st.integers(0, 10**6))
def test_dispatcher_answers_each_item_once_despite_all_faults(count, size, workers, most, poison, seed):
    dice, lock = random.Random(seed), threading.Lock()  # noqa: S311

    def dies(n: int) -> bool:
        with lock:
            return n in poison or dice.random() < 0.02

    with handles(lambda: WorkerHandle(dies, most), workers, least=1) as pool:
        got = list(answers(range(count), Dispatcher(pool.arrived, size, (DiedError,))))
    assert sorted(a.item for a in got) == list(range(count))
    for answer in got:
        assert answer.result == 2 * answer.item or (answer.result is None and answer.losses == MOST_LOSSES)


def test_dispatcher_takes_no_more_than_workers_can_hold():
    size, most, workers = 4, 2, 3
    taken = answered = 0
    largest = 0

    def source() -> Iterator[int]:
        nonlocal taken, largest
        for n in range(2000):
            taken += 1
            largest = max(largest, taken - answered)
            yield n

    with handles(lambda: WorkerHandle(never, most), workers) as pool:
        for _ in answers(source(), Dispatcher(pool.arrived, size, (DiedError,))):
            answered += 1
    assert (taken, answered) == (2000, 2000)
    assert largest <= size * (most * workers + 1)


def test_slow_worker_does_not_delay_the_others():
    slow = WorkerHandle(never, 1, pause=0.6)
    quick = WorkerHandle(never, 1)
    makes = iter((slow, quick))
    with handles(lambda: next(makes), 2) as pool:
        order = [a.item for a in answers(range(60), Dispatcher(pool.arrived, 2, (DiedError,)))]
    assert sorted(order) == list(range(60))
    assert sum(map(len, quick.batches)) > 50
    assert order[-2:] == list(slow.batches[0])


def test_dispatcher_sends_few_items_without_waiting():
    def source() -> Iterator[int]:
        yield 1
        for n in range(2, 50):
            time.sleep(0.01)
            yield n

    with handles(lambda: WorkerHandle(never, 2), 1) as pool:
        dispatcher = Dispatcher(pool.arrived, 1000, (DiedError,))
        first = next(answers(source(), dispatcher))
        list(dispatcher.finish())
    assert first.item == 1
    assert len(pool.all[0].batches[0]) < 40


def test_lone_item_has_its_worker_to_itself():
    busy: set[int] = set()
    seen: list[tuple[int, ...]] = []
    lock = threading.Lock()

    class Watched(WorkerHandle):
        def submit(self, items: Sequence[int]) -> Future:
            with lock:
                busy.update(items)
                if any(n % 10 == 0 for n in items):
                    seen.append(tuple(busy))
            future = super().submit(items)
            future.add_done_callback(lambda _: busy.difference_update(items))
            return future

    with handles(lambda: Watched(never, 3, pause=0.001), 1) as pool:
        got = list(
            answers(range(100), Dispatcher(pool.arrived, 4, (DiedError,)), alone=lambda n: n % 10 == 0)
        )
    assert len(got) == 100
    assert sorted(seen) == [(n,) for n in range(0, 100, 10)]


def test_lone_item_does_not_stop_the_other_workers():
    with handles(lambda: WorkerHandle(lambda _: False, 1, pause=0.005), 2) as pool:
        dispatcher = Dispatcher(pool.arrived, 1, (DiedError,))
        got = list(answers(range(40), dispatcher, alone=lambda n: n == 0))
    assert len(got) == 40
    assert min(len(handle.batches) for handle in pool.all) > 10


def test_dispatcher_waits_for_the_first_worker():
    with handles(lambda: WorkerHandle(never, 1), 0, least=0) as pool:
        threading.Timer(0.1, lambda: setattr(pool, "_least", 1)).start()
        assert len(list(answers(range(10), Dispatcher(pool.arrived, 3, (DiedError,))))) == 10


def test_later_workers_get_work():
    with handles(lambda: WorkerHandle(never, 1, pause=0.004), 1) as pool:
        threading.Timer(0.05, lambda: setattr(pool, "_least", 2)).start()
        assert len(list(answers(range(200), Dispatcher(pool.arrived, 2, (DiedError,))))) == 200
    assert len(pool.all) == 2
    assert len(pool.all[1].batches) > 10


def test_other_worker_errors_are_raised():
    class Broken(WorkerHandle):
        def submit(self, _: Sequence[int]) -> Future:
            future: Future = Future()
            future.set_exception(ValueError("a defect"))
            return future

    with handles(lambda: Broken(never, 1), 1) as pool, pytest.raises(ValueError, match="a defect"):
        list(answers(range(5), Dispatcher(pool.arrived, 2, (DiedError,))))


def test_lost_worker_gets_its_unfinished_items():
    with handles(lambda: WorkerHandle((7).__eq__, 3, pause=0.01), 1) as pool:
        list(answers(range(12), Dispatcher(pool.arrived, 4, (DiedError,))))
    first, second, third = (handle.unfinished for handle in pool.all if handle.unfinished)
    assert first == [(4, 5, 6, 7), (8, 9, 10, 11)]
    assert (second, third) == ([(4, 5, 6, 7)], [(7,)])
