"""Measure the overhead of dispatching jobs by Ray, relative to running them in this process.

    python tests/benchmarks/cluster.py [--pictures 500] [--megapixels 2] [--jobs 1000000] [--json]

Each measurement runs in a new process.

- pictures: gray JPEGs made here, colorized by the engine `local` and by the engine `ray` on a cluster of
  this machine, with the same cores, in turns. Seconds are counted from the moment when the model is loaded
  to the last outcome, without the start; the fastest round counts. The bound is 1.15.
- jobs: jobs without pictures, whose stages do nothing, through the stages of the local engine and through
  the whole engine `ray`. Resident memory of this process, without Ray's processes, is read at each outcome.
  It is constant if the last fifth of the run needs no more than the second.
- plan: memory of the plan, which the command holds with either engine.

The figures need a quiet machine.
"""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import cv2
import numpy as np
import skimage.data
from PIL import Image
from rich.console import Console
from rich.table import Table

from colorize_cli.core import formats
from colorize_cli.core.jobs import Job, Outcome, Plan, Progress, Status
from colorize_cli.core.pipeline import Pipeline, Stage
from colorize_cli.core.settings import Settings, available_cores
from colorize_cli.engine import ENGINES, process_setup
from colorize_cli.engine.cluster.node_check import NodeCheck
from colorize_cli.storage import discovery

BOUND = 1.15
_SAMPLES = 200


def make_pictures(folder: Path, megapixels: float, count: int) -> None:
    """Write gray pictures with the detail and grain of a scan: an enlarged free photograph with noise."""
    astronaut = cv2.cvtColor(skimage.data.astronaut(), cv2.COLOR_RGB2GRAY)
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    large = cv2.resize(astronaut, (round(height * 4 / 3), height), interpolation=cv2.INTER_CUBIC)
    for number in range(count):
        grain = np.random.default_rng(number).normal(0, 4, large.shape)
        picture = np.clip(large + grain, 0, 255).astype(np.uint8)
        Image.fromarray(picture).save(folder / f"{number:04d}.jpg", quality=92)


def colorize(engine: str, source: Path, output: Path) -> dict[str, float]:
    """Return the seconds of an engine for a folder, counted from when the model is loaded."""
    process_setup.prepare()
    loaded: list[float] = []
    plan = discovery.plan([source], output, formats.endings())
    begun = time.perf_counter()
    settings = Settings(overwrite=True, engine=engine)
    for outcome in ENGINES[engine](plan, settings, lambda _: loaded.append(time.perf_counter())):
        assert outcome.status is Status.DONE, outcome
        last = time.perf_counter()
    return {"start-up": loaded[0] - begun, "seconds": last - loaded[0]}


