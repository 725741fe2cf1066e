"""What each container keeps, converts, leaves out and refuses; judged with PyAV alone."""

import dataclasses
import io
import itertools
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from colorize_cli.core.errors import WriteError
from colorize_cli.storage.filesystem import SourceFingerprint
from colorize_cli.video import aspect, muxer, reader, work_dir
from colorize_cli.video.encoder import CONTAINERS, Encoder
from colorize_cli.video.stages import VideoStages
from tests.helpers.cli import invoke
from tests.helpers.film_files import (
    CHAPTERS,
    cover_art,
    frames_of,
    luma_of,
    make_film,
    packets_of,
    streams_of,
    text_of,
)

GUIDE = Path(__file__).parents[3] / "colorize_cli" / "README.md"
HEADINGS = ("container", "encoders", "PCM sound", "text subtitles", "chapters", "time code", "cover art")


def colorize(source: Path, output: Path, models, *options: str):
    return invoke(source, output, "--model", models.tinted, "--device", "cpu", *options)


def colorized(source: Path, output: Path, models, *options: str) -> list[str]:
    """Colorize a film, and return the notes about it."""
    result = colorize(source, output, models, *options)
    assert result.exit_code == 0, result.output
    return [line.split(": ", 1)[1] for line in result.stderr.splitlines() if line.startswith(f"{source}: ")]


def refused(source: Path, output: Path, models, *options: str) -> str:
    """Return the reason why a film is refused. Nothing may have been colored before."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VideoStages, "ordered", lambda *_: pytest.fail("frames were colored"))
        patch.setattr(SourceFingerprint, "of", lambda _: pytest.fail("the whole source was read"))
        result = colorize(source, output, models, *options, "--quiet")
    assert result.exit_code == 1, result.output
    assert not output.exists()
    (line,) = result.stderr.splitlines()
    return line.split(": ", 1)[1]


def table() -> dict[str, dict[str, str]]:
    """Return the rows of the guide's table of containers, by file name suffix."""
    found = {}
    for line in GUIDE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == len(HEADINGS) and re.match(r"`\.", cells[0]):
            row = dict(zip(HEADINGS, cells, strict=True))
            found.update(dict.fromkeys(re.findall(r"`(\.\w+)`", row.pop("container")), row))
    return found


def test_table_of_containers_has_all_of_them():
    assert set(table()) == set(CONTAINERS)
    assert f"| {' | '.join(HEADINGS)} |" in GUIDE.read_text()


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_row_of_the_table_of_containers_is_true(models, tmp_path, suffix):
    row, timecode = table()[suffix], {"timecode": "01:00:00:00"}
    with_sound = make_film(tmp_path / "sound.mkv", sound="pcm_s16le", frames=3)
    with_text = make_film(tmp_path / "text.mkv", text="subrip", frames=3)
    rest = make_film(tmp_path / "rest.mkv", cover=True, chapters=True, stream_tags=timecode, frames=3)
    output = tmp_path / f"output{suffix}"
    if row["PCM sound"] == "refused":
        assert refused(with_sound, output, models).startswith(
            f"{suffix} cannot hold its audio stream 1 (pcm_s16le)"
        )
    else:
        assert row["PCM sound"] == "kept"
        colorized(with_sound, output, models)
        assert ("audio", "pcm_s16le") in streams_of(output)
        output.unlink()
    if row["text subtitles"] == "refused":
        reason = refused(with_text, output, models)
        assert (
            reason == f"{suffix} cannot hold its subtitle stream 1 (subrip); give the output the suffix .mkv"
        )
    else:
        colorized(with_text, output, models)
        codec = {"kept": "subrip"}.get(row["text subtitles"], row["text subtitles"].strip("`"))
        assert ("subtitle", codec) in streams_of(output)
        output.unlink()
    notes = colorized(rest, output, models)
    with av.open(str(output)) as container:
        video = next(s for s in container.streams.video if s.codec_context.codec.canonical_name != "png")
        assert av.codec.Codec(row["encoders"].split(",")[0].strip("` "), "w").canonical_name == (
            video.codec_context.codec.canonical_name
        )
        tags = {key.lower(): value for key, value in video.metadata.items()}
        present = {
            "chapters": [c["metadata"]["title"] for c in container.chapters()] == ["one", "two"],
            "time code": tags.get("timecode") == "01:00:00:00",
            "cover art": any(s.disposition & av.stream.Disposition.attached_pic for s in container.streams),
        }
    names = {"chapters": "list of chapters"}
    for what, found in present.items():
        assert found == (row[what] == "kept")
        note = f"its {names.get(what, what)} is left out, because {suffix} cannot hold it"
        assert (note in notes) == (row[what] == "left out")


