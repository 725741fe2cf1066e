"""A film that is coloured in parts is what it is when it is coloured in one go.

The cluster is played by calls in any order, and by processes of which some are killed.
"""

import dataclasses
import json
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from colorize_cli.core.errors import ReadError, WriteError
from colorize_cli.core.settings import FilmSettings, Settings
from colorize_cli.inference import model
from colorize_cli.video import chunks, colorize, work_dir
from colorize_cli.video.chunks import Part
from colorize_cli.video.pixel_format import plane_of
from colorize_cli.video.stages import Told
from colorize_cli.video.work_dir import WorkFolder
from tests.colorize_cli.video.encoded import EncodedFrames, assert_same_packets
from tests.colorize_cli.video.making import Recipe, look, make

RATE = Fraction(2)  # so that 10 seconds are 20 frames and 2 seconds 4
SHOTS = (5, 12, 14, 24, 30, 36, 60, 68, 76, 78, 84, 92)
KEYS = (5, 8, 12, 14, 30, 36, 68, 76, 78, 84, 92)
FRAMES = 100
# 14 and 78 are too near to the place before, 24 and 60 no key frames, and 8 is no cut.
PLACES = (0, 5, 12, 30, 36, 68, 76, 84, 92)
STRETCHES = (0, 5, 12, 30, 36, 56, 68, 76, 84, 92)
CLOSED = {"crf": "10", "g": "1000", "sc_threshold": "0"}
OPEN = {"crf": "10", "g": "10", "sc_threshold": "0", "x264-params": "open-gop=1:bframes=3:b-adapt=0"}
# Its packets can be compared, also those that other processes make; H.264's cannot (see `encoded`).
LOSSLESS = Settings(film=FilmSettings(codec="ffv1"))
FILM = Recipe(frames=FRAMES, width=96, height=64, rate=RATE, shots=SHOTS, keys=KEYS, options=CLOSED)
UNEVEN = tuple(500 * n + 90 * (n % 3 == 1) for n in range(FRAMES))


@pytest.fixture(scope="module")
def network(models):
    return model.load(models.tinted, "cpu", threads=1)


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("film") / "a.mkv", FILM)


def one_go(path: Path, output: Path, network, settings: Settings) -> Told:
    told = Told()
    with work_dir.claimed(output, "one go") as folder:
        colorize.colour(path, output, output.suffix, folder, network, settings, told)
    return told


def in_parts(path: Path, output: Path, network, settings: Settings, count: int = 4) -> Told:
    """The last part first."""
    told = Told()
    with work_dir.claimed(output, "in parts") as folder:
        parts = chunks.parts(path, folder, network.card, settings, count)
        for part in reversed(parts):
            chunks.colour_part(path, output.suffix, folder, part, network, settings, Told())
        chunks.join_parts(path, output, output.suffix, folder, parts, settings, told)
    return told


def folder_of(output: Path, key: str) -> WorkFolder:
    with work_dir.claimed(output, key) as folder:
        return folder


def planes(path: Path) -> Iterator[tuple[int, list[np.ndarray]]]:
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.pts, [plane_of(frame, index) for index in range(3)]


def assert_same(one: Path, other: Path) -> None:
    """All packets, and so all that can be decoded from them, which is looked at too."""
    assert_same_packets(one, other)
    for (time, first), (when, second) in zip(planes(one), planes(other), strict=True):
        assert time == when
        for before, after in zip(first, second, strict=True):
            np.testing.assert_array_equal(before, after)


def assert_about_same(one: Path, other: Path) -> None:
    """As far as x264 repeats itself; one frame differs from the next by 5 levels and more."""
    for (time, first), (when, second) in zip(planes(one), planes(other), strict=True):
        assert time == when
        for before, after in zip(first, second, strict=True):
            limit = 4 if before.dtype == np.uint16 else 1
            assert np.abs(before.astype(int) - after).mean() < limit


