"""One run without an end, which callers in several threads share."""

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future

from colorize_cli.core.jobs import Job, Outcome, Transfer


class SharedRun:
    """Does the jobs of each caller in one run of all of them, so that its stages never drain in between."""

    def __init__(self, run: Callable[[Iterable[Job]], Generator[Outcome, None, None]]) -> None:
        """Begins when the first jobs come.

        Args:
            run: Takes jobs as they come, and yields one outcome of each; when it is closed it stops.
        """
        self._run = run
        self._inbox: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._awaited: dict[Job | Transfer, Future[Outcome]] = {}
        self._defect: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def outcomes(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Waits for the outcomes of jobs, of which no other caller awaits one; in their order.

        Raises:
            Exception: What the run itself raises, which is its end.
        """
        futures: list[Future[Outcome]] = [Future() for _ in jobs]
        with self._lock:
            if self._defect is not None:
                raise self._defect
            self._awaited.update(zip(jobs, futures, strict=True))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="endless", daemon=True)
                self._thread.start()
        for job in jobs:
            self._inbox.put(job)
        return [future.result() for future in futures]

    def close(self) -> None:
        """Waits until all that was given is done, and ends the run."""
        self._inbox.put(None)
        if self._thread is not None:
            self._thread.join()

    def stop(self) -> None:
        """Takes no more, and begins nothing new; who waits, or comes later, gets a CancelledError."""
        self._fail(CancelledError())
        self._inbox.put(None)

    def join(self, patience: float) -> None:
        """Waits until the run has ended, but not for longer than so many seconds."""
        if self._thread is not None:
            self._thread.join(patience)

    def _fail(self, error: BaseException) -> None:
        """Is raised where an outcome is waited for, in other threads."""
        with self._lock:
            self._defect = self._defect or error
            awaited, self._awaited = self._awaited, {}
        for future in awaited.values():
            future.set_exception(self._defect)

    def _jobs(self) -> Iterator[Job]:
        while (job := self._inbox.get()) is not None:
            yield job

    def _work(self) -> None:
        outcomes = self._run(self._jobs())
        try:
            for outcome in outcomes:
                with self._lock:
                    future = self._awaited.pop(outcome.job, None)
                if future is None:  # it was stopped
                    break
                future.set_result(outcome)
        except BaseException as error:  # for those who wait
            self._fail(error)
        finally:
            outcomes.close()
