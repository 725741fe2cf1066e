"""Files of several pages: each is read and written like a single picture."""

import io
import struct
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image, TiffImagePlugin

from colorize_cli.color import lightness
from colorize_cli.color.lab import srgb_to_lab
from colorize_cli.core.errors import ReadError, WriteError
from colorize_cli.core.formats import PICTURE_FORMATS
from colorize_cli.image import exif, reader, writer
from colorize_cli.image.frame import Frame
from colorize_cli.image.thumbnail import color_thumbnail
from tests.helpers.pictures import colored, gray, in_depth, lightness_of
from tests.helpers.profiles import linear_profile
from tests.helpers.tiff_files import (
    ACROSS,
    DOWN,
    EXTRA_SAMPLES,
    ICC,
    MAKE,
    ORIENTATION,
    SUBFILE_TYPE,
    UNIT,
    tiff,
)

LIMIT = 1_000_000
UP, DOWNWARD, RIGHT, LEFT = 1, 3, 6, 8


def pages_of(data: bytes) -> list[Frame]:
    return list(reader.read_pages(data, LIMIT))


def written(frames: list[Frame], path: Path) -> list[np.ndarray]:
    """Return the pages of an output, (H, W, 3 or 4), by Pillow (8 bits) and OpenCV."""
    writer.write(path, map(colored, frames))
    done, found = cv2.imreadmulti(str(path), flags=cv2.IMREAD_UNCHANGED)
    assert done
    with Image.open(path) as image:
        assert image.n_frames == len(found)
        pages = []
        for number, page in enumerate(found):
            image.seek(number)
            deep = page.dtype == np.uint16
            pages.append(page[..., [2, 1, 0, 3][: page.shape[2]]] if deep else np.asarray(image))
    return pages


def difference(rgb: np.ndarray, frame: Frame) -> float:
    """Return the mean difference in L*."""
    lab = srgb_to_lab(rgb[..., :3] / np.iinfo(rgb.dtype).max)
    return float(np.abs(lab[..., 0] - lightness_of(frame)).mean())


def test_pages_keep_size_depth_transparency_and_lightness(tmp_path):
    with_alpha = np.dstack([in_depth(gray(20, 30), np.uint8), gray(20, 30)[::-1]])
    data = tiff(
        (gray(24, 32), {}),
        (in_depth(gray(40, 17), np.uint16), {}),
        (with_alpha, {EXTRA_SAMPLES: 2}),
        (in_depth(gray(9, 60), np.float32), {}),
        (in_depth(gray(33, 5), np.float32, 1), {}),
    )
    frames = pages_of(data)
    assert [frame.lightness.shape for frame in frames] == [(24, 32), (40, 17), (20, 30), (9, 60), (33, 5)]
    assert [frame.deep for frame in frames] == [False, True, False, True, True]
    assert {frame.pages for frame in frames} == {5}
    for frame in frames:
        height, width = frame.lightness.shape
        np.testing.assert_allclose(lightness_of(frame), lightness.GRAY8[gray(height, width)], atol=0.01)
    found = written(frames, tmp_path / "a.tif")
    assert len(found) == 5
    for rgb, frame in zip(found, frames, strict=True):
        assert rgb.shape[:2] == frame.lightness.shape
        assert rgb.dtype == (np.uint16 if frame.deep else np.uint8)
        assert difference(rgb, frame) <= (0.003 if frame.deep else 0.15)
    assert [rgb.shape[2] for rgb in found] == [3, 3, 4, 3, 3]
    np.testing.assert_array_equal(found[2][..., 3], gray(20, 30)[::-1])


