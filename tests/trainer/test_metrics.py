import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from skimage.metrics import structural_similarity
from torch import Tensor

from colorize_cli.color import lab
from trainer.data.dataset import to_batch
from trainer.lab import recompose
from trainer.metrics import (
    ChromaStatistics,
    accuracy,
    colorfulness,
    find_strength,
    measure,
    psnr,
    ssim,
)

CELL_EDGES = np.arange(-135, 136, 10)  # cells of 10 CIE units, centered on the gray axis


def hasler_suesstrunk(rgb: np.ndarray) -> float:
    """Compute M3 of the paper for an (H, W, 3) 8-bit picture."""
    red, green, blue = (rgb[..., i].astype(float).ravel() for i in range(3))
    rg, yb = red - green, 0.5 * (red + green) - blue
    spread = math.hypot(rg.std(), yb.std())
    return spread + 0.3 * math.hypot(rg.mean(), yb.mean())


@pytest.fixture
def pictures() -> torch.Tensor:
    """(6, 3, 16, 16) of moderate chroma."""
    random = torch.Generator().manual_seed(0)
    coarse = 0.3 + 0.4 * torch.rand(6, 3, 4, 4, generator=random)
    return torch.nn.functional.interpolate(coarse, (16, 16), mode="bilinear")


@pytest.mark.parametrize(("error", "decibels"), [(1.0, 0.0), (0.1, 20.0), (0.01, 40.0), (1 / 255, 48.1308)])
def test_psnr_has_its_known_values(error, decibels):
    picture = torch.zeros(1, 3, 4, 4)
    assert psnr(picture + error, picture).item() == pytest.approx(decibels, abs=1e-3)


def test_psnr_is_computed_per_picture():
    truth = torch.zeros(3, 3, 4, 4)
    prediction = truth + torch.tensor([1.0, 0.1, 0.01]).view(3, 1, 1, 1)
    torch.testing.assert_close(psnr(prediction, truth), torch.tensor([0.0, 20.0, 40.0]), atol=1e-4, rtol=0)


def test_psnr_of_the_truth_is_finite():
    picture = torch.rand(1, 3, 4, 4)
    assert 90 < psnr(picture, picture).item() < 200


def test_colorfulness_follows_the_paper(pictures):
    eight_bit = (255 * pictures).round()
    expected = [hasler_suesstrunk(picture.permute(1, 2, 0).numpy()) for picture in eight_bit]
    np.testing.assert_allclose(colorfulness(eight_bit / 255).numpy(), expected, rtol=1e-4)


def test_colorfulness_equals_that_of_colorize_compare(pictures):
    eight_bit = (255 * pictures).round()
    pixels = eight_bit.permute(0, 2, 3, 1).numpy().astype(np.uint8)
    expected = [lab.colorfulness(picture) for picture in pixels]
    np.testing.assert_allclose(colorfulness(eight_bit / 255).numpy(), expected, rtol=1e-4)


def test_colorfulness_of_gray_is_zero():
    assert colorfulness(torch.rand(2, 1, 8, 8).expand(2, 3, 8, 8)).abs().max() < 1e-3


def colorfulness_of(pictures):
    """Return a function from strength to mean colorfulness."""
    lightness, ab, _ = to_batch(pictures)
    return lambda strength: float(colorfulness(recompose(lightness, strength * ab)).mean())


@pytest.mark.parametrize("share", [0.01, 0.3, 0.65, 1.0, 1.2])
def test_find_strength_reaches_a_share_to_a_thousandth(pictures, share):
    colorfulness_at = colorfulness_of(pictures)
    target = share * colorfulness_at(1.0)
    assert colorfulness_at(find_strength(colorfulness_at, target)) == pytest.approx(target, rel=1e-3)


@pytest.mark.parametrize("power", [0.2, 1.0, 4.0])
def test_find_strength_on_a_curve_takes_few_evaluations(power):
    calls = []

    def curve(strength: float) -> float:
        calls.append(strength)
        return 10 * strength**power

    target = 10 * 2**power
    assert 10 * find_strength(curve, target) ** power == pytest.approx(target, rel=1e-3)
    assert len(calls) <= 20
    assert all(0 <= strength <= 8 for strength in calls)


