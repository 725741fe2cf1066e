"""Damaged files are read, or fail with a message of one line.

    COLORIZE_FUZZ_EXAMPLES=300 pytest tests/colorize_cli/image/test_fuzz.py

tries 300 random examples of each kind, different ones each time.
"""

import io
import json
import os
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import imagecodecs
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from colorize_cli.cli.run import command
from colorize_cli.core.errors import ReadError
from colorize_cli.image import reader, writer
from tests.helpers.animations import animation
from tests.helpers.heif_files import heic, picture
from tests.helpers.pictures import colored, gray, in_depth
from tests.helpers.png_files import GRAY, chunk, gamma, png
from tests.helpers.profiles import linear_profile
from tests.helpers.tiff_files import EXTRA_SAMPLES, ICC, ORIENTATION, SEPARATE, tiff, written

T = TypeVar("T")
LIMIT = 1_000_000
EXAMPLES = int(os.environ.get("COLORIZE_FUZZ_EXAMPLES", "20"))
FUZZ = settings(
    max_examples=EXAMPLES,
    deadline=20_000,  # milliseconds; a case takes about five
    derandomize="COLORIZE_FUZZ_EXAMPLES" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def saved(format_: str, mode: str = "L", **options) -> bytes:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    if format_ in ("JPEG", "PNG", "WEBP", "AVIF"):
        options |= {"exif": exif}
    Image.fromarray(gray()).convert(mode).save(file, format_, **options)
    return file.getvalue()


def of_16_bits(format_: str) -> bytes:
    frame = next(reader.read_pages(tiff((in_depth(gray(), np.uint16), {})), LIMIT))
    file = io.BytesIO()
    writer.encode(file, format_, [colored(frame, format_)] * (2 if format_ == "TIFF" else 1))
    return file.getvalue()


def several_pages() -> bytes:
    alpha = np.dstack([in_depth(gray(), np.uint16), gray().astype(np.uint16) * 257])
    profile = {ICC: linear_profile("linear"), ORIENTATION: 8}
    return tiff((gray(), {}), (in_depth(gray(), np.uint8), profile), (alpha, {EXTRA_SAMPLES: 1}))


def in_planes(dtype: type) -> np.ndarray:
    return np.moveaxis(in_depth(gray(), dtype), -1, 0)


FILES = {
    "a.jpg": saved("JPEG"),
    "progressive.jpg": saved("JPEG", "RGB", progressive=True, icc_profile=linear_profile("linear")),
    "cmyk.jpg": saved("JPEG", "CMYK"),
    "a.png": saved("PNG", "LA", icc_profile=linear_profile("linear")),
    "palette.png": saved("PNG", "P", transparency=3),
    "deep.png": of_16_bits("PNG"),
    "animated.png": animation("PNG", "RGBA"),
    "a.webp": saved("WEBP"),
    "animated.webp": animation("WEBP", "RGBA"),
    "a.avif": saved("AVIF"),
    "animated.avif": animation("AVIF"),
    "a.gif": saved("GIF"),
    "animated.gif": animation("GIF", disposal=2),
    "a.bmp": saved("BMP"),
    "a.jp2": saved("JPEG2000"),
    "a.tif": saved("TIFF"),
    "lzw.tif": saved("TIFF", "RGB", compression="tiff_lzw"),
    "bits.tif": saved("TIFF", "1", compression="group4"),
    "jpeg.tif": saved("TIFF", "RGB", compression="jpeg"),
    "deep.tif": of_16_bits("TIFF"),
    "pages.tif": several_pages(),
    "planar.tif": written(in_planes(np.uint16), compression="deflate", predictor=True, **SEPARATE),
    "big.tif": written(gray(), bigtiff=True, byteorder=">", rowsperstrip=5),
    "lzw16.tif": written(in_planes(np.uint16), tile=(16, 16), compression="lzw", **SEPARATE),
    "bits.tiff": written(gray().astype(np.uint16), bitspersample=12),
    "12bits.jpg": imagecodecs.jpeg8_encode(gray().astype(np.uint16) * 16, bitspersample=12),
    "gamma.png": png(gray(), GRAY, 8, gamma(100000), chunk(b"tRNS", b"\0\x50")),
    "lossless.webp": saved("WEBP", "RGB", lossless=True),
    "a.heic": heic(picture(gray(64, 64))),
    "floats.tif": tiff((in_depth(gray(), np.float32), {}), (in_depth(gray(), np.float32, 1), {})),
}
NUMBERS = (
    0,
    1,
    2,
    3,
    0x7F,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x10000,
    0x7FFF_FFFF,
    0x8000_0000,
    0xFFFF_FFFE,
    0xFFFF_FFFF,
)


@st.composite
def mangled(draw: st.DrawFn, data: bytes) -> bytes:
    """Damage the bytes in one to four places, half of them near the head, where the structure is."""
    content = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        end = len(content)
        if not end:
            break
        start = draw(st.integers(0, min(end, 160) - 1) | st.integers(0, end - 1))
        span = slice(start, start + draw(st.integers(1, 4) | st.integers(1, max(1, end // 3))))
        match draw(st.sampled_from(ACCIDENTS)):
            case "cut":
                del content[start:]
            case "bit":
                content[start] ^= 1 << draw(st.integers(0, 7))
            case "byte":
                content[start] = draw(st.integers(0, 255))
            case "zeros":
                content[span] = bytes(len(content[span]))
            case "insert":
                content[start:start] = draw(st.binary(min_size=1, max_size=40))
            case "delete":
                del content[span]
            case "duplicate":
                content[start:start] = content[span]
            case "swap":
                other = draw(st.integers(0, end - 1))
                size = min(len(content[span]), abs(other - start), end - other)
                first, second = slice(start, start + size), slice(other, other + size)
                content[first], content[second] = content[second], content[first]
            case "number":
                kind = draw(st.sampled_from(("<H", ">H", "<I", ">I")))
                packed = struct.pack(kind, draw(st.sampled_from(NUMBERS)) % (1 << 8 * struct.calcsize(kind)))
                content[start : start + len(packed)] = packed
    return bytes(content)


ACCIDENTS = ("cut", "bit", "byte", "zeros", "insert", "delete", "duplicate", "swap", "number")


def tried(step: Callable[[], T]) -> T | str:
    """Return the result of a step, or the reason for its failure."""
    try:
        return step()
    except ReadError as error:
        return str(error)


def check(data: bytes) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pixels = tried(lambda: reader.size_of(data, LIMIT))
        frames = tried(lambda: list(reader.read_pages(data, LIMIT)))
    for found in (pixels, frames):
        if isinstance(found, str):
            assert len(found.splitlines()) == 1, repr(found)
            assert found.strip()
    if isinstance(pixels, int):
        assert 0 < pixels <= LIMIT
    if isinstance(frames, list):
        assert isinstance(pixels, int), pixels
        assert max(frame.pixels for frame in frames) <= pixels
        assert all(frame.pages == len(frames) for frame in frames)
    ours = [warning for warning in caught if "PIL" not in Path(warning.filename).parts]
    assert not ours, "only Pillow warns, about files that it can read"


@pytest.mark.parametrize("name", FILES)
def test_undamaged_files_are_read(name):
    assert list(reader.read_pages(FILES[name], LIMIT))


@pytest.mark.parametrize("name", FILES)
def test_damaged_file_is_read_or_fails_with_one_line(name):
    @FUZZ
    @given(mangled(FILES[name]))
    def run(data: bytes) -> None:
        check(data)

    run()


@pytest.mark.filterwarnings("ignore")  # `colorize_cli.cli.main` ignores warnings too
def test_run_on_damaged_files_has_one_outcome_each(models, tmp_path_factory):
    @settings(FUZZ, max_examples=max(4, EXAMPLES // 10), deadline=None)
    @given(st.fixed_dictionaries({name: mangled(data) for name, data in FILES.items()}))
    def run(damaged: dict[str, bytes]) -> None:
        folder = tmp_path_factory.mktemp("fuzz")
        for name, data in damaged.items():
            # In separate folders, since several have the same stem.
            (folder / "in" / name).mkdir(parents=True)
            (folder / "in" / name / name).write_bytes(data)
        check_run(folder, models.tinted, damaged)

    run()


def check_run(folder: Path, model: Path, damaged: dict[str, bytes]) -> None:
    options = ["--model", model, "--device", "cpu", "--json", "--if-colored", "recolor"]
    arguments = [folder / "in", folder / "out", *options, "--max-pixels", LIMIT]
    result = CliRunner().invoke(command, list(map(str, arguments)))
    outcomes = [json.loads(line) for line in result.stdout.splitlines()]
    assert sorted(Path(outcome["source"]).name for outcome in outcomes) == sorted(damaged)
    failed = [outcome for outcome in outcomes if outcome["status"] == "failed"]
    done = [Path(outcome["destination"]) for outcome in outcomes if outcome["status"] == "done"]
    assert len(failed) + len(done) == len(damaged)
    assert result.exit_code == (1 if failed else 0)
    for outcome in failed:
        assert len(outcome["reason"].splitlines()) == 1
        assert not outcome["reason"].startswith(("TypeError", "ValueError", "IndexError")), outcome
    written = {p for p in (folder / "out").rglob("*") if p.is_file() and ".colorize" not in p.parts}
    in_part = {
        Path(outcome["destination"])
        for outcome in failed
        if outcome["reason"].endswith("the output contains only what could be decoded")
    }
    assert written == set(done) | in_part
    for path in written:
        with Image.open(path) as image:
            image.load()
    for name, data in damaged.items():
        assert (folder / "in" / name / name).read_bytes() == data
