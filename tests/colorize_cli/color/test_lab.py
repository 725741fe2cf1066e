import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import color as reference

from colorize_cli.color import lab as color_lab
from colorize_cli.color import lightness


@pytest.fixture(scope="module")
def rgb() -> np.ndarray:
    return np.random.default_rng(0).random((64, 64, 3), dtype=np.float32)


def test_srgb_to_linear_follows_iec_61966_2_1():
    np.testing.assert_allclose(
        color_lab.srgb_to_linear([0, 0.04045, 0.5, 1]), [0, 0.0031308, 0.2140411, 1], atol=1e-6
    )


def test_linear_to_srgb_inverts_srgb_to_linear():
    v = np.linspace(0, 1, 1001)
    np.testing.assert_allclose(color_lab.linear_to_srgb(color_lab.srgb_to_linear(v)), v, atol=1e-6)


def test_srgb_to_lab_agrees_with_scikit_image(rgb):
    # scikit-image's matrix has six digits of another rounding of the primaries.
    np.testing.assert_allclose(color_lab.srgb_to_lab(rgb), reference.rgb2lab(rgb), atol=0.03)


# Lab of the sRGB primaries under D65, www.brucelindbloom.com, "CIE Color Calculator".
@pytest.mark.parametrize(
    ("srgb", "lab"),
    [
        ((1, 0, 0), (53.2408, 80.0925, 67.2032)),
        ((0, 1, 0), (87.7347, -86.1827, 83.1793)),
        ((0, 0, 1), (32.2970, 79.1875, -107.8602)),
        ((1, 1, 1), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
    ],
)
def test_srgb_to_lab_of_the_primaries_is_as_published(srgb, lab):
    np.testing.assert_allclose(color_lab.srgb_to_lab(srgb), lab, atol=5e-3)


def test_lab_to_srgb_inverts_srgb_to_lab(rgb):
    np.testing.assert_allclose(color_lab.lab_to_srgb(color_lab.srgb_to_lab(rgb)), rgb, atol=1e-4)


def test_srgb_to_lab_of_gray_has_no_chroma():
    gray = np.repeat(np.linspace(0, 1, 256, dtype=np.float32)[:, None], 3, axis=1)
    lab = color_lab.srgb_to_lab(gray)
    assert np.abs(lab[:, 1:]).max() < 1e-3
    np.testing.assert_allclose(lab[:, 0], lightness.GRAY8, atol=1e-4)


labs = st.tuples(st.floats(0, 100), st.floats(-128, 128), st.floats(-128, 128))


@settings(deadline=None)
@given(labs)
def test_fit_gamut_keeps_lightness_and_hue_at_the_largest_chroma(lab):
    lab = np.array(lab, np.float32)
    fitted = color_lab.fit_gamut(lab)
    linear = color_lab.lab_to_linear(fitted)
    assert linear.min() >= -1e-5
    assert linear.max() <= 1 + 1e-5
    assert fitted[0] == lab[0]
    before, after = np.hypot(*lab[1:]), np.hypot(*fitted[1:])
    assert after <= before * (1 + 1e-6)
    # The direction in the a*b* plane is kept.
    assert abs(lab[1] * fitted[2] - lab[2] * fitted[1]) <= 1e-3 * max(1, before)
    if after < before * 0.999 and after > 0:
        further = color_lab.lab_to_linear(lab * [1, *[(after / before) + 1 / 256] * 2])
        assert further.min() < 1e-6 or further.max() > 1 - 1e-6


def test_fit_gamut_keeps_colors_inside(rgb):
    lab = color_lab.srgb_to_lab(0.02 + 0.96 * rgb)
    np.testing.assert_array_equal(color_lab.fit_gamut(lab), lab)


@settings(deadline=None)
@given(labs)
def test_compose_rgb8_keeps_lightness(lab):
    lightness, a, b = (np.full((1, 1), value, np.float32) for value in lab)
    out = color_lab.compose_rgb8(lightness, a, b)
    assert abs(color_lab.srgb_to_lab(out / 255)[0, 0, 0] - lab[0]) < 0.6


def test_compose_rgb8_of_gray_returns_the_codes():
    zero = np.zeros((1, 256), np.float32)
    out = color_lab.compose_rgb8(lightness.GRAY8[None], zero, zero)
    np.testing.assert_array_equal(out[0], np.repeat(np.arange(256)[:, None], 3, axis=1))


def test_lightness_tables_reach_from_black_to_white():
    for table in (lightness.GRAY8, lightness.GRAY16, lightness.UNIFORM16):
        assert table.dtype == np.float32
        np.testing.assert_allclose(table[[0, -1]], [0, 100], atol=1e-4)
        assert (np.diff(table) > 0).all()
    assert lightness.UNIFORM16[lightness.uniform_codes(np.float32([33.3]))][0] == pytest.approx(
        33.3, abs=1e-3
    )


def test_colorfulness_follows_the_paper(monkeypatch):
    # Hasler & Suesstrunk 2003, written as in the paper.
    rgb = np.random.default_rng(1).integers(0, 256, (41, 60, 3), dtype=np.uint8)
    rgb[:20] //= 3
    red, green, blue = np.moveaxis(rgb.astype(float), -1, 0)
    rg, yb = red - green, (red + green) / 2 - blue
    expected = np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean())
    assert color_lab.colorfulness(rgb) == pytest.approx(expected, rel=1e-9)
    monkeypatch.setattr(color_lab, "_STRIPE_PIXELS", 100)
    assert color_lab.colorfulness(rgb) == pytest.approx(expected, rel=1e-9)


def test_colorfulness_of_gray_and_of_one_color_is_exact():
    gray = np.random.default_rng(2).integers(0, 256, (50, 50, 1), dtype=np.uint8).repeat(3, axis=2)
    assert color_lab.colorfulness(gray) == pytest.approx(0, abs=1e-4)
    blue = np.full((5, 7, 3), (10, 20, 115), np.uint8)
    assert color_lab.colorfulness(blue) == pytest.approx(0.3 * np.hypot(10, 100), abs=1e-4)
