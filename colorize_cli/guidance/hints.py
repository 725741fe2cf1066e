"""Hints in their file formats: drawn hints in JSON, and painted hints as an image.

Hints give colors to places in an image. Only a* and b* of a color are used: the image keeps its lightness.
The chroma of a color is limited to 2.5 times its own L*. This changes only colors that are dark and vivid at
the same time, such as navy, whose chroma would be glaring in a lighter place.

The JSON object for one image is

    {"points": [{"x": 10, "y": 20, "color": "#aa3311", "radius": 4}],
     "strokes": [{"points": [[5, 5], [40, 12]], "color": "#3060a0", "width": 6}]}

Coordinates are in pixels of the image in display orientation. (0, 0) is the center of the top left pixel.
`color`, or `colour`, is any color that Pillow's `ImageColor` supports ("#a31", "navy", "dark red"). Radius
and width are optional. Hints for several images are an object that maps image names to such objects. Painted
hints are an image of any size with the same aspect ratio. Its opaque pixels are the hints. If it is opaque
everywhere, it is a painted copy of the image, and the pixels that differ in a* and b* from the unpainted ones
are the hints.
"""

import contextlib
import hashlib
import json
import math
import re
import reprlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor, ImageOps

from colorize_cli.color import lab
from colorize_cli.color.lab import Bytes, Floats
from colorize_cli.compose import Pins
from colorize_cli.core.errors import UsageError

# Default radius of points and width of strokes, in pixels.
RADIUS, WIDTH = 4.0, 6.0
# A mark of this radius covers at least one pixel at any position.
_LEAST_RADIUS = 0.75
_OPAQUE = 128
# Greatest chroma of a hint, relative to the L* of its color.
_MOST_CHROMA = 2.5
# Painted copies: distance in a* and b* from which a pixel counts as painted; the chroma below which a pixel
# is gray; and the share of gray pixels from which the copy counts as gray, otherwise as toned.
_PAINTED, _GRAY, _GRAY_SHARE = 6.0, 2.0, 0.01
_POINT = frozenset({"x", "y", "color", "colour", "radius"})
_STROKE = frozenset({"points", "color", "colour", "width"})
_PARTS = frozenset({"points", "strokes"})
_LIMIT = 1e6  # bound of coordinates and sizes, in pixels
LONGEST = 1 << 24  # bytes of JSON
# Bounds of the time for drawing: pixels of the rectangles around all lines and points, and how often these
# may cover the image.
_MOST_PIXELS, _MOST_COVERS = 1 << 30, 50


@dataclass(frozen=True)
class Mark:
    """A point or stroke.

    Attributes:
        points: x and y in pixels.
        radius: Radius of the brush in pixels.
        chroma: CIE a* and b*.
    """

    points: tuple[tuple[float, float], ...]
    radius: float
    chroma: tuple[float, float]

    @property
    def lines(self) -> Iterator[tuple[tuple[float, float], tuple[float, float]]]:
        """Start and end of each line of the mark. A point is a line of length 0."""
        return zip(self.points, self.points[1:] or self.points, strict=False)

    @property
    def span(self) -> tuple[float, float]:
        """Minimum and maximum y that the mark covers, in pixels."""
        ys = [y for _, y in self.points]
        return min(ys) - self.radius, max(ys) + self.radius


