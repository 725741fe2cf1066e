"""Reading a video from any position, with missing packets, cut off, or with a clock that restarts."""

import io
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


@pytest.mark.parametrize("from_end", [7, 30])
def test_damaged_slice_of_ffv1_is_counted(tmp_path, from_end):
    """The decoder conceals it with the frame before."""
    path = make(tmp_path / "a.mkv", Recipe(frames=6, codec="ffv1", options={"level": "3", "slicecrc": "1"}))
    with av.open(str(path)) as whole:
        packet = [bytes(packet) for packet in whole.demux(video=0)][3]
    content = bytearray(path.read_bytes())
    content[content.index(packet) + len(packet) - from_end] ^= 1  # the last slice's size, and its samples
    for data, damaged in ((path.read_bytes(), 0), (bytes(content), 1)):
        path.write_bytes(data)
        assert read(path)[1] == damaged


@pytest.mark.parametrize("head", [b"\0\0", b"\xa3\xff"])
def test_place_in_matroska_that_the_demuxer_skips_is_counted(tmp_path, head):
    path = make(tmp_path / "a.mkv", Recipe(frames=6, codec="mpeg4", options={}))
    with av.open(str(path)) as whole:
        block = [packet.pos for packet in whole.demux(video=0)][3] - 2  # where its name is
    content = bytearray(path.read_bytes())
    content[block : block + 2] = head
    path.write_bytes(content)
    frames, damaged = read(path)
    assert len(frames) < 6
    assert damaged


def test_packets_that_an_avi_lacks_are_counted(tmp_path):
    path = make(
        tmp_path / "a.avi",
        Recipe(frames=6, codec="mjpeg", pixel_format="yuvj420p", time_base=Fraction(1, 25), options={}),
    )
    content = path.read_bytes()
    third = content.index(b"00dc", content.index(b"00dc", content.index(b"00dc") + 4) + 4)
    path.write_bytes(content[:third] + b"JUNK" + content[third + 4 :])
    frames, damaged = read(path)
    assert len(frames) == 6 - damaged


def test_film_cut_off_in_its_first_frames_is_read(tmp_path):
    path = make(tmp_path / "a.mkv", Recipe(frames=6, codec="ffv1", options={}))
    with av.open(str(path)) as whole:
        second = [packet.pos for packet in whole.demux(video=0)][1]
    path.write_bytes(path.read_bytes()[:second])
    with reader.opened(path) as video:
        assert len(list(video.frames())) == 1
        assert video.cut_off == "it is cut off after 1 of about 6 frames"


def test_frames_after_a_restart_of_the_clock_are_found_by_time(tmp_path):
    part = make(tmp_path / "a.ts", Recipe(time_base=Fraction(1, 90_000), frames=50)).read_bytes()
    (tmp_path / "b.ts").write_bytes(part + part)
    whole, _ = read(tmp_path / "b.ts")
    with reader.opened(tmp_path / "b.ts") as video:
        assert video.restarted_seconds == pytest.approx(4.0, abs=0.05)
        found = [pixel_format.luma_of(frame).copy() for frame in video.frames(3.0, 0.5)]
    assert len(found) in (12, 13)
    expected = [luma for time, _, luma in whole if 3.0 <= (time - whole[0][0]) / 90_000 < 3.5]
    assert all(np.array_equal(*pair) for pair in zip(found, expected, strict=True))


def test_key_frames_of_turned_frames_are_key_frames(tmp_path):
    recipe = Recipe(time_base=Fraction(1, 12800), rotation=90, options={"g": "5"}, frames=10)
    with reader.opened(make(tmp_path / "a.mp4", recipe), upright=True) as video:
        assert [n for n, frame in enumerate(video.frames()) if frame.key_frame] == [0, 5]


def test_mp4_with_its_index_at_the_end_is_read_from_a_stream_that_seeks(tmp_path):
    recipe = Recipe(width=320, height=240, shots=(5,), frames=40, time_base=Fraction(1, 12800))
    path = make(tmp_path / "a.mp4", recipe)
    assert path.stat().st_size > 50_000  # more than is read ahead
    with path.open("rb") as file, reader.opened(file, "mov") as video:
        assert len(list(video.frames())) == 40
        assert (video.damaged, video.cut_off) == (0, "")


