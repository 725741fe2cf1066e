"""The page of `colorize retouch`, in text and in a browser."""

import base64
import functools
import io
import json
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from colorize_cli import Colorizer, cli
from colorize_cli.cli import retouch
from colorize_cli.color import lab
from colorize_cli.color.lightness import GRAY8, Lightness
from colorize_cli.guidance import hints as notation
from colorize_cli.guidance import propagation
from colorize_cli.report.retouch_page import SIDE
from tests.helpers.pages import ATTACKS, Page, needs_chromium

HINTS = {
    "points": [{"x": 30, "y": 25.5, "color": "rebeccapurple", "radius": 5}],
    "strokes": [{"points": [[100, 40], [120, 90], [90, 100]], "color": "#0a0", "width": 8}],
}


def invoke(models, *arguments: object):
    line = [*map(str, arguments), "--model", str(models.tinted), "--device", "cpu"]
    return CliRunner().invoke(retouch.command, line, prog_name="colorize retouch")


def photos_of(page: Page) -> list[dict]:
    return [json.loads(text) for text in page.text["script"] if text.startswith("{")]


@pytest.fixture
def photo(gray_photo, tmp_path) -> Path:
    """A gray picture of 160 x 120 pixels."""
    (tmp_path / "scans").mkdir()
    Image.fromarray(gray_photo).save(tmp_path / "scans" / "a.png")
    return tmp_path / "scans" / "a.png"


@pytest.fixture
def opened(models, browser):
    """Return a function that makes the page of photographs and opens it."""

    def open_page(path: Path, *photos: Path, width: int = 1280) -> None:
        result = invoke(models, *photos, "--page", path)
        assert result.exit_code == 0, result.output
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.call("Emulation.setDeviceMetricsOverride", **metrics)
        browser.visit(path)
        until(browser, "photo !== null")

    yield open_page
    browser.evaluate(
        "for (const each of photos) each.isSaved = true"
    )  # else it asks before it leaves the page
    browser.call("Emulation.clearDeviceMetricsOverride")


def until(browser, expression: str) -> None:
    for _ in range(500):
        if browser.evaluate(expression):
            return
        time.sleep(0.02)
    raise AssertionError(expression)


def point(browser, *places: tuple[float, float]) -> None:
    """Press the mouse at a place of the picture, in parts of its sides, move it along the others, let go."""
    browser.evaluate("document.getElementById('stage').scrollIntoView({block: 'nearest'})")
    box = browser.evaluate(
        "(({x, y, width, height}) => [x, y, width, height])($('stage').getBoundingClientRect())"
    )
    at = [(box[0] + x * box[2], box[1] + y * box[3]) for x, y in places]
    call = functools.partial(browser.call, "Input.dispatchMouseEvent", clickCount=1)
    call(type="mouseMoved", x=at[0][0], y=at[0][1])
    call(type="mousePressed", x=at[0][0], y=at[0][1], button="left")
    for x, y in at[1:]:
        call(type="mouseMoved", x=x, y=y, button="left")
    call(type="mouseReleased", x=at[-1][0], y=at[-1][1], button="left")