@dataclass(frozen=True)
class DrawnHints:
    """Hints as points and strokes. Later marks cover earlier ones."""

    marks: tuple[Mark, ...]

    @property
    def digest(self) -> bytes:
        """Digest of the marks."""
        return _digest(repr(self.marks).encode())

    def check(self, shape: tuple[int, int]) -> None:
        """Check that the hints lie in an image of `shape` (height, width).

        Raises:
            UsageError: A hint lies outside, or drawing the hints would take too long.
        """
        height, width = shape
        drawn = 0.0
        for mark in self.marks:
            for x, y in mark.points:
                if not (-0.5 <= x < width - 0.5 and -0.5 <= y < height - 0.5):
                    where = f"the image, which is {width} x {height} pixels"
                    raise UsageError(f"the hint at x {x:g}, y {y:g} lies outside of {where}")
            for (x, y), (other_x, other_y) in mark.lines:
                across = min(width, abs(x - other_x) + 2 * mark.radius)
                drawn += across * min(height, abs(y - other_y) + 2 * mark.radius)
        if drawn > _MOST_PIXELS + _MOST_COVERS * width * height:
            raise UsageError(
                "the hints are too many for their length and width; use fewer or thinner strokes"
            )

    def rows(self, shape: tuple[int, int], start: int, stop: int) -> Pins | None:
        """Return the hints on the rows [start, stop) of an image of `shape` (see `propagation.spread`)."""
        marks = [mark for mark in self.marks if mark.span[0] < stop and mark.span[1] >= start]
        if not marks:
            return None
        numbers = np.zeros((stop - start, shape[1]), np.int32)
        for number, mark in enumerate(marks, 1):
            for begin, end in mark.lines:
                _draw(numbers, start, begin, end, mark.radius, number)
        mask = numbers > 0
        chroma = np.array([mark.chroma for mark in marks], np.float32)
        return mask, chroma[numbers[mask] - 1].T


@dataclass(frozen=True)
class PaintedHints:
    """Hints painted in an image with the aspect ratio of the image to colorize.

    Attributes:
        rgba: sRGB with alpha, (h, w, 4) uint8.
    """

    rgba: Bytes

    @property
    def digest(self) -> bytes:
        """Digest of the pixels."""
        return _digest(repr(self.rgba.shape).encode() + self.rgba.tobytes())

    def check(self, shape: tuple[int, int]) -> None:
        """Check that the aspect ratio is that of an image of `shape` (height, width), to one pixel.

        Raises:
            UsageError: The aspect ratio differs.
        """
        (height, width), (own_height, own_width) = shape, self.rgba.shape[:2]
        if abs(own_height * width - own_width * height) > max(height, width):
            sizes = f"they are {own_width} x {own_height}, the image is {width} x {height}"
            raise UsageError(f"the hints and the image differ in aspect ratio: {sizes}")

    def rows(self, shape: tuple[int, int], start: int, stop: int) -> Pins | None:
        """Return the hints on the rows [start, stop) of an image of `shape` (see `propagation.spread`)."""
        own_height, own_width = self.rgba.shape[:2]
        rows = np.arange(start, stop) * own_height // shape[0]
        columns = np.arange(shape[1]) * own_width // shape[1]
        part = self.rgba[rows][:, columns]
        mask = part[..., 3] >= _OPAQUE
        if not mask.any():
            return None
        return mask, _limited(lab.srgb_to_lab(part[mask][:, :3] / np.float32(255))).T


Hints = DrawnHints | PaintedHints


