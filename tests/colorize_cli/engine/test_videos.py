"""Videos through the command line."""

import contextlib
import dataclasses
import io
import json
import resource
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from colorize_cli.core import formats
from colorize_cli.core.jobs import Position, Status
from colorize_cli.engine import ENGINES
from colorize_cli.engine.session import Session
from colorize_cli.guidance import Guidance
from colorize_cli.storage import discovery
from colorize_cli.video import pixel_format
from colorize_cli.video.preview import stills
from tests.helpers import chunked_videos
from tests.helpers.cli import invoke
from tests.helpers.videos import BT601, BT709, BT2020, Recipe, look, make

UNEVEN = (0, 40, 41, 90, 200, 210, 300, 350, 400, 900)
LOSSLESS = {"qp": "0"}
CASES = {
    "plain.mp4": Recipe(time_base=Fraction(1, 12800)),
    "plain.mov": Recipe(time_base=Fraction(1, 600)),
    "plain.mkv": Recipe(),
    "plain.webm": Recipe(codec="libvpx-vp9", options={"lossless": "1"}),
    "plain.avi": Recipe(codec="mpeg4", time_base=Fraction(1, 25), options={}),
    "plain.mpg": Recipe(codec="mpeg2video", time_base=Fraction(1, 25), options={}),
    "plain.3gp": Recipe(time_base=Fraction(1, 12800), width=176, height=144),
    "plain.flv": Recipe(codec="flv", options={"qmin": "2", "qmax": "2"}),
    "plain.wmv": Recipe(codec="wmv2", options={"qmin": "2", "qmax": "2"}),
    "plain.m2ts": Recipe(time_base=Fraction(1, 90_000)),
    "sound.mp4": Recipe(sounds=1, time_base=Fraction(1, 12800)),
    "sounds-and-text.mkv": Recipe(sounds=2, subtitles=True, chapters=True),
    "uneven.mkv": Recipe(frames=len(UNEVEN), times=UNEVEN),
    "uneven.mp4": Recipe(frames=len(UNEVEN), times=UNEVEN, sounds=1),
    "late.mkv": Recipe(times=tuple(range(330, 330 + 40 * 20, 40))),
    "turned.mp4": Recipe(rotation=90),
    "odd.mkv": Recipe(width=65, height=47, codec="ffv1", options={}),
    "deep.mkv": Recipe(pixel_format="yuv420p10le"),
    "deeper.mkv": Recipe(pixel_format="yuv422p10le"),
    "422.mkv": Recipe(pixel_format="yuv422p"),
    "444.mkv": Recipe(pixel_format="yuv444p"),
    "gray.mkv": Recipe(pixel_format="gray", codec="ffv1", options={}),
    "deep-gray.mkv": Recipe(pixel_format="gray10le", codec="ffv1", options={}),
    "full.mp4": Recipe(pixel_format="yuvj420p", full=True),
    "601.mp4": Recipe(matrix=BT601),
    "709.mp4": Recipe(matrix=BT709),
    "2020.mkv": Recipe(matrix=BT2020, pixel_format="yuv420p10le"),
    "wide.mp4": Recipe(aspect=Fraction(16, 11)),
    "interlaced.mkv": Recipe(interlaced=True),
    "one.mp4": Recipe(frames=1),
}


def colorize(source: Path, output: Path, model: Path, *options: str):
    return invoke(source, output, "--model", model, "--device", "cpu", *options)


@pytest.mark.parametrize("name", CASES)
def test_video_keeps_everything_except_chroma(models, tmp_path, name):
    recipe = CASES[name]
    source = make(tmp_path / name, recipe)
    result = colorize(source, tmp_path / "out", models.tinted)
    assert result.exit_code == 0, result.output
    before, after = look(source), look(tmp_path / "out" / name)
    assert after.times == before.times
    assert after.others == before.others
    assert after.chroma > 3
    for old, new in zip(before.lumas, after.lumas, strict=True):
        assert new.dtype == old.dtype
        assert np.abs(new.astype(int) - old).mean() < 3 * 2 ** (8 * (old.dtype == np.uint16) / 4)
    assert after.first.rotation == before.first.rotation
    assert after.first.color_range == before.first.color_range
    assert after.first.colorspace == before.first.colorspace
    assert after.first.interlaced_frame == before.first.interlaced_frame
    assert after.aspect == before.aspect
    assert after.metadata.get("title") == before.metadata.get("title")
    assert [c["metadata"] for c in after.chapters] == [c["metadata"] for c in before.chapters]
    assert [p.name for p in (tmp_path / "out").iterdir() if p.is_file()] == [name]


@pytest.mark.parametrize(
    "pixel_format", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "gray", "gray10le"]
)
def test_lossless_codec_keeps_luma_bit_for_bit(models, tmp_path, pixel_format):
    recipe = Recipe(pixel_format=pixel_format, codec="ffv1", options={}, width=66, height=46)
    source = make(tmp_path / "a.mkv", recipe)
    result = colorize(source, tmp_path / "b.mkv", models.tinted, "--codec", "ffv1")
    assert result.exit_code == 0, result.output
    before, after = look(source), look(tmp_path / "b.mkv")
    for old, new in zip(before.lumas, after.lumas, strict=True):
        np.testing.assert_array_equal(new, old)
    assert after.chroma > 3


