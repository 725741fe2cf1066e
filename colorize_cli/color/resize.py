"""Resize lightness, in particular to the small copy that the network sees.

The rule for the sides of the copy: the aspect is kept, and the short side is the working size. Beyond an
aspect of 4 : 1 the long side is 4 working sizes instead, and the short side follows the aspect. Both sides
are then rounded to the nearest multiple of `multiple_of`, and are at least one such multiple. A copy thus has
about 4 times the squared working size in pixels at most. The number of distinct shapes stays small, which
matters because each shape needs a separate batch.

The sharpness of the copy matters as much as its size. The copy is made with the triangle filter, like the
training crops of the network. The area mean, which is sharper, cost the first bundled model 0.15 dB.
"""

from typing import TypeVar

import cv2
import numpy as np
from PIL import Image

from colorize_cli.color.lab import Codes, Floats
from colorize_cli.color.lightness import Lightness

LONGEST = 4
# Before the triangle filter, which is slow on large pictures, the codes are averaged over whole cells, to no
# less than this many times the sides of the copy. That widens the filter by at most 4 percent.
_FINER = 2.5
# Rows are reduced in stripes of about this many pixels, to avoid a full-size float32 copy.
_STRIPE_PIXELS = 1 << 18
# `resized` first averages the codes over whole cells, to no less than this many times the new sides. Codes of
# sRGB grays are nearly linear in L*, and at that size the padding of the edge cells has no effect.
_MARGIN = 2

CodesT = TypeVar("CodesT", bound=Codes)


def working_shape(shape: tuple[int, int], size: int, multiple_of: int) -> tuple[int, int]:
    """Return height and width of the copy of a picture of `shape` (height, width), all in pixels."""
    short, long = min(shape), max(shape)
    scale = min(size / short, LONGEST * size / long)
    height, width = (max(1, round(side * scale / multiple_of)) * multiple_of for side in shape)
    return height, width


def working_copy(lightness: Lightness, size: int, multiple_of: int, aspect: float = 1.0) -> Floats:
    """Return the network's input for a picture, L* (h, w) float32, by the rule of this module.

    Args:
        lightness: The picture, (H, W).
        size: The working size in pixels.
        multiple_of: Both sides of the copy are multiples of this.
        aspect: Pixel aspect ratio of the picture, width over height. The copy has square pixels.
    """
    old_height, old_width = lightness.shape
    height, width = working_shape((old_height, max(1, round(old_width * aspect))), size, multiple_of)
    # The largest powers of 2 that leave enough pixels, but at least 1.
    down = 1 << max(0, int(old_height / (_FINER * height)).bit_length() - 1)
    across = 1 << max(0, int(old_width / (_FINER * width)).bit_length() - 1)
    codes = reduced(lightness.codes, down, across)
    finer = Lightness(codes, lightness.table).rows(0, len(codes))
    box = 0, 0, old_width / across, old_height / down  # without the padding of the last cells
    return np.array(
        Image.fromarray(finer).resize((width, height), Image.Resampling.BILINEAR, box), np.float32
    )


def resized(lightness: Lightness, shape: tuple[int, int]) -> Floats:
    """Resize the lightness of a picture: area mean where it shrinks, linear interpolation where it grows.

    Args:
        lightness: The picture, (H, W).
        shape: New height h and width w, in pixels.

    Returns:
        (h, w) float32, L* in [0, 100].
    """
    new_height, new_width = shape
    cell = min(side // (_MARGIN * new) for side, new in zip(lightness.shape, shape, strict=True))
    if cell > 1:
        lightness = Lightness(reduced(lightness.codes, cell), lightness.table)
    height, width = lightness.shape
    if new_width > width:  # too narrow to reduce the columns first
        return _resize(_resize(lightness.rows(0, height), new_height, width), new_height, new_width)
    narrow = np.empty((height, new_width), np.float32)
    step = max(1, _STRIPE_PIXELS // width)
    for start in range(0, height, step):
        rows = lightness.rows(start, min(start + step, height))
        narrow[start : start + step] = _resize(rows, len(rows), new_width)
    return _resize(narrow, new_height, new_width)


def whole_cells(codes: CodesT, down: int, across: int) -> CodesT:
    """Pad codes (H, W) at the right and bottom with repeated edges to whole cells of `down` x `across`."""
    height, width = codes.shape
    if not (height % down or width % across):
        return codes
    border = cv2.BORDER_REPLICATE
    return cv2.copyMakeBorder(codes, 0, -height % down, 0, -width % across, border)  # type: ignore[return-value]


def reduced(codes: CodesT, down: int, across: int | None = None) -> CodesT:
    """Average codes over cells.

    Means are accurate to one code. For large cells their bias is at most a quarter of a code, upwards.

    Args:
        codes: (H, W).
        down: Height of a cell in pixels.
        across: Width of a cell in pixels; None for `down`.

    Returns:
        (ceil(H / down), ceil(W / across)), of the same type as `codes`.
    """
    across = across or down
    if down == across == 1:
        return codes
    codes = whole_cells(codes, down, across)
    # Repeated halving is five times as fast as one step over larger cells. OpenCV rounds halves up, so every
    # second step works on the inverted codes to cancel the bias.
    inverted = False
    while down % 2 == across % 2 == 0 and max(down, across) > 2:
        codes, down, across = _inverse(_by_cells(codes, 2, 2)), down // 2, across // 2
        inverted = not inverted
    codes = _by_cells(codes, down, across)
    return _inverse(codes) if inverted else codes


def _inverse(codes: CodesT) -> CodesT:
    return np.invert(codes)  # type: ignore[return-value]


def _by_cells(codes: CodesT, down: int, across: int) -> CodesT:
    size = codes.shape[1] // across, codes.shape[0] // down
    return cv2.resize(codes, size, interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def _resize(values: Floats, height: int, width: int) -> Floats:
    """Resize along one axis; the other keeps its size."""
    shrinks = height * width < values.size
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(values, (width, height), interpolation=method), np.float32).reshape(
        height, width
    )
