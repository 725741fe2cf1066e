"""One update of the conditional GAN. No I/O, no data, no schedule.

With several processes each sees its part of a batch; gradients and the statistics of batch normalization are
those of the whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW, Optimizer

from trainer.config import Config, Phase
from trainer.data.dataset import Batch
from trainer.losses import ADVERSARIAL, RECONSTRUCTION, feature_matching
from trainer.models import build_discriminator, build_generator
from trainer.models.perceptual import PerceptualLoss
from trainer.optim import build_optimizers

Network = TypeVar("Network", bound=nn.Module)


class TrainingError(Exception):
    """Training has left the numbers."""


@dataclass
class Trainee:
    """Everything that an update changes."""

    generator: nn.Module
    ema: nn.Module
    """The moving average of the generator: what is evaluated and exported."""
    generator_optimizers: list[Optimizer]
    discriminator: nn.Module | None
    judge: nn.Module | None
    """The discriminator outside of what gathers its gradients, for it gets none from the generator."""
    discriminator_optimizer: Optimizer | None
    perceptual: PerceptualLoss | None
    """Where a phase uses it."""
    chroma_scale: int
    updates: int = 0


def build_trainee(config: Config, fabric: Fabric) -> Trainee:
    """Fresh networks and optimizers on the fabric's device, seeded by the configuration."""
    torch.manual_seed(config.seed)
    generator = _channels_last(build_generator(config.model))
    ema = _channels_last(build_generator(config.model)).to(fabric.device)
    ema.load_state_dict(generator.state_dict())
    judge = discriminator = discriminator_optimizer = None
    if config.adversarial:
        judge = _channels_last(build_discriminator(config.model, generator))
        judge.load_pretrained()
        trained = [parameter for parameter in judge.parameters() if parameter.requires_grad]
        discriminator, discriminator_optimizer = fabric.setup(
            judge, AdamW(trained, lr=0.0, betas=(0.5, 0.999), weight_decay=0.0, fused=True)
        )
    perceptual = None
    if config.perceptual:
        perceptual = _channels_last(PerceptualLoss(config.model.encoder)).to(fabric.device)
        perceptual.load_pretrained()
    chroma_scale = generator.chroma_scale
    optimizers = build_optimizers(config, generator)
    generator, *optimizers = fabric.setup(generator, *optimizers)
    return Trainee(
        generator,
        ema.eval().requires_grad_(False),
        optimizers,
        discriminator,
        judge,
        discriminator_optimizer,
        perceptual,
        chroma_scale,
    )


def update(trainee: Trainee, batch: Batch, phase: Phase, config: Config, fabric: Fabric) -> dict[str, Tensor]:
    """Update the discriminator where the phase has one, then the generator, then its moving average.

    Args:
        trainee: changed in place.
        batch: chroma at the size of the lightness; it is averaged down to the generator's.
        phase: the weights of the losses.
        config: the reconstruction and adversarial losses, gradient clipping and the average's decay.
        fabric: device, precision and processes.

    Returns:
        Scalars for the log, by name, detached.

    Raises:
        TrainingError: if the loss is not finite; no weight has changed.
    """
    trainee.generator.train()
    real = F.avg_pool2d(batch.ab, trainee.chroma_scale)
    fake = trainee.generator(batch.lightness).float()
    lightness = F.avg_pool2d(batch.clean, trainee.chroma_scale)
    log = {"reconstruction": RECONSTRUCTION[config.loss.reconstruction](fake, real, lightness, config.loss)}
    total = log["reconstruction"]
    if phase.perceptual > 0:
        assert trainee.perceptual is not None  # noqa: S101 - config.perceptual built it
        with fabric.autocast():
            log["perceptual"] = trainee.perceptual(batch.clean, fake, real)
        total = total + phase.perceptual * log["perceptual"]
    if phase.adversarial > 0:
        assert trainee.judge is not None  # noqa: S101 - config.adversarial built it
        log["discriminator"] = _update_discriminator(
            trainee, batch.clean, real, fake.detach(), config, fabric
        )
        with fabric.autocast():
            log["adversarial"], log["feature_matching"] = _judge(
                trainee.judge, batch.clean, real, fake, config
            )
        total = (
            total + phase.adversarial * log["adversarial"] + phase.feature_matching * log["feature_matching"]
        )
    if not total.isfinite():
        raise TrainingError(f"the loss is {float(total.detach())} after {trainee.updates} updates")
    trainee.generator.zero_grad()
    fabric.backward(total)
    log["gradient_norm"] = clip_grad_norm_(trainee.generator.parameters(), config.gradient_clip)
    for optimizer in trainee.generator_optimizers:
        optimizer.step()
    trainee.updates += 1
    _average(trainee.ema, trainee.generator, config.ema_decay, trainee.updates)
    return {name: value.detach() for name, value in log.items()}


def _update_discriminator(
    trainee: Trainee, lightness: Tensor, real: Tensor, fake: Tensor, config: Config, fabric: Fabric
) -> Tensor:
    discriminator, optimizer = trainee.discriminator, trainee.discriminator_optimizer
    assert trainee.judge is not None  # noqa: S101 - config.adversarial built all three
    assert discriminator is not None  # noqa: S101
    assert optimizer is not None  # noqa: S101
    discriminator.train()
    trainee.judge.requires_grad_(True)
    real_scores, fake_scores = discriminator(lightness, real)[0], discriminator(lightness, fake)[0]
    gan = ADVERSARIAL[config.loss.gan]
    loss = torch.stack(
        [gan.discriminator(r.float(), f.float()) for r, f in zip(real_scores, fake_scores, strict=True)]
    ).mean()
    optimizer.zero_grad()
    fabric.backward(loss)
    optimizer.step()
    return loss


def _judge(
    judge: nn.Module, lightness: Tensor, real: Tensor, fake: Tensor, config: Config
) -> tuple[Tensor, Tensor]:
    """The generator's adversarial and feature matching losses; the discriminator gets no gradient."""
    judge.requires_grad_(False)
    scores, features = judge(lightness, fake)
    with torch.no_grad():
        real_features = judge(lightness, real)[1]
    gan = ADVERSARIAL[config.loss.gan]
    adversarial = torch.stack([gan.generator(score.float()) for score in scores]).mean()
    return adversarial, feature_matching(real_features, features)


@torch.no_grad()
def _average(ema: nn.Module, generator: nn.Module, decay: float, updates: int) -> None:
    """Move the average towards the generator, faster while it is young; counters are copied."""
    weight = 1 - min(decay, (1 + updates) / (10 + updates))
    source = generator.state_dict()
    for name, average in ema.state_dict().items():
        if average.is_floating_point():
            average.lerp_(source[name].to(average), weight)
        else:
            average.copy_(source[name])


def _channels_last(network: Network) -> Network:
    """The memory format in which convolutions are fastest, on CPUs and GPUs alike."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
