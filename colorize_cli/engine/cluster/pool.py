"""The workers of a cluster, each a Ray actor with a session: one per node with all cores, or one per GPU.

Lost workers are replaced here, and their items are repeated by `dispatch`. Ray's own means were tried (Ray
2.60.0, one machine, two cores, 64 jobs including one that ends its process) and are not used:

- An actor with `max_restarts=-1` and `max_task_retries`: the death of the process costs a retry of every call
  that was sent to it, running or queued. Without retries left, all fail with the same error,
  `ActorUnavailableError`, and Ray does not say which one ran. With one job per call and one retry, 9 innocent
  jobs failed when 16 ran at one time, and 25 when one did; with two retries and 16 jobs, 29. With 16 jobs per
  call all 64 failed. `retry_exceptions` repeats calls that raise, and none that end the process. An actor
  that dies in its constructor is restarted without end.
- The loss of a node: `ray.wait` returns the calls as ended, with `ActorDiedError`. With restarts, an actor
  bound to the node fails with `ActorUnschedulableError`, and one that is not moves to a node that has its
  workers already. No restart gives a worker to a new node. So nodes have to be watched here in any case.
- One task per job with `max_retries=2`: only the job fails, after three runs. But a process runs one task at
  a time, so decoding, inference and encoding do not overlap. Each process has its own model: eight processes
  for tasks of 0.25 cores, and a new one for each call with a GPU unless `max_calls` is set. This would save
  about 400 lines. With 16 jobs per task its 15 neighbors fail too, and the task must be split as `dispatch`
  does. A task that yields its outcomes one by one saves the finished neighbors only.
- Ray Data's `map_batches` over an actor pool: the batch is repeated without end. With limited retries the
  whole run ends with `ActorUnavailableError` after 16 of 64 jobs, and after 20 with one job per batch, also
  with `max_errored_blocks=-1`. That setting drops batches that raise, without their names. Ray Data needs
  pyarrow and pandas.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ray
from ray import exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from colorize_cli.core.errors import ColorizeError, DeviceError, UsageError, one_line
from colorize_cli.core.formats import is_video
from colorize_cli.core.jobs import Position
from colorize_cli.core.location import Location, absolute
from colorize_cli.engine.cluster.dispatch import Worker
from colorize_cli.engine.cluster.node_check import NodeCheck
from colorize_cli.engine.cluster.worker import Actor, Build, Item, Returned, sent
from colorize_cli.storage import atomic
from colorize_cli.video import work_dir
from colorize_cli.video.work_dir import Chunk

# Raised by Ray in place of an answer if the worker or its answer is lost.
LOSS_ERRORS: tuple[type[BaseException], ...] = (
    exceptions.RayActorError,
    exceptions.ActorUnschedulableError,
    exceptions.TaskUnschedulableError,
    exceptions.OutOfMemoryError,  # Ray ended the worker because its node ran low on memory
    exceptions.ObjectLostError,
    exceptions.NodeDiedError,
    exceptions.WorkerCrashedError,
)
# Seconds. The first limits the wait for a node's answer to the check, and the time without any node; the
# second the wait for workers to close their sessions; the third the wait for workers to exit.
_NODE_TIMEOUT, _CLOSE_TIMEOUT, _KILL_TIMEOUT = 60.0, 10.0, 5.0
# Workers of a node that may end in succession before they are ready.
_MAX_FAILED_STARTS = 3

# Called with the position of a worker in a video or chunk.
Tell = Callable[[Item, Position], None]


@dataclass(frozen=True)
class NodeInfo:
    """A usable node and the workers planned for it.

    Attributes:
        node: Ray's identifier of the node.
        name: Host name and address, for messages.
        actors: Number of workers planned.
        cores: CPU cores per worker.
        gpus: GPUs per worker, 0 or 1.
    """

    node: str
    name: str
    actors: int
    cores: int
    gpus: int

    @staticmethod
    def of(node: dict[str, Any], device: str) -> "NodeInfo | None":
        """Plan the workers of a node; None if the node is of no use for `device`.

        Args:
            node: An entry of `ray.nodes()`.
            device: "auto", "cpu" or "cuda".
        """
        name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
        cores, gpus = (int(node["Resources"].get(kind, 0)) for kind in ("CPU", "GPU"))
        if gpus and device != "cpu":
            return NodeInfo(node["NodeID"], name, gpus, max(1, cores // gpus), 1)
        if device != "cuda" and cores:
            return NodeInfo(node["NodeID"], name, 1, cores, 0)
        return None

    @property
    def max_batches(self) -> int:
        """Number of batches that keep a worker busy.

        Images queue before each stage, and a GPU takes them in batches.
        """
        return 4 + self.cores // 4 + 4 * self.gpus

    def here(self) -> NodeAffinitySchedulingStrategy:
        """Return the scheduling strategy that places an actor on this node."""
        return NodeAffinitySchedulingStrategy(self.node, soft=False)


class WorkerHandle(Worker[Item, Returned]):
    """A worker, as seen from this process.

    Attributes:
        info: Its node.
        max_batches: Maximum number of batches under way at one time.
        opened: Future of its opening; None once `finish_open` was called.
        gone: True if the worker was found to be lost.
    """

    def __init__(self, info: NodeInfo, build: Any) -> None:
        self.info, self.max_batches = info, info.max_batches
        self.gone = False
        actor: Any = ray.remote(Actor)
        placed = actor.options(
            num_cpus=info.cores,
            num_gpus=info.gpus,
            scheduling_strategy=info.here(),
            # Besides the batches, one call for the position and one to leave (or to close, without batches).
            max_concurrency=info.max_batches + 2,
        )
        self._actor = placed.remote()
        self.opened: Future[tuple[list[str], str]] | None
        self.opened = self._actor.open.remote(build, info.cores).future()
        self._prefix: str | None = None
        self._under_way: dict[Future[Sequence[Returned]], Sequence[Item]] = {}
        self._folders: set[Path] = set()
        self._video: tuple[Item, Future[Any]] | None = None
        self._position_request: Future[Position | None] | None = None

    def finish_open(self) -> list[str]:
        """Finish the opening and return the worker's lines for the user. Call once, when `opened` is done."""
        assert self.opened is not None  # noqa: S101 - called once
        opened, self.opened = self.opened, None
        lines, self._prefix = opened.result()
        return lines

    def submit(self, items: Sequence[Item]) -> "Future[Sequence[Returned]]":
        """Send a batch to the worker; the future gives its outcomes in the order of the items."""
        answer: Future[Sequence[Returned]] = self._actor.outcomes.remote(
            [sent(item) for item in items]
        ).future()
        self._under_way[answer] = items
        answer.add_done_callback(self._under_way.pop)
        if is_video(items[0].source):
            self._video = items[0], answer
        return answer

    def mark_lost(self, items: Sequence[Item]) -> None:
        """Mark the worker as lost, kill it and remove its temporary files. `items` were not finished."""
        self.gone = True
        self._folders.update(_folders_of(items))
        self.kill()
        self.clear()  # also removes its claim on a video, which would stop the next worker

    def watch(self, tell: Tell) -> bool:
        """Report the last known position in the worker's video or chunk and request a new one.

        Returns:
            True while the worker has a video or a chunk.
        """
        if self._video is None or self._video[1].done():
            self._video = None
            return False
        if self._position_request is not None and self._position_request.done():
            position = None if self._position_request.exception() else self._position_request.result()
            path = self._video[0].source
            if position is not None and position.path == absolute(path):
                tell(self._video[0], replace(position, path=path))
            self._position_request = None
        if self._position_request is None:
            self._position_request = self._actor.position.remote().future()
        return True

    def close(self) -> "Future[None]":
        """Ask the worker to close its session."""
        ended: Future[None] = self._actor.close.remote().future()
        return ended

    def end(self) -> "Future[None] | None":
        """End the worker at once.

        Ray reports a killed actor as dead while its process may still be writing. A worker that is ready is
        therefore asked to exit by itself.

        Returns:
            A future that fails when the worker has exited; None if there is nothing to wait for.
        """
        for items in list(self._under_way.values()):
            self._folders.update(_folders_of(items))
        if self._prefix is None:
            self.kill()
            return None
        left: Future[None] = self._actor.leave.remote().future()
        return left

    def kill(self) -> None:
        """Kill the worker through Ray."""
        with contextlib.suppress(exceptions.RayError):
            ray.kill(self._actor)

    def clear(self) -> None:
        """Remove the temporary files of a worker that has exited."""
        if self._prefix is not None:
            for folder in self._folders:
                with contextlib.suppress(OSError):  # the folder is gone or out of reach
                    atomic.remove_prefixed(folder, self._prefix)
                    work_dir.release_claims(folder, self._prefix)