def test_pages_keep_their_metadata(tmp_path):
    rational = TiffImagePlugin.IFDRational
    tags = [
        {MAKE: "one", ACROSS: rational(300), DOWN: rational(150), UNIT: 2},
        {MAKE: "two", ACROSS: rational(72), DOWN: rational(72), UNIT: 2},
        {},
        {ACROSS: rational(3), DOWN: rational(4), UNIT: 1},  # an aspect ratio, not a resolution
    ]
    frames = pages_of(tiff(*((gray(), each) for each in tags)))
    written(frames, tmp_path / "a.tif")
    with Image.open(tmp_path / "a.tif") as image:
        found = []
        for number in range(image.n_frames):
            image.seek(number)
            found.append((image.tag_v2.get(MAKE), image.tag_v2.get(ACROSS), image.tag_v2.get(DOWN)))
    assert found == [("one", 300, 150), ("two", 72, 72), (None, None, None), (None, 3, 4)]
    assert [frame.metadata.dpi for frame in frames] == [(300, 150), (72, 72), None, None]


def test_later_pages_keep_their_exif_directories(tmp_path, gray_photo):
    exif = Image.Exif()
    exif[MAKE] = "Maker"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "1931:05:06 07:08:09"
    Image.fromarray(gray_photo).save(tmp_path / "a.png", exif=exif)
    frame = reader.read(tmp_path / "a.png", LIMIT)
    writer.write(tmp_path / "b.tif", [colored(frame)] * 3)
    with Image.open(tmp_path / "b.tif") as image:
        for number in range(3):
            image.seek(number)
            within = image.getexif().get_ifd(ExifTags.IFD.Exif)
            assert within[ExifTags.Base.DateTimeOriginal] == "1931:05:06 07:08:09"
            image.load()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_profile_applies_only_to_its_page(dtype):
    plain, linear = {}, {ICC: linear_profile("linear")}
    colors = in_depth(gray(), dtype)
    frames = pages_of(tiff((colors, plain), (colors, linear), (colors, plain)))
    first, second, third = map(lightness_of, frames)
    np.testing.assert_array_equal(first, third)
    assert np.abs(second - first).mean() > 10


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_pages_are_rotated_once_and_separately(tmp_path, dtype, channels):
    turned = {UP: gray(), DOWNWARD: gray()[::-1, ::-1], RIGHT: np.rot90(gray(), -1), LEFT: np.rot90(gray())}
    samples = in_depth(gray(), dtype, channels)
    frames = pages_of(tiff(*((samples, {ORIENTATION: orientation}) for orientation in turned)))
    for frame, wanted in zip(frames, turned.values(), strict=True):
        assert frame.lightness.shape == wanted.shape
        np.testing.assert_allclose(lightness_of(frame), lightness.GRAY8[wanted], atol=0.01)
    found = written(frames, tmp_path / "a.tif")
    assert [rgb.shape[:2] for rgb in found] == [wanted.shape for wanted in turned.values()]


@pytest.mark.parametrize(("kind", "atol"), [(np.uint8, 1.2), (np.uint16, 0.02), (np.float32, 0.02)])
def test_premultiplied_colors_are_divided_by_alpha(kind, atol):
    codes, alpha = gray() / 255, np.linspace(0.5, 1, 24 * 32).reshape(24, 32)
    scale = 1 if kind is np.float32 else np.iinfo(kind).max
    samples = np.dstack([np.stack([codes * alpha] * 3, axis=-1), alpha]) * scale
    samples = samples.astype(kind) if kind is np.float32 else np.rint(samples).astype(kind)
    (frame,) = pages_of(tiff((samples, {EXTRA_SAMPLES: 1})))
    np.testing.assert_allclose(lightness_of(frame), lightness.GRAY8[gray()], atol=atol)
    np.testing.assert_allclose(frame.alpha / np.iinfo(frame.alpha.dtype).max, alpha, atol=0.004)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_unspecified_fourth_channel_is_not_transparency(kind):
    samples = np.dstack([in_depth(gray(), kind), np.zeros((24, 32), kind)])
    (frame,) = pages_of(tiff((samples, {EXTRA_SAMPLES: 0})))
    assert frame.alpha is None


