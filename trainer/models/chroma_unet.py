"""The default generator: a residual U-Net that spends its computation where chroma is decided.

What a thing is, and so which colour it has, is seen at 1/8 and 1/16 of the picture; where its edges lie is
known from the full-resolution lightness that guides the upsampling later. So the two finest scales are thin,
chroma is predicted at half the working size, and the bulk of the residual blocks (He et al. 2016) sits at 1/8
and 1/16, where a pooled summary of the whole picture is added to every place (Iizuka et al. 2016). Pictures
so small that 1/16 of them is a point or two can be seen at twice these scales (`chroma_scale` 1).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from trainer.models.generator import Generator
from trainer.models.norm import BatchNorm


class ConvNorm(nn.Sequential):
    """3 x 3 convolution and batch normalisation; the two are one convolution after export."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            BatchNorm(outputs),
        )

    def start_at_zero(self) -> None:
        """Let a residual branch add nothing at first (Goyal et al. 2017)."""
        norm = self[1]
        assert isinstance(norm, nn.BatchNorm2d)  # noqa: S101 - built above
        nn.init.zeros_(norm.weight)


class Residual(nn.Module):
    """Basic residual block of two 3 x 3 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvNorm(channels, channels)
        self.second = ConvNorm(channels, channels)
        self.second.start_at_zero()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) => (N, C, H, W)."""
        return F.relu(x + self.second(F.relu(self.first(x))))


class GlobalContext(nn.Module):
    """Adds what the whole picture is to every place in it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.summary = nn.Sequential(
            nn.Conv2d(channels, channels, 1), nn.ReLU(), nn.Conv2d(channels, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) => (N, C, H, W)."""
        return F.relu(x + self.summary(x.mean(dim=(2, 3), keepdim=True)))


class Upsample(nn.Module):
    """Doubles the size and joins the encoder's features."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.reduce = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), BatchNorm(outputs))
        self.skip = nn.Sequential(nn.Conv2d(outputs, outputs, 1, bias=False), BatchNorm(outputs))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(N, I, H, W), (N, O, 2H, 2W) => (N, O, 2H, 2W)."""
        return F.relu(F.interpolate(self.reduce(x), scale_factor=2.0, mode="nearest") + self.skip(skip))


class ChromaUNet(Generator):
    """Lightness to chroma at half the size, or the same.

    Args:
        width: channels at the finest scale, where chroma is predicted; 2, 4 and 8 times as many at the next.
        chroma_scale: height and width of the lightness over those of the chroma, 1 or 2.
    """

    _AB_UNIT = 50.0  # a network output of 1 is this much a* or b*: about a saturated colour

    def __init__(self, width: int = 32, chroma_scale: int = 2) -> None:
        super().__init__()
        self.chroma_scale = chroma_scale
        self.multiple_of = 8 * chroma_scale
        half, quarter, eighth, sixteenth = width, 2 * width, 4 * width, 8 * width
        self.stem = nn.Sequential(
            ConvNorm(1, half, stride=chroma_scale), nn.ReLU(), ConvNorm(half, half), nn.ReLU()
        )
        self.quarter = nn.Sequential(ConvNorm(half, quarter, stride=2), nn.ReLU(), Residual(quarter))
        self.eighth = nn.Sequential(
            ConvNorm(quarter, eighth, stride=2), nn.ReLU(), *(Residual(eighth) for _ in range(3))
        )
        self.sixteenth = nn.Sequential(
            ConvNorm(eighth, sixteenth, stride=2),
            nn.ReLU(),
            Residual(sixteenth),
            Residual(sixteenth),
            GlobalContext(sixteenth),
            Residual(sixteenth),
            Residual(sixteenth),
            GlobalContext(sixteenth),
        )
        self.to_eighth = Upsample(sixteenth, eighth)
        self.decode_eighth = nn.Sequential(Residual(eighth), Residual(eighth))
        self.to_quarter = Upsample(eighth, quarter)
        self.decode_quarter = Residual(quarter)
        self.to_half = Upsample(quarter, half)
        self.decode_half = nn.Sequential(ConvNorm(half, half), nn.ReLU())
        self.head = nn.Conv2d(half, 2, 3, padding=1)

    def forward(self, lightness: Tensor) -> Tensor:
        """(N, 1, H, W) L* in [0, 100] => (N, 2, H/s, W/s) a*, b* in CIE units."""
        ab: Tensor = self.head(self.features(lightness)) * self._AB_UNIT
        return ab

    def features(self, lightness: Tensor) -> Tensor:
        """(N, 1, H, W) L* in [0, 100] => (N, width, H/s, W/s), what the head sees."""
        half = self.stem(lightness / 50 - 1)
        quarter = self.quarter(half)
        eighth = self.eighth(quarter)
        x = self.sixteenth(eighth)
        x = self.decode_eighth(self.to_eighth(x, eighth))
        x = self.decode_quarter(self.to_quarter(x, quarter))
        features: Tensor = self.decode_half(self.to_half(x, half))
        return features
