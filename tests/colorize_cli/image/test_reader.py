import errno
import io
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
from PIL import Image, ImageOps

from colorize_cli.color import lab, lightness
from colorize_cli.color.lightness import Lightness
from colorize_cli.core.errors import ReadError, WriteError
from colorize_cli.core.formats import FORMAT_OF_SUFFIX, WRITABLE, endings
from colorize_cli.image import reader, writer
from colorize_cli.image.frame import Frame
from tests.helpers.pictures import colored, lightness_of
from tests.helpers.png_files import png_header
from tests.helpers.profiles import built_in_profile, gray_profile

LIMIT = 250_000_000


def saved(image: Image.Image, path: Path, **options) -> Path:
    image.save(path, **options)
    return path


@pytest.fixture
def gray(gray_photo) -> Image.Image:
    return Image.fromarray(gray_photo)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_gray_in_lossless_formats_keeps_its_codes(tmp_path, gray, gray_photo, suffix, mode):
    frame = reader.read(saved(gray.convert(mode), tmp_path / f"a{suffix}"), LIMIT)
    assert frame.lightness.codes.dtype == np.uint8
    np.testing.assert_array_equal(frame.lightness.codes, gray_photo)
    assert frame.alpha is None


@pytest.mark.parametrize("quality", [None, 40, 75, 90, 95])
def test_jpeg_lightness_is_as_close_as_that_of_a_saved_gray(tmp_path, gray, quality):
    frame = reader.read(saved(gray, tmp_path / "a.png"), LIMIT)
    lightness = lightness_of(frame)
    rgb = lab.compose_rgb8(lightness, 0 * lightness + 12, 0 * lightness + 20)
    writer.write(tmp_path / "b.jpg", [(frame, rgb)], quality)
    saved(gray.convert("RGB"), tmp_path / "c.jpg", quality=quality or 95, subsampling="4:4:4")
    colored, plain = (
        np.abs(lab.srgb_to_lab(np.asarray(Image.open(tmp_path / name)) / 255)[..., 0] - lightness)
        for name in ("b.jpg", "c.jpg")
    )
    assert colored.mean() <= plain.mean()
    # A single pixel may be worse by chance, but not the thousand worst.
    assert colored.max() <= plain.max() + 0.4  # an 8-bit level


@pytest.mark.parametrize("suffix", sorted(FORMAT_OF_SUFFIX))
def test_every_format_is_read_and_written(tmp_path, gray, suffix):
    quality = {"quality": 95} if FORMAT_OF_SUFFIX[suffix] == "JPEG" else {}
    frame = reader.read(saved(gray, tmp_path / f"a{suffix}", **quality), LIMIT)
    assert np.abs(lightness_of(frame) - lightness.GRAY8[np.asarray(gray)]).mean() < 1.5
    suffix = endings()[suffix]
    rgb = np.repeat(np.asarray(gray)[..., None], 3, axis=2)
    writer.write(tmp_path / f"b{suffix}", [(frame, rgb)])
    with Image.open(tmp_path / f"b{suffix}") as back:
        assert back.format == FORMAT_OF_SUFFIX[suffix]
        assert np.abs(np.asarray(back.convert("RGB")).astype(int) - rgb).mean() < 2
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_sixteen_bits_are_scaled(tmp_path):
    codes = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    for name in ("a.png", "a.tif"):
        frame = reader.read(saved(Image.fromarray(codes), tmp_path / name), LIMIT)
        expected = lab.lightness_of_gray(codes / 65535)
        np.testing.assert_allclose(lightness_of(frame), expected, atol=1e-3)


def test_one_bit_and_palette_are_read_as_gray(tmp_path, gray):
    bits = gray.convert("1")
    frame = reader.read(saved(bits, tmp_path / "a.png"), LIMIT)
    np.testing.assert_array_equal(frame.lightness.codes, np.asarray(bits.convert("L")))
    palette = gray.convert("P")
    frame = reader.read(saved(palette, tmp_path / "b.png"), LIMIT)
    np.testing.assert_array_equal(frame.lightness.codes, np.asarray(palette.convert("L")))


def test_color_is_read_as_its_lab_lightness(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (50, 40, 3), dtype=np.uint8)
    frame = reader.read(saved(Image.fromarray(rgb), tmp_path / "a.png"), LIMIT)
    np.testing.assert_allclose(lightness_of(frame), lab.srgb_to_lab(rgb / 255)[..., 0], atol=2e-3)


def test_cmyk_is_read_as_pillow_converts_it(tmp_path, gray):
    path = saved(gray.convert("CMYK"), tmp_path / "a.jpg", quality=95)
    with Image.open(path) as image:
        expected = lab.srgb_to_lab(np.asarray(image.convert("RGB")) / 255)[..., 0]
    np.testing.assert_allclose(lightness_of(reader.read(path, LIMIT)), expected, atol=0.01)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".avif"])
