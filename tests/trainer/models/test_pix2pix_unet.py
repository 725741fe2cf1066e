import pytest
import torch
from torch import nn

from trainer.models.pix2pix_unet import Pix2PixUNet


def modules(network, kind):
    return [module for module in network.modules() if isinstance(module, kind)]


def test_pix2pix_unet_has_the_layers_of_the_paper():
    network = Pix2PixUNet(64, 8)
    down, up = modules(network, nn.Conv2d), modules(network, nn.ConvTranspose2d)
    assert [c.out_channels for c in down] == [64, 128, 256, 512, 512, 512, 512, 512]
    assert [c.out_channels for c in up] == [512, 512, 512, 512, 256, 128, 64, 2]
    assert [c.in_channels for c in up] == [512, 1024, 1024, 1024, 1024, 512, 256, 128]
    assert all(c.kernel_size == (4, 4) and c.stride == (2, 2) for c in down + up)
    assert len(modules(network, nn.Dropout)) == 3
    assert len(modules(network, nn.BatchNorm2d)) == 6 + 7
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(54.4e6, rel=0.01)


def test_pix2pix_unet_output_stays_in_the_range_of_ab():
    network = Pix2PixUNet(4, 3).eval()
    with torch.no_grad():
        network.head[1].weight.mul_(1000)
        ab = network(100 * torch.rand(1, 1, 32, 32))
    assert 100 < ab.abs().max() <= 110


def test_dropout_is_active_in_training_only():
    network, lightness = Pix2PixUNet(4, 6), 100 * torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        assert not torch.equal(network.train()(lightness), network(lightness))
        assert torch.equal(network.eval()(lightness), network(lightness))


@pytest.mark.parametrize(("depth", "dropouts"), [(4, 0), (5, 0), (6, 1), (8, 3)])
def test_dropout_depends_on_depth(depth, dropouts):
    """A network for small pictures has less dropout, as in the authors' code."""
    assert len(modules(Pix2PixUNet(4, depth), nn.Dropout)) == dropouts


@pytest.mark.parametrize("depth", [2, 3, 8])
def test_chroma_has_the_size_of_the_lightness_at_any_depth(depth):
    network = Pix2PixUNet(2, depth).eval()
    assert network.multiple_of == 2**depth
    with torch.no_grad():
        assert network(torch.zeros(1, 1, 2**depth, 2 * 2**depth)).shape == (1, 2, 2**depth, 2 * 2**depth)
