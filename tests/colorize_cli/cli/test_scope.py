"""Options that apply to nothing in a run."""

import io
import json
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import pytest
from PIL import Image

from colorize_cli.cli import scope
from colorize_cli.cli.run import command
from colorize_cli.core.errors import ReadError
from colorize_cli.storage import stdio
from tests.helpers.cli import finish, invoke, piped
from tests.helpers.models import write_rgb_model
from tests.helpers.videos import Recipe, make


@pytest.fixture
def options(models) -> tuple[object, ...]:
    return "--model", models.tinted, "--device", "cpu"


@pytest.fixture
def picture(gray_photo, tmp_path):
    Image.fromarray(gray_photo).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.fixture
def film(tmp_path):
    return make(tmp_path / "a.mkv", Recipe(frames=8, codec="ffv1", options={}, sounds=1))


def test_every_option_of_run_has_a_scope():
    assert {parameter.name for parameter in command.params if parameter.expose_value} == scope.SCOPES.keys()


@pytest.mark.parametrize(
    ("option", "line"),
    [
        (("--quality", "90"), "--quality has no effect: no output is JPEG, WebP or AVIF"),
        (("--crf", "20"), "--crf has no effect: no film is encoded"),
        (("--codec", "ffv1"), "--codec has no effect: no film is encoded"),
        (("--preset", "fast"), "--preset has no effect: no film is encoded"),
        (("--pixel-format", "gray"), "--pixel-format has no effect: no film is encoded"),
        (("--steady", "0"), "--steady has no effect: no film is encoded"),
        (
            ("--every", "1"),
            "--every has no effect: the network sees every frame with --steady 0, and only some in a preview",
        ),
        (("--no-audio",), "--no-audio has no effect: no film is encoded"),
        (("--start", "1"), "--start has no effect: there is no film"),
        (("--duration", "1"), "--duration has no effect: there is no film"),
        (("--include", "*.png"), "--include has no effect: no directory is searched"),
        (("--exclude", "*.tif"), "--exclude has no effect: no directory is searched"),
    ],
)
def test_option_without_effect_on_a_picture_costs_one_line(picture, options, option, line):
    result = invoke(picture, picture.with_name("b.png"), *options, *option)
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines()[0] == line


@pytest.mark.parametrize(
    ("option", "line"),
    [
        (("--preview", "3"), "--preview has no effect: a preview is of films, and there is none"),
        (("-0",), "--null has no effect: it needs --files-from"),
    ],
)
def test_option_that_asks_for_something_else_is_refused(picture, options, option, line):
    result = invoke(picture, picture.with_name("b.png"), *options, *option)
    assert (result.exit_code, result.stderr) == (2, f"colorize: {line}\n")
    assert not picture.with_name("b.png").exists()


def test_options_that_apply_cost_no_line(picture, film, options):
    given = (
        "--format",
        "jpg",
        "--quality",
        "90",
        "--preset",
        "fast",
        "--codec",
        "libx264",
        "--include",
        "a.*",
    )
    result = invoke(picture.parent, picture.parent / "out", *options, *given)
    assert result.exit_code == 0, result.output
    assert "has no effect" not in result.stderr
    assert {path.name for path in (picture.parent / "out").glob("a.*")} == {"a.jpg", "a.mkv"}


@pytest.mark.parametrize("option", [("--format", "png"), ("--quality", "90")])
def test_option_of_pictures_without_effect_on_a_film_costs_one_line(film, options, option):
    result = invoke(film, film.parent / "out", *options, *option)
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines()[0].startswith(f"{option[0]} has no effect: ")


def test_options_of_the_encoder_without_effect_on_a_preview_cost_one_line(film, options):
    result = invoke(film, film.parent / "sheet.png", *options, "--preview", "2", "--crf", "20")
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines()[0] == "--crf has no effect: no film is encoded"


def test_every_without_effect_because_of_steady_costs_one_line(film, options):
    result = invoke(film, film.parent / "out", *options, "--steady", "0", "--every", "3")
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines()[0].startswith("--every has no effect: the network sees every frame")


