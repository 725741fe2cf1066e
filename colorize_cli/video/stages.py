"""The processing stages of a video's frames.

    frames -> network input -> optical flow -> model, in batches -> temporal filter -> chroma -> encoder

Each stage runs in its own thread. At most `_FRAMES_IN_FLIGHT` frames are in memory. Frames leave in order.

They are encoded in segments. Candidate split points are key frames of the source right after a cut: no chroma
is carried over a cut, and decoding can begin at a key frame. A candidate becomes a split point if it is at
least two seconds after the previous split point. The first frame of the video is the first split point. A
segment begins at every split point, and whenever the current segment is ten seconds long.

So the split points depend only on cuts and key frames, and the output from a split point on does not depend
on anything before it. A worker that begins at a split point divides the rest of the video in the same way.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame

from colorize_cli.color.lab import Floats
from colorize_cli.color.resize import working_copy
from colorize_cli.core.jobs import Position, Progress
from colorize_cli.core.pipeline import Gate, Pipeline, Stage
from colorize_cli.core.settings import Settings
from colorize_cli.inference.adapters import ModelInfo
from colorize_cli.inference.model import Model
from colorize_cli.storage import atomic
from colorize_cli.video import encoder, pixel_format
from colorize_cli.video.encoder import Encoding
from colorize_cli.video.pixel_format import VideoInfo
from colorize_cli.video.reader import VideoReader
from colorize_cli.video.temporal import FlowTracker, KeyframeSelector, Motion, TemporalFilter
from colorize_cli.video.work_dir import Segment as DoneSegment
from colorize_cli.video.work_dir import WorkDir

_FRAMES_IN_FLIGHT = 48
# Seconds. This is the most work that is lost when a run is killed. Every segment begins with a key frame, but
# most encoders would place key frames about as often.
_LONGEST = 10
# Seconds. Shorter segments would cost little time (less than 3 percent for a video of half-second shots), but
# many files: two per segment, with a state file larger than the video, and three disk syncs.
_LEAST = 2
# Share of the previous frame's chroma that `--steady 1` keeps where that frame is fully trusted.
MOST_KEPT = 0.98


@dataclass
class VideoStats:
    """Statistics of a processed video.

    Attributes:
        frames: Number of colorized frames, including those of earlier runs.
        cuts: Number of cuts found.
        damaged: Number of packets and frames that could not be decoded.
        cut_off: How much of the source is there, if it is cut off; else empty (see `VideoReader`).
        seconds: Time spent by stage.
        notes: Lines for the user about what differs from the source.
    """

    frames: int = 0
    cuts: int = 0
    damaged: int = 0
    cut_off: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def add(self, other: "VideoStats") -> None:
        """Add the statistics of another chunk of the same video."""
        self.frames += other.frames
        self.cuts += other.cuts
        self.damaged += other.damaged
        self.cut_off = self.cut_off or other.cut_off
        for stage, seconds in other.seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds


@dataclass(frozen=True)
class _Item:
    """A frame on its way through the stages."""

    number: int
    frame: VideoFrame
    small: Floats | None = None
    motion: Motion | None = None
    seen: bool = True
    ab: Floats | None = None
    cuts: int = 0
    begins: bool = False  # True for the first frame of a segment
    split_point: int = 0  # number of the frame at the latest split point


class Segmenter:
    """Divides a video into segments. Takes the frames in order.

    Attributes:
        split_point: Number of the frame at the latest split point.
    """

    def __init__(self, rate: Fraction, split_point: int = 0) -> None:
        """Begin at the start of a segment.

        Args:
            rate: Approximate frame rate, in frames per second.
            split_point: Number of the frame at the latest split point so far.
        """
        self.split_point = split_point
        self._length, self._least = (max(1, round(seconds * rate)) for seconds in (_LONGEST, _LEAST))
        self._begun: int | None = None

    def wants(self, number: int) -> bool:
        """Return True if frame `number` is far enough from the latest split point to be the next one."""
        return number - self.split_point >= self._least

    def begins(self, number: int, *, is_split_point: bool) -> bool:
        """Return True if a segment begins with frame `number`. Call once for every frame.

        Args:
            number: Number of the frame.
            is_split_point: True if the frame is a key frame right after a cut.
        """
        taken = is_split_point and self.wants(number)
        if taken:
            self.split_point = number
        if taken or self._begun is None or number == self._begun + self._length:
            self._begun = number
            return True
        return False

    def is_last(self, number: int) -> bool:
        """Return True if the segment ends with frame `number`, whatever follows. Call after `begins`."""
        return self._begun is not None and number + 1 == self._begun + self._length


def small_copier(
    info: VideoInfo, model_info: ModelInfo, settings: Settings
) -> Callable[[VideoFrame], Floats]:
    """Return the function that makes the network's input from a video's frames.

    It returns L* in [0, 100] of a frame in display orientation, scaled for the network, (h, w).
    """
    table = info.coding.lightness_table()
    sides = settings.size or model_info.working_size, model_info.multiple_of

    def small_copy(frame: VideoFrame) -> Floats:
        lightness = pixel_format.lightness_of(frame, table)
        small = working_copy(lightness, *sides, float(info.aspect))
        return np.ascontiguousarray(pixel_format.upright(small, info))

    return small_copy


class VideoStages:
    """The processing stages of one video, or of a chunk that begins at a split point."""

    def __init__(
        self,
        video: VideoReader,
        chosen: Encoding,
        network: Model,
        settings: Settings,
        stats: VideoStats,
        first: int = 0,
    ) -> None:
        """Set up the stages.

        Args:
            video: The source.
            chosen: The encoding of the output.
            network: The model.
            settings: The settings of the run.
            stats: Updated while the video is processed.
            first: Number of the chunk's first frame; 0 for the beginning of the video.
        """
        self._video, self._encoding = video, chosen
        self._network, self._settings, self._stats = network, settings, stats
        self._small = small_copier(video.info, network.info, settings)
        self._tracker = FlowTracker()
        # Without the temporal filter no chroma is carried over between frames, so the model must see all.
        self._selector = KeyframeSelector(settings.video.every if settings.video.steady else 1)
        self._filter = TemporalFilter(MOST_KEPT * settings.video.steady)
        self._first = first
        self._segmenter = Segmenter(video.info.rate, first)

    def run(
        self,
        path: Path,
        folder: WorkDir,
        frames: Iterator[VideoFrame],
        expected: int | None,
        progress: Progress,
    ) -> None:
        """Encode the frames that have not been encoded yet, in segments.

        Args:
            path: The source video, for progress reports.
            folder: Work directory for the segments.
            frames: All frames from the first on, including those encoded already.
            expected: Expected number of frames, if known.
            progress: Called after every frame.
        """
        info, stats = self._video.info, self._stats
        # Every chunk but the first begins at a cut.
        self._filter.cuts = int(self._first > 0)
        if (state := folder.state()) is not None:
            small, ab = state
            self._tracker.next(small)
            self._filter.resume(ab, folder.done[-1].cuts)
            self._segmenter.split_point = folder.done[-1].place
        stats.frames, stats.cuts = folder.frames, self._filter.cuts
        begun = time.perf_counter()
        with contextlib.closing(self.ordered(frames, folder.frames)) as items:
            following = next(items, None)
            while following is not None:
                item, count, name = following, 0, folder.name()
                first = item.frame.pts
                folder.check()
                with (
                    atomic.naming(folder.path / name) as temporary,
                    encoder.segment(temporary, info, self._encoding, item.frame) as segment,
                ):
                    while following is not None and not (count and following.begins):
                        item = following
                        segment.add(item.frame)
                        count += 1
                        stats.frames += 1
                        progress(Position(path, stats.frames, expected, float(info.rate), folder.frames))
                        following = next(items, None)
                assert first is not None  # noqa: S101 - the reader sets it on every frame
                assert item.small is not None  # noqa: S101 - set by the stages
                assert item.ab is not None  # noqa: S101
                stats.cuts = item.cuts
                size = (folder.path / name).stat().st_size
                done = DoneSegment(name, first, count, size, item.cuts, item.split_point)
                folder.add(done, item.small, item.ab)
        stats.seconds["film"] = time.perf_counter() - begun

    def ordered(self, frames: Iterator[VideoFrame], skipped: int = 0) -> Generator[_Item, None, None]:
        """Yield colorized frames, as items in order.

        Args:
            frames: All frames from the first on.
            skipped: Number of frames to skip at the beginning.
        """
        batch = self._settings.batch_size or self._network.batch_size
        pipeline = Pipeline(
            stages=(
                Stage("copy", self._copy, gate=Gate(lambda _: 1, _FRAMES_IN_FLIGHT)),
                Stage("follow", self._tracked),
                Stage("infer", self._infer, batch=batch),
                Stage("steady", self._filtered),
                Stage("chroma", self._colorized, self._settings.workers),
            ),
            capacity=max(4, batch),
            ordered=True,
        )
        number = self._first + skipped
        numbered = (_Item(n, frame) for n, frame in enumerate(frames, self._first) if n >= number)
        with contextlib.closing(pipeline.run(numbered)) as results:
            for result in results:
                if result.error is not None:
                    raise result.error
                for stage, seconds in result.seconds.items():
                    self._stats.seconds[stage] = self._stats.seconds.get(stage, 0.0) + seconds
                yield result.value

    def alone(self, frame: VideoFrame) -> VideoFrame:
        """Return a frame in color, independent of the frames before it."""
        (item,) = self._infer([self._copy(_Item(0, frame))])
        return self._colorized(item).frame

    def _copy(self, item: _Item) -> _Item:
        return dataclasses.replace(item, small=self._small(item.frame))

    def _tracked(self, item: _Item) -> _Item:
        assert item.small is not None  # noqa: S101 - set by the stage before
        motion = self._tracker.next(item.small)
        cut = motion is not None and motion.cut
        begins = self._segmenter.begins(item.number, is_split_point=cut and bool(item.frame.key_frame))
        # The model sees the last frame of every segment that ends at the maximum length. So a resumed run
        # starts the next segment from the same state. Other segments end at cuts, which reset the state.
        seen = self._selector.next(motion, last=self._segmenter.is_last(item.number))
        return dataclasses.replace(
            item, motion=motion, seen=seen, begins=begins, split_point=self._segmenter.split_point
        )

    def _infer(self, items: list[_Item]) -> list[_Item]:
        copies = [item.small for item in items if item.seen and item.small is not None]
        predicted = iter(self._network.predict(np.stack(copies)[:, None]) if copies else ())
        return [dataclasses.replace(item, ab=next(predicted)) if item.seen else item for item in items]

    def _filtered(self, item: _Item) -> _Item:
        ab = self._filter.next(item.motion, item.ab)
        return dataclasses.replace(item, ab=ab, cuts=self._filter.cuts)

    def _colorized(self, item: _Item) -> _Item:
        assert item.ab is not None  # noqa: S101 - set by the stages before
        info, layout = self._video.info, self._encoding.layout
        shown = item.ab[:, :, ::-1] if info.mirrored else item.ab
        turned = np.rot90(shown, -info.quarter_turns, axes=(1, 2))
        cb, cr = pixel_format.chroma_planes(
            pixel_format.luma_of(item.frame), turned, self._settings.strength, info, layout
        )
        return dataclasses.replace(
            item, frame=pixel_format.with_chroma(item.frame, layout, info.coding, cb, cr)
        )
