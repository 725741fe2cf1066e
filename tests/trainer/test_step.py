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
from trainer.step import Trainee, TrainingError, build_trainee, update

PLAIN = Phase(crop_size=32)
GAN = Phase(crop_size=32, adversarial=0.1, feature_matching=1.0)


@pytest.fixture
def trainee(tiny, fabric) -> Trainee:
    return build(tiny, fabric)


def build(config: Config, fabric, rate: float = 1e-3) -> Trainee:
    trainee = build_trainee(config, fabric)
    for optimizer in (*trainee.generator_optimizers, trainee.discriminator_optimizer):
        if optimizer is not None:
            set_learning_rate(optimizer, rate)
    return trainee


def state(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def weights(network: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in network.parameters()]


def test_an_adversarial_update_moves_both_networks_and_the_average(tiny, batch, fabric):
    config = replace(
        tiny, loss=replace(tiny.loss, gan="cross_entropy")
    )  # hinge leaves the last bias where it is
    trainee = build(config, fabric)
    parts = (trainee.generator, trainee.discriminator, trainee.ema)
    before = [weights(part) for part in parts]
    for _ in range(2):
        update(trainee, batch, GAN, config, fabric)
    assert trainee.updates == 2
    for part, old in zip(parts, before, strict=True):
        assert not any(map(torch.equal, old, weights(part)))
        assert all(value.isfinite().all() for value in part.state_dict().values())


@pytest.mark.parametrize("generator", GENERATORS)
def test_both_networks_compute_in_the_precision_asked_for(generator, with_encoder, batch):
    config = replace(with_encoder, model=replace(with_encoder.model, generator=generator))
    half = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    trainee = build(config, half)
    found = {}
    for name, network in (("generator", trainee.generator), ("discriminator", trainee.judge)):
        *_, convolution = (part for part in network.modules() if isinstance(part, nn.Conv2d))
        convolution.register_forward_hook(lambda _, __, output, name=name: found.update({name: output.dtype}))
    update(trainee, batch, GAN, config, half)
    assert found == {"generator": torch.bfloat16, "discriminator": torch.bfloat16}
    assert {parameter.dtype for parameter in trainee.generator.parameters()} == {torch.float32}


def test_a_plain_update_leaves_the_discriminator_alone(trainee, batch, tiny, fabric):
    discriminator, generator = state(trainee.discriminator), state(trainee.generator)
    log = update(trainee, batch, PLAIN, tiny, fabric)
    assert same(discriminator, state(trainee.discriminator))
    assert not trainee.discriminator_optimizer.state_dict()["state"]
    assert not same(generator, state(trainee.generator))
    assert set(log) == {"reconstruction", "gradient_norm"}


def test_without_an_adversarial_phase_there_is_no_discriminator(tiny, batch, fabric):
    trainee = build(replace(tiny, phases=(PLAIN,)), fabric)
    assert trainee.discriminator is None
    assert trainee.discriminator_optimizer is None
    update(trainee, batch, PLAIN, tiny, fabric)


def test_a_discriminator_does_not_change_the_generator_that_training_starts_with(tiny, fabric):
    plain = build(replace(tiny, phases=(PLAIN,)), fabric)
    assert same(state(plain.generator), state(build(tiny, fabric).generator))


def test_the_seed_decides_the_weights(tiny, fabric):
    first, again = (state(build(tiny, fabric).generator) for _ in range(2))
    other = state(build(replace(tiny, seed=1), fabric).generator)
    assert same(first, again)
    assert not same(first, other)


def test_the_log_has_every_loss_detached(trainee, batch, tiny, fabric):
    log = update(trainee, batch, GAN, tiny, fabric)
    assert set(log) == {"reconstruction", "discriminator", "adversarial", "feature_matching", "gradient_norm"}
    for value in log.values():
        assert value.shape == ()
        assert value.isfinite()
        assert not value.requires_grad


@pytest.mark.parametrize("reconstruction", RECONSTRUCTION)
@pytest.mark.parametrize("gan", ADVERSARIAL)
@pytest.mark.parametrize("spectral_norm", [True, False])
def test_every_loss_of_the_tables_can_be_trained_with(
    tiny, batch, fabric, reconstruction, gan, spectral_norm
):
    config = replace(
        tiny,
        loss=replace(tiny.loss, reconstruction=reconstruction, gan=gan),
        model=replace(tiny.model, spectral_norm=spectral_norm),
    )
    log = update(build(config, fabric), batch, GAN, config, fabric)
    assert all(value.isfinite() for value in log.values())


@pytest.mark.parametrize("generator", GENERATORS)
def test_a_batch_of_one_can_be_trained_with(with_encoder, batch, fabric, generator):
    config = replace(with_encoder, model=replace(with_encoder.model, generator=generator))
    log = update(build(config, fabric), Batch(*(x[:1] for x in batch)), GAN, config, fabric)
    assert all(value.isfinite() for value in log.values())


def test_truth_is_averaged_down_to_the_chroma_of_the_generator(with_encoder, fabric):
    """A checkerboard of opposite colors is gray at half the size, which a silent generator predicts."""
    trainee = build(with_encoder, fabric)
    assert trainee.chroma_scale == 2
    board = torch.tensor([[40.0, -40.0], [-40.0, 40.0]]).repeat(16, 16).expand(2, 2, 32, 32)
    with torch.no_grad():
        for name, value in trainee.generator.named_parameters():
            if name.endswith(("head.weight", "head.bias")):
                value.zero_()
    gray = torch.full((2, 1, 32, 32), 50.0)
    log = update(trainee, Batch(gray, board, gray), PLAIN, with_encoder, fabric)
    assert log["reconstruction"] == 0


def test_reconstruction_is_given_the_clean_lightness_at_the_size_of_the_chroma(
    with_encoder, batch, fabric, monkeypatch
):
    seen = []

    def loss(prediction, ab, lightness, config):
        seen.append((prediction.shape, ab.shape, lightness))
        return (prediction - ab).square().mean()

    monkeypatch.setitem(RECONSTRUCTION, "smooth_l1", loss)
    trainee = build(with_encoder, fabric)
    aged = batch._replace(lightness=100 - batch.clean)
    update(trainee, aged, PLAIN, with_encoder, fabric)
    ((predicted, true, lightness),) = seen
    assert predicted == true == (4, 2, 16, 16)
    assert torch.equal(lightness, torch.nn.functional.avg_pool2d(batch.clean, 2))


def seen_by(network: nn.Module) -> list[torch.Tensor]:
    """What the network is given as lightness from now on."""
    seen: list[torch.Tensor] = []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    return seen


def test_generator_sees_the_old_film_and_every_judge_of_its_colors_the_clean_picture(tiny, batch, fabric):
    phase = replace(GAN, perceptual=1.0)
    config = replace(tiny, phases=(phase,))
    trainee = build(config, fabric)
    aged = batch._replace(lightness=100 - batch.clean)
    seen = {name: seen_by(getattr(trainee, name)) for name in ("generator", "judge", "perceptual")}
    update(trainee, aged, phase, config, fabric)
    assert [len(found) for found in seen.values()] == [1, 4, 1]  # the judge: twice to learn, twice to judge
    assert torch.equal(seen["generator"][0], aged.lightness)
    assert all(torch.equal(x, aged.clean) for name in ("judge", "perceptual") for x in seen[name])


def test_perceptual_loss_is_logged_weighted_and_changes_the_generator_alone(tiny, batch, fabric):
    """A generator that learns from it alone comes closer in it."""
    config = replace(tiny, phases=(replace(PLAIN, perceptual=1.0),))
    states = []
    for weight in (0.0, 1.0):
        trainee = build(config, fabric)
        classifier = state(trainee.perceptual)
        log = update(trainee, batch, replace(PLAIN, perceptual=weight), config, fabric)
        assert set(log) - {"perceptual"} == {"reconstruction", "gradient_norm"}
        assert ("perceptual" in log) is (weight > 0)
        assert same(classifier, state(trainee.perceptual))
        states.append(state(trainee.generator))
    assert not same(*states)
    assert log["perceptual"] > 0
    assert not log["perceptual"].requires_grad


def test_perceptual_loss_falls_when_it_outweighs_the_reconstruction(tiny, batch, fabric):
    config = replace(tiny, phases=(replace(PLAIN, perceptual=1e4),))
    trainee = build(config, fabric, rate=0.01)
    losses = [
        update(trainee, batch, config.phases[0], config, fabric)["perceptual"].item() for _ in range(20)
    ]
    assert losses[-1] < 0.7 * losses[0]


def test_without_a_perceptual_phase_no_classifier_is_loaded(trainee):
    assert trainee.perceptual is None


def test_the_discriminator_learns_nothing_from_the_step_of_the_generator(tiny, batch, fabric):
    """Its weights and gradients after an update do not depend on the weights of the generator's losses."""
    results = []
    for phase in (GAN, replace(GAN, adversarial=50.0, feature_matching=0.0)):
        trainee = build(tiny, fabric)
        update(trainee, batch, phase, tiny, fabric)
        gradients = {name: p.grad.clone() for name, p in trainee.discriminator.named_parameters()}
        results.append((state(trainee.discriminator), gradients, state(trainee.generator)))
    assert same(results[0][0], results[1][0])
    assert same(results[0][1], results[1][1])
    assert not same(results[0][2], results[1][2])


def test_the_generator_learns_nothing_from_the_step_of_the_discriminator(tiny, batch, fabric):
    """With weights of nearly nothing, its update is that of reconstruction alone."""
    faint = replace(GAN, adversarial=1e-30, feature_matching=0.0)
    states = []
    for phase in (PLAIN, faint):
        trainee = build(tiny, fabric)
        update(trainee, batch, phase, tiny, fabric)
        states.append(state(trainee.generator))
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], msg=name)


