"""The lightness of a picture, kept as small as what it was read from."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from colorize_cli.color.lab import Bytes, Codes, Floats, lightness_of_gray


@dataclass(frozen=True)
class Lightness:
    """The lightness of a picture, kept as small as what it was read from.

    Attributes:
        codes: (H, W) uint8 or uint16, as stored in an 8-bit or 16-bit grey picture, or L* in steps of
            1/655.35.
        table: (256,) or (65536,) float32, the L* in [0, 100] that each code means.
    """

    codes: Codes
    table: Floats

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.codes.shape
        return height, width

    def rows(self, start: int, stop: int) -> Floats:
        """L* of the rows [start, stop), (stop - start, W) float32."""
        codes = self.codes[start:stop]
        if codes.dtype == np.uint8:  # and three times as fast
            return np.asarray(cv2.LUT(codes, self.table), np.float32)
        return self.table.take(codes)

    def levels(self) -> Bytes:
        """The nearest 8-bit sRGB greys, (H, W) uint8; shares memory with the codes where they are such."""
        if self.table is GRAY8 and self.codes.dtype == np.uint8:
            return np.asarray(self.codes, np.uint8)
        nearest = np.rint(np.interp(self.table, GRAY8, np.arange(256))).astype(np.uint8)
        found = np.empty(self.shape, np.uint8)
        for row, codes in zip(found, self.codes, strict=True):  # at once indices would take 8 bytes a pixel
            row[:] = nearest.take(codes)
        return found


def uniform_codes(lightness: Floats) -> npt.NDArray[np.uint16]:
    """Codes of the table UNIFORM16 nearest to the given L* in [0, 100]."""
    codes: npt.NDArray[np.uint16] = np.rint(np.clip(lightness, 0, 100) * np.float32(655.35)).astype(np.uint16)
    return codes


# The tables of `Lightness`: 8-bit and 16-bit sRGB grey, and L* in equal steps (see `uniform_codes`).
GRAY8 = lightness_of_gray(np.arange(256) / 255)
GRAY16 = lightness_of_gray(np.arange(65536) / 65535)
UNIFORM16 = (np.arange(65536) * (100 / 65535)).astype(np.float32)