@pytest.mark.parametrize(
    ("name", "codec", "output"),
    [
        ("a.mp4", "mov_text", "a.mkv"),
        ("a.mkv", "subrip", "a.mp4"),
        ("a.mkv", "ass", "a.mov"),
        ("a.mkv", "ass", "a.webm"),
        ("a.mp4", "mov_text", "a.webm"),
    ],
)
def test_text_subtitles_are_converted_with_their_times(models, tmp_path, name, codec, output):
    source = make_film(tmp_path / name, text=codec)
    (note,) = colorized(source, tmp_path / "out" / output, models)
    assert note.startswith(f"its subtitle stream 1 ({codec}) is converted to ")
    assert text_of(tmp_path / "out" / output) == text_of(source) == [(0.1, "Hello"), (0.25, "there")]


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_chapter_track_becomes_chapters(models, tmp_path, suffix):
    source = make_film(tmp_path / f"a{suffix}", sound="aac", chapters=True)
    assert ("data", "bin_data") in streams_of(source)
    assert colorized(source, tmp_path / "out", models) == []
    with av.open(str(tmp_path / "out" / f"a{suffix}")) as container:
        found = [(c["metadata"]["title"], c["start"] * c["time_base"]) for c in container.chapters()]
    assert found == [(c["metadata"]["title"], c["start"] * c["time_base"]) for c in CHAPTERS]
    assert streams_of(tmp_path / "out" / f"a{suffix}") == [
        ("video", "h264"),
        ("audio", "aac"),
        ("data", "bin_data"),
    ]


@pytest.mark.parametrize(("name", "output"), [("a.mov", "b.mov"), ("a.mp4", "b.mp4"), ("a.mov", "b.mkv")])
def test_time_code_is_kept(models, tmp_path, name, output):
    source = make_film(tmp_path / name, stream_tags={"timecode": "01:00:00:00"})
    assert streams_of(source)[1] == ("data", "None")
    assert colorized(source, tmp_path / output, models) == []
    with av.open(str(tmp_path / output)) as container:
        tags = {key.lower(): value for key, value in container.streams[0].metadata.items()}
        assert len(container.streams) == (1 if output.endswith("mkv") else 2)
    assert tags["timecode"] == "01:00:00:00"


@pytest.mark.parametrize("suffix", [".mov", ".mp4", ".mkv"])
def test_metadata_stream_of_a_phone_is_left_out_and_its_tags_are_kept(models, tmp_path, suffix):
    tags = {"com.apple.quicktime.location.ISO6709": "+48.1+011.5/", "com.apple.quicktime.make": "Apple"}
    source = make_film(
        tmp_path / "a.mov",
        tags=tags,
        stream_tags={"timecode": "01:00:00:00"},
        muxing={"movflags": "use_metadata_tags"},
    )
    source.write_bytes(source.read_bytes().replace(b"tmcd", b"mebx"))
    assert streams_of(source)[1:] == [("data", "None")]
    assert colorized(source, tmp_path / f"b{suffix}", models) == ["its data stream 1 is left out"]
    with av.open(str(tmp_path / f"b{suffix}")) as container:
        assert [s.type for s in container.streams if s.type != "data"] == ["video"]
        found = {key.lower(): value for key, value in container.metadata.items()}
    assert {key: found.get(key.lower()) for key in tags} == tags


