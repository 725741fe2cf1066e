"""Odd but valid files: they are read, and losses of the output format are reported."""

import os
import struct

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, TiffImagePlugin

from colorize_cli.color import lab, lightness
from colorize_cli.core.errors import ReadError, WriteError
from colorize_cli.image import reader, writer
from tests.helpers.pictures import lightness_of
from tests.helpers.profiles import linear_profile

LIMIT = 1_000_000
GRAY = (np.add.outer(np.arange(60) * 3, np.arange(80)) % 256).astype(np.uint8)


def tiff(bits: int, photometric: int, data: bytes) -> bytes:
    """Make a TIFF with one strip of 80 x 60 gray pixels."""
    entries = [
        (256, 80),
        (257, 60),
        (258, bits),
        (259, 1),
        (262, photometric),
        (273, 122),
        (277, 1),
        (278, 60),
    ]
    directory = struct.pack("<H", len(entries) + 1)
    for tag, value in entries:
        directory += struct.pack("<HHIHH", tag, 3, 1, value, 0)
    directory += struct.pack("<HHII", 279, 4, 1, len(data))
    return b"II*\0\x08\0\0\0" + directory + b"\0\0\0\0" + data


def in_twelve_bits(codes: np.ndarray) -> bytes:
    first, second = codes.ravel()[0::2], codes.ravel()[1::2]
    packed = np.stack([first >> 4, ((first & 15) << 4) | (second >> 8), second & 255], axis=1)
    return packed.astype(np.uint8).tobytes()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(tiff(16, 1, (GRAY.astype("<u2") * 257).tobytes()), id="16 bit"),
        pytest.param(tiff(16, 0, (65535 - GRAY.astype("<u2") * 257).tobytes()), id="16 bit, white is zero"),
        pytest.param(tiff(12, 1, in_twelve_bits(GRAY.astype(np.uint16) * 16)), id="12 bit"),
        pytest.param(tiff(8, 0, (255 - GRAY).tobytes()), id="8 bit, white is zero"),
    ],
)
def test_gray_tiff_of_any_depth_and_polarity_is_read(tmp_path, data):
    (tmp_path / "a.tif").write_bytes(data)
    found = lightness_of(reader.read(tmp_path / "a.tif", LIMIT))
    assert np.abs(found - lightness.GRAY8[GRAY]).max() < 0.5


def test_big_endian_16_bit_tiff_is_read(tmp_path):
    data = (GRAY.astype(np.uint16) * 257).astype(">u2").tobytes()
    Image.frombytes("I;16B", (80, 60), data).save(tmp_path / "a.tif")
    found = lightness_of(reader.read(tmp_path / "a.tif", LIMIT))
    assert np.abs(found - lightness.GRAY8[GRAY]).max() < 0.01


def test_png_16_bit_transparent_code_becomes_alpha(tmp_path):
    codes = GRAY.astype(np.uint16) * 257
    Image.fromarray(codes).save(tmp_path / "a.png", transparency=int(codes[5, 5]))
    frame = reader.read(tmp_path / "a.png", LIMIT)
    np.testing.assert_array_equal(frame.alpha == 0, codes == codes[5, 5])


def test_bmp_output_with_transparency_is_refused(tmp_path):
    Image.merge("LA", (Image.fromarray(GRAY), Image.fromarray(GRAY[::-1].copy()))).save(tmp_path / "a.png")
    frame = reader.read(tmp_path / "a.png", LIMIT)
    with pytest.raises(WriteError, match="transparency"):
        writer.write(tmp_path / "b.bmp", [(frame, np.zeros((60, 80, 3), np.uint8))])


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0garbagegarbage",
        b"Exif\0\0",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x03\0\0\0ab\0\0\0\0\0\0",
    ],
)
def test_damaged_exif_block_does_not_fail_the_picture(tmp_path, exif):
    Image.fromarray(GRAY).save(tmp_path / "a.jpg", exif=exif, quality=95)
    assert reader.read(tmp_path / "a.jpg", LIMIT).lightness.shape == (60, 80)


def test_metadata_of_a_rotated_picture_fits_the_output(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Make] = "Maker"
    details = exif.get_ifd(ExifTags.IFD.Exif)
    details[ExifTags.Base.ExifImageWidth], details[ExifTags.Base.ExifImageHeight] = 80, 60
    details[ExifTags.Base.ColorSpace] = 2
    Image.fromarray(GRAY).save(tmp_path / "a.jpg", exif=exif, dpi=(300, 100))
    frame = reader.read(tmp_path / "a.jpg", LIMIT)
    writer.write(tmp_path / "b.jpg", [(frame, np.zeros((80, 60, 3), np.uint8))])
    with Image.open(tmp_path / "b.jpg") as back:
        found = back.getexif()
        assert found.get(ExifTags.Base.Orientation, 1) == 1
        assert found[ExifTags.Base.Make] == "Maker"
        details = found.get_ifd(ExifTags.IFD.Exif)
        assert details[ExifTags.Base.ExifImageWidth] == 60
        assert details[ExifTags.Base.ExifImageHeight] == 80
        assert details[ExifTags.Base.ColorSpace] == 1
        assert back.info["dpi"] == (100, 300)


def test_impossible_resolution_is_omitted(tmp_path):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[282] = tags[283] = TiffImagePlugin.IFDRational(0, 0)
    Image.fromarray(GRAY).save(tmp_path / "a.tif", tiffinfo=tags)
    frame = reader.read(tmp_path / "a.tif", LIMIT)
    assert frame.metadata.dpi is None
    writer.write(tmp_path / "b.tif", [(frame, np.zeros((60, 80, 3), np.uint8))])


def test_linear_profile_is_applied_despite_its_name(tmp_path):
    picture = Image.fromarray(GRAY).convert("RGB")
    picture.save(tmp_path / "a.png", icc_profile=linear_profile("GIMP built-in Linear sRGB"))
    found = lightness_of(reader.read(tmp_path / "a.png", LIMIT))
    expected = lab.lightness_of_gray(lab.linear_to_srgb(GRAY / 255))
    assert np.abs(found - expected).max() < 1


def test_srgb_profile_changes_nothing(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(GRAY).convert("RGB").save(tmp_path / "a.png", icc_profile=profile)
    np.testing.assert_array_equal(reader.read(tmp_path / "a.png", LIMIT).lightness.codes, GRAY)


def test_named_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(ReadError, match="pipe"):
        reader.size_of(tmp_path / "a.jpg", LIMIT)


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_side_beyond_the_format_is_refused(tmp_path, suffix):
    Image.fromarray(np.full((1, 70_000), 90, np.uint8)).save(tmp_path / "a.png")
    frame = reader.read(tmp_path / "a.png", LIMIT)
    with pytest.raises(WriteError, match="cannot hold more than"):
        writer.write(tmp_path / f"b{suffix}", [(frame, np.zeros((1, 70_000, 3), np.uint8))])
