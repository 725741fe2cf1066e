"""Ray clusters of processes on this machine, and the processes of a run."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from colorize_cli.core.jobs import Job, Outcome
from colorize_cli.core.settings import Settings
from colorize_cli.engine import cluster as engine
from colorize_cli.engine.cluster.node_check import NodeCheck
from tests.helpers import fake_session


def started(source: Path, output: Path, model: Path, *options: object, **how) -> subprocess.Popen:
    line = [sys.executable, "-m", "colorize_cli", source, output, "--model", model, "--device", "cpu"]
    line += ["--engine", "ray", *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(list(map(str, line)), **pipes, **how)


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.1)


def descendants(process: int) -> dict[int, str]:
    """Map the descendants of a process to their start times, which distinguish reused process numbers."""
    parents, starts = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            number = int(path.parent.name)
            parents[number], starts[number] = int(fields[1]), fields[19]
    found: dict[int, str] = {}
    below = [process]
    while below:
        above = below.pop()
        children = [child for child, parent in parents.items() if parent == above]
        found |= {child: starts[child] for child in children}
        below += children
    return found


def alive(processes: dict[int, str]) -> list[str]:
    """Return the names of the processes that still run. Zombies are left out."""
    names = []
    for number, start in processes.items():
        with contextlib.suppress(OSError):
            name, _, rest = Path(f"/proc/{number}/stat").read_text().rpartition(")")
            fields = rest.split()
            if fields[0] != "Z" and fields[19] == start:
                names.append(name.partition("(")[2])
    return names


class Nodes:
    """A cluster of nodes in processes on this machine. The head has one core."""

    def __init__(self, folder: str) -> None:
        from ray.cluster_utils import Cluster

        Path("/tmp/ray").mkdir(exist_ok=True)  # noqa: S108 - where Ray always records the cluster
        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "temp_dir": folder})
        self.address = self._cluster.address
        self.environment = dict(os.environ)  # includes Ray's token, needed to join

    def add(self, env_vars: dict[str, str] | None = None, **options):
        self._cluster.wait_for_nodes()  # until removed nodes are known
        of_ray = {name: value for name, value in self.environment.items() if name.startswith("RAY_")}
        return self._cluster.add_node(env_vars={**of_ray, **(env_vars or {})}, **{"num_cpus": 1, **options})

    def remove(self, node) -> None:
        self._cluster.remove_node(node, allow_graceful=False)

    def actors(self) -> list[str]:
        """Return the processes that are workers of a run."""
        return [name for name in alive(descendants(os.getpid())) if "ray::Actor" in name]

    def end(self) -> None:
        self._cluster.shutdown()


@contextlib.contextmanager
def accepting_check(_: Job) -> Iterator[NodeCheck]:
    yield fake_session.ACCEPTING


def run_jobs(jobs, seconds: float = 0.0, settings: Settings | None = None, **options) -> Iterator[Outcome]:
    """Run jobs in real workers with fake sessions."""
    heard = {"announce": lambda _: None, **options}
    return engine.run_jobs(
        jobs,
        fake_session.FakeSession(),
        fake_session.build(seconds),
        settings or Settings(),
        accepting_check,
        **heard,
    )
