import pytest
import torch
from torch import nn

from trainer.config import Config, ConfigError
from trainer.optim import OPTIMIZERS, Muon, build_optimizers, orthogonalized, set_learning_rate


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 2, 1),
    )


@pytest.mark.parametrize("shape", [(16, 16), (16, 144), (64, 16)])
def test_orthogonalized_singular_values_are_near_one(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalized(matrix, 5))
    assert values.min() > 0.5
    assert values.max() < 1.25


def test_orthogonalized_keeps_singular_vectors():
    """The result has the direction of the nearest orthonormal matrix U V^T."""
    matrix = torch.randn(8, 40, generator=torch.Generator().manual_seed(1))
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonalized(matrix, 5)
    assert torch.nn.functional.cosine_similarity(found.flatten(), (u @ v).flatten(), dim=0) > 0.97


def test_orthogonalized_follows_the_published_iteration():
    matrix = torch.randn(12, 30, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x = matrix / matrix.norm()
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    torch.testing.assert_close(orthogonalized(matrix, 5), x)


def test_muon_with_zero_gradient_changes_nothing():
    parameter = nn.Parameter(torch.ones(16, 16, 3, 3))
    parameter.grad = torch.zeros_like(parameter)
    optimizer = Muon([parameter])
    optimizer.param_groups[0]["lr"] = 1.0
    optimizer.step()
    assert torch.equal(parameter, torch.ones_like(parameter))


def test_muon_update_is_independent_of_gradient_size():
    moved = []
    for size in (1e-3, 1e3):
        parameter = nn.Parameter(torch.zeros(16, 16))
        parameter.grad = size * torch.randn(16, 16, generator=torch.Generator().manual_seed(3))
        optimizer = Muon([parameter])
        optimizer.param_groups[0]["lr"] = 0.1
        optimizer.step()
        moved.append(parameter.detach())
    torch.testing.assert_close(moved[0], moved[1])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_parameter_has_exactly_one_optimizer(name):
    net = network()
    optimizers = OPTIMIZERS[name](list(net.parameters()), 0.01)
    held = [id(p) for o in optimizers for group in o.param_groups for p in group["params"]]
    assert sorted(held) == sorted(map(id, net.parameters()))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weight_decay_excludes_norms_and_biases(name):
    for optimizer in OPTIMIZERS[name](list(network().parameters()), 0.01):
        for group in optimizer.param_groups:
            expected = 0.01 if group["params"][0].ndim > 1 else 0.0
            assert group["weight_decay"] == expected


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_fits_one_batch(name):
    net = network()
    optimizers = OPTIMIZERS[name](list(net.parameters()), 0.0)
    random = torch.Generator().manual_seed(0)
    x = torch.randn(4, 1, 8, 8, generator=random)
    y = torch.nn.functional.conv2d(x, torch.randn(2, 1, 3, 3, generator=random), padding=1)
    losses = []
    for _ in range(60):
        loss = (net(x) - y).square().mean()
        net.zero_grad()
        loss.backward()
        losses.append(loss.item())
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = 5e-3
            optimizer.step()
    assert losses[-1] < losses[0] / 10


def test_build_optimizers_of_an_unknown_name_is_an_error():
    with pytest.raises(ConfigError, match="sgd"):
        build_optimizers(Config(optimizer="sgd"), network())


class WithEncoder(nn.Module):
    """A network with an encoder whose filters are wide enough for Muon, and with a frozen layer."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = network(), network()
        self.encoder[0].requires_grad_(False)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_encoder_has_adamw_without_its_frozen_part(name):
    net = WithEncoder()
    *others, slow = build_optimizers(Config(optimizer=name, weight_decay=0.01), net)
    assert isinstance(slow, torch.optim.AdamW)
    trained = [p for p in net.encoder.parameters() if p.requires_grad]
    held = [p for group in slow.param_groups for p in group["params"]]
    assert sorted(map(id, held)) == sorted(map(id, trained))
    rest = [id(p) for o in others for group in o.param_groups for p in group["params"]]
    assert sorted(rest) == sorted(map(id, net.decoder.parameters()))
    for group in slow.param_groups:
        assert {p.ndim > 1 for p in group["params"]} == {group["weight_decay"] == 0.01}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_encoder_rate_is_a_share_of_the_rate(name):
    *others, slow = build_optimizers(Config(optimizer=name, encoder_rate=0.1), WithEncoder())
    for rate in (0.02, 0.5):  # a previously set rate does not matter
        for optimizer in (*others, slow):
            set_learning_rate(optimizer, rate)
        assert {group["lr"] for optimizer in others for group in optimizer.param_groups} == {rate}
        assert [group["lr"] for group in slow.param_groups] == pytest.approx([0.1 * rate] * 2)


def test_encoder_moves_in_proportion_to_its_rate():
    moved = {}
    for share in (0.0, 0.25, 1.0):
        net = WithEncoder()
        before = net.encoder[3].weight.detach().clone()
        net.decoder(net.encoder(torch.ones(1, 1, 8, 8))[:, :1]).sum().backward()
        for optimizer in build_optimizers(Config(encoder_rate=share, weight_decay=0.0), net):
            set_learning_rate(optimizer, 0.01)
            optimizer.step()
        moved[share] = net.encoder[3].weight.detach() - before
    assert moved[0.0].abs().max() == 0
    assert moved[1.0].abs().max() > 1e-3
    torch.testing.assert_close(moved[0.25], 0.25 * moved[1.0], atol=1e-7, rtol=1e-3)


def test_network_without_encoder_has_one_rate():
    optimizers = build_optimizers(Config(encoder_rate=0.1), network())
    for optimizer in optimizers:
        set_learning_rate(optimizer, 0.02)
    assert {group["lr"] for optimizer in optimizers for group in optimizer.param_groups} == {0.02}


def test_network_fully_frozen_has_no_optimizer():
    assert build_optimizers(Config(), network().requires_grad_(False)) == []
