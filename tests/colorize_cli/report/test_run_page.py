import gc
import os
import sys
import tracemalloc
from pathlib import Path
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from colorize_cli.core.errors import UsageError, WriteError
from colorize_cli.core.jobs import Job, Outcome, Status
from colorize_cli.core.location import STREAM
from colorize_cli.core.settings import Settings, VideoSettings
from colorize_cli.report import run_page
from colorize_cli.report.run_page import SIDE, Report
from tests.helpers.pages import ATTACKS, Page, leads_to, needs_chromium
from tests.helpers.png_files import png_header


def colored_pair(folder: Path, name: str, compose_rgb8: tuple[int, int, int] = (200, 120, 40)) -> Job:
    """Make the files of a finished job: a gray file and a file of a single color, 640 x 400."""
    job = Job(folder / "in" / name, folder / "out" / name)
    for path, image in (
        (job.source, Image.new("L", (640, 400), sum(compose_rgb8) // 3)),
        (job.destination, Image.new("RGB", (640, 400), compose_rgb8)),
    ):
        path.parent.mkdir(exist_ok=True)
        image.save(path)
    return job


def page_of(path: Path, *outcomes: Outcome, settings: Settings | None = None) -> Page:
    with Report(path, settings or Settings()) as made:
        for outcome in outcomes:
            made.add(outcome)
        made.write()
    return Page(path)


def test_pictures_are_in_the_order_of_outcomes(tmp_path):
    tints = [(200, 120, 40), (30, 90, 160), (90, 200, 70)]
    jobs = [colored_pair(tmp_path, f"{n}.png", compose_rgb8) for n, compose_rgb8 in enumerate(tints)]
    page = page_of(tmp_path / "page.html", *(Outcome(job, Status.DONE) for job in reversed(jobs)))
    pictures = page.pictures()
    for before, after, compose_rgb8 in zip(pictures[::2], pictures[1::2], reversed(tints), strict=True):
        assert before.size == after.size == (SIDE, SIDE * 400 // 640)
        assert (before.mode, after.mode) == ("L", "RGB")
        assert np.abs(np.asarray(before).astype(int) - sum(compose_rgb8) // 3).max() <= 3
        assert np.abs(np.asarray(after).astype(int) - compose_rgb8).max() <= 6
    assert page.text["h3"] == ["2.png", "1.png", "0.png"]
    assert page.attributes("img", "alt") == ["Before", "After"] * 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_pictures_are_rotated_alike(gray_photo, tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    job = Job(tmp_path / f"in{suffix}", tmp_path / "out.bmp")
    Image.fromarray(gray_photo).resize((1600, 1200)).save(job.source, exif=exif)
    # Pillow 13 scrambles rotated TIFF files that it opens by name and maps into memory.
    with job.source.open("rb") as file, Image.open(file) as image:
        ImageOps.exif_transpose(image).convert("RGB").save(job.destination)
    before, after = page_of(tmp_path / "page.html", Outcome(job, Status.DONE)).pictures()
    assert max(before.size) == SIDE
    assert before.size == after.size
    assert np.abs(np.asarray(before).astype(int) - np.asarray(after.convert("L"))).mean() <= 3


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_picture_of_every_mode_is_shown(gray_photo, tmp_path, mode):
    gray = Image.fromarray(gray_photo)
    wide = Image.fromarray(gray_photo.astype(np.uint16) * 257)
    image = wide if mode == "I;16" else gray.convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.new("L", gray.size, 0))
    image.save(tmp_path / "in.png")
    expected = 255.0 if mode in ("LA", "RGBA") else float(gray_photo.mean())
    outcome = Outcome(Job(tmp_path / "in.png", tmp_path / "in.png"), Status.SKIPPED)
    for picture in page_of(tmp_path / "page.html", outcome).pictures():
        assert np.asarray(picture).mean() == pytest.approx(expected, abs=2)


def test_small_picture_is_not_enlarged(gray_photo, tmp_path):
    Image.fromarray(gray_photo).save(tmp_path / "a.png")
    outcome = Outcome(Job(tmp_path / "a.png", tmp_path / "a.png"), Status.DONE)
    assert [picture.size for picture in page_of(tmp_path / "p.html", outcome).pictures()] == [(160, 120)] * 2


def test_hostile_names_are_text_and_links_are_right(tmp_path):
    jobs = [colored_pair(tmp_path, name) for name in ATTACKS]
    if sys.platform == "linux":
        jobs.append(colored_pair(tmp_path, os.fsdecode(b"undecodable \xff.png")))
    (tmp_path / "deep" / "folder").mkdir(parents=True)
    path = tmp_path / "deep" / "folder" / "page.html"
    page = page_of(
        path,
        *(Outcome(job, Status.DONE) for job in jobs),
        *(Outcome(job, Status.FAILED, f"reason: {job.source.name}") for job in jobs),
    )
    counts = {tag: sum(found == tag for found, _ in page.tags) for tag in ("img", "script", "input")}
    assert counts == {"img": 2 * len(jobs), "script": 1, "input": len(jobs)}
    assert not any(name.startswith("on") or name == "autofocus" for _, held in page.tags for name in held)
    assert page.text["h3"][: len(ATTACKS)] == [
        *ATTACKS[:4],
        "line\\nbreak\\x1b[31m.png",
        *ATTACKS[5:8],
        "größer 写真 \\u202egnp.png",
    ]
    addresses = [href for href in page.attributes("a", "href") if not href.startswith("#")]
    files = [os.fsencode(path) for job in jobs for path in (job.source, job.destination)]
    assert [leads_to(path, href) for href in addresses] == files[::2] + files
    assert f"reason: {ATTACKS[0]}" in page.text["table"][1]


def test_outcomes_are_grouped_with_failures_first(tmp_path):
    job = colored_pair(tmp_path, "a.png")
    broken = Job(tmp_path / "in" / "b.png", tmp_path / "out" / "b.png")
    page = page_of(
        tmp_path / "page.html",
        Outcome(job, Status.SKIPPED, "its <output> exists"),
        Outcome(job, Status.DONE, None, {"decode": 0.25, "infer": 1.5}),
        Outcome(broken, Status.FAILED, "the file is empty"),
        Outcome(job, Status.SKIPPED, "up to date"),
    )
    assert page.text["h2"] == ["Failed 1", "Done 1", "Up to date 1", "Skipped 1"]
    assert page.attributes("section", "id") == ["failed", "done", "up-to-date", "skipped"]
    failed, done, _, skipped = page.text["section"]
    assert str(broken.source) in failed
    assert "the file is empty" in failed
    assert "1.8 s" in done
    assert "its <output> exists" in skipped
    assert [" ".join(entry.split()) for entry in page.text["li"][:-1]] == [
        "1 failed",
        "1 done",
        "1 up to date",
        "1 skipped",
    ]
    assert "time: infer1.5 s" in page.text["table"][0]


def test_cards_of_photographs_have_the_command_to_retouch_them(tmp_path):
    names = ("plain.png", "it's & <b>.png", "line\nbreak.png")
    outcomes = [Outcome(colored_pair(tmp_path, name), Status.DONE) for name in names]
    outcomes.append(Outcome(Job(tmp_path / "in" / "a.mp4", tmp_path / "out" / "a.mp4"), Status.SKIPPED))
    settings = Settings(model=tmp_path / "my.onnx", strength=0.5)
    page = page_of(tmp_path / "page.html", *outcomes, settings=settings)
    options = f"--model {tmp_path / 'my.onnx'} --strength 0.5"
    assert page.text["code"] == [
        f"colorize retouch {tmp_path / 'in' / 'plain.png'} {options}",
        f"""colorize retouch '{tmp_path}/in/it'"'"'s & <b>.png' {options}""",
    ]
    plain = page_of(tmp_path / "page.html", outcomes[0]).text["code"]
    assert plain == [f"colorize retouch {tmp_path / 'in' / 'plain.png'}"]


OF_PICTURES = {"format", "quality"}
OF_VIDEOS = {"steady", "every", "codec", "crf", "preset", "pixel format"}


def test_settings_that_applied_are_shown(tmp_path):
    settings = Settings(model=Path("<b>my</b>.onnx"), strength=0.75, overwrite=True, workers=3)
    done = [Outcome(Job(tmp_path / name, tmp_path / f"x{name}"), Status.DONE) for name in ("a.png", "b.mkv")]

    def names(*outcomes: Outcome, settings: Settings = settings) -> set[str]:
        page = page_of(tmp_path / "page.html", *outcomes, settings=settings)
        return {header for header in page.text["th"] if not header.startswith("time: ")}

    of_all = names(*done) - OF_PICTURES - OF_VIDEOS
    assert {"model", "device", "precision", "size", "strength", "overwrite", "workers", "engine"} <= of_all
    assert names(*done) == of_all | OF_PICTURES | OF_VIDEOS
    assert names(done[0]) == of_all | OF_PICTURES
    assert names(done[1]) == of_all | OF_VIDEOS
    trial = Settings(
        video=VideoSettings(start=3, preview=5, crf=20), hints=Path("h"), address="h:1", engine="ray"
    )
    assert names(*done, settings=trial) == of_all | OF_PICTURES | {"preview", "start", "hints", "address"}
    table = page_of(tmp_path / "page.html", done[0], settings=settings).text["table"][0]
    for value in ("<b>my</b>.onnx", "0.75", "overwriteyes", "workers3", "250,000,000", "sizethe default"):
        assert value in table
    assert "the bundled model" in page_of(tmp_path / "page.html").text["table"][0]


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_tiff_results_have_a_jpeg_in_the_page(tmp_path, kind):
    gray = np.tile(np.linspace(0, np.iinfo(kind).max, 900).astype(kind), (300, 1))
    job = Job(tmp_path / "a.tif", tmp_path / "b.tif")
    tifffile.imwrite(job.source, gray)
    tifffile.imwrite(job.destination, np.dstack([gray, gray // 2, gray // 4]), photometric="rgb")
    page = page_of(tmp_path / "page.html", Outcome(job, Status.DONE))
    assert [picture.size for picture in page.pictures()] == [(SIDE, 213)] * 2
    red, _, blue = np.asarray(page.pictures()[1], float).mean((0, 1))
    assert red > 3 * blue


def test_stopped_run_is_stated_in_the_page(tmp_path):
    with Report(tmp_path / "page.html", Settings()) as made:
        made.write("interrupted", left=1234)
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "did not finish: interrupted" in html
    assert "<b>1,234</b> left" in html


def test_page_embeds_all_its_files(tmp_path):
    page = page_of(tmp_path / "page.html", Outcome(colored_pair(tmp_path, "a.png"), Status.DONE))
    assert "://" not in page.html
    assert not {"link", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.attributes("img", "src"))
    assert page.attributes("script", "src") == []
    (policy,) = page.attributes("meta", "content")[:1]
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert "unsafe" not in policy


def test_files_without_preview_are_listed(tmp_path):
    whole = colored_pair(tmp_path, "a.png")
    gone = Job(tmp_path / "in" / "gone.png", whole.destination)
    (tmp_path / "in" / "text.png").write_text("no picture")
    (tmp_path / "out" / "huge.png").write_bytes(png_header(30000, 30000))
    (tmp_path / "in" / "cut.png").write_bytes(whole.source.read_bytes()[:300])
    page = page_of(
        tmp_path / "page.html",
        Outcome(gone, Status.DONE),
        Outcome(Job(tmp_path / "in" / "text.png", whole.destination), Status.DONE),
        Outcome(Job(whole.source, tmp_path / "out" / "huge.png"), Status.DONE),
        Outcome(Job(tmp_path / "in" / "cut.png", whole.destination), Status.DONE),
        Outcome(Job(STREAM, STREAM), Status.DONE),
        Outcome(whole, Status.DONE),
    )
    assert len(page.pictures()) == 2
    assert page.html.count("No preview of the before picture: ") == 3
    assert page.html.count("No preview of the after picture: 30000 x 30000 exceeds the limit") == 1
    assert page.html.count("No preview: the input or output was a pipe") == 1
    assert len(page.attributes("a", "href")) == 1 + 2 * 5


def test_pictures_beyond_the_limit_have_links_only(tmp_path, monkeypatch):
    monkeypatch.setattr(run_page, "SHOWN", 3)
    monkeypatch.setattr(run_page, "_ROWS_PER_TABLE", 2)
    job = colored_pair(tmp_path, "a.png")
    page = page_of(
        tmp_path / "page.html",
        *[Outcome(job, Status.SKIPPED, "exists")] * 8,
        *[Outcome(job, Status.DONE)] * 2,
    )
    assert len(page.pictures()) == 2 * (2 + 3)
    assert "The first 3 of 8 are shown above; the other 5 are listed here." in page.html
    assert sum(text.count(str(job.destination)) for text in page.text["table"]) == 5
    assert len(page.text["table"]) == 1 + 3
    assert len(page.attributes("a", "href")) == 2 + 2 * 10


def test_impossible_page_paths_are_refused_before_any_work(tmp_path):
    for name in ("photo.jpg", "page", "page.html.png"):
        with pytest.raises(UsageError, match=r"must end in \.html or \.htm"):
            Report(tmp_path / name, Settings())
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(UsageError, match="is a directory"):
        Report(tmp_path / "folder.html", Settings())
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="cannot write the report"):
        Report(tmp_path / "file" / "page.html", Settings())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.html"]


def test_page_that_fails_keeps_the_previous_one(tmp_path, monkeypatch):
    job = colored_pair(tmp_path, "a.png")
    path = tmp_path / "new folder" / "page.html"
    page_of(path, Outcome(job, Status.DONE))
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("colorize_cli.report.html.Spool.__iter__", full)
    with pytest.raises(WriteError, match="No space left on device"):
        page_of(path, Outcome(job, Status.SKIPPED))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_full_disk_is_an_error_at_the_end(tmp_path, monkeypatch):
    with Report(tmp_path / "page.html", Settings()) as made:
        full = "colorize_cli.report.html.tempfile.TemporaryFile"
        monkeypatch.setattr(full, lambda **_: Path("/dev/full").open("r+b"))  # noqa: SIM115
        for _ in range(200):
            made.add(Outcome(Job(Path("a.png"), Path("b.png")), Status.FAILED, "reason " * 20))
        with pytest.raises(WriteError, match="No space left on device"):
            made.write()
    assert list(tmp_path.iterdir()) == []


def test_memory_is_independent_of_the_number_of_outcomes(gray_photo, tmp_path):
    Image.fromarray(gray_photo).save(tmp_path / "a.png")
    job = Job(tmp_path / "a.png", tmp_path / "a.png")
    with Report(tmp_path / "page.html", Settings()) as made:

        def held_after(count: int) -> int:
            for _ in range(count):
                made.add(Outcome(job, Status.DONE, None, {"decode": 0.1}))
                made.add(Outcome(job, Status.FAILED, "reason " * 100))
            gc.collect()
            return tracemalloc.get_traced_memory()[0]

        tracemalloc.start()
        try:
            growth = -held_after(5) + held_after(50)
        finally:
            tracemalloc.stop()
        made.write()
    assert growth < (tmp_path / "page.html").stat().st_size / 20


@pytest.fixture
def attacked(tmp_path) -> Path:
    jobs = [colored_pair(tmp_path, name) for name in ATTACKS]
    outcomes = [Outcome(job, Status.DONE) for job in jobs]
    outcomes += [Outcome(job, Status.FAILED, job.source.name) for job in jobs]
    page_of(tmp_path / "page.html", *outcomes)
    return tmp_path / "page.html"


@needs_chromium
def test_browser_runs_no_attack_and_fetches_nothing(browser, attacked):
    browser.visit(attacked)
    assert browser.evaluate("document.title") == "colorize: Run report"
    assert browser.evaluate("document.querySelectorAll('input[type=range]').length") == len(ATTACKS)
    assert browser.evaluate("[...document.images].every(i => i.src.startsWith('data:image/jpeg;'))")
    requests = [e["params"]["request"] for e in browser.events if e["method"] == "Network.requestWillBeSent"]
    assert {request["url"].split(":")[0] for request in requests} <= {"file", "data"}
    assert [request["url"] for request in requests if request["url"].startswith("file")] == [
        attacked.as_uri()
    ]
    # Nothing that the page needs violates its policy.
    assert [event for event in browser.events if event["method"] == "Log.entryAdded"] == []
    addresses = browser.evaluate("[...document.querySelectorAll('section a')].map(a => a.href)")
    assert len(addresses) == 3 * len(ATTACKS)
    assert all(address.startswith("file:///") for address in addresses)
    assert all(Path(os.fsdecode(unquote_to_bytes(url.removeprefix("file://")))).exists() for url in addresses)


@needs_chromium
def test_slider_follows_the_arrow_keys(browser, attacked):
    browser.visit(attacked)
    browser.evaluate("document.querySelector('.grid .links a').scrollIntoView()")
    reached = "document.activeElement.matches('.pair input')"
    for _ in range(60):
        browser.press("Tab", 9)
        if browser.evaluate(reached):
            break
    assert browser.evaluate(reached)
    assert "percent shown as before" in browser.evaluate("document.activeElement.ariaLabel")
    outline = "getComputedStyle(document.activeElement.parentElement).outlineStyle"
    assert browser.evaluate(outline) == "solid"
    for _ in range(5):
        browser.press("ArrowRight", 39)
    assert browser.evaluate("document.activeElement.value") == "55"
    shown = "getComputedStyle(document.activeElement.parentElement.querySelector('img + img')).clipPath"
    assert browser.evaluate(shown) == "inset(0px 0px 0px 55%)"
    browser.press("Home", 36)
    assert browser.evaluate(shown) == "inset(0px 0px 0px 0%)"


@needs_chromium
@pytest.mark.parametrize("width", [320, 420, 1400])
def test_pictures_overlap_exactly_at_any_width(browser, attacked, width):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.call("Emulation.setDeviceMetricsOverride", **size)
    browser.visit(attacked)
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
    box = "(({x, y, width, height}) => [x, y, width, height].map(Math.round))"
    browser.show_a_pair()
    before, after = browser.evaluate(
        f"[...document.querySelector('.pair').querySelectorAll('img')].map(i => "
        f"{box}(i.getBoundingClientRect()))"
    )
    assert before == after
    assert before[2] / before[3] == pytest.approx(640 / 400, rel=0.02)
    browser.call("Emulation.clearDeviceMetricsOverride")


@needs_chromium
def test_page_without_scripts_shows_pictures_side_by_side(browser, attacked):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.visit(attacked)
        assert browser.evaluate("document.documentElement.className") == ""
        browser.show_a_pair()
        left, right = browser.evaluate(
            "[...document.querySelector('.pair').querySelectorAll('img')]"
            ".map(i => i.getBoundingClientRect().toJSON())"
        )
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
    assert left["right"] <= right["left"]
    assert min(left["width"], right["width"]) >= 100
