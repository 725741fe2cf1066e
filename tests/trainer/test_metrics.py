import math

import numpy as np
import pytest
import torch

from trainer.data.dataset import to_batch
from trainer.metrics import bisect_strength, colourfulness, measure, psnr, to_rgb


def hasler_suesstrunk(rgb: np.ndarray) -> float:
    """M3 of the paper, of an (H, W, 3) 8-bit picture."""
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


def test_psnr_is_that_of_each_picture():
    truth = torch.zeros(3, 3, 4, 4)
    prediction = truth + torch.tensor([1.0, 0.1, 0.01]).view(3, 1, 1, 1)
    torch.testing.assert_close(psnr(prediction, truth), torch.tensor([0.0, 20.0, 40.0]), atol=1e-4, rtol=0)


def test_psnr_of_the_truth_is_finite():
    picture = torch.rand(1, 3, 4, 4)
    assert 90 < psnr(picture, picture).item() < 200


def test_colourfulness_is_that_of_the_paper(pictures):
    eight_bit = (255 * pictures).round()
    expected = [hasler_suesstrunk(picture.permute(1, 2, 0).numpy()) for picture in eight_bit]
    np.testing.assert_allclose(colourfulness(eight_bit / 255).numpy(), expected, rtol=1e-4)


def test_colourfulness_of_grey_is_zero():
    assert colourfulness(torch.rand(2, 1, 8, 8).expand(2, 3, 8, 8)).abs().max() < 1e-3


def test_to_rgb_undoes_to_batch_and_clips(pictures):
    lightness, ab = to_batch(pictures)
    torch.testing.assert_close(to_rgb(lightness, ab), pictures, atol=1e-4, rtol=0)
    vivid = to_rgb(lightness, 10 * ab)
    assert vivid.min() >= 0
    assert vivid.max() <= 1


@pytest.mark.parametrize("share", [0.3, 0.65, 1.0, 1.2])
def test_bisected_strength_reaches_its_target(pictures, share):
    lightness, ab = to_batch(pictures)

    def colourfulness_at(strength: float) -> float:
        return float(colourfulness(to_rgb(lightness, strength * ab)).mean())

    target = share * colourfulness_at(1.0)
    assert colourfulness_at(bisect_strength(colourfulness_at, target)) == pytest.approx(target, rel=0.02)


def test_a_perfect_prediction_has_all_the_colour_and_no_error(pictures):
    lightness, ab = to_batch(pictures)
    figures = measure(lightness, ab, ab, shares=(0.65, 1.0))
    assert figures["ab_mae"] == 0
    assert figures["colourfulness_share"] == pytest.approx(1)
    assert figures["psnr"] > 90
    assert figures["gain_at_100"] > figures["gain_at_65"] > 0
    assert all(isinstance(value, float) and math.isfinite(value) for value in figures.values())


def test_a_grey_prediction_gains_nothing(pictures):
    lightness, ab = to_batch(pictures)
    figures = measure(lightness, torch.zeros_like(ab), ab)
    assert figures["gain"] == pytest.approx(0)
    assert figures["gain_at_65"] == pytest.approx(0)
    assert figures["colourfulness"] == pytest.approx(0, abs=1e-3)


def test_gain_is_the_mean_psnr_above_that_of_grey(pictures):
    lightness, ab = to_batch(pictures)
    figures = measure(lightness, 0.5 * ab, ab)
    truth = to_rgb(lightness, ab)
    grey = psnr(to_rgb(lightness, torch.zeros_like(ab)), truth).mean().item()
    assert figures["psnr"] == pytest.approx(psnr(to_rgb(lightness, 0.5 * ab), truth).mean().item(), abs=1e-3)
    assert figures["gain"] == pytest.approx(figures["psnr"] - grey, abs=1e-3)
    assert figures["ab_mae"] == pytest.approx(0.5 * ab.abs().mean().item(), rel=1e-4)


def test_gain_at_a_share_does_not_depend_on_the_strength_of_the_prediction(pictures):
    """So that recipes are compared at equal colourfulness, not at each one's own."""
    lightness, ab = to_batch(pictures)
    faint, strong = (measure(lightness, factor * ab.flip(0), ab)["gain_at_65"] for factor in (0.5, 2.0))
    assert faint == pytest.approx(strong, abs=0.05)
