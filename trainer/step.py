"""One update of the conditional GAN. No I/O, no data, no schedule.

With several processes each sees its part of a batch; gradients and the statistics of batch normalisation are
those of the whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

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
from trainer.models.palette import Palette, cross_entropy
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
    chroma_scale: int
    palette: Palette | None = None
    """The generator's own, where it classifies."""
    updates: int = 0

    def learn(self, lightness: Tensor) -> tuple[Tensor, Any]:
        """The generator's `learn`, by way of what gathers its gradients."""
        predicted: tuple[Tensor, Any] = self.generator.learn(lightness)  # type: ignore[operator]
        return predicted


def build_trainee(config: Config, fabric: Fabric) -> Trainee:
    """Fresh networks and optimizers on the fabric's device, seeded by the configuration."""
    torch.manual_seed(config.seed)
    generator = _channels_last(build_generator(config.model))
    ema = _channels_last(build_generator(config.model)).to(fabric.device)
    ema.load_state_dict(generator.state_dict())
    judge = discriminator = discriminator_optimizer = None
    if config.adversarial:
        judge = _channels_last(build_discriminator(config.model, generator))
        discriminator, discriminator_optimizer = fabric.setup(
            judge, AdamW(judge.parameters(), lr=0.0, betas=(0.5, 0.999), weight_decay=0.0, fused=True)
        )
    chroma_scale, palette = generator.chroma_scale, generator.palette
    optimizers = build_optimizers(config, generator)
    generator, *optimizers = fabric.setup(generator, *optimizers)
    generator.mark_forward_method("learn")
    return Trainee(
        generator,
        ema.eval().requires_grad_(False),
        optimizers,
        discriminator,
        judge,
        discriminator_optimizer,
        chroma_scale,
        palette,
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
        TrainingError: if the loss is not finite; the generator is as before.
    """
    trainee.generator.train()
    real = F.avg_pool2d(batch.ab, trainee.chroma_scale)
    with fabric.autocast():  # Fabric's own is around `forward` only
        fake, scores = trainee.learn(batch.lightness)
    fake = fake.float()
    if trainee.palette is None:
        log = {"reconstruction": RECONSTRUCTION[config.loss.reconstruction](fake, real, config.loss)}
    else:
        log = {"reconstruction": cross_entropy(scores.float(), real, trainee.palette)}
    total = log["reconstruction"]
    if phase.adversarial > 0:
        assert trainee.judge is not None  # noqa: S101 - config.adversarial built it
        log["discriminator"] = _update_discriminator(
            trainee, batch.lightness, real, fake.detach(), config, fabric
        )
        with fabric.autocast():
            log["adversarial"], log["feature_matching"] = _judge(
                trainee.judge, batch.lightness, real, fake, config
            )
        total = (
            total + phase.adversarial * log["adversarial"] + phase.feature_matching * log["feature_matching"]
        )
    if not total.isfinite():
        raise TrainingError(f"the loss is {float(total)} after {trainee.updates} updates")
    trainee.generator.zero_grad()
    fabric.backward(total)
    log["gradient_norm"] = clip_grad_norm_(trainee.generator.parameters(), config.gradient_clip)
    for optimizer in trainee.generator_optimizers:
        optimizer.step()
    trainee.updates += 1
    _average(trainee.ema, trainee.generator, config.ema_decay, trainee.updates)
    return {name: value.detach() for name, value in log.items()}


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Set the learning rate of all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def _update_discriminator(
    trainee: Trainee, lightness: Tensor, real: Tensor, fake: Tensor, config: Config, fabric: Fabric
) -> Tensor:
    discriminator, optimizer = trainee.discriminator, trainee.discriminator_optimizer
    assert discriminator is not None  # noqa: S101 - config.adversarial built both
    assert optimizer is not None  # noqa: S101
    discriminator.train().requires_grad_(True)
    loss = ADVERSARIAL[config.loss.gan].discriminator(
        discriminator(lightness, real)[0].float(), discriminator(lightness, fake)[0].float()
    )
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
    return ADVERSARIAL[config.loss.gan].generator(scores.float()), feature_matching(real_features, features)


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
