import copy
from dataclasses import replace

import pytest
import torch
from lightning.fabric import Fabric
from torch import nn

from trainer.config import Config, Phase
from trainer.data.dataset import Batch
from trainer.losses import ADVERSARIAL, RECONSTRUCTION
from trainer.models import GENERATORS
from trainer.optim import set_learning_rate
from trainer.step import TrainingError, TrainState, build_train_state, update

PLAIN = Phase(crop_size=32)
GAN = Phase(crop_size=32, adversarial=0.1, feature_matching=1.0)


@pytest.fixture
def state(tiny, fabric) -> TrainState:
    return build(tiny, fabric)


def build(config: Config, fabric, rate: float = 1e-3) -> TrainState:
    state = build_train_state(config, fabric)
    for optimizer in (*state.generator_optimizers, state.discriminator_optimizer):
        if optimizer is not None:
            set_learning_rate(optimizer, rate)
    return state


def snapshot(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def weights(network: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in network.parameters()]


def test_adversarial_update_moves_both_networks_and_average(tiny, batch, fabric):
    config = replace(
        tiny, loss=replace(tiny.loss, gan="cross_entropy")
    )  # hinge leaves the last bias where it is
    state = build(config, fabric)
    parts = (state.generator, state.discriminator, state.ema)
    before = [weights(part) for part in parts]
    for _ in range(2):
        update(state, batch, GAN, config, fabric)
    assert state.updates == 2
    for part, old in zip(parts, before, strict=True):
        assert not any(map(torch.equal, old, weights(part)))
        assert all(value.isfinite().all() for value in part.state_dict().values())


@pytest.mark.parametrize("generator", GENERATORS)
def test_networks_compute_in_the_requested_precision(generator, with_encoder, batch):
    config = replace(with_encoder, model=replace(with_encoder.model, generator=generator))
    half = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    state = build(config, half)
    found = {}
    for name, network in (("generator", state.generator), ("discriminator", state.frozen_discriminator)):
        *_, convolution = (part for part in network.modules() if isinstance(part, nn.Conv2d))
        convolution.register_forward_hook(lambda _, __, output, name=name: found.update({name: output.dtype}))
    update(state, batch, GAN, config, half)
    assert found == {"generator": torch.bfloat16, "discriminator": torch.bfloat16}
    assert {parameter.dtype for parameter in state.generator.parameters()} == {torch.float32}


def test_plain_update_does_not_change_the_discriminator(state, batch, tiny, fabric):
    discriminator, generator = snapshot(state.discriminator), snapshot(state.generator)
    log = update(state, batch, PLAIN, tiny, fabric)
    assert same(discriminator, snapshot(state.discriminator))
    assert not state.discriminator_optimizer.state_dict()["state"]
    assert not same(generator, snapshot(state.generator))
    assert set(log) == {"reconstruction", "gradient_norm"}


def test_state_without_adversarial_phase_has_no_discriminator(tiny, batch, fabric):
    state = build(replace(tiny, phases=(PLAIN,)), fabric)
    assert state.discriminator is None
    assert state.discriminator_optimizer is None
    update(state, batch, PLAIN, tiny, fabric)


def test_discriminator_does_not_change_the_initial_generator(tiny, fabric):
    plain = build(replace(tiny, phases=(PLAIN,)), fabric)
    assert same(snapshot(plain.generator), snapshot(build(tiny, fabric).generator))


def test_seed_determines_the_initial_weights(tiny, fabric):
    first, again = (snapshot(build(tiny, fabric).generator) for _ in range(2))
    other = snapshot(build(replace(tiny, seed=1), fabric).generator)
    assert same(first, again)
    assert not same(first, other)


def test_log_holds_every_loss_as_detached_scalar(state, batch, tiny, fabric):
    log = update(state, batch, GAN, tiny, fabric)
    assert set(log) == {"reconstruction", "discriminator", "adversarial", "feature_matching", "gradient_norm"}
    for value in log.values():
        assert value.shape == ()
        assert value.isfinite()
        assert not value.requires_grad


@pytest.mark.parametrize("reconstruction", RECONSTRUCTION)
@pytest.mark.parametrize("gan", ADVERSARIAL)
@pytest.mark.parametrize("spectral_norm", [True, False])
def test_update_works_with_every_loss_in_the_tables(tiny, batch, fabric, reconstruction, gan, spectral_norm):
    config = replace(
        tiny,
        loss=replace(tiny.loss, reconstruction=reconstruction, gan=gan),
        model=replace(tiny.model, spectral_norm=spectral_norm),
    )
    log = update(build(config, fabric), batch, GAN, config, fabric)
    assert all(value.isfinite() for value in log.values())


@pytest.mark.parametrize("generator", GENERATORS)
def test_update_works_on_a_batch_of_one(with_encoder, batch, fabric, generator):
    config = replace(with_encoder, model=replace(with_encoder.model, generator=generator))
    log = update(build(config, fabric), Batch(*(x[:1] for x in batch)), GAN, config, fabric)
    assert all(value.isfinite() for value in log.values())


def test_truth_is_downsampled_to_the_generators_chroma(with_encoder, fabric):
    """A checkerboard of opposite colors is gray at half the size, the prediction of a zero generator."""
    state = build(with_encoder, fabric)
    assert state.chroma_scale == 2
    board = torch.tensor([[40.0, -40.0], [-40.0, 40.0]]).repeat(16, 16).expand(2, 2, 32, 32)
    with torch.no_grad():
        for name, value in state.generator.named_parameters():
            if name.endswith(("head.weight", "head.bias")):
                value.zero_()
    gray = torch.full((2, 1, 32, 32), 50.0)
    log = update(state, Batch(gray, board, gray), PLAIN, with_encoder, fabric)
    assert log["reconstruction"] == 0


def test_reconstruction_gets_clean_lightness_at_chroma_size(with_encoder, batch, fabric, monkeypatch):
    seen = []

    def loss(prediction, ab, lightness, config):
        seen.append((prediction.shape, ab.shape, lightness))
        return (prediction - ab).square().mean()

    monkeypatch.setitem(RECONSTRUCTION, "smooth_l1", loss)
    state = build(with_encoder, fabric)
    aged = batch._replace(lightness=100 - batch.clean)
    update(state, aged, PLAIN, with_encoder, fabric)
    ((predicted, true, lightness),) = seen
    assert predicted == true == (4, 2, 16, 16)
    assert torch.equal(lightness, torch.nn.functional.avg_pool2d(batch.clean, 2))


def seen_by(network: nn.Module) -> list[torch.Tensor]:
    """Record the first input of all calls of the network, its lightness."""
    seen: list[torch.Tensor] = []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    return seen


def test_generator_sees_degraded_and_losses_see_clean_lightness(tiny, batch, fabric):
    phase = replace(GAN, losses={"perceptual": 1.0})
    config = replace(tiny, phases=(phase,))
    state = build(config, fabric)
    aged = batch._replace(lightness=100 - batch.clean)
    networks = {"generator": state.generator, "frozen_discriminator": state.frozen_discriminator}
    seen = {name: seen_by(network) for name, network in (networks | state.losses).items()}
    update(state, aged, phase, config, fabric)
    assert [len(found) for found in seen.values()] == [
        1,
        4,
        1,
    ]  # discriminator: 2 for its loss, 2 for the generator's
    assert torch.equal(seen["generator"][0], aged.lightness)
    assert all(
        torch.equal(x, aged.clean) for name in ("frozen_discriminator", "perceptual") for x in seen[name]
    )


def test_perceptual_loss_is_logged_and_trains_only_the_generator(tiny, batch, fabric):
    """It is logged only if its weight is not 0."""
    config = replace(tiny, phases=(replace(PLAIN, losses={"perceptual": 1.0}),))
    states = []
    for weight in (0.0, 1.0):
        state = build(config, fabric)
        classifier = snapshot(state.losses["perceptual"])
        log = update(state, batch, replace(PLAIN, losses={"perceptual": weight}), config, fabric)
        assert set(log) - {"perceptual"} == {"reconstruction", "gradient_norm"}
        assert ("perceptual" in log) is (weight > 0)
        assert same(classifier, snapshot(state.losses["perceptual"]))
        states.append(snapshot(state.generator))
    assert not same(*states)
    assert log["perceptual"] > 0
    assert not log["perceptual"].requires_grad


def test_perceptual_loss_with_large_weight_decreases(tiny, batch, fabric):
    config = replace(tiny, phases=(replace(PLAIN, losses={"perceptual": 1e4}),))
    state = build(config, fabric, rate=0.01)
    losses = [update(state, batch, config.phases[0], config, fabric)["perceptual"].item() for _ in range(20)]
    assert losses[-1] < 0.7 * losses[0]


def test_state_without_perceptual_phase_loads_no_classifier(state):
    assert state.losses == {}


def test_generator_step_does_not_train_the_discriminator(tiny, batch, fabric):
    """Its weights and gradients after an update do not depend on the weights of the generator's losses."""
    results = []
    for phase in (GAN, replace(GAN, adversarial=50.0, feature_matching=0.0)):
        state = build(tiny, fabric)
        update(state, batch, phase, tiny, fabric)
        gradients = {name: p.grad.clone() for name, p in state.discriminator.named_parameters()}
        results.append((snapshot(state.discriminator), gradients, snapshot(state.generator)))
    assert same(results[0][0], results[1][0])
    assert same(results[0][1], results[1][1])
    assert not same(results[0][2], results[1][2])


def test_discriminator_step_does_not_train_the_generator(tiny, batch, fabric):
    """With an adversarial weight of almost 0, its update equals that of reconstruction alone."""
    faint = replace(GAN, adversarial=1e-30, feature_matching=0.0)
    states = []
    for phase in (PLAIN, faint):
        state = build(tiny, fabric)
        update(state, batch, phase, tiny, fabric)
        states.append(snapshot(state.generator))
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], msg=name)


