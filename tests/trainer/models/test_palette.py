import warnings

import numpy as np
import pytest
import torch
from skimage.color import lab2rgb, rgb2lab

from trainer.models.palette import Palette, cross_entropy


@pytest.fixture
def palette() -> Palette:
    return Palette()


def patch(*colours: tuple[float, float]) -> torch.Tensor:
    """(1, 2, 1, W): a pixel for each colour."""
    return torch.tensor(colours, dtype=torch.float32).T.reshape(1, 2, 1, -1)


def test_colours_are_on_the_grid_and_in_srgb(palette):
    assert len(palette) > 200
    centres = palette.centres.numpy()
    assert (centres % 10 == 0).all()
    assert len({tuple(centre) for centre in centres}) == len(palette)
    assert [0.0, 0.0] in centres.tolist()
    for a, b in centres[::17]:
        lab = np.stack([np.linspace(0, 100, 201), np.full(201, a), np.full(201, b)], axis=-1)
        with warnings.catch_warnings(action="ignore"):  # of colours beyond
            back = rgb2lab(np.clip(lab2rgb(lab[None]), 0, 1))[0]
        assert np.abs(back - lab).max(axis=1).min() < 0.5, (a, b)


def test_every_srgb_colour_is_near_one_of_the_palette(palette):
    rgb = np.random.default_rng(0).integers(0, 256, (1, 5000, 3)) / 255
    ab = torch.from_numpy(rgb2lab(rgb)[0, :, 1:]).float()
    assert torch.cdist(ab, palette.centres).min(dim=1).values.max() < 12


def test_encoding_is_over_the_five_nearest_and_decodes_to_the_colour(palette):
    near, shares = palette.encode(patch((13, -4), (20, 30)))
    assert near.shape == shares.shape == (2, 5)
    torch.testing.assert_close(shares.sum(1), torch.ones(2))
    assert palette.centres[near[0, 0]].tolist() == [10, 0]
    assert palette.centres[near[1, 0]].tolist() == [20, 30]
    assert shares[1, 0] > shares[1, 1:].max()
    gaussian = np.exp(-np.array([0, 100, 100, 100, 100]) / (2 * 5**2))
    np.testing.assert_allclose(shares[1].numpy(), gaussian / gaussian.sum(), rtol=1e-4)
    means = (shares[..., None] * palette.centres[near]).sum(1)
    torch.testing.assert_close(means, torch.tensor([[13.0, -4.0], [20.0, 30.0]]), atol=2.5, rtol=0)


def test_the_annealed_mean_goes_from_the_mean_to_the_mode(palette):
    scores = torch.full((1, len(palette), 1, 1), -1e4)
    one, other = (
        (palette.centres == torch.tensor(colour)).all(1).nonzero().item() for colour in ([40, 0], [-20, 0])
    )
    scores[0, one], scores[0, other] = np.log(2), np.log(1)
    assert palette.decode(scores, 1.0).flatten().tolist() == pytest.approx(
        [20, 0], abs=1e-3
    )  # 2/3 40 - 1/3 20
    assert palette.decode(scores, 0.01).flatten().tolist() == pytest.approx([40, 0], abs=1e-3)
    between = palette.decode(scores, 0.38)[0, 0].item()
    shares = np.array([2, 1]) ** (1 / 0.38)
    assert between == pytest.approx((shares / shares.sum() * [40, -20]).sum(), abs=1e-3)


def test_rare_colours_weigh_more_and_a_pixel_weighs_one_on_average(palette):
    ab = patch(*[(0, 0)] * 97, *[(50, 50)] * 3)
    palette.learn_prior(ab)
    near, shares = palette.encode(ab)
    grey, orange = near[0, 0], near[-1, 0]
    assert palette.weights[orange] > 5 * palette.weights[grey]
    expected = (palette.weights[near] * shares).sum(1).mean()
    assert expected.item() == pytest.approx(1, abs=1e-4)
    unseen = palette.weights.max()
    assert unseen / palette.weights[orange] < 10  # bounded by the uniform part


def test_cross_entropy_is_least_for_the_encoding_itself(palette):
    ab = patch((13, -4), (-30, 40))
    near, shares = palette.encode(ab)
    truth = torch.full((2, len(palette)), 1e-9).scatter_(1, near, shares)
    scores = truth.log().T.reshape(1, len(palette), 1, 2).requires_grad_()
    entropy = -(shares * shares.log()).sum(1).mean()
    least = cross_entropy(scores, ab, palette)
    assert least.item() == pytest.approx(entropy.item(), abs=1e-3)
    random = torch.randn(1, len(palette), 1, 2, generator=torch.Generator().manual_seed(0))
    assert cross_entropy(random, ab, palette) > least
    least.backward()
    assert scores.grad.abs().max() < 1e-4


def test_cross_entropy_weighs_by_the_nearest_colour(palette):
    ab, scores = patch((50, 50)), torch.zeros(1, len(palette), 1, 1)
    plain = cross_entropy(scores, ab, palette)
    assert plain.item() == pytest.approx(np.log(len(palette)), abs=1e-4)
    palette.weights[palette.encode(ab)[0][0, 0]] = 3.0
    torch.testing.assert_close(cross_entropy(scores, ab, palette), 3 * plain)
