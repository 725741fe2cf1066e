"""A discriminator on the features of a fixed image classifier (projected GAN)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from trainer.lab import recompose
from trainer.models.encoders import ENCODER_MULTIPLE, build_encoder


class ProjectedDiscriminator(nn.Module):
    """Scores the realism of a picture at four scales.

    Sauer et al. 2021, "Projected GANs Converge Faster": small heads with spectral normalization on the
    features of a frozen pretrained encoder. The random feature mixing of the paper is omitted.

    Args:
        encoder: a row of `trainer.models.encoders.ENCODERS`.
        width: channels of the heads.
    """

    multiple_of = ENCODER_MULTIPLE
    """Number that the height and width of the lightness must be multiples of."""
    minimum_chroma = 1
    """Smallest height and width of the chroma that gives a score, in pixels."""

    def __init__(self, encoder: str, width: int) -> None:
        super().__init__()
        self.encoder = build_encoder(encoder).requires_grad_(False)
        self.heads = nn.ModuleList(
            nn.ModuleList(
                (
                    nn.Sequential(spectral_norm(nn.Conv2d(channels, width, 1)), nn.LeakyReLU(0.2)),
                    nn.Sequential(spectral_norm(nn.Conv2d(width, width, 3, padding=1)), nn.LeakyReLU(0.2)),
                    spectral_norm(nn.Conv2d(width, 1, 1)),
                )
            )
            for channels in self.encoder.channels[1:]
        )

    def load_pretrained(self) -> None:
        """Load the encoder's ImageNet weights.

        Raises:
            ConfigError: if the package with the weights is not installed.
        """
        self.encoder.load_pretrained()

    def requires_grad_(self, requires_grad: bool = True) -> ProjectedDiscriminator:
        """Enable or disable the gradients of the heads. The encoder never has gradients."""
        self.heads.requires_grad_(requires_grad)
        return self

    def forward(self, lightness: Tensor, ab: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Compute scores and features.

        Args:
            lightness: (N, 1, H, W) L* in [0, 100]; H and W multiples of 32.
            ab: (N, 2, h, w) a*, b* in CIE units.

        Returns:
            The scores, (N, 1, H/s, W/s) for s = 4, 8, 16, 32, positive for real, and the outputs of the
            heads' layers before them.
        """
        scores, features = [], []
        for head, x in zip(self.heads, self.encoder(255 * recompose(lightness, ab))[1:], strict=True):
            assert isinstance(head, nn.ModuleList)  # noqa: S101 - built above
            *layers, last = head
            for layer in layers:
                x = layer(x)
                features.append(x)
            scores.append(last(x))
        return scores, features
