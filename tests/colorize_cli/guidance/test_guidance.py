import json
import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from colorize_cli import Colorizer
from colorize_cli.cli.run import command
from colorize_cli.color import lab
from colorize_cli.color.lightness import GRAY8, Lightness
from colorize_cli.core.errors import UsageError
from colorize_cli.core.settings import Settings
from colorize_cli.guidance.palette import Palette, transfer

RED = {"points": [{"x": 20, "y": 20, "color": "#8a4a3a"}]}
BLUE = {"points": [{"x": 20, "y": 20, "color": "#3a5a8a"}]}


@pytest.fixture
def scans(tmp_path, gray_photo) -> Path:
    """Make four images, two of them with the same file name."""
    for name in ("a.png", "b.png", "one/c.png", "two/c.png"):
        path = tmp_path / "scans" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.roll(gray_photo, len(path.parts) + ord(name[0]), axis=1)).save(path)
    return tmp_path / "scans"


@pytest.fixture
def sunset(tmp_path) -> Path:
    """Make a photograph with orange lights and blue shadows."""
    from skimage import data

    path = tmp_path / "sunset.png"
    Image.fromarray(data.coffee()).resize((150, 100)).save(path)
    return path


def colorize(models, *arguments, model=None) -> tuple[int, list[dict], str]:
    """Return the exit status, the JSON lines for the images, and stderr."""
    options = ("--device", "cpu", "--model", model or models.tinted, "--json", "--quiet")
    done = CliRunner().invoke(command, [str(part) for part in (*options, *arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def written(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value))
    return path


def chroma(path: Path | Image.Image) -> np.ndarray:
    image = path if isinstance(path, Image.Image) else Image.open(path)
    return lab.srgb_to_lab(np.asarray(image.convert("RGB")) / 255)[..., 1:]


def statuses(lines: list[dict]) -> dict[str, str]:
    return {
        Path(line["source"]).parent.name + "/" + Path(line["source"]).name: line["status"] for line in lines
    }


def test_recipe_of_settings_is_independent_of_guidance_files():
    """Guidance is part of the recipe of each picture, by its content."""
    plain = Settings().recipe(b"x")
    assert Settings(hints=Path("h.json"), reference=Path("r.jpg")).recipe(b"x") == plain
    assert Settings(strength=0.5).recipe(b"x") != plain


def test_hints_apply_only_to_their_picture(models, scans, tmp_path):
    assert colorize(models, scans, tmp_path / "plain")[0] == 0
    hints = written(tmp_path / "hints.json", {"a.png": RED, "two/c.png": BLUE})
    assert colorize(models, "--hints", hints, scans, tmp_path / "out")[0] == 0
    for name in ("b.png", "one/c.png"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    for name, color in (("a.png", (0x8A, 0x4A, 0x3A)), ("two/c.png", (0x3A, 0x5A, 0x8A))):
        target = lab.srgb_to_lab(np.array(color) / 255)[1:]
        lightness = lab.srgb_to_lab(np.asarray(Image.open(tmp_path / "out" / name)) / 255)[20, 20, 0]
        fitted = lab.fit_gamut(np.array([lightness, *target], np.float32))[1:]
        assert np.hypot(*(chroma(tmp_path / "out" / name)[20, 20] - fitted)) <= 3


def test_changed_hints_recolor_only_their_picture(models, scans, tmp_path):
    hints, out = tmp_path / "hints.json", tmp_path / "out"
    versions = ({"a.png": RED, "b.png": RED}, {"a.png": BLUE, "b.png": RED}, {"b.png": RED})
    runs = [statuses(colorize(models, "--hints", written(hints, it), scans, out)[1]) for it in versions]
    runs += [statuses(colorize(models, scans, out)[1]) for _ in range(2)]
    done = [{name for name, status in run.items() if status == "done"} for run in runs]
    everything = {"scans/a.png", "scans/b.png", "one/c.png", "two/c.png"}
    assert done == [everything, {"scans/a.png"}, {"scans/a.png"}, {"scans/b.png"}, set()]


def test_changed_reference_recolors_all_pictures(models, scans, sunset, tmp_path):
    out = tmp_path / "out"
    counts = []
    for options in ((), ("--reference", sunset), ("--reference", sunset), ()):
        lines = colorize(models, *options, scans, out)[1]
        counts.append(sum(line["status"] == "done" for line in lines))
    assert counts == [4, 4, 0, 4]


def test_reference_moves_the_mean_chroma_towards_its_own(models, scans, sunset, tmp_path):
    colorize(models, scans, tmp_path / "plain")
    colorize(models, "--reference", sunset, scans, tmp_path / "out")
    target = chroma(sunset).mean(axis=(0, 1))
    for name in ("a.png", "two/c.png"):
        before, after = (chroma(tmp_path / run / name).mean(axis=(0, 1)) for run in ("plain", "out"))
        assert np.hypot(*(after - target)) < 0.5 * np.hypot(*(before - target))


def test_reference_strengthens_no_color_beyond_its_own(gray_photo, sunset):
    palette = Palette.of(np.asarray(Image.open(sunset)))
    ab = np.random.default_rng(0).normal(0, 15, (2, 30, 40)).astype(np.float32)
    moved = transfer(Lightness(gray_photo, GRAY8), ab, palette)
    limit = np.maximum(np.hypot(*ab), palette.strongest)
    assert (np.hypot(*moved) <= limit + 0.01).all()


def test_reference_result_is_independent_of_batch_size(models, scans, sunset, tmp_path):
    for size in (1, 8):
        colorize(models, "--batch-size", size, "--reference", sunset, scans, tmp_path / str(size))
    for name in ("a.png", "b.png", "one/c.png", "two/c.png"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "8" / name).read_bytes()


def refused(models, tmp_path, *arguments) -> str:
    """Return the single line on stderr of a run that fails before it writes anything."""
    out = tmp_path / "refused"
    for dry in ((), ("--dry-run",)):
        status, lines, stderr = colorize(models, *dry, *arguments, out)
        assert (status, lines) == (2, [])
        assert not out.exists()
        assert stderr.count("\n") == 1
    return stderr


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b'{"points": [{"x": 1}]}', b"\xff\xfe", b"\x89PNG\r\n\x1a\nbroken"]
)
def test_invalid_hints_file_is_refused_before_writing(models, scans, tmp_path, content):
    hints = tmp_path / "hints.json"
    hints.write_bytes(content)
    assert refused(models, tmp_path, "--hints", hints, scans).count(str(hints)) == 1


def test_missing_guidance_file_is_named(models, scans, tmp_path):
    for option in ("--hints", "--reference"):
        assert "absent.x" in refused(models, tmp_path, option, tmp_path / "absent.x", scans)


def test_hints_picture_of_a_single_color_is_refused(models, scans, tmp_path):
    Image.new("RGB", (160, 120), "red").save(tmp_path / "hints.png")
    stderr = refused(models, tmp_path, "--hints", tmp_path / "hints.png", scans / "a.png")
    assert "hints.png" in stderr
    assert "there are no hints: the image has no transparency, and no place that differs in color" in stderr


def test_gray_or_damaged_reference_is_refused(models, scans, tmp_path):
    (tmp_path / "damaged.jpg").write_bytes(b"no picture")
    assert "damaged.jpg" in refused(models, tmp_path, "--reference", tmp_path / "damaged.jpg", scans)
    stderr = refused(models, tmp_path, "--reference", scans / "a.png", scans)
    assert "a.png: it has no colors" in stderr


def test_hint_names_that_match_none_or_several_are_refused(models, scans, tmp_path):
    unknown = written(tmp_path / "unknown.json", {"z.png": RED})
    assert "'z.png' is none of the images" in refused(models, tmp_path, "--hints", unknown, scans)
    ambiguous = written(tmp_path / "ambiguous.json", {"c.png": RED})
    stderr = refused(models, tmp_path, "--hints", ambiguous, scans)
    assert "one/c.png" in stderr
    assert "two/c.png" in stderr
    twice = written(tmp_path / "twice.json", {"a.png": RED, "./a.png": BLUE})
    assert "are both" in refused(models, tmp_path, "--hints", twice, scans)


def test_unnamed_hints_are_for_a_single_picture(models, scans, tmp_path):
    hints = written(tmp_path / "hints.json", RED)
    assert "name them" in refused(models, tmp_path, "--hints", hints, scans)
    assert colorize(models, "--hints", hints, scans / "a.png", tmp_path / "a.png")[0] == 0
    assert chroma(tmp_path / "a.png")[20, 20, 0] > 5


def test_hint_name_of_another_shard_is_accepted(models, scans, tmp_path):
    hints = written(tmp_path / "hints.json", {"a.png": RED, "b.png": BLUE, "one/c.png": RED})
    done = []
    for part in (1, 2, 3):
        shard = ("--shard", f"{part}/3")
        status, lines, _ = colorize(models, *shard, "--hints", hints, scans, tmp_path / "out")
        assert status == 0
        done += lines
    assert len(done) == 4
    assert chroma(tmp_path / "out" / "a.png")[20, 20, 0] > 5


def test_hint_outside_its_picture_fails_only_it(models, scans, tmp_path):
    outside = {"points": [{"x": 500, "y": 20, "color": "red"}]}
    hints = written(tmp_path / "hints.json", {"a.png": outside, "b.png": RED})
    status, lines, _ = colorize(models, "--hints", hints, scans, tmp_path / "out")
    assert status == 1
    failed = [line for line in lines if line["status"] == "failed"]
    assert [Path(line["source"]).name for line in failed] == ["a.png"]
    assert "x 500, y 20 lies outside of the image, which is 160 x 120" in failed[0]["reason"]
    assert not (tmp_path / "out" / "a.png").exists()
    assert (tmp_path / "out" / "b.png").exists()


def test_output_never_replaces_guidance_files(models, scans, sunset, tmp_path):
    before = sunset.read_bytes()
    arguments = ("--overwrite", "--reference", sunset, scans / "a.png", sunset)
    status, _, stderr = colorize(models, *arguments)
    assert (status, sunset.read_bytes()) == (2, before)
    assert "would replace" in stderr


def test_hints_apply_to_the_first_page_of_a_document(models, gray_photo, tmp_path):
    pages = [Image.fromarray(gray_photo)] * 2
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    hints = written(tmp_path / "hints.json", RED)
    arguments = ("--hints", hints, tmp_path / "pages.tif", tmp_path / "out.tif")
    assert colorize(models, *arguments, model=models.gray)[0] == 0
    with Image.open(tmp_path / "out.tif") as image:
        assert chroma(image)[20, 20, 0] > 5
        image.seek(1)
        assert np.abs(chroma(image)).max() < 1


def test_hints_for_an_animation_are_a_failure(models, gray_photo, tmp_path):
    frames = [Image.fromarray(np.roll(gray_photo, 9 * index, axis=1)) for index in range(3)]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:], duration=70)
    hints = written(tmp_path / "hints.json", RED)
    status, lines, _ = colorize(models, "--hints", hints, tmp_path / "film.gif", tmp_path / "out.png")
    assert status == 1
    assert "it is an animation" in lines[0]["reason"]
    assert not (tmp_path / "out.png").exists()


