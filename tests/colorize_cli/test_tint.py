import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colorize_cli import color
from colorize_cli.color import Lightness
from colorize_cli.compose import compose16
from colorize_cli.tint import tint


def smooth_chroma(shape: tuple[int, int], scale: float) -> np.ndarray:
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    return (scale * np.stack([np.sin(x / 5), np.cos(y / 4)])).astype(np.float32)


def lightness_of(rgb8: np.ndarray) -> np.ndarray:
    return color.srgb_to_lab(rgb8 / 255)[..., 0]


def picture(height: int, width: int) -> np.ndarray:
    """Shapes with soft and hard edges, grain, and places that are black and white."""
    y, x = np.mgrid[0:height, 0:width]
    waves = 128 + 100 * np.sin(x / 23) * np.cos(y / 31) + 60 * ((x // 40 + y // 50) % 2)
    grain = np.random.default_rng(0).normal(0, 5, (height, width))
    return np.clip(waves + grain, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("chroma_pixels", [3_000, 20_000, 10**9])
@pytest.mark.parametrize("scale", [10, 30])
def test_lightness_is_kept_to_a_level_whatever_the_size_of_the_cells(chroma_pixels, scale):
    """But for a few pixels between cells of quite different strong colours, which mix as codes do."""
    levels = picture(301, 402)
    rgb = tint(levels, smooth_chroma((24, 32), scale), chroma_pixels)
    levels_off = np.abs(lightness_of(rgb) - color.GREY8[levels]) / np.gradient(color.GREY8)[levels]
    assert levels_off.mean() < 0.3
    assert np.quantile(levels_off, 0.99) < 1.2
    assert np.abs(lightness_of(rgb) - color.GREY8[levels]).max() < 2
    assert np.ptp(rgb.astype(int), axis=-1).mean() > 3


@pytest.mark.parametrize("chroma_pixels", [3_000, 10**9])
def test_colours_are_near_those_worked_out_for_each_pixel_in_lab(chroma_pixels):
    levels, ab = picture(301, 402), smooth_chroma((24, 32), 25)
    exact = color.srgb_to_lab(compose16(Lightness(levels, color.GREY8), ab) / 65535)
    found = color.srgb_to_lab(tint(levels, ab, chroma_pixels) / 255)
    middle = (levels > 50) & (levels < 220)  # near black and white chroma is held back, cell by cell
    difference = np.abs(found - exact)[middle]
    assert difference[:, 1:].mean() < (3 if chroma_pixels < levels.size else 1.2)
    assert difference[:, 0].mean() < 0.15


@pytest.mark.parametrize("chroma_pixels", [3_000, 20_000, 10**9])
@pytest.mark.parametrize("stripe_pixels", [1, 50, 9_000])
def test_stripes_cannot_be_told_from_the_whole(chroma_pixels, stripe_pixels, monkeypatch):
    levels, ab = picture(301, 402), smooth_chroma((24, 32), 25)
    whole = tint(levels, ab, chroma_pixels)
    monkeypatch.setattr("colorize_cli.tint._STRIPE_PIXELS", stripe_pixels)
    assert np.abs(tint(levels, ab, chroma_pixels).astype(int) - whole).max() <= 1


def test_of_grey_nothing_changes(grey_photo):
    for chroma_pixels in (100, 5_000, 10**9):
        rgb = tint(grey_photo, np.zeros((2, 16, 24), np.float32), chroma_pixels)
        np.testing.assert_array_equal(rgb, np.repeat(grey_photo[..., None], 3, axis=2))


def test_cells_cannot_be_seen():
    levels = np.full((300, 400), 140, np.uint8)
    ramp = np.broadcast_to(np.linspace(-30, 30, 16, dtype=np.float32), (2, 16, 16))
    rgb = tint(levels, ramp, chroma_pixels=3_000).astype(int)
    steps = np.abs(np.diff(rgb[:, 30:-30], axis=1))
    assert steps.max() <= 2
    assert (steps == 2).mean() < 0.04


def test_no_channel_is_clipped_beside_white():
    """Beside white the colour is held back; else its lightness would be lost."""
    levels = np.full((200, 200), 200, np.uint8)
    levels[::7, ::5] = 255
    ab = np.empty((2, 10, 10), np.float32)
    ab[0], ab[1] = 30, 40
    for chroma_pixels in (2_000, 10**9):
        rgb = tint(levels, ab, chroma_pixels)
        np.testing.assert_array_equal(rgb[::7, ::5], 255)
        assert np.abs(lightness_of(rgb) - color.GREY8[levels]).max() < 0.4


def off_where_each_pixel_is_another_colour(shape, low_shape, chroma_pixels, seed) -> np.ndarray:
    """|dL*| of noise in strong colours of noise, (H, W): the worst there is."""
    random = np.random.default_rng(seed)
    levels = random.integers(0, 256, shape, dtype=np.uint8)
    rgb = tint(levels, random.normal(0, 40, (2, *low_shape)).astype(np.float32), chroma_pixels)
    assert rgb.shape == (*shape, 3)
    return np.abs(lightness_of(rgb) - color.GREY8[levels])


def sizes(least: int, most: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(least, most), st.integers(least, most))


@settings(deadline=None, max_examples=60)
@given(sizes(1, 60), sizes(1, 9), st.integers(0, 2**32 - 1))
def test_any_sizes_with_factors_for_each_pixel(shape, low_shape, seed):
    assert off_where_each_pixel_is_another_colour(shape, low_shape, 10**9, seed).max() < 1


@settings(deadline=None, max_examples=60)
@given(sizes(8, 80), sizes(1, 9), st.integers(1, 3000), st.integers(0, 2**32 - 1))
def test_any_sizes_with_factors_for_cells(shape, low_shape, chroma_pixels, seed):
    assert off_where_each_pixel_is_another_colour(shape, low_shape, chroma_pixels, seed).mean() < 0.5