def test_transparency_is_kept(tmp_path, gray, mode, suffix):
    alpha = np.add.outer(np.arange(120), np.arange(160)).astype(np.uint8)
    gray.putalpha(Image.fromarray(alpha))
    path = saved(
        gray.convert(mode), tmp_path / f"a{suffix}", **({"lossless": True} if suffix == ".webp" else {})
    )
    frame = reader.read(path, LIMIT)
    if suffix != ".avif":
        np.testing.assert_array_equal(frame.alpha, alpha)
    writer.write(tmp_path / f"b{suffix}", [(frame, np.zeros((120, 160, 3), np.uint8))])
    with Image.open(tmp_path / f"b{suffix}") as back:
        difference = np.abs(np.asarray(back.getchannel("A")).astype(int) - frame.alpha)
        assert difference.max() <= (8 if suffix == ".avif" else 0)


def test_png_transparent_color_becomes_alpha(tmp_path, gray):
    frame = reader.read(saved(gray, tmp_path / "a.png", transparency=0), LIMIT)
    np.testing.assert_array_equal(frame.alpha == 0, np.asarray(gray) == 0)
    frame = reader.read(saved(gray.convert("P"), tmp_path / "b.png", transparency=0), LIMIT)
    assert frame.alpha is not None


def test_jpeg_output_with_transparency_is_refused(tmp_path, gray):
    gray.putalpha(100)
    frame = reader.read(saved(gray, tmp_path / "a.png"), LIMIT)
    with pytest.raises(WriteError, match="transparency"):
        writer.write(tmp_path / "b.jpg", [(frame, np.zeros((120, 160, 3), np.uint8))])
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".avif"])
def test_orientation_is_applied_once_and_reset(tmp_path, gray, orientation, suffix):
    exif = Image.Exif()
    exif[274] = orientation
    exif[271] = "A camera"
    path = saved(gray, tmp_path / f"a{suffix}", exif=exif)
    # Pillow 13 scrambles rotated TIFF files that it opens by name and maps into memory.
    with path.open("rb") as file, Image.open(file) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("L"))
    frame = reader.read(path, LIMIT)
    assert frame.lightness.shape == expected.shape
    np.testing.assert_allclose(lightness_of(frame), lightness.GRAY8[expected], atol=1)
    writer.write(tmp_path / f"b{suffix}", [(frame, np.repeat(expected[..., None], 3, axis=2))])
    with Image.open(tmp_path / f"b{suffix}") as back:
        assert back.getexif().get(274, 1) == 1
        assert back.getexif()[271] == "A camera"
        assert back.size == expected.shape[::-1]
        again = np.asarray(ImageOps.exif_transpose(back).convert("L")).astype(int)
    assert np.abs(again - expected).mean() < 2


def test_resolution_is_kept(tmp_path, gray):
    for suffix in (".jpg", ".png", ".tif"):
        frame = reader.read(saved(gray, tmp_path / f"a{suffix}", dpi=(600, 600)), LIMIT)
        writer.write(tmp_path / f"b{suffix}", [(frame, np.zeros((120, 160, 3), np.uint8))])
        with Image.open(tmp_path / f"b{suffix}") as back:
            assert [round(float(side)) for side in back.info["dpi"]] == [600, 600]


@pytest.mark.parametrize("sixteen", [False, True])
def test_gray_profile_is_applied(tmp_path, sixteen):
    codes = np.tile(np.arange(256, dtype=np.uint8), (32, 1))
    image = Image.fromarray(codes.astype(np.uint16) * 257) if sixteen else Image.fromarray(codes)
    frame = reader.read(saved(image, tmp_path / "a.png", icc_profile=gray_profile(1.0)), LIMIT)
    linear = codes / 255
    expected = np.where(linear > (6 / 29) ** 3, 116 * np.cbrt(linear) - 16, linear * 903.3)
    assert np.abs(lightness_of(frame) - expected)[:, 8:].max() < 0.75  # 8-bit steps in the shadows
    assert np.abs(lightness_of(frame) - lightness.GRAY8[codes]).max() > 5


def test_srgb_profile_changes_nothing(tmp_path, gray_photo):
    rgb = np.repeat(gray_photo[..., None], 3, axis=2)
    rgb[..., 0] //= 2
    srgb = reader.read(
        saved(Image.fromarray(rgb), tmp_path / "a.png", icc_profile=built_in_profile("sRGB")), LIMIT
    )
    np.testing.assert_allclose(lightness_of(srgb), lab.srgb_to_lab(rgb / 255)[..., 0], atol=0.01)


def test_damaged_or_foreign_profile_is_ignored(tmp_path, gray, gray_photo):
    for index, profile in enumerate((b"nonsense", built_in_profile("LAB"))):
        frame = reader.read(saved(gray, tmp_path / f"{index}.png", icc_profile=profile), LIMIT)
        np.testing.assert_array_equal(lightness_of(frame), lightness.GRAY8[gray_photo])


