"""Measure the throughput of `colorize`, relative to its codecs and network and to typical scripts.

    python tests/benchmarks/throughput.py [--case jpeg:12] [--cores 2] [--json] [--plot speed.png]

For each case and number of cores, all measurements take turns in several rounds, and the fastest round of
each counts:

- codecs: decode each picture and encode a picture in color (the first one's output; for JPEG its planes of
  luma and chroma), with the functions of `colorize`, in one thread per core.
- network: run the network on inputs of the right size, in one thread per core.
- codecs + network: both, one picture after the other in each thread, one thread per core. A pipeline that
  keeps all cores busy and does nothing else takes as long.
- start: `colorize` as a command for a picture of one pixel: starting Python and loading the model.
- whole: `colorize` as a command for all pictures, with its start.
- pillow, opencv: the scripts of tests/benchmarks/scripts.py as commands, on some of the pictures, without
  their start.

The floor is the larger of codecs and codecs + network. The bound for whole / floor is 1.35. It is given with
and without the start, which does not depend on the number of pictures. CPU seconds are those of all threads.
The figures need a quiet machine.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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

from colorize_cli.color.resize import working_copy, working_shape
from colorize_cli.compose import compose, compose_planes
from colorize_cli.core.settings import Settings
from colorize_cli.engine import process_setup
from colorize_cli.image import reader, writer
from colorize_cli.inference import DEFAULT, model

SCRIPTS = Path(__file__).with_name("scripts.py")
DEFAULT_CASES = ("jpeg:1", "jpeg:12", "jpeg:48", "png:12")


@dataclass(frozen=True)
class Case:
    """Pictures of one kind and size."""

    kind: str
    megapixels: float

    @staticmethod
    def parse(text: str) -> "Case":
        kind, _, size = text.partition(":")
        return Case(kind, float(size))

    def __str__(self) -> str:
        return f"{self.kind.upper()} {self.megapixels:g} MP"


def make_pictures(folder: Path, case: Case, count: int) -> list[Path]:
    """Write gray pictures with the detail and grain of a scan: an enlarged free photograph with noise."""
    astronaut = cv2.cvtColor(skimage.data.astronaut(), cv2.COLOR_RGB2GRAY)
    height = round((case.megapixels * 1e6 * 3 / 4) ** 0.5)
    width = round(height * 4 / 3)
    large = cv2.resize(astronaut, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    paths = []
    for number in range(count):
        grain = np.random.default_rng(number).normal(0, 4, large.shape).astype(np.float32)
        path = folder / f"{number:04d}.{'jpg' if case.kind == 'jpeg' else case.kind}"
        Image.fromarray(np.clip(large + grain, 0, 255).astype(np.uint8)).save(path, quality=92)
        paths.append(path)
    return paths


class Floors:
    """The work that no program can avoid."""

    def __init__(self, paths: list[Path], out: Path, cores: int) -> None:
        self._paths, self._out, self._cores = paths, out, cores
        with Image.open(paths[0]) as first:
            size = first.height, first.width
        self.network = model.load(None, "cpu", threads=cores, parallel=cores)
        info = self.network.info
        self._shape = working_shape(size, info.working_size, info.multiple_of)
        frame = reader.read(paths[0], Settings().max_pixels)
        copy = working_copy(frame.lightness, info.working_size, info.multiple_of)
        composed = compose_planes if frame.format == "JPEG" else compose
        self._colored = composed(frame.lightness, self.network.predict(copy[None, None])[0])

    def codecs(self) -> None:
        self._each(self._code)

    def predictions(self) -> None:
        self._each(self._predict)

    def both(self) -> None:
        def one(path: Path) -> None:
            self._predict(path)
            self._code(path)

        self._each(one)

    def _each(self, one: Callable[[Path], None]) -> None:
        with ThreadPoolExecutor(self._cores) as pool:
            list(pool.map(one, self._paths))

    def _predict(self, _: Path) -> None:
        self.network.predict(np.full((1, 1, *self._shape), 50, np.float32))

    def _code(self, path: Path) -> None:
        frame = reader.read(path, Settings().max_pixels)
        writer.write(self._out / path.name, [(frame, self._colored)])


def command(*arguments: object) -> list[str]:
    return [sys.executable, *map(str, arguments)]


# Starts the measured process. A direct child would inherit the peak memory of this process.
_LAUNCHER = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[1:], stderr=subprocess.DEVNULL)
sys.stderr.write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(status)
"""


