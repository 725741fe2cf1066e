"""What the networks are trained to reduce: pure functions of tensors, in tables by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.config import LossConfig
from trainer.lab import lab_to_rgb


def saturation_weights(ab: Tensor, config: LossConfig) -> Tensor:
    """(N, 2, H, W) true ab to (N, 1, H, W) weights of at least 1, higher where chroma is high.

    Most pixels of most photographs are nearly gray, so an unweighted loss is least for brown averages; Zhang
    et al. 2016, "Colorful Image Colorization", rebalance classes of ab for that reason. This is the mild form
    for regression: the weight grows linearly with chroma up to `saturated_chroma`.
    """
    chroma = ab.square().sum(1, keepdim=True).sqrt()
    return 1 + config.saturation_weight * (chroma / config.saturated_chroma).clamp(max=1)


def smooth_l1(prediction: Tensor, ab: Tensor, _: Tensor, config: LossConfig) -> Tensor:
    """Smooth L1 (Girshick 2015) of ab, quadratic below `beta`, weighted by saturation.

    Both tensors (N, 2, H, W) in CIE units; the loss is divided by `beta`, so that small errors count as
    e^2 / (2 beta^2).
    """
    error = F.smooth_l1_loss(prediction, ab, beta=config.beta, reduction="none") / config.beta
    return (error * saturation_weights(ab, config)).mean()


def l1(prediction: Tensor, ab: Tensor, _: Tensor, config: LossConfig) -> Tensor:
    """L1 of ab as in pix2pix (Isola et al. 2017), on ab / 110, weighted by saturation."""
    return ((prediction - ab).abs() * saturation_weights(ab, config)).mean() / 110


def log_mse(prediction: Tensor, ab: Tensor, _: Tensor, config: LossConfig) -> Tensor:
    """Logarithm of the mean square error of each picture, weighted by saturation, averaged over pictures.

    Up to a factor the PSNR that is measured in the end. Unlike a mean over all pixels of the batch it cares
    as much for a picture that is nearly gray, where a little wrong chroma shows, as for one whose strong
    colors cannot be known. `beta` is the error, in CIE units, below which little is gained.
    """
    error = (prediction - ab).square().sum(1, keepdim=True) * saturation_weights(ab, config)
    return (error.mean(dim=(1, 2, 3)) / config.beta**2).log1p().mean()


def log_mse_rgb(prediction: Tensor, ab: Tensor, lightness: Tensor, config: LossConfig) -> Tensor:
    """Like `log_mse`, but of sRGB: up to a factor the PSNR of each picture.

    Errors of chroma count as much as they change the picture's pixels. `beta` is in levels of 255.
    Predictions are clipped a fifth of full scale outside the sRGB gamut, and have no gradient there.
    """
    with torch.autocast(prediction.device.type, enabled=False):
        found, expected = (lab_to_rgb(torch.cat((lightness, x.float()), dim=1)) for x in (prediction, ab))
    error = (255 * (found.clamp(-0.2, 1.2) - expected.clamp(0, 1))).square().mean(1, keepdim=True)
    weighted = error * saturation_weights(ab, config)
    return (weighted.mean(dim=(1, 2, 3)) / config.beta**2).log1p().mean()


Reconstruction = Callable[[Tensor, Tensor, Tensor, LossConfig], Tensor]
"""Predicted ab and true ab, (N, 2, H, W) in CIE units, and the picture's L*, (N, 1, H, W), to a scalar."""
RECONSTRUCTION: dict[str, Reconstruction] = {
    "smooth_l1": smooth_l1,
    "l1": l1,
    "log_mse": log_mse,
    "log_mse_rgb": log_mse_rgb,
}


class _Hinge:
    """Hinge loss (Lim & Ye 2017): the discriminator is content with scores beyond ±1."""

    @staticmethod
    def discriminator(real: Tensor, fake: Tensor) -> Tensor:
        """Mean over all patches of both batches of scores."""
        return (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2

    @staticmethod
    def generator(fake: Tensor) -> Tensor:
        """What the generator lowers, over its patches' scores."""
        return -fake.mean()


class _CrossEntropy:
    """The non-saturating loss of Goodfellow et al. 2014, as pix2pix has it."""

    @staticmethod
    def discriminator(real: Tensor, fake: Tensor) -> Tensor:
        """Mean over all patches of both batches of scores (logits)."""
        return (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2

    @staticmethod
    def generator(fake: Tensor) -> Tensor:
        """What the generator lowers, over its patches' scores (logits)."""
        return F.softplus(-fake).mean()


ADVERSARIAL: dict[str, type[_Hinge] | type[_CrossEntropy]] = {"hinge": _Hinge, "cross_entropy": _CrossEntropy}


def feature_matching(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Mean L1 distance between the discriminator's features of real and generated pictures, layer by layer.

    Wang et al. 2018, "High-Resolution Image Synthesis with Conditional GANs" (pix2pixHD), equation 4; the
    gradient reaches the generated features only.
    """
    return torch.stack([(f - r.detach()).abs().mean() for r, f in zip(real, fake, strict=True)]).mean()
