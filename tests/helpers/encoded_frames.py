"""Comparison of frames before encoding, and of packets after it.

On processors with AVX-512 x264's output differs from run to run. So tests of H.264 compare the frames given
to the encoder. Packets are compared only for codecs with reproducible output.
"""

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import pytest
from av.video.frame import VideoFrame

from colorize_cli.video import encoder, muxer, work_dir
from colorize_cli.video.pixel_format import plane_of
from tests.helpers.videos import packets


class EncodedFrames:
    """Records a digest of each frame given to the encoder in this process.

    Attributes:
        of: Digests of a finished video's frames in order, by the video's path.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.of: dict[Path, list[str]] = {}
        self._open: list[str] = []
        self._segments: dict[Path, list[str]] = {}
        encode, add_frame = encoder.segment, encoder.Encoder.add
        add_segment, join = work_dir.WorkDir.add, muxer.join

        @contextlib.contextmanager
        def encoding(*arguments, **options) -> Iterator[encoder.Encoder]:
            self._open = []
            with encode(*arguments, **options) as inner:
                yield inner

        def adding(inner: encoder.Encoder, frame: VideoFrame) -> None:
            self._open.append(digest(frame))
            add_frame(inner, frame)

        def noting(folder: work_dir.WorkDir, segment: work_dir.Segment, *state) -> None:
            self._segments[folder.path / segment.file] = self._open
            add_segment(folder, segment, *state)

        def joining(segments: Sequence[tuple[Path, int]], path: Path, info, output: Path, *rest, **options):
            self.of[output] = [frame for file, _ in segments for frame in self._segments[file]]
            join(segments, path, info, output, *rest, **options)

        monkeypatch.setattr(encoder, "segment", encoding)
        monkeypatch.setattr(encoder.Encoder, "add", adding)
        monkeypatch.setattr(work_dir.WorkDir, "add", noting)
        monkeypatch.setattr(muxer, "join", joining)


def digest(frame: VideoFrame) -> str:
    """Return a digest of all samples of a frame, with its time stamp and format."""
    found = hashlib.sha256()
    for index in range(len(frame.planes)):
        found.update(plane_of(frame, index).tobytes())
    shape = frame.format.name, frame.width, frame.height, frame.colorspace, frame.color_range
    return f"{frame.pts} {shape} {frame.interlaced_frame} {found.hexdigest()}"


def assert_same_packets(one: Path, other: Path) -> None:
    """Check that all packets are the same, for H.264 except their content."""
    assert comparable(one) == comparable(other)


def comparable(path: Path) -> list[tuple[int, int | None, int | None, bool, bytes | None]]:
    """Return all packets (see `packets`), without the content of H.264 packets."""
    with av.open(str(path)) as container:
        unsteady = {s.index for s in container.streams.video if s.codec_context.name == "h264"}
    return [(index, *rest, None if index in unsteady else data) for index, *rest, data in packets(path)]
