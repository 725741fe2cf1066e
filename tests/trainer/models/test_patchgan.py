import pytest
import torch
from torch import nn

from trainer.config import ConfigError, ModelConfig
from trainer.models import DISCRIMINATORS, GENERATORS, build_discriminator, build_generator
from trainer.models.patchgan import PatchGAN


def inputs(scale: int, size: int = 64, count: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    lightness = 100 * torch.rand(count, 1, scale * size, scale * size, generator=random)
    return lightness, 50 * torch.randn(count, 2, size, size, generator=random)


def extent(gradient: torch.Tensor) -> tuple[int, int]:
    """Return height and width of the bounding box of the nonzero gradient of a picture."""
    rows, columns = (gradient.abs().sum(dim) > 0 for dim in ((0, 1, 3), (0, 1, 2)))
    return tuple(int(side.nonzero().max() - side.nonzero().min()) + 1 for side in (rows, columns))


@pytest.mark.parametrize("spectral_norm", [True, False])
@pytest.mark.parametrize("scale", [1, 2])
def test_score_has_a_receptive_field_of_70_by_70(scale, spectral_norm):
    torch.manual_seed(0)
    network = PatchGAN(scale, 4, 3, spectral_norm=spectral_norm).eval()
    lightness, ab = (x.requires_grad_() for x in inputs(scale, 128, 1))
    ((scores,), _) = network(lightness, ab)
    scores[0, 0, scores.shape[2] // 2, scores.shape[3] // 2].backward()
    assert extent(ab.grad) == (70, 70)
    assert extent(lightness.grad) == (70 * scale, 70 * scale)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_patchgan_returns_scores_per_patch_and_features_per_layer(layers):
    (scores,), features = PatchGAN(1, 4, layers)(*inputs(1))
    side = 64 // 2**layers - 2
    assert scores.shape == (2, 1, side, side)
    assert len(features) == layers + 1
    assert all(feature.requires_grad for feature in features)


def test_patchgan_has_the_channels_of_pix2pix():
    network = PatchGAN(1, 64, 3, spectral_norm=False)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [64, 128, 256, 512, 1]
    assert [c.stride[0] for c in convolutions] == [2, 2, 2, 1, 1]


@pytest.mark.parametrize("spectral_norm", [True, False])
@pytest.mark.parametrize("scale", [1, 2])
def test_score_depends_on_lightness(scale, spectral_norm):
    torch.manual_seed(0)
    network = PatchGAN(scale, 8, 3, spectral_norm=spectral_norm).eval()
    lightness, ab = inputs(scale)
    scores = [network(x, ab)[0][0] for x in (lightness, 100 - lightness)]
    assert (scores[0] - scores[1]).abs().max() > 1e-4


def test_score_of_a_corner_depends_on_the_same_corner():
    """The score of a corner depends on the lightness of the same corner."""
    network = PatchGAN(2, 4, 1).eval()
    lightness, ab = (x.requires_grad_() for x in inputs(2, 64, 1))
    network(lightness, ab)[0][0][0, 0, 0, -1].backward()
    for gradient in (lightness.grad, ab.grad):
        assert gradient[0, :, : gradient.shape[2] // 2, gradient.shape[3] // 2 :].abs().sum() > 0
        assert gradient[0, :, gradient.shape[2] // 2 :].abs().sum() == 0


def test_spectral_norm_bounds_layers_and_replaces_batch_norm():
    torch.manual_seed(0)
    network = PatchGAN(1, 4, 2, spectral_norm=True).train()
    for _ in range(50):  # power iterations
        network(*inputs(1, 32, 1))
    kinds = [type(module) for module in network.modules()]
    assert nn.BatchNorm2d not in kinds
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            assert torch.linalg.matrix_norm(module.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.05)


def test_patchgan_without_spectral_norm_has_batch_norm():
    network = PatchGAN(1, 4, 3, spectral_norm=False)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in network.modules()) == 3
    assert not any(hasattr(module, "parametrizations") for module in network.modules())


@pytest.mark.parametrize("enlarge", [1, 2, 4])
@pytest.mark.parametrize("discriminator", DISCRIMINATORS)
@pytest.mark.parametrize("generator", GENERATORS)
def test_build_discriminator_fits_every_generator(generator, discriminator, enlarge):
    config = ModelConfig(
        generator,
        width=4,
        depth=3,
        enlarge=enlarge,
        discriminator=discriminator,
        discriminator_width=4,
        discriminator_layers=1,
    )
    network = build_generator(config).eval()
    lightness = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        scores, features = build_discriminator(config, network)(lightness, network(lightness))
    assert len(scores) >= 1
    assert len(features) >= 1
    for score in scores:
        assert score.shape[:2] == (2, 1)
        assert score.isfinite().all()


def test_build_discriminator_of_an_unknown_name_lists_the_known_ones():
    config = ModelConfig("pix2pix_unet", width=4, depth=3, discriminator="vgg")
    with pytest.raises(ConfigError, match=r"vgg.*patchgan, projected"):
        build_discriminator(config, build_generator(config))


def test_load_pretrained_changes_no_patchgan():
    network = PatchGAN(1, 4, 1)
    before = [parameter.clone() for parameter in network.parameters()]
    network.load_pretrained()
    assert all(map(torch.equal, before, network.parameters()))
