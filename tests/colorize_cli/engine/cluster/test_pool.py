"""The pool of workers, with a Ray whose nodes and answers the tests choose."""

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from ray import exceptions

from colorize_cli.engine.cluster import pool
from colorize_cli.engine.cluster.dispatch import MOST_LOSSES, Answer, Dispatcher
from tests.helpers import fake_session

# As Ray 2.60.0 raises them when the process or the node of a call is lost.
LOSS_ERRORS = [
    exceptions.ActorDiedError(),
    exceptions.ActorUnavailableError("it restarts", b"0" * 16),
    exceptions.ActorUnschedulableError("its node is gone"),
    exceptions.TaskUnschedulableError("its node is gone"),
    exceptions.OutOfMemoryError("killed by the memory monitor"),
    exceptions.WorkerCrashedError(),
]


def failed(error: BaseException) -> Future:
    future: Future = Future()
    future.set_exception(error)
    return future


def done(value: Any) -> Future:
    future: Future = Future()
    future.set_result(value)
    return future


@pytest.mark.parametrize("error", LOSS_ERRORS, ids=lambda error: type(error).__name__)
def test_dispatch_worker_lost_in_any_way_repeats_the_item_and_gives_it_up(error):
    unfinished = []
    worker = SimpleNamespace(max_batches=1, submit=lambda _: failed(error), mark_lost=unfinished.append)
    dispatcher = Dispatcher(lambda: [worker], 1, pool.LOSS_ERRORS)
    assert [*dispatcher.put("a"), *dispatcher.finish()] == [Answer("a", None, MOST_LOSSES)]
    assert unfinished == [("a",)] * MOST_LOSSES


class FakeRay:
    """Nodes of one core, and the futures of their calls in the order of the calls."""

    def __init__(self) -> None:
        self.alive: list[str] = []
        self.answers: list[Future] = []

    def nodes(self) -> list[dict[str, Any]]:
        node = {"NodeManagerHostname": "host", "Alive": True, "Resources": {"CPU": 1.0}}
        return [{**node, "NodeID": name * 56, "NodeManagerAddress": name} for name in self.alive]

    def put(self, value: object) -> object:
        return value

    def remote(self, _: object) -> SimpleNamespace:
        """Return a remote function, or a class of actors with the method `open`."""
        call = SimpleNamespace()
        call.remote = lambda *_: SimpleNamespace(open=call, future=lambda: self.answers.pop(0))
        return SimpleNamespace(options=lambda **_: call)


def test_arrived_check_that_is_not_schedulable_is_repeated(monkeypatch):
    ray, lines = FakeRay(), []
    monkeypatch.setattr(pool, "ray", ray)
    check = fake_session.ACCEPTING
    workers = pool.WorkerPool(fake_session.build(), "cpu", check, lines.append, lambda *_: None)
    ray.alive, ray.answers = ["a"], [done(check.file), done(([], "prefix"))]
    assert len(list(workers.arrived())) == 1
    unschedulable = failed(exceptions.TaskUnschedulableError("the node is not known yet"))
    ray.alive, ray.answers = ["a", "b"], [unschedulable, done(check.file), done(([], "prefix"))]
    assert list(workers.arrived()) == []
    (later,) = workers.arrived()
    assert (later.info.node, lines) == ("b" * 56, [])