def run(line: list[str]) -> tuple[str, int]:
    """Run a process. Returns its standard output and its peak memory in bytes."""
    launched = [sys.executable, "-I", "-S", "-c", _LAUNCHER, *line]
    # Use compiled modules, as an installed package does.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(launched, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise click.ClickException(f"{' '.join(line[:4])} ... ended with {done.returncode}")
    return done.stdout, int(done.stderr) * 1024


def cpu_seconds() -> float:
    """Return the CPU seconds of this process, all its threads, and the processes it has waited for."""
    usages = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def measure(case: Case, cores: int, pictures: int, rounds: int) -> dict[str, Any]:
    """Return all figures of a case. This process may use `cores` cores."""
    process_setup.prepare()
    with TemporaryDirectory() as folder:
        source, out, dot = Path(folder, "in"), Path(folder, "out"), Path(folder, "dot.png")
        source.mkdir()
        out.mkdir()
        Image.new("L", (1, 1)).save(dot)
        paths = make_pictures(source, case, pictures)
        floors = Floors(paths, out, cores)
        size = floors.network.info.working_size
        some = paths[:5]  # enough, because their time per picture is constant, and long
        options = ("--device", "cpu", "--overwrite", "--json", "-q")
        scripts = {name: command(SCRIPTS, name, DEFAULT, size, out, *some) for name in ("pillow", "opencv")}
        singles = {name: line[: 1 - len(some)] for name, line in scripts.items()}
        outputs: dict[str, tuple[str, int]] = {}

        def process_of(name: str, line: list[str]) -> Callable[[], None]:
            return lambda: outputs.update({name: run(line)})

        tasks: dict[str, Callable[[], None]] = {
            "codecs": floors.codecs,
            "network": floors.predictions,
            "codecs + network": floors.both,
            "start": process_of("start", command("-m", "colorize_cli", dot, out, *options)),
            "whole": process_of("whole", command("-m", "colorize_cli", source, out, *options)),
            **{name: process_of(name, line) for name, line in scripts.items()},
        }
        seconds = dict.fromkeys(tasks, float("inf"))
        cpu = dict.fromkeys(tasks, float("inf"))
        for _ in range(rounds):
            for name, task in tasks.items():
                wall, used = time.perf_counter(), cpu_seconds()
                task()
                taken, worked = time.perf_counter() - wall, cpu_seconds() - used
                count = pictures
                if name in scripts:
                    wall, used = time.perf_counter(), cpu_seconds()
                    run(singles[name])
                    taken, worked = taken - (time.perf_counter() - wall), worked - (cpu_seconds() - used)
                    count = len(some) - 1
                seconds[name], cpu[name] = min(seconds[name], taken / count), min(cpu[name], worked / count)
    stages: dict[str, float] = {}
    for line in outputs["whole"][0].splitlines():
        for stage, spent in json.loads(line)["seconds"].items():
            stages[stage] = stages.get(stage, 0) + spent / pictures
    floor = max(seconds["codecs"], seconds["codecs + network"])
    return {
        "case": str(case),
        "cores": cores,
        "pictures": pictures,
        "seconds": seconds,
        "CPU seconds": cpu,
        "stages": stages,
        "peak MiB": {name: peak >> 20 for name, (_, peak) in outputs.items()},
        "whole / floor": seconds["whole"] / floor,
        "whole without its start / floor": (seconds["whole"] - seconds["start"]) / floor,
        "pillow / whole": seconds["pillow"] / seconds["whole"],
        "opencv / whole": seconds["opencv"] / seconds["whole"],
    }