@pytest.mark.parametrize(("name", "output"), [("a.mp4", "b.mp4"), ("a.mp4", "b.mkv"), ("a.mkv", "b.mp4")])
def test_cover_art_stays_cover_art(models, tmp_path, name, output):
    source = make_film(tmp_path / name, cover=True, sound="aac")
    assert colorized(source, tmp_path / output, models) == []
    assert streams_of(tmp_path / output) == [("video", "h264"), ("audio", "aac"), ("cover", "png")]
    with av.open(str(tmp_path / output)) as container:
        picture = next(packet for packet in container.demux(container.streams[2]) if packet.size)
        assert bytes(picture) == cover_art()


def test_cover_art_goes_through_pipes(models, tmp_path):
    source = make_film(tmp_path / "a.mkv", cover=True, sound="aac")
    (tmp_path / "b.mkv").write_bytes(piped(source.read_bytes(), models))
    assert streams_of(tmp_path / "b.mkv") == [("video", "h264"), ("audio", "aac"), ("cover", "png")]


def piped(content: bytes, models, *options: str) -> bytes:
    line = [sys.executable, "-m", "colorize_cli", "-", "-", "--model", str(models.tinted), "-q", *options]
    return subprocess.run(line, input=content, stdout=subprocess.PIPE, check=True).stdout


@pytest.mark.parametrize(
    ("output", "options"),
    [
        ("b.mkv", ("--codec", "ffv1")),
        ("b.mkv", ()),
        ("b.avi", ("--codec", "ffv1")),
        ("b.avi", ()),
        ("b.webm", ()),
        ("b.mp4", ()),
        ("b.y4m", ()),
    ],
)
def test_pixel_aspect_is_kept(models, tmp_path, output, options):
    source = make_film(
        tmp_path / "a.mp4", size=(66, 48), aspect=Fraction(16, 11), stream_tags={"title": "reel"}
    )
    colorized(source, tmp_path / output, models, *options)
    with av.open(str(tmp_path / output)) as container:
        stream = container.streams.video[0]
        assert stream.sample_aspect_ratio == Fraction(16, 11)
        assert stream.metadata.get("title", "reel") == "reel"
        assert len(list(container.decode(stream))) == 10


@pytest.mark.parametrize(("name", "options"), [("a.y4m", ()), ("a.mkv", ()), ("a.mkv", ("--codec", "ffv1"))])
def test_pixel_aspect_is_kept_through_pipes(models, tmp_path, name, options):
    codec = "rawvideo" if name.endswith("y4m") else "mpeg4"
    source = make_film(tmp_path / "a.mp4", aspect=Fraction(16, 11), frames=3)
    content = make_film(tmp_path / name, codec=codec, frames=3).read_bytes()
    if name.endswith("y4m"):
        content = content.replace(b" A1:1", b" A16:11", 1).replace(b" A0:0", b" A16:11", 1)
        assert b" A16:11" in content[:100]
    else:
        colorized(source, tmp_path / name, models, "--overwrite", "--codec", "mpeg4")
        content = (tmp_path / name).read_bytes()
        options = (*options, "--if-colored", "recolor")
    with av.open(io.BytesIO(piped(content, models, *options))) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(16, 11)
        assert len(list(container.decode(video=0))) == 3


@pytest.mark.parametrize(("suffix", "codec"), [(".mkv", "mpeg4"), (".y4m", "rawvideo")])
@pytest.mark.parametrize("size", [1, 7, 300, 100_000])
def test_pixel_aspect_is_added_to_a_header_that_comes_in_pieces(tmp_path, suffix, codec, size):
    source = make_film(tmp_path / f"a{suffix}", codec=codec, stream_tags={"title": aspect.ROOM})
    with reader.opened(source) as video:
        info = dataclasses.replace(video.info, aspect=Fraction(16, 11))
    written, content = io.BytesIO(), source.read_bytes()
    output = aspect.PatchedOutput(written, suffix, info)
    for begin in range(0, len(content), size):
        output.write(content[begin : begin + size])
    with av.open(io.BytesIO(written.getvalue())) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(16, 11)
        assert len(list(container.decode(video=0))) == 10


