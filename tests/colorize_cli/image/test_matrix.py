"""Round trips of every format, depth, transparency, orientation and profile that can be made here."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pillow_heif
import pytest
import tifffile
from PIL import ExifTags, Image, ImageOps, PngImagePlugin

from colorize_cli.color.lab import lightness_of_gray, srgb_to_lab
from colorize_cli.compose import compose, compose16
from colorize_cli.core.formats import PICTURE_FORMATS
from colorize_cli.image import reader, writer
from colorize_cli.image.metadata import SRGB_PROFILE
from tests.helpers import png_files
from tests.helpers.profiles import gray_profile, linear_profile

LIMIT = 1_000_000
SHAPE = (48, 80)
MODES = {
    "AVIF": ("L", "RGB", "RGBA"),
    "BMP": ("1", "L", "P", "RGB"),
    "HEIF": ("L", "RGB"),
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
# Layouts of TIFF, as options of tifffile.
LAYOUTS = {
    "planar": {"planarconfig": "separate", "compression": "deflate"},
    "tiled": {"tile": (16, 32), "compression": "lzw"},
    "BigTIFF": {"bigtiff": True},
    "big-endian BigTIFF": {"bigtiff": True, "byteorder": ">"},
}
LUMINANCE = (0.2126729, 0.7151522, 0.0721750)  # luminances of the primaries of sRGB
GAMMA = 461 / 256  # in the profile of gray pictures; the profile of colors is linear
# Allowed mean difference in L* between output and input, by the loss of the format.
LOSSES = {"AVIF": 1.2, "HEIF": 1.2, "JPEG": 0.8, "lossy": 1.2}


@dataclass(frozen=True)
class Case:
    format: str
    mode: str
    orientation: int
    profile: bool
    layout: str = ""  # a key of LAYOUTS, "tRNS", or "lossy" for WebP

    def __str__(self) -> str:
        words = (
            self.format,
            self.mode,
            self.layout,
            str(self.orientation),
            "profile" if self.profile else "",
        )
        return " ".join(filter(None, words))

    @property
    def deep(self) -> bool:
        return "16" in self.mode or "32" in self.mode

    @property
    def loss(self) -> float | None:
        return LOSSES.get(self.layout, LOSSES.get(self.format))


CASES = [
    Case(format_, mode, orientation, profile)
    for format_, modes in MODES.items()
    for mode in modes
    for orientation in ((1, 2, 5, 6, 8) if format_ in TURNED else (1,))
    for profile in ((False, True) if format_ in PROFILED and mode not in ("1", "P", "CMYK") else (False,))
]
CASES += [Case("PNG", mode, turn, False) for mode in ("I;16", "RGB;16", "RGBA;16") for turn in range(2, 9)]
CASES += [
    Case("TIFF", mode, orientation, profile, layout)
    for layout in LAYOUTS
    for mode in ("L", "RGB", "RGBA", "I;16", "LA;16", "RGB;16", "RGBA;16", "F;32", "RGB;32")
    for orientation in (1, 6)
    for profile in (False, True)
]
CASES += [Case("PNG", mode, 1, False, "tRNS") for mode in ("1", "L;2", "L;4", "L", "RGB", "I;16", "RGB;16")]
CASES += [Case("WEBP", mode, 1, False, "lossy") for mode in ("L", "RGB", "RGBA")]


def gray16() -> np.ndarray:
    """Return a smooth ramp with some structure, in 16 bits."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]] / np.array(SHAPE)[:, None, None]
    return np.rint(65535 * np.clip(0.1 + 0.7 * x + 0.15 * np.sin(9 * y), 0, 1)).astype(np.uint16)


def transparency() -> np.ndarray:
    return np.add.outer(np.arange(SHAPE[0]) * 3, np.arange(SHAPE[1])).astype(np.uint8)


