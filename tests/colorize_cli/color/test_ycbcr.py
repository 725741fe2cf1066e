"""Chroma for a given luma gives the wanted color."""

import cv2
import numpy as np
import pytest

from colorize_cli.color.lab import lightness_of_gray, linear_to_srgb, srgb_to_lab
from colorize_cli.color.ycbcr import BT601, BT709, BT2020, Coding, chroma_of, matrix_of, rgb_of


@pytest.mark.parametrize("matrix", [BT601, BT709, BT2020])
def test_rgb_of_luma_and_chroma_returns_the_color(matrix):
    rgb = np.random.default_rng(0).random((60, 60, 3)).astype(np.float32)
    lab = srgb_to_lab(rgb)
    luma = (rgb @ [matrix.red, 1 - matrix.red - matrix.blue, matrix.blue]).astype(np.float32)
    cb, cr = chroma_of(lightness_of_gray(luma), lab[..., 1], lab[..., 2], matrix)
    back = rgb_of(luma, cb, cr, matrix)
    assert back.min() > -1e-4
    assert back.max() < 1 + 1e-4
    error = np.abs(srgb_to_lab(np.clip(back, 0, 1)) - lab)
    assert error.mean() < 1
    # Inside the gamut the error of chroma is a fraction of the visible threshold.
    muted = np.hypot(lab[..., 1], lab[..., 2]) < 30
    assert error[muted].max() < 2


@pytest.mark.parametrize("matrix", [BT601, BT709])
def test_chroma_of_strong_colors_stays_in_gamut(matrix):
    lightness = np.linspace(0, 100, 101, dtype=np.float32)[:, None] * np.ones((1, 36), np.float32)
    angle = np.linspace(0, 2 * np.pi, 36, dtype=np.float32)[None]
    cb, cr = chroma_of(
        lightness, 120 * np.cos(angle) + 0 * lightness, 120 * np.sin(angle) + 0 * lightness, matrix
    )
    luma = linear_to_srgb(((lightness + 16) / 116) ** 3)
    rgb = rgb_of(np.where(lightness > 8, luma, 0), cb, cr, matrix)
    inside = lightness > 8
    assert rgb[inside].min() > -1e-3
    assert rgb[inside].max() < 1 + 1e-3


def test_chroma_of_gray_is_zero():
    lightness = np.linspace(0, 100, 50, dtype=np.float32)[None]
    cb, cr = chroma_of(lightness, 0 * lightness, 0 * lightness, BT709)
    assert np.abs(cb).max() < 1e-6
    assert np.abs(cr).max() < 1e-6


def test_codes_equal_those_of_opencv():
    """cv2's YUV is full-range BT.601."""
    rgb = np.random.default_rng(1).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    ycrcb = cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb).astype(np.float32)
    luma, cb, cr = Coding(8, full=True).values(ycrcb[..., 0], ycrcb[..., 2], ycrcb[..., 1])
    np.testing.assert_allclose(rgb_of(luma, cb, cr, BT601) * 255, rgb, atol=1.6)
    np.testing.assert_array_equal(Coding(8, full=True).chroma_codes(cb), ycrcb[..., 2])


@pytest.mark.parametrize(("bits", "full"), [(8, False), (8, True), (10, False), (12, True)])
def test_coding_has_the_codes_of_black_white_and_neutral(bits, full):
    coding = Coding(bits, full)
    table = coding.lightness_table()
    scale = 2 ** (bits - 8)
    black, white = (0, 2**bits - 1) if full else (16 * scale, 235 * scale)
    assert table[black] == pytest.approx(0, abs=1e-3)
    assert table[white] == pytest.approx(100, abs=1e-3)
    assert np.all(np.diff(table) >= 0)
    assert coding.chroma_codes(np.zeros((1, 1), np.float32))[0, 0] == 128 * scale


def test_matrix_unspecified_is_guessed_by_height():
    assert matrix_of(2, 480) == BT601
    assert matrix_of(2, 1080) == BT709
    assert matrix_of(9, 480) == BT2020
    assert matrix_of(0, 480) is None
