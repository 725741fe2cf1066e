import pytest
import torch
import torch.nn.functional as F

from trainer.lab import recompose
from trainer.models.encoders import ENCODERS
from trainer.models.perceptual import PerceptualLoss


@pytest.fixture(scope="module")
def loss() -> PerceptualLoss:
    loss = PerceptualLoss("efficientnet_lite0")
    loss.load_pretrained()
    return loss


@pytest.fixture
def lightness() -> torch.Tensor:
    """(2, 1, 64, 64) with large and small structure."""
    random = torch.Generator().manual_seed(0)
    parts = [
        F.interpolate(torch.rand(2, 1, cells, cells, generator=random), (64, 64), mode="bilinear")
        for cells in (4, 16)
    ]
    return 20 + 30 * sum(parts)


@pytest.fixture
def ab() -> torch.Tensor:
    """(2, 2, 16, 16), moderate."""
    coarse = 25 * torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    return F.interpolate(coarse, (16, 16), mode="bilinear")


def test_distance_of_equal_chroma_is_zero(loss, lightness, ab):
    assert loss(lightness, ab, ab).item() == 0


def test_distance_grows_with_the_error_within_its_range(loss, lightness, ab):
    found = [loss(lightness, factor * ab, ab).item() for factor in (1.0, 0.7, 0.3, -3.0)]
    assert found == sorted(found)
    assert found[1] > 0
    assert found[-1] <= 4


def test_gradient_reaches_the_prediction_only(loss, lightness, ab):
    prediction, truth = torch.zeros_like(ab, requires_grad=True), ab.clone().requires_grad_()
    value = loss(lightness, prediction, truth)
    assert value.shape == ()
    value.backward()
    assert prediction.grad.isfinite().all()
    assert (prediction.grad.abs().sum((1, 2, 3)) > 0).all(), "of every picture"
    assert truth.grad is None
    assert all(parameter.grad is None for parameter in loss.parameters())
    assert not any(parameter.requires_grad for parameter in loss.parameters())


def test_distance_decreases_in_training(loss, lightness, ab):
    prediction = torch.zeros_like(ab, requires_grad=True)
    optimizer = torch.optim.Adam([prediction], lr=2.0)
    values = []
    for _ in range(20):
        optimizer.zero_grad()
        value = loss(lightness, prediction, ab)
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < values[0] / 2


def test_chroma_is_recomposed_in_fp32_under_autocast(loss, lightness, ab):
    seen = []
    handle = loss.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.autocast("cpu", torch.bfloat16):
        half = loss(lightness, 0.5 * ab, ab)
    handle.remove()
    assert half.dtype == torch.float32
    for found, chroma in zip(seen, (0.5 * ab, ab), strict=True):
        assert found.dtype == torch.float32
        assert torch.equal(found, 255 * recompose(lightness, chroma))
    assert half.item() == pytest.approx(loss(lightness, 0.5 * ab, ab).item(), rel=0.2)


def test_chroma_may_have_the_size_of_the_lightness(loss, lightness, ab):
    whole = F.interpolate(ab, (64, 64), mode="bilinear")
    expected = loss(lightness, 0.5 * ab, ab).item()
    assert loss(lightness, 0.5 * whole, whole).item() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_load_pretrained_loads_the_weights_of_every_encoder(encoder):
    loss = PerceptualLoss(encoder)
    before = {name: value.clone() for name, value in loss.named_parameters()}
    loss.load_pretrained()
    assert not any(torch.equal(value, before[name]) for name, value in loss.named_parameters())
