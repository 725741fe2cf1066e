"""The loss functions: pure functions of tensors, in tables by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.config import Config, LossConfig
from trainer.lab import lab_to_rgb
from trainer.models.loss import Loss
from trainer.models.perceptual import PerceptualLoss


def saturation_weights(ab: Tensor, config: LossConfig) -> Tensor:
    """Compute pixel weights that grow with chroma: (N, 2, H, W) true ab => (N, 1, H, W), at least 1.

    Most pixels of most photographs are nearly gray, so an unweighted loss favors brown averages. Zhang et al.
    2016, "Colorful Image Colorization", rebalance classes of ab for that reason. This is a mild form for
    regression: the weight grows linearly with chroma up to `saturated_chroma`.
    """
    chroma = ab.square().sum(1, keepdim=True).sqrt()
    return 1 + config.saturation_weight * (chroma / config.saturated_chroma).clamp(max=1)


def smooth_l1(prediction: Tensor, ab: Tensor, _: Tensor, config: LossConfig) -> Tensor:
    """Compute the smooth L1 loss (Girshick 2015) of ab, weighted by saturation.

    Both tensors are (N, 2, H, W) in CIE units. An error e below `beta` counts as e^2 / (2 beta^2), a larger
    one linearly: e / beta - 1/2.
    """
    error = F.smooth_l1_loss(prediction, ab, beta=config.beta, reduction="none") / config.beta
    return (error * saturation_weights(ab, config)).mean()


def l1(prediction: Tensor, ab: Tensor, _: Tensor, config: LossConfig) -> Tensor:
    """Compute the L1 loss of ab / 110 as in pix2pix (Isola et al. 2017), weighted by saturation."""
    return ((prediction - ab).abs() * saturation_weights(ab, config)).mean() / 110


def log_mse(prediction: Tensor, ab: Tensor, _: Tensor, config: LossConfig) -> Tensor:
    """Compute log(1 + MSE / beta^2) of each picture's ab, weighted by saturation, averaged over pictures.

    Up to a factor this is the PSNR, the measure of the evaluation. A mean over all pixels of the batch would
    be dominated by pictures whose strong colors cannot be predicted. The logarithm gives the same importance
    to nearly gray pictures, where slightly wrong chroma is visible. `beta` is the error, in CIE units, below
    which the loss hardly decreases.
    """
    error = (prediction - ab).square().sum(1, keepdim=True) * saturation_weights(ab, config)
    return (error.mean(dim=(1, 2, 3)) / config.beta**2).log1p().mean()


def log_mse_rgb(prediction: Tensor, ab: Tensor, lightness: Tensor, config: LossConfig) -> Tensor:
    """Compute the loss of `log_mse` on sRGB in place of ab: up to a factor, the PSNR of each picture.

    Errors of chroma count by their effect on the pixels. `beta` is in levels of 255. Predictions are clipped
    to [-0.2, 1.2], a fifth of full scale outside the sRGB gamut, and have no gradient beyond.
    """
    with torch.autocast(prediction.device.type, enabled=False):
        found, expected = (lab_to_rgb(torch.cat((lightness, x.float()), dim=1)) for x in (prediction, ab))
    error = (255 * (found.clamp(-0.2, 1.2) - expected.clamp(0, 1))).square().mean(1, keepdim=True)
    weighted = error * saturation_weights(ab, config)
    return (weighted.mean(dim=(1, 2, 3)) / config.beta**2).log1p().mean()


Reconstruction = Callable[[Tensor, Tensor, Tensor, LossConfig], Tensor]
"""Predicted and true ab, (N, 2, H, W) in CIE units, and the picture's L*, (N, 1, H, W) => a scalar."""
RECONSTRUCTION: dict[str, Reconstruction] = {
    "smooth_l1": smooth_l1,
    "l1": l1,
    "log_mse": log_mse,
    "log_mse_rgb": log_mse_rgb,
}


LOSSES: dict[str, Callable[[Config], Loss]] = {
    "perceptual": lambda config: PerceptualLoss(config.model.encoder),
}
"""Losses beside the reconstruction. Their weights are in `Phase.losses`, their parameters in `LossConfig`."""


class _Hinge:
    """Hinge loss (Lim & Ye 2017): scores beyond ±1 add no loss to the discriminator."""

    @staticmethod
    def discriminator(real: Tensor, fake: Tensor) -> Tensor:
        """Average the discriminator's loss over the scores of all real and generated patches."""
        return (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2

    @staticmethod
    def generator(fake: Tensor) -> Tensor:
        """Average the generator's loss over the scores of its patches."""
        return -fake.mean()


class _CrossEntropy:
    """The non-saturating loss of Goodfellow et al. 2014, used by pix2pix."""

    @staticmethod
    def discriminator(real: Tensor, fake: Tensor) -> Tensor:
        """Average the discriminator's loss over the scores (logits) of all real and generated patches."""
        return (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2

    @staticmethod
    def generator(fake: Tensor) -> Tensor:
        """Average the generator's loss over the scores (logits) of its patches."""
        return F.softplus(-fake).mean()


ADVERSARIAL: dict[str, type[_Hinge] | type[_CrossEntropy]] = {"hinge": _Hinge, "cross_entropy": _CrossEntropy}


def feature_matching(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Compute the mean L1 distance between the discriminator's features of real and generated pictures.

    The distances of all layers have equal weight. Wang et al. 2018, "High-Resolution Image Synthesis with
    Conditional GANs" (pix2pixHD), equation 4. Only the generated features get a gradient.
    """
    return torch.stack([(f - r.detach()).abs().mean() for r, f in zip(real, fake, strict=True)]).mean()
