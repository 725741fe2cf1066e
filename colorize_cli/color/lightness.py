"""Store the lightness of a picture in the size of its source samples."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from colorize_cli.color.lab import Bytes, Codes, Floats, lightness_of_gray


@dataclass(frozen=True)
class Lightness:
    """Lightness of a picture, as integer codes and a lookup table.

    Attributes:
        codes: (H, W) uint8 or uint16, as stored in an 8-bit or 16-bit gray picture, or L* in steps of
            1/655.35.
        table: (256,) or (65536,) float32, L* in [0, 100] of each code.
    """

    codes: Codes
    table: Floats

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.codes.shape
        return height, width

    def rows(self, start: int, stop: int) -> Floats:
        """Return L* of the rows [start, stop), (stop - start, W) float32."""
        codes = self.codes[start:stop]
        if codes.dtype == np.uint8:  # cv2.LUT is three times as fast
            return np.asarray(cv2.LUT(codes, self.table), np.float32)
        return self.table.take(codes)

    def levels(self) -> Bytes:
        """Return the nearest 8-bit sRGB grays, (H, W) uint8. Shares memory with codes that are such grays."""
        if self.codes.dtype == np.uint8 and np.array_equal(self.table, GRAY8):
            return np.asarray(self.codes, np.uint8)
        nearest = np.rint(np.interp(self.table, GRAY8, np.arange(256))).astype(np.uint8)
        grays = np.empty(self.shape, np.uint8)
        for row, codes in zip(grays, self.codes, strict=True):  # all at once needs 8 bytes a pixel of indices
            row[:] = nearest.take(codes)
        return grays


def uniform_codes(lightness: Floats) -> npt.NDArray[np.uint16]:
    """Return the codes of the table UNIFORM16 nearest to L* in [0, 100]."""
    codes: npt.NDArray[np.uint16] = np.rint(np.clip(lightness, 0, 100) * np.float32(655.35)).astype(np.uint16)
    return codes


# Tables of `Lightness`: 8-bit and 16-bit sRGB gray, and L* in equal steps (see `uniform_codes`).
GRAY8 = lightness_of_gray(np.arange(256) / 255)
GRAY16 = lightness_of_gray(np.arange(65536) / 65535)
UNIFORM16 = (np.arange(65536) * (100 / 65535)).astype(np.float32)
