import threading
import time
from collections.abc import Iterator

import pytest

from colorize_cli.core.pipeline import Gate, Pipeline, Result, Stage


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) == before


def double(n: int) -> int:
    return 2 * n


def fails_on_multiples_of_3(n: int) -> int:
    if n % 3 == 0:
        raise ValueError(f"{n} is a multiple of 3")
    return n


def values(results: Iterator[Result[int]]) -> list[int]:
    return [result.value for result in results]


def test_pipeline_with_one_worker_keeps_the_order():
    pipeline = Pipeline((Stage("double", double), Stage("again", double)))
    assert values(pipeline.run(range(100))) == [4 * n for n in range(100)]


@pytest.mark.parametrize("workers", [2, 8])
def test_pipeline_with_many_workers_loses_nothing(workers):
    pipeline = Pipeline((Stage("double", double, workers), Stage("again", double, workers)), capacity=2)
    assert sorted(values(pipeline.run(range(500)))) == [4 * n for n in range(500)]


@pytest.mark.parametrize("workers", [1, 8])
def test_ordered_pipeline_keeps_results_and_failures_in_order(workers):
    def uneven(n: int) -> int:
        time.sleep(0.002 * (n % 7 == 0))
        return fails_on_multiples_of_3(n)

    pipeline = Pipeline(
        (Stage("uneven", uneven, workers), Stage("double", double, workers)), capacity=2, ordered=True
    )
    results = list(pipeline.run(range(200)))
    assert [result.source for result in results] == list(range(200))
    assert values(results) == [2 * n if n % 3 else None for n in range(200)]


def test_ordered_pipeline_counts_waiting_results_in_its_gate():
    release, passed = threading.Event(), []

    def slow(n: int) -> int:
        if n == 0:
            assert release.wait(5)
        passed.append(n)
        return n

    stages = (Stage("gate", double, gate=Gate(lambda _: 1, 10)), Stage("slow", slow, 4))
    results = Pipeline(stages, capacity=2, ordered=True).run(range(100))
    threading.Timer(0.2, release.set).start()
    assert next(results).value == 0
    assert len(passed) <= 10, "the gate admits no more before the first result is taken"
    assert values(results) == [2 * n for n in range(1, 100)]


@pytest.mark.parametrize(
    "stages",
    [
        (Stage("a", double, 2, gate=Gate(lambda _: 1, 1)),),
        (Stage("a", double), Stage("b", double, gate=Gate(lambda _: 1, 1))),
    ],
)
def test_ordered_pipeline_that_could_block_at_its_gate_is_refused(stages):
    with pytest.raises(ValueError, match="in an ordered pipeline"):
        Pipeline(stages, ordered=True)


def test_pipeline_without_items_yields_nothing():
    assert list(Pipeline((Stage("double", double, 3),)).run([])) == []


def test_pipeline_can_run_more_than_once():
    pipeline = Pipeline((Stage("double", double),))
    assert values(pipeline.run([1])) == values(pipeline.run([1])) == [2]


@pytest.mark.parametrize("workers", [1, 4])
def test_failures_are_results_and_do_not_stop_others(workers):
    pipeline = Pipeline((Stage("check", fails_on_multiples_of_3, workers), Stage("double", double, workers)))
    results = {result.source: result for result in pipeline.run(range(30))}
    assert len(results) == 30
    for n, result in results.items():
        if n % 3 == 0:
            assert result.value is None
            assert str(result.error) == f"{n} is a multiple of 3"
        else:
            assert (result.value, result.error) == (2 * n, None)


def test_pipeline_does_not_block_if_all_items_fail():
    def fail(n: int) -> int:
        raise ValueError(n)

    pipeline = Pipeline((Stage("fail", fail, 4), Stage("double", double), Stage("again", double)), capacity=1)
    assert len(list(pipeline.run(range(200)))) == 200