@pytest.mark.parametrize("output", ["b.mkv", "b.avi", "b.mov"])
@pytest.mark.parametrize(("fields", "order"), [("tff", 2), ("bff", 3)])
def test_interlaced_gray_film_stays_interlaced(models, tmp_path, output, fields, order):
    source = make_film(tmp_path / "a.mkv", codec="ffv1", pixel_format="gray", fields=fields)
    options = () if output == "b.mov" else ("--codec", "ffv1")
    colorized(source, tmp_path / output, models, *options)
    assert all(frame.interlaced_frame for frame in frames_of(tmp_path / output))
    if output != "b.avi":  # it has no order of fields but that of the frames
        with av.open(str(tmp_path / output)) as container:
            assert container.streams.video[0].codec_context.field_order == order


def test_ntsc_dv_stays_interlaced_with_the_bottom_field_first(models, tmp_path):
    source = make_film(
        tmp_path / "a.avi",
        codec="dvvideo",
        pixel_format="yuv411p",
        size=(720, 480),
        frames=2,
        rate=Fraction(30000, 1001),
    )
    colorized(source, tmp_path / "b.mkv", models, "--codec", "ffv1")
    with av.open(str(tmp_path / "b.mkv")) as container:
        assert container.streams.video[0].codec_context.field_order == 3
        assert all(frame.interlaced_frame for frame in container.decode(video=0))


@pytest.mark.parametrize(("output", "codec"), [("b.webm", "libvpx-vp9"), ("b.ts", "libx265")])
def test_interlacing_that_the_output_cannot_say_is_reported(models, tmp_path, output, codec):
    source = make_film(tmp_path / "a.mkv", codec="ffv1", pixel_format="gray", fields="tff", frames=3)
    notes = colorized(source, tmp_path / output, models, "--codec", codec)
    suffix = Path(output).suffix
    assert f"it is interlaced, which {suffix} with {codec} does not say" in notes
    with av.open(str(tmp_path / output)) as container:
        assert container.streams.video[0].codec_context.field_order <= 1
        assert not any(frame.interlaced_frame for frame in container.decode(video=0))


def test_pixel_aspect_that_the_output_cannot_hold_is_reported(models, tmp_path):
    source = make_film(tmp_path / "a.mkv", aspect=Fraction(16, 11), frames=3)
    notes = colorized(source, tmp_path / "b.mpg", models)
    with av.open(str(tmp_path / "b.mpg")) as container:
        written = container.streams.video[0].sample_aspect_ratio
    assert notes == [f"its pixel aspect of 16:11 is stored as {written.numerator}:{written.denominator}"]


@pytest.mark.parametrize(
    ("code", "seconds", "rate", "later"),
    [
        ("01:00:00:00", Fraction(2, 5), Fraction(25), "01:00:00:10"),
        ("01:00:00:00", Fraction(2023, 1000), Fraction(25), "01:00:02:01"),
        ("00:00:59;29", Fraction(1001, 30000), Fraction(30000, 1001), "00:01:00;02"),
        ("00:09:59;29", Fraction(1001, 30000), Fraction(30000, 1001), "00:10:00;00"),
        ("00:00:00;00", Fraction(17982 * 1001, 30000), Fraction(30000, 1001), "00:10:00;00"),
        ("23:59:59:24", Fraction(1, 25), Fraction(25), "00:00:00:00"),
        ("none", Fraction(1), Fraction(25), "none"),
    ],
)
def test_later_counts_frames_in_time_codes(code, seconds, rate, later):
    assert muxer.later(code, seconds, rate) == later


