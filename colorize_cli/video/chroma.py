"""Chroma of video frames: chroma sampling, and combining new chroma with the decoded luma.

Luma is passed on unchanged from the decoder. If the decoded frame has chroma planes, they are overwritten
in place. Otherwise its luma is copied to a frame with chroma planes. So a lossless encoder preserves luma bit
for bit.
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
    """Return a frame with the luma of `frame` and new chroma.

    Args:
        frame: The decoded frame. Its chroma may be overwritten.
        layout: Layout of the result.
        cb: Codes of Cb, at the layout's chroma resolution.
        cr: Codes of Cr, at the same resolution.
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
    """Return the codes of Cb and Cr for a frame.

    Args:
        luma: Codes of luma, (H, W).
        ab: CIE a* and b* at low resolution, (2, h, w).
        strength: Factor on `ab`.
        info: Properties of the video's frames.
        reduced: Chroma subsampling factors, across and down.

    Returns:
        Two planes of (ceil(H / down), ceil(W / across)). Horizontally subsampled chroma is sited at the left
        of its cell: H.273's chroma sample location 0, the convention for videos without this metadata.
    """
    coding = info.coding
    across, down = reduced
    cells = resize.reduced(luma, down, across)
    lightness = Lightness(cells, coding.lightness_table())
    values = Lightness(cells, coding.luma_table()).rows(0, len(cells))
    planes = compose_chroma(lightness, values, np.ascontiguousarray(ab), strength, info.matrix)
    shift = (reduced[0] - 1) / (2 * reduced[0])  # from the center of a cell to its left sample, in cells
    cb, cr = (coding.chroma_codes(_moved_left(plane, shift)) for plane in planes)
    return cb, cr


def _moved_left(plane: Floats, shift: float) -> Floats:
    """Return the plane resampled `shift` of a sample further to the left, by linear interpolation."""
    if not shift:
        return plane
    weights = np.array([[shift, 1 - shift]], np.float32)
    moved = cv2.filter2D(plane, -1, weights, anchor=(1, 0), borderType=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.float32)
