"""Pixel formats: the memory layout of video frames, the meaning of their samples, and new chroma for them.

Luma is passed on unchanged from the decoder. If the decoded frame has chroma planes, they are overwritten
in place. Otherwise its luma is copied to a frame with chroma planes. So a lossless encoder preserves luma bit
for bit.
"""

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from colorize_cli.color import resize
from colorize_cli.color.lab import Codes, Floats
from colorize_cli.color.lightness import Lightness
from colorize_cli.color.ycbcr import Coding, Matrix
from colorize_cli.compose import compose_chroma

# Planar formats with one luma and two chroma planes: chroma subsampling factors, across and down.
REDUCED = {"420": (2, 2), "422": (2, 1), "444": (1, 1), "440": (1, 2), "411": (4, 1), "410": (4, 4)}
# Begin and end of a time range in units of the video stream's time base; the end is None for the video's end.
TimeRange = tuple[int, int | None]
DEPTHS = (8, 9, 10, 12, 14, 16)


@dataclass(frozen=True)
class Layout:
    """Memory layout of a frame.

    Attributes:
        name: libavutil's name of the pixel format.
        bits: Bits per sample.
        reduced: Chroma subsampling factors, across and down; None if there is no chroma.
    """

    name: str
    bits: int
    reduced: tuple[int, int] | None

    @staticmethod
    def of(name: str) -> "Layout | None":
        """Return the layout of a planar Y'CbCr or gray pixel format; None for other formats."""
        plain = name.removesuffix("le").replace("yuvj", "yuv")
        if plain.startswith("gray"):
            bits = plain.removeprefix("gray") or "8"
            return Layout(name, int(bits), None) if bits.isdigit() and int(bits) in DEPTHS else None
        kind, _, bits = plain.removeprefix("yuv").partition("p")
        if not plain.startswith("yuv") or kind not in REDUCED or (bits and not bits.isdigit()):
            return None
        return Layout(name, int(bits or 8), REDUCED[kind])


def planar_name(reduced: tuple[int, int], bits: int, family: str = "yuv") -> str:
    """Return libavutil's name of the planar pixel format with the given chroma subsampling."""
    kind = next(kind for kind, factors in REDUCED.items() if factors == reduced)
    return f"{family}{kind}p" + (f"{bits}le" if bits > 8 else "")


@dataclass(frozen=True)
class VideoInfo:
    """Properties that all frames of a video share.

    Attributes:
        width: Stored width in pixels.
        height: Stored height in pixels.
        layout: Layout of the decoded frames.
        coding: Bit depth and range of luma and chroma.
        matrix: Color matrix of luma and chroma.
        quarter_turns: Number of counterclockwise quarter turns for display.
        mirrored: True if left and right are exchanged after that.
        aspect: Pixel aspect ratio, width over height.
        time_base: Unit of time stamps in seconds.
        rate: Approximate frame rate, in frames per second.
        index: Index of the video stream in the container.
        start: Time stamp of the first frame.
        field_order: libavcodec's number of the order of fields; 0 if unknown, 1 for progressive video.
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
    index: int = 0
    start: int = 0
    field_order: int = 0
    mirrored: bool = False

    def time_of(self, seconds: float) -> int:
        """Return the time stamp `seconds` after the first frame, in units of `time_base`."""
        return self.start + round(Fraction(seconds) / self.time_base)

    def time_range(self, start: float, duration: float | None) -> TimeRange | None:
        """Return the time range of `duration` seconds (None: to the end) after `start`; None for all."""
        if not start and duration is None:
            return None
        return self.time_of(start), None if duration is None else self.time_of(start + duration)


def tag(target: Any, source: Any) -> None:
    """Copy the color properties, as H.273 code points, between frames or codec contexts."""
    for name in ("color_range", "colorspace", "color_primaries", "color_trc"):
        setattr(target, name, getattr(source, name))


def upright(stored: npt.NDArray[Any], info: VideoInfo) -> npt.NDArray[Any]:
    """Return stored samples, (H, W) or (H, W, channels), as they are displayed."""
    turned = np.rot90(stored, info.quarter_turns)
    return turned[:, ::-1] if info.mirrored else turned


def luma_of(frame: VideoFrame) -> Codes:
    """Return the luma codes, (H, W). They share the frame's memory."""
    return plane_of(frame, 0)