def test_painted_hints_color_the_picture(models, scans, tmp_path):
    image = Image.new("RGBA", (160, 120))
    image.paste((0x8A, 0x4A, 0x3A, 255), (15, 15, 25, 25))
    image.save(tmp_path / "hints.png")
    arguments = ("--hints", tmp_path / "hints.png", scans / "a.png", tmp_path / "out.png")
    assert colorize(models, *arguments, model=models.gray)[0] == 0
    assert chroma(tmp_path / "out.png")[15:25, 15:25, 0].min() > 5


def test_colorizer_accepts_hints_and_reference(models, gray_photo, sunset, tmp_path):
    colorizer = Colorizer(models.tinted, device="cpu", strength=0.0)
    painted = Image.new("RGBA", (160, 120))
    painted.paste((0x8A, 0x4A, 0x3A, 255), (15, 15, 25, 25))
    for given in (RED, painted, written(tmp_path / "hints.json", RED)):
        out = colorizer.colorize(Image.fromarray(gray_photo), hints=given)
        assert chroma(out)[20, 20, 0] > 5
    with pytest.raises(UsageError, match="outside of the image"):
        colorizer.colorize(gray_photo, hints={"points": [{"x": 500, "y": 1, "color": "red"}]})
    full = Colorizer(models.tinted, device="cpu")
    by_file = full.colorize(gray_photo, reference=sunset)
    assert np.array_equal(by_file, full.colorize(gray_photo, reference=Image.open(sunset)))
    assert not np.array_equal(by_file, full.colorize(gray_photo))


