import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from trainer.config import ModelConfig
from trainer.models import build_generator
from trainer.models.encoder_unet import EncoderUNet
from trainer.models.encoders import ENCODERS


def multiply_adds(network, size: int) -> float:
    with torch.device("meta"):
        lightness = torch.zeros(1, 1, size, size)
    with FlopCounterMode(display=False) as counter:
        network(lightness)
    return counter.get_total_flops() / 2


def pretrained(**options) -> EncoderUNet:
    torch.manual_seed(0)
    network = EncoderUNet(width=4, **options).eval()
    network.load_pretrained()
    return network


def test_default_generator_stays_within_its_budget():
    with torch.device("meta"):
        network = build_generator(ModelConfig()).eval()
    assert isinstance(network, EncoderUNet)
    assert sum(parameter.numel() for parameter in network.parameters()) <= 7e6
    assert multiply_adds(network, 256) <= 3e9


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize(("enlarge", "multiple_of", "chroma_scale"), [(1, 32, 4), (2, 16, 2), (4, 8, 1)])
def test_chroma_size_follows_the_enlargement(encoder, enlarge, multiple_of, chroma_scale):
    network = EncoderUNet(encoder, 4, enlarge).eval()
    assert (network.multiple_of, network.chroma_scale) == (multiple_of, chroma_scale)
    with torch.no_grad():
        ab = network(torch.zeros(2, 1, multiple_of, 3 * multiple_of))
    assert ab.shape == (2, 2, multiple_of // chroma_scale, 3 * multiple_of // chroma_scale)


@pytest.mark.parametrize("enlarge", [2, 4])
def test_enlarging_network_equals_plain_network_on_an_enlarged_picture(enlarge):
    plain, enlarging = pretrained(), pretrained(enlarge=enlarge)
    small = 100 * torch.rand(1, 1, 32, 48)
    large = F.interpolate(small, scale_factor=enlarge, mode="bilinear")
    large = F.pad(large, (0, -large.shape[-1] % 32, 0, -large.shape[-2] % 32))
    with torch.no_grad():
        torch.testing.assert_close(enlarging(small), plain(large), atol=1e-3, rtol=1e-4)


def test_features_are_the_input_to_the_head():
    network, lightness = pretrained(enlarge=2), 100 * torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        features = network.features(lightness)
        assert features.shape == (1, 8, 16, 16)
        torch.testing.assert_close(network(lightness), 50 * network.head(features))


def test_load_pretrained_changes_only_the_encoder():
    torch.manual_seed(0)
    network = EncoderUNet(width=4, frozen_blocks=3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    network.load_pretrained()
    for name, value in network.state_dict().items():
        if "num_batches" not in name:
            assert torch.equal(value, before[name]) is not name.startswith("encoder."), name
    assert {name for name, p in network.named_parameters() if not p.requires_grad} == frozen != set()


def test_encoder_input_is_gray_from_0_to_255():
    """L* in [0, 100] is scaled to [0, 255] in all three channels."""
    network, seen = pretrained(), []
    network.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    lightness = torch.tensor([0.0, 50.0, 100.0]).view(3, 1, 1, 1).expand(3, 1, 32, 32)
    with torch.no_grad():
        network(lightness)
    torch.testing.assert_close(seen[0][:, :, 0, 0], torch.tensor([[0.0] * 3, [127.5] * 3, [255.0] * 3]))


def test_receptive_field_covers_the_whole_picture():
    network = pretrained()
    lightness = (100 * torch.rand(1, 1, 512, 512)).requires_grad_()
    network(lightness)[0, :, 0, 0].sum().backward()
    assert lightness.grad[0, 0, -64:, -64:].abs().sum() > 0
