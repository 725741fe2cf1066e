"""Tests of the common interface for every row of `GENERATORS`."""

import copy
from dataclasses import replace

import pytest
import torch

from trainer.config import ConfigError, ModelConfig
from trainer.models import GENERATORS, Generator, build_generator

SIZES = [(1, 1), (1, 3), (3, 2), (5, 1), (2, 7)]  # in units of multiple_of


CONFIGS = {name: ModelConfig(name, width=4, depth=3, frozen_blocks=0) for name in GENERATORS}
CONFIGS |= {
    "encoder_unet of 3 frozen blocks, enlarging twice": replace(
        CONFIGS["encoder_unet"], frozen_blocks=3, enlarge=2
    ),
    "encoder_unet enlarging four times": replace(CONFIGS["encoder_unet"], enlarge=4),
}


@pytest.fixture(scope="module", params=CONFIGS.values(), ids=CONFIGS.keys())
def fresh(request) -> Generator:
    """A new generator, as at the beginning of a run."""
    torch.manual_seed(0)
    generator = build_generator(request.param)
    generator.load_pretrained()
    return generator


@pytest.fixture
def generator(fresh) -> Generator:
    return copy.deepcopy(fresh)


@pytest.fixture(scope="module")
def once_trained(fresh) -> Generator:
    return train_a_little(copy.deepcopy(fresh))


@pytest.fixture
def trained(once_trained) -> Generator:
    """A generator in training mode, with running statistics and weights different from those of a new one."""
    return copy.deepcopy(once_trained)


def pictures(generator: Generator, count: int, rows: int = 3, columns: int = 3) -> torch.Tensor:
    multiple = generator.multiple_of
    random = torch.Generator().manual_seed(0)
    return 100 * torch.rand(count, 1, rows * multiple, columns * multiple, generator=random)


def trained_parameters(generator: Generator) -> dict[str, torch.nn.Parameter]:
    return {name: p for name, p in generator.named_parameters() if p.requires_grad}


def train_a_little(generator: Generator) -> Generator:
    optimizer = torch.optim.Adam(trained_parameters(generator).values(), lr=0.01)
    generator.train()
    for _ in range(3):
        optimizer.zero_grad()
        (generator(pictures(generator, 4)) - 20).square().mean().backward()
        optimizer.step()
    return generator


def test_build_generator_of_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"vgg.*encoder_unet, pix2pix_unet"):
        build_generator(ModelConfig(generator="vgg"))


@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_chroma_size_follows_chroma_scale(generator, rows, columns):
    lightness = pictures(generator, 2, rows, columns)
    with torch.no_grad():
        ab = generator.eval()(lightness)
    height, width = lightness.shape[-2:]
    assert ab.shape == (2, 2, height // generator.chroma_scale, width // generator.chroma_scale)
    assert ab.dtype == torch.float32
    assert ab.isfinite().all()


def test_gradient_reaches_exactly_the_trained_parameters(trained):
    trained.zero_grad()
    trained(pictures(trained, 4)).square().mean().backward()
    moved = trained_parameters(trained)
    for name, parameter in trained.named_parameters():
        if name not in moved:
            assert parameter.grad is None, name
            continue
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("value", [0.0, 50.0, 100.0])
def test_generator_on_flat_pictures_gives_finite_values(generator, value):
    ab = generator.train()(torch.full((2, 1, 3 * generator.multiple_of, 2 * generator.multiple_of), value))
    ab.square().mean().backward()
    assert ab.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in trained_parameters(generator).values())


def test_generator_overfits_one_batch(generator, batch):
    side = slice(min(32, 2 * generator.multiple_of))
    lightness, ab = (x[..., side, side] for x in (batch.lightness, batch.ab))
    target = torch.nn.functional.avg_pool2d(ab, generator.chroma_scale)
    optimizer = torch.optim.Adam(trained_parameters(generator).values(), lr=0.01)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = (generator.train()(lightness) - target).abs().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 3


def test_chroma_is_independent_of_the_rest_of_the_batch(trained):
    generator = trained.eval()
    eight = pictures(generator, 8)
    with torch.inference_mode():
        together = generator(eight)
        alone = torch.cat([generator(eight[i : i + 1]) for i in range(8)])
        among_others = generator(torch.cat((eight[:1], 100 - eight[1:])))[:1]
    torch.testing.assert_close(together, alone, atol=1e-3, rtol=0)
    torch.testing.assert_close(together[:1], among_others, atol=1e-3, rtol=0)


def test_inference_is_repeatable_and_changes_no_state(trained):
    generator = trained.eval()
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    with torch.inference_mode():
        lightness = pictures(generator, 2)
        assert torch.equal(generator(lightness), generator(lightness))
    assert all(torch.equal(before[name], value) for name, value in generator.state_dict().items())


def test_chroma_depends_on_lightness(trained):
    generator = trained.eval()
    with torch.inference_mode():
        lightness = pictures(generator, 1)
        assert (generator(lightness) - generator(100 - lightness)).abs().max() > 0.01


def test_chroma_is_independent_of_memory_format(trained):
    generator = trained.eval()
    lightness = pictures(generator, 2)
    with torch.inference_mode():
        expected = generator(lightness)
        found = generator.to(memory_format=torch.channels_last)(
            lightness.contiguous(memory_format=torch.channels_last)
        )
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", GENERATORS)
def test_seed_determines_the_initial_weights(name):
    weights = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        parameters = build_generator(CONFIGS[name]).parameters()
        weights.append(torch.cat([p.flatten() for p in parameters]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
