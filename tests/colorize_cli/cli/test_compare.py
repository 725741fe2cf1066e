import gc
import io
import json
import os
import statistics
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from colorize_cli import Colorizer
from colorize_cli.cli import compare
from colorize_cli.color import lab
from colorize_cli.core.settings import Settings
from colorize_cli.inference import model
from colorize_cli.report import comparison_page
from colorize_cli.report.benchmark import BenchmarkedModel, load
from colorize_cli.report.benchmark import compare as benchmark_compare
from colorize_cli.report.comparison_page import ComparisonPage
from colorize_cli.report.html import Page as GrowingPage
from colorize_cli.report.html import Spool
from tests.helpers.models import METADATA, write_model, write_rgb_model
from tests.helpers.pages import ATTACKS, Page, leads_to, needs_chromium
from tests.helpers.png_files import png_header
from tests.helpers.videos import Recipe, make

LINUX_NAME = os.fsdecode(b"undecodable \xff.png") if sys.platform == "linux" else "plain.png"


def invoke(*arguments: object):
    line = [*map(str, arguments), "--device", "cpu"]
    return CliRunner().invoke(compare.command, line, prog_name="colorize compare")


def run(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "colorize_cli", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=60, **options)


def two(models) -> tuple[object, ...]:
    return "--model", models.tinted, "--model", models.vivid


def as_jpeg(pixels: np.ndarray) -> np.ndarray:
    """Return pixels as stored in the page."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90, subsampling="4:4:4")
    with Image.open(file) as image:
        return np.asarray(image)


def column(page: Page, number: int) -> dict[str, str]:
    """Return a model's column of the table, by row name."""
    first, *rows = page.tables[0]
    assert first[number][0] == "ABCD"[number - 1]
    return {row[0]: row[number] for row in rows}


@pytest.fixture(scope="module")
def pictures(gray_photo, tmp_path_factory) -> Path:
    """A folder of two gray pictures, one of them transparent, and a color picture."""
    folder = tmp_path_factory.mktemp("pictures")
    Image.fromarray(gray_photo).resize((800, 600)).save(folder / "a.jpg")
    rgb = np.stack([gray_photo, np.roll(gray_photo, 40, axis=1), 255 - gray_photo], axis=-1)
    Image.fromarray(rgb).save(folder / "color.png")
    see_through = Image.fromarray(gray_photo).convert("LA")
    see_through.putalpha(Image.new("L", see_through.size, 0))
    see_through.save(folder / "clear.png")
    return folder


def test_compare_colorizes_as_each_model_alone(models, gray_photo, tmp_path):
    Image.fromarray(gray_photo).save(tmp_path / "a.png")
    result = invoke(tmp_path / "a.png", *two(models), "--strength", 0.5, tmp_path / "page.html")
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    page = Page(tmp_path / "page.html")
    before, *after = page.pictures()
    np.testing.assert_array_equal(before, as_jpeg(gray_photo))
    for number, (image, path) in enumerate(zip(after, (models.tinted, models.vivid), strict=True), 1):
        alone = Colorizer(path, "cpu", strength=0.5).colorize(gray_photo)
        np.testing.assert_array_equal(image, as_jpeg(alone))
        facts = column(page, number)
        assert float(facts["Colorfulness, mean"]) == pytest.approx(lab.colorfulness(alone), abs=0.06)
    assert page.attributes("img", "alt") == [
        "a.png, before",
        "a.png, colorized by A",
        "a.png, colorized by B",
    ]


def test_table_describes_each_model(models, pictures, tmp_path):
    theirs = write_rgb_model(tmp_path / "theirs.onnx", "ddcolor", side=64, batch=1)
    result = invoke(pictures, "--model", models.tinted, "--model", theirs, tmp_path / "page.html")
    assert result.exit_code == 0, result.output
    page = Page(tmp_path / "page.html")
    ours, other = column(page, 1), column(page, 2)
    assert (ours["File"], other["File"]) == (str(models.tinted), str(theirs))
    assert (ours["Name in file"], ours["Kind"]) == ("stand-in", "native")
    assert (ours["License"], other["Kind"]) == ("CC0-1.0", "ddcolor")
    assert (ours["Working size"], ours["Device"], ours["Precision"]) == ("64 pixels", "cpu", "fp32")
    assert ours["Pictures that failed"] == "0"
    assert float(ours["… in the network"]) <= float(ours["Seconds per picture, median"])
    assert [head.split()[0] for head in page.text["th"][:2]] == ["A", "B"]