def made(done: tuple[int, list[dict], str]) -> set[str]:
    """Return the names of the pictures that a run made."""
    return {name for name, status in statuses(done[1]).items() if status == "done"}


def told(models, *arguments) -> list[str]:
    """Run without --quiet and return the lines on stderr, except those on the device and on outcomes."""
    line = ("--device", "cpu", "--model", models.tinted, *arguments)
    done = CliRunner().invoke(command, [str(part) for part in line])
    lines = [line for line in done.stderr.splitlines() if " -> " not in line]
    return [line for line in lines if not line.startswith(("device: ", "0 done", "1 done", "4 done"))]


def test_hints_beside_a_picture_are_found_by_every_run(models, scans, tmp_path):
    out, hints = tmp_path / "out", scans / "one" / "c.png.hints.json"
    assert len(made(colorize(models, scans, out))) == 4
    plain = (out / "one" / "c.png").read_bytes()
    written(hints, RED)
    assert made(colorize(models, scans, out)) == {"one/c.png"}
    assert chroma(out / "one" / "c.png")[20, 20, 0] > 5
    assert made(colorize(models, scans, out)) == set()
    written(hints, BLUE)
    assert made(colorize(models, scans, out)) == {"one/c.png"}
    assert chroma(out / "one" / "c.png")[20, 20, 1] < -5
    hints.unlink()
    assert made(colorize(models, scans, out)) == {"one/c.png"}
    assert (out / "one" / "c.png").read_bytes() == plain