@pytest.mark.parametrize("target", [0.0, -1.0])
def test_find_strength_for_no_color_is_zero(pictures, target):
    assert find_strength(colorfulness_of(pictures), target) == 0


def test_find_strength_for_unreachable_color_is_none(pictures):
    assert find_strength(colorfulness_of(pictures), 1000.0) is None


@pytest.mark.parametrize(("target", "strength"), [(0.0, 0.0), (10.0, None)])
def test_find_strength_without_color_reaches_zero_only(target, strength):
    assert find_strength(lambda _: 0.0, target) == strength


def test_find_strength_on_a_stepped_curve_ends_near_the_target():
    """With steps as in 8-bit pictures, no strength reaches the target exactly."""
    found = find_strength(lambda strength: round(10 * strength) / 10, 1.234)
    assert found == pytest.approx(1.234, abs=0.06)


def test_measure_of_a_perfect_prediction_has_no_error(pictures):
    lightness, ab, _ = to_batch(pictures)
    figures = measure(lightness, ab, ab, shares=(0.65, 1.0))
    assert figures["ab_mae"] == 0
    assert figures["colorfulness_share"] == pytest.approx(1)
    assert figures["psnr"] > 90
    assert figures["gain_at_100"] > figures["gain_at_65"] > 0
    assert all(isinstance(value, float) and math.isfinite(value) for value in figures.values())


def test_measure_of_a_gray_prediction_has_no_gain(pictures):
    lightness, ab, _ = to_batch(pictures)
    figures = measure(lightness, torch.zeros_like(ab), ab)
    assert figures["gain"] == pytest.approx(0)
    assert "gain_at_65" not in figures
    assert figures["colorfulness"] == pytest.approx(0, abs=1e-3)


def test_measure_gain_is_the_mean_psnr_above_gray(pictures):
    lightness, ab, _ = to_batch(pictures)
    figures = measure(lightness, 0.5 * ab, ab)
    truth = recompose(lightness, ab)
    gray = psnr(recompose(lightness, torch.zeros_like(ab)), truth).mean().item()
    assert figures["psnr"] == pytest.approx(
        psnr(recompose(lightness, 0.5 * ab), truth).mean().item(), abs=1e-3
    )
    assert figures["gain"] == pytest.approx(figures["psnr"] - gray, abs=1e-3)
    assert figures["ab_mae"] == pytest.approx(0.5 * ab.abs().mean().item(), rel=1e-4)


def test_measure_gain_at_a_share_is_independent_of_strength(pictures):
    """Recipes are compared at equal colorfulness."""
    lightness, ab, _ = to_batch(pictures)
    faint, strong = (measure(lightness, factor * ab.flip(0), ab)["gain_at_65"] for factor in (0.5, 2.0))
    assert faint == pytest.approx(strong, abs=0.05)