def test_model_named_twice_is_compared_with_itself(models, pictures, tmp_path):
    result = invoke(
        pictures, "--model", models.gray, "--model", models.gray, "--model", "default", tmp_path / "page.html"
    )
    assert result.exit_code == 0, result.output
    page = Page(tmp_path / "page.html")
    assert [column(page, number)["File"] for number in (1, 2, 3)] == [
        str(models.gray),
        str(models.gray),
        "the bundled model",
    ]
    assert column(page, 1)["Colorfulness, mean"] == column(page, 2)["Colorfulness, mean"] == "0.0"
    assert page.text["button"] == ["0 All", "1 A gray.onnx", "2 B gray.onnx", "3 C default"]


def test_pictures_are_reduced_and_described(models, pictures, tmp_path):
    assert invoke(pictures, *two(models), "--side", 100, tmp_path / "page.html").exit_code == 0
    page = Page(tmp_path / "page.html")
    assert page.text["h2"] == ["a.jpg", "clear.png", "color.png"]
    images = page.pictures()
    assert [image.size for image in images[::3]] == [(100, 75)] * 3
    assert [image.mode for image in images] == ["L", "RGB", "RGB"] * 3
    assert all(np.asarray(image).min() == 255 for image in images[3:6])
    a, clear, color = page.text["article"]
    assert "800 \xd7 600 pixels" in a
    assert "treated as gray" not in a + clear
    assert "already in color, treated as gray" in color
    assert "Already in color, treated as gray: 1 of the pictures." in page.html
    assert "up to 100 pixels long, JPEGs of quality 90" in page.text["ul"][1]


def test_document_is_compared_by_its_first_page(models, gray_photo, tmp_path):
    first, second = Image.fromarray(gray_photo), Image.fromarray(255 - gray_photo)
    first.save(tmp_path / "two.tif", save_all=True, append_images=[second])
    assert invoke(tmp_path / "two.tif", *two(models), tmp_path / "page.html").exit_code == 0
    page = Page(tmp_path / "page.html")
    assert "first of 2 pages" in page.text["article"][0]
    np.testing.assert_array_equal(page.pictures()[0], as_jpeg(gray_photo))


def test_bad_files_are_listed_and_the_rest_compared(models, pictures, tmp_path):
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "empty.jpg").touch()
    (bad / "huge.png").write_bytes(png_header(30000, 30000))
    (bad / "<b>.jpg").write_text("no picture")
    (bad / "notes.txt").touch()
    video = make(tmp_path / "film.mp4", Recipe(frames=2))
    done = run("compare", bad, pictures, video, *two(models), "--device", "cpu", "-q", tmp_path / "page.html")
    assert (done.returncode, done.stdout) == (1, "")
    lines = done.stderr.splitlines()
    assert [line.split(": ")[0] for line in lines] == [
        *(str(bad / name) for name in ("<b>.jpg", "empty.jpg", "huge.png")),
        str(video),
    ]
    assert "videos are not compared" in lines[-1]
    page = Page(tmp_path / "page.html")
    assert page.text["h2"] == ["Not compared 4", "a.jpg", "clear.png", "color.png"]
    rows = page.tables[1][1:]
    assert [f"{path}: {reason}" for path, reason in rows] == lines


def test_video_in_a_folder_is_ignored(models, pictures, gray_photo, tmp_path):
    Image.fromarray(gray_photo).save(tmp_path / "a.png")
    make(tmp_path / "film.mp4", Recipe(frames=2))
    result = invoke(tmp_path, *two(models), tmp_path / "page.html")
    assert result.exit_code == 0
    assert "files of other kinds ignored: .mp4 1" in result.stderr
    assert Page(tmp_path / "page.html").text["h2"] == ["a.png"]


@pytest.mark.usefixtures("locked")
def test_compare_directory_that_cannot_be_searched_fails_alone(models, gray_photo, tmp_path):
    Image.fromarray(gray_photo).save(tmp_path / "a.png")
    (tmp_path / "locked").mkdir()
    result = invoke(tmp_path, *two(models), tmp_path / "page.html")
    assert result.exit_code == 1
    assert f"{tmp_path}/locked: cannot search it: Permission denied" in result.stderr.splitlines()
    assert "cannot search it: Permission denied" in (tmp_path / "page.html").read_text()
    assert result.stderr.splitlines()[-1] == "1 done, 0 skipped, 1 failed"


