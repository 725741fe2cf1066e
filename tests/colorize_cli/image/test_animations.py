"""Animations: frames, durations and loops are kept, at the quality of still pictures."""

import io
import math
import struct

import numpy as np
import pytest
from PIL import ExifTags, Image, JpegImagePlugin

from colorize_cli.color import lightness
from colorize_cli.color.lab import srgb_to_lab
from colorize_cli.compose import compose
from colorize_cli.core.errors import ReadError, WriteError
from colorize_cli.core.formats import PICTURE_FORMATS
from colorize_cli.image import reader, writer
from colorize_cli.image.frame import Frame, Page, Showing
from tests.helpers.animations import DURATIONS, FRAMES, LOSSLESS, SIZE, animation, moving, shown, timing
from tests.helpers.pictures import lightness_of
from tests.helpers.png_files import RGB, chunk, png

LIMIT = 1_000_000


def frames_of(data: bytes) -> list[Frame]:
    return list(reader.read_pages(data, LIMIT))


def colored(frame: Frame) -> Page:
    ab = np.stack([np.full((3, 5), 6), np.full((3, 5), 9)]).astype(np.float32)
    return frame, compose(frame.lightness, ab)


def encoded(frames: list[Frame], format_: str, quality: int | None = None) -> bytes:
    file = io.BytesIO()
    writer.encode(file, format_, map(colored, frames), quality)
    return file.getvalue()


def difference(rgba: np.ndarray, frame: Frame) -> float:
    """Return the mean difference in L* where a pixel is not transparent."""
    lab = srgb_to_lab(rgba[..., :3] / 255)
    seen = rgba[..., 3] > 0
    return float(np.abs(lab[..., 0] - lightness_of(frame))[seen].mean())


@pytest.mark.parametrize("source", LOSSLESS)
@pytest.mark.parametrize(("target", "loss"), [("PNG", 0.15), ("WEBP", 1.2), ("AVIF", 1.2)])
def test_animation_keeps_frames_durations_and_loops(source, target, loss):
    data = animation(source)
    frames = frames_of(data)
    assert [frame.pages for frame in frames] == [FRAMES] * FRAMES
    result = encoded(frames, target)
    durations, loops = timing(result)
    assert durations == DURATIONS
    if "AVIF" not in (source, target):
        assert loops == (4 if source == "GIF" else 3), "a GIF says how often it is repeated"
    found = shown(result)
    assert len(found) == FRAMES
    for rgba, frame in zip(found, frames, strict=True):
        assert difference(rgba, frame) <= loss
        assert np.abs(srgb_to_lab(rgba[..., :3] / 255)[..., 2].mean() - 9) < 2, "it is colorized"


@pytest.mark.parametrize(("source", "wanted"), [("GIF", 1), ("PNG", 0), ("WEBP", 0)])
def test_loops_of_an_animation_without_count_follow_its_format(source, wanted):
    first, *others = moving()
    file = io.BytesIO()
    first.save(file, source, save_all=True, append_images=others, duration=50)
    assert {frame.showing.loops for frame in frames_of(file.getvalue())} == {wanted}


def test_loops_without_end_stay_endless():
    for source in ("GIF", "PNG", "WEBP"):
        assert timing(encoded(frames_of(animation(source, loop=0)), "PNG"))[1] == 0


def test_loops_beyond_the_limit_of_webp_are_clamped():
    data = animation("PNG", loop=100_000)
    assert timing(encoded(frames_of(data), "WEBP"))[1] == 65535


@pytest.mark.parametrize("disposal", range(4))
@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_gif_frames_equal_those_of_pillow(disposal, mode):
    data = animation("GIF", mode, disposal=disposal)
    check_composed(data)


@pytest.mark.parametrize("disposal", range(3))
@pytest.mark.parametrize("blend", range(2))
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_png_frames_equal_those_of_pillow(disposal, blend, mode):
    check_composed(animation("PNG", mode, disposal=disposal, blend=blend))


@pytest.mark.parametrize("mode", ["L", "RGBA"])
@pytest.mark.parametrize("format_", ["PNG", "WEBP"])
def test_png_and_webp_frames_equal_those_of_pillow(format_, mode):
    check_composed(animation(format_, mode))


def check_composed(data: bytes) -> None:
    wanted, frames = shown(data), frames_of(data)
    result = shown(encoded(frames, "PNG"))
    for rgba, frame, found in zip(wanted, frames, result, strict=True):
        alpha = np.full(rgba.shape[:2], 255) if frame.alpha is None else frame.alpha
        np.testing.assert_array_equal(alpha, rgba[..., 3])
        np.testing.assert_array_equal(found[..., 3], rgba[..., 3])
        seen = alpha > 0
        np.testing.assert_allclose(lightness_of(frame)[seen], lightness.GRAY8[rgba[..., 1]][seen], atol=0.01)
        assert difference(found, frame) <= 0.15


