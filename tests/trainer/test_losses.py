import math

import pytest
import torch

from trainer.config import LossConfig
from trainer.lab import lab_to_rgb, recompose
from trainer.losses import (
    ADVERSARIAL,
    RECONSTRUCTION,
    feature_matching,
    l1,
    log_mse_rgb,
    saturation_weights,
    smooth_l1,
)
from trainer.metrics import psnr

EVEN = LossConfig(saturation_weight=0.0)
MIDDLE = torch.full((2, 1, 4, 4), 50.0)  # L*


def constant(a: float, b: float) -> torch.Tensor:
    return torch.tensor([a, b], dtype=torch.float32).view(1, 2, 1, 1).expand(2, 2, 4, 4).clone()


@pytest.mark.parametrize(("chroma", "weight"), [(0, 1), (25, 2), (50, 3), (500, 3)])
def test_saturation_weight_grows_with_chroma_up_to_a_limit(chroma, weight):
    config = LossConfig(saturation_weight=2.0, saturated_chroma=50.0)
    weights = saturation_weights(constant(0.6 * chroma, -0.8 * chroma), config)
    assert weights.shape == (2, 1, 4, 4)
    torch.testing.assert_close(weights, torch.full_like(weights, weight))


def test_saturation_weight_depends_on_the_truth_only():
    config = LossConfig(saturation_weight=2.0)
    vivid, gray = constant(50, 0), constant(0, 0)
    assert l1(gray, vivid, MIDDLE, config) == 3 * l1(vivid, gray, MIDDLE, config)


def test_smooth_l1_is_quadratic_below_and_linear_above_beta():
    config = LossConfig(beta=15.0, saturation_weight=0.0)
    truth = constant(0, 0)
    assert smooth_l1(constant(3, 3), truth, MIDDLE, config).item() == pytest.approx(3**2 / (2 * 15**2))
    assert smooth_l1(constant(40, 40), truth, MIDDLE, config).item() == pytest.approx(40 / 15 - 0.5)


def test_l1_is_a_fraction_of_the_range_of_ab():
    assert l1(constant(11, -11), constant(0, 0), MIDDLE, EVEN).item() == pytest.approx(0.1)


@pytest.mark.parametrize("loss", RECONSTRUCTION.values(), ids=RECONSTRUCTION)
def test_reconstruction_is_zero_at_the_truth_with_gradient_towards_it(loss):
    truth = constant(20, -20)
    assert loss(truth, truth, MIDDLE, LossConfig()).item() == 0
    prediction = constant(30, -30).requires_grad_()
    value = loss(prediction, truth, MIDDLE, LossConfig())
    value.backward()
    assert value > 0
    assert value.shape == ()
    assert (prediction.grad[:, 0] > 0).all()
    assert (prediction.grad[:, 1] < 0).all()


@pytest.mark.parametrize("loss", RECONSTRUCTION.values(), ids=RECONSTRUCTION)
def test_reconstruction_has_a_finite_gradient_at_gray(loss):
    prediction = constant(0, 0).requires_grad_()
    loss(prediction, constant(0, 0), MIDDLE, LossConfig()).backward()
    assert prediction.grad.isfinite().all()


def test_log_mse_rgb_of_one_picture_is_the_log_of_its_srgb_error():
    """For one unweighted picture, it is log(1 + 255^2 / (10^(PSNR / 10) beta^2))."""
    config = LossConfig(beta=8.0, saturation_weight=0.0)
    prediction, truth = constant(10, 5)[:1], constant(-10, 15)[:1]
    rgb = (recompose(MIDDLE[:1], ab) for ab in (prediction, truth))
    decibels = psnr(*rgb).item()
    expected = math.log1p(255**2 / 10 ** (decibels / 10) / 8**2)
    assert log_mse_rgb(prediction, truth, MIDDLE[:1], config).item() == pytest.approx(expected, rel=1e-4)