@pytest.mark.parametrize(("side", "lines"), [(64, 1), (None, 0)])
def test_size_without_effect_on_a_model_of_fixed_size_costs_one_line(picture, tmp_path, side, lines):
    path = write_rgb_model(tmp_path / "m.onnx", "ddcolor", side=side, batch=None)
    result = invoke(picture, tmp_path / "b.png", "--model", path, "--device", "cpu", "--size", "128")
    assert result.exit_code == 0, result.output
    text = "size has no effect: the model takes only pictures of 64 x 64 pixels"
    assert result.stderr.splitlines().count(text) == lines


@pytest.mark.parametrize(("format_", "lines"), [("PNG", 1), ("TIFF", 1), ("JPEG", 0), ("WEBP", 0)])
def test_quality_without_effect_on_a_piped_picture_costs_one_line(picture, options, format_, lines):
    content = io.BytesIO()
    with Image.open(picture) as image:
        image.save(content, format_)
    done = piped(content.getvalue(), "-", "-", *options, "--quality", "90")
    assert done.returncode == 0
    text = "--quality has no effect: no output is JPEG, WebP or AVIF"
    assert done.stderr.decode().splitlines().count(text) == lines


def test_options_without_effect_in_pipes_cost_one_line_each(picture, options):
    given = (*options, "--overwrite", "--shard", "1/1")
    done = piped(picture.read_bytes(), "-", "-", *given)
    assert done.returncode == 0
    assert done.stderr.decode().splitlines()[:2] == [
        "--overwrite has no effect: the output is standard output",
        "--shard has no effect: it is for files, not for standard input or output",
    ]


@pytest.mark.parametrize("named", [True, False])
def test_hints_for_a_film_cost_one_line_and_nothing_is_made(film, options, tmp_path, named):
    marks = {"points": [{"x": 3, "y": 3, "color": "red"}]}
    hints = tmp_path / "hints.json"
    hints.write_text(json.dumps({"a.mkv": marks} if named else marks))
    Image.new("L", (8, 8)).save(tmp_path / "b.png")
    inputs = (film, tmp_path / "b.png") if named else (film,)
    result = invoke(*inputs, tmp_path / "out", *options, "--hints", hints)
    if named:
        assert result.exit_code == 1
        assert f"{film}: hints are for pictures, and it is a video; remove its hints" in result.stderr
        assert "1 done, 0 skipped, 1 failed" in result.stderr
    else:
        assert result.exit_code == 2
        line = "colorize: --hints has no effect: hints are for photographs, and there are only films"
        assert result.stderr.splitlines() == [line]
    assert not (tmp_path / "out" / "a.mkv").exists()


def test_max_pixels_without_effect_on_films_costs_a_line(film, picture, tmp_path, options):
    line = "--max-pixels has no effect: there are only films, which it does not limit"
    for inputs, expected in (((film,), True), ((film, picture), False)):
        result = invoke(*inputs, tmp_path / "out", *options, "--max-pixels", "100000000")
        assert result.exit_code == 0, result.output
        assert (line in result.stderr.splitlines()) == expected


def test_reference_gives_a_film_its_palette(film, models, tmp_path):
    from skimage import data

    for name, pixels in (("coffee", data.coffee()), ("cat", data.chelsea()[..., ::-1])):
        Image.fromarray(pixels).resize((150, 100)).save(tmp_path / f"{name}.png")
    seen = {}
    for name in ("coffee", "cat", None):
        reference = () if name is None else ("--reference", tmp_path / f"{name}.png")
        output = tmp_path / f"{name}.mkv"
        line = (film, output, "--model", models.tinted, "--device", "cpu", "--codec", "ffv1", *reference)
        assert invoke(*line).exit_code == 0
        with av.open(str(output)) as container:
            frame = next(container.decode(video=0)).to_ndarray(format="rgb24").astype(float)
        seen[name] = (frame[..., 0] - frame[..., 2]).mean()
    assert seen["coffee"] > seen["cat"] + 10  # orange, and blue
    assert len({round(value) for value in seen.values()}) == 3