@pytest.mark.parametrize("form", ["name", "pattern", "shell", "list", "single"])
def test_hints_beside_a_picture_given_by_name_are_found(models, scans, tmp_path, form):
    written(scans / "a.png.hints.json", RED)
    out = tmp_path / "out.png" if form == "single" else tmp_path / "out"
    listed = tmp_path / "list.txt"
    listed.write_text(f"{scans / 'a.png'}\n{scans / 'a.png.hints.json'}\n")
    arguments = {
        "name": (scans / "a.png", out),
        "pattern": (scans / "a.*", out),
        "shell": (*scans.glob("a.*"), out),
        "list": ("--files-from", listed, out),
        "single": (scans / "a.png", out),
    }[form]
    status, lines, _ = colorize(models, *arguments)
    assert (status, [Path(line["source"]).name for line in lines]) == (0, ["a.png"])
    assert chroma(out if form == "single" else out / "a.png")[20, 20, 0] > 5


def test_hints_below_a_directory_are_at_the_path_of_the_picture(models, scans, tmp_path):
    corrections = tmp_path / "corrections"
    (corrections / "two").mkdir(parents=True)
    written(corrections / "two" / "c.png.hints.json", RED)
    options = ("--hints", corrections)
    assert colorize(models, *options, scans, tmp_path / "out")[0] == 0
    assert colorize(models, scans, tmp_path / "plain")[0] == 0
    same = {
        name: (tmp_path / "out" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
        for name in ("a.png", "b.png", "one/c.png", "two/c.png")
    }
    assert same == {"a.png": True, "b.png": True, "one/c.png": True, "two/c.png": False}
    assert chroma(tmp_path / "out" / "two" / "c.png")[20, 20, 0] > 5
    assert made(colorize(models, *options, scans, tmp_path / "out")) == set()


def test_hints_of_the_run_replace_those_beside_a_picture(models, scans, tmp_path):
    beside = written(scans / "a.png.hints.json", RED)
    corrections = tmp_path / "corrections"
    corrections.mkdir()
    written(corrections / "a.png.hints.json", BLUE)
    for number, hints in enumerate((corrections, written(tmp_path / "hints.json", {"a.png": BLUE}))):
        beside.write_text("{" if number else json.dumps(RED))  # it is not read
        out = tmp_path / str(number)
        line = f"{beside} is not used: --hints {hints} has hints for {scans / 'a.png'}"
        assert told(models, "--hints", hints, scans, out) == [line]
        assert chroma(out / "a.png")[20, 20, 1] < -5


def test_unused_files_of_a_hints_directory_are_named(models, scans, tmp_path):
    corrections = tmp_path / "corrections"
    corrections.mkdir()
    options = ("--hints", corrections, scans, tmp_path / "out")
    assert told(models, *options) == [f"{corrections} has no hints files, whose names end in .hints.json"]
    lost = written(corrections / "c.png.hints.json", RED)
    written(corrections / "a.png.hints.json", RED)
    assert told(models, *options) == [
        f"{corrections}: hints files for no picture of this run: 1, such as {lost}"
    ]


def test_hints_directory_with_folders_linked_to_each_other_is_searched_once(models, scans, tmp_path):
    corrections = tmp_path / "corrections"
    folders = [corrections / f"{number}" for number in range(8)]
    for folder in folders:
        folder.mkdir(parents=True)
    for folder in folders:
        for other in folders:
            (folder / f"to-{other.name}").symlink_to(other)
    lost = written(corrections / "3" / "c.png.hints.json", RED)
    written(corrections / "a.png.hints.json", RED)
    assert told(models, "--hints", corrections, scans, tmp_path / "out") == [
        f"{corrections}: hints files for no picture of this run: 1, such as {lost}"
    ]


def test_outputs_below_a_hints_directory_are_not_searched_and_named(models, scans, tmp_path):
    corrections = tmp_path / "corrections"
    assert colorize(models, scans, corrections / "out")[0] == 0
    written(corrections / "a.png.hints.json", RED)
    assert told(models, "--hints", corrections, scans, tmp_path / "out") == [
        f"{corrections / 'out'} is not searched for hints, as it holds outputs of an earlier run"
    ]


def test_hints_file_beyond_memory_fails_its_picture(models, scans, tmp_path):
    hints = scans / "a.png.hints.json"
    hints.touch()
    os.truncate(hints, 1 << 36)
    status, lines, _ = colorize(models, scans / "a.png", tmp_path / "out.png")
    assert status == 1
    reason = f"cannot use its hints {hints}: hints of more than 16 MiB of JSON are not supported"
    assert [line["reason"] for line in lines] == [reason]


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_run_that_would_lose_hints_says_so(models, scans, tmp_path, dry):
    out, hints = tmp_path / "out", written(tmp_path / "hints.json", {"a.png": RED})
    assert told(models, "--hints", hints, scans, out) == []
    lost = (
        f"{out / 'a.png'} was made with hints, and is made again without, as this run has none for"
        f" {scans / 'a.png'}"
    )
    assert told(models, *dry, scans, out) == [lost]
    assert told(models, "--overwrite", scans, out) == ([lost] if dry else [])


def test_line_on_lost_hints_follows_a_reference(models, scans, sunset, tmp_path):
    out, hints = tmp_path / "out", written(tmp_path / "hints.json", {"a.png": RED})
    assert told(models, "--reference", sunset, "--hints", hints, scans, out) == []
    assert [line.split()[0] for line in told(models, scans, out)] == [str(out / "a.png")]
    assert told(models, "--reference", sunset, scans, out) == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "not valid JSON"),
        (b'{"a.png": {"points": []}}', "'a.png': there are no points and no strokes"),
        (b'{"a.png": {"points": [{"x": 1, "y": 1, "color": "red"}]}}', "they are for images by name"),
        (b'"\xff"', "not valid JSON: not in UTF-8, at byte 1"),
    ],
)
def test_unusable_hints_beside_a_picture_fail_only_it(models, scans, tmp_path, content, reason):
    hints = scans / "a.png.hints.json"
    hints.write_bytes(content)
    status, lines, _ = colorize(models, scans, tmp_path / "out")
    assert status == 1
    failed = [line for line in lines if line["status"] == "failed"]
    assert [line["source"] for line in failed] == [str(scans / "a.png")]
    assert failed[0]["reason"].startswith(f"cannot use its hints {hints}: {reason}")
    assert not (tmp_path / "out" / "a.png").exists()
    assert len(lines) == 4


