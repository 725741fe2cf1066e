"""A video colorized in chunks equals the same video colorized in one pass.

Calls in any order, and processes that are killed, simulate a cluster.
"""

import dataclasses
import json
import pickle
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from colorize_cli.core.errors import ReadError, WriteError
from colorize_cli.core.settings import Settings, VideoSettings
from colorize_cli.inference import model
from colorize_cli.video import chunks, work_dir
from colorize_cli.video.reader import opened
from colorize_cli.video.stages import VideoStats
from colorize_cli.video.work_dir import Chunk, WorkDir
from tests.helpers.chunked_videos import (
    FRAMES,
    LOSSLESS,
    RATE,
    SHOTS,
    VIDEO,
    assert_same,
    damaged,
    planes,
)
from tests.helpers.encoded_frames import EncodedFrames, assert_same_packets
from tests.helpers.videos import look, make

# 14 and 78 are too close to the previous split point, 24 and 60 are no key frames, and 8 is no cut.
SPLIT_POINTS = (0, 5, 12, 30, 36, 68, 76, 84, 92)
SEGMENTS = (0, 5, 12, 30, 36, 56, 68, 76, 84, 92)
OPEN = {"crf": "10", "g": "10", "sc_threshold": "0", "x264-params": "open-gop=1:bframes=3:b-adapt=0"}
UNEVEN = tuple(500 * n + 90 * (n % 3 == 1) for n in range(FRAMES))


@pytest.fixture(scope="module")
def network(models):
    return model.load(models.tinted, "cpu", threads=1)


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("film") / "a.mkv", VIDEO)


def whole(path: Path, output: Path, folder: WorkDir) -> Chunk:
    return Chunk(path, output, folder.path)


def split(path: Path, folder: WorkDir, network, settings: Settings, count: int) -> tuple[Chunk, ...]:
    with opened(path) as video:
        return chunks.split(video, whole(path, Path("out.mkv"), folder), network.info, settings, count)


def colorize_chunk(chunk: Chunk, network, settings: Settings) -> VideoStats:
    with opened(chunk.source) as video:
        return chunks.colorize_chunk(chunk, video, network, settings)


def concat(chunked, output: Path, settings: Settings) -> None:
    with opened(chunked[0].source) as video:
        info = video.info
    chunked = [dataclasses.replace(chunk, destination=output) for chunk in chunked]
    frames = sum(WorkDir(chunk.directory).frames for chunk in chunked)
    chunks.concat(chunked, info, output, settings, frames)


def one_pass(path: Path, output: Path, network, settings: Settings) -> VideoStats:
    with work_dir.claimed(output, "one go") as folder:
        chunk = whole(path, output, folder)
        stats = colorize_chunk(chunk, network, settings)
        concat([chunk], output, settings)
    return stats


def in_chunks(path: Path, output: Path, network, settings: Settings, count: int = 4) -> VideoStats:
    """Colorize the chunks in reverse order and join them."""
    total = VideoStats()
    with work_dir.claimed(output, "in parts") as folder, opened(path) as video:
        chunked = chunks.split(video, whole(path, output, folder), network.info, settings, count)
        for chunk in reversed(chunked):
            total.add(colorize_chunk(chunk, network, settings))
        chunks.concat(chunked, video.info, output, settings, sum(chunk.frames for chunk in chunked))
    return total


def folder_of(output: Path, key: str) -> WorkDir:
    with work_dir.claimed(output, key) as folder:
        return folder


def assert_about_same(one: Path, other: Path) -> None:
    """Check that frames are equal within x264's variation. Consecutive frames differ by 5 levels or more."""
    for (time, first), (when, second) in zip(planes(one), planes(other), strict=True):
        assert time == when
        for before, after in zip(first, second, strict=True):
            limit = 4 if before.dtype == np.uint16 else 1
            assert np.abs(before.astype(int) - after).mean() < limit


