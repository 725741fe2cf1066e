"""Pages, animations, --format and --quality through the command."""

import io
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from colorize_cli.color import lightness
from colorize_cli.color.lab import srgb_to_lab
from tests.helpers.animations import DURATIONS, animation, shown, timing
from tests.helpers.cli import contents, finish, invoke, piped
from tests.helpers.heif_files import heic, picture
from tests.helpers.pictures import gray, in_depth
from tests.helpers.tiff_files import tiff


@pytest.fixture
def colorize(models):
    def run(*arguments: object) -> Result:
        return invoke(*arguments, "--model", models.tinted, "--device", "cpu")

    return run


def put(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def encoded(format_: str, mode: str = "L", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(gray()).convert(mode).save(file, format_, **options)
    return file.getvalue()


def difference(rgb: np.ndarray, codes: np.ndarray) -> float:
    """Return the mean difference in L*."""
    lab = srgb_to_lab(rgb[..., :3] / np.iinfo(rgb.dtype).max)
    return float(np.abs(lab[..., 0] - lightness.GRAY8[codes]).mean())


def chroma(rgb: np.ndarray) -> float:
    return float(np.abs(srgb_to_lab(rgb[..., :3] / 255)[..., 1:]).mean())


def test_tiff_pages_are_all_colorized(colorize, tmp_path):
    pages = [gray(24, 32), gray(60, 40), gray(30, 90)]
    put(tmp_path / "in", {"a.tif": tiff(*((page, {}) for page in pages))})
    result = colorize(tmp_path / "in", tmp_path / "out")
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "out" / "a.tif") as image:
        assert image.n_frames == 3
        for number, page in enumerate(pages):
            image.seek(number)
            rgb = np.asarray(image)
            assert rgb.shape == (*page.shape, 3)
            assert difference(rgb, page) <= 0.15
            assert chroma(rgb) > 3


def test_page_is_colorized_as_if_alone(colorize, tmp_path):
    one, two = (gray(24, 32), {}), (gray(60, 40)[::-1], {})
    put(tmp_path / "in", {"both.tif": tiff(one, two), "one.tif": tiff(one), "two.tif": tiff(two)})
    assert colorize(tmp_path / "in", tmp_path / "out").exit_code == 0
    with Image.open(tmp_path / "out" / "both.tif") as both:
        for number, name in enumerate(("one", "two")):
            both.seek(number)
            with Image.open(tmp_path / "out" / f"{name}.tif") as alone:
                np.testing.assert_array_equal(np.asarray(both), np.asarray(alone))


@pytest.mark.parametrize("workers", [1, 4])
def test_pages_stay_in_order_with_many_workers(colorize, tmp_path, workers):
    pages = [gray(24, 20 + number) for number in range(40)]
    put(tmp_path / "in", {"a.tif": tiff(*((page, {}) for page in pages))})
    assert colorize(tmp_path / "in", tmp_path / "out", "--workers", workers).exit_code == 0
    assert [rgba.shape for rgba in shown((tmp_path / "out" / "a.tif").read_bytes())] == [
        (*page.shape, 4) for page in pages
    ]


def test_animated_gif_becomes_png(colorize, tmp_path):
    data = animation("GIF")
    put(tmp_path / "in", {"a.gif": data})
    result = colorize(tmp_path / "in", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert contents(tmp_path / "out").keys() == {"a.gif.png"}
    output = (tmp_path / "out" / "a.gif.png").read_bytes()
    assert timing(output)[0] == DURATIONS
    for found, wanted in zip(shown(output), shown(data), strict=True):
        assert difference(found, wanted[..., 1]) <= 0.15
        assert chroma(found) > 3


def test_animation_through_pipes_is_kept(models):
    data = animation("GIF")
    done = piped(data, "-", "-", "--model", models.tinted, "--device", "cpu", "-q")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"\x89PNG")
    assert timing(done.stdout)[0] == DURATIONS


def test_damaged_later_page_fails_only_its_file(models, tmp_path):
    whole = tiff((gray(), {}), (in_depth(gray(), np.uint16), {}))
    put(tmp_path / "in", {"a.tif": whole, "b.tif": whole[:-100], "c.gif": animation("GIF")[:-40]})
    options = ("--model", models.tinted, "--device", "cpu", "-q")
    code, out, err = finish(tmp_path / "in", tmp_path / "out", *options)
    assert (code, out) == (1, "")
    damaged, cut = sorted(err.splitlines())
    assert damaged.startswith(f"{tmp_path}/in/b.tif: page 2 of 2: ")
    assert cut.startswith(f"{tmp_path}/in/c.gif: damaged: ")
    assert contents(tmp_path / "out").keys() == {"a.tif"}


@pytest.mark.parametrize("format_", ["png", "tiff", "jpeg", "webp", "avif", "bmp", "jpeg2000"])
def test_format_option_converts_every_format(colorize, tmp_path, format_):
    sources = {
        "a.jpg": encoded("JPEG", quality=97),
        "b.png": encoded("PNG"),
        "c.TIF": encoded("TIFF", "1"),
        "d.webp": encoded("WEBP", lossless=True),
        "e.bmp": encoded("BMP"),
        "f.gif": encoded("GIF"),
        "g.tif": tiff((in_depth(gray(), np.uint16), {})),
        "h.tiff": tiff((in_depth(gray(), np.float32), {})),
    }
    put(tmp_path / "in", sources)
    result = colorize(tmp_path / "in", tmp_path / "out", "--format", format_)
    assert result.exit_code == 0, result.output
    outputs = contents(tmp_path / "out")
    assert [name.split(".")[0] for name in sorted(outputs)] == list("abcdefgh")
    for data in outputs.values():
        with Image.open(io.BytesIO(data)) as image:
            assert (image.format, image.mode, image.size) == (format_.upper(), "RGB", (32, 24))
    again = colorize(tmp_path / "in", tmp_path / "out", "--format", format_)
    assert "0 done, 8 skipped (8 up to date)" in again.stderr


def test_format_option_keeps_suffixes_of_that_format(colorize, tmp_path):
    put(tmp_path / "in", {"a.jpeg": encoded("JPEG"), "b.JPG": encoded("JPEG"), "c.png": encoded("PNG")})
    assert colorize(tmp_path / "in", tmp_path / "out", "--format", "jpeg").exit_code == 0
    assert contents(tmp_path / "out").keys() == {"a.jpeg", "b.JPG", "c.jpg"}


def test_format_option_without_pages_fails_documents(colorize, tmp_path):
    put(tmp_path / "in", {"a.tif": tiff((gray(), {}), (gray(), {})), "b.gif": animation("GIF")})
    result = colorize(tmp_path / "in", tmp_path / "out", "--format", "jpeg")
    assert result.exit_code == 1
    assert "a.tif: JPEG cannot hold several pages; choose TIFF" in result.stderr
    assert "b.gif: JPEG cannot hold an animation; choose another format" in result.stderr
    assert contents(tmp_path / "out") == {}


@pytest.mark.parametrize(
    ("names", "options"),
    [
        (("a.png", "a.tif"), ("--format", "png")),
        (("a.jpg", "a.webp"), ("--format", "avif")),
    ],
)
def test_colliding_outputs_exit_2_before_any_work(colorize, tmp_path, names, options):
    put(tmp_path / "in", dict.fromkeys(names, encoded("PNG")))
    result = colorize(tmp_path / "in", tmp_path / "out", *options)
    assert result.exit_code == 2
    one, two = (tmp_path / "in" / name for name in names)
    output = tmp_path / "out" / f"a.{options[1]}"
    assert result.stderr == (
        f"colorize: {one} and {two} would both become {output}; without --format they keep their endings\n"
    )
    assert not (tmp_path / "out").exists()


def test_files_whose_ending_must_change_keep_it_in_their_name(colorize, tmp_path):
    phone = heic(picture(gray()))
    pictures = {"a.GIF": encoded("GIF"), "a.png": encoded("PNG"), "a.jpg": encoded("JPEG")}
    put(tmp_path / "in", {**pictures, "a.heic": phone, "a.HIF": phone})
    assert colorize(tmp_path / "in", tmp_path / "out").exit_code == 0
    names = {"a.GIF.png", "a.png", "a.heic.jpg", "a.HIF.jpg", "a.jpg"}
    assert contents(tmp_path / "out").keys() == names
    again = colorize(tmp_path / "in", tmp_path / "out")
    assert "0 done, 5 skipped (5 up to date), 0 failed" in again.stderr
    result = colorize(tmp_path / "in", tmp_path / "out-png", "--format", "png", "--exclude", "*.jpg")
    assert result.exit_code == 0
    assert contents(tmp_path / "out-png").keys() == {"a.GIF.png", "a.png", "a.heic.png", "a.HIF.png"}


def renamed(output: Path, new: str, old: str) -> None:
    """Give an output the name that an earlier version gave it, in the manifest too."""
    (output / new).rename(output / old)
    for journal in (output / ".colorize").iterdir():
        journal.write_bytes(journal.read_bytes().replace(new.encode(), old.encode()))


def test_output_named_by_an_earlier_version_is_reported_and_made(colorize, tmp_path):
    source, output = (
        put(tmp_path / "in", {"a.gif": encoded("GIF"), "b.gif": encoded("GIF")}),
        tmp_path / "out",
    )
    assert colorize(source, output).exit_code == 0
    renamed(output, "a.gif.png", "a.png")
    (output / "b.gif.png").rename(output / "b.png")  # without a record, so perhaps of someone else
    before = (output / "a.png").read_bytes()
    (source / "a.png").write_bytes(encoded("PNG", "1"))
    line = (
        f"{output}/a.png was made from {source}/a.gif by an earlier version;"
        " the output is now called a.gif.png and is made again"
    )
    result = colorize(source, output, "--exclude", "a.png")
    assert result.exit_code == 0
    assert [each for each in result.stderr.splitlines() if "earlier" in each] == [line]
    assert (output / "a.png").read_bytes() == (output / "a.gif.png").read_bytes() == before
    result = colorize(source, output)
    assert "1 done, 2 skipped (2 up to date), 0 failed" in result.stderr
    assert "earlier" not in result.stderr
    assert (output / "a.png").read_bytes() != before  # of in/a.png


def test_invalid_formats_and_qualities_exit_2(colorize, tmp_path):
    put(tmp_path / "in", {"a.png": encoded("PNG")})
    for options in (("--format", "gif"), ("--format", "bogus"), ("--quality", 0), ("--quality", 101)):
        assert colorize(tmp_path / "in", tmp_path / "out", *options).exit_code == 2
    assert colorize(tmp_path / "in" / "a.png", tmp_path / "b.jpg", "--format", "png").exit_code == 2
    assert {path.name for path in tmp_path.iterdir()} == {"in"}


def test_changed_quality_remakes_outputs(colorize, tmp_path):
    put(tmp_path / "in", {"a.jpg": encoded("JPEG", quality=80)})
    sizes = []
    for quality in ((), ("--quality", 40), ("--quality", 99)):
        result = colorize(tmp_path / "in", tmp_path / "out", *quality)
        assert "1 done" in result.stderr
        sizes.append(len(contents(tmp_path / "out")["a.jpg"]))
    assert sizes[1] < sizes[0] < sizes[2]


def test_animation_beyond_the_pixel_limit_fails(colorize, tmp_path):
    put(tmp_path / "in", {"a.gif": animation("GIF"), "b.tif": tiff(*[(gray(), {})] * 5)})
    result = colorize(tmp_path / "in", tmp_path / "out", "--max-pixels", 24 * 32 * 4)
    assert result.exit_code == 1
    assert "a.gif: 5 frames of 32 x 24 exceed the limit of 3,072 pixels" in result.stderr
    assert contents(tmp_path / "out").keys() == {"b.tif"}


def test_floats_on_another_scale_fail_with_a_reason(colorize, tmp_path):
    put(tmp_path / "in", {"a.tif": tiff((gray().astype(np.float32), {}))})
    result = colorize(tmp_path / "in", tmp_path / "out")
    assert result.exit_code == 1
    assert "a.tif: floats from 10 to" in result.stderr
    assert contents(tmp_path / "out") == {}


def test_report_shows_pages_and_animations(colorize, tmp_path):
    floats = (in_depth(gray(), np.float32), {})
    put(
        tmp_path / "in",
        {"a.gif": animation("GIF"), "b.tif": tiff((gray(), {}), (gray(), {})), "c.tif": tiff(floats)},
    )
    result = colorize(tmp_path / "in", tmp_path / "out", "--report", tmp_path / "page.html")
    assert result.exit_code == 0, result.output
    assert "3 done" in result.stderr
    assert (tmp_path / "page.html").read_text().count('type="range"') >= 2