@pytest.mark.parametrize("name", ["a.mov", "a.mkv"])
def test_time_code_of_a_part_is_that_of_its_first_frame(models, tmp_path, name):
    source = make_film(tmp_path / name, codec="libx264", stream_tags={"timecode": "01:00:00:00"})
    colorized(source, tmp_path / "b.mov", models, "--start", "0.2")
    with av.open(str(tmp_path / "b.mov")) as container:
        assert container.streams.video[0].metadata["timecode"] == "01:00:00:05"


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.ts"])
@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001)])
def test_y4m_output_has_the_rate_of_the_film(models, tmp_path, name, rate):
    source = make_film(tmp_path / name, codec="libx264", rate=rate)
    colorized(source, tmp_path / "b.y4m", models)
    assert f" F{rate.numerator}:{rate.denominator} ".encode() in (tmp_path / "b.y4m").read_bytes()[:80]


def test_interlaced_y4m_stays_interlaced_through_pipes(models, tmp_path):
    source = make_film(tmp_path / "a.y4m", codec="rawvideo", fields="tff")
    assert b" It " in source.read_bytes()[:80]
    assert b" It " in piped(source.read_bytes(), models)[:80]


def test_full_range_film_in_avi_stays_full_range(models, tmp_path):
    source = make_film(tmp_path / "a.avi", codec="mjpeg", pixel_format="yuvj420p", full=True)
    (note,) = colorized(source, tmp_path / "b.avi", models)
    assert note == "encoded with mjpeg, because mpeg4 cannot hold frames of yuvj420p of full range"
    for old, new in zip(frames_of(source), frames_of(tmp_path / "b.avi"), strict=True):
        assert new.format.name == "yuvj420p"
        assert np.abs(luma_of(old).astype(int) - luma_of(new)).mean() < 1
    reason = refused(source, tmp_path / "b.mpg", models)
    assert reason.startswith("its luma has full range, which mpeg2video cannot say; choose another codec or")


@pytest.mark.parametrize(
    ("codec", "output", "name", "pixel_format", "notes"),
    [
        ("libsvtav1", "b.mp4", "av1", "yuv420p", []),
        ("libsvtav1", "b.webm", "av1", "yuv420p", []),
        ("prores_ks", "b.mov", "prores", "yuv422p10le", ["its luma of 8 bits is stored with 10 bits"]),
        ("prores_ks", "b.mkv", "prores", "yuv422p10le", ["its luma of 8 bits is stored with 10 bits"]),
        ("dnxhd", "b.mov", "dnxhd", "yuv422p", []),
        ("huffyuv", "b.avi", "huffyuv", "yuv422p", []),
        ("h264", "b.mkv", "h264", "yuv420p", []),
    ],
)
def test_encoder_is_used_with_a_pixel_format_that_it_takes(
    models, tmp_path, codec, output, name, pixel_format, notes
):
    source = make_film(tmp_path / "a.mp4", size=(256, 120), frames=3)
    assert colorized(source, tmp_path / output, models, "--codec", codec) == notes
    assert streams_of(tmp_path / output) == [("video", name)]
    frames = frames_of(tmp_path / output)
    assert {frame.format.name for frame in frames} == {pixel_format}
    scale = 4 if notes else 1
    for old, new in zip(frames_of(source), frames, strict=True):
        assert np.abs(luma_of(old) * float(scale) - luma_of(new)).mean() < 3 * scale


