import numpy as np
import pytest
import torch
from skimage import color
from skimage.color import colorconv
from torch import Tensor

from trainer.lab import ciede2000, lab_to_rgb, luminance_to_lightness, recompose, rgb_to_lab, rgb_to_linear

# Lindbloom's CIE color calculator: sRGB, D65, no adaptation.
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


def as_picture(colors: np.ndarray) -> Tensor:
    """Arrange colors as a picture of one column: (M, 3) => (1, 3, M, 1)."""
    return torch.from_numpy(colors).T[None, :, :, None]


def as_colors(picture: Tensor) -> np.ndarray:
    return picture[0, :, :, 0].T.numpy()


def grays() -> np.ndarray:
    return np.repeat(np.arange(256)[:, None] / 255, 3, axis=1)


def grid() -> np.ndarray:
    return np.stack(np.meshgrid(*[np.linspace(0, 1, 17)] * 3), axis=-1).reshape(-1, 3)


def scattered() -> np.ndarray:
    return np.random.default_rng(0).random((2000, 3))


COLORS = pytest.mark.parametrize("colors", [grays(), grid(), scattered()], ids=["grays", "grid", "random"])


@pytest.fixture
def exact_white(monkeypatch):
    """Make scikit-image use primaries with seven digits.

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
def test_conversion_agrees_with_published_values(name):
    rgb, lab = (np.array([values], dtype=np.float64) for values in REFERENCES[name])
    np.testing.assert_allclose(as_colors(rgb_to_lab(as_picture(rgb))), lab, atol=2e-3)
    np.testing.assert_allclose(as_colors(lab_to_rgb(as_picture(lab))), rgb, atol=1e-3)


@COLORS
def test_conversion_agrees_with_skimage_to_a_thousandth(colors, exact_white):
    lab = color.rgb2lab(colors)
    np.testing.assert_allclose(as_colors(rgb_to_lab(as_picture(colors))), lab, atol=1e-3)
    np.testing.assert_allclose(as_colors(lab_to_rgb(as_picture(lab))), color.lab2rgb(lab), atol=1e-3)


@COLORS
def test_rgb_to_lab_agrees_with_unchanged_skimage_except_its_white(colors):
    np.testing.assert_allclose(as_colors(rgb_to_lab(as_picture(colors))), color.rgb2lab(colors), atol=5e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@COLORS
def test_lab_to_rgb_inverts_rgb_to_lab(colors, dtype):
    rgb = as_picture(colors).to(dtype)
    assert (lab_to_rgb(rgb_to_lab(rgb)) - rgb).abs().max() < 1e-5


def test_rgb_to_lab_of_grays_has_no_chroma_and_valid_lightness():
    lab = as_colors(rgb_to_lab(as_picture(grays()).float()))
    assert np.abs(lab[:, 1:]).max() < 1e-3
    assert lab[:, 0].min() >= -1e-5
    assert lab[:, 0].max() <= 100 + 1e-4
    assert (np.diff(lab[:, 0]) > 0).all()


# sRGB from IEC 61966-2-1, L* from CIE 15; both have another formula near black.
@pytest.mark.parametrize(
    ("encoded", "linear"), [(0, 0), (0.01, 0.01 / 12.92), (0.04045, 0.0031308), (0.5, 0.2140411), (1, 1)]
)
def test_rgb_to_linear_follows_the_standard(encoded, linear):
    assert rgb_to_linear(torch.tensor(encoded, dtype=torch.float64)).item() == pytest.approx(linear, abs=1e-7)


@pytest.mark.parametrize(
    ("luminance", "lightness"),
    [(0, 0), (0.001, 0.9032963), (216 / 24389, 8), (0.1841865, 50), (0.5, 76.0692610), (1, 100)],
)
def test_luminance_to_lightness_follows_the_standard(luminance, lightness):
    found = luminance_to_lightness(torch.tensor(luminance, dtype=torch.float64)).item()
    assert found == pytest.approx(lightness, abs=1e-4)


@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (2, 3, 4, 5)])
@pytest.mark.parametrize("convert", [rgb_to_linear, luminance_to_lightness])
def test_light_conversion_accepts_any_shape(convert, shape):
    values = torch.rand(shape)
    converted = convert(values)
    assert converted.shape == shape
    assert converted.dtype == torch.float32
    torch.testing.assert_close(converted.flatten(), torch.stack([convert(v) for v in values.flatten()]))


@COLORS
def test_rgb_to_lab_lightness_follows_luminance(colors):
    rgb = as_picture(colors)
    luminance = (rgb_to_linear(rgb) * torch.tensor([0.2126729, 0.7151522, 0.0721750]).view(3, 1, 1)).sum(1)
    torch.testing.assert_close(luminance_to_lightness(luminance), rgb_to_lab(rgb)[:, 0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("convert", [rgb_to_linear, luminance_to_lightness])
def test_light_conversion_is_monotonic_and_continuous(convert):
    steps = convert(torch.linspace(0, 1, 10_001, dtype=torch.float64)).diff()
    assert (steps > 0).all()
    assert (steps[1:] / steps[:-1] - 1).abs().max() < 0.06


@pytest.mark.parametrize("value", [0.0, 1e-8, 0.04045, 0.5, 1.0])
def test_rgb_to_lab_gradient_is_finite(value):
    rgb = torch.full((1, 3, 2, 2), value, requires_grad=True)
    rgb_to_lab(rgb).sum().backward()
    assert rgb.grad.isfinite().all()


@pytest.mark.parametrize("lightness", [0.0, 0.5, 8.0, 50.0, 100.0])
@pytest.mark.parametrize("chroma", [-150.0, -1e-6, 0.0, 150.0])
def test_lab_to_rgb_gradient_is_finite_in_and_out_of_gamut(lightness, chroma):
    lab = torch.tensor([lightness, chroma, -chroma]).view(1, 3, 1, 1).requires_grad_()
    rgb = lab_to_rgb(lab)
    rgb.sum().backward()
    assert rgb.isfinite().all()
    assert lab.grad.isfinite().all()


@pytest.mark.parametrize("convert", [rgb_to_lab, lab_to_rgb])
def test_conversion_gradient_passes_gradcheck(convert):
    rgb = torch.tensor([[0.02, 0.6, 0.9], [0.3, 0.01, 0.7], [0.5, 0.5, 0.5]], dtype=torch.float64)
    colors = rgb if convert is rgb_to_lab else color_to_lab(rgb)
    assert torch.autograd.gradcheck(convert, (colors.T[None, :, :, None].clone().requires_grad_(),))


def color_to_lab(rgb: Tensor) -> Tensor:
    return torch.from_numpy(color.rgb2lab(rgb.numpy()))


@pytest.mark.parametrize("convert", [rgb_to_lab, lab_to_rgb])
def test_conversion_of_a_batch_treats_pictures_separately(convert):
    pictures = torch.rand(3, 3, 4, 5)
    converted = convert(pictures)
    assert converted.shape == pictures.shape
    assert converted.dtype == torch.float32
    torch.testing.assert_close(converted[1:2], convert(pictures[1:2]), atol=1e-4, rtol=0)


@pytest.fixture
def pictures() -> Tensor:
    """(3, 3, 16, 24) of moderate chroma."""
    coarse = 0.3 + 0.4 * torch.rand(3, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, (16, 24), mode="bilinear")


def test_recompose_of_lab_channels_returns_the_picture(pictures):
    lab = rgb_to_lab(pictures)
    torch.testing.assert_close(recompose(lab[:, :1], lab[:, 1:]), pictures, atol=1e-4, rtol=0)


def test_recompose_clips_colors_outside_srgb(pictures):
    lab = rgb_to_lab(pictures)
    vivid = recompose(lab[:, :1], 10 * lab[:, 1:])
    assert vivid.min() == 0
    assert vivid.max() == 1


def test_recompose_without_chroma_is_gray(pictures):
    gray = recompose(rgb_to_lab(pictures)[:, :1], torch.zeros(3, 2, 1, 1))
    assert gray.shape == pictures.shape
    assert (gray.amax(1) - gray.amin(1)).max() < 1e-4


def test_recompose_upsamples_coarse_chroma_bilinearly(pictures):
    lightness, ab = rgb_to_lab(pictures).split((1, 2), dim=1)
    coarse = torch.nn.functional.avg_pool2d(ab, 4)
    upsampled = torch.nn.functional.interpolate(coarse, (16, 24), mode="bilinear", align_corners=False)
    torch.testing.assert_close(recompose(lightness, coarse), recompose(lightness, upsampled))
    assert (recompose(lightness, coarse) - recompose(lightness, ab)).abs().max() > 1e-3


def test_recompose_under_autocast_computes_in_fp32(pictures):
    lightness, ab = rgb_to_lab(pictures).split((1, 2), dim=1)
    ab = torch.nn.functional.avg_pool2d(ab, 2).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = recompose(lightness, ab)
        assert torch.is_autocast_enabled("cpu"), "autocast stays enabled"
    assert found.dtype == torch.float32
    assert torch.equal(found, recompose(lightness, ab.float()))


def test_recompose_gradient_reaches_coarse_chroma(pictures):
    lightness, ab = rgb_to_lab(pictures).split((1, 2), dim=1)
    coarse = torch.nn.functional.avg_pool2d(ab, 4).requires_grad_()
    recompose(lightness, coarse).square().sum().backward()
    assert coarse.grad.isfinite().all()
    assert (coarse.grad != 0).all()


# Sharma, Wu & Dalal 2005, table 1: two colors and their difference.
CIEDE2000_PAIRS = [
    ((50.0000, 2.6772, -79.7751), (50.0000, 0.0000, -82.7485), 2.0425),
    ((50.0000, 3.1571, -77.2803), (50.0000, 0.0000, -82.7485), 2.8615),
    ((50.0000, 2.8361, -74.0200), (50.0000, 0.0000, -82.7485), 3.4412),
    ((50.0000, -1.3802, -84.2814), (50.0000, 0.0000, -82.7485), 1.0000),
    ((50.0000, -1.1848, -84.8006), (50.0000, 0.0000, -82.7485), 1.0000),
    ((50.0000, -0.9009, -85.5211), (50.0000, 0.0000, -82.7485), 1.0000),
    ((50.0000, 0.0000, 0.0000), (50.0000, -1.0000, 2.0000), 2.3669),
    ((50.0000, -1.0000, 2.0000), (50.0000, 0.0000, 0.0000), 2.3669),
    ((50.0000, 2.4900, -0.0010), (50.0000, -2.4900, 0.0009), 7.1792),
    ((50.0000, 2.4900, -0.0010), (50.0000, -2.4900, 0.0010), 7.1792),
    ((50.0000, 2.4900, -0.0010), (50.0000, -2.4900, 0.0011), 7.2195),
    ((50.0000, 2.4900, -0.0010), (50.0000, -2.4900, 0.0012), 7.2195),
    ((50.0000, -0.0010, 2.4900), (50.0000, 0.0009, -2.4900), 4.8045),
    ((50.0000, -0.0010, 2.4900), (50.0000, 0.0010, -2.4900), 4.8045),
    ((50.0000, -0.0010, 2.4900), (50.0000, 0.0011, -2.4900), 4.7461),
    ((50.0000, 2.5000, 0.0000), (50.0000, 0.0000, -2.5000), 4.3065),
    ((50.0000, 2.5000, 0.0000), (73.0000, 25.0000, -18.0000), 27.1492),
    ((50.0000, 2.5000, 0.0000), (61.0000, -5.0000, 29.0000), 22.8977),
    ((50.0000, 2.5000, 0.0000), (56.0000, -27.0000, -3.0000), 31.9030),
    ((50.0000, 2.5000, 0.0000), (58.0000, 24.0000, 15.0000), 19.4535),
    ((50.0000, 2.5000, 0.0000), (50.0000, 3.1736, 0.5854), 1.0000),
    ((50.0000, 2.5000, 0.0000), (50.0000, 3.2972, 0.0000), 1.0000),
    ((50.0000, 2.5000, 0.0000), (50.0000, 1.8634, 0.5757), 1.0000),
    ((50.0000, 2.5000, 0.0000), (50.0000, 3.2592, 0.3350), 1.0000),
    ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ((63.0109, -31.0961, -5.8663), (62.8187, -29.7946, -4.0864), 1.2630),
    ((61.2901, 3.7196, -5.3901), (61.4292, 2.2480, -4.9620), 1.8731),
    ((35.0831, -44.1164, 3.7933), (35.0232, -40.0716, 1.5901), 1.8645),
    ((22.7233, 20.0904, -46.6940), (23.0331, 14.9730, -42.5619), 2.0373),
    ((36.4612, 47.8580, 18.3852), (36.2715, 50.5065, 21.2231), 1.4146),
    ((90.8027, -2.0831, 1.4410), (91.1528, -1.6435, 0.0447), 1.4441),
    ((90.9257, -0.5406, -0.9208), (88.6381, -0.8985, -0.7239), 1.5381),
    ((6.7747, -0.2908, -2.4247), (5.8714, -0.0985, -2.2286), 0.6377),
    ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
]


def differences(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Compute CIEDE2000 between two sets of (M, 3) colors."""
    return ciede2000(as_picture(first), as_picture(second))[0, 0, :, 0].numpy()