@pytest.mark.parametrize("gan", ADVERSARIAL)
def test_the_discriminator_learns_to_tell_real_from_generated(tiny, batch, fabric, gan):
    config = replace(tiny, loss=replace(tiny.loss, gan=gan))
    trainee = build(config, fabric)
    for optimizer in trainee.generator_optimizers:
        set_learning_rate(optimizer, 0.0)
    set_learning_rate(trainee.discriminator_optimizer, 0.01)
    losses = [update(trainee, batch, GAN, config, fabric)["discriminator"].item() for _ in range(40)]
    assert losses[-1] < 0.7 * losses[0]
    with torch.no_grad():
        fake = trainee.generator(batch.lightness)
        scores = [trainee.discriminator(batch.lightness, ab)[0][0].mean() for ab in (batch.ab, fake)]
    assert scores[0] > scores[1]


def test_feature_matching_alone_pulls_the_features_together(tiny, batch, fabric):
    trainee = build(tiny, fabric, rate=0.01)
    set_learning_rate(trainee.discriminator_optimizer, 0.0)
    phase = replace(GAN, adversarial=1e-30, feature_matching=100.0)
    distances = [update(trainee, batch, phase, tiny, fabric)["feature_matching"].item() for _ in range(30)]
    assert distances[-1] < 0.7 * distances[0]


