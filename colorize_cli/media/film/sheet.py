"""Contact sheets: frames before and after, in one picture to look at."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from PIL import Image, ImageDraw, ImageFont

_MARGIN, _TEXT = 8, 18
_CLOCK = len("0:00:00.0")
_GROUND, _INK = (24, 24, 24), (220, 220, 220)


@dataclass(frozen=True)
class Pair:
    """A frame before and after, two images of one size, and when it is shown, in seconds."""

    seconds: float
    before: Image.Image
    after: Image.Image


def contact_sheet(pairs: Sequence[Pair]) -> Image.Image:
    """Pairs in rows, each under its time: wide frames with the coloured one below, high ones beside.

    Args:
        pairs: At least one; all of one size.
    """
    width, height = pairs[0].before.size
    beside = height > width
    across, down = (2 * width, height) if beside else (width, 2 * height)
    cell = across + _MARGIN, down + _TEXT + _MARGIN
    columns = min(len(pairs), max(1, round(math.sqrt(len(pairs) * cell[1] / cell[0]))))
    rows = -(-len(pairs) // columns)
    sheet = Image.new("RGB", (columns * cell[0] + _MARGIN, rows * cell[1] + _MARGIN), _GROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_TEXT - 4)
    for number, pair in enumerate(pairs):
        left = _MARGIN + number % columns * cell[0]
        top = _MARGIN + number // columns * cell[1]
        draw.text((left, top), str(timedelta(seconds=round(pair.seconds, 1)))[:_CLOCK], _INK, font)
        sheet.paste(pair.before, (left, top + _TEXT))
        offset = (width, 0) if beside else (0, height)
        sheet.paste(pair.after, (left + offset[0], top + _TEXT + offset[1]))
    return sheet
