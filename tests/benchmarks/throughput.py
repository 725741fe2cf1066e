"""How much `colorize` costs beyond its codecs and its network, side by side in one run.

    python tests/benchmarks/throughput.py --pictures 24 --megapixels 2 --workers 2

Three things are timed in turn, over several rounds of which the fastest counts: the codecs alone (decode
the grey JPEG, encode the coloured one, in as many threads as the pipeline has workers), the network alone
(the same number of working copies in the same batches), and the whole of `colorize`. Figures are ratios of
each other; they say something only on a quiet machine.
"""

import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import cv2
import numpy as np
import skimage.data
from PIL import Image
from rich.console import Console
from rich.table import Table

from colorize_cli import model, process
from colorize_cli.engines import ENGINES
from colorize_cli.jobs import Job, Plan, Settings, Status
from colorize_cli.media import photo, writing
from colorize_cli.working import working_shape


def make_pictures(folder: Path, count: int, megapixels: float) -> list[Path]:
    """Grey JPEGs with the detail and grain of a scan: an enlarged public-domain photograph with noise."""
    astronaut = cv2.cvtColor(skimage.data.astronaut(), cv2.COLOR_RGB2GRAY)
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    width = round(height * 4 / 3)
    large = cv2.resize(astronaut, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    paths = []
    for number in range(count):
        grain = np.random.default_rng(number).normal(0, 4, large.shape).astype(np.float32)
        path = folder / f"{number:04d}.jpg"
        Image.fromarray(np.clip(large + grain, 0, 255).astype(np.uint8)).save(path, quality=92)
        paths.append(path)
    return paths


def codecs_alone(paths: list[Path], out: Path, workers: int) -> None:
    """Decode every picture and encode one of the same size in colour."""

    def one(path: Path) -> None:
        frame = photo.read(path, Settings().max_pixels)
        grey = frame.lightness.codes.astype(np.uint8)
        writing.write(out / path.name, [(frame, np.dstack([grey, grey, grey]))])

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(one, paths))


def network_alone(network: model.Model, count: int, shape: tuple[int, int], batch_size: int) -> None:
    """Predict chroma for as many working copies in the same batches."""
    for start in range(0, count, batch_size):
        network.predict(np.full((min(batch_size, count - start), 1, *shape), 50, np.float32))


def whole(paths: list[Path], out: Path, settings: Settings) -> None:
    """What `colorize` does, model loading included."""
    jobs = [Job(path, out / path.name) for path in paths]
    outcomes = list(ENGINES["local"](Plan(tuple(jobs), 0, out), settings, print))
    if any(outcome.status is not Status.DONE for outcome in outcomes):
        raise click.ClickException("the pipeline failed")


def fastest(tasks: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Least seconds of each task over rounds in which all take turns."""
    seconds = dict.fromkeys(tasks, float("inf"))
    for _ in range(rounds):
        for name, task in tasks.items():
            begun = time.perf_counter()
            task()
            seconds[name] = min(seconds[name], time.perf_counter() - begun)
    return seconds


@click.command()
@click.option("--pictures", default=24, show_default=True)
@click.option("--megapixels", default=2.0, show_default=True)
@click.option("--workers", default=2, show_default=True)
@click.option("--batch-size", default=8, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(pictures: int, megapixels: float, workers: int, batch_size: int, rounds: int, as_json: bool) -> None:
    """Time the codecs, the network and the whole, and print their ratios."""
    process.prepare()
    settings = Settings(device="cpu", workers=workers, batch_size=batch_size, overwrite=True)
    network = model.load(None, "cpu", threads=len(os.sched_getaffinity(0)))
    with TemporaryDirectory() as place:
        source, out = Path(place, "in"), Path(place, "out")
        source.mkdir()
        paths = make_pictures(source, pictures, megapixels)
        with Image.open(paths[0]) as first:
            size = (first.height, first.width)
        shape = working_shape(size, network.card.working_size, network.card.multiple_of)
        seconds = fastest(
            {
                "codecs alone": lambda: codecs_alone(paths, out, workers),
                "network alone": lambda: network_alone(network, pictures, shape, batch_size),
                "whole": lambda: whole(paths, out, settings),
            },
            rounds,
        )
    report = {
        "pictures": pictures,
        "megapixels": megapixels,
        "workers": workers,
        "batch_size": batch_size,
        "cores": len(os.sched_getaffinity(0)),
        "seconds": seconds,
        "whole / codecs": seconds["whole"] / seconds["codecs alone"],
        "whole / network": seconds["whole"] / seconds["network alone"],
        "whole / (codecs + network)": seconds["whole"] / (seconds["codecs alone"] + seconds["network alone"]),
    }
    if as_json:
        click.echo(json.dumps(report))
        return
    table = Table("", "seconds", "pictures/s", "whole / this")
    for name, value in seconds.items():
        table.add_row(name, f"{value:.3f}", f"{pictures / value:.1f}", f"{seconds['whole'] / value:.2f}")
    console = Console()
    console.print(
        f"{pictures} grey JPEGs of {size[1]} x {size[0]}, {workers} workers, batches of {batch_size}"
    )
    console.print(table)
    console.print(f"whole / (codecs + network): {report['whole / (codecs + network)']:.2f}")


if __name__ == "__main__":
    main()