def press(browser, key: str, code: int, modifiers: int = 0) -> None:
    for kind in ("rawKeyDown", "keyUp"):
        event = {"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        browser.call("Input.dispatchKeyEvent", **event)


def chroma(pixels: np.ndarray) -> np.ndarray:
    return lab.srgb_to_lab(pixels / 255)[..., 1:]


def test_retouch_page_shows_the_color_of_hints_in_british_spelling(models, photo, tmp_path):
    beside = photo.with_name(f"{photo.name}.hints.json")
    beside.write_text('{"points": [{"x": 3, "y": 4, "colour": "navy"}]}')
    assert invoke(models, photo, "--page", tmp_path / "page.html").exit_code == 0
    (shown,) = photos_of(Page(tmp_path / "page.html"))
    assert [mark["text"] for mark in shown["marks"]] == ["navy"]


def test_retouch_page_holds_the_photographs_and_their_hints(models, photo, gray_photo, tmp_path):
    Image.fromarray(gray_photo).resize((2000, 1500)).save(tmp_path / "large.jpg")
    (photo.parent / "a.png.hints.json").write_text(json.dumps(HINTS))
    result = invoke(models, photo.parent, tmp_path / "large.jpg", "--page", tmp_path / "page.html")
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines() == [
        f"{photo} -> {tmp_path / 'page.html'}",
        f"{tmp_path / 'large.jpg'} -> {tmp_path / 'page.html'}",
        "2 done, 0 skipped, 0 failed",
        f"open {tmp_path / 'page.html'} in a web browser; it says where to put the hints that it saves",
    ]
    page = Page(tmp_path / "page.html")
    small, large = photos_of(page)
    assert page.text["option"][:2] == ["a.png", "large.jpg"]
    assert (small["name"], small["folder"], small["width"], small["height"]) == (
        "a.png",
        str(photo.parent),
        160,
        120,
    )
    assert [(mark["text"], mark["stroke"], mark["radius"]) for mark in small["marks"]] == [
        ("rebeccapurple", False, 5),
        ("#0a0", True, 4),
    ]
    assert (large["image"]["width"], large["image"]["height"], large["marks"]) == (SIDE, 1200, [])
    shown = Image.open(io.BytesIO(base64.b64decode(small["image"]["url"].partition(",")[2])))
    expected = io.BytesIO()
    Colorizer(models.tinted, "cpu").colorize(Image.open(photo)).save(
        expected, "JPEG", quality=90, subsampling=0
    )
    np.testing.assert_array_equal(shown, Image.open(expected))
    codes = np.frombuffer(base64.b64decode(small["guide"]["codes"]), "<u2").reshape(120, 160)
    np.testing.assert_allclose(codes / 655.35, GRAY8[gray_photo], atol=0.001)
    assert max(large["guide"]["width"], large["guide"]["height"]) < SIDE
    assert (small["is_color"], small["pages"]) == (False, 1)
    assert len(list(tmp_path.iterdir())) == 3


def test_retouch_writes_to_the_working_directory(models, photo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = ["retouch", "scans/a.png", "--model", str(models.tinted), "--device", "cpu", "--quiet"]
    result = CliRunner().invoke(cli.command, line, prog_name="colorize")
    assert (result.exit_code, result.output) == (0, "")
    assert photos_of(Page(tmp_path / "retouch.html"))[0]["folder"] == str(photo.parent)


def test_hints_directory_of_a_run_is_that_of_the_page(models, photo, gray_photo, tmp_path):
    (photo.parent / "deep").mkdir()
    for name in ("b.png", "deep/c.png"):
        Image.fromarray(gray_photo).save(photo.parent / name)
    corrections = tmp_path / "corrections"
    (corrections / "deep").mkdir(parents=True)
    files = [photo.parent / "a.png.hints.json", photo.parent / "b.png.hints.json"]
    files += [corrections / "b.png.hints.json", corrections / "deep" / "c.png.hints.json"]
    for number, file in enumerate(files):
        file.write_text(json.dumps({"points": [{"x": number, "y": 0, "color": "red"}]}))
    arguments = ("--hints", corrections, "--page", tmp_path / "page.html")
    assert invoke(models, photo.parent, *arguments).exit_code == 0
    photos = photos_of(Page(tmp_path / "page.html"))
    assert [(one["hints_file"], one["hints_folder"]) for one in photos] == [
        (str(files[0]), str(corrections)),
        (str(files[2]), str(corrections)),
        (str(files[3]), str(corrections / "deep")),
    ]
    assert [one["marks"][0]["points"][0][0] for one in photos] == [0, 2, 3]
    assert invoke(models, photo.parent / "deep" / "c.png", *arguments).exit_code == 0
    (named,) = photos_of(Page(tmp_path / "page.html"))
    assert (named["hints_file"], named["hints_folder"]) == (None, str(corrections))


def test_retouch_of_unusable_files_names_each(models, photo, gray_photo, tmp_path):
    frames = [Image.fromarray(np.roll(gray_photo, 9 * index, axis=1)) for index in range(2)]
    animation, film, broken, far = (tmp_path / name for name in ("a.gif", "a.mp4", "b.png", "c.png"))
    frames[0].save(animation, save_all=True, append_images=frames[1:], duration=70)
    film.touch()
    for path in (broken, far):
        Image.fromarray(gray_photo).save(path)
    (tmp_path / "b.png.hints.json").write_text("{")
    (tmp_path / "c.png.hints.json").write_text('{"points": [{"x": 500, "y": 1, "color": "red"}]}')
    files = (animation, film, broken, far, tmp_path / "absent.png")
    result = invoke(models, *files[:4], photo, "--page", tmp_path / "page.html", "--quiet")
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert lines[:2] == [
        f"{animation}: hints work for still pictures only, and it is an animation",
        f"{film}: hints are for pictures, and it is a video",
    ]
    assert lines[2].startswith(f"{broken}: {broken}.hints.json: not valid JSON")
    assert lines[3].startswith(f"{far}: the hint at x 500, y 1 lies outside")
    assert len(lines) == 4
    assert [one["name"] for one in photos_of(Page(tmp_path / "page.html"))] == ["a.png"]
    for arguments, message in (
        ((files[4],), f"no such file or directory: {files[4]}"),
        (("-",), "retouch cannot read standard input (-); give files or directories"),
        (
            (photo, "--page", tmp_path / "page.png"),
            f"the page {tmp_path / 'page.png'} must end in .html or .htm",
        ),
    ):
        result = invoke(models, *arguments)
        assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, f"colorize: {message}")
    result = invoke(models, broken, "--page", tmp_path / "none.html")
    assert result.exit_code == 1
    assert not (tmp_path / "none.html").exists()


def test_retouch_of_too_many_photographs_is_refused(models, make_folder, tmp_path):
    result = invoke(models, make_folder(tmp_path / "in", 51), "--page", tmp_path / "page.html")
    assert result.exit_code == 2
    assert "retouch takes at most 50 photographs for one page; 51 given" in result.stderr


def test_hostile_names_are_text_in_the_page(models, gray_photo, tmp_path):
    names = [name for name in ATTACKS if "/" not in name]
    (tmp_path / "in").mkdir()
    for name in names:
        Image.fromarray(gray_photo).save(tmp_path / "in" / name)
    assert invoke(models, tmp_path / "in", "--page", tmp_path / "page.html").exit_code == 0
    page = Page(tmp_path / "page.html")
    assert {one["name"] for one in photos_of(page)} == set(names)
    assert sum(tag == "script" for tag, _ in page.tags) == 1 + len(names)
    assert not any(name.startswith("on") or name == "autofocus" for _, held in page.tags for name in held)


@needs_chromium
def test_hints_placed_by_mouse_are_saved_and_color_the_picture(models, browser, opened, photo, tmp_path):
    opened(tmp_path / "page.html", photo)
    browser.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "downloads"))
    assert browser.evaluate("[$('save').disabled, $('undo').disabled]") == [True, True]
    point(browser, (0.25, 0.25))
    browser.evaluate("document.querySelector('.things button[value=\"#a8322d\"]').click()")
    point(browser, (0.6, 0.8), (0.65, 0.8), (0.75, 0.82))
    browser.evaluate("document.querySelector('.things button[value=\"#2a3a6f\"]').click()")
    assert browser.evaluate("$('count').textContent") == "Hints (2)"
    browser.evaluate("$('save').click()")
    saved = tmp_path / "downloads" / "a.png.hints.json"
    for _ in range(500):
        if saved.exists():
            break
        time.sleep(0.02)
    hints = json.loads(saved.read_text())
    assert hints.keys() == {"points", "strokes"}
    (one,), (stroke,) = hints["points"], hints["strokes"]
    assert (one["x"], one["y"]) == (pytest.approx(39.5, abs=0.3), pytest.approx(29.5, abs=0.3))
    assert stroke["points"][0] == pytest.approx([95.5, 95.5], abs=0.3)
    assert stroke["points"][-1] == pytest.approx([119.5, 97.9], abs=0.3)
    assert browser.evaluate("$('status').textContent") == (
        f"Saved a.png.hints.json to your downloads. Move it to {photo.parent}."
    )

    saved.rename(photo.parent / saved.name)
    line = [str(photo), str(tmp_path / "out.png"), "--model", str(models.tinted), "--device", "cpu"]
    assert CliRunner().invoke(cli.command, line).exit_code == 0
    made = np.asarray(Image.open(tmp_path / "out.png"))
    pixels = browser.evaluate("[...render(photo, 'hints').data]")
    shown = np.array(pixels, np.uint8).reshape(120, 160, 4)[..., :3]
    for (x, y), color in (((39, 29), "#a8322d"), ((100, 96), "#2a3a6f")):
        wanted = chroma(np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]))
        here = lab.srgb_to_lab(made[y, x] / 255)
        fitted = lab.fit_gamut(np.array([here[0], *wanted], np.float32))[1:]
        assert np.hypot(*(here[1:] - fitted)) <= 3
        assert np.hypot(*(chroma(shown[y, x]) - here[1:])) <= 3
    plain = np.asarray(Colorizer(models.tinted, "cpu").colorize(Image.open(photo)))
    change = np.hypot(*np.moveaxis(chroma(made) - chroma(plain), -1, 0))
    error = np.hypot(*np.moveaxis(chroma(made) - chroma(shown), -1, 0))
    covered = change > 10
    assert covered.mean() > 0.1
    assert np.median(error[covered]) < 1.5
    assert error[covered].mean() < 0.2 * change[covered].mean()  # a run follows edges more closely


