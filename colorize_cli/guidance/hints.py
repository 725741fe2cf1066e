"""Hints as they are given, in JSON or as an image.

They are marks with a colour, of which only a* and b* count. As JSON, those of one picture are

    {"points": [{"x": 10, "y": 20, "color": "#aa3311", "radius": 4}],
     "strokes": [{"points": [[5, 5], [40, 12]], "color": "#3060a0", "width": 6}]}

in pixels of the picture as it is shown, (0, 0) being the middle of the first one. `color` is whatever
`ImageColor` of Pillow reads ("#a31", "navy"); radius and width may be left out. Those of several pictures are
an object of such objects by the pictures' names. As an image, hints are where it is opaque; it has the
picture's aspect and any size.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor, ImageOps

from colorize_cli.color import lab
from colorize_cli.color.lab import Bytes
from colorize_cli.compose import Pins
from colorize_cli.core.errors import UsageError

# Of points and strokes that do not say, in pixels.
RADIUS, WIDTH = 4.0, 6.0
# A mark covers at least one pixel wherever it lies.
_LEAST_RADIUS = 0.75
_OPAQUE = 128
_POINT, _STROKE = frozenset({"x", "y", "color", "radius"}), frozenset({"points", "color", "width"})
_PARTS = frozenset({"points", "strokes"})
_MOST = 1e6  # a number in pixels


@dataclass(frozen=True)
class Mark:
    """A point or stroke.

    Attributes:
        points: x and y in pixels.
        radius: Of the brush, in pixels.
        chroma: a* and b*.
    """

    points: tuple[tuple[float, float], ...]
    radius: float
    chroma: tuple[float, float]

    @property
    def span(self) -> tuple[float, float]:
        """The least and greatest y that it covers."""
        ys = [y for _, y in self.points]
        return min(ys) - self.radius, max(ys) + self.radius


@dataclass(frozen=True)
class DrawnHints:
    """Hints that are points and strokes; later ones lie over earlier ones."""

    marks: tuple[Mark, ...]

    @property
    def digest(self) -> bytes:
        """The same for the same hints."""
        return _digest(repr(self.marks).encode())

    def check(self, shape: tuple[int, int]) -> None:
        """Whether they lie in a picture of `shape` (height, width).

        Raises:
            UsageError: One does not.
        """
        height, width = shape
        for mark in self.marks:
            for x, y in mark.points:
                if not (-0.5 <= x < width - 0.5 and -0.5 <= y < height - 0.5):
                    where = f"the picture, which is {width} x {height} pixels"
                    raise UsageError(f"the hint at x {x:g}, y {y:g} lies outside of {where}")

    def rows(self, shape: tuple[int, int], start: int, stop: int) -> Pins | None:
        """Those on the rows [start, stop) of a picture (see `propagation.HintRows`)."""
        marks = [mark for mark in self.marks if mark.span[0] < stop and mark.span[1] >= start]
        if not marks:
            return None
        numbers = np.zeros((stop - start, shape[1]), np.int32)
        for number, mark in enumerate(marks, 1):
            for begin, end in zip(mark.points, mark.points[1:] or mark.points, strict=False):
                _draw(numbers, start, begin, end, mark.radius, number)
        mask = numbers > 0
        chroma = np.array([mark.chroma for mark in marks], np.float32)
        return mask, chroma[numbers[mask] - 1].T


@dataclass(frozen=True)
class PaintedHints:
    """Hints that are an image of the picture's aspect.

    Attributes:
        rgba: (h, w, 4) sRGB with transparency.
    """

    rgba: Bytes

    @property
    def digest(self) -> bytes:
        """The same for the same hints."""
        return _digest(repr(self.rgba.shape).encode() + self.rgba.tobytes())

    def check(self, shape: tuple[int, int]) -> None:
        """Whether it has the aspect of a picture of `shape` (height, width), to a pixel.

        Raises:
            UsageError: It has not.
        """
        (height, width), (own_height, own_width) = shape, self.rgba.shape[:2]
        if abs(own_height * width - own_width * height) > max(height, width):
            aspects = f"{own_width} x {own_height}, than the picture, {width} x {height}"
            raise UsageError(f"the hints have another aspect, {aspects}")

    def rows(self, shape: tuple[int, int], start: int, stop: int) -> Pins | None:
        """Those on the rows [start, stop) of a picture (see `propagation.HintRows`)."""
        own_height, own_width = self.rgba.shape[:2]
        rows = np.arange(start, stop) * own_height // shape[0]
        columns = np.arange(shape[1]) * own_width // shape[1]
        part = self.rgba[rows][:, columns]
        mask = part[..., 3] >= _OPAQUE
        if not mask.any():
            return None
        return mask, lab.srgb_to_lab(part[mask][:, :3] / np.float32(255))[:, 1:].T


Hints = DrawnHints | PaintedHints


def parse(text: str | bytes) -> DrawnHints | dict[str, DrawnHints]:
    """Hints in JSON: those of one picture, or those of several by their names.

    Raises:
        UsageError: It is no JSON, or not as this module describes it. The text says where.
    """
    try:
        given = json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise UsageError("no JSON: nested too deeply") from None
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError too
        raise UsageError(f"no JSON: {error}") from error
    if not isinstance(given, dict) or not given:
        raise UsageError("not an object with points or strokes, or with such objects by pictures' names")
    if all(isinstance(value, dict) for value in given.values()):
        return {name: _within(f"{name!r}: ", value) for name, value in given.items()}
    return from_object(given)


def from_object(given: Mapping[str, Any]) -> DrawnHints:
    """Hints of one picture, as this module describes them.

    Raises:
        UsageError: They are not as described.
    """
    _check_keys("the hints", given, _PARTS)
    marks = [
        *(_point(f"points[{i}]", point) for i, point in enumerate(_list(given, "points"))),
        *(_stroke(f"strokes[{i}]", stroke) for i, stroke in enumerate(_list(given, "strokes"))),
    ]
    if not marks:
        raise UsageError("there are no points and no strokes")
    return DrawnHints(tuple(marks))


def from_image(image: Image.Image) -> PaintedHints:
    """Hints of one picture, as an image that is transparent where there are none.

    Raises:
        UsageError: It has no transparency, or is transparent all over.
    """
    if not image.has_transparency_data:
        raise UsageError("the image has no transparency: hints are where it is opaque")
    rgba = np.asarray(ImageOps.exif_transpose(image).convert("RGBA"))
    if rgba[..., 3].max(initial=0) < _OPAQUE:
        raise UsageError("there are no hints: the image is transparent all over")
    return PaintedHints(rgba)


def _draw(
    numbers: npt.NDArray[np.int32],
    first: int,
    begin: tuple[float, float],
    end: tuple[float, float],
    radius: float,
    number: int,
) -> None:
    """Sets what lies within `radius` of a line, in rows of which `first` is the first."""
    height, width = numbers.shape
    xs, ys = (begin[0], end[0]), (begin[1], end[1])
    left, right = max(0, math.ceil(min(xs) - radius)), min(width, math.floor(max(xs) + radius) + 1)
    top = max(0, math.ceil(min(ys) - radius) - first)
    bottom = min(height, math.floor(max(ys) + radius) + 1 - first)
    if left >= right or top >= bottom:
        return
    x = np.arange(left, right)[None] - begin[0]
    y = np.arange(top, bottom)[:, None] + (first - begin[1])
    along_x, along_y = end[0] - begin[0], end[1] - begin[1]
    length = along_x * along_x + along_y * along_y
    t = np.clip((x * along_x + y * along_y) / length, 0, 1) if length else 0.0
    near = (x - t * along_x) ** 2 + (y - t * along_y) ** 2 <= radius * radius
    numbers[top:bottom, left:right][near] = number


def _point(where: str, given: Any) -> Mark:
    _check_keys(where, given, _POINT)
    place = _number(f"{where}.x", given.get("x")), _number(f"{where}.y", given.get("y"))
    radius = _positive(f"{where}.radius", given.get("radius", RADIUS))
    return Mark((place,), max(radius, _LEAST_RADIUS), _chroma(f"{where}.color", given.get("color")))


def _stroke(where: str, given: Any) -> Mark:
    _check_keys(where, given, _STROKE)
    places = []
    for i, pair in enumerate(_list(given, "points", f"{where}.")):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise UsageError(f"{where}.points[{i}] is not [x, y]: {_shown(pair)}")
        x, y = (_number(f"{where}.points[{i}]", value) for value in pair)
        places.append((x, y))
    if not places:
        raise UsageError(f"{where} has no points")
    radius = _positive(f"{where}.width", given.get("width", WIDTH)) / 2
    return Mark(tuple(places), max(radius, _LEAST_RADIUS), _chroma(f"{where}.color", given.get("color")))


def _within(where: str, given: Mapping[str, Any]) -> DrawnHints:
    try:
        return from_object(given)
    except UsageError as error:
        raise UsageError(f"{where}{error}") from error


def _check_keys(where: str, given: Any, known: frozenset[str]) -> None:
    if not isinstance(given, Mapping):
        raise UsageError(f"{where} is not an object: {_shown(given)}")
    for key in given:
        if key not in known:
            raise UsageError(f"{where}: {_shown(key)} is none of {', '.join(sorted(known))}")


def _list(given: Mapping[str, Any], key: str, where: str = "") -> list[Any]:
    value = given.get(key, [])
    if not isinstance(value, list | tuple):
        raise UsageError(f"{where}{key} is not a list: {_shown(value)}")
    return list(value)


def _number(where: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_MOST < value < _MOST:
        raise UsageError(f"{where} is no number of pixels: {_shown(value)}")
    return float(value)


def _positive(where: str, value: Any) -> float:
    number = _number(where, value)
    if number <= 0:
        raise UsageError(f"{where} is not greater than 0: {_shown(value)}")
    return number


def _chroma(where: str, value: Any) -> tuple[float, float]:
    try:
        rgb = ImageColor.getrgb(value) if isinstance(value, str) else ()
    except ValueError:
        rgb = ()
    if len(rgb) != 3 or not all(0 <= channel <= 255 for channel in rgb):
        raise UsageError(f"{where} is no colour like #aa3311: {_shown(value)}")
    _, a, b = lab.srgb_to_lab(np.array(rgb) / 255)
    return float(a), float(b)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, of which no key is there twice: one of the two would be lost silently."""
    given = dict(pairs)
    if len(given) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r} is there twice")
    return given


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()