def test_option_that_an_encoder_lacks_is_reported_and_the_folder_is_done(film, options, tmp_path):
    (tmp_path / "in").mkdir()
    film.rename(tmp_path / "in" / "a.mkv")
    make(tmp_path / "in" / "b.avi", Recipe(frames=3, codec="mpeg4", options={}, time_base=Fraction(1, 25)))
    line = (tmp_path / "in", tmp_path / "out", *options, "--crf", "18", "--preset", "fast", "--json")
    result = invoke(*line)
    assert result.exit_code == 0, result.output
    found = {Path(each["source"]).name: each["notes"] for each in map(json.loads, result.stdout.splitlines())}
    assert found == {"a.mkv": [], "b.avi": ["encoded without --crf and --preset, which mpeg4 lacks"]}


def test_film_without_audio_has_no_sound(film, options, tmp_path):
    for output in ("b.mkv", "b.y4m"):
        assert invoke(film, tmp_path / output, *options, "--no-audio").exit_code == 0
        with av.open(str(tmp_path / output)) as container:
            assert [stream.type for stream in container.streams] == ["video"]


@pytest.mark.parametrize(
    ("start", "first"), [("0:00.2", 0.2), ("00:00:00.2", 0.2), (".2", 0.2), ("0:0:0.2", 0.2)]
)
def test_start_is_a_time_as_ffmpeg_writes_it(film, options, tmp_path, start, first):
    result = invoke(film, tmp_path / "out", *options, "--start", start, "--codec", "ffv1")
    assert result.exit_code == 0, result.output
    with av.open(str(tmp_path / "out" / "a.0.2s-end.mkv")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 8 - round(first * 25)


@pytest.mark.parametrize("start", ["1:60", "1:60:00", "a", "-1", "1:", "1e3", ""])
def test_start_that_is_no_time_is_refused(film, tmp_path, start):
    result = invoke(film, tmp_path / "out", "--start", start)
    assert result.exit_code == 2
    assert f"{start!r} is not a time such as 90, 1:30 or 00:01:30.5" in result.output


def test_trial_in_a_directory_is_named_after_its_time_range(film, options, tmp_path):
    line = (film, tmp_path / "out", *options, "--start", "0.04", "--duration", "0.16", "--codec", "ffv1")
    assert invoke(*line).exit_code == 0
    assert [path.name for path in (tmp_path / "out").glob("*.mkv")] == ["a.0.04s-0.2s.mkv"]
    assert "1 up to date" in invoke(*line).stderr
    assert invoke(film, tmp_path / "named.mkv", *options, "--start", "0.04").exit_code == 0
    assert (tmp_path / "named.mkv").is_file()


@pytest.mark.parametrize("seekable", [True, False])
def test_mp4_on_standard_input_is_colorized(models, tmp_path, seekable):
    source = make(tmp_path / "a.mp4", Recipe(frames=8, sounds=1))
    line = ("-", tmp_path / "b.mkv", "--model", models.tinted, "--device", "cpu")
    note = "-: an MP4 cannot be read as a stream; it is copied to TMPDIR first"
    if seekable:
        with source.open("rb") as file:
            code, _, err = finish(*line, stdin=file)
    else:
        done = piped(source.read_bytes(), *line)
        code, err = done.returncode, done.stderr.decode()
    assert code == 0, err
    assert (note in err) != seekable
    with av.open(str(tmp_path / "b.mkv")) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"]
        assert sum(1 for _ in container.decode(video=0)) == 8


def test_mp4_on_standard_input_that_does_not_fit_is_refused(monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=stdio._SPARE))
    content = io.BytesIO(b"0" * 100)
    monkeypatch.setattr(stdio, "stdin", lambda: content)
    reason = "has no room for standard input after 0 MiB; set TMPDIR"
    with pytest.raises(ReadError, match=reason), stdio.spooled():
        pass


def test_x265_and_svt_av1_are_silent(film, options, tmp_path):
    code, _, err = finish(film, tmp_path / "b.mkv", *options, "--codec", "libx265", "-q")
    assert (code, err) == (0, "")