class Idle:
    """Session whose stages do nothing."""

    def ended(self, _: Job) -> Outcome | None:
        return None

    def open(self) -> None:
        pass

    def colorize_images(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
        cores = available_cores()
        stages = (
            Stage("decode", lambda job: job, cores),
            Stage("infer", lambda batch: batch, batch=8),
            Stage("compose", lambda job: job, cores),
            Stage("encode", lambda job: job, cores),
        )
        for result in Pipeline(stages, capacity=8).run(jobs):
            yield Outcome(result.source, Status.DONE, None, result.seconds, "cpu", result.batch)

    def colorize_videos(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
        raise NotImplementedError

    def close(self, patience: float | None = None) -> None:
        pass


def idle(_: int, __: Callable[[str], None], ___: Progress) -> Idle:
    return Idle()


class Unprobed(NodeCheck):
    """Node check that every node passes."""

    def examine(self) -> Path:
        return self.file

    def confirm(self, answer: Path) -> None:
        pass


def some_jobs(count: int) -> Iterator[Job]:
    folder, output = Path("scans"), Path("colorized")
    for number in range(count):
        name = f"{number // 1000:04d}/{number:07d}.jpg"
        yield Job(folder / name, output / name)


def by_ray(jobs: Iterable[Job]) -> Generator[Outcome, None, None]:
    from colorize_cli.engine import cluster

    unprobed = Unprobed("", Settings(), "", Path(), b"", Path(), ("", ""))
    settings = Settings(engine="ray")
    return cluster.run_jobs(
        jobs, Idle(), idle, settings, lambda _: contextlib.nullcontext(unprobed), lambda _: None
    )


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def hand_out(engine: str, count: int) -> dict[str, float]:
    """Return jobs a second since the first outcome, and memory in the second and last fifth of the run."""
    outcomes = Idle().colorize_images(some_jobs(count)) if engine == "local" else by_ray(some_jobs(count))
    sizes: list[int] = []
    every = max(1, count // _SAMPLES)
    next(outcomes)
    begun = time.perf_counter()
    for number, _ in enumerate(outcomes, start=1):
        if number % every == 0:
            sizes.append(resident())
    seconds = time.perf_counter() - begun
    fifth = len(sizes) // 5
    return {
        "jobs a second": (count - 1) / seconds,
        "MiB in the second fifth": max(sizes[fifth : 2 * fifth]) / 2**20,
        "MiB in the last fifth": max(sizes[-fifth:]) / 2**20,
    }


def plan_of(count: int) -> dict[str, float]:
    """Return the bytes that a plan takes per job."""
    before = resident()
    plan = Plan(tuple(some_jobs(count)), (), Path("colorized"))
    return {"bytes a job": (resident() - before) / len(plan.jobs)}


def apart(*arguments: object) -> dict[str, float]:
    """Run a measurement in a new process."""
    line = [sys.executable, __file__, "--one", *map(str, arguments)]
    done = subprocess.run(line, check=True, stdout=subprocess.PIPE)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(pictures: int, megapixels: float, jobs: int, rounds: int) -> dict[str, Any]:
    best: dict[str, dict[str, float]] = {}
    all_rounds: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    if pictures:
        with TemporaryDirectory() as folder:
            (source := Path(folder, "in")).mkdir()
            make_pictures(source, megapixels, pictures)
            for _ in range(rounds):
                for engine in ENGINES:
                    found = apart("colorize", engine, source, Path(folder, engine))
                    all_rounds[engine].append(found["seconds"])
                    if engine not in best or found["seconds"] < best[engine]["seconds"]:
                        best[engine] = found
    return {
        "cores": available_cores(),
        "pictures": {"count": pictures, "megapixels": megapixels, **best},
        "rounds": all_rounds,
        "ratio": best["ray"]["seconds"] / best["local"]["seconds"] if pictures else None,
        "jobs": {"count": jobs, **{engine: apart("hand_out", engine, jobs) for engine in ENGINES if jobs}},
        "plan": apart("plan_of", jobs) if jobs else {},
    }


def show(found: dict[str, Any]) -> None:
    """Print the results as tables."""
    console = Console(width=110)
    pictures, jobs = found["pictures"], found["jobs"]
    if pictures["count"]:
        title = (
            f"{pictures['count']} pictures of {pictures['megapixels']:g} megapixels, {found['cores']} cores"
        )
        table = Table("engine", "seconds", "pictures/s", "ray / this", "rounds", "start-up, s", title=title)
        for engine in ENGINES:
            seconds = pictures[engine]["seconds"]
            table.add_row(
                engine,
                f"{seconds:.2f}",
                f"{pictures['count'] / seconds:.1f}",
                f"{pictures['ray']['seconds'] / seconds:.3f}",
                ", ".join(f"{each:.1f}" for each in found["rounds"][engine]),
                f"{pictures[engine]['start-up']:.1f}",
            )
        console.print(table)
        console.print(f"ray / local: {found['ratio']:.3f} (bound {BOUND})\n")
    if jobs["count"]:
        columns = ("jobs/s", "MiB in the second fifth", "MiB in the last fifth", "growth")
        table = Table("engine", *columns, title=f"{jobs['count']:,} empty jobs, {found['cores']} cores")
        for engine in ENGINES:
            rate, second, last = jobs[engine].values()
            table.add_row(engine, f"{rate:,.0f}", f"{second:.1f}", f"{last:.1f}", f"{last / second:.3f}")
        console.print(table)
        console.print(f"plan: {found['plan']['bytes a job']:.0f} bytes a job")


@click.command()
@click.option("--pictures", default=500, show_default=True)
@click.option("--megapixels", default=2.0, show_default=True)
@click.option("--jobs", default=1_000_000, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--json", "as_json", is_flag=True)
@click.option("--one", is_flag=True, hidden=True)
@click.argument("what", nargs=-1)
def main(
    pictures: int, megapixels: float, jobs: int, rounds: int, as_json: bool, one: bool, what: tuple[str, ...]
) -> None:
    """Measure both engines and print their ratio."""
    if one:
        name, *arguments = what
        match name:
            case "colorize":
                found = colorize(arguments[0], Path(arguments[1]), Path(arguments[2]))
            case "hand_out":
                found = hand_out(arguments[0], int(arguments[1]))
            case _:
                found = plan_of(int(arguments[0]))
        click.echo(json.dumps(found))
        return
    results = measure(pictures, megapixels, jobs, rounds)
    if as_json:
        click.echo(json.dumps(results, indent=1))
    else:
        show(results)


if __name__ == "__main__":
    main()