@pytest.mark.parametrize("target", ["PNG", "WEBP", "AVIF"])
def test_transparency_that_varies_by_frame_is_kept(target):
    frames = frames_of(animation("PNG", "RGBA"))
    for number, rgba in enumerate(shown(encoded(frames, target))):
        assert (rgba[:, : 4 + number, 3] < 30).all()
        assert (rgba[:, 6 + number :, 3] > 225).all()


def test_opaque_and_transparent_frames_mix():
    frames = frames_of(animation("PNG"))[:1] + frames_of(animation("PNG", "RGBA"))[1:]
    found = shown(encoded(frames, "PNG"))
    assert found[0][..., 3].min() == 255
    assert found[1][..., 3].min() == 0


def test_png_default_image_is_kept():
    data = animation("PNG", default_image=True, duration=[40, 70, 110, 30])
    frames = frames_of(data)
    assert [frame.showing.milliseconds for frame in frames] == [None, 40, 70, 110, 30]
    result = encoded(frames, "PNG")
    with Image.open(io.BytesIO(result)) as image:
        assert (image.default_image, image.n_frames) == (True, FRAMES)
    for rgba, frame in zip(shown(result), frames, strict=True):
        assert difference(rgba, frame) <= 0.15
    with pytest.raises(WriteError, match="choose PNG"):
        encoded(frames, "WEBP")


def test_durations_with_fractions_do_not_drift():
    frames = frames_of(animation("PNG", duration=1000 / 30))
    assert timing(encoded(frames, "PNG"))[0] == pytest.approx([1000 / 30] * FRAMES)
    assert timing(encoded(frames, "WEBP"))[0] == [33, 34, 33, 33, 34]


def test_equal_frames_keep_the_total_duration():
    twice = [frame for frame in frames_of(animation("GIF", duration=50)) for _ in range(2)]
    durations, _ = timing(encoded(twice, "PNG"))
    assert sum(durations) == 2 * FRAMES * 50


@pytest.mark.parametrize("format_", ["PNG", "WEBP"])
def test_frames_are_all_rotated(format_):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Make] = "Maker"
    data = animation(format_, exif=exif)
    frames = frames_of(data)
    for rgba, frame in zip(shown(data), frames, strict=True):
        np.testing.assert_allclose(
            lightness_of(frame), lightness.GRAY8[np.rot90(rgba[..., 1], -1)], atol=0.01
        )
    with Image.open(io.BytesIO(encoded(frames, format_))) as image:
        assert image.size == SIZE[::-1]
        assert image.getexif().get(ExifTags.Base.Orientation, 1) == 1
        assert image.getexif()[ExifTags.Base.Make] == "Maker"


def test_original_pages_are_rotated():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    file = io.BytesIO()
    picture = moving("RGB")[0]
    picture.save(file, "PNG", exif=exif)
    ((frame, rgb),) = reader.original_pages(file.getvalue(), LIMIT)
    assert frame.lightness.shape == rgb.shape[:2]
    np.testing.assert_array_equal(rgb, np.rot90(np.asarray(picture), -1))


@pytest.mark.parametrize("format_", ["JPEG", "TIFF", "BMP", "JPEG2000"])
def test_formats_without_animation_are_refused(tmp_path, format_):
    frames = frames_of(animation("GIF"))
    with pytest.raises(WriteError, match=f"{format_} cannot hold an animation; choose another"):
        writer.write(tmp_path / f"a{PICTURE_FORMATS[format_].suffixes[0]}", map(colored, frames))
    assert list(tmp_path.iterdir()) == []


def test_single_frame_is_not_an_animation(tmp_path):
    for format_ in ("GIF", "PNG", "WEBP"):
        file = io.BytesIO()
        moving()[0].save(file, format_, save_all=True)
        (frame,) = frames_of(file.getvalue())
        assert (frame.pages, frame.showing) == (1, None)
        writer.write(tmp_path / f"{format_}.jpg", [colored(frame)])


@pytest.mark.parametrize("format_", LOSSLESS)
def test_pixel_limit_counts_all_frames(format_):
    data, pixels = animation(format_), FRAMES * SIZE[0] * SIZE[1]
    size = reader.size_of(data, 2 * pixels)
    with Image.open(io.BytesIO(data)) as image:
        beyond = PICTURE_FORMATS[format_].reading[image.has_transparency_data] / 12 - 1
    assert size == math.ceil(pixels * (1 + beyond / FRAMES))
    assert reader.size_of(data, size) == size
    with pytest.raises(ReadError, match="limit of"):
        reader.size_of(data, size - 1)
    with pytest.raises(ReadError, match=f"5 frames of 32 x 24 .* limit of {pixels - 1:,}"):
        reader.size_of(data, pixels - 1)
    with pytest.raises(ReadError, match="5 frames"):
        next(reader.read_pages(data, pixels - 1))


def test_later_frame_beyond_the_limit_is_refused():
    data = bytearray(animation("GIF", "L"))
    descriptor = data.rindex(b"!\xf9\x04") + 8
    assert data[descriptor : descriptor + 1] == b","
    struct.pack_into("<HH", data, descriptor + 5, 9000, 9000)
    with pytest.raises(ReadError, match=r"^frame 5 of 5: .*outside"):
        frames_of(bytes(data))


