import os
import signal
from dataclasses import replace

import pytest
import torch

from trainer.config import Phase
from trainer.loop import CHECKPOINT_NAME, Run, train
from trainer.losses import ADVERSARIAL
from trainer.models.encoders import ENCODERS
from trainer.models.projected import ProjectedDiscriminator
from trainer.optim import set_learning_rate
from trainer.step import build_train_state, update

GAN = Phase(crop_size=32, adversarial=0.1, feature_matching=1.0)


@pytest.fixture(scope="module")
def config(tiny):
    model = replace(tiny.model, discriminator="projected", discriminator_width=16)
    phases = (
        Phase(samples=4, crop_size=32, batch_size=4),
        Phase(samples=12, crop_size=32, batch_size=4, adversarial=0.1, feature_matching=1.0),
    )
    return replace(tiny, model=model, phases=phases)


def snapshot(network) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


@pytest.mark.parametrize("encoder", ENCODERS)
def test_projected_returns_scores_at_four_scales_and_two_features_each(encoder):
    torch.manual_seed(0)
    network = ProjectedDiscriminator(encoder, 8)
    for chroma_scale in (1, 4):
        ab = torch.zeros(2, 2, 64 // chroma_scale, 96 // chroma_scale)
        scores, features = network(torch.full((2, 1, 64, 96), 50.0), ab)
        sizes = [(64 // scale, 96 // scale) for scale in (4, 8, 16, 32)]
        assert [tuple(score.shape) for score in scores] == [(2, 1, *size) for size in sizes]
        assert [tuple(feature.shape) for feature in features] == [
            (2, 8, *size) for size in sizes for _ in "ab"
        ]


def test_scores_depend_on_chroma_and_lightness_at_every_scale():
    torch.manual_seed(0)
    network = ProjectedDiscriminator("efficientnet_lite0", 8).eval()
    network.load_pretrained()
    lightness, ab = 100 * torch.rand(1, 1, 64, 64), 30 * torch.randn(1, 2, 16, 16)
    with torch.no_grad():
        kinds = [network(*inputs)[0] for inputs in ((lightness, ab), (lightness, -ab), (100 - lightness, ab))]
    for one, tinted, inverted in zip(*kinds, strict=True):
        assert (one - tinted).abs().max() > 1e-4
        assert (one - inverted).abs().max() > 1e-4


def test_requires_grad_switches_only_the_heads():
    network = ProjectedDiscriminator("efficientnet_lite0", 8)
    for switched in (False, True):
        assert network.requires_grad_(switched) is network
        assert {p.requires_grad for p in network.heads.parameters()} == {switched}
        assert {p.requires_grad for p in network.encoder.parameters()} == {False}


def test_gradient_reaches_chroma_and_heads_but_not_the_encoder():
    torch.manual_seed(0)
    network = ProjectedDiscriminator("efficientnet_lite0", 8).train().requires_grad_(True)
    network.load_pretrained()
    ab = (30 * torch.randn(2, 2, 16, 16)).requires_grad_()
    scores, _ = network(100 * torch.rand(2, 1, 64, 64), ab)
    for score in scores:
        (gradient,) = torch.autograd.grad(score.sum(), ab, retain_graph=True)
        assert gradient.abs().sum() > 0
    torch.stack([score.square().mean() for score in scores]).sum().backward()
    for name, parameter in network.named_parameters():
        assert (parameter.grad is None) is name.startswith("encoder."), name


def test_update_changes_the_heads_and_not_the_encoder(config, batch, fabric):
    config = replace(
        config, loss=replace(config.loss, gan="cross_entropy")
    )  # hinge does not change the last biases
    state = build_train_state(config, fabric)
    for optimizer in (*state.generator_optimizers, state.discriminator_optimizer):
        set_learning_rate(optimizer, 0.01)
    published = ProjectedDiscriminator(config.model.encoder, 16)
    published.load_pretrained()
    before = snapshot(state.frozen_discriminator)
    for _ in range(2):
        log = update(state, batch, GAN, config, fabric)
    assert all(value.isfinite() for value in log.values())
    after = snapshot(state.frozen_discriminator)
    for name, value in published.encoder.state_dict().items():
        assert torch.equal(after[f"encoder.{name}"], value), name
    for name, _ in state.frozen_discriminator.heads.named_parameters():
        assert not torch.equal(after[f"heads.{name}"], before[f"heads.{name}"]), name
    held = {id(p) for group in state.discriminator_optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in state.frozen_discriminator.heads.parameters()}
    assert all(p.grad is None for p in state.frozen_discriminator.encoder.parameters())


@pytest.mark.parametrize("gan", ADVERSARIAL)
def test_discriminator_learns_to_separate_real_from_generated(config, batch, fabric, gan):
    config = replace(config, loss=replace(config.loss, gan=gan))
    state = build_train_state(config, fabric)
    for optimizer in state.generator_optimizers:
        set_learning_rate(optimizer, 0.0)
    set_learning_rate(state.discriminator_optimizer, 0.01)
    losses = [update(state, batch, GAN, config, fabric)["discriminator"].item() for _ in range(15)]
    assert losses[-1] < 0.7 * losses[0]
    with torch.no_grad():
        fake = state.generator(batch.lightness)
        real, generated = (state.frozen_discriminator(batch.lightness, ab)[0] for ab in (batch.ab, fake))
    assert sum(score.mean() for score in real) > sum(score.mean() for score in generated)


class Silent:
    """Interrupts the run after some samples."""

    def __init__(self, stop: int | None = None) -> None:
        self.stop = stop

    def notice(self, text):
        raise AssertionError(text)

    def advanced(self, samples_seen, figures):  # noqa: ARG002 - as Watcher has it
        if samples_seen == self.stop:
            os.kill(os.getpid(), signal.SIGINT)


def test_interrupted_run_continues_bit_for_bit(config, prepared, fabric, tmp_path):
    """The run stops in the adversarial phase, when the discriminator's optimizer has a state."""
    states = []
    for name, stops in (("straight", [None]), ("stopped", [8, None])):
        run = Run(tmp_path / name, prepared, prepared)
        for stop in stops:
            progress = train(config, run, fabric, Silent(stop))
        assert progress.samples_seen == 16
        states.append(torch.load(run.folder / CHECKPOINT_NAME, weights_only=True))
    for key in ("generator", "ema", "discriminator"):
        for name, value in states[0][key].items():
            assert torch.equal(value, states[1][key][name]), f"{key}.{name}"
    moments = [s["discriminator_optimizer"]["state"] for s in states]
    assert moments[0].keys() == moments[1].keys() != set()
    for number, values in moments[0].items():
        assert all(torch.equal(value, moments[1][number][name]) for name, value in values.items())