@needs_chromium
def test_saved_color_has_the_chroma_of_the_preview_on_dark_places(browser, opened, tmp_path):
    Image.new("L", (160, 120), 3).save(tmp_path / "dark.png")
    opened(tmp_path / "page.html", tmp_path / "dark.png")
    point(browser, (0.5, 0.5))
    for value in ("#c9a24a", "#2a3a6f"):
        browser.evaluate(f"document.querySelector('.things button[value=\"{value}\"]').click()")
        (saved,) = browser.evaluate("hintsOf(photo).points")
        wanted, given = (
            chroma(np.array([int(text[i : i + 2], 16) for i in (1, 3, 5)]))
            for text in (value, saved["color"])
        )
        assert given == pytest.approx(wanted, abs=1)
        assert browser.evaluate("[photo.marks[0].a, photo.marks[0].b]") == pytest.approx(
            list(wanted), abs=0.1
        )
    browser.evaluate("$('known').value = '#000080'; $('known').dispatchEvent(new Event('input'))")
    (saved,) = browser.evaluate("hintsOf(photo).points")
    (navy,) = notation.from_object({"points": [{**saved, "color": "navy"}]}).marks
    (kept,) = notation.from_object({"points": [saved]}).marks
    assert browser.evaluate("[photo.marks[0].a, photo.marks[0].b]") == pytest.approx(navy.chroma, abs=0.1)
    assert kept.chroma == pytest.approx(navy.chroma, abs=1)
    browser.evaluate("recolor(200, 100)")  # sRGB has no cyan so colorful
    (saved,) = browser.evaluate("hintsOf(photo).points")
    given = chroma(np.array([int(saved["color"][i : i + 2], 16) for i in (1, 3, 5)]))
    assert browser.evaluate("[photo.marks[0].a, photo.marks[0].b]") == pytest.approx(list(given), abs=1.5)