def test_results_have_seconds_by_stage():
    pipeline = Pipeline(
        (Stage("sleep", lambda n: time.sleep(0.02) or n), Stage("check", fails_on_multiples_of_3))
    )
    good, bad = pipeline.run([1, 3])
    assert 0.02 <= good.seconds["sleep"] < 1
    assert set(good.seconds) == set(bad.seconds) == {"sleep", "check"}


def test_batches_are_greedy_and_have_one_key():
    batches: list[list[int]] = []
    arrived = threading.Event()

    def first(n: int) -> int:
        if n == 9:
            arrived.set()
        return n

    def many(batch: list[int]) -> list[int]:
        batches.append(batch)
        arrived.wait(5)
        time.sleep(0.05)  # until the last item is in the queue
        return [2 * n for n in batch]

    stages = (Stage("first", first), Stage("many", many, batch=4, key=lambda n: n % 2))
    results = list(Pipeline(stages, capacity=16).run(range(10)))
    assert {result.source: result.value for result in results} == {n: 2 * n for n in range(10)}
    assert all(len({n % 2 for n in batch}) == 1 and len(batch) <= 4 for batch in batches)
    assert max(map(len, batches)) == 4


def test_batch_does_not_wait_for_more_items():
    release = threading.Event()
    done: list[int] = []

    def source() -> Iterator[int]:
        yield 1
        assert release.wait(5)  # set only after the first item's result has arrived
        yield 2

    pipeline = Pipeline((Stage("many", lambda batch: batch, batch=16),))
    for result in pipeline.run(source()):
        done.append(result.value)
        release.set()
    assert done == [1, 2]


def test_batch_with_a_bad_item_fails_only_it():
    def many(batch: list[int]) -> list[int]:
        return [fails_on_multiples_of_3(n) for n in batch]

    results = Pipeline((Stage("many", many, batch=8),), capacity=8).run(range(20))
    assert sorted(r.source for r in results if r.error) == [n for n in range(20) if n % 3 == 0]


def test_batch_of_the_wrong_length_is_a_failure():
    (result,) = Pipeline((Stage("many", lambda _: [], batch=2),)).run([1])
    assert isinstance(result.error, RuntimeError)


def test_pipeline_queues_are_bounded():
    taken: list[int] = []

    def source() -> Iterator[int]:
        for n in range(1000):
            taken.append(n)
            yield n

    results = Pipeline((Stage("double", double, 2), Stage("again", double, 2)), capacity=3).run(source())
    next(results)
    time.sleep(0.1)
    # Three queues of three, four workers, one item in the feeder's hands, one yielded.
    assert len(taken) <= 3 * 3 + 4 + 2
    results.close()


def test_pipeline_closed_early_stops_soon():
    seen: list[int] = []
    results = Pipeline((Stage("see", lambda n: seen.append(n) or n, 2),)).run(iter(range(10**9)))
    assert next(results).error is None
    begun = time.perf_counter()
    results.close()
    assert time.perf_counter() - begun < 1
    assert len(seen) < 100


def test_interrupt_finishes_running_work_only():
    begun, ended = [], []

    def work(n: int) -> int:
        begun.append(n)
        time.sleep(0.05)
        ended.append(n)
        return n

    def consume() -> None:
        for _ in Pipeline((Stage("work", work, 3),)).run(range(1000)):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        consume()
    assert begun == sorted(begun)
    assert sorted(begun) == sorted(ended)
    assert len(begun) < 30


def test_source_error_is_raised_after_its_items():
    def source() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("the list broke off")

    got = []
    with pytest.raises(OSError, match="broke off"):
        got.extend(values(_record(Pipeline((Stage("double", double),)).run(source()), got)))
    assert [result.value for result in got] == [2, 4]


def _record(results: Iterator[Result[int]], into: list) -> Iterator[Result[int]]:
    for result in results:
        into.append(result)
        yield result


