"""Measure the peak memory of colorizing one large scan, in bytes a pixel, relative to the documented limit.

    python tests/benchmarks/large.py --megapixels 200

Each picture is made here and colorized by `colorize` on the CPU; the system reports the peak resident
memory. The limit is 12 bytes a pixel and 1 GiB.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.console import Console
from rich.table import Table

BYTES_A_PIXEL, FIXED = 12, 1 << 30
Gray = npt.NDArray[np.uint8]


def scan(megapixels: int) -> Gray:
    """Make a gray picture with structure at several scales, 4 : 3."""
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    width = round(megapixels * 1e6 / height)
    random = np.random.default_rng(0)
    coarse = cv2.resize(random.integers(0, 200, (9, 12), dtype=np.uint8), (width, height))
    coarse += np.resize(random.integers(0, 40, 1 << 20, dtype=np.uint8), (height, width))
    return coarse


def rgb(gray: Gray) -> Image.Image:
    """Return an RGB picture like the scan of a toned print."""
    return Image.merge("RGB", [Image.fromarray(np.clip(gray, low, None)) for low in (40, 20, 0)])


def deep(gray: Gray) -> npt.NDArray[np.uint16]:
    """Return the picture with 16 bits."""
    return gray.astype(np.uint16) * 257


KINDS: dict[str, tuple[str, Callable[[Gray, Path], object]]] = {
    "gray JPEG": (".jpg", lambda gray, path: Image.fromarray(gray).save(path, quality=90)),
    "toned JPEG": (".jpg", lambda gray, path: rgb(gray).save(path, quality=90)),
    "gray PNG": (".png", lambda gray, path: Image.fromarray(gray).save(path, compress_level=1)),
    "toned TIFF": (".tif", lambda gray, path: rgb(gray).save(path)),
    "16-bit gray PNG": (".png", lambda gray, path: cv2.imwrite(str(path), deep(gray))),
    "16-bit RGB TIFF": (".tif", lambda gray, path: cv2.imwrite(str(path), cv2.merge([deep(gray)] * 3))),
}


def peak(source: Path, output: Path) -> tuple[int, float]:
    """Colorize a file. Returns the peak resident memory in bytes, and the seconds."""
    command = [sys.executable, "-m", "colorize_cli", "-q", "--device", "cpu", str(source), str(output)]
    begun = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"colorize ended with {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss * 1024, time.perf_counter() - begun


@click.command()
@click.option("--megapixels", default=200, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(megapixels: int, as_json: bool) -> None:
    """Measure the peak memory for each kind of scan."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        gray = scan(megapixels)
        allowed = BYTES_A_PIXEL * gray.size + FIXED
        for kind, (suffix, save) in KINDS.items():
            source, output = Path(folder, f"in{suffix}"), Path(folder, f"out{suffix}")
            save(gray, source)
            size, seconds = peak(source, output)
            found[kind] = {
                "peak": size,
                "beyond 1 GiB, bytes a pixel": max(0.0, (size - FIXED) / gray.size),
                "share of the limit": size / allowed,
                "seconds": seconds,
            }
            source.unlink()
            output.unlink()
    if as_json:
        click.echo(json.dumps(found))
        return
    table = Table("scan", "peak, MiB", "beyond 1 GiB, bytes a pixel", "share of the limit", "seconds")
    for kind, row in found.items():
        mebibytes, each, share, seconds = row.values()
        table.add_row(kind, f"{mebibytes / 2**20:.0f}", f"{each:.1f}", f"{share:.2f}", f"{seconds:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
