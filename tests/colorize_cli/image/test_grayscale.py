"""Pictures that count as color."""

import io

import numpy as np
import pytest
from PIL import Image
from skimage import data

from colorize_cli.image import reader
from colorize_cli.image.frame import Frame, from_image
from colorize_cli.image.grayscale import COLOR_SPREAD, spread

LIMIT = 10_000_000
TONES = {
    "sepia": (0.75, 1.0, 1.35),
    "cyanotype": (1.5, 1.05, 0.7),
    "selenium": (0.95, 1.06, 0.98),
    "gold": (0.8, 0.95, 1.5),
}


def toned(gray: np.ndarray, powers: tuple[float, float, float]) -> Image.Image:
    """Apply a different curve to each channel, as a scanner sees a toned print."""
    light = gray[..., None] / 255.0
    return Image.fromarray(np.rint(255 * light ** np.array(powers)).astype(np.uint8))


def through_jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(io.BytesIO(file.getvalue()))


@pytest.mark.parametrize("tone", TONES)
@pytest.mark.parametrize("quality", [50, 90])
def test_toned_print_is_gray(tone, quality):
    image = toned(np.asarray(Image.fromarray(data.astronaut()).convert("L")), TONES[tone])
    assert not from_image(image).is_color
    assert not from_image(through_jpeg(image, quality)).is_color


def test_unevenly_yellowed_print_is_gray(gray_photo):
    paper = np.linspace(1, 0.92, gray_photo.shape[1])[None, :, None] ** np.array([0, 0.3, 1])
    sepia = np.asarray(toned(gray_photo, TONES["sepia"]))
    assert not from_image(Image.fromarray(np.rint(sepia * paper).astype(np.uint8))).is_color


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee", "rocket"])
def test_photograph_is_in_color(name):
    image = Image.fromarray(getattr(data, name)())
    assert from_image(image).is_color
    assert from_image(through_jpeg(image, 30)).is_color
    assert from_image(image.convert("CMYK")).is_color
    assert from_image(image.convert("P")).is_color


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "I;16"])
def test_spread_of_gray_is_zero_in_every_mode(gray_photo, mode):
    gray = Image.fromarray(gray_photo)
    image = Image.fromarray(gray_photo.astype(np.uint16) * 257) if mode == "I;16" else gray.convert(mode)
    assert from_image(image).spread == 0


def test_sixteen_bits_are_judged_like_eight(tmp_path):
    import cv2

    rgb = data.astronaut()
    cv2.imwrite(str(tmp_path / "a.png"), np.ascontiguousarray(rgb[..., ::-1].astype(np.uint16) * 257))
    deep = reader.read(tmp_path / "a.png", LIMIT)
    assert deep.deep
    assert deep.is_color
    assert deep.spread == pytest.approx(from_image(Image.fromarray(rgb)).spread, rel=0.1)


def test_transparent_pixels_are_ignored(gray_photo):
    rgba = np.dstack([np.repeat(gray_photo[..., None], 3, axis=2), np.full_like(gray_photo, 255)])
    rgba[:, 80:] = np.random.default_rng(0).integers(0, 256, (120, 80, 4))
    rgba[:, 80:, 3] = 0
    assert not from_image(Image.fromarray(rgba)).is_color


def test_spread_is_the_distance_from_the_mean_at_equal_lightness():
    lightness = np.repeat(np.arange(24) * 4.0, 10)
    a = np.where(np.arange(240) % 2 == 0, 5.0, -5.0)
    lab = np.stack([lightness, a, lightness / 2], axis=1).astype(np.float32)
    assert spread(lab) == pytest.approx(5.0)
    assert spread(np.zeros((0, 3), np.float32)) == 0
    assert Frame.__dataclass_fields__["spread"].default < COLOR_SPREAD
