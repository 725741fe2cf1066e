"""Round trips of every format, depth, transparency, orientation and profile that can be made here."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps, PngImagePlugin

from colorize_cli.color.lab import lightness_of_gray, srgb_to_lab
from colorize_cli.compose import compose, compose16
from colorize_cli.core.formats import HOLDS
from colorize_cli.image import reader, writer
from colorize_cli.image.metadata import SRGB_PROFILE
from tests.colorize_cli.image.test_oddities import linear_profile
from tests.colorize_cli.image.test_reader import gray_profile

LIMIT = 1_000_000
SHAPE = (48, 80)
MODES = {
    "AVIF": ("L", "RGB", "RGBA"),
    "BMP": ("1", "L", "P", "RGB"),
    "JPEG": ("L", "RGB", "CMYK"),
    "JPEG2000": ("L", "LA", "RGB", "RGBA", "I;16"),
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "RGB;16", "RGBA;16"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "RGB;16", "RGBA;16"),
    "WEBP": ("L", "RGB", "RGBA"),
}
TURNED = frozenset(
    {"JPEG", "PNG", "TIFF", "WEBP"}
)  # formats whose orientation can be made in every mode here
PROFILED = frozenset({"JPEG", "PNG", "TIFF"})
# Allowed mean difference in L* between output and input, by the loss of the format.
LOSSES = {"AVIF": 1.2, "JPEG": 0.8, "WEBP": 1.2}


@dataclass(frozen=True)
class Case:
    format: str
    mode: str
    orientation: int
    profile: bool

    def __str__(self) -> str:
        return f"{self.format} {self.mode} {self.orientation}{' profile' if self.profile else ''}"

    @property
    def deep(self) -> bool:
        return "16" in self.mode


CASES = [
    Case(format_, mode, orientation, profile)
    for format_, modes in MODES.items()
    for mode in modes
    for orientation in ((1, 2, 5, 6, 8) if format_ in TURNED and ";16" not in mode[-3:] else (1,))
    for profile in ((False, True) if format_ in PROFILED and mode not in ("1", "P", "CMYK") else (False,))
] + [Case("PNG", mode, turn, False) for mode in ("I;16", "RGB;16", "RGBA;16") for turn in range(2, 9)]


def gray16() -> np.ndarray:
    """A smooth ramp with some structure, every 16-bit level distinct from its neighbors."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]] / np.array(SHAPE)[:, None, None]
    return np.rint(65535 * np.clip(0.1 + 0.7 * x + 0.15 * np.sin(9 * y), 0, 1)).astype(np.uint16)


def transparency() -> np.ndarray:
    return np.add.outer(np.arange(SHAPE[0]) * 3, np.arange(SHAPE[1])).astype(np.uint8)


def samples(mode: str) -> np.ndarray:
    """Return the samples of a picture of a mode: H x W, or H x W x channels."""
    gray = gray16()
    if mode == "I;16":
        return gray
    if mode.endswith(";16"):
        tinted = np.stack([gray, np.sqrt(gray / 65535) * 65535, gray], -1).astype(np.uint16)
        return tinted if mode == "RGB;16" else np.dstack([tinted, transparency().astype(np.uint16) * 257])
    return np.asarray(as_image(mode))


def as_image(mode: str) -> Image.Image:
    gray = Image.fromarray((gray16() >> 8).astype(np.uint8))
    if mode in ("LA", "RGBA"):
        image = gray.convert(mode)
        image.putalpha(Image.fromarray(transparency()))
        return image
    return Image.fromarray(gray16()) if mode == "I;16" else gray.convert(mode)


def metadata(case: Case) -> dict:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    if case.orientation != 1:
        exif[ExifTags.Base.Orientation] = case.orientation
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "1931:05:06 07:08:09"
    chosen: dict = {}
    if case.format in ("AVIF", "JPEG", "PNG", "WEBP", "TIFF"):
        chosen["exif"] = exif
    if case.format in ("BMP", "JPEG", "PNG", "TIFF"):
        chosen["dpi"] = (300, 150)
    if case.format in ("AVIF", "JPEG", "WEBP"):
        chosen["xmp"] = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'
    if case.format == "JPEG":
        chosen |= {"comment": b"a comment", "quality": 95}
    if case.format == "PNG":
        chosen["pnginfo"] = PngImagePlugin.PngInfo()
        chosen["pnginfo"].add_text("Title", "a title")
    if case.format == "WEBP":
        chosen |= {"lossless": True, "exact": True}
    if case.format == "AVIF":
        chosen["quality"] = 100
    if case.profile:
        gray = case.mode in ("L", "LA", "I;16")
        chosen["icc_profile"] = gray_profile(1.8) if gray else linear_profile("linear")
    return chosen


def make(case: Case, path: Path) -> None:
    chosen = metadata(case)
    if not case.mode.endswith("B;16") and not case.mode.endswith("A;16"):
        as_image(case.mode).save(path, case.format, **chosen)
        return
    order = [2, 1, 0, 3][: samples(case.mode).shape[2]]
    cv2.imwrite(str(path), np.ascontiguousarray(samples(case.mode)[..., order]))
    if case.format == "TIFF":
        return
    small = io.BytesIO()
    Image.new("RGB", (1, 1)).save(small, "PNG", **chosen)
    data, head = path.read_bytes(), 8 + 25
    extra = b"".join(
        chunk for chunk in chunks(small.getvalue()) if chunk[4:8] not in (b"IHDR", b"IDAT", b"IEND")
    )
    path.write_bytes(data[:head] + extra + data[head:])


