"""One update of the conditional GAN. No I/O, no data, no schedule.

With several processes, each one gets its share of a batch. Gradients and the statistics of batch
normalization are computed over the whole batch.
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
from trainer.losses import ADVERSARIAL, LOSSES, RECONSTRUCTION, feature_matching
from trainer.models import build_discriminator, build_generator
from trainer.models.loss import Loss
from trainer.optim import build_optimizers

Network = TypeVar("Network", bound=nn.Module)


class TrainingError(Exception):
    """The loss is NaN or infinite."""


@dataclass
class TrainState:
    """Networks, optimizers and counters that an update changes."""

    generator: nn.Module
    ema: nn.Module
    """Moving average of the generator's weights, the network to evaluate and export."""
    generator_optimizers: list[Optimizer]
    discriminator: nn.Module | None
    frozen_discriminator: nn.Module | None
    """The same network as `discriminator`, without Fabric's wrapper that synchronizes gradients.

    The generator's losses use it frozen, so that they leave no gradient in the discriminator.
    """
    discriminator_optimizer: Optimizer | None
    losses: dict[str, Loss]
    """The losses of all phases beside the reconstruction, by name."""
    chroma_scale: int
    updates: int = 0


def build_train_state(config: Config, fabric: Fabric) -> TrainState:
    """Build new networks and optimizers on the fabric's device, seeded by the configuration."""
    torch.manual_seed(config.seed)
    generator = _channels_last(build_generator(config.model))
    ema = _channels_last(build_generator(config.model)).to(fabric.device)
    ema.load_state_dict(generator.state_dict())
    frozen_discriminator = discriminator = discriminator_optimizer = None
    if config.adversarial:
        frozen_discriminator = _channels_last(build_discriminator(config.model, generator))
        frozen_discriminator.load_pretrained()
        trained = [parameter for parameter in frozen_discriminator.parameters() if parameter.requires_grad]
        discriminator, discriminator_optimizer = fabric.setup(
            frozen_discriminator, AdamW(trained, lr=0.0, betas=(0.5, 0.999), weight_decay=0.0, fused=True)
        )
    losses = {name: _channels_last(LOSSES[name](config)).to(fabric.device) for name in config.used_losses}
    for loss in losses.values():
        loss.load_pretrained()
    chroma_scale = generator.chroma_scale
    optimizers = build_optimizers(config, generator)
    generator, *optimizers = fabric.setup(generator, *optimizers)
    return TrainState(
        generator,
        ema.eval().requires_grad_(False),
        optimizers,
        discriminator,
        frozen_discriminator,
        discriminator_optimizer,
        losses,
        chroma_scale,
    )


def update(
    state: TrainState, batch: Batch, phase: Phase, config: Config, fabric: Fabric
) -> dict[str, Tensor]:
    """Update the discriminator if the phase uses it, then the generator, then its moving average.

    Args:
        state: changed in place.
        batch: this process's share, with chroma at the size of the lightness. The chroma is averaged down to
            the size of the generator's output.
        phase: the weights of the losses.
        config: reconstruction and adversarial losses, gradient clipping, decay of the moving average.
        fabric: device, precision and processes.

    Returns:
        Detached scalars for the log, by name.

    Raises:
        TrainingError: if the loss is not finite. The generator and its average are unchanged.
    """
    state.generator.train()
    real = F.avg_pool2d(batch.ab, state.chroma_scale)
    fake = state.generator(batch.lightness).float()
    lightness = F.avg_pool2d(batch.clean, state.chroma_scale)
    log = {"reconstruction": RECONSTRUCTION[config.loss.reconstruction](fake, real, lightness, config.loss)}
    total = log["reconstruction"]
    for name, loss in state.losses.items():
        if weight := phase.losses.get(name, 0.0):
            with fabric.autocast():
                log[name] = loss(batch.clean, fake, real)
            total = total + weight * log[name]
    if phase.adversarial > 0:
        assert state.frozen_discriminator is not None  # noqa: S101 - config.adversarial built it
        log["discriminator"] = _update_discriminator(state, batch.clean, real, fake.detach(), config, fabric)
        with fabric.autocast():
            log["adversarial"], log["feature_matching"] = _generator_losses(
                state.frozen_discriminator, batch.clean, real, fake, config
            )
        total = (
            total + phase.adversarial * log["adversarial"] + phase.feature_matching * log["feature_matching"]
        )
    if not total.isfinite():
        raise TrainingError(f"the loss is {float(total.detach())} after {state.updates} updates")
    state.generator.zero_grad()
    fabric.backward(total)
    log["gradient_norm"] = clip_grad_norm_(state.generator.parameters(), config.gradient_clip)
    for optimizer in state.generator_optimizers:
        optimizer.step()
    state.updates += 1
    _average(state.ema, state.generator, config.ema_decay, state.updates)
    return {name: value.detach() for name, value in log.items()}


def _update_discriminator(
    state: TrainState, lightness: Tensor, real: Tensor, fake: Tensor, config: Config, fabric: Fabric
) -> Tensor:
    discriminator, optimizer = state.discriminator, state.discriminator_optimizer
    assert state.frozen_discriminator is not None  # noqa: S101 - config.adversarial built all three
    assert discriminator is not None  # noqa: S101
    assert optimizer is not None  # noqa: S101
    discriminator.train()
    state.frozen_discriminator.requires_grad_(True)
    real_scores, fake_scores = discriminator(lightness, real)[0], discriminator(lightness, fake)[0]
    gan = ADVERSARIAL[config.loss.gan]
    loss = torch.stack(
        [gan.discriminator(r.float(), f.float()) for r, f in zip(real_scores, fake_scores, strict=True)]
    ).mean()
    optimizer.zero_grad()
    fabric.backward(loss)
    optimizer.step()
    return loss


def _generator_losses(
    discriminator: nn.Module, lightness: Tensor, real: Tensor, fake: Tensor, config: Config
) -> tuple[Tensor, Tensor]:
    """Compute the generator's adversarial and feature matching losses; freezes the discriminator."""
    discriminator.requires_grad_(False)
    scores, features = discriminator(lightness, fake)
    with torch.no_grad():
        real_features = discriminator(lightness, real)[1]
    gan = ADVERSARIAL[config.loss.gan]
    adversarial = torch.stack([gan.generator(score.float()) for score in scores]).mean()
    return adversarial, feature_matching(real_features, features)


@torch.no_grad()
def _average(ema: nn.Module, generator: nn.Module, decay: float, updates: int) -> None:
    """Update the moving average: less decay in the first updates, counters copied unchanged."""
    weight = 1 - min(decay, (1 + updates) / (10 + updates))
    source = generator.state_dict()
    for name, average in ema.state_dict().items():
        if average.is_floating_point():
            average.lerp_(source[name].to(average), weight)
        else:
            average.copy_(source[name])


def _channels_last(network: Network) -> Network:
    """Convert to the memory format in which convolutions are fastest, on CPUs and GPUs alike."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
