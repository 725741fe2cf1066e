import numpy as np
import pytest
import torch
from skimage import color
from skimage.color import colorconv
from torch import Tensor

from trainer.lab import lab_to_rgb, luminance_to_lightness, rgb_to_lab, rgb_to_linear

# Lindbloom's CIE colour calculator: sRGB, D65, no adaptation.
REFERENCES = {
    "black": ((0, 0, 0), (0, 0, 0)),
    "white": ((1, 1, 1), (100, 0, 0)),
    "red": ((1, 0, 0), (53.2408, 80.0925, 67.2032)),
    "green": ((0, 1, 0), (87.7347, -86.1827, 83.1793)),
    "blue": ((0, 0, 1), (32.2970, 79.1875, -107.8602)),
    "cyan": ((0, 1, 1), (91.1132, -48.0875, -14.1312)),
    "magenta": ((1, 0, 1), (60.3242, 98.2343, -60.8249)),
    "yellow": ((1, 1, 0), (97.1393, -21.5537, 94.4780)),
}


def as_picture(colours: np.ndarray) -> Tensor:
    """(M, 3) colours to a picture of one column: (1, 3, M, 1)."""
    return torch.from_numpy(colours).T[None, :, :, None]


def as_colours(picture: Tensor) -> np.ndarray:
    return picture[0, :, :, 0].T.numpy()


def greys() -> np.ndarray:
    return np.repeat(np.arange(256)[:, None] / 255, 3, axis=1)


def grid() -> np.ndarray:
    return np.stack(np.meshgrid(*[np.linspace(0, 1, 17)] * 3), axis=-1).reshape(-1, 3)


def scattered() -> np.ndarray:
    return np.random.default_rng(0).random((2000, 3))


COLOURS = pytest.mark.parametrize("colours", [greys(), grid(), scattered()], ids=["greys", "grid", "random"])


@pytest.fixture
def exact_white(monkeypatch):
    """Let scikit-image use the primaries to seven digits.

    Its own matrix has six, which do not add up to its white point: its white is (100, -0.0025, 0.0047).
    """
    matrix = np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ]
    )
    monkeypatch.setattr(colorconv, "xyz_from_rgb", matrix)
    monkeypatch.setattr(colorconv, "rgb_from_xyz", np.linalg.inv(matrix))


@pytest.mark.parametrize("name", REFERENCES)
def test_agrees_with_published_values(name):
    rgb, lab = (np.array([values], dtype=np.float64) for values in REFERENCES[name])
    np.testing.assert_allclose(as_colours(rgb_to_lab(as_picture(rgb))), lab, atol=2e-3)
    np.testing.assert_allclose(as_colours(lab_to_rgb(as_picture(lab))), rgb, atol=1e-3)


@COLOURS
def test_agrees_with_skimage_to_a_thousandth(colours, exact_white):
    lab = color.rgb2lab(colours)
    np.testing.assert_allclose(as_colours(rgb_to_lab(as_picture(colours))), lab, atol=1e-3)
    np.testing.assert_allclose(as_colours(lab_to_rgb(as_picture(lab))), color.lab2rgb(lab), atol=1e-3)


