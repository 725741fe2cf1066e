import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colorize_cli.color.lab import srgb_to_lab, srgb_to_linear
from colorize_cli.color.lightness import GRAY8, Lightness
from colorize_cli.color.ycbcr import BT601, BT709, Coding, chroma_of, rgb_of
from colorize_cli.compose import compose, compose16, compose_chroma


def lightness_of(rgb8: np.ndarray) -> np.ndarray:
    return srgb_to_lab(rgb8 / 255)[..., 0]


def smooth_chroma(shape: tuple[int, int], scale: float) -> np.ndarray:
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    return (scale * np.stack([np.sin(x / 5), np.cos(y / 4)])).astype(np.float32)


def test_compose_of_a_gray_prediction_returns_the_input(gray_photo):
    out = compose(Lightness(gray_photo, GRAY8), np.zeros((2, 32, 48), np.float32))
    np.testing.assert_array_equal(out, np.repeat(gray_photo[..., None], 3, axis=2))


def test_compose_at_strength_zero_is_gray(gray_photo):
    out = compose(Lightness(gray_photo, GRAY8), smooth_chroma((32, 48), 60), strength=0)
    np.testing.assert_array_equal(out, np.repeat(gray_photo[..., None], 3, axis=2))


@pytest.mark.parametrize("scale", [10, 40, 120])
def test_compose_keeps_lightness(gray_photo, scale):
    out = compose(Lightness(gray_photo, GRAY8), smooth_chroma((32, 48), scale))
    difference = np.abs(lightness_of(out) - GRAY8[gray_photo])
    assert difference.mean() <= 0.3
    assert difference.max() <= 1.5
    assert np.ptp(out.astype(int), axis=-1).mean() > 2  # it has colors


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 60), st.integers(1, 60), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1)
)
def test_compose_of_any_sizes_keeps_lightness(height, width, low_height, low_width, seed):
    random = np.random.default_rng(seed)
    codes = random.integers(0, 256, (height, width), dtype=np.uint8)
    ab = random.normal(0, 40, (2, low_height, low_width)).astype(np.float32)
    out = compose(Lightness(codes, GRAY8), ab)
    assert np.abs(lightness_of(out) - GRAY8[codes]).max() <= 1.5


@pytest.mark.parametrize("stripe_pixels", [1, 160, 1000, 7777])
def test_compose_is_independent_of_stripes(gray_photo, stripe_pixels):
    lightness = Lightness(gray_photo, GRAY8)
    ab = smooth_chroma((32, 48), 50)
    whole = compose16(lightness, ab)
    stripes = compose16(lightness, ab, stripe_pixels=stripe_pixels)
    np.testing.assert_allclose(stripes.astype(int), whole, atol=1)  # of 65,535


def test_compose_keeps_constant_chroma_on_smooth_lightness():
    codes = np.broadcast_to(np.linspace(60, 200, 640), (480, 640)).astype(np.uint8)
    ab = np.empty((2, 48, 64), np.float32)
    ab[0], ab[1] = 12, -9
    lab = srgb_to_lab(compose(Lightness(codes, GRAY8), ab) / 255)
    np.testing.assert_allclose(lab[..., 1], 12, atol=1)
    np.testing.assert_allclose(lab[..., 2], -9, atol=1)


def test_compose_keeps_proportions_of_light_in_detail(gray_photo):
    """The result looks like a surface in light of one color, lighter or darker."""
    codes = np.clip(gray_photo, 40, 200)
    ab = np.empty((2, 2, 2), np.float32)
    ab[0], ab[1] = 12, -9
    linear = srgb_to_linear(compose(Lightness(codes, GRAY8), ab) / 255)
    proportions = linear / srgb_to_linear(codes / 255)[..., None]
    spread = np.quantile(proportions, [0.01, 0.99], axis=(0, 1))
    assert np.ptp(spread, axis=0).max() < 0.15
    assert proportions.mean(axis=(0, 1))[0] > 1.05 > 0.99 > proportions.mean(axis=(0, 1))[1]


def edge_case() -> tuple[np.ndarray, np.ndarray]:
    """Return a dark red half beside a light blue half, with the edge inside a low-resolution pixel."""
    codes = np.full((256, 256), 100, np.uint8)
    codes[:, 132:] = 170
    true = np.zeros((2, 256, 256), np.float32)
    true[0, :, :132], true[1, :, 132:] = 30, -30
    return codes, true


def test_compose_keeps_chroma_on_its_side_of_an_edge():
    codes, true = edge_case()
    low = true.reshape(2, 32, 8, 32, 8).mean(axis=(2, 4))
    lab = srgb_to_lab(compose(Lightness(codes, GRAY8), low) / 255)
    error = np.abs(np.moveaxis(lab[..., 1:], -1, 0) - true)
    blurred = np.abs(true - np.repeat(np.repeat(low, 8, axis=1), 8, axis=2))
    near = slice(120, 144)
    assert error[:, :, near].mean() < 0.75 * blurred[:, :, near].mean() + 1.5
    assert error[:, :, :112].max() < 1.5  # no halo
    assert error[:, :, 152:].max() < 1.5


def test_compose_does_not_overshoot_chroma():
    codes, true = edge_case()
    low = true.reshape(2, 32, 8, 32, 8).mean(axis=(2, 4))
    lab = srgb_to_lab(compose(Lightness(codes, GRAY8), low) / 255)
    assert lab[..., 1].max() < 30 + 1
    assert lab[..., 2].min() > -30 - 1


def test_compose_shows_no_blocks_on_flat_lightness():
    lightness = Lightness(np.full((256, 256), 128, np.uint8), GRAY8)
    ramp = np.broadcast_to(np.linspace(-30, 30, 16, dtype=np.float32), (2, 16, 16))
    lab = srgb_to_lab(compose(lightness, ramp) / 255)
    assert np.abs(np.diff(lab[:, 16:-16, 1], axis=1)).max() < 1.2  # 0.25 per pixel, and 8-bit rounding


@pytest.mark.parametrize("matrix", [BT601, BT709])
def test_compose_chroma_is_close_to_that_of_each_pixel(gray_photo, matrix):
    """Chroma is computed at low resolution and upsampled, not computed per pixel."""
    coding = Coding(8, full=True)
    height, width = gray_photo.shape
    lightness = Lightness(gray_photo, coding.lightness_table())
    luma = Lightness(gray_photo, coding.luma_table()).rows(0, height)
    ab = smooth_chroma((height // 6, width // 6), 25)
    cb, cr = compose_chroma(lightness, luma, ab, 1.0, matrix)
    a, b = (cv2.resize(plane, (width, height), interpolation=cv2.INTER_CUBIC) for plane in ab)
    wanted = chroma_of(lightness.rows(0, height), a, b, matrix)
    for found, exact in zip((cb, cr), wanted, strict=True):
        assert np.abs(found - exact).mean() < 0.004  # one 8-bit code
    rgb = rgb_of(luma, cb, cr, matrix)
    assert rgb.min() > -1e-4
    assert rgb.max() < 1 + 1e-4