@pytest.mark.parametrize("gan", ADVERSARIAL)
def test_discriminator_learns_to_separate_real_from_generated(tiny, batch, fabric, gan):
    config = replace(tiny, loss=replace(tiny.loss, gan=gan))
    state = build(config, fabric)
    for optimizer in state.generator_optimizers:
        set_learning_rate(optimizer, 0.0)
    set_learning_rate(state.discriminator_optimizer, 0.01)
    losses = [update(state, batch, GAN, config, fabric)["discriminator"].item() for _ in range(40)]
    assert losses[-1] < 0.7 * losses[0]
    with torch.no_grad():
        fake = state.generator(batch.lightness)
        scores = [state.discriminator(batch.lightness, ab)[0][0].mean() for ab in (batch.ab, fake)]
    assert scores[0] > scores[1]


def test_feature_matching_alone_reduces_feature_distance(tiny, batch, fabric):
    state = build(tiny, fabric, rate=0.01)
    set_learning_rate(state.discriminator_optimizer, 0.0)
    phase = replace(GAN, adversarial=1e-30, feature_matching=100.0)
    distances = [update(state, batch, phase, tiny, fabric)["feature_matching"].item() for _ in range(30)]
    assert distances[-1] < 0.7 * distances[0]


def test_reconstruction_loss_on_one_batch_decreases(state, batch, tiny, fabric):
    for optimizer in state.generator_optimizers:
        set_learning_rate(optimizer, 0.01)
    losses = [update(state, batch, PLAIN, tiny, fabric)["reconstruction"].item() for _ in range(30)]
    assert losses[-1] < losses[0] / 2