def test_thumbnails_and_masks_are_not_pages():
    pages = [(gray(6, 8), 1), (gray(24, 32), 0), (gray(24, 32), 4), (gray(12, 16), 2), (gray(3, 4), 1)]
    data = tiff(*((array, {SUBFILE_TYPE: kind}) for array, kind in pages))
    frames = pages_of(data)
    assert [frame.lightness.shape for frame in frames] == [(24, 32), (12, 16)]
    assert reader.read(data, LIMIT).lightness.shape == (24, 32)
    assert reader.size_of(data, LIMIT) == 24 * 32


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_page_after_a_thumbnail_keeps_its_depth(dtype):
    data = tiff((in_depth(gray(6, 8), dtype), {SUBFILE_TYPE: 1}), (in_depth(gray(), dtype), {}))
    (frame,) = pages_of(data)
    assert (frame.pages, frame.deep) == (1, dtype is not np.uint8)
    np.testing.assert_allclose(lightness_of(frame), lightness.GRAY8[gray()], atol=0.01)


def test_file_of_thumbnails_only_is_read():
    assert len(pages_of(tiff((gray(6, 8), {SUBFILE_TYPE: 1}), (gray(3, 4), {SUBFILE_TYPE: 1})))) == 2


def test_pixel_limit_applies_to_the_largest_page():
    data = tiff((gray(10, 10), {}), (gray(20, 30), {}), (gray(5, 5), {}))
    assert reader.size_of(data, 600) == 600
    with pytest.raises(ReadError, match="30 x 20 exceeds the limit of 599 pixels"):
        reader.size_of(data, 599)
    with pytest.raises(ReadError, match="limit of 599"):
        next(reader.read_pages(data, 599))


def test_pages_beyond_64_kib_are_read(tmp_path):
    pictures = [np.random.default_rng(seed).integers(0, 256, (300, 300), np.uint8) for seed in range(3)]
    frames = pages_of(tiff(*((picture, {}) for picture in pictures)))
    found = written(frames, tmp_path / "a.tif")
    assert (tmp_path / "a.tif").stat().st_size > 2**17
    for rgb, frame in zip(found, frames, strict=True):
        assert difference(rgb, frame) <= 0.15


@pytest.mark.parametrize("damage", [lambda data: data[:-200], lambda data: data.replace(b"\x2a\x2a", b"")])
def test_damaged_later_page_is_named_and_leaves_no_output(tmp_path, damage: Callable[[bytes], bytes]):
    data = damage(tiff((gray(), {}), (gray(), {}), (np.full((24, 32), 0x2A, np.uint8), {})))
    with pytest.raises(ReadError, match=r"^page 3 of 3: "):
        writer.write(tmp_path / "b.tif", map(colored, reader.read_pages(data, LIMIT)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "make", [tiff, lambda *pages: compressed(pages)], ids=["directories first", "Deflate"]
)
def test_truncated_file_never_loses_pages_silently(make):
    data = make(*((in_depth(gray(), np.uint8), {}) for _ in range(3)))
    assert len(pages_of(data)) == 3
    for end in range(8, len(data) - 16, 7):
        with pytest.raises(ReadError):
            pages_of(data[:end])


def compressed(pages) -> bytes:
    """Make a TIFF with Pillow, with its directories after the pixels."""
    images = [Image.fromarray(array) for array, _ in pages]
    file = io.BytesIO()
    images[0].save(file, "TIFF", save_all=True, append_images=images[1:], compression="tiff_adobe_deflate")
    return file.getvalue()


def test_cyclic_pages_end():
    data = bytearray(tiff((gray(), {}), (gray(), {})))
    first = struct.unpack_from("<I", data, 4)[0]
    entries = struct.unpack_from("<H", data, first)[0]
    second = struct.unpack_from("<I", data, first + 2 + 12 * entries)[0]
    entries = struct.unpack_from("<H", data, second)[0]
    struct.pack_into("<I", data, second + 2 + 12 * entries, first)
    assert len(pages_of(bytes(data))) == 2


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "AVIF", "BMP", "JPEG2000"])
def test_formats_without_pages_are_refused(tmp_path, format_):
    frames = pages_of(tiff((gray(), {}), (gray(), {})))
    with pytest.raises(WriteError, match=f"{format_} cannot hold several pages; choose TIFF"):
        writer.write(
            tmp_path / f"a{PICTURE_FORMATS[format_].suffixes[0]}", (colored(f, format_) for f in frames)
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("low", "high"), [(0, 255), (-1, 1), (0, 1.5), (0, np.nan), (0, np.inf), (-np.inf, 0)]
)
def test_floats_on_another_scale_are_refused(channels, low, high):
    values = np.full((24, 32, channels), low, np.float32)
    values[3, 4] = high
    with pytest.raises(ReadError, match=r"floats from .* are not supported; use 0 for black, 1 for white"):
        pages_of(tiff((values, {})))