def test_log_mse_rgb_of_a_batch_is_the_mean_over_pictures():
    prediction = torch.cat((constant(10, 5)[:1], constant(1, 0)[:1]))
    truth, lightness = constant(-10, 15), torch.tensor([30.0, 70.0]).view(2, 1, 1, 1).expand(2, 1, 4, 4)
    alone = [log_mse_rgb(*(x[i : i + 1] for x in (prediction, truth, lightness)), EVEN) for i in (0, 1)]
    torch.testing.assert_close(log_mse_rgb(prediction, truth, lightness, EVEN), sum(alone) / 2)


@pytest.mark.parametrize("level", [5.0, 50.0, 95.0])
def test_log_mse_rgb_outside_srgb_has_a_gradient_towards_gray(level):
    lightness = torch.full((2, 1, 4, 4), level)
    losses = [log_mse_rgb(constant(0, 0), constant(0, 0), lightness, EVEN).item()]
    for factor in (1.0, 1.2):
        outside = constant(70 * factor, -90 * factor).requires_grad_()
        assert (lab_to_rgb(torch.cat((lightness, outside), dim=1)) - 0.5).abs().max() > 0.5
        value = log_mse_rgb(outside, constant(0, 0), lightness, EVEN)
        (gradient,) = torch.autograd.grad(value, outside)
        assert gradient.isfinite().all()
        assert ((gradient * outside).sum(1) > 0).all(), "a step against it lessens the chroma"
        losses.append(value.item())
    assert losses == sorted(losses)


def test_log_mse_rgb_under_autocast_computes_in_fp32():
    inputs = (constant(10, 5), constant(-10, 15), MIDDLE, LossConfig())
    with torch.autocast("cpu", torch.bfloat16):
        found = log_mse_rgb(*inputs)
    assert torch.equal(found, log_mse_rgb(*inputs))


@pytest.mark.parametrize("loss", ADVERSARIAL.values(), ids=ADVERSARIAL)
def test_discriminator_loss_raises_real_and_lowers_fake_scores(loss):
    real, fake = (torch.zeros(2, 1, 3, 3, requires_grad=True) for _ in range(2))
    loss.discriminator(real, fake).backward()
    assert (real.grad < 0).all()
    assert (fake.grad > 0).all()
    confident = loss.discriminator(torch.full((1, 1, 2, 2), 20.0), torch.full((1, 1, 2, 2), -20.0))
    assert confident.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("loss", ADVERSARIAL.values(), ids=ADVERSARIAL)
@pytest.mark.parametrize("score", [-5.0, 0.0, 0.9])
def test_generator_loss_raises_fake_scores(loss, score):
    fake = torch.full((2, 1, 3, 3), score, requires_grad=True)
    loss.generator(fake).backward()
    assert (fake.grad < 0).all()


def test_hinge_has_no_gradient_beyond_one():
    real, fake = torch.tensor([2.0], requires_grad=True), torch.tensor([-2.0], requires_grad=True)
    ADVERSARIAL["hinge"].discriminator(real, fake).backward()
    assert real.grad == 0
    assert fake.grad == 0
    assert ADVERSARIAL["hinge"].discriminator(torch.zeros(1), torch.zeros(1)) == 1


def test_cross_entropy_of_undecided_scores_is_log_two():
    zeros = torch.zeros(3)
    assert ADVERSARIAL["cross_entropy"].discriminator(zeros, zeros).item() == pytest.approx(math.log(2))
    assert ADVERSARIAL["cross_entropy"].generator(zeros).item() == pytest.approx(math.log(2))


def test_feature_matching_is_the_mean_distance_over_layers():
    real = [torch.zeros(1, 2, 4, 4), torch.zeros(1, 8, 2, 2)]
    fake = [torch.full((1, 2, 4, 4), 1.0), torch.full((1, 8, 2, 2), 3.0)]
    assert feature_matching(real, fake).item() == pytest.approx(2.0)


def test_feature_matching_has_a_gradient_for_generated_features_only():
    real, fake = (torch.rand(1, 2, 4, 4, requires_grad=True) for _ in range(2))
    feature_matching([real], [fake]).backward()
    assert real.grad is None
    assert fake.grad.abs().sum() > 0


def test_feature_matching_of_unequal_layer_counts_is_an_error():
    with pytest.raises(ValueError, match="zip"):
        feature_matching([torch.zeros(1)], [torch.zeros(1), torch.zeros(1)])
