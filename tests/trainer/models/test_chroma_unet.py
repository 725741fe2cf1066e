import torch
from torch.utils.flop_counter import FlopCounterMode

from trainer.config import ModelConfig
from trainer.models import build_generator
from trainer.models.chroma_unet import ChromaUNet


def multiply_adds(network, size: int) -> dict[str, float]:
    """By module."""
    with torch.device("meta"):
        lightness = torch.zeros(1, 1, size, size)
    with FlopCounterMode(display=False) as counter:
        network(lightness)
    return {name: sum(flops.values()) / 2 for name, flops in counter.get_flop_counts().items()}


def test_the_default_keeps_within_its_budget():
    with torch.device("meta"):
        network = build_generator(ModelConfig()).eval()
    assert isinstance(network, ChromaUNet)
    assert sum(parameter.numel() for parameter in network.parameters()) <= 12e6
    assert multiply_adds(network, 256)["Global"] <= 6e9


def test_most_of_the_computation_is_at_an_eighth_and_a_sixteenth():
    with torch.device("meta"):
        network = build_generator(ModelConfig()).eval()
    spent = multiply_adds(network, 256)
    coarse = sum(spent[f"ChromaUNet.{name}"] for name in ("eighth", "sixteenth", "decode_eighth"))
    assert coarse > spent["Global"] / 2


def test_chroma_is_predicted_at_half_the_size_unless_asked_for_whole():
    assert (ChromaUNet(4).multiple_of, ChromaUNet(4).chroma_scale) == (16, 2)
    whole = ChromaUNet(4, chroma_scale=1)
    assert (whole.multiple_of, whole.chroma_scale) == (8, 1)
    with torch.no_grad():
        assert whole(torch.zeros(1, 1, 24, 32)).shape == (1, 2, 24, 32)


def test_every_place_sees_the_whole_picture():
    torch.manual_seed(0)
    network = ChromaUNet(4).eval()
    lightness = torch.rand(1, 1, 512, 512, requires_grad=True)
    network(lightness)[0, :, 0, 0].sum().backward()
    assert lightness.grad[0, 0, -64:, -64:].abs().sum() > 0
