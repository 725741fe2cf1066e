"""The actors of a cluster, each with a session: one on each node with its cores, or one for each GPU."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
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
from colorize_cli.engine.cluster.dispatch import Worker
from colorize_cli.engine.cluster.node_check import NodeCheck
from colorize_cli.engine.cluster.worker import Actor, Build, Returned, sent
from colorize_cli.engine.work_items import Item, folder_of, job_of
from colorize_cli.storage import atomic
from colorize_cli.video import work_dir

# What is raised in place of an actor's answer where the actor, or what it answered, is gone.
LOST: tuple[type[BaseException], ...] = (
    exceptions.RayActorError,
    exceptions.ActorUnschedulableError,
    exceptions.ObjectLostError,
    exceptions.NodeDiedError,
    exceptions.WorkerCrashedError,
)
# Seconds: for nodes to answer the probe and for a cluster to be without any; for actors to end what is open;
# and for those that are to leave to be gone.
_NODE_TIMEOUT, _CLOSE_TIMEOUT, _KILL_TIMEOUT = 60.0, 10.0, 5.0
# Actors of a node that may end before they have begun, one after the other.
_MOST_FAILED_STARTS = 3

# Who is told how far an actor is with something.
Tell = Callable[[Item, Position], None]


@dataclass(frozen=True)
class NodeInfo:
    """A node, as far as it matters.

    Attributes:
        node: Ray's identifier of it.
        name: For people.
        actors: How many it is to have.
        cores: How many each of them has.
        gpus: Likewise, 0 or 1.
    """

    node: str
    name: str
    actors: int
    cores: int
    gpus: int

    @staticmethod
    def of(node: dict[str, Any], device: str) -> "NodeInfo | None":
        """What a node is to a run on a device; None where it is of no use."""
        name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
        cores, gpus = (int(node["Resources"].get(kind, 0)) for kind in ("CPU", "GPU"))
        if gpus and device != "cpu":
            return NodeInfo(node["NodeID"], name, gpus, max(1, cores // gpus), 1)
        if device != "cuda" and cores:
            return NodeInfo(node["NodeID"], name, 1, cores, 0)
        return None

    @property
    def chunks(self) -> int:
        """How many keep an actor busy: pictures wait before each stage and, on a GPU, for a batch."""
        return 4 + self.cores // 4 + 4 * self.gpus

    def here(self) -> NodeAffinitySchedulingStrategy:
        """Where its actors are to be."""
        return NodeAffinitySchedulingStrategy(self.node, soft=False)


class WorkerHandle(Worker[Item, Returned]):
    """An actor, as seen from here.

    Attributes:
        info: Where it is.
        most: Chunks that it is to have.
        opened: What opening it gives; None once that was looked at.
        gone: Whether it was found to be.
    """

    def __init__(self, info: NodeInfo, build: Any) -> None:
        self.info, self.most = info, info.chunks
        self.gone = False
        actor: Any = ray.remote(Actor)
        placed = actor.options(
            num_cpus=info.cores,
            num_gpus=info.gpus,
            scheduling_strategy=info.here(),
            # Beside chunks it is asked for its position and to leave, or to close when there are none.
            max_concurrency=info.chunks + 2,
        )
        self._actor = placed.remote()
        self.opened: Future[tuple[list[str], str]] | None
        self.opened = self._actor.open.remote(build, info.cores).future()
        self._prefix: str | None = None
        self._under_way: dict[Future[Sequence[Returned]], Sequence[Item]] = {}
        self._folders: set[Path] = set()
        self._video: tuple[Item, Future[Any]] | None = None
        self._asked: Future[Position | None] | None = None

    def finish_open(self) -> list[str]:
        """Once it is open: what it has to tell the user."""
        assert self.opened is not None  # noqa: S101 - asked once
        opened, self.opened = self.opened, None
        lines, self._prefix = opened.result()
        return lines

    def submit(self, items: Sequence[Item]) -> "Future[Sequence[Returned]]":
        """Hands it a chunk."""
        here = str(Path.cwd())  # where actors are not
        answer: Future[Sequence[Returned]] = self._actor.outcomes.remote(
            [sent(item, here) for item in items]
        ).future()
        self._under_way[answer] = items
        answer.add_done_callback(self._under_way.pop)
        if is_video(job_of(items[0]).source):
            self._video = items[0], answer
        return answer

    def lost(self, items: Sequence[Item]) -> None:
        """It is no more, or is not to be any more, and did not finish these."""
        self.gone = True
        self._folders.update(map(folder_of, items))
        self.kill()
        self.clear()  # among it the claim of a film, which is an obstacle to the next one

    def watch(self, tell: Tell) -> bool:
        """Whether it has a film, or a part; tells how far that was when it was asked last, and asks again."""
        if self._video is None or self._video[1].done():
            self._video = None
            return False
        if self._asked is not None and self._asked.done():
            position = None if self._asked.exception() else self._asked.result()
            path = job_of(self._video[0]).source
            if position is not None and position.path == path.absolute():
                tell(self._video[0], replace(position, path=path))
            self._asked = None
        if self._asked is None:
            self._asked = self._actor.position.remote().future()
        return True

    def close(self) -> "Future[None]":
        """Lets it end what is open."""
        ended: Future[None] = self._actor.close.remote().future()
        return ended

    def end(self) -> "Future[None] | None":
        """Ends it at once; gives what fails when it is gone, or None where there is nothing to wait for.

        Killed by Ray, it passes for gone while it still writes. So it is asked to leave, if it ever began.
        """
        unfinished = list(self._under_way.values())
        self._folders.update(folder_of(item) for items in unfinished for item in items)
        if self._prefix is None:
            self.kill()
            return None
        left: Future[None] = self._actor.leave.remote().future()
        return left

    def kill(self) -> None:
        """Has it ended by Ray."""
        with contextlib.suppress(exceptions.RayError):
            ray.kill(self._actor)

    def clear(self) -> None:
        """Removes what it left half written, once it is gone."""
        if self._prefix is not None:
            for folder in self._folders:
                with contextlib.suppress(OSError):  # it is gone, or out of reach
                    atomic.remove_prefixed(folder, self._prefix)
                    work_dir.release_claims(folder, self._prefix)


@dataclass
class _NodeWorkers:
    """What a node has of actors.

    Attributes:
        info: The node.
        admission: The answer to the probe; None once the node has passed.
        deadline: For that.
        handles: Its actors.
        failed_starts: How many ended before they had begun, one after the other.
    """

    info: NodeInfo
    admission: "Future[Path] | None"
    deadline: float
    handles: list[WorkerHandle] = field(default_factory=list)
    failed_starts: int = 0


class WorkerPool:
    """All actors of a run. Nodes that come later get some too, and those that are lost are replaced."""

    def __init__(
        self,
        build: Build,
        device: str,
        check: NodeCheck,
        announce: Callable[[str], None],
        tell: Tell,
    ) -> None:
        """Begins with the first call of `arrived`.

        Args:
            build: Makes what works in an actor.
            device: "auto", "cpu" or "cuda".
            check: What a node has to see.
            announce: Receives lines for the user.
            tell: Is told how far a film is, or a part of one.
        """
        self._build, self._check = ray.put(build), ray.put(check)
        self._device, self._confirm = device, check.confirm
        self._announce, self._tell = announce, tell
        self._nodes: dict[str, _NodeWorkers] = {}
        self._turned_away: set[str] = set()
        self._announced: set[str] = set()
        self._gone: list[WorkerHandle] = []
        self._begun = False
        self._last_seen = time.monotonic()

    def size(self) -> int:
        """How many actors there are to be on the nodes that there are.

        Raises:
            ColorizeError: As `arrived`.
        """
        self._look()
        return sum(workers.info.actors for workers in self._nodes.values())

    def arrived(self) -> Iterator[WorkerHandle]:
        """The actors that got ready since this was called last; none before all nodes have passed the probe.

        Raises:
            UsageError: A node that was there from the beginning did not pass.
            DeviceError: No node has a GPU, and they are asked for.
            ColorizeError: What an actor's opening raises; or the cluster has been without nodes for long.
        """
        self._look()
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
        any(handle.watch(self._tell) for handle in self._handles())

    def shut_down(self) -> None:
        """Lets all actors end what is open; there is nothing more to do."""
        alive = [handle for handle in (*self._gone, *self._handles()) if not handle.gone]
        wait([handle.close() for handle in alive if handle.opened is None], _CLOSE_TIMEOUT)

    def end(self) -> None:
        """Ends all actors at once, and removes what they and those that were lost left half written."""
        handles = [*self._gone, *self._handles()]
        wait([left for handle in handles if (left := handle.end()) is not None], _KILL_TIMEOUT)
        for handle in handles:
            handle.kill()
        for handle in handles:
            handle.clear()

    def _handles(self) -> Iterator[WorkerHandle]:
        for workers in self._nodes.values():
            yield from workers.handles

    def _look(self) -> None:
        """Which nodes there are, and what became of their actors."""
        alive = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
        for workers in self._nodes.values():
            gone = [handle for handle in workers.handles if handle.gone]
            for handle in gone:
                workers.handles.remove(handle)
                self._announce(f"{workers.info.name}: a worker ended; what it had in hand is done again")
            self._gone += gone
        for node in self._nodes.keys() - alive.keys():
            self._gone += self._nodes.pop(node).handles
        for node in alive.keys() - self._nodes.keys() - self._turned_away:
            info = NodeInfo.of(alive[node], self._device)
            if info is not None:
                examined = ray.remote(_examine).options(num_cpus=0, scheduling_strategy=info.here())
                asked = examined.remote(self._check).future()
                self._nodes[node] = _NodeWorkers(info, asked, time.monotonic() + _NODE_TIMEOUT)
        now = time.monotonic()
        if self._nodes:
            self._last_seen = now
        elif not self._begun and self._device == "cuda":
            raise DeviceError("no node of the cluster has a GPU")
        elif not self._begun:
            raise UsageError("no node of the cluster has cores to give")
        elif now - self._last_seen > _NODE_TIMEOUT:
            raise ColorizeError("no node of the cluster is left")

    def _admits(self, workers: _NodeWorkers) -> bool:
        """Whether a node has passed the probe."""
        if workers.admission is None:
            return True
        if not workers.admission.done():
            if time.monotonic() > workers.deadline:
                self._turn_away(workers, "does not answer")
            return False
        try:
            self._confirm(workers.admission.result())
        except exceptions.RayTaskError as error:
            cause = error.cause
            own = isinstance(cause, ColorizeError)
            text, *_ = str(cause).splitlines() or [type(cause).__name__]
            self._turn_away(workers, text if own else f"cannot run this colorize-cli: {text}")
        except UsageError as error:
            self._turn_away(workers, str(error))
        except LOST:
            self._turn_away(workers, "is gone again")
        else:
            workers.admission = None
        return workers.admission is None

    def _turn_away(self, workers: _NodeWorkers, why: str) -> None:
        text = f"node {workers.info.name} {why}"
        if not self._begun:
            raise UsageError(text)
        self._announce(f"{text}; it gets no more workers")
        self._turned_away.add(workers.info.node)
        self._gone += self._nodes.pop(workers.info.node).handles

    def _is_ready(self, workers: _NodeWorkers, handle: WorkerHandle) -> bool:
        try:
            lines = handle.finish_open()
        except LOST as error:
            workers.handles.remove(handle)
            workers.failed_starts += 1
            if workers.failed_starts == _MOST_FAILED_STARTS:
                self._turn_away(workers, f"ends all workers before they begin: {one_line(error)}")
            return False
        workers.failed_starts = 0
        for line in lines:
            if line not in self._announced:
                self._announced.add(line)
                self._announce(line)
        return True


def _examine(check: NodeCheck) -> Path:
    return check.examine()
