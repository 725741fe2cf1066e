"""Gray pictures, their lightness, and the colors that tests give them."""

from pathlib import Path

import numpy as np

from colorize_cli.compose import compose, compose16
from colorize_cli.core.formats import PICTURE_FORMATS
from colorize_cli.image import reader, writer
from colorize_cli.image.frame import Frame, Page


def gray(height: int = 24, width: int = 32) -> np.ndarray:
    """Return an 8-bit picture with structure along both axes and no symmetry."""
    y, x = np.mgrid[:height, :width]
    return ((x * 5 + y * 3 + 20 * (x > width // 3)) % 230 + 10).astype(np.uint8)


def in_depth(codes: np.ndarray, dtype: type, channels: int = 3) -> np.ndarray:
    """Convert 8-bit gray to `channels` equal channels of another type, with the same lightness."""
    white = 1 if dtype is np.float32 else np.iinfo(dtype).max
    samples = (np.round(codes / 255 * white) if white > 1 else codes / 255).astype(dtype)
    return np.stack([samples] * channels, axis=-1)


def lightness_of(frame: Frame) -> np.ndarray:
    return frame.lightness.rows(0, frame.lightness.shape[0])


def colored(frame: Frame, format_: str = "TIFF") -> Page:
    ab = np.stack([np.full((3, 5), 6), np.full((3, 5), 9)]).astype(np.float32)
    deep = frame.deep and PICTURE_FORMATS[format_].deep
    return frame, (compose16 if deep else compose)(frame.lightness, ab)


def colorized(source: Path, output: Path) -> Path:
    frame = reader.read(source, 1_000_000)
    ab = np.stack([np.full((3, 5), 6), np.full((3, 5), 9)]).astype(np.float32)
    writer.write(output, [(frame, compose(frame.lightness, ab))])
    return output