CASES = {
    "lossy.mkv": (VIDEO, VideoSettings()),
    "small.mkv": (dataclasses.replace(VIDEO, width=64, height=48), VideoSettings()),
    "every.mkv": (VIDEO, VideoSettings(every=1)),
    "third.mkv": (VIDEO, VideoSettings(every=3, steady=0.5)),
    "unsteady.mkv": (VIDEO, VideoSettings(steady=0)),
    "lossless.mkv": (VIDEO, VideoSettings(codec="ffv1")),
    "part.mkv": (VIDEO, VideoSettings(start=8, duration=35)),
    "sound.mp4": (dataclasses.replace(VIDEO, time_base=Fraction(1, 12800), sounds=1), VideoSettings()),
    "turned.mp4": (dataclasses.replace(VIDEO, time_base=Fraction(1, 600), rotation=90), VideoSettings()),
    "uneven.mkv": (dataclasses.replace(VIDEO, times=UNEVEN), VideoSettings()),
    "deep.mkv": (dataclasses.replace(VIDEO, pixel_format="yuv422p10le"), VideoSettings()),
    "gray.mkv": (
        dataclasses.replace(VIDEO, pixel_format="gray", codec="ffv1", options={"g": "1"}),
        VideoSettings(),
    ),
    "open.mkv": (dataclasses.replace(VIDEO, options=OPEN), VideoSettings()),
    "open.mp4": (dataclasses.replace(VIDEO, options=OPEN, time_base=Fraction(1, 600)), VideoSettings()),
    "open.ts": (dataclasses.replace(VIDEO, options=OPEN, time_base=Fraction(1, 90_000)), VideoSettings()),
    # libavformat invents different times for these formats after seeking.
    "b-frames.avi": (dataclasses.replace(VIDEO, time_base=1 / RATE), VideoSettings()),
    "program.mpg": (
        dataclasses.replace(
            VIDEO,
            rate=Fraction(25),
            codec="mpeg2video",
            time_base=Fraction(1, 25),
            frames=250,
            shots=(30, 85, 150, 220),
            keys=(30, 85, 150, 220),
            options={"g": "12", "bf": "2"},
        ),
        VideoSettings(),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_chunks_give_the_same_video_as_one_pass(network, tmp_path, monkeypatch, name):
    recipe, asked = CASES[name]
    encoded = EncodedFrames(monkeypatch)
    source = make(tmp_path / name, recipe)
    settings = Settings(video=asked)
    one, chunked = tmp_path / f"one{source.suffix}", tmp_path / f"parts{source.suffix}"
    stats, other = one_pass(source, one, network, settings), in_chunks(source, chunked, network, settings)
    assert (stats.frames, stats.cuts, stats.damaged) == (other.frames, other.cuts, other.damaged)
    assert stats.cuts > 3
    assert stats.damaged == 0
    assert look(chunked).chroma > 3
    assert len(encoded.of[one]) == stats.frames
    assert encoded.of[one] == encoded.of[chunked]
    assert_same_packets(one, chunked)
    assert_about_same(one, chunked)
    assert len(list(folder_of(chunked, "in parts").path.glob("part-*"))) > 1


def test_segments_begin_at_split_points_and_after_ten_seconds(video, network, tmp_path):
    one_pass(video, tmp_path / "a.mkv", network, Settings())
    done = folder_of(tmp_path / "a.mkv", "one go").done
    assert tuple(segment.first for segment in done) == tuple(500 * n for n in SEGMENTS)
    assert sum(segment.frames for segment in done) == FRAMES


def chunks_of(
    video: Path, folder: Path, network, count: int, settings: Settings | None = None
) -> list[Chunk]:
    (folder / str(count)).mkdir()
    work = WorkDir(folder / str(count))
    return list(split(video, work, network, settings or Settings(), count))


@pytest.mark.parametrize("count", [1, 2, 3, 5, 9, 100])
def test_chunks_are_complete_and_about_equal(video, network, tmp_path, count):
    chunked = chunks_of(video, tmp_path, network, count)
    if count == 1:
        assert chunked == [Chunk(video, Path("out.mkv"), tmp_path / "1")]
        return
    assert min(count, len(SPLIT_POINTS)) - 1 <= len(chunked) <= min(count, len(SPLIT_POINTS))
    assert {chunk.first for chunk in chunked} <= set(SPLIT_POINTS)
    assert [chunk.number for chunk in chunked] == list(range(len(chunked)))
    assert [chunk.begins for chunk in chunked] == [500 * chunk.first for chunk in chunked]
    ends = [chunk.first + chunk.frames for chunk in chunked]
    assert ends == [*(chunk.first for chunk in chunked[1:]), FRAMES]
    assert max(chunk.frames for chunk in chunked) <= max(32, FRAMES / count + 16)


def test_chunks_cover_the_requested_time_range(video, network, tmp_path):
    chunked = chunks_of(video, tmp_path, network, 100, Settings(video=VideoSettings(start=8, duration=30)))
    # The time range covers frames 16 to 76.
    assert [(chunk.first, chunk.frames) for chunk in chunked] == [(0, 14), (14, 6), (20, 32), (52, 8)]
    with pytest.raises(ReadError, match="it ends before 100 seconds"):
        chunks_of(video, tmp_path, network, 2, Settings(video=VideoSettings(start=100)))


def test_split_is_kept_for_later_runs(video, network, tmp_path):
    folder = WorkDir(tmp_path)
    chunked = split(video, folder, network, Settings(), 3)
    assert len(chunked) == 3
    for count in (1, 7):
        assert split(video, folder, network, Settings(), count) == chunked
    recorded = (tmp_path / "parts.json").read_text()
    other = recorded.replace('"frames": ', '"frames": 1')
    for text in (json.dumps([{"number": 0}]), "[" * 100_000, other):
        (tmp_path / "parts.json").write_text(text)
        assert split(video, folder, network, Settings(), 3) == chunked


def test_split_of_a_video_begun_whole_is_one_chunk(video, network, tmp_path):
    """Even if chunks are recorded, as by a cluster run of an earlier version."""
    (tmp_path / "000000.nut").write_bytes(b"abc")
    ab = np.zeros((2, 4, 4), np.float32)
    folder = WorkDir(tmp_path)
    assert len(split(video, folder, network, Settings(), 3)) == 3
    folder.add(work_dir.Segment("000000.nut", 0, 5, 3, 0, 0), ab[0], ab)
    assert split(video, folder, network, Settings(), 3) == (Chunk(video, Path("out.mkv"), tmp_path),)


WORKER = """
import os, pickle, signal, sys
from pathlib import Path
from colorize_cli.core.settings import VideoSettings, Settings
from colorize_cli.engine import process_setup
from colorize_cli.inference import model
from colorize_cli.video import chunks
from colorize_cli.video.reader import opened

network, at = sys.argv[1:]
chunk = pickle.loads(sys.stdin.buffer.read())

def progress(position):
    print(position.frames, position.expected, flush=True)
    if position.frames == int(at):
        os.kill(os.getpid(), signal.SIGKILL)

process_setup.prepare()
network = model.load(Path(network), "cpu", threads=1)
settings = Settings(video=VideoSettings(codec="ffv1"))
with opened(chunk.source) as video:
    chunks.colorize_chunk(chunk, video, network, settings, progress)
"""


def worker(network: Path, chunk: Chunk, at: int = 0) -> tuple[int, list[int]]:
    """Colorize a chunk in a process that kills itself at a frame. Returns its status and the frames done."""
    line = [sys.executable, "-c", WORKER, network, str(at)]
    done = subprocess.run(line, input=pickle.dumps(chunk), stdout=subprocess.PIPE, check=False)
    stats = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert {expected for _, expected in stats} <= {chunk.frames}
    return done.returncode, [frames for frames, _ in stats]


def test_chunks_of_killed_processes_are_resumed(video, models, network, tmp_path):
    stats, other = one_pass(video, tmp_path / "one.mkv", network, LOSSLESS), VideoStats()
    output = tmp_path / "parts.mkv"
    with work_dir.claimed(output, "in parts") as folder:
        chunked = first, second, third = split(video, folder, network, LOSSLESS, 3)
        assert (first.first, second.first, third.first) == (0, 36, 68)
        assert worker(models.tinted, third) == (0, list(range(1, 33)))
        # One is killed in its second segment, and one before its first segment is complete.
        assert worker(models.tinted, second, at=25) == (-signal.SIGKILL, list(range(1, 26)))
        assert worker(models.tinted, first, at=3)[0] == -signal.SIGKILL
        with pytest.raises(WriteError, match="its chunk 0 is incomplete: 0 of 36 frames are done"):
            concat(chunked, output, LOSSLESS)
        assert worker(models.tinted, first) == (0, list(range(1, 37)))
        assert worker(models.tinted, second) == (0, list(range(21, 33)))
        assert worker(models.tinted, third) == (0, [])
        for chunk in chunked:
            other.add(colorize_chunk(chunk, network, LOSSLESS))
        concat(chunked, output, LOSSLESS)
    assert_same(tmp_path / "one.mkv", output)
    assert (stats.frames, stats.cuts) == (other.frames, other.cuts) == (FRAMES, len(SHOTS))


@pytest.mark.parametrize("field", ["mark", "marks", "begins", "damaged"])
def test_mismatching_chunk_is_read_from_the_beginning(video, network, tmp_path, monkeypatch, field):
    """A mismatch shows at the first frame or at the end. Damaged chunks are never read by seeking."""
    read = []
    beginning = chunks._from_the_beginning

    def from_the_beginning(video, chunk, settings):
        read.append(chunk.number)
        return beginning(video, chunk, settings)

    monkeypatch.setattr(chunks, "_from_the_beginning", from_the_beginning)
    one_pass(video, tmp_path / "one.mkv", network, LOSSLESS)
    with work_dir.claimed(tmp_path / "parts.mkv", "in parts") as folder:
        chunked = split(video, folder, network, LOSSLESS, 3)
        for chunk in chunked:
            given = (
                dataclasses.replace(chunk, **{field: getattr(chunk, field) + 1})
                if chunk.number == 1
                else chunk
            )
            colorize_chunk(given, network, LOSSLESS)
        assert read == [0, 1]
        concat(chunked, tmp_path / "parts.mkv", LOSSLESS)
    assert_same(tmp_path / "one.mkv", tmp_path / "parts.mkv")


def test_segments_of_another_split_are_not_reused(video, network, tmp_path):
    one_pass(video, tmp_path / "one.mkv", network, LOSSLESS)
    output = tmp_path / "parts.mkv"
    with work_dir.claimed(output, "in parts") as folder:
        for count in (2, 5):
            (folder.path / "parts.json").unlink(missing_ok=True)
            chunked = split(video, folder, network, LOSSLESS, count)
            for chunk in chunked:
                colorize_chunk(chunk, network, LOSSLESS)
        concat(chunked, output, LOSSLESS)
    assert_same(tmp_path / "one.mkv", output)


def test_video_truncated_after_the_split_fails(video, network, tmp_path):
    folder = WorkDir(tmp_path)
    *_, last = split(video, folder, network, Settings(), 3)
    longer = dataclasses.replace(last, frames=last.frames + 5)
    with pytest.raises(ReadError, match="it had 105 frames, and has 100 now"):
        colorize_chunk(longer, network, Settings())


def test_damage_is_counted_once_and_frames_keep_their_times(video, network, tmp_path):
    source = damaged(video, tmp_path / "damaged.mkv")
    one, chunked = tmp_path / "one.mkv", tmp_path / "parts.mkv"
    stats, other = one_pass(source, one, network, Settings()), in_chunks(source, chunked, network, Settings())
    assert stats.damaged > 0
    assert (stats.frames, stats.damaged) == (other.frames, other.damaged)
    assert look(one).times == look(chunked).times
