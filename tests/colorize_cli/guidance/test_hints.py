"""Hints from their files to the pixels of outputs, and the messages about invalid hints."""

import json
import re

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageColor
from skimage import data

from colorize_cli import Colorizer
from colorize_cli.cli.run import command
from colorize_cli.color import lab
from colorize_cli.core.errors import UsageError
from colorize_cli.guidance.hints import parse

RED = "#b05a48"
POINT = {"points": [{"x": 80, "y": 60, "color": RED, "radius": 5}]}
BAD = {
    "not json": ("{", "not valid JSON"),
    "no object": ("[1]", "not an object"),
    "no color": ('{"points": [{"x": 1, "y": 2, "color": "reddish"}]}', r"points\[0\]\.color is not a color"),
    "no number": ('{"points": [{"x": "1", "y": 2, "color": "red"}]}', r"points\[0\]\.x is not a number"),
    "unknown key": ('{"points": [{"x": 1, "y": 2, "tint": "red"}]}', "'tint' is none of"),
    "two colors": (
        '{"points": [{"x": 1, "y": 2, "color": "red", "colour": "red"}]}',
        "both color and colour",
    ),
    "no text": ('{"points": [{"x": 1, "y": 2, "color": 3}]}', r"points\[0\]\.color is not a color"),
    "no points": ('{"strokes": [{"points": [], "color": "red"}]}', r"strokes\[0\] has no points"),
    "twice": ('{"a.png": {"points": []}, "a.png": {"points": []}}', "occurs twice"),
    "deep": ("[" * 100_000, "nested too deeply"),
    "deep value": ('{"points": ' + "[" * 400 + "]" * 400 + "}", r"points\[0\] is not an object"),
    "long number": (
        '{"points": [{"x": ' + "1" * 5000 + "}]}",
        "^not valid JSON: a number has too many digits$",
    ),
    "huge": (b" " * ((1 << 24) + 1), "more than 16 MiB"),
    "many keys": (
        "{" + ",".join(f'"{n}": {{}}' for n in range(50_000)) + ', "49999": {}}',
        "'49999' occurs twice",
    ),
    "empty": ('{"points": []}', "no points and no strokes"),
}


def run(models, *arguments, **options) -> tuple[int, str]:
    fixed = ["--model", str(models.tinted), "--device", "cpu"]
    result = CliRunner().invoke(command, [*fixed, *map(str, arguments)], **options)
    return result.exit_code, result.stderr


def written(path, content) -> str:
    path.write_text(json.dumps(content))
    return str(path)


def chroma(path) -> np.ndarray:
    with Image.open(path) as image:
        return lab.srgb_to_lab(np.asarray(image.convert("RGB")) / 255)[..., 1:]


def wanted(color: str) -> np.ndarray:
    rgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
    return lab.srgb_to_lab(rgb / 255)[1:]


