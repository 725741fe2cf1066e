"""One run that many callers share."""

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
    """As an engine does it: several at a time, ending in another order than they came."""
    for result in Pipeline((Stage("look", lambda each: each, 4), Stage("see", lambda each: each, 3))).run(
        jobs
    ):
        yield Outcome(result.source, Status.DONE)


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) == before


def test_callers_get_the_outcomes_of_their_own_jobs_in_order():
    endless = SharedRun(staged)
    chunks = [[job(f"{chunk}-{n}") for n in range(20)] for chunk in range(30)]
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(endless.outcomes, chunks))
    endless.close()
    assert [[outcome.job for outcome in answer] for answer in answers] == chunks


def test_all_callers_share_one_run():
    runs = []

    def run(jobs: Iterable[Job]) -> Iterator[Outcome]:
        runs.append(1)
        for each in jobs:
            yield Outcome(each, Status.DONE)

    endless = SharedRun(run)
    for n in range(5):
        endless.outcomes([job(f"{n}")])
    endless.close()
    assert len(runs) == 1


def test_closing_without_any_jobs():
    SharedRun(staged).close()


def test_a_defect_reaches_those_who_wait_and_those_who_come_after():
    def run(jobs: Iterable[Job]) -> Iterator[Outcome]:
        first, _ = next(iter(jobs)), next(iter(jobs))
        yield Outcome(first, Status.DONE)
        raise LookupError("no such thing")

    endless = SharedRun(run)
    with pytest.raises(LookupError, match="no such thing"):
        endless.outcomes([job("a"), job("b"), job("c")])
    with pytest.raises(LookupError):
        endless.outcomes([job("d")])
    endless.close()
