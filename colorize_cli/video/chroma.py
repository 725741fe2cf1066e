"""Chroma for the frames of a film: how it is sampled, and how a frame gets it.

Luma goes on as it came from the decoder: the frame itself is taken and its planes of chroma are filled, or,
if it had none, a frame that has them gets its luma. So a lossless encoder keeps luma bit for bit.
"""

import cv2
import numpy as np
from av.video.frame import VideoFrame

from colorize_cli.color import resize
from colorize_cli.color.lab import Codes, Floats
from colorize_cli.color.lightness import Lightness
from colorize_cli.compose import compose_chroma
from colorize_cli.video.pixel_format import Layout, VideoInfo, plane_of, tag


def with_chroma(frame: VideoFrame, layout: Layout, cb: Codes, cr: Codes) -> VideoFrame:
    """A frame with its own luma and new chroma.

    Args:
        frame: Its chroma may be overwritten.
        layout: Of the result.
        cb: Codes, at the size of the layout's chroma.
        cr: The same.
    """
    if frame.format.name == layout.name:
        frame.make_writable()
        result = frame
    else:
        result = VideoFrame(frame.width, frame.height, layout.name)
        plane_of(result, 0)[:] = plane_of(frame, 0)
        result.pts, result.time_base = frame.pts, frame.time_base
        tag(result, frame)
    plane_of(result, 1)[:] = cb
    plane_of(result, 2)[:] = cr
    return result


def chroma_planes(
    luma: Codes, ab: Floats, strength: float, info: VideoInfo, reduced: tuple[int, int]
) -> tuple[Codes, Codes]:
    """The codes of Cb and Cr of a frame.

    Args:
        luma: Codes, (H, W).
        ab: CIE a* and b* at low resolution, (2, h, w).
        strength: Factor on ab.
        info: What the film's frames are like.
        reduced: By how much chroma is narrower and lower than luma.

    Returns:
        Two planes of (ceil(H / down), ceil(W / across)). Where chroma is reduced across, it lies at the left
        of its cell (H.273's chroma sample location 0, which is what films are taken to have that do not say).
    """
    coding = info.coding
    across, down = reduced
    cells = resize.reduced(luma, down, across)
    lightness = Lightness(cells, coding.lightness_table())
    values = Lightness(cells, coding.luma_table()).rows(0, len(cells))
    planes = compose_chroma(lightness, values, np.ascontiguousarray(ab), strength, info.matrix)
    shift = (reduced[0] - 1) / (2 * reduced[0])  # of a chroma sample, from its cell's centre to its left
    cb, cr = (coding.chroma_codes(_moved_left(plane, shift)) for plane in planes)
    return cb, cr


def _moved_left(plane: Floats, shift: float) -> Floats:
    """The plane's values at places that lie by a part of a sample further to the left."""
    if not shift:
        return plane
    weights = np.array([[shift, 1 - shift]], np.float32)
    moved = cv2.filter2D(plane, -1, weights, anchor=(1, 0), borderType=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.float32)
