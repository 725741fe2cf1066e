"""PNG chunks that Pillow does not read or trips over. Files are made chunk by chunk."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms
from skimage import color

from colorize_cli.core.errors import ReadError
from colorize_cli.image import reader, writer
from colorize_cli.image.frame import Frame
from tests.helpers.animations import animation
from tests.helpers.png_files import (
    GRAY,
    GRAY_ALPHA,
    PALETTE,
    RGB,
    RGB_ALPHA,
    chromaticities,
    chunk,
    gamma,
    png,
)

LIMIT = 1_000_000
SRGB_GAMMA = 45455
SRGB = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)  # chromaticities in cHRM
ADOBE = (31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)


def ramp(bits: int, height: int = 16, width: int = 32) -> np.ndarray:
    codes = np.linspace(0, 2**bits - 1, height * width).round().astype(np.uint16)
    return codes.reshape(height, width)


def lightness_of(data: bytes) -> np.ndarray:
    frame = reader.read(data, LIMIT)
    return frame.lightness.rows(0, frame.lightness.shape[0])


def lightness(luminance: np.ndarray) -> np.ndarray:
    """Return L* of Y in [0, 1] (CIE 15)."""
    return np.where(luminance > (6 / 29) ** 3, 116 * np.cbrt(luminance) - 16, luminance * (29 / 3) ** 3)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", [GRAY, RGB, GRAY_ALPHA, RGB_ALPHA])
@pytest.mark.parametrize("value", [100000, 55556])
def test_gama_chunk_is_applied(bits, kind, value):
    codes = ramp(bits)
    channels = {GRAY: 1, RGB: 3, GRAY_ALPHA: 2, RGB_ALPHA: 4}[kind]
    found = lightness_of(png(np.dstack([codes] * channels), kind, bits, gamma(value)))
    wanted = lightness((codes / (2**bits - 1)) ** (100000 / value))
    np.testing.assert_allclose(found, wanted, atol=0.01)


def test_gama_chunk_is_applied_to_each_channel():
    codes = np.dstack([ramp(16), ramp(16)[::-1], ramp(16)[:, ::-1]])
    found = lightness_of(png(codes, RGB, 16, gamma(100000)))
    wanted = lightness(codes / 65535 @ (0.2126729, 0.7151522, 0.0721750))
    np.testing.assert_allclose(found, wanted, atol=0.002)


@pytest.mark.parametrize("bits", [8, 16])
def test_chrm_chunk_is_applied_with_and_without_gamma(bits):
    codes = np.dstack([ramp(bits), ramp(bits)[::-1], ramp(bits)[:, ::-1]])
    weights = (0.29734, 0.62736, 0.07529)  # Adobe RGB (1998), section 4.3.5.3
    values = codes / (2**bits - 1)
    found = lightness_of(png(codes, RGB, bits, gamma(100000), chromaticities(ADOBE)))
    np.testing.assert_allclose(found, lightness(values @ weights), atol=0.01)
    found = lightness_of(png(codes, RGB, bits, chromaticities(ADOBE)))
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    np.testing.assert_allclose(found, lightness(linear @ weights), atol=0.01)


@pytest.mark.parametrize(
    "chunks",
    [
        (gamma(SRGB_GAMMA),),
        (gamma(SRGB_GAMMA), chromaticities(SRGB)),
        (chunk(b"sRGB", b"\0"), gamma(100000)),
        (gamma(100000), chunk(b"sRGB", b"\0"), chromaticities(ADOBE)),
        (chunk(b"cICP", bytes([1, 13, 0, 1])), gamma(100000), chromaticities(ADOBE)),
        (gamma(0),),
        (chunk(b"cHRM", struct.pack(">8I", *[0] * 8)),),
    ],
)
def test_gama_chunk_beside_srgb_is_ignored(chunks):
    codes = np.dstack([ramp(8), ramp(8)[::-1], ramp(8)])
    wanted = color.rgb2lab(codes / 255)[..., 0]
    np.testing.assert_allclose(lightness_of(png(codes, RGB, 8, *chunks)), wanted, atol=0.002)


def test_profile_takes_precedence_over_gamma():
    codes = np.dstack([ramp(8), ramp(8)[::-1], ramp(8)])
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = png(codes, RGB, 8, gamma(100000), chunk(b"iCCP", b"name\0\0" + zlib.compress(profile)))
    np.testing.assert_allclose(lightness_of(data), color.rgb2lab(codes / 255)[..., 0], atol=0.002)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_output_of_a_linear_picture_is_srgb(tmp_path, suffix):
    codes = ramp(16)
    frame = reader.read(png(codes, GRAY, 16, gamma(100000)), LIMIT)
    rgb = np.repeat(frame.lightness.levels()[..., None], 3, -1)
    writer.write(tmp_path / f"b{suffix}", [(frame, rgb)])
    with Image.open(tmp_path / f"b{suffix}") as image:
        assert "gamma" not in image.info
        assert "sRGB" in ImageCms.getProfileDescription(io.BytesIO(image.info["icc_profile"]))
        found = color.rgb2lab(np.asarray(image.convert("RGB")))[..., 0]
    assert np.abs(found - lightness(codes / 65535)).mean() < 0.3


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_trns_chunk_of_gray_becomes_alpha_at_any_depth(bits):
    codes = ramp(bits)
    clear = int(codes[8, 16])
    frame = reader.read(png(codes, GRAY, bits, chunk(b"tRNS", struct.pack(">H", clear))), LIMIT)
    assert frame.alpha is not None
    np.testing.assert_array_equal(frame.alpha == 0, codes == clear)
    np.testing.assert_array_equal(frame.alpha == np.iinfo(frame.alpha.dtype).max, codes != clear)
    wanted = color.rgb2lab(np.dstack([codes / (2**bits - 1)] * 3))[..., 0]
    np.testing.assert_allclose(frame.lightness.rows(0, 16), wanted, atol=0.002)


@pytest.mark.parametrize("bits", [8, 16])
def test_trns_chunk_of_color_becomes_alpha(bits):
    codes = np.dstack([ramp(bits), ramp(bits), ramp(bits)[::-1]])
    clear = codes[5, 5]
    frame = reader.read(png(codes, RGB, bits, chunk(b"tRNS", struct.pack(">3H", *map(int, clear)))), LIMIT)
    np.testing.assert_array_equal(frame.alpha == 0, (codes == clear).all(-1))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_trns_chunk_of_a_palette_becomes_alpha(bits):
    codes = ramp(bits)
    colors = np.repeat(np.linspace(0, 255, 2**bits).astype(np.uint8)[:, None], 3, 1)
    chunks = chunk(b"PLTE", colors.tobytes()), chunk(b"tRNS", b"\0\x80")
    frame = reader.read(png(codes, PALETTE, bits, *chunks), LIMIT)
    np.testing.assert_array_equal(frame.alpha == 0, codes == 0)
    np.testing.assert_array_equal(frame.alpha == 0x80, codes == 1)


@pytest.mark.parametrize("kind", [GRAY_ALPHA, RGB_ALPHA])
def test_sixteen_bits_with_transparency_stay_16_bits(kind):
    channels = {GRAY_ALPHA: 2, RGB_ALPHA: 4}[kind]
    codes = np.dstack([ramp(16)] * (channels - 1) + [ramp(16)[::-1]])
    frame = reader.read(png(codes, kind, 16), LIMIT)
    np.testing.assert_array_equal(frame.lightness.codes, codes[..., 0])
    np.testing.assert_array_equal(frame.alpha, codes[..., -1])


@pytest.mark.parametrize("bits", [8, 16])
def test_large_profile_and_long_texts_are_read(bits):
    random = np.random.default_rng(0)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    large = struct.pack(">I", 1_500_000) + profile[4:] + random.bytes(1_500_000 - len(profile))
    text = b"a" * 2_000_000
    chunks = (
        chunk(b"iCCP", b"name\0\0" + zlib.compress(large)),
        chunk(b"zTXt", b"Title\0\0" + zlib.compress(text)),
        chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(text)),
    )
    frame = reader.read(png(ramp(bits), GRAY, bits, *chunks), LIMIT)
    np.testing.assert_array_equal(frame.lightness.codes, ramp(bits))
    assert texts(frame)["Title"] == text.decode()


def texts(frame: Frame) -> dict[str, str]:
    """Return the texts of a PNG output of a picture, read by Pillow."""
    file = io.BytesIO()
    rgb = np.zeros((*frame.lightness.shape, 3), np.uint8)
    writer.encode(file, "PNG", [(frame, rgb)])
    with Image.open(file) as image:
        image.load()
        return dict(image.text)


def damaged(kind: bytes, data: bytes) -> bytes:
    whole = chunk(kind, data)
    return whole[:-1] + bytes([whole[-1] ^ 1])


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    "bad",
    [
        damaged(b"tEXt", b"Title\0a title"),
        damaged(b"gAMA", struct.pack(">I", 100000)),
        damaged(b"iCCP", b"name\0\0nonsense"),
        damaged(b"tRNS", b"\0\5"),
        damaged(b"pHYs", struct.pack(">IIB", 1, 1, 1)),
        damaged(b"prVt", b"anything"),
    ],
    ids=lambda bad: bad[4:8].decode(),
)
def test_ancillary_chunk_with_a_wrong_checksum_is_omitted(capfd, bits, bad):
    good = chunk(b"tEXt", b"Author\0someone")
    frame = reader.read(png(ramp(bits), GRAY, bits, bad, good), LIMIT)
    wanted = color.rgb2lab(np.dstack([ramp(bits) / (2**bits - 1)] * 3))[..., 0]
    np.testing.assert_allclose(frame.lightness.rows(0, 16), wanted, atol=0.002)
    assert frame.alpha is None
    assert texts(frame) == {"Author": "someone"}
    assert capfd.readouterr() == ("", ""), "the library prints nothing"


@pytest.mark.parametrize("bits", [8, 16])
def test_critical_chunk_with_a_wrong_checksum_is_an_error(bits):
    data = bytearray(png(ramp(bits), GRAY, bits))
    data[32] ^= 1  # in IHDR
    with pytest.raises(ReadError):
        reader.read(bytes(data), LIMIT)


def with_wrong_bit(data: bytes, kind: bytes, offset: int) -> bytes:
    """Flip a bit in a chunk, and keep its checksum."""
    damaged = bytearray(data)
    damaged[data.index(kind) + 4 + offset] ^= 1
    return bytes(damaged)


@pytest.mark.parametrize("kind", [GRAY, RGB, GRAY_ALPHA, RGB_ALPHA])
def test_flipped_bit_in_the_pixels_is_said_though_they_can_be_decoded(kind):
    channels = {GRAY: 1, RGB: 3, GRAY_ALPHA: 2, RGB_ALPHA: 4}[kind]
    samples = np.dstack([ramp(8).astype(np.uint8)] * channels)
    stored = zlib.compress(b"".join(b"\0" + row.tobytes() for row in samples), 0)
    data = png(samples, kind, 8)
    compressed = data[data.index(b"IDAT") - 4 : data.index(b"IEND") - 4]
    # Pillow stops before the checksum of zlib, if that has a chunk of its own.
    whole = data.replace(compressed, chunk(b"IDAT", stored[:-4]) + chunk(b"IDAT", stored[-4:]))
    assert reader.read(whole, LIMIT).damage is None
    damaged = with_wrong_bit(whole, b"IDAT", 20)  # after two headers and the filter
    assert reader.read(damaged, LIMIT).damage == "the checksum of the pixels is wrong"
    assert (np.abs(lightness_of(damaged) - lightness_of(whole)) > 0.1).sum() <= 1


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("extra", [b"", chunk(b"eXIf", b"II*\0\x08\0\0\0\0\0\0\0\0\0")])
def test_broken_stream_fails(bits, extra):
    data = png(np.random.default_rng(0).integers(0, 2**bits, (60, 60)), GRAY, bits, extra)
    at = data.index(b"IDAT") + 1500
    with pytest.raises(ReadError):
        reader.read(data[:at] + bytes(64) + data[at + 64 :], LIMIT)


def test_flipped_bit_in_a_frame_of_an_animation_is_said():
    data = animation("PNG", "RGB")
    frames = list(reader.read_pages(data, LIMIT))
    assert {frame.damage for frame in frames} == {None}
    at = data.rindex(b"fdAT")
    length = int.from_bytes(data[at - 4 : at], "big")
    damaged = data[: at + 4 + length] + bytes(4) + data[at + 8 + length :]  # a wrong checksum
    assert next(reader.read_pages(damaged, LIMIT)).damage == "the checksum of the pixels is wrong"