@needs_chromium
def test_hints_in_the_file_are_shown_and_saved_as_they_were(browser, opened, photo, tmp_path):
    (photo.parent / "a.png.hints.json").write_text(json.dumps(HINTS))
    opened(tmp_path / "page.html", photo)
    assert browser.evaluate(
        "[...document.querySelectorAll('#list .pick')].map((each) => each.textContent)"
    ) == [
        " 1 · point at 30, 26",
        " 2 · stroke from 100, 40",
    ]
    assert browser.evaluate("hintsOf(photo)") == HINTS
    assert browser.evaluate("document.querySelectorAll('#marks g').length") == 2


@needs_chromium
def test_hints_are_placed_moved_and_deleted_with_the_keyboard(browser, opened, photo, tmp_path):
    opened(tmp_path / "page.html", photo)
    browser.evaluate("$('stage').focus()")
    unit = max(1, browser.evaluate("pixel()"))
    press(browser, "Enter", 13)
    places = [browser.evaluate("hintsOf(photo).points.map(({x, y}) => [x, y])")]
    for key, code, modifiers in (("ArrowRight", 39, 0), ("ArrowUp", 38, 8)):
        press(browser, key, code, modifiers)
        places.append(browser.evaluate("hintsOf(photo).points.map(({x, y}) => [x, y])"))
    assert places[0] == [[80, 60]]
    assert places[1] == [[pytest.approx(80 + unit, abs=0.1), 60]]
    assert places[2] == [[places[1][0][0], pytest.approx(60 - 10 * unit, abs=0.1)]]
    press(browser, "Delete", 46)
    counts = [browser.evaluate("photo.marks.length")]
    for modifiers in (2, 2, 2, 2 | 8, 2 | 8):  # Control, and with Shift
        press(browser, "z", 90, modifiers)
        counts.append(browser.evaluate("photo.marks.length"))
    assert counts == [0, 1, 1, 0, 1, 1]
    browser.evaluate("document.querySelector('#list .pick').focus()")
    press(browser, "ArrowDown", 40)
    assert browser.evaluate("document.activeElement.className") == "pick"
    press(browser, "Delete", 46)
    assert browser.evaluate("[photo.marks.length, document.activeElement.id]") == [0, "stage"]