def test_model_that_fails_does_not_hide_the_others(models, pictures, tmp_path):
    broken = write_model(tmp_path / "broken.onnx", (np.inf, 0), (0, 0))
    result = invoke(pictures, "--model", broken, "--model", models.tinted, tmp_path / "page.html")
    assert result.exit_code == 1
    failures = [line for line in result.stderr.splitlines() if "not finite" in line]
    assert len(failures) == 3
    assert failures[0].startswith(f"{pictures / 'a.jpg'}: model A ({broken}): ")
    page = Page(tmp_path / "page.html")
    assert len(page.pictures()) == 2 * 3
    assert page.html.count("No result: stand-in returned values that are not finite") == 3
    assert column(page, 1)["Pictures that failed"] == "3"
    assert column(page, 1)["Seconds per picture, median"] == "\u2013"
    assert column(page, 2)["Pictures that failed"] == "0"


def test_seconds_exclude_the_first_call(models, gray_photo, tmp_path, monkeypatch):
    for name, size in (("a.png", (160, 120)), ("b.png", (160, 120)), ("c.png", (100, 100))):
        Image.fromarray(gray_photo).resize(size).save(tmp_path / name)
    met: set[tuple[int, tuple[int, ...]]] = set()
    calls = []
    predict = model.Model.predict

    def slow_at_first(self, lightness):
        calls.append(lightness.shape)
        if (id(self), lightness.shape) not in met:
            met.add((id(self), lightness.shape))
            time.sleep(0.5)
        return predict(self, lightness)

    monkeypatch.setattr(model.Model, "predict", slow_at_first)
    assert invoke(tmp_path, *two(models), tmp_path / "page.html").exit_code == 0
    assert len(calls) == 2 * (3 + 2)
    for number in (1, 2):
        assert float(column(Page(tmp_path / "page.html"), number)["Seconds per picture, median"]) < 0.5


def test_seconds_include_all_steps(models, gray_photo, tmp_path):
    Image.fromarray(gray_photo).save(tmp_path / "a.png")
    candidates = load([("one", models.tinted), ("two", models.vivid)], Settings(device="cpu"))
    begun = time.perf_counter()
    compared = benchmark_compare(tmp_path / "a.png", candidates, 10**6, 64)
    whole = time.perf_counter() - begun
    assert [candidate.letter for candidate in candidates] == ["A", "B"]
    assert all(0 < result.network_seconds < result.seconds for result in compared.results)
    assert sum(result.seconds for result in compared.results) < whole


def test_table_shows_medians_and_means(models, gray_photo, tmp_path):
    for number in range(3):
        Image.fromarray(np.roll(gray_photo, 30 * number, axis=1)).save(tmp_path / f"{number}.png")
    assert invoke(tmp_path, *two(models), tmp_path / "page.html").exit_code == 0
    page = Page(tmp_path / "page.html")
    captions = [caption.split() for caption in page.text["figcaption"] if "colorfulness" in caption]
    for number, own in ((1, captions[::2]), (2, captions[1::2])):
        seconds, colors = ([float(words[place]) for words in own] for place in (2, 5))
        facts = column(page, number)
        assert float(facts["Seconds per picture, median"]) == statistics.median(seconds)
        assert float(facts["Colorfulness, mean"]) == pytest.approx(statistics.mean(colors), abs=0.11)


