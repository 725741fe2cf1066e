"""HEIF as phones write it. Files are made with pillow-heif."""

import io

import numpy as np
import pillow_heif
import pytest
from PIL import ExifTags, Image
from skimage import color

from colorize_cli.core.errors import ReadError
from colorize_cli.image import reader
from tests.helpers.cli import invoke
from tests.helpers.heif_files import heic, picture
from tests.helpers.profiles import linear_profile

LIMIT = 1_000_000


def gray(height: int = 96, width: int = 128) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return (40 + 120 * x / width + 40 * (y > height // 3)).astype(np.uint8)


def lightness_of(data: bytes) -> np.ndarray:
    frame = reader.read(data, LIMIT)
    return frame.lightness.rows(0, frame.lightness.shape[0])


def wanted(codes: np.ndarray) -> np.ndarray:
    return color.rgb2lab(np.dstack([codes] * 3))[..., 0]


def test_primary_picture_is_read():
    data = heic(picture(gray()[::-1]), picture(gray(64, 96)), primary=1)
    frame = reader.read(data, LIMIT)
    assert (frame.format, frame.pages, frame.lightness.shape) == ("HEIF", 1, (64, 96))
    assert np.abs(lightness_of(data) - wanted(gray(64, 96))).mean() < 1


@pytest.mark.parametrize("name", ["a.heic", "a.HEIF", "a.hif"])
def test_heic_is_written_as_jpeg(models, tmp_path, name):
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(heic(picture(gray(), exif=exif.tobytes())))
    result = invoke(tmp_path / "in", tmp_path / "out", "--model", models.tinted, "--device", "cpu")
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "out" / f"{name}.jpg") as image:
        assert (image.format, image.size) == ("JPEG", (128, 96))
        assert image.getexif()[ExifTags.Base.Make] == "Maker"
        found = color.rgb2lab(np.asarray(image))
    assert np.abs(found[..., 0] - wanted(gray())).mean() < 1
    assert np.abs(found[..., 1:]).mean() > 3, "it is colorized"


def test_heic_named_jpg_is_read_as_heif(models, tmp_path):
    data = heic(picture(gray()))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(data)
    (tmp_path / "in" / "b.jpg").write_bytes(data[: len(data) // 8])
    result = invoke(tmp_path / "in", tmp_path / "out", "--model", models.tinted, "--device", "cpu")
    assert result.exit_code == 1
    assert f"{tmp_path}/in/b.jpg: damaged HEIF header: " in result.stderr
    assert [path.name for path in (tmp_path / "out").glob("[!.]*")] == ["a.jpg"]
    with Image.open(tmp_path / "out" / "a.jpg") as image:
        assert image.format == "JPEG"


def test_ten_bits_keep_their_depth():
    codes = np.tile(np.linspace(0, 65535, 1024).astype(np.uint16), (64, 1))
    file = io.BytesIO()
    encoder = pillow_heif.from_bytes("RGB;16", (1024, 64), np.dstack([codes] * 3).tobytes())
    pillow_heif.options.SAVE_HDR_TO_12_BIT = False
    encoder.save(file, quality=-1)
    frame = reader.read(file.getvalue(), LIMIT)
    assert frame.deep
    off = np.abs(frame.lightness.rows(0, 64) - wanted(codes / 65535))
    assert off.mean() < 0.1
    assert len(np.unique(frame.lightness.codes)) > 500


def test_profile_is_applied():
    data = heic(picture(gray(), icc_profile=linear_profile("linear")))
    luminance = gray() / 255
    expected = np.where(luminance > (6 / 29) ** 3, 116 * np.cbrt(luminance) - 16, luminance * 903.3)
    assert np.abs(lightness_of(data) - expected).mean() < 1


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_orientation_is_applied_once(orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    expected = np.rot90(wanted(gray()), {1: 0, 3: 2, 6: -1, 8: 1}[orientation])
    pillow_heif.register_heif_opener()
    file = io.BytesIO()
    picture(gray(), exif=exif.tobytes()).save(file, "HEIF", quality=95)
    assert (b"irot" in file.getvalue()) == (orientation != 1)
    assert np.abs(lightness_of(file.getvalue()) - expected).mean() < 1


@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_truncated_file_is_an_error(kept):
    data = heic(picture(gray()))
    with pytest.raises(ReadError, match="damaged"):
        reader.read(data[: int(len(data) * kept)], LIMIT)