INDEX_FIRST = {"movflags": "+faststart"}
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}
CUT_OFF = {
    "a.mp4": (Recipe(time_base=Fraction(1, 12800), muxing=INDEX_FIRST, sounds=1), " of 100"),
    "fragments.mp4": (
        Recipe(time_base=Fraction(1, 12800), muxing=FRAGMENTS, options={"g": "10"}, sounds=1),
        "",
    ),
    "a.mkv": (Recipe(sounds=1), " of about 100"),
    "a.webm": (Recipe(codec="libvpx", options={"deadline": "realtime", "cpu-used": "8"}), " of about 100"),
    "a.avi": (Recipe(codec="mpeg4", time_base=Fraction(1, 25), options={}), " of 100"),
    "a.y4m": (Recipe(codec="rawvideo", time_base=Fraction(1, 25), options={}, muxing={"strict": "-1"}), ""),
    "a.flv": (Recipe(codec="flv", options={}), " of about 100"),
    "a.mpg": (Recipe(codec="mpeg2video", time_base=Fraction(1, 25), options={}), ""),
    "a.vob": (Recipe(codec="mpeg2video", time_base=Fraction(1, 25), options={}), ""),
    "a.wmv": (Recipe(codec="wmv2", options={}), ""),
    "a.mxf": (Recipe(codec="mpeg2video", time_base=Fraction(1, 25), options={}), " of about 100"),
}


