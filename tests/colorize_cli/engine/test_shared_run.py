"""One run shared by many callers."""

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from colorize_cli.core.jobs import Job, Outcome, Status
from colorize_cli.core.pipeline import Pipeline, Stage
from colorize_cli.engine.shared_run import SharedRun


def job(name: str) -> Job:
    return Job(Path(name), Path("out") / name)


def staged(jobs: Iterable[Job]) -> Iterator[Outcome]:
    """Process several jobs at a time, like an engine; they end in an order different from their arrival."""
    for result in Pipeline((Stage("look", lambda each: each, 4), Stage("see", lambda each: each, 3))).run(
        jobs
    ):
        yield Outcome(result.source, Status.DONE)


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) == before


def test_callers_get_the_outcomes_of_their_jobs_in_order():
    shared = SharedRun(staged)
    chunks = [[job(f"{chunk}-{n}") for n in range(20)] for chunk in range(30)]
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(shared.outcomes, chunks))
    shared.close()
    assert [[outcome.job for outcome in answer] for answer in answers] == chunks


def test_callers_share_one_run():
    runs = []

    def run(jobs: Iterable[Job]) -> Iterator[Outcome]:
        runs.append(1)
        for each in jobs:
            yield Outcome(each, Status.DONE)

    shared = SharedRun(run)
    for n in range(5):
        shared.outcomes([job(f"{n}")])
    shared.close()
    assert len(runs) == 1


def test_close_without_jobs_starts_no_run():
    runs = []
    SharedRun(lambda jobs: runs.append(jobs) or iter(())).close()
    assert runs == []


def test_run_error_reaches_waiting_and_later_callers():
    def run(jobs: Iterable[Job]) -> Iterator[Outcome]:
        first, _ = next(iter(jobs)), next(iter(jobs))
        yield Outcome(first, Status.DONE)
        raise LookupError("no such thing")

    shared = SharedRun(run)
    with pytest.raises(LookupError, match="no such thing"):
        shared.outcomes([job("a"), job("b"), job("c")])
    with pytest.raises(LookupError):
        shared.outcomes([job("d")])
    shared.close()