@COLOURS
def test_differs_from_skimage_as_it_is_by_its_white_only(colours):
    np.testing.assert_allclose(as_colours(rgb_to_lab(as_picture(colours))), color.rgb2lab(colours), atol=5e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@COLOURS
def test_one_direction_undoes_the_other(colours, dtype):
    rgb = as_picture(colours).to(dtype)
    assert (lab_to_rgb(rgb_to_lab(rgb)) - rgb).abs().max() < 1e-5


def test_greys_have_no_chroma_and_lightness_stays_within_its_range():
    lab = as_colours(rgb_to_lab(as_picture(greys()).float()))
    assert np.abs(lab[:, 1:]).max() < 1e-3
    assert lab[:, 0].min() >= -1e-5
    assert lab[:, 0].max() <= 100 + 1e-4
    assert (np.diff(lab[:, 0]) > 0).all()


# sRGB from IEC 61966-2-1, L* from CIE 15; both change their formula near black.
@pytest.mark.parametrize(
    ("encoded", "linear"), [(0, 0), (0.01, 0.01 / 12.92), (0.04045, 0.0031308), (0.5, 0.2140411), (1, 1)]
)
def test_linear_light_is_that_of_the_standard(encoded, linear):
    assert rgb_to_linear(torch.tensor(encoded, dtype=torch.float64)).item() == pytest.approx(linear, abs=1e-7)


@pytest.mark.parametrize(
    ("luminance", "lightness"),
    [(0, 0), (0.001, 0.9032963), (216 / 24389, 8), (0.1841865, 50), (0.5, 76.0692610), (1, 100)],
)
def test_lightness_is_that_of_the_standard(luminance, lightness):
    found = luminance_to_lightness(torch.tensor(luminance, dtype=torch.float64)).item()
    assert found == pytest.approx(lightness, abs=1e-4)


@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (2, 3, 4, 5)])
@pytest.mark.parametrize("convert", [rgb_to_linear, luminance_to_lightness])
def test_light_is_converted_in_any_shape(convert, shape):
    values = torch.rand(shape)
    converted = convert(values)
    assert converted.shape == shape
    assert converted.dtype == torch.float32
    torch.testing.assert_close(converted.flatten(), torch.stack([convert(v) for v in values.flatten()]))


@COLOURS
def test_lightness_of_lab_is_that_of_the_luminance(colours):
    rgb = as_picture(colours)
    luminance = (rgb_to_linear(rgb) * torch.tensor([0.2126729, 0.7151522, 0.0721750]).view(3, 1, 1)).sum(1)
    torch.testing.assert_close(luminance_to_lightness(luminance), rgb_to_lab(rgb)[:, 0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("convert", [rgb_to_linear, luminance_to_lightness])
def test_light_rises_without_a_step_where_the_formula_changes(convert):
    steps = convert(torch.linspace(0, 1, 10_001, dtype=torch.float64)).diff()
    assert (steps > 0).all()
    assert (steps[1:] / steps[:-1] - 1).abs().max() < 0.06


@pytest.mark.parametrize("value", [0.0, 1e-8, 0.04045, 0.5, 1.0])
def test_gradient_to_lab_is_finite(value):
    rgb = torch.full((1, 3, 2, 2), value, requires_grad=True)
    rgb_to_lab(rgb).sum().backward()
    assert rgb.grad.isfinite().all()


@pytest.mark.parametrize("lightness", [0.0, 0.5, 8.0, 50.0, 100.0])
@pytest.mark.parametrize("chroma", [-150.0, -1e-6, 0.0, 150.0])
def test_gradient_to_rgb_is_finite_inside_and_outside_the_gamut(lightness, chroma):
    lab = torch.tensor([lightness, chroma, -chroma]).view(1, 3, 1, 1).requires_grad_()
    rgb = lab_to_rgb(lab)
    rgb.sum().backward()
    assert rgb.isfinite().all()
    assert lab.grad.isfinite().all()


@pytest.mark.parametrize("convert", [rgb_to_lab, lab_to_rgb])
def test_gradient_is_right(convert):
    rgb = torch.tensor([[0.02, 0.6, 0.9], [0.3, 0.01, 0.7], [0.5, 0.5, 0.5]], dtype=torch.float64)
    colours = rgb if convert is rgb_to_lab else color_to_lab(rgb)
    torch.autograd.gradcheck(convert, (colours.T[None, :, :, None].clone().requires_grad_(),))


def color_to_lab(rgb: Tensor) -> Tensor:
    return torch.from_numpy(color.rgb2lab(rgb.numpy()))


@pytest.mark.parametrize("convert", [rgb_to_lab, lab_to_rgb])
def test_each_picture_of_a_batch_is_converted_alone(convert):
    pictures = torch.rand(3, 3, 4, 5)
    converted = convert(pictures)
    assert converted.shape == pictures.shape
    assert converted.dtype == torch.float32
    torch.testing.assert_close(converted[1:2], convert(pictures[1:2]), atol=1e-4, rtol=0)