@pytest.mark.parametrize("name", CUT_OFF)
def test_reader_of_a_file_that_is_cut_off_says_how_much_is_there(tmp_path, name):
    recipe, of = CUT_OFF[name]
    path = make(tmp_path / name, Recipe(**{**vars(recipe), "frames": 100}))
    content = path.read_bytes()
    with reader.opened(path) as video:
        assert len(list(video.frames())) == 100
        assert (video.cut_off, video.damaged) == ("", 0)
    path.write_bytes(content[: len(content) * 55 // 100])
    with reader.opened(path) as video:
        found = len(list(video.frames()))
        assert 12 < found < 88
        assert video.cut_off == f"it is cut off after {found}{of} frames"
        video.rewind()
        assert len(list(video.frames(0, 0.4))) in (9, 10)  # MP4 in fragments has uneven times
        assert (video.cut_off, video.damaged) == ("", 0)
    with reader.opened(path) as video:
        list(video.frames(0.4))
        assert video.cut_off.startswith("it is cut off")


@pytest.mark.parametrize("name", ["a.mkv", "a.webm", "a.y4m"])
def test_reader_of_a_stream_that_is_cut_off_says_how_much_is_there(tmp_path, name):
    recipe, of = CUT_OFF[name]
    content = make(tmp_path / name, Recipe(**{**vars(recipe), "frames": 100})).read_bytes()
    for share in (100, 55):
        stream = io.BufferedReader(_OneWay(content[: len(content) * share // 100]))
        with reader.opened(stream, others=True) as video:
            found = len(list(video.frames()))
            assert (found == 100) == (share == 100)
            assert video.cut_off == ("" if share == 100 else f"it is cut off after {found}{of} frames")


class _OneWay(io.RawIOBase):
    """A stream that cannot seek, like a pipe."""

    def __init__(self, content: bytes) -> None:
        self._rest = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        return self._rest.readinto(buffer)


def test_readers_of_unusual_but_whole_files_find_them_whole(tmp_path):
    uneven = tuple(number * number * 7 for number in range(60))
    late = tuple(range(3300, 3300 + 40 * 60, 40))
    recipes = {
        "uneven.mkv": Recipe(frames=60, times=uneven),
        "uneven.mp4": Recipe(frames=60, times=uneven, muxing=INDEX_FIRST),
        "late.mkv": Recipe(frames=60, times=late),
        "late.mp4": Recipe(frames=60, times=late, muxing=INDEX_FIRST),
        "live.mkv": Recipe(frames=60, muxing={"live": "1"}),
        "cues.mkv": Recipe(frames=60, sounds=1, muxing={"reserve_index_space": "2000"}),
        "dash.mp4": Recipe(frames=60, sounds=1, muxing={"movflags": "dash+frag_keyframe+global_sidx"}),
        "a.ts": Recipe(frames=60, sounds=1, time_base=Fraction(1, 90_000)),
    }
    for name, recipe in recipes.items():
        path = make(tmp_path / name, recipe)
        with path.open("ab") as file:  # as some programs append
            file.write(bytes(100) if name.endswith(("mkv", "mp4")) else b"")
        with reader.opened(path) as video:
            assert (name, len(list(video.frames()))) == (name, 60)
            assert (name, video.cut_off, video.damaged) == (name, "", 0)


def test_reader_of_an_overstated_duration_finds_the_file_whole(tmp_path):
    path = make(tmp_path / "a.mkv", Recipe(frames=60))
    content = bytearray(path.read_bytes())
    at = content.index(b"\x44\x89\x88") + 3  # the duration in milliseconds, as a double
    assert np.frombuffer(content[at : at + 8], ">f8") == 2400
    content[at : at + 8] = np.array([9000], ">f8").tobytes()
    path.write_bytes(content)
    with reader.opened(path) as video:
        assert (len(list(video.frames())), video.cut_off) == (60, "")


def test_transport_stream_that_ends_within_a_frame_loses_only_that_frame(tmp_path):
    path = make(tmp_path / "a.ts", Recipe(frames=60, width=320, height=240, time_base=Fraction(1, 90_000)))
    content = path.read_bytes()
    for share in range(50, 90, 4):
        path.write_bytes(content[: len(content) * share // 100 // 188 * 188])
        with av.open(str(path)) as container:  # one thread, frame by frame
            container.streams.video[0].thread_type = "NONE"
            expected = [frame.pts for frame in container.decode(video=0)]
        found, damaged = read(path)
        assert len(found) >= len(expected) - 1
        assert [time for time, _, _ in found] == expected[: len(found)]
        assert len(found) + damaged >= len(expected)


def kind_of(packet: bytes) -> int:
    """Return the kind of the last frame in a packet of MPEG-4 part 2: 0 for I, 1 for P, 2 for B."""
    return packet[packet.rindex(b"\0\0\1\xb6") + 4] >> 6


def test_packed_b_frames_in_matroska_are_equally_spaced(tmp_path):
    """In AVI a packet holds a P- and a B-frame, and the next is empty. Copied so, both lose their time."""
    options = {"g": "12", "bf": "1", "b_strategy": "0"}
    make(tmp_path / "a.avi", Recipe(frames=30, codec="mpeg4", time_base=Fraction(1, 25), options=options))
    with av.open(str(tmp_path / "a.avi")) as plain, av.open(str(tmp_path / "b.mkv"), "w") as out:
        stream = out.add_stream_from_template(plain.streams.video[0])
        frames = [bytes(packet) for packet in plain.demux(video=0) if packet.size]
        packed: list[bytes] = []
        for frame in frames:
            if kind_of(frame) == 2:
                packed[-1:] = [packed[-1] + frame, b"\0\0\1\xb6\x50\0\0\x7f"]
            else:
                packed.append(frame)
        for number, content in enumerate(packed):
            packet = av.Packet(content.replace(b"\0\0\1\xb2Lavc", b"\0\0\1\xb2DivX503b1393p\0\0\1\xb2Lavc"))
            packet.stream, packet.time_base = stream, Fraction(1, 25)
            packet.pts = packet.dts = number
            packet.is_keyframe = kind_of(content) == 0
            out.mux(packet)
    expected = [luma for _, _, luma in read(tmp_path / "a.avi")[0]]
    found, damaged = read(tmp_path / "b.mkv")
    times = [time for time, _, _ in found]
    assert (len(times), damaged) == (30, 0)
    assert set(np.diff(times)) == {40}
    for (_, _, one), other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_frames_of_h264_in_avi_are_equally_spaced(tmp_path):
    options = {"crf": "10", "x264-params": "bframes=3:b-adapt=0"}
    path = make(tmp_path / "a.avi", Recipe(frames=40, time_base=Fraction(1, 25), options=options))
    found, damaged = read(path)
    assert (len(found), damaged) == (40, 0)
    assert set(np.diff([time for time, _, _ in found])) == {1}
