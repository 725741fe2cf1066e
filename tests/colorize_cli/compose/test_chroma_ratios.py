import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colorize_cli.color import lightness
from colorize_cli.color.lab import LUMINANCE, srgb_to_lab
from colorize_cli.color.resize import reduced
from colorize_cli.compose.chroma_ratios import OFFSET, TO_RGB, ChromaRatios, cell_size, ratios_of


def of_channels(factors: ChromaRatios) -> np.ndarray:
    """Return the factors of red, green and blue, (3, rows, columns)."""
    return np.tensordot(TO_RGB, np.stack([factors.luma, factors.blue, factors.red]), 1)


def luminance(channels: np.ndarray) -> np.ndarray:
    return np.tensordot(LUMINANCE, np.maximum(channels, 0) ** 2.4, 1)


def noise(shape: tuple[int, int], low_shape: tuple[int, int], strength: float, seed: int):
    random = np.random.default_rng(seed)
    ab = random.normal(0, strength, (2, *low_shape)).astype(np.float32)
    return random.integers(0, 256, shape, dtype=np.uint8), ab


@pytest.mark.parametrize(
    ("shape", "low_shape", "most", "size"),
    [
        ((256, 256), (1, 1), None, 1),
        ((257, 256), (1, 1), None, 2),
        ((512, 512), (32, 64), None, 1),
        ((513, 512), (32, 64), None, 2),
        ((1500, 2000), (64, 88), None, 4),
        ((3000, 4000), (64, 88), None, 8),
        ((3000, 4000), (256, 256), None, 4),
        ((2, 40_000), (64, 64), None, 4),
        ((10, 10), (3, 3), 1, 16),
        ((1, 100), (3, 3), 25, 4),
    ],
)
def test_cell_size_is_the_smallest_allowed(shape, low_shape, most, size):
    assert cell_size(shape, np.zeros((2, *low_shape), np.float32), most) == size


@settings(deadline=None, max_examples=100)
@given(
    st.tuples(st.integers(1, 70), st.integers(1, 70)),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.sampled_from([1, 7, 200, None]),
    st.sampled_from([5, 40, 150]),
    st.integers(0, 2**32 - 1),
)
def test_ratios_keep_lightness_and_stay_in_gamut_for_any_gray(shape, low_shape, most, strength, seed):
    levels, ab = noise(shape, low_shape, strength, seed)
    size = cell_size(shape, ab, most)
    factors = ratios_of(reduced(levels, size), size, ab)
    assert factors.luma.shape == tuple(-(-side // size) for side in shape)
    assert factors.luma.shape == factors.blue.shape == factors.red.shape == factors.limit.shape
    channels, chroma = of_channels(factors), np.maximum(np.abs(factors.blue), np.abs(factors.red))
    check_colors(channels)
    # Interpolation lets a cell contribute to its neighbors.
    around = np.ones((1, 1) if size == 1 else (3, 3))
    light = (levels if size == 1 else factors.limit).astype(int) + OFFSET
    for plane in (*channels, 2 * chroma):
        assert (cv2.dilate(plane.astype(np.float32), around) * light).max() < 256.5 + OFFSET
    # Lighter grays are handled one by one.
    large = factors.limit.repeat(size, 0).repeat(size, 1)[: shape[0], : shape[1]]
    seen = []
    for places, luma, blue, red in factors.beyond(levels, size):
        seen.append(places)
        channels = TO_RGB @ np.stack([luma, blue, red])
        check_colors(channels)
        light = levels.ravel()[places].astype(int) + OFFSET
        assert (channels * light).max() < 255.5 + OFFSET
        assert np.abs(np.stack([blue, red]) * light).max() < 125.5
    np.testing.assert_array_equal(np.concatenate([[], *seen]), np.flatnonzero(levels > large))


def check_colors(channels: np.ndarray) -> None:
    np.testing.assert_allclose(luminance(channels), 1, atol=2e-3)
    assert channels.min(initial=0) > -1e-3


def test_ratios_of_gray_are_one_and_zero(gray_photo):
    factors = ratios_of(gray_photo, 1, np.zeros((2, 16, 24), np.float32))
    np.testing.assert_allclose(factors.luma, 1, atol=1e-4)
    np.testing.assert_allclose(factors.blue, 0, atol=1e-5)
    np.testing.assert_allclose(factors.red, 0, atol=1e-5)


def test_ratios_give_the_predicted_colors():
    levels = np.full((40, 60), 128, np.uint8)
    ab = np.empty((2, 10, 15), np.float32)
    ab[0], ab[1] = 20, -30
    channels = of_channels(ratios_of(levels, 1, ab))
    codes = channels * (128 + OFFSET) - OFFSET
    lab = srgb_to_lab(np.moveaxis(codes, 0, -1) / 255)
    np.testing.assert_allclose(lab, np.broadcast_to([lightness.GRAY8[128], 20, -30], lab.shape), atol=0.3)


def test_ratios_beyond_the_limit_come_in_blocks():
    """More positions than cv2.remap takes per side."""
    levels = np.full((4600, 4600), 120, np.uint8)
    levels[::2] = 250
    ab = np.full((2, 16, 16), 25, np.float32)
    factors = ratios_of(reduced(levels, 8), 8, ab)
    blocks = [len(places) for places, *_ in factors.beyond(levels, 8)]
    assert sum(blocks) == (levels == 250).sum()
    assert max(blocks) <= 1 << 20