@pytest.mark.parametrize(
    ("codec", "output", "reason"),
    [
        (
            "dnxhd",
            "b.mov",
            "dnxhd cannot encode it: Invalid argument; if your ffmpeg can: colorize --codec ffv1 INPUT -"
            " | ffmpeg -i - -c:v dnxhd OUTPUT",
        ),
        ("prores_ks", "b.mp4", ".mp4 cannot hold video of prores; choose another codec or container"),
        ("ffv1", "b.ts", ".ts cannot hold video of ffv1; choose another codec or container"),
        ("aac", "b.mp4", "'aac' is not an encoder of video but of audio"),
    ],
)
def test_impossible_encoder_is_refused_before_the_first_frame(models, tmp_path, codec, output, reason):
    source = make_film(tmp_path / "a.mp4")  # too small for DNxHR
    assert refused(source, tmp_path / output, models, "--codec", codec) == reason


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format", "output", "found"),
    [
        ("a.mkv", "ffv1", "gray16le", "b.mkv", ("ffv1", "yuv420p16le")),
        ("a.mkv", "ffv1", "gray16le", "b.mov", ("hevc", "yuv420p12le")),
        ("a.mkv", "ffv1", "gray12le", "b.mkv", ("hevc", "yuv420p12le")),
        ("a.mkv", "ffv1", "yuv422p12le", "b.mov", ("hevc", "yuv422p12le")),
        ("a.mkv", "ffv1", "yuv422p10le", "b.avi", ("ffv1", "yuv422p10le")),
        ("a.mkv", "ffv1", "yuv420p10le", "b.webm", ("av1", "yuv420p10le")),
        ("a.avi", "huffyuv", "yuv422p", "b.avi", ("mpeg4", "yuv420p")),
        ("a.mkv", "ffv1", "gbrp10le", "b.mkv", ("h264", "yuv444p10le")),
    ],
)
def test_deep_and_unusual_films_have_a_default_encoder(
    models, tmp_path, name, codec, pixel_format, output, found
):
    source = make_film(tmp_path / name, codec=codec, pixel_format=pixel_format, frames=3)
    colorized(source, tmp_path / output, models)
    frames = frames_of(tmp_path / output)
    assert (streams_of(tmp_path / output)[0][1], frames[0].format.name) == found
    bits = [f.format.components[0].bits for f in (frames_of(source)[0], frames[0])]
    for old, new in zip(frames_of(source), frames, strict=True):
        wanted = luma_of(old) * 2.0 ** (bits[1] - bits[0])
        assert np.abs(wanted - luma_of(new)).mean() < 3 * 2 ** (bits[1] - 8)


def test_requested_pixel_format_decides_the_default_encoder(models, tmp_path):
    source = make_film(tmp_path / "a.mkv", frames=3)
    colorized(source, tmp_path / "b.mkv", models, "--pixel-format", "yuv420p12le")
    assert streams_of(tmp_path / "b.mkv") == [("video", "hevc")]
    assert frames_of(tmp_path / "b.mkv")[0].format.name == "yuv420p12le"


@pytest.mark.parametrize("pixel_format", ["gray16le", "yuv422p12le", "gbrp10le"])
def test_deep_film_keeps_its_luma_in_ffv1(models, tmp_path, pixel_format):
    source = make_film(tmp_path / "a.mkv", codec="ffv1", pixel_format=pixel_format)
    colorized(source, tmp_path / "b.mkv", models, "--codec", "ffv1")
    for old, new in zip(frames_of(source), frames_of(tmp_path / "b.mkv"), strict=True):
        np.testing.assert_array_equal(luma_of(new), luma_of(old))
        assert np.abs(luma_of(new, 1).astype(int) - 2 ** (new.format.components[0].bits - 1)).mean() > 1


@pytest.mark.parametrize("suffix", [".mts", ".m2ts"])
def test_bluray_stream_keeps_its_packets_and_pcm_sound(models, tmp_path, suffix):
    source = make_film(
        tmp_path / f"a{suffix}", codec="libx264", sound="pcm_bluray", muxing={"mpegts_m2ts_mode": "1"}
    )
    colorized(source, tmp_path / f"b{suffix}", models)
    content = (tmp_path / f"b{suffix}").read_bytes()
    assert len(content) % 192 == 0
    assert set(content[4::192]) == {0x47}
    assert streams_of(tmp_path / f"b{suffix}") == [("video", "h264"), ("audio", "pcm_bluray")]
    old, new = packets_of(source, "audio"), packets_of(tmp_path / f"b{suffix}", "audio")
    assert [data for _, data in new] == [data for _, data in old]
    reason = refused(source, tmp_path / "b.ts", models)
    assert reason == ".ts cannot hold its audio stream 1 (pcm_bluray); give the output the suffix .m2ts"