def chunks(png: bytes) -> Iterator[bytes]:
    position = 8
    while position < len(png):
        end = position + 12 + int.from_bytes(png[position : position + 4], "big")
        yield png[position:end]
        position = end


def turned(array: np.ndarray, orientation: int) -> np.ndarray:
    """Return the picture as a viewer shows it, by Pillow, at 8 bits."""
    high, low = (
        np.asarray(turn(Image.fromarray(part.astype(np.uint8)), orientation))
        for part in (array >> 8, array & 255)
    )
    return high.astype(np.uint16) * 256 + low if array.dtype == np.uint16 else low


def turn(image: Image.Image, orientation: int) -> Image.Image:
    image.getexif()[ExifTags.Base.Orientation] = orientation
    return ImageOps.exif_transpose(image)


def pixels(path: Path) -> np.ndarray:
    """Return (H, W, 3 or 4), by an independent reader."""
    if path.suffix in (".png", ".tif"):
        found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
        if found.dtype == np.uint16:
            return found[..., [2, 1, 0, 3][: found.shape[2]]]
    with Image.open(path) as image:
        assert image.mode in ("RGB", "RGBA")
        return np.asarray(image)


def test_there_are_enough_of_them():
    assert len(set(CASES)) >= 150


@pytest.mark.parametrize("case", sorted(set(CASES), key=str), ids=str)
def test_what_goes_in_comes_out_colored(tmp_path, case):
    suffix = HOLDS[case.format].suffixes[0]
    source, output = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    make(case, source)
    frame = reader.read(source, LIMIT)
    orientation = (
        case.orientation
        if "exif" in metadata(case)
        and not (case.format == "TIFF" and case.mode.endswith(";16") and case.mode != "I;16")
        else 1
    )
    shape = SHAPE if orientation < 5 else SHAPE[::-1]
    assert frame.lightness.shape == shape
    assert frame.deep == case.deep

    deep = frame.deep and HOLDS[case.format].deep
    ab = np.stack([np.full((3, 5), 6), np.full((3, 5), 9)]).astype(np.float32)
    writer.write(output, [(frame, (compose16 if deep else compose)(frame.lightness, ab))])
    found = pixels(output)
    assert found.shape[:2] == shape
    assert found.dtype == (np.uint16 if deep else np.uint8)

    wanted = frame.lightness.rows(0, shape[0])
    lab = srgb_to_lab(found[..., :3] / (65535 if deep else 255))
    difference = np.abs(lab[..., 0] - wanted)
    assert difference.mean() <= (0.003 if deep else LOSSES.get(case.format, 0.15))
    if case.mode != "1":  # black and white have no chroma
        assert np.abs(lab[..., 2].mean() - 9) < 1.5, "it is colorized"

    check_lightness(case, frame, orientation)
    check_transparency(case, frame, found, orientation)
    check_metadata(case, output, orientation)


def check_lightness(case, frame, orientation):
    """The decoded picture is the one that a viewer shows."""
    if case.profile or case.format in LOSSES or case.mode in ("1", "P", "CMYK"):
        return
    content = samples(case.mode)
    scale = 65535 if content.dtype == np.uint16 else 255
    if content.ndim == 3 and content.shape[2] >= 3:
        wanted = srgb_to_lab(content[..., :3] / scale)[..., 0]
    else:
        wanted = lightness_of_gray((content if content.ndim == 2 else content[..., 0]) / scale)
    codes = turned(np.rint(wanted * 655.35).astype(np.uint16), orientation)
    height = frame.lightness.shape[0]
    np.testing.assert_allclose(frame.lightness.rows(0, height), codes / 655.35, atol=0.004)


def check_transparency(case, frame, found, orientation):
    if case.mode not in ("LA", "RGBA", "RGBA;16"):
        assert frame.alpha is None
        assert found.shape[2] == 3
        return
    alpha = turned(transparency(), orientation).astype(int)
    depth = 257 if found.dtype == np.uint16 else 1
    assert np.abs(found[..., 3].astype(int) - alpha * depth).max() <= (10 if case.format == "AVIF" else 0)


def check_metadata(case, output, orientation):
    with Image.open(output) as image:
        image.load()
        chosen = metadata(case)
        if case.mode.endswith(";16") and case.format == "TIFF" and case.mode != "I;16":
            return  # OpenCV makes these without any
        exif = image.getexif()
        assert exif.get(ExifTags.Base.Orientation, 1) == 1
        if "exif" in chosen:
            assert exif[ExifTags.Base.Make] == "Maker"
            if case.format != "TIFF":  # Pillow makes those without
                details = exif.get_ifd(ExifTags.IFD.Exif)
                assert details[ExifTags.Base.DateTimeOriginal] == "1931:05:06 07:08:09"
        if "dpi" in chosen:
            wanted = (300, 150) if orientation < 5 else (150, 300)
            assert tuple(round(float(side)) for side in image.info["dpi"]) == wanted
        if "xmp" in chosen:
            assert image.info["xmp"] == chosen["xmp"]
        if case.format == "JPEG":
            assert image.info["comment"] == b"a comment"
        if case.format == "PNG":
            assert image.text["Title"] == "a title"
        if case.format not in ("BMP", "JPEG2000"):
            assert image.info["icc_profile"] == SRGB_PROFILE