def test_key_error_is_raised():
    def key(n: int) -> int:
        raise LookupError("no key")

    with pytest.raises(LookupError, match="no key"):
        list(Pipeline((Stage("many", lambda batch: batch, batch=4, key=key),)).run(range(10)))


class Load:
    """Records the current and the largest weight between two stages."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._lock = threading.Lock()

    def add(self, n: int) -> int:
        with self._lock:
            self.now += n
            self.most = max(self.most, self.now)
        time.sleep(0.001)
        return n

    def remove(self, n: int) -> int:
        with self._lock:
            self.now -= n
        return n


def test_gate_bounds_the_weight():
    load = Load()
    stages = (Stage("in", load.add, 4, gate=Gate(lambda n: n, 20)), Stage("out", load.remove, 2))
    assert len(list(Pipeline(stages).run([7] * 100))) == 100
    assert load.most <= 20
    assert load.now == 0


def test_gate_admits_an_overweight_item_alone():
    load = Load()
    stages = (Stage("in", load.add, 4, gate=Gate(lambda n: n, 20)), Stage("out", load.remove, 2))
    assert len(list(Pipeline(stages).run([1, 100, 1, 1, 50, 1] * 10))) == 60
    assert load.most == 100


def test_gate_regains_the_weight_of_failures():
    stages = (
        Stage("check", fails_on_multiples_of_3, 3, gate=Gate(lambda _: 10, 10)),
        Stage("double", double),
    )
    assert len(list(Pipeline(stages).run(range(60)))) == 60


def test_gate_weight_error_fails_only_the_item():
    stages = (Stage("double", double, 2, gate=Gate(fails_on_multiples_of_3, 10)),)
    results = list(Pipeline(stages).run(range(20)))
    assert sorted(r.source for r in results if r.error) == [n for n in range(20) if n % 3 == 0]


def test_pipeline_closed_at_a_full_gate_stops():
    begun: list[int] = []

    def slow(n: int) -> int:
        begun.append(n)
        time.sleep(0.05)
        return n

    stages = (Stage("in", double, 4, gate=Gate(lambda _: 10, 10)), Stage("slow", slow))
    results = Pipeline(stages).run(range(100))
    next(results)
    results.close()
    assert 1 <= len(begun) <= 3


@pytest.mark.parametrize(
    "make",
    [
        lambda: Pipeline(()),
        lambda: Pipeline((Stage("s", double),), capacity=0),
        lambda: Stage("s", double, workers=0),
        lambda: Stage("s", double, batch=0),
        lambda: Stage("s", double, batch=2, gate=Gate(lambda n: n, 1)),
    ],
)
def test_impossible_stages_are_refused(make):
    with pytest.raises(ValueError, match=r"at least|batch"):
        make()


def test_patience_limits_the_wait_for_a_stage():
    held = threading.Event()
    pipeline = Pipeline((Stage("hold", lambda n: held.wait(30) if n else n),), patience=0.2)
    results = pipeline.run(range(5))
    assert next(results).value == 0
    begun = time.monotonic()
    results.close()
    assert time.monotonic() - begun < 5
    held.set()
    for thread in threading.enumerate():
        if thread.name.startswith("hold"):
            thread.join()


def test_results_have_the_size_of_their_batch():
    gathered = threading.Event()

    def feed() -> Iterator[int]:
        yield from range(6)
        gathered.set()

    def wait(n: int) -> int:
        gathered.wait(10)
        return n

    stages = (Stage("wait", wait), Stage("batch", lambda batch: batch, batch=4), Stage("double", double))
    assert {result.batch for result in Pipeline(stages, capacity=6).run(feed())} <= {1, 2, 3, 4}
    assert [result.batch for result in Pipeline((Stage("double", double),)).run([1])] == [None]
    alone = Pipeline((Stage("batch", lambda batch: batch, batch=1), Stage("check", fails_on_multiples_of_3)))
    assert [result.batch for result in alone.run([1, 3])] == [1, 1]
