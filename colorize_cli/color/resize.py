"""The small copy of a picture's lightness that the network sees.

The rule for its sides: the aspect is kept and the short side is the working size, unless the long side would
then exceed 4 working sizes; beyond an aspect of 4 : 1 the long side is 4 working sizes and the short one
follows the aspect. Both sides are then rounded to the nearest multiple of `multiple_of`, and are at least one
such multiple. So no copy has more than 4 working sizes squared, and the number of distinct shapes, each of
which is a batch of its own, stays small.

How sharp the copy is matters as much as its size. It is made with the triangle filter, as a network's
training crops are; the mean over areas, whose result is sharper, cost the first bundled model 0.15 dB.
"""

from typing import TypeVar

import cv2
import numpy as np
from PIL import Image

from colorize_cli.color.lab import Codes, Floats
from colorize_cli.color.lightness import Lightness

LONGEST = 4
# As codes the picture is reduced, by whole cells, to no less than this many times the copy's sides before the
# triangle filter, which is slow on large pictures. That adds 4 per cent to the filter's width at the most.
_FINER = 2.5
# Rows are reduced in stripes of about this many pixels, so that no full-size float32 copy is ever made.
_STRIPE_PIXELS = 1 << 18
# As codes a picture is reduced, by whole cells, to this many times the sides wanted: the greys of sRGB are
# nearly L*, and what cells at its edges have too much is nothing then.
_MARGIN = 2

CodesT = TypeVar("CodesT", bound=Codes)


def working_shape(shape: tuple[int, int], size: int, multiple_of: int) -> tuple[int, int]:
    """Height and width of the copy of a picture of `shape` (height, width), all in pixels."""
    short, long = min(shape), max(shape)
    scale = min(size / short, LONGEST * size / long)
    height, width = (max(1, round(side * scale / multiple_of)) * multiple_of for side in shape)
    return height, width


def working_copy(lightness: Lightness, size: int, multiple_of: int, aspect: float = 1.0) -> Floats:
    """What the network sees of a picture, (h, w) float32, by the rule of this module.

    Args:
        lightness: The picture, (H, W).
        size: The working size, in pixels.
        multiple_of: What both sides are a multiple of.
        aspect: Width of the picture's pixels over their height; those of the copy are square.
    """
    own_height, own_width = lightness.shape
    height, width = working_shape((own_height, max(1, round(own_width * aspect))), size, multiple_of)
    down, across = (_halves(own / (_FINER * new)) for own, new in ((own_height, height), (own_width, width)))
    codes = reduced(lightness.codes, down, across)
    finer = Lightness(codes, lightness.table).rows(0, len(codes))
    box = 0, 0, own_width / across, own_height / down  # without what fills the last cells
    return np.array(
        Image.fromarray(finer).resize((width, height), Image.Resampling.BILINEAR, box), np.float32
    )


def _halves(most: float) -> int:
    """The largest power of 2 that is not above `most`, and at least 1."""
    return 1 << max(0, int(most).bit_length() - 1)


def resized(lightness: Lightness, shape: tuple[int, int]) -> Floats:
    """L* of a picture at another size: the mean over the area of each new pixel, linear where it grows.

    Args:
        lightness: The picture, (H, W).
        shape: Height h and width w wanted.

    Returns:
        (h, w) float32, L* in [0, 100].
    """
    new_height, new_width = shape
    cell = min(side // (_MARGIN * new) for side, new in zip(lightness.shape, shape, strict=True))
    if cell > 1:
        lightness = Lightness(reduced(lightness.codes, cell), lightness.table)
    height, width = lightness.shape
    if new_width > width:  # too thin for its columns to be reduced first
        return _resize(_resize(lightness.rows(0, height), new_height, width), new_height, new_width)
    narrow = np.empty((height, new_width), np.float32)
    step = max(1, _STRIPE_PIXELS // width)
    for start in range(0, height, step):
        rows = lightness.rows(start, min(start + step, height))
        narrow[start : start + step] = _resize(rows, len(rows), new_width)
    return _resize(narrow, new_height, new_width)


def whole_cells(codes: CodesT, down: int, across: int) -> CodesT:
    """The codes, with the edges at the right and bottom repeated where cells are not whole."""
    height, width = codes.shape
    if not (height % down or width % across):
        return codes
    border = cv2.BORDER_REPLICATE
    return cv2.copyMakeBorder(codes, 0, -height % down, 0, -width % across, border)  # type: ignore[return-value]


def reduced(codes: CodesT, down: int, across: int | None = None) -> CodesT:
    """The means of cells, by codes, to a code; a quarter too much at most where much is averaged.

    They are (ceil(H / down), ceil(W / across)).

    Args:
        codes: (H, W).
        down: Pixels of a cell.
        across: The same; None for as many.
    """
    across = across or down
    if down == across == 1:
        return codes
    codes = whole_cells(codes, down, across)
    # Halves are five times as fast as larger cells, and round up where they may. Every second time they do so
    # of the inverse.
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
    """Resizes along one axis, the other being kept."""
    shrinks = height * width < values.size
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(values, (width, height), interpolation=method), np.float32).reshape(
        height, width
    )