CASES = {
    "lossy.mkv": (FILM, FilmSettings()),
    "small.mkv": (dataclasses.replace(FILM, width=64, height=48), FilmSettings()),
    "every.mkv": (FILM, FilmSettings(every=1)),
    "third.mkv": (FILM, FilmSettings(every=3, steady=0.5)),
    "unsteady.mkv": (FILM, FilmSettings(steady=0)),
    "lossless.mkv": (FILM, FilmSettings(codec="ffv1")),
    "part.mkv": (FILM, FilmSettings(start=8, duration=35)),
    "sound.mp4": (dataclasses.replace(FILM, time_base=Fraction(1, 12800), sounds=1), FilmSettings()),
    "turned.mp4": (dataclasses.replace(FILM, time_base=Fraction(1, 600), rotation=90), FilmSettings()),
    "uneven.mkv": (dataclasses.replace(FILM, times=UNEVEN), FilmSettings()),
    "deep.mkv": (dataclasses.replace(FILM, pixel_format="yuv422p10le"), FilmSettings()),
    "grey.mkv": (
        dataclasses.replace(FILM, pixel_format="gray", codec="ffv1", options={"g": "1"}),
        FilmSettings(),
    ),
    "open.mkv": (dataclasses.replace(FILM, options=OPEN), FilmSettings()),
    "open.mp4": (dataclasses.replace(FILM, options=OPEN, time_base=Fraction(1, 600)), FilmSettings()),
    "open.ts": (dataclasses.replace(FILM, options=OPEN, time_base=Fraction(1, 90_000)), FilmSettings()),
    # Of these libavformat makes up other times when they are searched.
    "b-frames.avi": (dataclasses.replace(FILM, time_base=1 / RATE), FilmSettings()),
    "program.mpg": (
        dataclasses.replace(
            FILM,
            rate=Fraction(25),
            codec="mpeg2video",
            time_base=Fraction(1, 25),
            frames=250,
            shots=(30, 85, 150, 220),
            keys=(30, 85, 150, 220),
            options={"g": "12", "bf": "2"},
        ),
        FilmSettings(),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_in_parts_is_in_one_go(network, tmp_path, monkeypatch, name):
    recipe, asked = CASES[name]
    encoded = EncodedFrames(monkeypatch)
    source = make(tmp_path / name, recipe)
    settings = Settings(film=asked)
    one, parts = tmp_path / f"one{source.suffix}", tmp_path / f"parts{source.suffix}"
    told, other = one_go(source, one, network, settings), in_parts(source, parts, network, settings)
    assert (told.frames, told.cuts, told.damaged) == (other.frames, other.cuts, other.damaged)
    assert told.cuts > 3
    assert told.damaged == 0
    assert look(parts).chroma > 3
    assert len(encoded.of[one]) == told.frames
    assert encoded.of[one] == encoded.of[parts]
    assert_same_packets(one, parts)
    assert_about_same(one, parts)
    assert len(list(folder_of(parts, "in parts").path.glob("part-*"))) > 1


def test_stretches_begin_at_places_and_after_ten_seconds(film, network, tmp_path):
    one_go(film, tmp_path / "a.mkv", network, Settings())
    done = folder_of(tmp_path / "a.mkv", "one go").done
    assert tuple(stretch.first for stretch in done) == tuple(500 * n for n in STRETCHES)
    assert sum(stretch.frames for stretch in done) == FRAMES


def parts_of(film: Path, folder: Path, network, count: int, settings: Settings | None = None) -> list[Part]:
    (folder / str(count)).mkdir()
    work = WorkFolder(folder / str(count))
    return list(chunks.parts(film, work, network.card, settings or Settings(), count))


@pytest.mark.parametrize("count", [1, 2, 3, 5, 9, 100])
def test_parts_are_whole_about_equal_and_as_many_as_asked_for(film, network, tmp_path, count):
    parts = parts_of(film, tmp_path, network, count)
    assert min(count, len(PLACES)) - 1 <= len(parts) <= min(count, len(PLACES))
    assert {part.first for part in parts} <= set(PLACES)
    assert [part.number for part in parts] == list(range(len(parts)))
    assert [part.begins for part in parts] == [500 * part.first for part in parts]
    ends = [part.first + part.frames for part in parts]
    assert ends == [*(part.first for part in parts[1:]), FRAMES]
    assert max(part.frames for part in parts) <= max(32, FRAMES / count + 16)


def test_parts_are_of_what_is_asked_for(film, network, tmp_path):
    parts = parts_of(film, tmp_path, network, 100, Settings(film=FilmSettings(start=8, duration=30)))
    # From 16 on, up to 76.
    assert [(part.first, part.frames) for part in parts] == [(0, 14), (14, 6), (20, 32), (52, 8)]
    with pytest.raises(ReadError, match="it ends before 100 seconds"):
        parts_of(film, tmp_path, network, 2, Settings(film=FilmSettings(start=100)))


def test_what_was_divided_stays_so(film, network, tmp_path):
    folder = WorkFolder(tmp_path)
    parts = chunks.parts(film, folder, network.card, Settings(), 3)
    assert chunks.parts(tmp_path / "none.mkv", folder, network.card, Settings(), 7) == parts
    (tmp_path / "parts.json").write_text(json.dumps([{"number": 0}]))
    assert len(chunks.parts(film, folder, network.card, Settings(), 7)) == 7


WORKER = """
import os, pickle, signal, sys
from pathlib import Path
from colorize_cli.core.settings import FilmSettings, Settings
from colorize_cli.engine import process_setup
from colorize_cli.inference import model
from colorize_cli.video import chunks
from colorize_cli.video.stages import Told
from colorize_cli.video.work_dir import WorkFolder

path, folder, network, at = sys.argv[1:]
part = pickle.loads(sys.stdin.buffer.read())

def progress(position):
    print(position.frames, position.expected, flush=True)
    if position.frames == int(at):
        os.kill(os.getpid(), signal.SIGKILL)

process_setup.prepare()
network = model.load(Path(network), "cpu", threads=1)
work, settings = WorkFolder(Path(folder)), Settings(film=FilmSettings(codec="ffv1"))
chunks.colour_part(Path(path), ".mkv", work, part, network, settings, Told(), progress)
"""


def worker(film: Path, folder: Path, network: Path, part: Part, at: int = 0) -> tuple[int, list[int]]:
    """Colours a part in a process, which kills itself at a frame; its status, and the frames done."""
    line = [sys.executable, "-c", WORKER, film, folder, network, str(at)]
    done = subprocess.run(line, input=pickle.dumps(part), stdout=subprocess.PIPE, check=False)
    told = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert {expected for _, expected in told} <= {part.frames}
    return done.returncode, [frames for frames, _ in told]


def test_processes_that_are_killed_are_gone_on_with(film, models, network, tmp_path):
    told, other = one_go(film, tmp_path / "one.mkv", network, LOSSLESS), Told()
    output = tmp_path / "parts.mkv"
    with work_dir.claimed(output, "in parts") as folder:
        first, second, third = chunks.parts(film, folder, network.card, LOSSLESS, 3)
        assert (first.first, second.first, third.first) == (0, 36, 68)
        work = film, folder.path, models.tinted
        assert worker(*work, third) == (0, list(range(1, 33)))
        # After its stretch of ten seconds, in the one that follows; and before any is whole.
        assert worker(*work, second, at=25) == (-signal.SIGKILL, list(range(1, 26)))
        assert worker(*work, first, at=3)[0] == -signal.SIGKILL
        with pytest.raises(WriteError, match="of its part 0 0 of 36 frames are there"):
            chunks.join_parts(film, output, ".mkv", folder, (first, second, third), LOSSLESS, Told())
        assert worker(*work, first) == (0, list(range(1, 37)))
        assert worker(*work, second) == (0, list(range(21, 33)))
        assert worker(*work, third) == (0, [])
        chunks.join_parts(film, output, ".mkv", folder, (first, second, third), LOSSLESS, other)
    assert_same(tmp_path / "one.mkv", output)
    assert (told.frames, told.cuts) == (other.frames, other.cuts) == (FRAMES, len(SHOTS))


@pytest.mark.parametrize("field", ["mark", "marks", "begins", "damaged"])
def test_a_part_that_is_not_found_where_it_was_is_read_from_the_beginning(
    film, network, tmp_path, monkeypatch, field
):
    """It is told by its first frame, or at the end by all; and not looked for at all in damage."""
    read = []
    beginning = chunks._from_the_beginning

    def from_the_beginning(film, part, settings):
        read.append(part.number)
        return beginning(film, part, settings)

    monkeypatch.setattr(chunks, "_from_the_beginning", from_the_beginning)
    one_go(film, tmp_path / "one.mkv", network, LOSSLESS)
    with work_dir.claimed(tmp_path / "parts.mkv", "in parts") as folder:
        parts = chunks.parts(film, folder, network.card, LOSSLESS, 3)
        for part in parts:
            given = (
                dataclasses.replace(part, **{field: getattr(part, field) + 1}) if part.number == 1 else part
            )
            chunks.colour_part(film, ".mkv", folder, given, network, LOSSLESS, Told())
        assert read == [0, 1]
        chunks.join_parts(film, tmp_path / "parts.mkv", ".mkv", folder, parts, LOSSLESS, Told())
    assert_same(tmp_path / "one.mkv", tmp_path / "parts.mkv")


def test_work_of_another_division_is_not_mixed_in(film, network, tmp_path):
    one_go(film, tmp_path / "one.mkv", network, LOSSLESS)
    output = tmp_path / "parts.mkv"
    with work_dir.claimed(output, "in parts") as folder:
        for count in (2, 5):
            (folder.path / "parts.json").unlink(missing_ok=True)
            parts = chunks.parts(film, folder, network.card, LOSSLESS, count)
            for part in parts:
                chunks.colour_part(film, ".mkv", folder, part, network, LOSSLESS, Told())
        chunks.join_parts(film, output, ".mkv", folder, parts, LOSSLESS, Told())
    assert_same(tmp_path / "one.mkv", output)


def test_a_film_that_was_cut_short_since_it_was_divided_fails(film, network, tmp_path):
    folder = WorkFolder(tmp_path)
    *_, last = chunks.parts(film, folder, network.card, Settings(), 3)
    longer = dataclasses.replace(last, frames=last.frames + 5)
    with pytest.raises(ReadError, match="it had 105 frames, and has 100 now"):
        chunks.colour_part(film, ".mkv", folder, longer, network, Settings(), Told())


def damaged(film: Path, source: Path) -> Path:
    """A copy of a film with a packet at 20 seconds that cannot be decoded."""
    with av.open(str(film)) as whole:
        packet = next(packet for packet in whole.demux(video=0) if packet.pts == 500 * 40)
        content = bytearray(film.read_bytes())
        begin = content.index(bytes(packet)[:40])
        content[begin + 4 : begin + packet.size] = bytes(packet.size - 4)
    source.write_bytes(content)
    return source


def test_damage_is_told_once_and_frames_keep_their_times(film, network, tmp_path):
    source = damaged(film, tmp_path / "damaged.mkv")
    one, parts = tmp_path / "one.mkv", tmp_path / "parts.mkv"
    told, other = one_go(source, one, network, Settings()), in_parts(source, parts, network, Settings())
    assert told.damaged > 0
    assert (told.frames, told.damaged) == (other.frames, other.damaged)
    assert look(one).times == look(parts).times