@dataclass
class _NodeWorkers:
    """The workers of a node.

    Attributes:
        info: The node.
        admission: Future of the node check; None once the node has passed.
        deadline: Latest time of the check's answer, by `time.monotonic`.
        handles: The node's workers.
        failed_starts: Number of workers that ended in succession before they were ready.
    """

    info: NodeInfo
    admission: "Future[Location] | None"
    deadline: float
    handles: list[WorkerHandle] = field(default_factory=list)
    failed_starts: int = 0


class WorkerPool:
    """All workers of a run. Nodes that join later get workers too, and lost workers are replaced."""

    def __init__(
        self,
        build: Build,
        device: str,
        check: NodeCheck,
        announce: Callable[[str], None],
        tell: Tell,
    ) -> None:
        """Prepare the pool. Workers start with the first calls of `arrived`.

        Args:
            build: Makes the session of a worker.
            device: "auto", "cpu" or "cuda".
            check: The check that a node must pass before it gets workers.
            announce: Called with lines for the user.
            tell: Called with the position of a worker in a video or chunk.
        """
        self._build, self._check = ray.put(build), ray.put(check)
        self._device, self._confirm = device, check.confirm
        self._announce, self._tell = announce, tell
        self._nodes: dict[str, _NodeWorkers] = {}
        self._rejected: set[str] = set()
        self._announced: set[str] = set()
        self._gone: list[WorkerHandle] = []
        self._begun = False
        self._last_seen = time.monotonic()

    def size(self) -> int:
        """Return the number of workers planned for the known nodes.

        Raises:
            ColorizeError: There are no usable nodes; see `arrived`.
        """
        self._refresh()
        return sum(workers.info.actors for workers in self._nodes.values())

    def arrived(self) -> Iterator[WorkerHandle]:
        """Yield the workers that became ready since the last call.

        Yields none until all initial nodes have passed the check.

        Raises:
            UsageError: An initial node did not pass the check, or no node has cores.
            DeviceError: A GPU is requested, and no node has one.
            ColorizeError: A worker's opening failed, or the cluster was without nodes for `_NODE_TIMEOUT`.
        """
        self._refresh()
        admitted = [workers for workers in list(self._nodes.values()) if self._admits(workers)]
        if len(admitted) < len(self._nodes) and not self._begun:
            return
        self._begun = True
        for workers in admitted:
            while len(workers.handles) < workers.info.actors:
                workers.handles.append(WorkerHandle(workers.info, self._build))
            for handle in list(workers.handles):
                if handle.opened is not None and handle.opened.done() and self._is_ready(workers, handle):
                    yield handle
        for handle in self._handles():
            if handle.watch(self._tell):
                break  # of the videos under way, only one is reported at a time

    def shut_down(self) -> None:
        """Close the sessions of all workers, after all jobs have ended."""
        alive = [handle for handle in (*self._gone, *self._handles()) if not handle.gone]
        wait([handle.close() for handle in alive if handle.opened is None], _CLOSE_TIMEOUT)

    def end(self) -> None:
        """End all workers at once. Removes their temporary files and those of lost workers."""
        handles = [*self._gone, *self._handles()]
        wait([left for handle in handles if (left := handle.end()) is not None], _KILL_TIMEOUT)
        for handle in handles:
            handle.kill()
        for handle in handles:
            handle.clear()

    def _handles(self) -> Iterator[WorkerHandle]:
        for workers in self._nodes.values():
            yield from workers.handles

    def _refresh(self) -> None:
        """Update the known nodes, start checks on new ones, and drop lost workers."""
        alive = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
        for workers in self._nodes.values():
            gone = [handle for handle in workers.handles if handle.gone]
            for handle in gone:
                workers.handles.remove(handle)
                self._announce(
                    f"{workers.info.name}: a worker ended unexpectedly; its unfinished files are done again"
                )
            self._gone += gone
        for node in self._nodes.keys() - alive.keys():
            self._gone += self._nodes.pop(node).handles
        for node in alive.keys() - self._nodes.keys() - self._rejected:
            info = NodeInfo.of(alive[node], self._device)
            if info is not None:
                deadline = time.monotonic() + _NODE_TIMEOUT
                self._nodes[node] = _NodeWorkers(info, self._examined(info), deadline)
        now = time.monotonic()
        if self._nodes:
            self._last_seen = now
        elif not self._begun and self._device == "cuda":
            raise DeviceError("no node of the cluster has a GPU; use --device auto or cpu")
        elif not self._begun:
            raise UsageError("no node of the cluster offers CPU cores")
        elif now - self._last_seen > _NODE_TIMEOUT:
            raise ColorizeError(
                f"the cluster has had no usable node for {_NODE_TIMEOUT:.0f} seconds;"
                " run the same command again to continue"
            )

    def _examined(self, info: NodeInfo) -> "Future[Location]":
        examine: Any = ray.remote(_examine).options(num_cpus=0, scheduling_strategy=info.here())
        answer: Future[Location] = examine.remote(self._check).future()
        return answer

    def _admits(self, workers: _NodeWorkers) -> bool:
        """Return True if a node has passed the check. Rejects it if it has failed."""
        if workers.admission is None:
            return True
        if not workers.admission.done():
            if time.monotonic() > workers.deadline:
                self._reject(workers, f"did not answer for {_NODE_TIMEOUT:.0f} seconds")
            return False
        try:
            self._confirm(workers.admission.result())
        except exceptions.RayTaskError as error:
            cause = error.cause
            is_ours = isinstance(cause, ColorizeError)
            text, *_ = str(cause).splitlines() or [type(cause).__name__]
            self._reject(workers, text if is_ours else f"cannot run this version of colorize-cli: {text}")
        except UsageError as error:
            self._reject(workers, str(error))
        except exceptions.TaskUnschedulableError:
            # The scheduler does not know the node yet, or `_refresh` will find it dead.
            workers.admission = self._examined(workers.info)
        except LOSS_ERRORS:
            self._reject(workers, "was lost during the check")
        else:
            workers.admission = None
        return workers.admission is None

    def _reject(self, workers: _NodeWorkers, why: str) -> None:
        text = f"node {workers.info.name} {why}"
        if not self._begun:
            raise UsageError(text)
        self._announce(f"{text}; it gets no further workers")
        self._rejected.add(workers.info.node)
        self._gone += self._nodes.pop(workers.info.node).handles

    def _is_ready(self, workers: _NodeWorkers, handle: WorkerHandle) -> bool:
        try:
            lines = handle.finish_open()
        except LOSS_ERRORS as error:
            workers.handles.remove(handle)
            workers.failed_starts += 1
            if workers.failed_starts == _MAX_FAILED_STARTS:
                self._reject(workers, f"ended every worker before it was ready: {one_line(error)}")
            return False
        workers.failed_starts = 0
        for line in lines:
            if line not in self._announced:
                self._announced.add(line)
                self._announce(line)
        return True


def _folders_of(items: Iterable[Item]) -> Iterator[Path]:
    """Yield the directories of outputs in which a worker writes temporary files, which are not in stores."""
    for item in items:
        if isinstance(item, Chunk):
            yield item.directory
        elif isinstance(item.destination, Path):
            yield item.destination.parent


def _examine(check: NodeCheck) -> Location:
    return check.examine()