def test_average_follows_its_formula(state, batch, tiny, fabric):
    expected = snapshot(state.ema)
    for number in range(1, 4):
        update(state, batch, GAN, tiny, fabric)
        decay = min(tiny.ema_decay, (1 + number) / (10 + number))
        for name, value in state.generator.state_dict().items():
            if value.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * value
            else:
                expected[name] = value.clone()
    for name, value in state.ema.state_dict().items():
        torch.testing.assert_close(value, expected[name], msg=name)


def test_average_late_in_a_run_uses_the_full_decay(state, batch, tiny, fabric):
    state.updates = 10**6
    before = copy.deepcopy(state.ema.state_dict())
    update(state, batch, PLAIN, tiny, fabric)
    for name, old in before.items():
        new, value = state.generator.state_dict()[name], state.ema.state_dict()[name]
        if old.is_floating_point():
            torch.testing.assert_close(value, old + (new - old) * (1 - tiny.ema_decay), msg=name)


def test_average_starts_as_a_frozen_copy_of_the_generator(state):
    assert same(snapshot(state.ema), snapshot(state.generator))
    assert not state.ema.training
    assert not any(parameter.requires_grad for parameter in state.ema.parameters())
    mine = {p.data_ptr() for p in state.ema.parameters()}
    assert not mine & {p.data_ptr() for p in state.generator.parameters()}


def test_gradients_above_the_limit_are_clipped(tiny, batch, fabric):
    config = replace(tiny, gradient_clip=1e-3)
    state = build(config, fabric)
    log = update(state, batch, GAN, config, fabric)
    gradients = [p.grad for p in state.generator.parameters()]
    assert log["gradient_norm"] > 1e-3, "the norm is logged as it was"
    assert torch.stack([g.norm() for g in gradients]).norm().item() == pytest.approx(1e-3, rel=0.01)


def test_weight_decay_excludes_norms_and_biases(with_encoder, fabric):
    config, state = with_encoder, build(with_encoder, fabric)
    groups = [group for optimizer in state.generator_optimizers for group in optimizer.param_groups]
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert len(decay) == sum(len(group["params"]) for group in groups)
    trained = {name: p for name, p in state.generator.named_parameters() if p.requires_grad}
    assert len(decay) == len(trained)
    for name, parameter in trained.items():
        assert decay[id(parameter)] == (config.weight_decay if parameter.ndim > 1 else 0.0), name


def test_update_at_rate_zero_changes_no_weight(tiny, batch, fabric):
    state = build(tiny, fabric, rate=0.0)
    before = weights(state.generator)
    update(state, batch, GAN, tiny, fabric)
    assert all(map(torch.equal, before, weights(state.generator)))


def test_evaluating_the_average_does_not_affect_training(tiny, batch, fabric):
    states = []
    for evaluate in (False, True):
        state = build(tiny, fabric)
        for _ in range(2):
            update(state, batch, GAN, tiny, fabric)
            if evaluate:
                state.ema(batch.lightness)
        states.append(snapshot(state.generator))
    assert same(*states)


def test_update_with_nan_loss_fails_and_changes_nothing(state, batch, tiny, fabric):
    """A run whose loss is NaN must stop, and must not overwrite its checkpoint."""
    before = weights(state.generator)
    with pytest.raises(TrainingError, match="nan"):
        update(state, batch._replace(ab=batch.ab * float("nan")), PLAIN, tiny, fabric)
    assert all(map(torch.equal, before, weights(state.generator)))
    assert state.updates == 0
