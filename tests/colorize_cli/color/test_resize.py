import numpy as np
import pytest
import skimage.data
from PIL import Image

from colorize_cli.color.lightness import GRAY8, Lightness
from colorize_cli.color.resize import reduced, resized, working_copy, working_shape


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1000, 1000), (64, 64)),
        ((1000, 1500), (64, 96)),
        ((1500, 1000), (96, 64)),
        ((1000, 1400), (64, 96)),  # 89.6 rounds to 96
        ((1000, 4000), (64, 256)),
        ((1000, 8000), (32, 256)),  # beyond 4 : 1 the long side stays
        ((1, 10000), (16, 256)),  # at least one multiple
        ((10, 10), (64, 64)),  # small pictures grow
        ((1, 1), (64, 64)),
    ],
)
def test_working_shape_is_a_multiple_at_the_aspect_ratio(shape, expected):
    assert working_shape(shape, 64, 16) == expected


def test_resized_is_the_mean_lightness_of_areas(gray_photo):
    codes = np.random.default_rng(0).integers(0, 256, (600, 900), dtype=np.uint8)
    cells = codes.reshape(120, 5, 180, 5).mean(axis=(1, 3))
    lightness = np.interp(cells, np.arange(256), GRAY8).reshape(60, 2, 90, 2).mean(axis=(1, 3))
    found = resized(Lightness(codes, GRAY8), (60, 90))
    np.testing.assert_allclose(found, lightness, atol=0.3)  # means of codes are rounded
    height, width = (side - side % 8 for side in gray_photo.shape)
    photo = gray_photo[:height, :width]
    expected = GRAY8[photo].reshape(height // 8, 8, width // 8, 8).mean(axis=(1, 3))
    found = resized(Lightness(photo, GRAY8), (height // 8, width // 8))
    assert np.abs(found - expected).mean() < 0.3  # grays of sRGB are nearly L*


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_reduced_repeats_the_edge_in_partial_cells(dtype):
    codes = np.array([[0, 100, 200], [0, 100, 100]], dtype)
    np.testing.assert_array_equal(reduced(codes, 2), [[50, 150]])
    assert reduced(codes, 1) is codes


@pytest.mark.parametrize(
    ("down", "across"), [(2, 2), (4, 4), (6, 6), (8, 8), (16, 16), (6, 4), (1, 2), (3, 5)]
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_reduced_means_are_accurate_to_about_a_code(down, across, dtype):
    codes = np.random.default_rng(0).integers(0, 256, (240, 480)).astype(dtype)
    exact = codes.reshape(240 // down, down, 480 // across, across).mean(axis=(1, 3))
    off = reduced(codes, down, across) - exact
    assert np.abs(off).max() <= 1.25
    assert -0.02 < off.mean() < 0.27


def test_resized_is_independent_of_stripes(monkeypatch):
    codes = np.random.default_rng(0).integers(0, 256, (301, 407), dtype=np.uint8)
    lightness = Lightness(codes, GRAY8)
    whole = resized(lightness, (48, 64))
    monkeypatch.setattr("colorize_cli.color.resize._STRIPE_PIXELS", 1000)
    np.testing.assert_array_equal(resized(lightness, (48, 64)), whole)


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (7, 3)])
def test_working_copy_exists_for_any_shape(shape):
    lightness = Lightness(np.full(shape, 128, np.uint8), GRAY8)
    copy = working_copy(lightness, 64, 16)
    assert copy.dtype == np.float32
    np.testing.assert_allclose(copy, GRAY8[128], atol=1e-3)


def triangle(values, count):
    """Reduce rows to `count` with a triangle filter that is two new pixels wide."""
    scale = len(values) / count
    centers = (np.arange(count) + 0.5) * scale
    distance = np.abs(np.arange(len(values)) + 0.5 - centers[:, None]) / scale
    weights = np.clip(1 - distance, 0, None)
    return weights / weights.sum(1, keepdims=True) @ values


@pytest.mark.parametrize(("side", "tolerance"), [(150, 1e-3), (256, 1e-3), (512, 0.2)])
def test_working_copy_is_as_sharp_as_the_triangle_filter(side, tolerance):
    codes = resize_codes(skimage.data.camera(), side)
    exact = triangle(triangle(GRAY8[codes].astype(np.float64), 64).T, 64).T
    copy = working_copy(Lightness(codes, GRAY8), 64, 16)
    assert np.abs(copy - exact).mean() <= tolerance
    sharper = resized(Lightness(codes, GRAY8), (64, 64))
    assert sharper.std() > copy.std()


def resize_codes(picture, side):
    return np.asarray(Image.fromarray(picture).resize((side, side)))