def plane_of(frame: VideoFrame, index: int) -> Codes:
    """Return the codes of a plane, (h, w). They share the frame's memory."""
    plane = frame.planes[index]
    dtype = np.uint16 if frame.format.components[0].bits > 8 else np.uint8
    codes = np.frombuffer(plane, dtype)  # type: ignore[call-overload]
    lines = codes.reshape(-1, plane.line_size // np.dtype(dtype).itemsize)
    return lines[: plane.height, : plane.width]  # type: ignore[no-any-return]


def lightness_of(frame: VideoFrame, table: Floats) -> Lightness:
    """Return a frame's lightness, by its coding's lookup table. It shares the frame's memory."""
    return Lightness(luma_of(frame), table)


def with_chroma(frame: VideoFrame, layout: Layout, coding: Coding, cb: Codes, cr: Codes) -> VideoFrame:
    """Return a frame with the luma of `frame` and new chroma.

    Args:
        frame: The decoded frame. Its chroma may be overwritten.
        layout: Layout of the result.
        coding: Coding of the decoded frame.
        cb: Codes of Cb, in the layout's bits and chroma resolution.
        cr: Codes of Cr, the same.
    """
    if frame.format.name == layout.name:
        frame.make_writable()
        result = frame
    else:
        result = frame.reformat(format=layout.name)  # keeps the time stamp and the order of fields
        plane_of(result, 0)[:] = luma_codes(plane_of(frame, 0), coding, layout.bits)
        tag(result, frame)
    plane_of(result, 1)[:] = cb
    plane_of(result, 2)[:] = cr
    return result


def luma_codes(luma: Codes, coding: Coding, bits: int) -> Codes:
    """Return luma codes with another number of bits: the same ones if it is that of `coding`."""
    if bits == coding.bits:
        return luma
    most = 2**bits - 1
    ratio = most / (2**coding.bits - 1) if coding.full else 2.0 ** (bits - coding.bits)
    codes = np.minimum(np.rint(luma * np.float32(ratio)), most)
    return np.asarray(codes, np.uint8) if bits <= 8 else np.asarray(codes, np.uint16)


def chroma_planes(
    luma: Codes, ab: Floats, strength: float, info: VideoInfo, layout: Layout
) -> tuple[Codes, Codes]:
    """Return the codes of Cb and Cr for a frame.

    Args:
        luma: Codes of luma, (H, W).
        ab: CIE a* and b* at low resolution, (2, h, w).
        strength: Factor on `ab`.
        info: Properties of the video's frames.
        layout: Layout of the result, with chroma.

    Returns:
        Two planes of (ceil(H / down), ceil(W / across)). Horizontally subsampled chroma is sited at the left
        of its cell: H.273's chroma sample location 0, the convention for videos without this metadata.
    """
    assert layout.reduced is not None  # noqa: S101 - encodings have chroma
    coding, (across, down) = info.coding, layout.reduced
    cells = resize.reduced(luma, down, across)
    lightness = Lightness(cells, coding.lightness_table())
    values = Lightness(cells, coding.luma_table()).rows(0, len(cells))
    planes = compose_chroma(lightness, values, np.ascontiguousarray(ab), strength, info.matrix)
    shift = (across - 1) / (2 * across)  # from the center of a cell to its left sample, in cells
    stored = replace(coding, bits=layout.bits)
    cb, cr = (stored.chroma_codes(_moved_left(plane, shift)) for plane in planes)
    return cb, cr


def _moved_left(plane: Floats, shift: float) -> Floats:
    """Return the plane resampled `shift` of a sample further to the left, by linear interpolation."""
    if not shift:
        return plane
    weights = np.array([[shift, 1 - shift]], np.float32)
    moved = cv2.filter2D(plane, -1, weights, anchor=(1, 0), borderType=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.float32)