def reference_ssim(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Compute the SSIM of (H, W, 3) pictures in [0, 1] by scikit-image."""
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    return float(structural_similarity(prediction, truth, channel_axis=-1, **options))


def distorted(pictures: Tensor) -> Tensor:
    """Pictures with increasing distance from the original."""
    noise = torch.rand(pictures.shape, generator=torch.Generator().manual_seed(1)) - 0.5
    return (pictures + noise * torch.linspace(0, 0.5, len(pictures)).view(-1, 1, 1, 1)).clamp(0, 1)


@pytest.mark.parametrize("shape", [(16, 16), (11, 11), (11, 40), (32, 24)])
def test_ssim_equals_that_of_scikit_image(pictures, shape):
    """Within 1e-4: variances are differences of float32 means (1e-7), divided by at least 9e-4."""
    truth = torch.nn.functional.interpolate(pictures, shape, mode="bilinear")
    prediction = distorted(truth)
    expected = [
        reference_ssim(*(x.permute(1, 2, 0).double().numpy() for x in pair))
        for pair in zip(prediction, truth, strict=True)
    ]
    found = ssim(prediction, truth)
    assert found.shape == (6,)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)
    assert found[0] == pytest.approx(1)
    assert (found.diff() < -0.01).all(), "the pictures differ ever more"


def test_ssim_is_independent_of_the_batch(pictures):
    prediction = distorted(pictures)
    alone = torch.cat([ssim(prediction[i : i + 1], pictures[i : i + 1]) for i in range(len(pictures))])
    assert alone.shape == (6,)
    torch.testing.assert_close(ssim(prediction, pictures), alone)


@pytest.mark.parametrize("shape", [(10, 40), (40, 10), (1, 1)])
def test_ssim_of_a_picture_smaller_than_its_window_is_refused(shape):
    with pytest.raises(ValueError, match="11 pixels"):
        ssim(torch.rand(1, 3, *shape), torch.rand(1, 3, *shape))


@pytest.mark.parametrize(("tolerance", "most"), [(0.02, 5), (0.05, 12)])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("channel", [0, 1, 2])
def test_accuracy_counts_8_bit_errors_up_to_the_tolerance(tolerance, most, sign, channel):
    truth = torch.arange(20, 236).view(1, 1, 1, -1).expand(1, 3, 1, -1)
    for error in range(most + 3):
        prediction = truth.clone()
        prediction[:, channel] += sign * error
        share = accuracy(prediction / 255, truth / 255, tolerance)
        assert share.tolist() == [1.0 if error <= most else 0.0], error


@pytest.mark.parametrize("tolerance", [0.02, 0.05])
def test_accuracy_includes_the_tolerance_itself(tolerance):
    truth = torch.linspace(0, 0.9, 100).view(1, 1, 10, 10).expand(1, 3, 10, 10)
    assert accuracy(truth + tolerance, truth, tolerance).item() == 1
    assert accuracy(truth - tolerance, truth, tolerance).item() == 1
    assert accuracy(truth + tolerance + 1e-4, truth, tolerance).item() == 0


def test_accuracy_is_the_share_of_pixels_per_picture():
    truth = torch.full((3, 3, 2, 4), 0.5)
    prediction = truth.clone()
    prediction[1, 0, 0, 0] = 1  # three channels off in three pixels
    prediction[1, 1, 0, 1] = 1
    prediction[1, 2, 1, 3] = 0
    prediction[2, :, 1, 1] = 1  # three in one
    torch.testing.assert_close(accuracy(prediction, truth, 0.05), torch.tensor([1, 5 / 8, 7 / 8]))


@pytest.fixture
def chroma() -> tuple[Tensor, Tensor]:
    """(8, 2, 12, 10) predicted and true ab within sRGB's range, some of them more than 150 apart."""
    random = torch.Generator().manual_seed(0)
    truth = (40 * torch.randn(8, 2, 12, 10, generator=random)).clamp(-120, 120)
    prediction = (0.6 * truth + 30 * torch.randn(8, 2, 12, 10, generator=random)).clamp(-120, 120)
    prediction[:2] = -truth[:2].sign() * 110
    return prediction, truth


def statistics_of(*batches: tuple[Tensor, Tensor]) -> ChromaStatistics:
    statistics = ChromaStatistics()
    for prediction, truth in batches:
        statistics.add(prediction, truth)
    return statistics


def as_pixels(ab: Tensor) -> np.ndarray:
    """(N, 2, H, W) => (N * H * W, 2)."""
    return ab.permute(0, 2, 3, 1).reshape(-1, 2).double().numpy()


def swept(errors: np.ndarray, weights: np.ndarray) -> float:
    """Compute the area under the curve of Zhang et al. by the trapezoidal rule over thresholds."""
    thresholds = np.arange(0, 150 + 1e-9, 0.02)
    shares = [weights[errors <= threshold].sum() / weights.sum() for threshold in thresholds]
    return float(np.trapezoid(shares, thresholds) / 150)


def cell_weights(truth: np.ndarray) -> np.ndarray:
    """Return the weights: 1 / the number of pixels with true chroma in the same cell."""
    _, which, counts = np.unique(
        np.digitize(truth, CELL_EDGES), axis=0, return_inverse=True, return_counts=True
    )
    return 1 / counts[which]


def test_auc_equals_a_sweep_of_thresholds(chroma):
    prediction, truth = map(as_pixels, chroma)
    errors = np.linalg.norm(prediction - truth, axis=1)
    assert (errors > 150).any()
    statistics = statistics_of(chroma)
    assert statistics.auc == pytest.approx(swept(errors, np.ones_like(errors)), abs=1e-4)
    assert statistics.auc_balanced == pytest.approx(swept(errors, cell_weights(truth)), abs=1e-4)
    assert abs(statistics.auc - statistics.auc_balanced) > 0.005


@pytest.mark.parametrize(("error", "area"), [(0, 1), (15, 0.9), (75, 0.5), (150, 0), (200, 0)])
def test_auc_of_a_constant_error_is_exact(error, area):
    truth = torch.tensor([-60.0, -80.0]).view(1, 2, 1, 1).expand(2, 2, 3, 3)
    direction = torch.tensor([0.6, 0.8]).view(1, 2, 1, 1)
    statistics = statistics_of((truth + error * direction, truth))
    assert statistics.auc == pytest.approx(area, abs=1e-6)
    assert statistics.auc_balanced == pytest.approx(area, abs=1e-6)


def test_auc_balanced_weights_rare_and_common_colors_equally():
    """99 pixels of one color are off by 30, one of another by 90."""
    truth = torch.zeros(1, 2, 10, 10)
    truth[..., 0, 0] = torch.tensor([60.0, -60.0])
    prediction = truth + torch.tensor([30.0, 0.0]).view(1, 2, 1, 1)
    prediction[..., 0, 0] = torch.tensor([60.0, 30.0])
    statistics = statistics_of((prediction, truth))
    assert statistics.auc == pytest.approx(1 - (99 * 30 + 90) / 100 / 150)
    assert statistics.auc_balanced == pytest.approx(1 - (30 + 90) / 2 / 150)


def test_jensen_shannon_equals_that_of_scipy(chroma):
    histograms = [np.histogram2d(*as_pixels(ab).T, bins=CELL_EDGES)[0].ravel() for ab in chroma]
    assert all(histogram.sum() == 960 for histogram in histograms)
    distance = statistics_of(chroma).jensen_shannon
    assert distance == pytest.approx(jensenshannon(*histograms, base=2), abs=1e-9)
    assert 0.1 < distance < 0.99


def test_statistics_of_a_perfect_prediction_have_no_distance(chroma):
    statistics = statistics_of((chroma[1], chroma[1]))
    assert (statistics.auc, statistics.auc_balanced, statistics.jensen_shannon) == (1, 1, 0)


def test_jensen_shannon_ignores_places_and_auc_does_not(chroma):
    statistics = statistics_of((chroma[1].flip(0), chroma[1]))
    assert statistics.jensen_shannon == pytest.approx(0, abs=1e-6)
    assert statistics.auc < 0.8


def test_jensen_shannon_without_common_cells_is_1(chroma):
    truth = chroma[1].abs() + 10
    assert statistics_of((-truth, truth)).jensen_shannon == pytest.approx(1)


def test_jensen_shannon_distinguishes_the_axes():
    ab = torch.tensor([50.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    assert statistics_of((ab.flip(1), ab)).jensen_shannon == pytest.approx(1)


@pytest.mark.parametrize("sizes", [[8], [1] * 8, [3, 5], [7, 1]])
def test_statistics_are_independent_of_batches(chroma, sizes):
    parts = zip(*(ab.split(sizes) for ab in chroma), strict=True)
    whole, split = statistics_of(chroma), statistics_of(*parts)
    for name in ("auc", "auc_balanced", "jensen_shannon"):
        assert getattr(split, name) == pytest.approx(getattr(whole, name), rel=1e-9)


def test_statistics_clamp_chroma_to_the_nearest_cell():
    truth = torch.tensor([130.0, -130.0]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    statistics = statistics_of((truth * 10, truth))
    assert statistics.jensen_shannon == 0
    assert statistics.auc == pytest.approx(0)