def on_cores(case: Case, cores: int, pictures: int, rounds: int) -> dict[str, Any]:
    """Run `measure` in a new process that may use `cores` cores."""
    line = command(__file__, "--case", f"{case.kind}:{case.megapixels}", "--cores", cores)
    line += ["--pictures", str(pictures), "--rounds", str(rounds), "--one"]
    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, allowed[:cores])
    try:
        found: dict[str, Any] = json.loads(subprocess.run(line, check=True, stdout=subprocess.PIPE).stdout)
    finally:
        os.sched_setaffinity(0, allowed)
    return found


def show(found: list[dict[str, Any]]) -> None:
    """Print the results as tables."""
    console = Console(width=130)
    for case in found:
        title = f"{case['pictures']} gray pictures, {case['case']}, {case['cores']} cores: milliseconds each"
        table = Table("", "wall", "CPU", "pictures/s", "peak MiB", "whole / this", title=title)
        for name, seconds in case["seconds"].items():
            table.add_row(
                name,
                f"{1000 * seconds:.1f}",
                f"{1000 * case['CPU seconds'][name]:.1f}",
                f"{1 / seconds:.1f}",
                str(case["peak MiB"].get(name, "")),
                f"{case['seconds']['whole'] / seconds:.2f}",
            )
        console.print(table)
        stages = ", ".join(f"{name} {1000 * seconds:.1f}" for name, seconds in case["stages"].items())
        console.print(f"stages of the whole: {stages} ms")
        ratios = case["whole / floor"], case["whole without its start / floor"]
        console.print("whole / floor: {:.2f}, without the start {:.2f} (bound 1.35)\n".format(*ratios))


def plot(found: list[dict[str, Any]], path: Path) -> None:
    """Plot pictures a second as bars."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(found), figsize=(3.2 * len(found), 3.4), squeeze=False)
    for axis, case in zip(axes[0], found, strict=True):
        names = [name for name in case["seconds"] if name not in ("network", "start")]
        axis.barh(names, [1 / case["seconds"][name] for name in names])
        axis.invert_yaxis()
        axis.set_title(f"{case['case']}, {case['cores']} cores", fontsize=9)
        axis.set_xlabel("pictures / s", fontsize=8)
        axis.tick_params(labelsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


@click.command()
@click.option("--case", "cases", multiple=True, default=DEFAULT_CASES, show_default=True)
@click.option("--cores", multiple=True, type=int, default=(1, 2), show_default=True)
@click.option(
    "--pictures", type=int, help="Pictures per case.  [default: 1200 megapixels, at most 200 pictures]"
)
@click.option("--rounds", default=3, show_default=True)
@click.option("--json", "as_json", is_flag=True)
@click.option("--plot", "plot_to", type=click.Path(path_type=Path), help="A PNG; needs matplotlib.")
@click.option("--one", is_flag=True, hidden=True)
def main(
    cases: tuple[str, ...],
    cores: tuple[int, ...],
    pictures: int | None,
    rounds: int,
    as_json: bool,
    plot_to: Path | None,
    one: bool,
) -> None:
    """Measure all cases and print the ratios."""
    parsed = [Case.parse(text) for text in cases]
    counts = [pictures or min(200, round(1200 / case.megapixels)) for case in parsed]
    if one:
        click.echo(json.dumps(measure(parsed[0], cores[0], counts[0], rounds)))
        return
    found = [
        on_cores(case, number, count, rounds)
        for number in cores
        for case, count in zip(parsed, counts, strict=True)
    ]
    if as_json:
        click.echo(json.dumps(found, indent=1))
    else:
        show(found)
    if plot_to is not None:
        plot(found, plot_to)


if __name__ == "__main__":
    main()
