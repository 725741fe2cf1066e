import json
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
    assert str(hints) in refused(models, tmp_path, "--hints", hints, scans)


def test_missing_guidance_file_is_named(models, scans, tmp_path):
    for option in ("--hints", "--reference"):
        assert "absent.x" in refused(models, tmp_path, option, tmp_path / "absent.x", scans)


def test_hints_png_without_transparency_is_refused(models, scans, tmp_path):
    Image.new("RGB", (160, 120), "red").save(tmp_path / "hints.png")
    stderr = refused(models, tmp_path, "--hints", tmp_path / "hints.png", scans / "a.png")
    assert "hints.png" in stderr
    assert "no transparency" in stderr


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