def bad_files() -> dict[str, tuple[bytes, str]]:
    buffer = io.BytesIO()
    Image.effect_noise((200, 200), 50).save(buffer, "JPEG")
    jpeg = buffer.getvalue()
    buffer = io.BytesIO()
    Image.effect_noise((200, 200), 50).save(buffer, "PNG")
    png = buffer.getvalue()
    return {
        "empty.jpg": (b"", "empty"),
        "truncated.jpg": (jpeg[: len(jpeg) // 2], "truncated"),
        "head.jpg": (jpeg[:10], "."),
        "truncated.png": (png[: len(png) // 2], "truncated|broken"),
        "text.jpg": (b"Dear diary,\n" * 20, "content"),
        "huge.png": (png_header(30000, 30000), "30000 x 30000 exceeds the limit"),
        "flat.png": (png_header(0, 10), "."),
        "cut.png": (b"\x89PNG\r\n\x1a\n123", "^damaged PNG header$"),
        "empty.gif": (b"GIF89a" + b"\0" * 50, "."),
        "icon.png": (b"\0\0\1\0\1\0\x10\x10" + b"\0" * 50, "content"),
    }


@pytest.mark.parametrize("name", bad_files())
def test_bad_files_raise_one_line(tmp_path, name):
    data, reason = bad_files()[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ReadError, match=reason) as raised:
        reader.read(tmp_path / name, LIMIT)
    assert "\n" not in str(raised.value)
    assert str(raised.value)


def test_pixel_limit_is_ours_and_not_pillows(tmp_path):
    # More than Pillow's limit, above which it raises. Only the header is read.
    path = tmp_path / "a.png"
    path.write_bytes(png_header(15000, 15000))
    assert reader.size_of(path, LIMIT) == 225_000_000
    with pytest.raises(ReadError, match="exceeds the limit of 224,999,999 pixels"):
        reader.size_of(path, 224_999_999)


def test_missing_file_and_directory_are_refused(tmp_path):
    with pytest.raises(ReadError, match="No such file"):
        reader.read(tmp_path / "absent.png", LIMIT)
    with pytest.raises(ReadError, match="directory"):
        reader.read(tmp_path, LIMIT)


def test_side_beyond_the_format_is_refused(tmp_path):
    frame = Frame(Lightness(np.zeros((1, 70000), np.uint8), lightness.GRAY8))
    for suffix in (".jpg", ".webp"):
        with pytest.raises(WriteError):
            writer.write(tmp_path / f"a{suffix}", [(frame, np.zeros((1, 70000, 3), np.uint8))])
    assert list(tmp_path.iterdir()) == []


def test_write_to_an_impossible_path_is_refused(tmp_path):
    frame = Frame(Lightness(np.zeros((4, 4), np.uint8), lightness.GRAY8))
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="cannot write"):
        writer.write(tmp_path / "file" / "a.png", [(frame, np.zeros((4, 4, 3), np.uint8))])
    (tmp_path / "a.png").mkdir()
    with pytest.raises(WriteError, match="cannot write"):
        writer.write(tmp_path / "a.png", [(frame, np.zeros((4, 4, 3), np.uint8))])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "file"]


@pytest.mark.parametrize("format_", WRITABLE)
def test_full_disk_is_an_error_of_every_format(format_):
    class Full(io.BytesIO):
        def write(self, _) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    page = colored(
        Frame(Lightness(np.resize(np.arange(256, dtype=np.uint8), (200, 200)), lightness.GRAY8)), format_
    )
    with pytest.raises(OSError, match="No space left"):
        writer.encode(Full(), format_, [page])


@pytest.mark.parametrize("container", ["jp2", "j2k"])
@pytest.mark.parametrize(("channels", "bits"), [(3, 16), (4, 16), (3, 12), (2, 16)])
def test_jpeg_2000_of_16_bits_keeps_every_code(tmp_path, container, channels, bits):
    ramp = np.linspace(0, 2**bits - 1, 60 * 80).round().astype(np.uint16).reshape(60, 80)
    samples = np.dstack([ramp] * channels)
    data = imagecodecs.jpeg2k_encode(samples, codecformat=container, reversible=True, bitspersample=bits)
    frame = reader.read(data, LIMIT)
    assert frame.deep
    white = 2**bits - 1
    np.testing.assert_allclose(frame.lightness.codes, ramp * (65535 / white), atol=0 if bits == 16 else 1)
    assert (frame.alpha is not None) == (channels in (2, 4))
    writer.write(tmp_path / "a.jp2", [colored(frame, "JPEG2000")])
    found = cv2.imread(str(tmp_path / "a.jp2"), cv2.IMREAD_UNCHANGED)
    assert found.dtype == np.uint16
    rgb = found[..., 2::-1] / 65535
    assert np.abs(lab.srgb_to_lab(rgb)[..., 0] - lightness_of(frame)).mean() < 0.003
