"""Measure a run over many small pictures: time to the first output, growth of memory, cost of a second run.

    python tests/benchmarks/many.py --pictures 50000

The pictures are made here, in nested folders, and colorized twice by `colorize` on the CPU. The second run
has nothing to do. The network's input is 16 pixels, so that everything else dominates. Resident memory is
read when outcomes are printed.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table


def make_pictures(folder: Path, count: int) -> None:
    """Write gray PNG and JPEG files of 32 x 24 pixels, in 407 folders of two levels."""
    random = np.random.default_rng(0)
    for number in range(count):
        parent = folder / f"{number % 37:02d}" / f"{number % 11:02d}"
        if number < 37 * 11:
            parent.mkdir(parents=True)
        coarse = Image.fromarray(random.integers(0, 256, (3, 3), dtype=np.uint8))
        picture = coarse.resize((32, 24), Image.Resampling.BILINEAR)
        picture.save(parent / f"{number:06d}{('.png', '.jpg')[number % 2]}")


def resident(process: int) -> int:
    """Return the resident memory of a process in bytes."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * 4096


def colorize(source: Path, output: Path) -> tuple[list[float], list[int]]:
    """Return the seconds from the start to each outcome and to the end, and the memory at each outcome."""
    command = [sys.executable, "-m", "colorize_cli", "-q", "--json", "--device", "cpu", "--size", "16"]
    begun = time.perf_counter()
    times, sizes = [], []
    with subprocess.Popen([*command, str(source), str(output)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["status"] == "failed":
                raise SystemExit(line.decode())
            times.append(time.perf_counter() - begun)
            if len(times) % 50 == 0:
                sizes.append(resident(process.pid))
    times.append(time.perf_counter() - begun)
    return times, sizes


@click.command()
@click.option("--pictures", default=50_000, show_default=True, type=click.IntRange(500))
@click.option("--json", "as_json", is_flag=True)
def main(pictures: int, as_json: bool) -> None:
    """Measure a run over many pictures and the run after it."""
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder, "in"), Path(folder, "out")
        make_pictures(source, pictures)
        times, sizes = colorize(source, output)
        again, _ = colorize(source, output)
    fifth = len(sizes) // 5
    found = {
        "seconds to the first output": times[0],
        "pictures a second": pictures / times[-1],
        "memory, last fifth over first fifth": max(sizes[-fifth:]) / max(sizes[:fifth]),
        "memory, MiB": max(sizes) / 2**20,
        "second run over first": again[-1] / times[-1],
    }
    if as_json:
        click.echo(json.dumps(found))
        return
    table = Table("figure", "value")
    for name, value in found.items():
        table.add_row(name, f"{value:.3g}")
    Console().print(table)


if __name__ == "__main__":
    main()