@pytest.mark.parametrize("sound", ["aac", "ac3", "mp2", "libmp3lame", "libopus"])
@pytest.mark.parametrize("suffix", [".ts", ".m2ts"])
def test_sound_of_a_transport_stream_can_be_read(models, tmp_path, suffix, sound):
    source = make_film(tmp_path / "a.mkv", sound=sound)
    output = tmp_path / f"b{suffix}"
    colorized(source, output, models)
    assert streams_of(output)[1] == streams_of(source)[1]
    assert [data for _, data in packets_of(output, "audio")]


def test_film_without_its_sound_fits_where_the_sound_does_not(models, tmp_path):
    source = make_film(tmp_path / "a.mkv", sound="pcm_s16le", frames=3)
    assert colorized(source, tmp_path / "b.ts", models, "--no-audio") == []
    assert streams_of(tmp_path / "b.ts") == [("video", "h264")]


def test_adpcm_sound_in_avi_is_copied(models, tmp_path):
    source = make_film(tmp_path / "a.avi", sound="adpcm_ima_wav")
    colorized(source, tmp_path / "b.avi", models)
    assert streams_of(tmp_path / "b.avi")[1] == ("audio", "adpcm_ima_wav")
    old, new = packets_of(source, "audio"), packets_of(tmp_path / "b.avi", "audio")
    assert b"".join(data for _, data in new) == b"".join(data for _, data in old) != b""


@pytest.mark.parametrize("suffix", [".mp4", ".ts"])
def test_sound_with_repeated_times_is_copied(models, tmp_path, suffix):
    whole = make_film(tmp_path / "whole.mkv", sound="ac3")
    source = tmp_path / "a.mkv"
    with av.open(str(whole)) as original, av.open(str(source), "w") as out:
        targets = [out.add_stream_from_template(stream, opaque=True) for stream in original.streams]
        for packet in original.demux():
            if packet.size:
                packet.stream = targets[packet.stream.index]
                if packet.stream.type == "audio":
                    packet.pts = packet.dts = packet.pts // 64 * 64
                out.mux_one(packet)
    times = [time for time, _ in packets_of(source, "audio")]
    assert len(set(times)) < len(times)
    colorized(source, tmp_path / f"b{suffix}", models)
    old, new = packets_of(source, "audio"), packets_of(tmp_path / f"b{suffix}", "audio")
    assert [data for _, data in new] == [data for _, data in old]
    assert all(a < b for (a, _), (b, _) in itertools.pairwise(new))


@pytest.mark.parametrize(("name", "output"), [("a.mkv", "b.mp4"), ("a.mkv", "b.avi"), ("a.ts", "b.ts")])
def test_sound_without_packets_does_not_matter(models, tmp_path, name, output):
    source = tmp_path / name
    with_sound = make_film(tmp_path / "with.mkv", codec="libx264", sound="aac")
    with av.open(str(with_sound)) as original, av.open(str(source), "w") as out:
        targets = [out.add_stream_from_template(stream, opaque=True) for stream in original.streams]
        for packet in original.demux(video=0):
            if packet.size:
                packet.stream = targets[0]
                out.mux_one(packet)
    assert len(streams_of(source)) == 2
    colorized(source, tmp_path / output, models)
    assert len(frames_of(tmp_path / output)) == 10