@pytest.fixture
def images(gray_photo, tmp_path):
    """Make two gray images of one name in two folders, and a third image; RED is in gamut on all pixels."""
    gray = np.clip(gray_photo // 4 + 85, 0, 255).astype(np.uint8)
    for name in ("one/a.png", "two/a.png", "b.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(gray).save(tmp_path / "in" / name)
    return tmp_path / "in"


@pytest.mark.parametrize("name", BAD)
def test_bad_hints_raise_one_line_with_the_position(name):
    text, reason = BAD[name]
    with pytest.raises(UsageError, match=reason) as raised:
        parse(text)
    assert "\n" not in str(raised.value)


def marked(color: str, key: str = "color"):
    return parse(json.dumps({"points": [{"x": 1, "y": 2, key: color}]})).marks[0]


@pytest.mark.parametrize(
    ("name", "same"),
    [("dark red", "darkred"), ("Dark-Red", "#8b0000"), (" navy ", "navy"), ("REBECCA purple", "#639")],
)
def test_color_names_may_have_spaces_and_the_british_key(name, same):
    assert marked(name, "colour") == marked(same)


@pytest.mark.parametrize("name", ["navy", "darkblue", "#000080", "#1a0026"])
def test_chroma_of_a_dark_hint_is_limited_by_its_lightness(name):
    a, b = marked(name).chroma
    lightness, *ab = lab.srgb_to_lab(np.array(ImageColor.getrgb(name)) / 255)
    assert np.hypot(a, b) == pytest.approx(min(2.5 * lightness, np.hypot(*ab)), abs=0.01)
    assert np.arctan2(b, a) == pytest.approx(np.arctan2(ab[1], ab[0]), abs=1e-4), "the hue is kept"
    assert np.hypot(a, b) < 40


@pytest.mark.parametrize("name", ["red", "#aa3311", "maroon", "darkgreen", "#3060a0", "purple", "gray"])
def test_chroma_of_other_hints_is_exact(name):
    assert marked(name).chroma == pytest.approx(
        lab.srgb_to_lab(np.array(ImageColor.getrgb(name)) / 255)[1:], abs=1e-4
    )


@pytest.mark.parametrize(
    ("tone", "format_"), [((1, 1, 1), "PNG"), ((1, 0.9, 0.75), "PNG"), ((1, 1, 1), "JPEG")]
)
def test_painted_copy_gives_hints_where_it_differs(models, images, tmp_path, tone, format_):
    with Image.open(images / "b.png") as image:
        copy = np.asarray(image)[..., None] * np.array(tone)
    copy[13:33, 10:50] = 0xB0, 0x5A, 0x48
    Image.fromarray(copy.astype(np.uint8)).save(tmp_path / "h", format_)
    hints = ("--hints", tmp_path / "h")
    assert run(models, *hints, "--strength", "0", images / "b.png", tmp_path / "out.png")[0] == 0
    found = chroma(tmp_path / "out.png")
    assert np.abs(found[16:30, 14:46] - wanted(RED)).mean() < 2
    assert np.linalg.norm(found[100:, 130:], axis=-1).max() < 8, "far away nothing is painted"


def test_point_hint_sets_the_color(models, images, tmp_path):
    hints = written(tmp_path / "h.json", POINT)
    assert run(models, "--hints", hints, images / "b.png", tmp_path / "out.png")[0] == 0
    found = chroma(tmp_path / "out.png")
    y, x = np.ogrid[:120, :160]
    disc = (x - 80) ** 2 + (y - 60) ** 2 <= 5**2
    assert np.linalg.norm(found[disc] - wanted(RED), axis=1).max() < 3


def test_stroke_and_painted_hints_ignore_strength(models, images, tmp_path):
    stroke = {"strokes": [{"points": [[20, 30], [60, 30]], "color": RED, "width": 8}]}
    painted = np.zeros((60, 80, 4), np.uint8)
    painted[13:17, 10:30] = (0xB0, 0x5A, 0x48, 255)
    Image.fromarray(painted).save(tmp_path / "h.png")
    for hints in (written(tmp_path / "h.json", stroke), tmp_path / "h.png"):
        options = ("--overwrite", "--strength", "0", "--hints", hints)
        assert run(models, *options, images / "b.png", tmp_path / "out.png")[0] == 0
        assert np.abs(chroma(tmp_path / "out.png")[28:32, 24:56] - wanted(RED)).max() < 3


def test_changed_hints_recolor_only_their_picture(models, images, tmp_path):
    def stems(stderr: str) -> set[str]:
        return {line.split(" -> ")[0].rsplit("in/", 1)[1] for line in stderr.splitlines() if " -> " in line}

    out = tmp_path / "out"
    assert stems(run(models, images, out)[1]) == {"one/a.png", "two/a.png", "b.png"}
    hints = written(tmp_path / "h.json", {"one/a.png": POINT})
    assert stems(run(models, "--hints", hints, images, out)[1]) == {"one/a.png"}
    assert stems(run(models, "--hints", hints, images, out)[1]) == set()
    assert stems(run(models, images, out)[1]) == {"one/a.png"}


@pytest.mark.parametrize(
    ("name", "reason"), [("a.png", "may be .* or .*; give its path"), ("c.png", "none of the images")]
)
def test_hint_name_that_matches_none_or_several_is_refused(models, images, tmp_path, name, reason):
    hints = written(tmp_path / "h.json", {name: POINT})
    code, stderr = run(models, "--hints", hints, images, tmp_path / "out")
    assert code == 2
    assert "h.json" in stderr
    assert re.search(reason, stderr)
    assert not (tmp_path / "out").exists()


def test_hint_name_of_another_shard_is_accepted(models, images, tmp_path):
    hints = written(tmp_path / "h.json", {"one/a.png": POINT, "two/a.png": POINT, "b.png": POINT})
    for shard in ("1/2", "2/2"):
        assert run(models, "--hints", hints, "--shard", shard, images, tmp_path / "out")[0] == 0
    assert len(list((tmp_path / "out").rglob("*.png"))) == 3


def test_hint_outside_its_picture_fails_only_it(models, images, tmp_path):
    outside = {"points": [{"x": 500, "y": 2, "color": RED}]}
    hints = written(tmp_path / "h.json", {"b.png": outside, "one/a.png": POINT})
    code, stderr = run(models, "--hints", hints, images, tmp_path / "out")
    assert code == 1
    assert "b.png: the hint at x 500, y 2 lies outside of the image" in stderr
    assert len(list((tmp_path / "out").rglob("*.png"))) == 2


def test_unnamed_hints_for_several_pictures_are_refused(models, images, tmp_path):
    code, stderr = run(models, "--hints", written(tmp_path / "h.json", POINT), images, tmp_path / "out")
    assert code == 2
    assert "for a single image" in stderr


@pytest.mark.parametrize("option", ["--hints", "--reference"])
def test_unreadable_guidance_file_is_named_before_any_work(models, images, tmp_path, option):
    (tmp_path / "empty").touch()
    Image.new("RGB", (20, 20), (9, 9, 9)).save(tmp_path / "gray.png")
    for name in ("absent", "empty", "gray.png"):
        code, stderr = run(models, option, tmp_path / name, images / "b.png", tmp_path / "out.png")
        assert code == 2
        assert name in stderr
        assert not (tmp_path / "out.png").exists()


def test_reference_palette_is_transferred_at_any_batch_size(models, images, tmp_path):
    reference = tmp_path / "reference.png"
    Image.fromarray(data.rocket()).save(reference)
    found = []
    for batch in ("1", "8"):
        options = ("--overwrite", "--batch-size", batch, "--reference", reference)
        assert run(models, *options, images, tmp_path / "out")[0] == 0
        found.append(chroma(tmp_path / "out" / "b.png"))
    np.testing.assert_array_equal(found[0], found[1])
    assert run(models, images / "b.png", tmp_path / "plain.png")[0] == 0
    towards, before = (values.mean((0, 1)) for values in (found[0], chroma(tmp_path / "plain.png")))
    truth = lab.srgb_to_lab(data.rocket() / 255)[..., 1:].mean((0, 1))
    assert np.linalg.norm(towards - truth) < 0.6 * np.linalg.norm(before - truth)


def test_colorizer_accepts_hints_and_reference(models, gray_photo):
    gray = np.clip(gray_photo // 4 + 110, 0, 255).astype(np.uint8)
    colorizer = Colorizer(models.tinted, device="cpu")
    colored = colorizer.colorize(gray, hints=POINT)
    assert np.abs(lab.srgb_to_lab(colored / 255)[58:62, 78:82, 1:] - wanted(RED)).max() < 3
    apply_guidance = colorizer.colorize(Image.fromarray(gray), reference=Image.fromarray(data.rocket()))
    assert apply_guidance.size == (160, 120)
    with pytest.raises(UsageError, match="outside"):
        colorizer.colorize(gray, hints={"points": [{"x": -5, "y": 0, "color": RED}]})


def test_hints_that_would_take_too_long_are_refused():
    zigzag = [[i % 2 * 99, i % 100] for i in range(1500)]
    hints = parse(json.dumps({"strokes": [{"points": zigzag, "color": "red", "width": 1000}]}))
    with pytest.raises(UsageError, match="fewer or thinner strokes"):
        hints.check((1000, 1000))
    usual = parse(json.dumps({"strokes": [{"points": zigzag, "color": "red"}] * 10}))
    usual.check((3000, 4000))


def test_hint_file_without_end_is_refused(models, images):
    code, said = run(models, "--hints", "/dev/zero", images, images.parent / "out")
    assert (code, said) == (2, "colorize: /dev/zero: hints of more than 256 MiB are not supported\n")