def colors_of_lab() -> tuple[np.ndarray, np.ndarray]:
    """Pairs of near and distant colors inside and outside sRGB, with grays as first, second or both."""
    random = np.random.default_rng(0)
    first, second = random.uniform([0, -120, -120], [100, 120, 120], (2, 4000, 3))
    second[1000:2000] = first[1000:2000] + random.normal(0, 3, (1000, 3))
    first[2000:3000, 1:] *= 0.02
    first[3000:3500, 1:] = 0
    second[3250:3750, 1:] = 0
    return first, second


@pytest.mark.parametrize(("first", "second", "published"), CIEDE2000_PAIRS, ids=range(1, 35))
def test_ciede2000_equals_published_values(first, second, published):
    one, other = np.array([first]), np.array([second])
    assert color.deltaE_ciede2000(one, other)[0] == pytest.approx(published, abs=1e-4)
    assert differences(one, other)[0] == pytest.approx(published, abs=1e-4)
    assert differences(other, one)[0] == pytest.approx(published, abs=1e-4)


def test_ciede2000_agrees_with_skimage():
    first, second = colors_of_lab()
    expected = color.deltaE_ciede2000(first, second)
    np.testing.assert_allclose(differences(first, second), expected, rtol=1e-9, atol=1e-9)


def test_ciede2000_in_single_precision_is_accurate():
    first, second = colors_of_lab()
    single = differences(first.astype(np.float32), second.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, differences(first, second), rtol=1e-4, atol=2e-3)


def test_ciede2000_is_symmetric_and_positive():
    first, second = colors_of_lab()
    forth, back = differences(first, second), differences(second, first)
    np.testing.assert_allclose(forth, back, rtol=1e-12, atol=1e-12)
    assert (forth > 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("place", [0, 1])
def test_ciede2000_of_equal_colors_is_zero(dtype, place):
    colors = np.concatenate([colors_of_lab()[place], np.zeros((1, 3)), [[100, 0, 0]]]).astype(dtype)
    assert (differences(colors, colors) == 0).all()


def test_ciede2000_of_grays_is_their_lightness_difference():
    """Around L* = 50, where S_L is 1."""
    gray, lighter = np.array([[49.5, 0, 0]]), np.array([[50.5, 0, 0]])
    assert differences(gray, lighter)[0] == pytest.approx(1)


def test_ciede2000_is_computed_per_pixel():
    first, second = (
        torch.from_numpy(colors.reshape(40, 20, 5, 3)).permute(0, 3, 1, 2) for colors in colors_of_lab()
    )
    found = ciede2000(first, second)
    assert found.shape == (40, 1, 20, 5)
    np.testing.assert_allclose(found.flatten().numpy(), differences(*colors_of_lab()), rtol=1e-9)