def samples(mode: str) -> np.ndarray:
    """Return the samples of a picture of a mode: H x W, or H x W x channels."""
    gray = gray16()
    if mode == "I;16":
        return gray
    if mode == "LA;16":
        return np.dstack([gray, transparency().astype(np.uint16) * 257])
    if mode.endswith(";32"):
        return (gray if mode == "F;32" else samples("RGB;16")) / np.float32(65535)
    if mode.endswith((";2", ";4")):
        return gray >> 16 - int(mode[-1])
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


def clear_code(case: Case) -> np.ndarray:
    """Return the code that the chunk tRNS makes transparent."""
    return samples(case.mode)[20, 40]


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
    if case.format == "WEBP" and not case.layout:
        chosen |= {"lossless": True, "exact": True}
    if case.format == "HEIF":
        chosen["quality"] = 95
    if case.format == "AVIF":
        chosen["quality"] = 100
    if case.profile:
        chosen["icc_profile"] = gray_profile(GAMMA) if is_gray(case) else linear_profile("linear")
    return chosen


def is_gray(case: Case) -> bool:
    return case.mode in ("1", "L", "LA", "I;16", "LA;16", "F;32", "L;2", "L;4")


def make(case: Case, path: Path) -> None:
    chosen = metadata(case)
    if case.format == "HEIF":
        pillow_heif.register_heif_opener()
    if case.layout == "tRNS":
        bits = {"1": 1, "L;2": 2, "L;4": 4}.get(case.mode, 16 if case.deep else 8)
        clear = png_files.chunk(
            b"tRNS", np.broadcast_to(clear_code(case), 1 if is_gray(case) else 3).astype(">u2").tobytes()
        )
        kind = png_files.GRAY if is_gray(case) else png_files.RGB
        path.write_bytes(png_files.png(samples(case.mode), kind, bits, clear))
    elif case.format == "TIFF" and (case.layout or case.deep):
        make_tiff(case, path)
    elif case.mode.endswith("B;16") or case.mode.endswith("A;16"):
        order = [2, 1, 0, 3][: samples(case.mode).shape[2]]
        cv2.imwrite(str(path), np.ascontiguousarray(samples(case.mode)[..., order]))
    else:
        as_image(case.mode).save(path, case.format, **chosen)
        return
    if case.format == "PNG":
        add_metadata(path, chosen)


def make_tiff(case: Case, path: Path) -> None:
    array, layout = samples(case.mode), LAYOUTS.get(case.layout, {})
    if array.ndim == 3 and layout.get("planarconfig"):
        array = np.moveaxis(array, -1, 0)
    elif array.ndim == 3:
        layout = layout | {"planarconfig": "contig"}
    else:
        layout = {key: value for key, value in layout.items() if key != "planarconfig"}
    tifffile.imwrite(
        path,
        array,
        photometric="minisblack" if is_gray(case) else "rgb",
        extrasamples=["unassalpha"] if "A" in case.mode else None,
        iccprofile=metadata(case).get("icc_profile"),
        resolution=(300, 150),
        resolutionunit=2,
        extratags=[(271, 2, 0, "Maker", True), (274, 3, 1, case.orientation, True)],
        metadata=None,
        **layout,
    )


def add_metadata(path: Path, chosen: dict) -> None:
    """Add to a PNG the chunks that Pillow's `save` writes in addition to the pixels."""
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
    if path.suffix in (".png", ".tif", ".jp2"):
        found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
        if found.dtype == np.uint16:
            return found[..., [2, 1, 0, 3][: found.shape[2]]]
    with Image.open(path) as image:
        assert image.mode in ("RGB", "RGBA")
        return np.asarray(image)


def test_cases_are_at_least_350():
    assert len(set(CASES)) >= 350