def test_pictures_beyond_the_limit_have_figures_only(models, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(comparison_page, "SHOWN", 1)
    assert invoke(pictures, *two(models), tmp_path / "page.html").exit_code == 0
    page = Page(tmp_path / "page.html")
    assert len(page.pictures()) == 3
    assert page.text["h2"] == ["a.jpg", "Further pictures 2"]
    names, *rows = page.tables[1]
    assert [name.split()[0] for name in names] == ["File", "A", "B"]
    assert [row[0] for row in rows] == [str(pictures / "clear.png"), str(pictures / "color.png")]
    assert all("colorfulness" in cell for row in rows for cell in row[1:])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["in", "out"], "after --model; 0 given; to colorize a directory of this name, give ./compare"),
        (["in", "--model", "default", "page.html"], "takes 2 to 4 models, each after --model; 1 given"),
        (
            ["in", *["--model", "default"] * 5, "page.html"],
            "takes 2 to 4 models, each after --model; 5 given",
        ),
        (["in", *["--model", "default"] * 2, "page.png"], "must end in .html or .htm"),
        (["in", *["--model", "default"] * 2, "folder.html"], "is a directory"),
        (["in", "--model", "default", "--model", "absent", "page.html"], "model B (absent): cannot read the"),
        (
            ["in", "--model", "text.onnx", "--model", "default", "page.html"],
            "model A (text.onnx): cannot use the model text.onnx: not an ONNX",
        ),
        (["absent", *["--model", "default"] * 2, "page.html"], "no such file or directory: absent"),
        (["folder.html", *["--model", "default"] * 2, "page.html"], "nothing to compare"),
        (["-", *["--model", "default"] * 2, "page.html"], "standard input"),
        (["in", *["--model", "default"] * 2, "--device", "abacus", "page.html"], "no such device: abacus"),
    ],
)
def test_wrong_usage_exits_2_with_one_line(pictures, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("in").symlink_to(pictures)
    Path("folder.html").mkdir()
    Path("text.onnx").write_text("no model")
    line = ["--device", "cpu", *arguments]
    result = CliRunner().invoke(compare.command, line)
    assert result.exit_code == 2
    (printed,) = result.stderr.splitlines()
    assert message in printed
    assert not Path("page.html").exists()


def test_help_states_quality_and_limit():
    help_ = " ".join(CliRunner().invoke(compare.command, ["--help"]).output.split())
    for text in (
        "Exit status",
        f"quality {comparison_page.QUALITY}",
        f"the first {comparison_page.SHOWN} are",
    ):
        assert text in help_
    assert all(option.help for option in compare.command.params if option.param_type_name == "option")


def test_import_of_compare_loads_nothing_heavy():
    heavy = ("PIL", "av", "cv2", "jinja2", "numpy", "onnxruntime", "platformdirs")
    code = f"import sys, colorize_cli.cli.compare; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_interrupted_run_writes_a_page_of_the_finished_pictures(models, pictures, tmp_path, monkeypatch):
    colorize, calls = BenchmarkedModel.colorize, []

    def interrupt(self, frame, side):
        calls.append(frame)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return colorize(self, frame, side)

    monkeypatch.setattr(BenchmarkedModel, "colorize", interrupt)
    result = invoke(pictures, *two(models), tmp_path / "page.html")
    assert result.exit_code == 130
    assert "interrupted: 1 done, 0 skipped, 0 failed, 2 left" in result.stderr
    page = Page(tmp_path / "page.html")
    assert "did not finish: interrupted" in page.html
    assert page.text["h2"] == ["a.jpg"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_full_disk_is_one_line_without_a_page(models, pictures, tmp_path, monkeypatch):
    def full(self):
        return Spool(self._files.enter_context(Path("/dev/full").open("r+b", buffering=0)))

    monkeypatch.setattr("colorize_cli.report.html.Page.spool", full)
    result = invoke(pictures, *two(models), "--quiet", tmp_path / "page.html")
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line == f"colorize: cannot write the page {tmp_path / 'page.html'}: No space left on device"
    assert list(tmp_path.iterdir()) == []


def test_memory_is_independent_of_the_number_of_pictures(models, pictures, tmp_path):
    candidates = load([("one", models.tinted), ("two", models.vivid)], Settings(device="cpu"))
    with GrowingPage(tmp_path / "page.html", "page") as growing:
        made = ComparisonPage(growing, candidates, Settings(), 640)

        def held_after(count: int) -> int:
            for _ in range(count):
                made.add(benchmark_compare(pictures / "a.jpg", candidates, 10**6, 640))
                made.fail(pictures / "b.jpg", "reason " * 100)
            gc.collect()
            return tracemalloc.get_traced_memory()[0]

        tracemalloc.start()
        try:
            growth = -held_after(3) + held_after(10)
        finally:
            tracemalloc.stop()
        made.write()
    assert growth < (tmp_path / "page.html").stat().st_size / 20


@pytest.fixture
def attacked(gray_photo, tmp_path) -> Path:
    """A page of pictures, invalid files and models, all with hostile names."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in (*ATTACKS, LINUX_NAME):
        Image.fromarray(gray_photo).save(folder / name, format="PNG")
        (folder / f"not {name}").write_text("no picture")
    metadata = METADATA | {
        "colorize.name": "<script>document.title='owned'</script>",
        "colorize.licence": "<b>",
    }
    hostile = write_model(
        tmp_path / "\"><img src=x onerror=document.title='owned'>.onnx", (0.4, 0), (0, 0), metadata
    )
    broken = write_model(tmp_path / "<i>broken.onnx", (np.nan, 0), (0, 0), metadata)
    lines = ("--model", hostile, "--model", hostile, "--model", broken)
    assert invoke(folder, *lines, tmp_path / "page.html").exit_code == 1
    return tmp_path / "page.html"


def test_hostile_names_are_text_and_links_are_right(attacked):
    page = Page(attacked)
    count = len(ATTACKS) + 1
    counts = {tag: sum(found == tag for found, _ in page.tags) for tag in ("img", "script", "input", "i")}
    assert counts == {"img": 3 * count, "script": 1, "input": 1, "i": 0}
    assert not any(name.startswith("on") or name == "autofocus" for _, held in page.tags for name in held)
    assert column(page, 1)["Name in file"] == "<script>document.title='owned'</script>"
    addresses = [href for href in page.attributes("a", "href") if not href.startswith("#")]
    files = {os.fsencode(path) for path in attacked.parent.rglob("*") if path.is_file() and path != attacked}
    assert {leads_to(attacked, href) for href in addresses} == files
    assert "://" not in page.html


def test_page_policy_allows_only_the_page(attacked):
    page = Page(attacked)
    assert not {"link", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.attributes("img", "src"))
    policy = page.attributes("meta", "content")[0]
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert "unsafe" not in policy
    assert policy.count("'sha256-") == 2


@needs_chromium
def test_browser_runs_no_attack_and_fetches_nothing(browser, attacked):
    browser.visit(attacked)
    assert browser.evaluate("document.title") == "colorize: Comparison of models"
    assert browser.evaluate("[...document.images].every(i => i.src.startsWith('data:image/jpeg;'))")
    requests = [e["params"]["request"] for e in browser.events if e["method"] == "Network.requestWillBeSent"]
    assert {request["url"] for request in requests if not request["url"].startswith("data:")} == {
        attacked.as_uri()
    }
    # Nothing that the page needs violates its policy.
    assert [event for event in browser.events if event["method"] == "Log.entryAdded"] == []
    assert browser.evaluate("document.documentElement.className") == "script"


PAIRS = "[...document.querySelectorAll('.pair')]"
SHOWN = f"{PAIRS}.map(p => getComputedStyle(p.querySelector('img + img')).clipPath)"
SEEN = (
    "[...document.querySelectorAll('figure')].filter(f => f.offsetWidth).map(f => f.classList[1] ?? 'before')"
)
VALUES = "[...document.querySelectorAll('input')].map(i => i.value)"


@pytest.fixture
def visited(browser, models, pictures, tmp_path):
    """The browser, showing a page of three pictures by two models."""
    assert invoke(pictures, *two(models), tmp_path / "page.html").exit_code == 0
    browser.visit(tmp_path / "page.html")
    return browser


@needs_chromium
def test_slider_moves_all_pictures(visited):
    assert visited.evaluate(VALUES) == ["30"] * (1 + 6)
    for _ in range(40):
        visited.press("Tab", 9)
        if visited.evaluate("document.activeElement.matches('.bar input')"):
            break
    assert "shown as before" in visited.evaluate("document.activeElement.ariaLabel")
    for _ in range(5):
        visited.press("ArrowRight", 39)
    assert visited.evaluate(SHOWN) == ["inset(0px 0px 0px 35%)"] * 6
    assert visited.evaluate(VALUES) == ["35"] * 7
    assert visited.evaluate("document.querySelector('output').value") == "35 %"
    visited.press("End", 35)
    assert visited.evaluate(SHOWN) == ["inset(0px 0px 0px 100%)"] * 6
    visited.press("Tab", 9)
    assert not visited.evaluate("document.activeElement.matches('input')"), "one tab stop for all"


@needs_chromium
def test_slider_follows_arrow_keys_and_pointer(visited):
    visited.evaluate("document.activeElement.blur()")
    for _ in range(3):
        visited.press("ArrowLeft", 37)
    assert visited.evaluate(SHOWN) == ["inset(0px 0px 0px 27%)"] * 6
    visited.evaluate("document.querySelector('.wide').focus()")
    visited.press("ArrowLeft", 37)  # scrolls the table
    assert visited.evaluate(VALUES) == ["27"] * 7
    visited.show_a_pair()
    left, top, width, height = visited.evaluate(
        "(({x, y, width, height}) => [x, y, width, height])(document.querySelector('.m2 .pair')"
        ".getBoundingClientRect())"
    )
    place = {"x": left + 0.8 * width, "y": top + height / 3, "button": "left", "clickCount": 1}
    for kind in ("mousePressed", "mouseReleased"):
        visited.call("Input.dispatchMouseEvent", type=kind, **place)
    assert visited.evaluate(VALUES) == ["80"] * 7
    assert visited.evaluate(SHOWN) == ["inset(0px 0px 0px 80%)"] * 6
    for _ in range(25):
        visited.press("ArrowRight", 39)
    assert visited.evaluate(SHOWN) == ["inset(0px 0px 0px 100%)"] * 6


@needs_chromium
def test_keys_and_buttons_select_models(visited):
    pressed = "document.querySelector('[aria-pressed=true]').value"
    assert visited.evaluate(SEEN) == ["m1", "m2"] * 3
    visited.press("2", 50)
    assert (visited.evaluate(SEEN), visited.evaluate(pressed)) == (["m2"] * 3, "2")
    visited.press("3", 51)  # there is no third model
    assert visited.evaluate(SEEN) == ["m2"] * 3
    visited.evaluate("document.querySelector('button[value=\"1\"]').click()")
    assert (visited.evaluate(SEEN), visited.evaluate(pressed)) == (["m1"] * 3, "1")
    visited.press("0", 48)
    assert visited.evaluate(SEEN) == ["m1", "m2"] * 3


@needs_chromium
def test_scroll_position_stays_when_models_change(visited):
    third = "document.querySelectorAll('.card')[2]"
    visited.call(
        "Emulation.setDeviceMetricsOverride", width=1000, height=500, deviceScaleFactor=1, mobile=False
    )
    visited.evaluate(f"{third}.scrollIntoView({{block: 'start', behavior: 'instant'}})")
    visited.press("1", 49)
    before = visited.evaluate(f"{third}.getBoundingClientRect().top")
    visited.press("0", 48)
    assert visited.evaluate(f"{third}.getBoundingClientRect().top") == pytest.approx(before, abs=2)
    visited.call("Emulation.clearDeviceMetricsOverride")


@needs_chromium
@pytest.mark.parametrize("width", [360, 390, 1280])
def test_pictures_overlap_exactly_at_any_width(visited, width):
    visited.call(
        "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
    )
    visited.show_a_pair()
    assert visited.evaluate("document.documentElement.scrollWidth <= innerWidth")
    boxes = visited.evaluate(
        f"{PAIRS}.map(p => [...p.querySelectorAll('img')]"
        ".map(i => JSON.stringify(i.getBoundingClientRect())))"
    )
    assert all(before == after for before, after in boxes)
    sizes = [json.loads(before) for before, _ in boxes]
    assert sizes[0]["width"] / sizes[0]["height"] == pytest.approx(4 / 3, rel=0.02)
    assert sizes[0]["y"] == sizes[1]["y"], "two models are side by side on a phone too"
    visited.call("Emulation.clearDeviceMetricsOverride")


@needs_chromium
def test_page_without_scripts_or_in_print_shows_all(browser, models, pictures, tmp_path):
    assert invoke(pictures, *two(models), tmp_path / "page.html").exit_code == 0
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.visit(tmp_path / "page.html")
        assert browser.evaluate(SEEN) == ["before", "m1", "m2"] * 3
        assert browser.evaluate("document.querySelector('.bar').offsetWidth") == 0
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
    browser.visit(tmp_path / "page.html")
    browser.press("2", 50)
    browser.call("Emulation.setEmulatedMedia", media="print")
    try:
        assert browser.evaluate(SEEN) == ["before", "m1", "m2"] * 3
        assert set(browser.evaluate(SHOWN)) == {"none"}
        assert browser.evaluate("document.querySelector('.bar').offsetWidth") == 0
    finally:
        browser.call("Emulation.setEmulatedMedia", media="")
