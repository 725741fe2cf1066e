import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from tests.helpers.pages import Browser, needs_chromium
from trainer.cli import main
from trainer.config import Config, to_json
from trainer.report import ReportError, report
from trainer.run_log import CONFIG_NAME, METRICS_NAME, SAMPLES_NAME

EVALUATION = {
    "pictures": 3,
    "strength": 1.0,
    "gain": 1.25,
    "colorfulness_share": 0.65,
    "model": {"psnr": 23.5, "colorfulness": 20.0},
    "gray": {"psnr": 22.25, "colorfulness": 0.0},
    "truth": {"colorfulness": 30.0},
}


class Page(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "<img onerror=alert(1)>"
    (folder / SAMPLES_NAME).mkdir(parents=True)
    (folder / CONFIG_NAME).write_text(to_json(Config(optimizer="<b>")))
    lines = [
        {"kind": kind, "samples": samples, "seconds": 1.0, name: samples / 100}
        for samples in (1000, 2000, 3000)
        for kind, name in (("train", "loss"), ("evaluation", "gain"))
    ]
    (folder / METRICS_NAME).write_text("".join(json.dumps(line) + "\n" for line in lines))
    for samples in (1000, 2000, 3000):
        picture = np.full((12, 16, 3), samples // 20, np.uint8)
        Image.fromarray(picture).save(folder / SAMPLES_NAME / f"{samples:09d}.png")
    return folder


def page_of(run, tmp_path, **options) -> Page:
    report(run, tmp_path / "deep" / "page.html", **options)
    return Page((tmp_path / "deep" / "page.html").read_text())


def test_page_embeds_all_its_files(run, tmp_path):
    page = page_of(run, tmp_path)
    addresses = [
        value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href")
    ]
    assert len(addresses) == 3
    assert all(address.startswith("data:image/webp;base64,") for address in addresses)


def test_page_escapes_names_and_values(run, tmp_path):
    page = page_of(run, tmp_path)
    assert "<img onerror=alert(1)>" in page.text
    assert '"optimizer": "<b>"' in page.text
    assert all("onerror" not in attributes for attributes in page.all("img"))


@needs_chromium
def test_slider_switches_the_sheet_under_the_policy(run, tmp_path):
    page_of(run, tmp_path)
    seen = "[...document.images].map(image => image.hidden)"
    with Browser(tmp_path / "browser") as browser:
        browser.visit(tmp_path / "deep" / "page.html")
        assert browser.evaluate(seen) == [True, True, False]
        browser.evaluate("document.getElementById('sheet').focus()")
        browser.press("ArrowLeft", 37)
        assert browser.evaluate(seen) == [True, False, True]
        assert browser.evaluate("document.getElementById('seen').value") == "2,000"
        assert browser.evaluate("document.images[1].naturalWidth") == 16
        assert [event for event in browser.events if event["method"] == "Log.entryAdded"] == []


def test_page_holds_every_sheet_and_shows_the_last(run, tmp_path):
    page = page_of(run, tmp_path)
    images = page.all("img")
    assert [image["data-samples"] for image in images] == ["1,000", "2,000", "3,000"]
    assert ["hidden" in image for image in images] == [True, True, False]
    (slider,) = page.all("input")
    assert (slider["min"], slider["max"], slider["value"]) == ("0", "2", "2")


def test_page_with_many_sheets_shows_forty(run, tmp_path):
    for samples in range(4000, 204_000, 1000):
        (run / SAMPLES_NAME / f"{samples:09d}.png").write_bytes(
            (run / SAMPLES_NAME / "000001000.png").read_bytes()
        )
    shown = [image["data-samples"] for image in page_of(run, tmp_path).all("img")]
    assert len(shown) == len(set(shown)) == 40
    assert (shown[0], shown[-1]) == ("1,000", "203,000")


def test_curve_points_follow_the_values(run, tmp_path):
    page = page_of(run, tmp_path)
    assert "evaluation: gain 30" in page.text
    assert "train: loss 30" in page.text
    for line in page.all("polyline"):
        points = np.array([[float(x) for x in pair.split(",")] for pair in line["points"].split()])
        steps = np.diff(points, axis=0)
        np.testing.assert_allclose(steps[0], steps[1], atol=0.11)  # the values lie on a straight line
        assert steps[0][0] > 0 > steps[0][1]  # to the right, and up


def test_curve_omits_nan_values(run, tmp_path):
    with (run / METRICS_NAME).open("a") as lines:
        lines.write('{"kind": "train", "samples": 4000, "loss": NaN}\n')
    points = [line["points"].split() for line in page_of(run, tmp_path).all("polyline")]
    assert [len(of_one) for of_one in points] == [3, 3]
    assert "nan" not in str(points)


def test_metrics_with_a_truncated_last_line_are_accepted(run, tmp_path):
    whole = (run / METRICS_NAME).read_text()
    (run / METRICS_NAME).write_text(whole + '{"kind": "tr')
    assert len(page_of(run, tmp_path).all("polyline")) == 2
    (run / METRICS_NAME).write_text("nonsense\n" + whole)
    with pytest.raises(ReportError, match="line 1"):
        report(run, tmp_path / "page.html")


def test_page_of_a_run_without_metrics_has_no_curves(run, tmp_path):
    (run / METRICS_NAME).write_text("")
    for sheet in (run / SAMPLES_NAME).iterdir():
        sheet.unlink()
    page = page_of(run, tmp_path)
    assert page.all("img") == page.all("polyline") == page.all("input") == []


def test_evaluation_scores_are_shown_in_a_table(run, tmp_path):
    gains = [{"share": 0.65, "strength": 0.9, "gain": 2.5}, {"share": 0.97, "strength": None, "gain": None}]
    (tmp_path / "scores.json").write_text(json.dumps(EVALUATION | {"gains": gains}))
    page = page_of(run, tmp_path, evaluation=tmp_path / "scores.json")
    assert "gain at 65% colorfulness, dB+2.500" in page.text.replace("\n", "")
    assert "gain at 97%" not in page.text
    assert re.search(r"3 pictures; \+1\.250 dB above gray at 65\.0%", page.text)
    assert "psnr23.50022.250" in page.text.replace("\n", "")
    assert "colorfulness20.0000.00030.000" in page.text.replace("\n", "")
    assert len(page.all("table")) == 1
    assert page_of(run, tmp_path).all("table") == []


@pytest.mark.parametrize("content", ["{}", "[1]", "text", '{"model": 1, "gray": 2, "truth": 3}'])
def test_evaluation_file_that_is_invalid_is_named(run, tmp_path, content):
    (tmp_path / "scores.json").write_text(content)
    with pytest.raises(ReportError, match=r"scores\.json"):
        report(run, tmp_path / "page.html", tmp_path / "scores.json")


def test_command_on_a_folder_without_run_exits_1_with_one_line(tmp_path):
    result = CliRunner().invoke(main, ["report", str(tmp_path), str(tmp_path / "page.html")])
    assert result.exit_code == 1
    assert CONFIG_NAME in result.output
    assert result.output.count("\n") == 1
    assert not (tmp_path / "page.html").exists()


def test_report_names_a_damaged_sheet(run, tmp_path):
    (run / SAMPLES_NAME / "000002000.png").write_bytes(b"damaged")
    with pytest.raises(ReportError, match="000002000"):
        report(run, tmp_path / "page.html")


@pytest.mark.parametrize(
    "values", [(0, 1), (3.2, 3.9), (-0.2, 0.1), (5, 5), (0, 0), (1e6, 3e6), (1e-4, 2e-4)]
)
def test_ticks_are_a_few_round_numbers_around_the_values(run, tmp_path, values):
    lines = ({"kind": "train", "samples": n, "seconds": 1.0, "loss": y} for n, y in enumerate(values, 1))
    (run / METRICS_NAME).write_text("".join(json.dumps(line) + "\n" for line in lines))
    report(run, tmp_path / "page.html")
    labels = re.findall(r'text-anchor="end">([^<]+)</text>', (tmp_path / "page.html").read_text())
    ticks = sorted(map(float, labels))
    assert ticks[0] <= min(values) <= max(values) <= ticks[-1]
    assert 3 <= len(ticks) <= 7
    np.testing.assert_allclose(np.diff(ticks), ticks[1] - ticks[0], rtol=1e-6)