@pytest.mark.parametrize("format_", LOSSLESS)
def test_truncated_animation_never_loses_frames_silently(format_):
    data = animation(format_)
    for end in range(0, len(data), 3):
        try:
            assert len(frames_of(data[:end])) == FRAMES
        except ReadError:
            continue
        assert end >= len(data) - 20, "only what marks the end is missing"


def test_gif_truncated_between_frames_is_an_error():
    data = animation("GIF")
    ends = [n for n in range(len(data)) if data.startswith(b"!\xf9\x04", n)]
    assert len(ends) == FRAMES
    for end in (*ends[1:], len(data) - 1):
        with pytest.raises(ReadError, match="ends too early"):
            frames_of(data[:end])
    assert len(frames_of(data + b"appended")) == FRAMES


def test_gif_with_a_palette_per_frame_is_read():
    first, *others = moving("RGB")
    file = io.BytesIO()
    palettes = [image.quantize(64 + 8 * n) for n, image in enumerate((first, *others))]
    palettes[0].save(file, "GIF", save_all=True, append_images=palettes[1:], comment=b"a comment" * 60)
    assert len(frames_of(file.getvalue())) == FRAMES


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("quality", [30, 75, 92, 100])
def test_jpeg_keeps_its_luma_table(tmp_path, gray_photo, progressive, quality):
    Image.fromarray(gray_photo).convert("RGB").save(
        tmp_path / "a.jpg", quality=quality, progressive=progressive
    )
    frame = reader.read(tmp_path / "a.jpg", LIMIT)
    writer.write(tmp_path / "b.jpg", [colored(frame)])
    with Image.open(tmp_path / "a.jpg") as before, Image.open(tmp_path / "b.jpg") as after:
        assert after.quantization[0] == before.quantization[0]
        assert after.quantization[1] == tables(max(quality, 75))[1]
        assert (after.size, after.layers) == (before.size, 3)
    writer.write(tmp_path / "c.jpg", [colored(frame)], quality=50)
    with Image.open(tmp_path / "c.jpg") as asked:
        assert asked.quantization == {0: tables(52)[0], 1: tables(75)[1]}


def tables(quality: int) -> dict[int, list[int]]:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", quality=quality)
    with JpegImagePlugin.JpegImageFile(io.BytesIO(file.getvalue())) as image:
        return dict(image.quantization)


@pytest.mark.parametrize("format_", ["JPEG", "WEBP", "AVIF"])
def test_quality_determines_size_and_fidelity(gray_photo, format_):
    file = io.BytesIO()
    Image.fromarray(gray_photo).save(file, "PNG")
    frames = frames_of(file.getvalue())
    low, high = (encoded(frames, format_, quality) for quality in (20, 95))
    assert 2 * len(low) < len(high)
    (rough,), (fine,) = shown(low), shown(high)
    assert 1.5 * difference(fine, frames[0]) < difference(rough, frames[0])


@pytest.mark.parametrize("format_", ["PNG", "TIFF", "BMP"])
def test_quality_has_no_effect_on_lossless_formats(format_):
    frames = frames_of(animation("PNG"))
    still = [Frame(frames[0].lightness)]
    assert encoded(still, format_, 10) == encoded(still, format_)


@pytest.mark.parametrize("format_", ["PNG", "TIFF", "WEBP", "AVIF", "JPEG2000"])
def test_gray_with_transparency_keeps_it_in_color(format_):
    file = io.BytesIO()
    picture = moving("LA")[0]
    picture.save(file, "PNG")
    ((rgba),) = shown(encoded(frames_of(file.getvalue()), format_))
    wanted = np.asarray(picture.getchannel("A")).astype(int)
    assert np.abs(rgba[..., 3] - wanted).max() <= (30 if format_ == "AVIF" else 0)


def test_frame_has_its_duration_and_loops():
    assert frames_of(animation("GIF"))[2].showing == Showing(110, 4)


def test_animated_png_of_16_bits_is_refused_since_it_would_lose_bits():
    deep = png(np.zeros((24, 32, 3), np.uint16), RGB, 16)
    start, end = deep[:33], deep[deep.index(b"IDAT") - 4 :]
    control = struct.pack(">IIIIIHHBB", 0, 32, 24, 0, 0, 1, 10, 0, 0)
    more = struct.pack(">IIIIIHHBB", 1, 32, 24, 0, 0, 1, 10, 0, 0)
    pixels = end[8 : 8 + int.from_bytes(end[:4], "big")]
    frames = chunk(b"fcTL", more) + chunk(b"fdAT", struct.pack(">I", 2) + pixels)
    animated = start + chunk(b"acTL", struct.pack(">II", 2, 0)) + chunk(b"fcTL", control) + end[:-12] + frames
    with pytest.raises(ReadError, match="16 bits would lose bits"):
        reader.read(animated + end[-12:], 1_000_000)
