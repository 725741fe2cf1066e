"""Measure the speed of colorizing a film, relative to its codecs and its network.

    python tests/benchmarks/films.py --width 1280 --height 720 --seconds 8 --rounds 3 --preset medium

The film is made here. All measurements take turns in several rounds, and the fastest round of each counts.
All use the same encoder settings:

- codecs: decode and encode the film unchanged, on one core and on all cores.
- network: run the network on the small copies of all frames, in batches, on all cores and on all but one.
- whole: `colorize --every 1`, with the seconds of its stages, and `colorize --every auto`.

"What must run" is the longer of codecs on one core and network on the others: the lower bound for a pipeline
with fixed shares. Without fixed shares the bound is codecs + network on all cores.
"""

import contextlib
import dataclasses
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import click
import cv2
import numpy as np
from av.video.frame import VideoFrame
from rich.console import Console
from rich.table import Table

from colorize_cli.color.resize import working_copy
from colorize_cli.core.settings import Settings, VideoSettings, available_cores
from colorize_cli.engine import process_setup
from colorize_cli.inference import model
from colorize_cli.video import chunks, encoder, pixel_format, reader, work_dir
from colorize_cli.video.pixel_format import plane_of
from colorize_cli.video.stages import VideoStats

RATE = 25


def make(path: Path, width: int, height: int, seconds: int) -> None:
    """Write a gray film in which a camera pans over smooth noise with grain."""
    random = np.random.default_rng(0)
    coarse = random.integers(30, 220, (height // 20, width // 8), dtype=np.uint8)
    scene = cv2.resize(coarse, (2 * width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    grain = random.normal(0, 3, (height, 2 * width)).astype(np.float32)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=RATE, options={"crf": "18", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(RATE * seconds):
            left = number * 4 % width
            frame = VideoFrame(width, height, "yuv420p")
            luma = scene[:, left : left + width] + grain[:, -left - width : -left or None][:, :width]
            plane_of(frame, 0)[:] = np.clip(luma, 16, 235)
            for index in (1, 2):
                plane_of(frame, index)[:] = 128
            frame.pts = number
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def codecs(path: Path, folder: Path, settings: Settings) -> None:
    """Decode and encode the film unchanged."""
    with reader.opened(path) as video:
        chosen = encoder.choose(".mkv", video.info, settings.video)
        with encoder.segment(folder / "codecs.nut", video.info, chosen, interlaced=False) as segment:
            for frame in video.frames():
                segment.add(frame)


def small_copies(path: Path, network: model.Model) -> list[np.ndarray]:
    """Return the network's inputs, in batches."""
    with reader.opened(path) as video:
        table = video.info.coding.lightness_table()
        sides = network.info.working_size, network.info.multiple_of
        copies = [working_copy(pixel_format.lightness_of(frame, table), *sides) for frame in video.frames()]
    step = network.batch_size
    return [np.stack(copies[start : start + step])[:, None] for start in range(0, len(copies), step)]


def whole(path: Path, folder: Path, network: model.Model, settings: Settings) -> VideoStats:
    """Colorize the film."""
    output = folder / "whole.mkv"
    with work_dir.claimed(output, "benchmark") as work, reader.opened(path) as video:
        assert work is not None
        chunk = work_dir.Chunk(path, output, work.path)
        stats = chunks.colorize_chunk(chunk, video, network, settings)
        chunks.concat([chunk], video.info, output, settings, stats.frames)
        work.remove()
    return stats


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that `work` takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


@contextlib.contextmanager
def cores(count: int) -> Iterator[None]:
    """Restrict threads that start in this context to `count` cores."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(sorted(allowed)[:count]))
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def measure(path: Path, folder: Path, settings: Settings, rounds: int) -> dict[str, float]:
    """Return the seconds of each measurement and stage, the minimum over the rounds."""
    network = model.load(None, "cpu", threads=settings.workers)
    fewer = model.load(None, "cpu", threads=max(1, available_cores() - 1))
    batches = small_copies(path, network)
    for loaded in (network, fewer):
        loaded.predict(batches[0])
    found: dict[str, float] = {}
    for _ in range(rounds):
        for name, seconds in measure_once(path, folder, settings, network, fewer, batches).items():
            found[name] = min(seconds, found.get(name, seconds))
    return found


def measure_once(
    path: Path,
    folder: Path,
    settings: Settings,
    network: model.Model,
    fewer: model.Model,
    batches: list[np.ndarray],
) -> dict[str, float]:
    """Return the seconds of each measurement and stage in one round."""
    found = {
        "codecs": timed(lambda: codecs(path, folder, settings)),
        "network": timed(lambda: [network.predict(batch) for batch in batches]),
        "network on the others": timed(lambda: [fewer.predict(batch) for batch in batches]),
    }
    with cores(1):
        found["codecs on one core"] = timed(lambda: codecs(path, folder, settings))
    stats: list[VideoStats] = []
    for name, every in (("whole", 1), ("whole, auto", None)):
        video = dataclasses.replace(settings.video, every=every)
        requested = dataclasses.replace(settings, video=video)
        found[name] = timed(lambda settings=requested: stats.append(whole(path, folder, network, settings)))
        found |= {f"  stage {stage}, {name}": seconds for stage, seconds in stats[-1].seconds.items()}
    return found


@click.command()
@click.option("--width", default=1280, show_default=True)
@click.option("--height", default=720, show_default=True)
@click.option("--seconds", default=8, show_default=True)
@click.option("--preset", default="medium", show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(width: int, height: int, seconds: int, preset: str, rounds: int, as_json: bool) -> None:
    """Measure one film."""
    process_setup.prepare()
    settings = Settings(video=VideoSettings(preset=preset))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "film.mkv"
        make(path, width, height, seconds)
        found = measure(path, folder, settings, rounds)
    frames = RATE * seconds
    rows = {f"{name}, ms a frame": 1000 * taken / frames for name, taken in found.items()}
    rows["whole, frames a second"] = frames / found["whole"]
    rows["whole, auto, frames a second"] = frames / found["whole, auto"]
    rows["whole, auto / codecs"] = found["whole, auto"] / found["codecs"]
    # The network is left out of this bound, because with `auto` it sees only part of the frames.
    rows["whole, auto / codecs on one core"] = found["whole, auto"] / found["codecs on one core"]
    rows["whole / codecs"] = found["whole"] / found["codecs"]
    rows["whole / network"] = found["whole"] / found["network"]
    rows["whole / what must run"] = found["whole"] / max(
        found["codecs on one core"], found["network on the others"]
    )
    rows["whole / (codecs + network)"] = found["whole"] / (found["codecs"] + found["network"])
    if as_json:
        click.echo(json.dumps(rows))
        return
    table = Table(f"{width} x {height}, {frames} frames", "value")
    for label, value in rows.items():
        table.add_row(label, f"{value:.3g}")
    Console().print(table)


if __name__ == "__main__":
    main()