@pytest.mark.parametrize("channels", [1, 3])
def test_floats_with_small_overshoot_are_clamped(channels):
    values = np.full((24, 32, channels), -0.005, np.float32)
    values[3, 4] = 1.005
    (frame,) = pages_of(tiff((values, {})))
    assert (lightness_of(frame)[0, 0], round(float(lightness_of(frame)[3, 4]), 3)) == (0, 100)


def test_one_bit_page_becomes_8_bit_color(tmp_path):
    bits = Image.fromarray(gray()).convert("1")
    bits.save(tmp_path / "a.tif", compression="group4")
    frame = reader.read(tmp_path / "a.tif", LIMIT)
    (rgb,) = written([frame], tmp_path / "b.tif")
    assert (rgb.dtype, rgb.shape) == (np.uint8, (24, 32, 3))
    np.testing.assert_array_equal(rgb[..., 1] > 127, np.asarray(bits))


def test_original_pages_of_float_colors_are_8_bit():
    colors = np.random.default_rng(0).random((20, 30, 3), np.float32)
    ((frame, rgb),) = reader.original_pages(tiff((colors, {})), LIMIT)
    assert not frame.deep
    np.testing.assert_array_equal(rgb, np.rint(np.rint(colors * 65535) / 257))


def test_damage_that_libtiff_finds_is_said_and_not_printed(capfd):
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 2, (200, 200), dtype=np.uint8) * 255
    Image.fromarray(noise).convert("1").save(file, "TIFF", compression="group4")
    data = bytearray(file.getvalue())
    assert reader.read(bytes(data), LIMIT).damage is None
    data[len(data) * 6 // 10] ^= 4
    assert "Bad code word" in (reader.read(bytes(data), LIMIT).damage or "")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
def test_damaged_strip_fails_and_prints_nothing(tmp_path, capfd, compression):
    file = io.BytesIO()
    Image.fromarray(in_depth(gray(200, 200), np.uint8)).save(file, "TIFF", compression=compression)
    (tmp_path / "a.tif").write_bytes(file.getvalue()[:8] + bytes(400) + file.getvalue()[408:])
    for read in (lambda path: reader.read(path, LIMIT), lambda path: color_thumbnail(path, LIMIT, 64)):
        with pytest.raises(ReadError) as raised:
            read(tmp_path / "a.tif")
        assert "\n" not in str(raised.value)
    assert capfd.readouterr().err == ""


def test_directories_of_many_pages_are_read_once(monkeypatch):
    data = tiff(*((gray(4, 5), {MAKE: str(number)}) for number in range(60)))
    followed = []
    one = exif.following
    monkeypatch.setattr(exif, "following", lambda *where: (followed.append(where), one(*where))[1])
    makers = [frame.metadata.exif for frame in reader.read_pages(data, LIMIT)]
    assert [str(number).encode() in (block or b"") for number, block in enumerate(makers)] == [True] * 60
    assert sum(len(where) == 3 for where in followed) < 60 * 5
