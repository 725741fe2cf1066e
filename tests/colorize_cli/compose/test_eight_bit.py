import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colorize_cli.color import lab, lightness
from colorize_cli.color.lightness import Lightness
from colorize_cli.color.resize import reduced
from colorize_cli.color.ycbcr import BytePlanes
from colorize_cli.compose import compose16
from colorize_cli.compose.chroma_ratios import cell_size, ratios_of
from colorize_cli.compose.eight_bit import compose_planes8, compose_rgb8


def smooth_chroma(shape: tuple[int, int], scale: float) -> np.ndarray:
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    return (scale * np.stack([np.sin(x / 5), np.cos(y / 4)])).astype(np.float32)


def lightness_of(rgb8: np.ndarray) -> np.ndarray:
    return lab.srgb_to_lab(rgb8 / 255)[..., 0]


def picture(height: int, width: int) -> np.ndarray:
    """Return shapes with soft and hard edges, grain, and areas of black and white."""
    y, x = np.mgrid[0:height, 0:width]
    waves = 128 + 100 * np.sin(x / 23) * np.cos(y / 31) + 60 * ((x // 40 + y // 50) % 2)
    grain = np.random.default_rng(0).normal(0, 5, (height, width))
    return np.clip(waves + grain, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("cells", [3_000, 20_000, 10**9])
@pytest.mark.parametrize("scale", [10, 30])
def test_compose_rgb8_keeps_lightness_at_any_cell_size(cells, scale):
    """Exceptions are a few pixels between cells of different strong colors, which mix as codes."""
    levels = picture(301, 402)
    rgb = compose_rgb8(levels, smooth_chroma((24, 32), scale), cells)
    levels_off = np.abs(lightness_of(rgb) - lightness.GRAY8[levels]) / np.gradient(lightness.GRAY8)[levels]
    assert levels_off.mean() < 0.3
    assert np.quantile(levels_off, 0.99) < 1.2
    assert np.abs(lightness_of(rgb) - lightness.GRAY8[levels]).max() < 2
    assert np.ptp(rgb.astype(int), axis=-1).mean() > 3


@pytest.mark.parametrize("cells", [8_000, 10**9])
def test_compose_rgb8_is_close_to_lab_per_pixel(cells):
    levels, ab = picture(301, 402), smooth_chroma((24, 32), 25)
    exact = lab.srgb_to_lab(compose16(Lightness(levels, lightness.GRAY8), ab) / 65535)
    found = lab.srgb_to_lab(compose_rgb8(levels, ab, cells) / 255)
    middle = (levels > 50) & (levels < 220)  # near black and white chroma is reduced, cell by cell
    difference = np.abs(found - exact)[middle]
    assert difference[:, 1:].mean() < (3 if cells < levels.size else 1.2)
    assert difference[:, 0].mean() < 0.15


@pytest.mark.parametrize("cells", [3_000, 20_000, 10**9])
@pytest.mark.parametrize("stripe_pixels", [1, 50, 9_000])
def test_compose_rgb8_is_independent_of_stripes(cells, stripe_pixels, monkeypatch):
    levels, ab = picture(301, 402), smooth_chroma((24, 32), 25)
    whole = compose_rgb8(levels, ab, cells)
    monkeypatch.setattr("colorize_cli.compose.eight_bit._STRIPE_FLOATS", stripe_pixels)
    assert np.abs(compose_rgb8(levels, ab, cells).astype(int) - whole).max() <= 1


def test_compose_rgb8_of_gray_returns_the_input(gray_photo):
    for cells in (100, 5_000, 10**9):
        rgb = compose_rgb8(gray_photo, np.zeros((2, 16, 24), np.float32), cells)
        np.testing.assert_array_equal(rgb, np.repeat(gray_photo[..., None], 3, axis=2))


def test_compose_rgb8_shows_no_cells():
    levels = np.full((300, 400), 140, np.uint8)
    ramp = np.broadcast_to(np.linspace(-30, 30, 16, dtype=np.float32), (2, 16, 16))
    rgb = compose_rgb8(levels, ramp, cells=3_000).astype(int)
    steps = np.abs(np.diff(rgb[:, 30:-30], axis=1))
    assert steps.max() <= 2
    assert (steps == 2).mean() < 0.04


def test_compose_rgb8_beside_white_clips_no_channel():
    """Chroma beside white is reduced, to keep lightness."""
    levels = np.full((200, 200), 200, np.uint8)
    levels[::7, ::5] = 255
    ab = np.empty((2, 10, 10), np.float32)
    ab[0], ab[1] = 30, 40
    for cells in (2_000, 10**9):
        rgb = compose_rgb8(levels, ab, cells)
        np.testing.assert_array_equal(rgb[::7, ::5], 255)
        assert np.abs(lightness_of(rgb) - lightness.GRAY8[levels]).max() < 0.4


def off_where_each_pixel_is_another_color(shape, low_shape, cells, seed) -> np.ndarray:
    """Return |dL*|, (H, W), of noise in strong random colors: the worst case."""
    random = np.random.default_rng(seed)
    levels = random.integers(0, 256, shape, dtype=np.uint8)
    rgb = compose_rgb8(levels, random.normal(0, 40, (2, *low_shape)).astype(np.float32), cells)
    assert rgb.shape == (*shape, 3)
    return np.abs(lightness_of(rgb) - lightness.GRAY8[levels])


def sizes(least: int, most: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(least, most), st.integers(least, most))


@settings(deadline=None, max_examples=60)
@given(sizes(1, 60), sizes(1, 9), st.integers(0, 2**32 - 1))
def test_compose_rgb8_of_any_sizes_with_ratios_per_pixel_is_accurate(shape, low_shape, seed):
    assert off_where_each_pixel_is_another_color(shape, low_shape, 10**9, seed).max() < 1


@settings(deadline=None, max_examples=60)
@given(sizes(8, 80), sizes(1, 9), st.integers(1, 3000), st.integers(0, 2**32 - 1))
def test_compose_rgb8_of_any_sizes_with_ratios_per_cell_is_accurate(shape, low_shape, cells, seed):
    assert off_where_each_pixel_is_another_color(shape, low_shape, cells, seed).mean() < 2


def shown(planes: BytePlanes, method: int = cv2.INTER_NEAREST) -> np.ndarray:
    """Convert to 8-bit sRGB by the equations of T.871, with some upsampling of chroma."""
    height, width = planes.luma.shape
    chroma = [planes.blue, planes.red]
    if planes.blue.shape != planes.luma.shape:
        chroma = [cv2.resize(plane, None, fx=2, fy=2, interpolation=method) for plane in chroma]
    blue, red = (plane[:height, :width].astype(float) - 128 for plane in chroma)
    luma = planes.luma.astype(float)
    rgb = [luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue]
    return np.clip(np.rint(np.dstack(rgb)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("cells", "fewer"), [(10**9, 1), (70_000, 2), (10_000, 2), (300, 2)])
def test_compose_planes8_has_chroma_per_pixel_or_two_by_two(cells, fewer):
    planes = compose_planes8(picture(301, 403), smooth_chroma((24, 32), 20), cells)
    assert planes.luma.shape == (301, 403)
    assert planes.blue.shape == planes.red.shape == (-(-301 // fewer), -(-403 // fewer))
    assert {plane.dtype for plane in (planes.luma, planes.blue, planes.red)} == {np.dtype(np.uint8)}


@pytest.mark.parametrize("cells", [10**9, 40_000, 3_000])
@pytest.mark.parametrize("method", [cv2.INTER_NEAREST, cv2.INTER_LINEAR])
def test_compose_planes8_keeps_lightness(cells, method):
    levels = picture(301, 402)
    planes = compose_planes8(levels, smooth_chroma((24, 32), 10), cells)
    off = (
        np.abs(lightness_of(shown(planes, method)) - lightness.GRAY8[levels])
        / np.gradient(lightness.GRAY8)[levels]
    )
    assert off.mean() < 0.4
    assert np.quantile(off, 0.99) < 1.3
    assert np.ptp(shown(planes).astype(int), axis=-1).mean() > 3


@pytest.mark.parametrize("cells", [10**9, 40_000, 3_000])
def test_compose_planes8_equals_compose_rgb8(cells):
    levels, ab = picture(301, 402), smooth_chroma((24, 32), 25)
    found = lab.srgb_to_lab(shown(compose_planes8(levels, ab, cells)) / 255)
    wanted = lab.srgb_to_lab(compose_rgb8(levels, ab, cells) / 255)
    assert np.abs(found - wanted).mean(axis=(0, 1)).max() < 0.8


def test_compose_planes8_of_gray_returns_the_input(gray_photo):
    for cells in (100, 5_000, 10**9):
        planes = compose_planes8(gray_photo, np.zeros((2, 16, 24), np.float32), cells)
        np.testing.assert_array_equal(planes.luma, gray_photo)
        assert (planes.blue == 128).all()
        assert (planes.red == 128).all()


@pytest.mark.parametrize("cells", [10**9, 40_000, 3_000])
@pytest.mark.parametrize("stripe_pixels", [1, 50, 9_000])
def test_compose_planes8_is_independent_of_stripes(cells, stripe_pixels, monkeypatch):
    levels, ab = picture(301, 402), smooth_chroma((24, 32), 25)
    whole = compose_planes8(levels, ab, cells)
    monkeypatch.setattr("colorize_cli.compose.eight_bit._STRIPE_SHORTS", stripe_pixels)
    stripes = compose_planes8(levels, ab, cells)
    for name in ("luma", "blue", "red"):
        off = np.abs(getattr(stripes, name).astype(int) - getattr(whole, name))
        assert off.max() <= 1  # cv2 does not round all rows in the same way
        assert off.mean() < 0.03


@settings(deadline=None, max_examples=150)
@given(
    sizes(1, 70),
    sizes(1, 9),
    st.sampled_from([1, 7, 200, 10**9]),
    st.sampled_from([5, 40, 150]),
    st.integers(0, 2**32 - 1),
)
def test_compose_planes8_multiplies_ratios_and_grays(shape, low_shape, cells, strength, seed):
    """Same result in 16 bits as in floats, for colors of any strength."""
    random = np.random.default_rng(seed)
    levels = random.integers(0, 256, shape, dtype=np.uint8)
    if seed % 2:
        levels[:] = levels[0, 0]
    ab = random.normal(0, strength, (2, *low_shape)).astype(np.float32)
    planes = compose_planes8(levels, ab, cells)
    size = cell_size(shape, ab, cells)
    fewer = min(size, 2)
    grays, times = reduced(levels, fewer), size // fewer
    factors = ratios_of(reduced(grays, times), size, ab)
    wanted = []
    for plane in (factors.luma - 1, factors.blue, factors.red):
        enlarged = cv2.resize(plane, None, fx=times, fy=times, interpolation=cv2.INTER_LINEAR)
        wanted.append(np.array(enlarged[: grays.shape[0], : grays.shape[1]]))
    for places, luma, *chroma in factors.beyond(grays, times):
        for plane, own in zip(wanted, (luma - 1, *chroma), strict=True):
            np.put(plane, places, own)
    wanted = [plane * (grays + 14.0) for plane in wanted]
    lift = np.kron(wanted[0], np.ones((fewer, fewer)))[: shape[0], : shape[1]]
    np.testing.assert_allclose(planes.luma, np.clip(levels + lift, 0, 255), atol=2)
    np.testing.assert_allclose(planes.blue, 128 + wanted[1], atol=2)
    np.testing.assert_allclose(planes.red, 128 + wanted[2], atol=2)


@pytest.mark.parametrize("paint", [compose_rgb8, lambda *of: shown(compose_planes8(*of))])
def test_white_specks_take_no_color_from_their_neighbors(paint):
    clean = np.full((240, 320), 90, np.uint8)
    dusty = clean.copy()
    dusty[20::40, 20::40] = dusty[21::40, 20::40] = dusty[20::40, 21::40] = dusty[21::40, 21::40] = 255
    ab = np.empty((2, 12, 16), np.float32)
    ab[0], ab[1] = 25, 35
    one, other = (paint(levels, ab, 1_200).astype(int) for levels in (clean, dusty))
    specks = dusty == 255
    assert np.abs(one - other)[~specks].max() <= 3
    assert (other[specks].min(axis=-1) >= 250).all()


@settings(deadline=None, max_examples=150)
@given(sizes(1, 90), st.sampled_from([1, 4, 30, 300]), st.sampled_from([1, 60, 400, 3000]))
def test_compose_planes8_of_any_size_is_independent_of_stripes(shape, cells, stripe_pixels):
    levels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    ab = smooth_chroma((3, 4), 30)
    whole = compose_planes8(levels, ab, cells)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("colorize_cli.compose.eight_bit._STRIPE_SHORTS", stripe_pixels)
        stripes = compose_planes8(levels, ab, cells)
    for name in ("luma", "blue", "red"):
        assert np.abs(getattr(stripes, name).astype(int) - getattr(whole, name)).max() <= 1


@pytest.mark.parametrize("shape", [(4, 40_000), (40_000, 4), (3114, 4000)])
def test_compose_planes8_handles_long_and_large_pictures(shape):
    planes = compose_planes8(np.full(shape, 100, np.uint8), np.full((2, 64, 88), 10, np.float32))
    assert planes.luma.shape == shape
    assert np.ptp(planes.red.astype(int)) <= 1


@pytest.mark.parametrize("size", [16, 64, 128, 512])
def test_compose_planes8_color_is_independent_of_cell_size(size):
    levels = np.full((size, size), 60, np.uint8)
    ab = np.full((2, 1, 1), -60, np.float32)
    ab[0] = 40
    planes = compose_planes8(levels, ab, 1)
    exact = compose_planes8(levels, ab, 10**9)
    for name in ("luma", "blue", "red"):
        assert np.abs(getattr(planes, name).astype(int) - int(getattr(exact, name)[0, 0])).max() <= 1
