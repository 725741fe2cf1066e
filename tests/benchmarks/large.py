"""Measure the peak memory of colorizing one large scan, in bytes a pixel, relative to the documented limit.

    python tests/benchmarks/large.py --megapixels 200

Each picture is made here and colorized by `colorize` on the CPU; the system reports the peak resident
memory. The limit is 1 GiB and 12 bytes for each pixel that the
picture counts as: formats that need more memory count as more pixels (see `core/formats.py`).
"""

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import cv2
import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image
from rich.console import Console
from rich.table import Table

from colorize_cli.core.formats import BYTES_A_PIXEL, FORMAT_OF_SUFFIX
from colorize_cli.image import reader
from tests.helpers.child import measured

FIXED = 1 << 30
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


def planar(gray: Gray, path: Path) -> None:
    """Write toned 16-bit RGB, plane by plane."""
    planes = np.stack([deep(np.clip(gray, low, None)) for low in (40, 20, 0)])
    tifffile.imwrite(path, planes, photometric="rgb", planarconfig="separate")


def adobe_rgb(gray: Gray, path: Path) -> None:
    """Write toned 16-bit Adobe RGB."""
    profile = imagecodecs.cms_profile(
        "rgb",
        whitepoint=(0.3127, 0.329, 1),
        primaries=(0.64, 0.33, 1, 0.21, 0.71, 1, 0.15, 0.06, 1),
        gamma=563 / 256,
    )
    tifffile.imwrite(
        path, np.asarray(rgb(gray)).astype(np.uint16) * 257, photometric="rgb", iccprofile=profile
    )


def rgba(gray: Gray) -> Image.Image:
    """Return the toned print with transparency."""
    picture = rgb(gray)
    picture.putalpha(Image.fromarray(gray))
    return picture


def transparent(gray: npt.NDArray[np.generic], path: Path) -> None:
    """Write RGB with transparency."""
    tifffile.imwrite(path, np.dstack([gray] * 4), photometric="rgb", extrasamples="unassalpha")


KINDS: dict[str, tuple[str, Callable[[Gray, Path], object]]] = {
    "gray JPEG": (".jpg", lambda gray, path: Image.fromarray(gray).save(path, quality=90)),
    "toned JPEG": (".jpg", lambda gray, path: rgb(gray).save(path, quality=90)),
    "gray PNG": (".png", lambda gray, path: Image.fromarray(gray).save(path, compress_level=1)),
    "toned TIFF": (".tif", lambda gray, path: rgb(gray).save(path)),
    "16-bit gray PNG": (".png", lambda gray, path: cv2.imwrite(str(path), deep(gray))),
    "16-bit RGB TIFF": (".tif", lambda gray, path: cv2.imwrite(str(path), cv2.merge([deep(gray)] * 3))),
    "16-bit planar TIFF": (".tif", planar),
    "16-bit Adobe RGB TIFF": (".tif", adobe_rgb),
    "16-bit RGBA TIFF": (".tif", lambda gray, path: transparent(deep(gray), path)),
    "float RGBA TIFF": (".tif", lambda gray, path: transparent(gray / np.float32(255), path)),
    "WebP": (".webp", lambda gray, path: rgb(gray).save(path, method=0)),
    "transparent WebP": (".webp", lambda gray, path: rgba(gray).save(path, method=0)),
    "AVIF": (".avif", lambda gray, path: rgb(gray).save(path, speed=10)),
    "JPEG 2000": (".jp2", lambda gray, path: rgb(gray).save(path)),
}


def peak(source: Path, output: Path) -> tuple[int, float]:
    """Colorize a file. Returns the peak resident memory in bytes, and the seconds."""
    begun = time.perf_counter()
    ended = measured("-q", "--max-pixels", 1 << 40, source, output, seconds=3600)
    if ended.code:
        raise SystemExit(f"colorize ended with {ended.code}: {ended.err}")
    return ended.memory, time.perf_counter() - begun


@click.command()
@click.option("--megapixels", default=200, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(megapixels: int, as_json: bool) -> None:
    """Measure the peak memory for each kind of scan."""
    found = {}
    Image.MAX_IMAGE_PIXELS = None
    with tempfile.TemporaryDirectory() as folder:
        gray = scan(megapixels)
        for kind, (suffix, save) in KINDS.items():
            source, output = Path(folder, f"in{suffix}"), Path(folder, f"out{suffix}")
            save(gray, source)
            allowed = BYTES_A_PIXEL * reader.size_of(source, 1 << 40, FORMAT_OF_SUFFIX[suffix]) + FIXED
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