@pytest.mark.parametrize("case", sorted(set(CASES), key=str), ids=str)
def test_round_trip_is_colorized_and_keeps_the_rest(tmp_path, case):
    suffix = PICTURE_FORMATS[case.format].suffixes[0]
    format_ = PICTURE_FORMATS[case.format].written_as or case.format
    source, output = tmp_path / f"a{suffix}", tmp_path / f"b{PICTURE_FORMATS[format_].suffixes[0]}"
    make(case, source)
    frame = reader.read(source, LIMIT)
    shape = SHAPE if case.orientation < 5 else SHAPE[::-1]
    assert frame.lightness.shape == shape
    assert frame.deep == case.deep

    deep = frame.deep and PICTURE_FORMATS[format_].deep
    ab = np.stack([np.full((3, 5), 6), np.full((3, 5), 9)]).astype(np.float32)
    writer.write(output, [(frame, (compose16 if deep else compose)(frame.lightness, ab))])
    found = pixels(output)
    assert found.shape[:2] == shape
    assert found.dtype == (np.uint16 if deep else np.uint8)

    wanted = frame.lightness.rows(0, shape[0])
    lab = srgb_to_lab(found[..., :3] / (65535 if deep else 255))
    difference = np.abs(lab[..., 0] - wanted)
    assert difference.mean() <= (0.003 if deep else case.loss or 0.15)
    if case.mode not in ("1", "L;2"):  # black and white have no chroma
        assert np.abs(lab[..., 2].mean() - 9) < 1.5, "it is colorized"

    check_lightness(case, frame)
    check_transparency(case, frame, found)
    check_metadata(case, output, format_)


def check_lightness(case, frame):
    """Check that the decoded picture equals the one in a viewer, in 16 bits for 16-bit pictures."""
    if case.loss or case.mode in ("P", "CMYK"):
        return
    content = samples(case.mode)
    white = {"L;2": 3, "L;4": 15}.get(case.mode)
    if white is None:
        white = 1 if content.dtype.kind in "fb" else np.iinfo(content.dtype).max
    content = np.atleast_3d(content)
    values = (content[..., 0] if is_gray(case) else content[..., :3]) / white
    if case.profile:
        linear = values**GAMMA if is_gray(case) else values @ LUMINANCE
        wanted = np.where(linear > (6 / 29) ** 3, 116 * np.cbrt(linear) - 16, linear * (29 / 3) ** 3)
    else:
        wanted = lightness_of_gray(values) if is_gray(case) else srgb_to_lab(values)[..., 0]
    codes = turned(np.rint(wanted * 655.35).astype(np.uint16), case.orientation)
    found = frame.lightness.rows(0, frame.lightness.shape[0])
    np.testing.assert_allclose(found, codes / 655.35, atol=0.02 if case.profile and not case.deep else 0.004)


def check_transparency(case, frame, found):
    if case.layout == "tRNS":
        content = samples(case.mode)
        clear = content == clear_code(case)
        np.testing.assert_array_equal(found[..., 3] == 0, clear if is_gray(case) else clear.all(-1))
        assert set(np.unique(found[..., 3])) == {0, np.iinfo(found.dtype).max}
        return
    if "A" not in case.mode:
        assert frame.alpha is None
        assert found.shape[2] == 3
        return
    alpha = turned(transparency(), case.orientation).astype(int)
    depth = 257 if found.dtype == np.uint16 else 1
    assert np.abs(found[..., 3].astype(int) - alpha * depth).max() <= (10 if case.format == "AVIF" else 0)


def check_metadata(case, output, format_):
    with Image.open(output) as image:
        image.load()
        chosen = metadata(case)
        exif = image.getexif()
        assert exif.get(ExifTags.Base.Orientation, 1) == 1
        if "exif" in chosen:
            assert exif[ExifTags.Base.Make] == "Maker"
            if case.format != "TIFF":  # Pillow writes TIFF files without this directory
                details = exif.get_ifd(ExifTags.IFD.Exif)
                assert details[ExifTags.Base.DateTimeOriginal] == "1931:05:06 07:08:09"
        if "dpi" in chosen:
            wanted = (300, 150) if case.orientation < 5 else (150, 300)
            assert tuple(round(float(side)) for side in image.info["dpi"]) == wanted
        if "xmp" in chosen:
            assert image.info["xmp"] == chosen["xmp"]
        if case.format == "JPEG":
            assert image.info["comment"] == b"a comment"
        if case.format == "PNG":
            assert image.text["Title"] == "a title"
        if format_ not in ("BMP", "JPEG2000"):
            assert image.info["icc_profile"] == SRGB_PROFILE
