"""Reading a video from any position, and with missing packets."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from colorize_cli.video import pixel_format, reader
from tests.helpers.videos import Recipe, make

OPEN = {"crf": "10", "g": "12", "x264-params": "open-gop=1:bframes=3:b-adapt=0"}
CASES = {
    "closed.mp4": Recipe(time_base=Fraction(1, 12800), options={"crf": "10", "g": "12"}),
    "open.mp4": Recipe(time_base=Fraction(1, 12800), options=OPEN),
    "open.mkv": Recipe(options=OPEN),
    "open.ts": Recipe(time_base=Fraction(1, 90_000), options=OPEN),
    "mpeg2.mkv": Recipe(codec="mpeg2video", time_base=Fraction(1, 25), options={"g": "12", "bf": "2"}),
    "mpeg4.avi": Recipe(codec="mpeg4", time_base=Fraction(1, 25), options={"g": "12", "bf": "2"}),
    "vp8.webm": Recipe(codec="libvpx", options={"g": "12"}),
    "intra.mov": Recipe(codec="mjpeg", pixel_format="yuvj420p", time_base=Fraction(1, 600), options={}),
}


def read(path: Path, begin: int | None = None) -> tuple[list[tuple[int, bool, np.ndarray]], int]:
    """Return time stamp, key frame flag and luma of all frames, and the damage count."""
    with reader.opened(path) as video:
        frames = [(f.pts, bool(f.key_frame), pixel_format.luma_of(f).copy()) for f in video.between(begin)]
        return frames, video.damaged


@pytest.mark.parametrize("name", CASES)
def test_frames_after_seeking_equal_those_from_the_beginning(tmp_path, name):
    recipe = CASES[name]
    path = make(tmp_path / name, Recipe(**{**vars(recipe), "frames": 90}))
    whole, _ = read(path)
    keys = [number for number, (_, key, _) in enumerate(whole) if key]
    assert len(whole) == 90
    assert len(keys) >= 7
    for number in {number for key in keys[1:8] for number in (key - 1, key, key + 2) if number < 90}:
        found, damaged = read(path, whole[number][0])
        assert damaged == 0
        assert [(time, key) for time, key, _ in found] == [(time, key) for time, key, _ in whole[number:]]
        for (_, _, one), (_, _, other) in zip(found, whole[number:], strict=True):
            np.testing.assert_array_equal(one, other)


def frames_of(video: reader.VideoReader) -> list[tuple[int, bool, bytes]]:
    return [(f.pts, bool(f.key_frame), pixel_format.luma_of(f).tobytes()) for f in video.frames()]


@pytest.mark.parametrize("name", CASES)
def test_rewound_reader_returns_the_frames_of_a_new_one(tmp_path, name):
    recipe = CASES[name]
    path = make(tmp_path / name, Recipe(**{**vars(recipe), "frames": 90}))
    with reader.opened(path) as video:
        expected = frames_of(video)
    with reader.opened(path) as video:
        assert not video.is_color()
        assert frames_of(video) == expected
        assert video.damaged == 0
        video.rewind()
        assert len(list(video.between(expected[50][0]))) == 40
        video.rewind()
        assert frames_of(video) == expected
        assert video.damaged == 0


@pytest.mark.parametrize(
    ("name", "opens"), [("open.mp4", 1), ("open.mkv", 1), ("vp8.webm", 1), ("open.ts", 2)]
)
def test_reader_reopens_only_formats_with_inexact_times(tmp_path, monkeypatch, name, opens):
    path = make(tmp_path / name, CASES[name])
    asked, open_ = [], av.open
    monkeypatch.setattr(reader.av, "open", lambda *given, **how: (asked.append(1), open_(*given, **how))[1])
    with reader.opened(path) as video:
        assert not video.is_color()
        assert len(list(video.frames())) == CASES[name].frames
    assert len(asked) == opens


def test_rewound_reader_counts_damage_again(tmp_path):
    path = make(tmp_path / "a.mkv", Recipe(frames=60, options={"crf": "10", "g": "10", "bf": "0"}))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = bytes(400)
    path.write_bytes(content)
    with reader.opened(path) as video:
        expected, damaged = frames_of(video), video.damaged
    with reader.opened(path) as video:
        assert not video.is_color()
        assert (frames_of(video), video.damaged) == (expected, damaged)
    assert damaged > 0


def test_missing_packet_loses_only_dependent_frames(tmp_path):
    """The packets of one group of pictures are dropped in turn, since frames differ in references to them."""
    path = make(tmp_path / "a.mkv", Recipe(frames=120, options={"crf": "10", "g": "12"}))
    for lost in range(40, 52):
        lacking = tmp_path / f"{lost}.mkv"
        with av.open(str(path)) as whole, av.open(str(lacking), "w") as out:
            stream = out.add_stream_from_template(whole.streams.video[0])
            for number, packet in enumerate(whole.demux(video=0)):
                if number != lost and packet.size:
                    packet.stream = stream
                    out.mux_one(packet)
        frames, damaged = read(lacking)
        assert damaged <= 24
        assert len(frames) >= 120 - 2 * 12
        assert frames[-1][0] == 119 * 40
