"""How the samples of a film's frames lie, and what they mean."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from av.video.frame import VideoFrame

from colorize_cli.color.lab import Codes, Floats
from colorize_cli.color.lightness import Lightness
from colorize_cli.color.ycbcr import Coding, Matrix

# Formats of one plane for luma and two for chroma, by how chroma is reduced across and down.
REDUCED = {"420": (2, 2), "422": (2, 1), "444": (1, 1), "440": (1, 2), "411": (4, 1), "410": (4, 4)}
_DEPTHS = (8, 9, 10, 12, 14, 16)


@dataclass(frozen=True)
class Layout:
    """How a frame's samples lie.

    Attributes:
        name: libavutil's name of the pixel format.
        bits: Of each sample.
        reduced: By how much chroma is narrower and lower than luma; None where there is none.
    """

    name: str
    bits: int
    reduced: tuple[int, int] | None

    @staticmethod
    def of(name: str) -> "Layout | None":
        """The layout of a planar format of Y'CbCr or grey; None of any other."""
        plain = name.removesuffix("le").replace("yuvj", "yuv")
        if plain.startswith("gray"):
            bits = plain.removeprefix("gray") or "8"
            return Layout(name, int(bits), None) if bits.isdigit() and int(bits) in _DEPTHS else None
        kind, _, bits = plain.removeprefix("yuv").partition("p")
        if not plain.startswith("yuv") or kind not in REDUCED or (bits and not bits.isdigit()):
            return None
        return Layout(name, int(bits or 8), REDUCED[kind])


def planar_name(reduced: tuple[int, int], bits: int, family: str = "yuv") -> str:
    """libavutil's name of the planar format of chroma that is so much narrower and lower than luma."""
    kind = next(kind for kind, factors in REDUCED.items() if factors == reduced)
    return f"{family}{kind}p" + (f"{bits}le" if bits > 8 else "")


@dataclass(frozen=True)
class VideoInfo:
    """What the frames of a film share.

    Attributes:
        width: In pixels, as stored.
        height: In pixels, as stored.
        layout: Of the frames that are read.
        coding: Of luma and chroma.
        matrix: Of luma and chroma.
        quarter_turns: How often a player turns it to the left by a quarter.
        aspect: Width of a pixel over its height.
        time_base: Seconds of one unit of time.
        rate: Frames a second, about.
    """

    width: int
    height: int
    layout: Layout
    coding: Coding
    matrix: Matrix
    quarter_turns: int
    aspect: Fraction
    time_base: Fraction
    rate: Fraction


def tag(target: Any, source: Any) -> None:
    """Has a frame or a codec's context say of its colours what another says, in H.273's numbers."""
    for name in ("color_range", "colorspace", "color_primaries", "color_trc"):
        setattr(target, name, getattr(source, name))


def luma_of(frame: VideoFrame) -> Codes:
    """(H, W) codes of luma; shares the frame's memory."""
    return plane_of(frame, 0)


def plane_of(frame: VideoFrame, index: int) -> Codes:
    """(h, w) codes of a plane; shares the frame's memory."""
    plane = frame.planes[index]
    dtype = np.uint16 if frame.format.components[0].bits > 8 else np.uint8
    codes = np.frombuffer(plane, dtype)  # type: ignore[call-overload]
    lines = codes.reshape(-1, plane.line_size // np.dtype(dtype).itemsize)
    return lines[: plane.height, : plane.width]  # type: ignore[no-any-return]


def lightness_of(frame: VideoFrame, table: Floats) -> Lightness:
    """The lightness of a frame, by the table of its coding; shares the frame's memory."""
    return Lightness(luma_of(frame), table)