def test_outcome_has_frames_and_cuts(models, tmp_path):
    make(tmp_path / "in.mkv", Recipe(frames=40, cut=23))
    result = colorize(tmp_path / "in.mkv", tmp_path / "out.mkv", models.tinted, "--json")
    found = json.loads(result.stdout)
    assert (found["status"], found["frames"], found["cuts"]) == ("done", 40, 1)
    assert {"copy", "follow", "infer", "steady", "chroma", "film", "join"} == found["seconds"].keys()


def test_truncated_mp4_fails_with_one_line(models, tmp_path):
    whole = make(tmp_path / "a.mp4", Recipe()).read_bytes()
    (tmp_path / "a.mp4").write_bytes(whole[: len(whole) // 2])
    result = colorize(tmp_path / "a.mp4", tmp_path / "b.mp4", models.tinted)
    assert result.exit_code == 1
    assert "a.mp4: damaged, or not a video" in result.stderr
    assert not (tmp_path / "b.mp4").exists()


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_half_a_video_is_written_and_fails_with_its_length(models, tmp_path, name):
    muxing = {"movflags": "+faststart"} if name == "a.mp4" else {}
    options = {"crf": "10", "g": "5"}
    recipe = Recipe(frames=50, time_base=Fraction(1, 12800), muxing=muxing, options=options)
    source = make(tmp_path / name, recipe)
    source.write_bytes(source.read_bytes()[: source.stat().st_size * 55 // 100])
    times = decodable(source)
    found = len(times)
    about = "" if name == "a.mp4" else "about "
    reason = f"it is cut off after {found} of {about}50 frames"
    for _ in range(2):  # each run tries it again and fails again
        result = colorize(source, tmp_path / "out", models.tinted)
        assert result.exit_code == 1
        assert result.stderr.startswith(f"{source}: {reason}")
        assert "the output contains only what could be decoded" in result.stderr
        assert look(tmp_path / "out" / name).times == times
    if name == "a.mkv":
        line = [sys.executable, "-m", "colorize_cli", "-", "-", "--model", models.tinted, "--device", "cpu"]
        done = subprocess.run(line, input=source.read_bytes(), capture_output=True, check=False)
        assert done.returncode == 1
        assert reason in done.stderr.decode()
        (tmp_path / "b.mkv").write_bytes(done.stdout)
        assert look(tmp_path / "b.mkv").times == times


def decodable(path: Path) -> list[Fraction]:
    """Return the times of the frames of a video that can be decoded."""
    found: list[Fraction] = []
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "NONE"
        for packet in container.demux(video=0):
            with contextlib.suppress(av.error.InvalidDataError):
                found += [frame.pts * frame.time_base for frame in packet.decode()]
    return found


def test_chunks_of_half_a_video_fail_with_its_length(models, tmp_path):
    source = make(tmp_path / "a.mkv", chunked_videos.VIDEO)
    source.write_bytes(source.read_bytes()[: source.stat().st_size * 3 // 4])
    settings = dataclasses.replace(chunked_videos.LOSSLESS, model=models.tinted, device="cpu")
    plan = discovery.plan([source], tmp_path / "out" / "a.mkv", formats.endings())
    session = Session(plan.root, settings, Guidance())
    split = session.split_video(plan.jobs[0], 3)
    assert len(split.chunks) > 1
    outcomes = [split.answered(chunk, session.colorize_chunk(chunk)) for chunk in split.chunks]
    session.close()
    found = len(look(source).times)
    assert outcomes[-1].status is Status.FAILED
    assert outcomes[-1].frames == found
    assert outcomes[-1].reason.startswith(f"it is cut off after {found} of about 100 frames; the output")
    assert look(tmp_path / "out" / "a.mkv").times == look(source).times


@pytest.mark.parametrize("kind", ["mkv", "ts", "mp4"])
@pytest.mark.parametrize("more", [0, 25])
def test_clock_that_restarts_in_the_middle_goes_on(models, tmp_path, kind, more):
    """Two recordings of MPEG-TS in one file. The sound of the first may be longer than its picture."""
    part = make(tmp_path / "part.ts", Recipe(frames=25, sounds=1, time_base=Fraction(1, 90_000)))
    first = tmp_path / "first.ts"
    other = make(tmp_path / "longer.ts", Recipe(frames=25 + more, sounds=1, time_base=Fraction(1, 90_000)))
    with av.open(str(part)) as picture, av.open(str(other)) as sound, av.open(str(first), "w") as out:
        streams = [picture.streams.video[0], sound.streams.audio[0]]
        targets = [out.add_stream_from_template(stream) for stream in streams]
        for container, stream, target in zip((picture, sound), streams, targets, strict=True):
            for packet in container.demux(stream):
                if packet.dts is not None:
                    packet.stream = target
                    out.mux(packet)
    source = tmp_path / "a.ts"
    source.write_bytes(first.read_bytes() + part.read_bytes())
    result = colorize(source, tmp_path / f"b.{kind}", models.tinted)
    assert result.exit_code == 0, result.output
    one, two, after = look(first), look(part), look(tmp_path / f"b.{kind}")
    times = np.array(after.times, float)
    np.testing.assert_allclose(np.diff(times[:25]), 0.04, atol=0.0011)
    np.testing.assert_allclose(np.diff(times[25:]), 0.04, atol=0.0011)
    assert abs(times[25] - times[24] - 0.04 - more / 25) < 0.13 * bool(more) + 0.0011
    ((_, sounds),) = after.others.values()
    header = 7 if kind != "ts" else 0  # of MPEG-TS
    wanted = [content[header:] for each in (one, two) for _, content in each.others[1][1]]
    assert [content for _, content in sounds] == wanted
    heard = np.array([time for time, _ in sounds], float)
    assert np.diff(heard).min() > 0.06
    begins = len(one.others[1][1])
    # The picture is as far from its sound as it was, once the sound of the second has caught up.
    apart = heard[[0, begins + 4]] - np.array([0, 4 * 0.128]) - times[[0, 25]]
    np.testing.assert_allclose(apart, float(one.others[1][1][0][0] - one.times[0]), atol=0.002)


@pytest.mark.parametrize(
    ("rate", "unit"), [(Fraction(25), 1000), (Fraction(25), 600), (Fraction(30000, 1001), 1000)]
)
def test_avi_from_other_formats_keeps_the_frame_rate(models, tmp_path, rate, unit):
    times = tuple(round(number / rate * unit) for number in range(30))
    recipe = Recipe(frames=30, rate=rate, time_base=Fraction(1, unit), times=times)
    source = make(tmp_path / ("a.mkv" if unit == 1000 else "a.mov"), recipe)
    result = colorize(source, tmp_path / "b.avi", models.tinted)
    assert result.exit_code == 0, result.output
    with av.open(str(tmp_path / "b.avi")) as container:
        stream = container.streams.video[0]
        assert stream.time_base == 1 / rate
        assert stream.average_rate == stream.base_rate == rate
        assert stream.frames == 30
        assert [packet.dts for packet in container.demux(stream) if packet.size] == list(range(30))


READ_ONLY = {
    "a.dv": Recipe(
        frames=3, codec="dvvideo", width=720, height=576, time_base=Fraction(1, 25), aspect=Fraction(16, 15)
    ),
    "a.mxf": Recipe(codec="mpeg2video", time_base=Fraction(1, 25), options={}),
    "a.ogv": Recipe(codec="libvpx", options={"deadline": "realtime"}),
    "a.vob": Recipe(codec="mpeg2video", time_base=Fraction(1, 25), options={}),
}


@pytest.mark.parametrize("name", READ_ONLY)
def test_video_of_a_kind_that_is_only_read_becomes_matroska(models, tmp_path, name):
    source = make(tmp_path / name, READ_ONLY[name])
    result = colorize(source, tmp_path / "out", models.tinted)
    assert result.exit_code == 0, result.output
    before, after = look(source), look(tmp_path / "out" / f"{name}.mkv")
    assert after.chroma > 3
    np.testing.assert_allclose(np.array(after.times, float), np.array(before.times, float), atol=0.0006)
    refused = colorize(source, tmp_path / f"b{source.suffix}", models.tinted)
    assert refused.exit_code == 2
    assert "does not end in one of" in refused.stderr


def test_size_that_changes_in_the_middle_is_scaled_to_the_first(models, tmp_path):
    parts = [
        make(
            tmp_path / f"{width}.ts",
            Recipe(frames=10, width=width, height=height, time_base=Fraction(1, 90_000), options={"bf": "0"}),
        )
        for width, height in ((64, 48), (128, 96))
    ]
    source = tmp_path / "a.ts"
    source.write_bytes(b"".join(part.read_bytes() for part in parts))
    result = colorize(source, tmp_path / "b.mkv", models.tinted, "--codec", "ffv1")
    assert result.exit_code == 0, result.output
    after = look(tmp_path / "b.mkv")
    assert len(after.lumas) == 20
    assert {luma.shape for luma in after.lumas} == {(48, 64)}
    np.testing.assert_array_equal(after.lumas[9], look(parts[0]).lumas[9])
    small = look(parts[1]).lumas[9].reshape(48, 2, 64, 2).mean((1, 3))
    assert np.abs(after.lumas[19] - small).mean() < 2


def test_transparency_of_vp9_is_refused_at_once(models, tmp_path):
    """It is a second stream inside the first, which the decoder leaves out."""
    options = {"deadline": "realtime", "cpu-used": "8"}
    recipe = Recipe(frames=3, codec="libvpx-vp9", pixel_format="yuva420p", options=options)
    source = make(tmp_path / "a.webm", recipe)
    result = colorize(source, tmp_path / "b.webm", models.tinted)
    assert result.exit_code == 1
    assert "a.webm: it has transparency, which is not supported" in result.stderr
    assert not (tmp_path / "b.webm").exists()


def soft_telecined(path: Path, work: Path) -> list[int]:
    """Make MPEG-2 whose frames last three and two fields in turn; returns their begins in fields."""
    plain = Recipe(
        frames=24,
        codec="mpeg2video",
        rate=Fraction(30000, 1001),
        time_base=Fraction(1001, 30000),
        interlaced=True,
        options={"bf": "0", "g": "12"},
    )
    make(work / "plain.ts", plain)
    begins: list[int] = []
    with av.open(str(work / "plain.ts")) as container, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(container.streams.video[0])
        fields = 0
        for number, packet in enumerate(p for p in container.demux(video=0) if p.size):
            content = bytearray(bytes(packet))
            at = content.index(b"\0\0\1\xb5", content.index(b"\0\0\1\0")) + 4  # the picture coding extension
            repeated, top_first = number % 2 == 0, fields % 2 == 0
            content[at + 3] = content[at + 3] & 0x7D | 0x80 * top_first | 2 * repeated | 1
            content[at + 4] |= 0x80  # a progressive frame
            changed = av.Packet(bytes(content))
            changed.stream, changed.time_base = stream, Fraction(1, 90_000)
            changed.pts = changed.dts = 90_000 + round(fields * 1501.5)
            changed.is_keyframe = packet.is_keyframe
            out.mux(changed)
            begins.append(fields)
            fields += 2 + repeated
    return begins


@pytest.mark.parametrize("kind", ["ts", "mkv", "mpg", "y4m"])
def test_soft_telecined_mpeg2_keeps_its_times(models, tmp_path, kind):
    begins = soft_telecined(tmp_path / "a.ts", tmp_path)
    result = colorize(tmp_path / "a.ts", tmp_path / f"b.{kind}", models.tinted)
    assert result.exit_code == 0, result.output
    after = look(tmp_path / f"b.{kind}")
    times = np.array(after.times, float) - float(after.times[0])
    if kind in ("ts", "mkv"):
        np.testing.assert_allclose(times, np.array(begins) * 1001 / 60_000, atol=0.0017)
        return
    # These have a constant rate, so every fourth frame is shown twice.
    assert len(times) == 30
    lumas = [luma.astype(int) for luma in look(tmp_path / "a.ts").lumas]
    for number, luma in enumerate(after.lumas):
        found = int(np.argmin([np.abs(luma - other).mean() for other in lumas]))
        assert abs(begins[found] / 2 - number) <= 1.5


def displayed(path: Path) -> np.ndarray:
    """Return the luma of the first frame as a player shows it, by the display matrix of the file."""
    first = look(path).first
    luma = pixel_format.luma_of(first).astype(int)
    if (data := first.side_data.get("DISPLAYMATRIX")) is None:
        return luma
    a, b, _, c, d, *_ = np.sign(np.frombuffer(bytes(data), np.int32))
    shown = luma if a else luma.T  # from stored to shown: x' = a x + c y, y' = b x + d y
    return shown[:: int(d or b), :: int(a or c)]


@pytest.mark.parametrize(
    ("kind", "rotation", "mirrored"),
    [
        *(("mp4", 0, True), ("mkv", 90, True), ("mkv", 180, True), ("webm", 0, True), ("3gp", 90, False)),
        *(("ts", 0, True), ("ts", 90, True), ("ts", 90, False), ("ts", 180, True), ("avi", 270, True)),
        *(("y4m", 90, False), ("mpg", 90, True), ("flv", 0, True), ("wmv", 90, False)),
    ],
)
def test_turned_and_mirrored_videos_are_displayed_as_before(models, tmp_path, kind, rotation, mirrored):
    recipe = Recipe(frames=12, rotation=rotation, mirrored=mirrored, time_base=Fraction(1, 12800))
    source = make(tmp_path / "a.mp4", recipe)
    before = displayed(source)
    height, width = before.shape
    for flipped in (before[::-1], before[:, ::-1], before[::-1, ::-1]):
        assert np.abs(flipped - before).mean() > 12
    result = colorize(source, tmp_path / f"b.{kind}", models.tinted)
    assert result.exit_code == 0, result.output
    after = look(tmp_path / f"b.{kind}")
    assert len(after.times) == 12
    assert np.abs(displayed(tmp_path / f"b.{kind}") - before).mean() < 4
    (still,) = stills(tmp_path / f"b.{kind}", [0], 640)
    assert still.size == (width, height)
    gray = np.asarray(still.convert("L"), int)
    assert np.corrcoef(gray.ravel(), before.ravel())[0, 1] > 0.95
    assert after.chroma > 3


@pytest.mark.parametrize("kind", ["avi", "mkv"])
def test_tag_that_is_not_utf8_is_kept_byte_by_byte(models, tmp_path, kind):
    source = make(tmp_path / "a.avi", Recipe(frames=3, codec="mpeg4", time_base=Fraction(1, 25), options={}))
    source.write_bytes(source.read_bytes().replace(b"a test", b"a t\xe9st"))
    result = colorize(source, tmp_path / f"b.{kind}", models.tinted)
    assert result.exit_code == 0, result.output
    with av.open(str(tmp_path / f"b.{kind}"), metadata_encoding="latin-1") as container:
        assert container.metadata["title"] == "a t\u00e9st"


def test_video_damaged_in_the_middle_keeps_the_rest_in_time(models, tmp_path):
    source = make(
        tmp_path / "a.mkv", Recipe(frames=60, options={"crf": "10", "g": "10", "bf": "0"}, sounds=1)
    )
    before = look(source)
    content = bytearray(source.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = bytes(400)
    source.write_bytes(content)
    for _ in range(2):  # each run tries it again and fails again
        result = colorize(source, tmp_path / "out", models.tinted)
        assert result.exit_code == 1
        assert "damaged; the output contains only what could be decoded" in result.stderr
    after = look(tmp_path / "out" / "a.mkv")
    assert set(after.times) <= set(before.times)
    assert len(after.times) >= 40
    assert after.times[-1] == before.times[-1]


def test_video_in_color_is_skipped_copied_or_recolored(models, tmp_path):
    source = make(tmp_path / "a.mkv", Recipe(is_color=True))
    result = colorize(source, tmp_path / "skip", models.tinted)
    assert "already in color" in result.stderr
    assert not (tmp_path / "skip" / "a.mkv").exists()
    assert colorize(source, tmp_path / "copy", models.tinted, "--if-colored", "copy").exit_code == 0
    assert (tmp_path / "copy" / "a.mkv").read_bytes() == source.read_bytes()
    assert colorize(source, tmp_path / "again", models.gray, "--if-colored", "recolor").exit_code == 0
    assert look(tmp_path / "again" / "a.mkv").chroma < 1


def test_folder_of_pictures_and_videos_is_done_once(models, make_folder, tmp_path):
    folder = make_folder(tmp_path / "in", 4)
    make(folder / "a.mp4", Recipe())
    assert "5 done" in colorize(folder, tmp_path / "out", models.tinted).stderr
    assert "5 up to date" in colorize(folder, tmp_path / "out", models.tinted).stderr
    again = colorize(folder, tmp_path / "out", models.tinted, "--steady", "0")
    assert "1 done, 4 skipped" in again.stderr


def test_source_is_opened_four_times(models, tmp_path):
    """For the check, for its fingerprint, for its frames, and for its other streams."""
    source = make(tmp_path / "a.mp4", Recipe(sounds=1, time_base=Fraction(1, 12800)))
    code = (
        "import sys, av\n"
        "from colorize_cli import cli\n"
        "opens, open_ = [], av.open\n"
        "def audit(event, args):\n"
        "    if event == 'open' and str(args[0]) == sys.argv[1]: opens.append('python')\n"
        "def count(file, *args, **how):\n"
        "    if file == sys.argv[1]: opens.append('av')\n"
        "    return open_(file, *args, **how)\n"
        "sys.addaudithook(audit)\n"
        "av.open = count\n"
        "try: cli.main()\n"
        "finally: print(sorted(opens))"
    )
    line = [sys.executable, "-c", code, source, tmp_path / "b.mp4", "--model", models.tinted, "-q"]
    done = subprocess.run(list(map(str, line)), stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.strip() == "['av', 'av', 'av', 'python']"


def test_local_run_continues_the_chunks_of_a_cluster(models, tmp_path):
    source = make(tmp_path / "a.mkv", chunked_videos.VIDEO)
    settings = dataclasses.replace(chunked_videos.LOSSLESS, model=models.tinted, device="cpu")
    for name, begun in (("whole", False), ("chunks", True)):
        plan = discovery.plan([source], tmp_path / name / "a.mkv", formats.endings())
        if begun:
            session = Session(plan.root, settings, Guidance())
            split = session.split_video(plan.jobs[0], 4)
            assert len(split.chunks) == 4
            assert session.colorize_chunk(split.chunks[2]).status is Status.DONE
            split.close()
            session.close()
        seen: list[Position] = []
        (outcome,) = ENGINES["local"](plan, settings, print, seen.append)
        assert (outcome.status, outcome.frames, outcome.cuts) == (Status.DONE, 100, len(chunked_videos.SHOTS))
        assert {position.path for position in seen} == {source}
        if begun:
            assert len(seen) == 100 - split.chunks[2].frames
            assert seen[-1].frames == seen[-1].expected == 100
        assert not [path for path in (tmp_path / name / ".colorize").iterdir() if path.is_dir()]
    chunked_videos.assert_same(tmp_path / "whole" / "a.mkv", tmp_path / "chunks" / "a.mkv")


def test_every_option_values_give_similar_colors(models, tmp_path):
    source = make(tmp_path / "a.mkv", Recipe(frames=60, codec="ffv1", options={}, cut=31))
    videos = {}
    for every in ("1", "3", "auto"):
        output = tmp_path / f"{every}.mkv"
        result = colorize(source, output, models.tinted, "--every", every, "--codec", "ffv1")
        assert result.exit_code == 0, result.output
        videos[every] = [np.asarray(still, int) for still in stills(output, [0, 0.3, 0.55, 0.9], 64)]
    for every in ("3", "auto"):
        for one, other in zip(videos["1"], videos[every], strict=True):
            assert np.abs(one - other).mean() < 3
    refused = colorize(source, tmp_path / "b.mkv", models.tinted, "--every", "0")
    assert refused.exit_code == 2
    assert "--every" in refused.stderr


def test_video_with_a_gray_model_stays_gray(models, tmp_path):
    make(tmp_path / "a.mkv", Recipe(codec="ffv1", options={}))
    colorize(tmp_path / "a.mkv", tmp_path / "b.mkv", models.gray, "--codec", "ffv1")
    assert look(tmp_path / "b.mkv").chroma == 0


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--codec", "nonsense"), "there is no encoder 'nonsense' here"),
        (("--codec", "aac"), "'aac' is not an encoder of video but of audio"),
        (("--pixel-format", "rgb24"), "takes no frames of rgb24"),
        (("--codec", "h264_nvenc"), "h264_nvenc"),
        (("--preset", "nonsense"), "libx264 cannot encode it"),
    ],
)
def test_impossible_encoding_is_refused_in_one_line(models, tmp_path, options, reason):
    make(tmp_path / "a.mkv", Recipe())
    result = colorize(tmp_path / "a.mkv", tmp_path / "b.mkv", models.tinted, *options, "--quiet")
    assert result.exit_code in (1, 2)
    assert reason in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "b.mkv").exists()


def test_pixel_format_of_fewer_bits_is_refused(models, tmp_path):
    make(tmp_path / "a.mkv", Recipe(pixel_format="yuv420p10le"))
    result = colorize(tmp_path / "a.mkv", tmp_path / "b.mkv", models.tinted, "--pixel-format", "yuv420p")
    assert result.exit_code == 1
    assert "yuv420p would change the 10 bits of the video's luma" in result.stderr


def test_video_to_picture_and_picture_to_video_are_refused(models, make_folder, tmp_path):
    make(tmp_path / "a.mp4", Recipe())
    result = colorize(tmp_path / "a.mp4", tmp_path / "a.png", models.tinted)
    assert result.exit_code == 1
    assert "the output of a video must be a video, not .png; choose another suffix" in result.stderr
    folder = make_folder(tmp_path / "in", 1)
    result = colorize(folder / "0000.png", tmp_path / "b.mp4", models.tinted)
    assert result.exit_code == 1
    assert "the output of a picture must be a picture, not .mp4; choose another suffix" in result.stderr


def test_report_shows_a_frame_of_a_video(models, tmp_path):
    source = make(tmp_path / "a.mkv", Recipe(aspect=Fraction(2), rotation=0))
    colorize(source, tmp_path / "b.mkv", models.tinted, "--report", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/jpeg") == 2
    assert 'width="128" height="48"' in page
    assert "<th>crf</th>" in page


def test_stills_are_rotated_and_in_color(models, tmp_path):
    source = make(tmp_path / "a.mp4", Recipe(rotation=90, frames=50))
    colorize(source, tmp_path / "b.mp4", models.tinted)
    before, after = (list(stills(tmp_path / name, [0, 0.5, 0.9], 40)) for name in ("a.mp4", "b.mp4"))
    for old, new in zip(before, after, strict=True):
        assert old.size == new.size == (30, 40)
        assert np.asarray(old).std(axis=2).max() < 1
        assert np.asarray(new).std(axis=2).mean() > 5
    assert np.abs(np.asarray(before[0], int) - np.asarray(before[1], int)).mean() > 5


def piped(content: bytes, *arguments: object) -> bytes:
    line = [sys.executable, "-m", "colorize_cli", *map(str, arguments), "--device", "cpu", "-q"]
    return subprocess.run(line, input=content, stdout=subprocess.PIPE, check=True).stdout


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p", "yuv422p10le"])
def test_y4m_through_pipes_keeps_luma_bit_for_bit(models, tmp_path, pixel_format):
    recipe = Recipe(
        codec="rawvideo",
        pixel_format=pixel_format,
        time_base=Fraction(1, 25),
        options={},
        muxing={"strict": "-1"},
        full=pixel_format == "yuv420p",
    )
    source = make(tmp_path / "a.y4m", recipe)
    (tmp_path / "b.y4m").write_bytes(piped(source.read_bytes(), "-", "-", "--model", models.tinted))
    result = colorize(source, tmp_path / "c.y4m", models.tinted)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "b.y4m").read_bytes() == (tmp_path / "c.y4m").read_bytes()
    before, after = look(source), look(tmp_path / "b.y4m")
    assert after.times == before.times
    assert after.chroma > 3
    for old, new in zip(before.lumas, after.lumas, strict=True):
        np.testing.assert_array_equal(new, old)


def test_matroska_through_pipes_keeps_all_streams(models, tmp_path):
    source = make(tmp_path / "a.mkv", Recipe(frames=60, sounds=2, subtitles=True, cut=30))
    (tmp_path / "b.mkv").write_bytes(piped(source.read_bytes(), "-", "-", "--model", models.tinted))
    piped(source.read_bytes(), "-", tmp_path / "c.mkv", "--model", models.tinted)
    (tmp_path / "d.mkv").write_bytes(piped(b"", source, "-", "--model", models.tinted))
    before = look(source)
    for name in ("b.mkv", "c.mkv", "d.mkv"):
        after = look(tmp_path / name)
        assert after.times == before.times
        assert [kind for kind, _ in after.others.values()] == [kind for kind, _ in before.others.values()]
        for (_, old), (_, new) in zip(before.others.values(), after.others.values(), strict=True):
            assert new == old
        assert after.chroma > 3


def test_film_from_standard_input_becomes_an_mp4_or_mov(models, tmp_path):
    source = make(tmp_path / "a.mkv", Recipe(frames=3))
    for name in ("b.mp4", "b.mov"):
        piped(source.read_bytes(), "-", tmp_path / name, "--model", models.tinted)
        assert look(tmp_path / name).times == look(source).times


def test_film_that_cannot_be_written_fails_with_the_name_of_the_output(models, tmp_path):
    source = make(tmp_path / "a.mkv", Recipe(frames=20))
    line = [sys.executable, "-m", "colorize_cli", "a.mkv", "b.mkv", "--codec", "ffv1", "-q"]
    done = subprocess.run(
        [*line, "--model", str(models.tinted), "--device", "cpu"],
        cwd=source.parent,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "a.mkv: cannot write b.mkv: File too large\n")
    assert not (tmp_path / "b.mkv").exists()


@pytest.mark.parametrize("late", [0, 330])
def test_time_range_begins_at_zero(models, tmp_path, late):
    times = tuple(range(late, late + 40 * 120, 40))
    recipe = Recipe(frames=120, times=times, sounds=1, chapters=True, codec="ffv1", options={})
    source = make(tmp_path / "a.mkv", recipe)
    options = ("--start", "2", "--duration", "1", "--codec", "ffv1")
    result = colorize(source, tmp_path / "b.mkv", models.tinted, *options)
    assert result.exit_code == 0, result.output
    before, after = look(source), look(tmp_path / "b.mkv")
    assert after.times == [Fraction(n, 25) for n in range(25)]
    for old, new in zip(before.lumas[50:75], after.lumas, strict=True):
        np.testing.assert_array_equal(new, old)
    ((_, old),) = before.others.values()
    ((_, new),) = after.others.values()
    begin = Fraction(late, 1000) + 2
    wanted = [(when - begin, content) for when, content in old if begin <= when < begin + 1]
    assert [content for _, content in new] == [content for _, content in wanted]
    assert all(abs(a - b) <= Fraction(1, 1000) for (a, _), (b, _) in zip(new, wanted, strict=True))


def test_time_range_beyond_the_end_is_refused(models, tmp_path):
    make(tmp_path / "a.mkv", Recipe())
    for output in (tmp_path / "b.mkv", tmp_path / "b.y4m"):
        result = colorize(tmp_path / "a.mkv", output, models.tinted, "--start", "100")
        assert result.exit_code == 1
        assert "it ends before 100 seconds" in result.stderr
        assert not output.exists()


@pytest.mark.parametrize("kind", ["mkv", "y4m"])
def test_time_range_through_pipes_equals_that_of_the_file(models, tmp_path, kind):
    recipe = Recipe(frames=120, sounds=1, codec="ffv1", options={})
    if kind == "y4m":
        recipe = Recipe(
            frames=120, codec="rawvideo", time_base=Fraction(1, 25), options={}, muxing={"strict": "-1"}
        )
    source = make(tmp_path / f"a.{kind}", recipe)
    before = look(source)
    options = ("--start", "2", "--duration", "1", "--model", models.tinted)
    options += ("--codec", "ffv1") if kind == "mkv" else ()
    (tmp_path / f"b.{kind}").write_bytes(piped(source.read_bytes(), "-", "-", *options))
    (tmp_path / f"c.{kind}").write_bytes(piped(b"", source, "-", *options))
    for name in (f"b.{kind}", f"c.{kind}"):
        after = look(tmp_path / name)
        assert after.times == [Fraction(n, 25) for n in range(25)]
        for old, new in zip(before.lumas[50:75], after.lumas, strict=True):
            np.testing.assert_array_equal(new, old)
        for (_, old), (_, new) in zip(before.others.values(), after.others.values(), strict=True):
            wanted = [(when - 2, content) for when, content in old if 2 <= when < 3]
            assert [content for _, content in new] == [content for _, content in wanted]
            assert all(abs(a - b) <= Fraction(1, 1000) for (a, _), (b, _) in zip(new, wanted, strict=True))


def test_video_metadata_through_pipes_is_kept(models, tmp_path):
    source = make(tmp_path / "a.mkv", Recipe(rotation=90, chapters=True, sounds=1, aspect=Fraction(16, 11)))
    (tmp_path / "b.mkv").write_bytes(piped(source.read_bytes(), "-", "-", "--model", models.tinted))
    before, after = look(source), look(tmp_path / "b.mkv")
    assert after.metadata["title"] == before.metadata["title"] == "a test"
    assert [c["metadata"] for c in after.chapters] == [c["metadata"] for c in before.chapters]
    assert len(after.chapters) == 1
    assert after.first.rotation == before.first.rotation == 90
    assert after.aspect == before.aspect


def test_preview_shows_frames_before_and_after(models, tmp_path):
    source = make(tmp_path / "a.mp4", Recipe(frames=100, cut=50, width=96))
    result = colorize(source, tmp_path / "sheet.png", models.tinted, "--preview", "4", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["frames"] == 4
    sheet = Image.open(tmp_path / "sheet.png")
    assert sheet.size == (2 * 104 + 8, 2 * (2 * 48 + 26) + 8)
    pixels = np.asarray(sheet.convert("RGB")).astype(int)
    for row in range(2):
        for column in range(2):
            cell = pixels[8 + 18 + row * 122 :, 8 + column * 104 :][:96, :96]
            before, after = cell[:48], cell[48:]
            assert np.ptp(before, axis=2).max() <= 2
            assert np.ptp(after, axis=2).mean() > 5
    first, last = pixels[26:74, 8:104, 0], pixels[148:196, 112:208, 0]
    assert np.abs(first - last).mean() > 10  # they come from both sides of the cut


def test_preview_of_open_groups_shows_all_frames(models, tmp_path):
    """Most of its key frames are followed by frames that cannot be decoded."""
    options = {"crf": "10", "g": "12", "x264-params": "open-gop=1:bframes=3:b-adapt=0"}
    source = make(tmp_path / "a.mp4", Recipe(frames=100, options=options, time_base=Fraction(1, 600)))
    result = colorize(source, tmp_path / "sheet.png", models.tinted, "--preview", "12", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["frames"] == 12
    wanted = [np.asarray(image) for image in stills(source, [0.1, 0.5, 0.9], 64)]
    for position, image in zip((10, 50, 90), wanted, strict=True):
        own = look(source).lumas[position].astype(int)
        assert (
            np.abs(np.asarray(Image.fromarray(image).convert("L"), int) - (own - 16) * 255 / 219).mean() < 3
        )


def test_preview_of_a_time_range_goes_through_a_pipe(models, tmp_path):
    source = make(tmp_path / "a.mp4", Recipe(frames=100, cut=50, rotation=90))
    options = ("--preview", "2", "--start", "2.5", "--model", models.tinted)
    sheet = Image.open(io.BytesIO(piped(b"", source, "-", *options))).convert("L")
    assert sheet.size == (2 * 48 + 8 + 8, 2 * (64 + 26) + 8)  # rotated, so before and after are side by side
    whole = Image.open(io.BytesIO(piped(b"", source, "-", *options[:2], "--model", models.tinted)))
    cell = (8, 26, 56, 90)
    late, early = (np.asarray(image.convert("L").crop(cell), int) for image in (sheet, whole))
    assert np.abs(late - early).mean() > 10


def test_preview_of_a_folder_is_made_once_beside_pictures(models, make_folder, tmp_path):
    folder = make_folder(tmp_path / "in", 2)
    make(folder / "0000.mp4", Recipe())
    make(folder / "b.mkv", Recipe(is_color=True))
    options = ("--preview", "3")
    assert (
        "3 done, 1 skipped (1 already in color)"
        in colorize(folder, tmp_path / "out", models.tinted, *options).stderr
    )
    assert sorted(p.name for p in (tmp_path / "out").glob("*.png")) == ["0000.mp4.png", "0000.png"]
    assert "3 up to date" in colorize(folder, tmp_path / "out", models.tinted, *options).stderr
    assert "1 done" in colorize(folder, tmp_path / "out", models.tinted, "--preview", "4").stderr


@pytest.mark.parametrize(
    ("output", "options", "reason"),
    [
        ("b.jpg", (), "a preview must be written as PNG, not .jpg; give the output the suffix .png"),
        ("b.png", ("--start", "100"), "it ends before 100 seconds"),
    ],
)
def test_impossible_preview_is_refused_in_one_line(models, tmp_path, output, options, reason):
    make(tmp_path / "a.mkv", Recipe())
    result = colorize(
        tmp_path / "a.mkv", tmp_path / output, models.tinted, "--preview", "2", "--quiet", *options
    )
    assert result.exit_code == 1
    assert reason in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / output).exists()
