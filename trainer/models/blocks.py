"""Building blocks of residual decoders."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from trainer.models.norm import BatchNorm


class ConvNorm(nn.Sequential):
    """3 x 3 convolution and batch normalization, fused to one convolution by the export."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            BatchNorm(outputs),
        )


class Residual(nn.Module):
    """Basic residual block of two 3 x 3 convolutions (He et al. 2016).

    The scale of its second normalization starts at zero, so that a new block is the identity for inputs of
    at least 0 (Goyal et al. 2017).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvNorm(channels, channels)
        self.second = ConvNorm(channels, channels)
        norm = self.second[1]
        assert isinstance(norm, nn.BatchNorm2d)  # noqa: S101 - built above
        nn.init.zeros_(norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block: (N, C, H, W) => (N, C, H, W)."""
        return F.relu(x + self.second(F.relu(self.first(x))))


class GlobalContext(nn.Module):
    """Adds a summary of the whole picture to every position (Iizuka et al. 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.summary = nn.Sequential(
            nn.Conv2d(channels, channels, 1), nn.ReLU(), nn.Conv2d(channels, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block: (N, C, H, W) => (N, C, H, W)."""
        return F.relu(x + self.summary(x.mean(dim=(2, 3), keepdim=True)))


class Upsample(nn.Module):
    """Upsamples features by 2 and adds the encoder's features of the new size."""

    def __init__(self, inputs: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.reduce = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), BatchNorm(outputs))
        self.skip = nn.Sequential(nn.Conv2d(skip, outputs, 1, bias=False), BatchNorm(outputs))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Apply the block: (N, I, H, W), (N, S, 2H, 2W) => (N, O, 2H, 2W)."""
        return F.relu(F.interpolate(self.reduce(x), scale_factor=2.0, mode="nearest") + self.skip(skip))
