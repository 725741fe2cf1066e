"""One run of unlimited length, shared by callers in several threads."""

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future

from colorize_cli.core.jobs import Job, Outcome


class SharedRun:
    """Run the jobs of all callers in one pipeline, so that its stages never drain between calls."""

    def __init__(self, run: Callable[[Iterable[Job]], Generator[Outcome, None, None]]) -> None:
        """Prepare the run. It starts with the first call of `outcomes`.

        Args:
            run: Takes a stream of jobs and yields one outcome per job. Closing its generator must stop it.
        """
        self._run = run
        self._inbox: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._awaited: dict[Job, Future[Outcome]] = {}
        self._defect: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def outcomes(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Submit jobs and return their outcomes in the same order, waiting for all of them.

        No other caller may be waiting for one of these jobs.

        Raises:
            Exception: Any error raised by the run. The run is over then.
        """
        futures: list[Future[Outcome]] = [Future() for _ in jobs]
        with self._lock:
            if self._defect is not None:
                raise self._defect
            self._awaited.update(zip(jobs, futures, strict=True))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="shared-run", daemon=True)
                self._thread.start()
        for job in jobs:
            self._inbox.put(job)
        return [future.result() for future in futures]

    def close(self) -> None:
        """Wait until all submitted jobs are done, and end the run."""
        self._inbox.put(None)
        if self._thread is not None:
            self._thread.join()

    def _jobs(self) -> Iterator[Job]:
        while (job := self._inbox.get()) is not None:
            yield job

    def _work(self) -> None:
        outcomes = self._run(self._jobs())
        try:
            for outcome in outcomes:
                with self._lock:
                    future = self._awaited.pop(outcome.job)
                future.set_result(outcome)
        except BaseException as error:  # raised again in all waiting callers, and in later ones
            with self._lock:
                self._defect = error
                awaited, self._awaited = self._awaited, {}
            for future in awaited.values():
                future.set_exception(error)
        finally:
            outcomes.close()