@needs_chromium
@pytest.mark.parametrize("size", [(160, 120), (320, 240)])
def test_preview_spreads_hints_as_a_run_does(browser, opened, gray_photo, tmp_path, monkeypatch, size):
    monkeypatch.setattr(propagation, "_MAX_PIXELS", 160 * 120)  # the larger picture is reduced
    image = Image.fromarray(gray_photo).resize(size)
    image.save(tmp_path / "a.png")
    scale = size[0] / 160
    points = [(30, 25, "#8a3a2a", 3), (110, 80, "#2a4a8a", 2), (34, 28, "#3a8a2a", 2)]
    hints = {
        "points": [
            {"x": x * scale, "y": y * scale, "color": c, "radius": r * scale} for x, y, c, r in points
        ],
        "strokes": [
            {
                "points": [[60 * scale, 100 * scale], [90 * scale, 60 * scale]],
                "color": "#806020",
                "width": 4 * scale,
            }
        ],
    }
    (tmp_path / "a.png.hints.json").write_text(json.dumps(hints))
    opened(tmp_path / "page.html", tmp_path / "a.png")
    drawn = notation.from_object(hints)
    lightness = Lightness(np.asarray(image), GRAY8)
    expected = propagation.spread(lightness, functools.partial(drawn.rows, lightness.shape)).planes
    over = "(({a, b, cover}) => [...a, ...b, ...cover].map((each) => each.toFixed(4)).join())"
    planes = browser.evaluate(f"{over}(spread(photo, photo.marks, pinsOf(photo, photo.marks)))")
    planes = np.array(planes.split(","), np.float32).reshape(expected.shape)
    assert (expected[2] > 0.5).mean() > 0.05
    assert np.abs(planes[2] - expected[2]).mean() < 0.005
    assert (np.abs(planes[2] - expected[2]) > 0.1).mean() < 0.005
    assert np.abs(planes[:2] - expected[:2]).mean() < 0.2


@needs_chromium
@pytest.mark.parametrize("width", [1280, 390])
def test_page_fits_its_window_and_names_its_controls(browser, opened, photo, tmp_path, width):
    second = photo.with_name("b with a long name, which does not fit into a narrow window of a telephone.png")
    turned = Image.open(photo).transpose(Image.Transpose.ROTATE_90)
    flipped = turned.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    Image.merge("RGB", (turned, flipped, turned)).save(second)
    opened(tmp_path / "page.html", photo, second, width=width)
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
    browser.evaluate("show(1), show(0), show(1), 0")
    until(browser, "photo === photos[1]")
    assert browser.evaluate("$('file').textContent") == f"{second.name}.hints.json"
    where = browser.evaluate("$('where').textContent")
    assert where.startswith(f"{photo.parent} · 120 ")
    assert where.endswith(" pixels; already in color: give --if-colored recolor to colorize")
    point(browser, (0.5, 0.5))
    browser.evaluate("show(0)")
    point(browser, (0.2, 0.2), (0.8, 0.2))
    browser.evaluate("show(1)")
    assert browser.evaluate("photos.map((each) => each.marks.length)") == [1, 1]
    assert browser.evaluate("document.querySelector('#list .pick').textContent") == " 1 · point at 60, 80"
    tree = browser.call("Accessibility.getFullAXTree")["nodes"]
    controls = ("button", "slider", "combobox", "ColorWell", "application")
    names = [
        (node["role"]["value"], node.get("name", {}).get("value"))
        for node in tree
        if not node.get("ignored") and node["role"]["value"] in controls
    ]
    assert all(name for _, name in names), names
    assert {name for role, name in names if role in ("slider", "combobox")} == {
        "Photograph",
        "Show",
        "Hue",
        "Colorfulness",
        f"Radius: {browser.evaluate('photo.radius')} pixels",
    }
    assert not [
        event for event in browser.events if event["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")
    ]