def test_reconstruction_falls_when_one_batch_is_learnt(trainee, batch, tiny, fabric):
    for optimizer in trainee.generator_optimizers:
        set_learning_rate(optimizer, 0.01)
    losses = [update(trainee, batch, PLAIN, tiny, fabric)["reconstruction"].item() for _ in range(30)]
    assert losses[-1] < losses[0] / 2


def test_the_average_follows_its_formula(trainee, batch, tiny, fabric):
    expected = state(trainee.ema)
    for number in range(1, 4):
        update(trainee, batch, GAN, tiny, fabric)
        decay = min(tiny.ema_decay, (1 + number) / (10 + number))
        for name, value in trainee.generator.state_dict().items():
            if value.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * value
            else:
                expected[name] = value.clone()
    for name, value in trainee.ema.state_dict().items():
        torch.testing.assert_close(value, expected[name], msg=name)


def test_the_average_of_an_old_run_keeps_most_of_itself(trainee, batch, tiny, fabric):
    trainee.updates = 10**6
    before = copy.deepcopy(trainee.ema.state_dict())
    update(trainee, batch, PLAIN, tiny, fabric)
    for name, old in before.items():
        new, value = trainee.generator.state_dict()[name], trainee.ema.state_dict()[name]
        if old.is_floating_point():
            torch.testing.assert_close(value, old + (new - old) * (1 - tiny.ema_decay), msg=name)


def test_the_average_begins_as_the_generator_and_is_ready_for_inference(trainee):
    assert same(state(trainee.ema), state(trainee.generator))
    assert not trainee.ema.training
    assert not any(parameter.requires_grad for parameter in trainee.ema.parameters())
    mine = {p.data_ptr() for p in trainee.ema.parameters()}
    assert not mine & {p.data_ptr() for p in trainee.generator.parameters()}


def test_gradients_are_clipped_to_their_norm(tiny, batch, fabric):
    config = replace(tiny, gradient_clip=1e-3)
    trainee = build(config, fabric)
    log = update(trainee, batch, GAN, config, fabric)
    gradients = [p.grad for p in trainee.generator.parameters()]
    assert log["gradient_norm"] > 1e-3, "the norm is logged as it was"
    assert torch.stack([g.norm() for g in gradients]).norm().item() == pytest.approx(1e-3, rel=0.01)


def test_norms_and_biases_do_not_decay(with_encoder, fabric):
    config, trainee = with_encoder, build(with_encoder, fabric)
    groups = [group for optimizer in trainee.generator_optimizers for group in optimizer.param_groups]
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert len(decay) == sum(len(group["params"]) for group in groups)
    trained = {name: p for name, p in trainee.generator.named_parameters() if p.requires_grad}
    assert len(decay) == len(trained)
    for name, parameter in trained.items():
        assert decay[id(parameter)] == (config.weight_decay if parameter.ndim > 1 else 0.0), name


def test_a_rate_of_zero_changes_no_weight(tiny, batch, fabric):
    trainee = build(tiny, fabric, rate=0.0)
    before = weights(trainee.generator)
    update(trainee, batch, GAN, tiny, fabric)
    assert all(map(torch.equal, before, weights(trainee.generator)))


def test_evaluating_the_average_between_updates_does_not_disturb_training(tiny, batch, fabric):
    states = []
    for evaluate in (False, True):
        trainee = build(tiny, fabric)
        for _ in range(2):
            update(trainee, batch, GAN, tiny, fabric)
            if evaluate:
                trainee.ema(batch.lightness)
        states.append(state(trainee.generator))
    assert same(*states)


def test_update_on_what_is_no_number_fails_and_changes_nothing(trainee, batch, tiny, fabric):
    """A run whose loss is no number must not go on, nor overwrite its checkpoint with nothing."""
    before = weights(trainee.generator)
    with pytest.raises(TrainingError, match="nan"):
        update(trainee, batch._replace(ab=batch.ab * float("nan")), PLAIN, tiny, fabric)
    assert all(map(torch.equal, before, weights(trainee.generator)))
    assert trainee.updates == 0