def test_unreadable_hints_beside_a_picture_fail_only_it(models, scans, tmp_path):
    (scans / "a.png.hints.json").symlink_to(tmp_path / "absent")
    status, lines, _ = colorize(models, scans, tmp_path / "out")
    failed = [line["reason"] for line in lines if line["status"] == "failed"]
    assert (status, len(lines)) == (1, 4)
    assert failed == [f"cannot read its hints {scans / 'a.png.hints.json'}: No such file or directory"]


def test_hints_for_a_video_or_a_color_picture_are_a_failure(models, sunset, tmp_path):
    (tmp_path / "in").mkdir()
    sunset.rename(tmp_path / "in" / "sunset.png")
    (tmp_path / "in" / "film.mp4").write_bytes(b"")
    for name in ("sunset.png", "film.mp4"):
        written(tmp_path / "in" / f"{name}.hints.json", RED)
    status, lines, _ = colorize(models, tmp_path / "in", tmp_path / "out")
    reasons = {Path(line["source"]).name: line["reason"] for line in lines}
    assert status == 1
    assert reasons == {
        "film.mp4": "hints are for pictures, and it is a video; remove its hints",
        "sunset.png": "it is already in color, and hints are for gray pictures; use --if-colored recolor, or"
        " remove its hints",
    }
    status, lines, _ = colorize(models, "--if-colored", "recolor", tmp_path / "in", tmp_path / "out")
    assert {Path(line["source"]).name: line["status"] for line in lines} == {
        "film.mp4": "failed",
        "sunset.png": "done",
    }
    assert chroma(tmp_path / "out" / "sunset.png")[20, 20, 0] > 5
