"""A video with many shots, for tests of chunks."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from colorize_cli.core.settings import Settings, VideoSettings
from colorize_cli.video.pixel_format import plane_of
from tests.helpers.encoded_frames import assert_same_packets
from tests.helpers.videos import Recipe

RATE = Fraction(2)  # so that 10 seconds are 20 frames and 2 seconds 4
SHOTS = (5, 12, 14, 24, 30, 36, 60, 68, 76, 78, 84, 92)
KEYS = (5, 8, 12, 14, 30, 36, 68, 76, 78, 84, 92)
FRAMES = 100
CLOSED = {"crf": "10", "g": "1000", "sc_threshold": "0"}
# FFV1 packets can be compared, also between processes; H.264 packets cannot (see `encoded_frames`).
LOSSLESS = Settings(video=VideoSettings(codec="ffv1"))
VIDEO = Recipe(frames=FRAMES, width=96, height=64, rate=RATE, shots=SHOTS, keys=KEYS, options=CLOSED)


def planes(path: Path) -> Iterator[tuple[int, list[np.ndarray]]]:
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.pts, [plane_of(frame, index) for index in range(3)]


def assert_same(one: Path, other: Path) -> None:
    """Check that all packets and all decoded frames are the same."""
    assert_same_packets(one, other)
    for (time, first), (when, second) in zip(planes(one), planes(other), strict=True):
        assert time == when
        for before, after in zip(first, second, strict=True):
            np.testing.assert_array_equal(before, after)


def damaged(video: Path, source: Path) -> Path:
    """Make a copy of a video in which a packet at 20 seconds cannot be decoded."""
    with av.open(str(video)) as whole:
        packet = next(packet for packet in whole.demux(video=0) if packet.pts == 500 * 40)
        content = bytearray(video.read_bytes())
        begin = content.index(bytes(packet)[:40])
        content[begin + 4 : begin + packet.size] = bytes(packet.size - 4)
    source.write_bytes(content)
    return source