def test_statistics_and_encoder_of_the_source_are_dropped(models, tmp_path):
    stale = {
        "BPS": "1",
        "BPS-eng": "1",
        "NUMBER_OF_FRAMES": "9",
        "NUMBER_OF_BYTES-eng": "9",
        "_STATISTICS_TAGS": "BPS",
        "_STATISTICS_WRITING_APP": "mkvmerge",
        "ENCODER": "Lavc1 libx264",
    }
    source = make_film(tmp_path / "a.mkv", stream_tags=stale | {"title": "reel", "camera": "left"})
    colorized(source, tmp_path / "b.mkv", models)
    with av.open(str(tmp_path / "b.mkv")) as container:
        tags = container.streams.video[0].metadata
    assert tags.keys() - {"DURATION"} == {"title", "CAMERA"}


def test_film_of_constant_rate_in_avi_has_that_rate(models, tmp_path):
    source = make_film(tmp_path / "a.mkv", frames=30)
    colorized(source, tmp_path / "b.avi", models)
    with av.open(str(tmp_path / "b.avi")) as container:
        stream = container.streams.video[0]
        assert (stream.time_base, stream.base_rate, stream.frames) == (Fraction(1, 25), 25, 30)


def test_colored_frames_are_used_again_under_another_name(tmp_path):
    def begun(name: str, key: str) -> list[str]:
        with work_dir.claimed(tmp_path / name, key) as folder:
            assert folder is not None
            files = [path.name for path in folder.path.iterdir() if not path.name.startswith(".")]
            (folder.path / f"{name}.nut").touch()
        return files

    assert begun("a.mp4", "key") == []
    assert begun("a.mkv", "another key") == []
    assert begun("a.mov", "key") == ["a.mp4.nut"]
    with work_dir.claimed(tmp_path / "a.mov", "key"):  # a run works on it
        assert begun("b.mov", "key") == []


def test_film_that_failed_at_its_end_is_not_colored_again_under_another_name(models, tmp_path, monkeypatch):
    source = make_film(tmp_path / "a.mkv", frames=30)
    join, encoded = muxer.join, []
    add = Encoder.add
    monkeypatch.setattr(Encoder, "add", lambda self, frame: (encoded.append(frame.pts), add(self, frame))[1])

    def fail(*_) -> None:
        raise WriteError("no space left")

    monkeypatch.setattr(muxer, "join", fail)
    assert colorize(source, tmp_path / "b.mkv", models).exit_code == 1
    assert len(encoded) == 31  # with the frame of the check
    monkeypatch.setattr(muxer, "join", join)
    colorized(source, tmp_path / "b.mp4", models)
    assert len(encoded) == 32
    assert len(frames_of(tmp_path / "b.mp4")) == 30
    colorized(source, tmp_path / "b.webm", models)  # with another encoder
    assert len(encoded) == 32 + 31


def test_klv_stream_is_kept_in_a_transport_stream_and_left_out_elsewhere(models, tmp_path):
    plain = make_film(tmp_path / "plain.mkv", codec="libx264")
    source = tmp_path / "a.ts"
    with av.open(str(plain)) as original, av.open(str(source), "w") as out:
        video = out.add_stream_from_template(original.streams.video[0], opaque=True)
        data = out.add_data_stream("klv")
        data.time_base = Fraction(1, 90_000)
        for number, packet in enumerate(original.demux(video=0)):
            if packet.size:
                packet.stream = video
                out.mux_one(packet)
                klv = av.Packet(bytes(range(16)) + bytes([1, number]))
                klv.stream, klv.pts, klv.dts, klv.time_base = data, number, number, Fraction(1, 25)
                out.mux_one(klv)
    assert streams_of(source) == [("video", "h264"), ("data", "klv")]
    assert colorized(source, tmp_path / "b.ts", models) == []
    assert streams_of(tmp_path / "b.ts") == streams_of(source)
    old, new = packets_of(source, "data"), packets_of(tmp_path / "b.ts", "data")
    assert [content for _, content in new] == [content for _, content in old] != []
    assert colorized(source, tmp_path / "b.mkv", models) == ["its data stream 1 is left out"]