def parse(text: str | bytes) -> DrawnHints | dict[str, DrawnHints]:
    """Parse hints in JSON: those for one image, or those for several images by name.

    Raises:
        UsageError: It is not valid JSON, or not in the format that this module describes. The message says
            where the error is.
    """
    if len(text) > LONGEST:
        raise UsageError(f"hints of more than {LONGEST >> 20} MiB of JSON are not supported")
    try:
        given = json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise UsageError("not valid JSON: nested too deeply") from None
    except json.JSONDecodeError as error:
        raise UsageError(f"not valid JSON: {error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"not valid JSON: not in UTF-8, at byte {error.start}") from error
    except ValueError as error:
        raise UsageError("not valid JSON: a number has too many digits") from error
    if not isinstance(given, dict) or not given:
        raise UsageError("not an object with points or strokes, or with such objects by image name")
    if all(isinstance(value, dict) for value in given.values()):
        hints = {}
        for name, value in given.items():
            try:
                hints[name] = from_object(value)
            except UsageError as error:
                raise UsageError(f"{name!r}: {error}") from error
        return hints
    return from_object(given)


def from_object(given: Mapping[str, Any]) -> DrawnHints:
    """Return the hints for one image from an object in the format that this module describes.

    Raises:
        UsageError: The object has another format.
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
    """Return painted hints from an image that is transparent or unpainted where there are no hints.

    Raises:
        UsageError: The image is fully transparent, or opaque and nowhere painted.
    """
    rgba = np.array(ImageOps.exif_transpose(image).convert("RGBA"))
    if rgba[..., 3].min(initial=255) == 255:
        ab = lab.srgb_to_lab(rgba[..., :3] / np.float32(255))[..., 1:]
        is_gray = (np.hypot(ab[..., 0], ab[..., 1]) < _GRAY).mean() >= _GRAY_SHARE
        unpainted = np.zeros(2) if is_gray else np.median(ab, axis=(0, 1))
        is_painted = np.hypot(*np.moveaxis(ab - unpainted, -1, 0)) >= _PAINTED
        if not is_painted.any():
            raise UsageError(
                "there are no hints: the image has no transparency, and no place that differs in color"
            )
        rgba[..., 3] = np.where(is_painted, 255, 0)
    if rgba[..., 3].max(initial=0) < _OPAQUE:
        raise UsageError("there are no hints: the image is fully transparent")
    return PaintedHints(rgba)


def _draw(
    numbers: npt.NDArray[np.int32],
    first: int,
    begin: tuple[float, float],
    end: tuple[float, float],
    radius: float,
    number: int,
) -> None:
    """Set the pixels within `radius` of a line to `number`, in an array of the rows from `first` on."""
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
    return Mark((place,), max(radius, _LEAST_RADIUS), _chroma(where, given))


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
    return Mark(tuple(places), max(radius, _LEAST_RADIUS), _chroma(where, given))


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
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_LIMIT < value < _LIMIT:
        raise UsageError(f"{where} is not a number of pixels: {_shown(value)}")
    return float(value)


def _positive(where: str, value: Any) -> float:
    number = _number(where, value)
    if number <= 0:
        raise UsageError(f"{where} is not greater than 0: {_shown(value)}")
    return number


def _chroma(where: str, given: Mapping[str, Any]) -> tuple[float, float]:
    if "color" in given and "colour" in given:
        raise UsageError(f"{where} has both color and colour; give one")
    value: Any = given.get("color", given.get("colour"))
    rgb: tuple[int, ...] = ()
    # The names of CSS have no spaces, but people write "dark red".
    with contextlib.suppress(AttributeError, ValueError):  # it is no text, or no color
        rgb = ImageColor.getrgb(re.sub(r"(?<=[a-z])[ _-]+(?=[a-z])", "", value.strip().lower()))
    if len(rgb) != 3 or not all(0 <= channel <= 255 for channel in rgb):
        raise UsageError(f"{where}.color is not a color like #aa3311: {_shown(value)}")
    a, b = _limited(lab.srgb_to_lab(np.array(rgb) / 255))
    return float(a), float(b)


def _limited(color: Floats) -> Floats:
    """Return a* and b*, (..., 2), of L*a*b* (..., 3), with the chroma limited by L* (see the module)."""
    ab = color[..., 1:]
    chroma = np.hypot(ab[..., :1], ab[..., 1:])
    limit = np.float32(_MOST_CHROMA) * color[..., :1]
    return np.asarray(ab * np.minimum(1, limit / np.maximum(chroma, np.float32(1e-6))), np.float32)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object from its pairs. Duplicate keys are errors, because one would be lost silently."""
    given = dict(pairs)
    if len(given) < len(pairs):
        counted = Counter(key for key, _ in pairs)
        twice = next(key for key, count in counted.items() if count > 1)
        raise UsageError(f"not valid JSON: {_shown(twice)} occurs twice")
    return given


def _shown(value: Any) -> str:
    text = reprlib.repr(value)  # of bounded depth
    return text if len(text) <= 40 else f"{text[:40]}..."


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()
