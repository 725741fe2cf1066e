"""Peak memory of child processes that read hostile and large files: 12 bytes a pixel and a fixed amount."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from colorize_cli.core.formats import BYTES_A_PIXEL, FORMAT_OF_SUFFIX
from colorize_cli.image import reader
from tests.helpers.child import measured
from tests.helpers.cli import finish
from tests.helpers.heif_files import heic, picture
from tests.helpers.png_files import GRAY, RGB_ALPHA, chunk

SIGNATURE = b"\x89PNG\r\n\x1a\n"
FIXED = 400 << 20
SIDES = 1000, 2500


def header(width: int, height: int, bits: int, kind: int) -> bytes:
    return SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))


def tiff_with(tag: int, kind: int, count: int, at: int = 400) -> bytes:
    """Make a gray TIFF of 64 x 64 whose tag has many values, in a file that holds them."""
    tags = {256: (4, 1, 64), 257: (4, 1, 64), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1)}
    tags |= {273: (4, 1, at), 277: (3, 1, 1), 278: (4, 1, 64), 279: (4, 1, 4096), tag: (kind, count, at)}
    entries = b"".join(struct.pack("<HHII", number, *tags[number]) for number in sorted(tags))
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4)
    return head.ljust(at, b"\0") + bytes(count * {3: 2, 5: 8}[kind])


def run_length(width: int, height: int) -> bytes:
    """Make a BMP of 8 bits with run-length compression."""
    row = b"\xff\x10" * (width // 255) + bytes([width % 255, 0x20]) + b"\0\0"
    body = row * height + b"\0\1"
    palette = b"".join(bytes([n, n, n, 0]) for n in range(256))
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(body), 2835, 2835, 256, 0)
    return struct.pack("<2sIHHI", b"BM", 1078 + len(body), 0, 0, 1078) + info + palette + body


def saved(array: np.ndarray, format_: str, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, format_, **options)
    return file.getvalue()


HOSTILE: dict[str, Callable[[], bytes]] = {
    "length.png": lambda: header(100, 100, 16, GRAY) + struct.pack(">I4s", 0xFFFFFFFF, b"IDAT") + b"xx",
    "text.png": lambda: header(100, 100, 16, GRAY) + struct.pack(">I4s", 0x7FFFFFFF, b"tEXt") + b"xx",
    "empty.png": lambda: header(15000, 15000, 16, RGB_ALPHA) + chunk(b"IDAT", zlib.compress(bytes(1000))),
    "wide.bmp": lambda: run_length(999_000, 1),
    "wider.bmp": lambda: run_length(2_500_000, 1),
    "tall.tif": lambda: saved(np.zeros((300_000, 1), np.uint8), "TIFF"),
    "shorts.tif": lambda: tiff_with(65000, 3, 10_000_000),
    "bits.tif": lambda: tiff_with(258, 3, 1_100_000),
    "resolution.tif": lambda: tiff_with(282, 5, 1_100_000),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_takes_a_fixed_amount_of_memory(models, tmp_path, name):
    (tmp_path / name).write_bytes(HOSTILE[name]())
    ended = measured("-q", "--model", models.gray, tmp_path / name, tmp_path / f"out{Path(name).suffix}")
    assert ended.code in (0, 1)
    assert len(ended.err.splitlines()) == ended.code
    assert ended.memory < FIXED


def colors(side: int, channels: int, dtype: type) -> np.ndarray:
    """Return a toned print with structure, (side, side, channels)."""
    y, x = np.mgrid[:side, :side].astype(np.float32) / side
    samples = np.dstack([(0.3 + 0.5 * x * y) ** power for power in (1, 1.1, 1.2, 0.3)[:channels]])
    return samples if dtype is np.float32 else np.rint(samples * np.iinfo(dtype).max).astype(dtype)


def tiff_of(side: int, dtype: type, **options) -> bytes:
    file = io.BytesIO()
    samples = colors(side, 4, dtype)
    tifffile.imwrite(file, samples, photometric="rgb", extrasamples="unassalpha", **options)
    return file.getvalue()


LARGE: dict[str, Callable[[int], bytes]] = {
    "deep.png": lambda side: imagecodecs.png_encode(colors(side, 4, np.uint16), level=1),
    "deep.tif": lambda side: tiff_of(side, np.uint16),
    "floats.tif": lambda side: tiff_of(side, np.float32),
    "strip.tif": lambda side: tiff_of(side, np.float32, compression="zlib", rowsperstrip=side),
    "a.webp": lambda side: saved(colors(side, 4, np.uint8), "WEBP", method=0),
    "a.avif": lambda side: saved(colors(side, 3, np.uint8), "AVIF", speed=10),
    "a.jp2": lambda side: saved(colors(side, 3, np.uint8), "JPEG2000"),
    "a.heic": lambda side: heic(picture(colors(side, 3, np.uint8))),
}


@pytest.mark.parametrize("output", [".png", ".webp", ".avif", ".jp2"])
@pytest.mark.parametrize("name", LARGE)
@pytest.mark.heavy
def test_picture_takes_twelve_bytes_for_each_pixel_that_it_counts_as(models, tmp_path, name, output):
    limits, peaks = [], []
    for side in SIDES:
        data = LARGE[name](side)
        (tmp_path / name).write_bytes(data)
        limits.append(reader.size_of(data, 1 << 30, FORMAT_OF_SUFFIX[output]))
        options = ("-q", "--model", models.gray, "--if-colored", "recolor", "--max-pixels", limits[-1])
        ended = measured(*options, tmp_path / name, tmp_path / f"{side}{output}", seconds=300)
        assert (ended.code, ended.err) == (0, "")
        peaks.append(ended.memory)
    assert peaks[1] - peaks[0] < 1.1 * BYTES_A_PIXEL * (limits[1] - limits[0])


def test_picture_that_needs_more_memory_than_the_limit_is_refused(models, tmp_path):
    Image.fromarray(colors(100, 3, np.uint8)).save(tmp_path / "a.png")
    options = ("-q", "--model", models.gray, "--if-colored", "recolor", "--max-pixels", 20_000)
    said = "100 x 100 as AVIF need the memory of 40,000 pixels, beyond the limit of 20,000 (see --max-pixels)"
    assert finish(*options, tmp_path / "a.png", tmp_path / "a.avif") == (1, "", f"{tmp_path}/a.png: {said}\n")
    assert finish(*options, tmp_path / "a.png", tmp_path / "a.jpg") == (0, "", "")
