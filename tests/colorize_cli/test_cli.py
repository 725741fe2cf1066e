import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from colorize_cli import __version__, color
from colorize_cli.cli import command
from tests.colorize_cli.media.test_photo import png_header
from tests.colorize_cli.test_model import has_gpu


def invoke(*arguments: object):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def process(*arguments: object, **options) -> subprocess.Popen:
    line = [sys.executable, "-m", "colorize_cli", *map(str, arguments)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def finish(*arguments: object) -> tuple[int, str, str]:
    running = process(*arguments)
    out, err = running.communicate(timeout=60)
    return running.returncode, out, err


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_help_has_examples_and_exit_codes():
    result = invoke("--help")
    assert result.exit_code == 0
    for text in ("Examples:", "colorize scans/ coloured/", "130 interrupted", "--device", "--dry-run"):
        assert text in result.output


def test_every_option_has_help():
    assert all(option.help for option in command.params if isinstance(option, click.Option))


def test_version():
    assert __version__ in invoke("--version").output


def test_a_folder_in_this_process(models, make_folder, tmp_path):
    source = make_folder(tmp_path / "in", 6)
    result = invoke(source, tmp_path / "out", "--model", models.tinted, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert "6 done, 0 skipped (output exists), 0 failed" in result.stderr
    assert contents(tmp_path / "out").keys() == contents(source).keys()


def test_a_folder_in_a_process_of_its_own(models, make_folder, tmp_path):
    source = make_folder(tmp_path / "in", 6)
    (source / "notes.txt").touch()
    code, out, err = finish(source, tmp_path / "out", "--model", models.tinted)
    assert (code, out) == (0, "")
    assert sum(line.startswith("device: ") for line in err.splitlines()) == 1
    assert "1 files of other kinds ignored" in err
    # The device, what was ignored, one line for each picture, and the summary; nothing from native libraries.
    assert len(err.splitlines()) == 1 + 1 + 6 + 1


def test_one_file_keeps_its_lightness(models, grey_photo, tmp_path):
    Image.fromarray(grey_photo).save(tmp_path / "a.png")
    result = invoke(tmp_path / "a.png", tmp_path / "b.png", "--model", models.vivid, "--device", "cpu")
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "b.png") as image:
        difference = np.abs(color.srgb_to_lab(np.asarray(image) / 255)[..., 0] - color.GREY8[grey_photo])
    assert difference.mean() <= 0.3
    assert difference.max() <= 1.5


def test_jpeg_is_no_further_off_than_pillow_saving_it_again(models, grey_photo, tmp_path):
    Image.fromarray(grey_photo).save(tmp_path / "a.jpg", quality=90)
    with Image.open(tmp_path / "a.jpg") as image:
        before = color.GREY8[np.asarray(image)]
        image.convert("RGB").save(tmp_path / "again.jpg", quality=95)
    result = invoke(tmp_path / "a.jpg", tmp_path / "b.jpg", "--model", models.tinted, "--device", "cpu")
    assert result.exit_code == 0, result.output

    def error(name: str) -> np.ndarray:
        with Image.open(tmp_path / name) as image:
            return np.abs(color.srgb_to_lab(np.asarray(image) / 255)[..., 0] - before)

    # What rounding colours to 8-bit RGB and YCbCr costs, which grey is spared.
    assert error("b.jpg").mean() <= error("again.jpg").mean() + 0.2
    assert np.quantile(error("b.jpg"), 0.999) <= np.quantile(error("again.jpg"), 0.999) + 0.5


def test_bad_files_cost_one_line_and_exit_1(models, make_folder, tmp_path):
    source = make_folder(tmp_path / "in", 8)
    (source / "empty.jpg").touch()
    (source / "text.jpg").write_text("no picture")
    (source / "huge.png").write_bytes(png_header(30000, 30000))
    (source / "cut.jpg").write_bytes((source / "sub" / "0001.jpg").read_bytes()[:2000])
    code, out, err = finish(source, tmp_path / "out", "--model", models.grey, "--device", "cpu", "--quiet")
    assert (code, out) == (1, "")
    lines = sorted(err.splitlines())
    assert [line.split(": ")[0] for line in lines] == sorted(
        str(source / name) for name in ("cut.jpg", "empty.jpg", "huge.png", "text.jpg")
    )
    assert len(contents(tmp_path / "out")) == 8


def test_names_with_markup_and_control_characters(models, grey_photo, tmp_path):
    for name in ("[bold]x.png", "new\nline.png", "[nothing].png"):
        Image.fromarray(grey_photo).save(tmp_path / name)
    (tmp_path / "[red]bad\x1b.png").touch()
    code, _, err = finish(tmp_path, tmp_path / "out", "--model", models.grey)
    assert code == 1
    assert f"{tmp_path}/[red]bad\\x1b.png: the file is empty" in err
    assert "[bold]x.png" in err
    assert "new\\nline.png" in err
    assert (tmp_path / "out" / "new\nline.png").is_file()


def test_usage_errors_exit_2(models, make_folder, tmp_path):
    source = make_folder(tmp_path / "in", 2)
    assert invoke(tmp_path / "absent", tmp_path / "out").exit_code == 2
    assert invoke(source).exit_code == 2
    assert invoke(source, source).exit_code == 2
    assert invoke(source, tmp_path / "out", "--batch-size", 0).exit_code == 2
    assert invoke(source, tmp_path / "out", "--model", tmp_path / "absent.onnx").exit_code == 2
    result = invoke(source / "0000.png", source / "0000.png", tmp_path / "out", "--model", models.grey)
    assert result.exit_code == 0


def test_collisions_exit_2_before_any_work(models, make_folder, tmp_path):
    one, two = make_folder(tmp_path / "one", 2), make_folder(tmp_path / "two", 2)
    result = invoke(one, two, tmp_path / "out", "--model", models.grey)
    assert result.exit_code == 2
    assert str(one / "0000.png") in result.stderr
    assert str(two / "0000.png") in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(has_gpu(), reason="there is a GPU")
def test_cuda_without_a_gpu_exits_3_with_the_reason(models, make_folder, tmp_path):
    source = make_folder(tmp_path / "in", 2)
    code, out, err = finish(source, tmp_path / "out", "--model", models.grey, "--device", "cuda")
    assert (code, out) == (3, "")
    assert err == "colorize: no NVIDIA driver is installed here\n"


def test_dry_run_prints_the_plan_to_stdout(models, make_folder, tmp_path):
    source, output = make_folder(tmp_path / "in", 2), tmp_path / "out"
    output.mkdir()
    (output / "0000.png").touch()
    code, out, err = finish(source, output, "--dry-run")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"skip\t{source}/0000.png\t{output}/0000.png",
        f"colour\t{source}/sub/0001.jpg\t{output}/sub/0001.jpg",
    ]
    assert len(contents(output)) == 1


def test_a_reader_that_leaves_early(make_folder, tmp_path):
    source = make_folder(tmp_path / "in", 40)
    running = process(source, tmp_path / "out", "--dry-run")
    running.stdout.close()
    err = running.stderr.read()
    assert running.wait(60) == 1
    running.stderr.close()
    assert err == ""


def test_interrupt_exits_130_and_leaves_whole_files(models, make_folder, tmp_path):
    source, output = make_folder(tmp_path / "in", 300), tmp_path / "out"
    # Background jobs of a shell, and so perhaps these tests, are started with the signal ignored.
    heeds = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    running = process(source, output, "--model", models.tinted, "--workers", 1, **heeds)
    while not output.exists() or not list(output.iterdir()):
        assert running.poll() is None
        time.sleep(0.005)
    running.send_signal(signal.SIGINT)
    begun = time.monotonic()
    out, err = running.communicate(timeout=30)
    assert time.monotonic() - begun < 3
    assert (running.returncode, out) == (130, "")
    assert "interrupted: " in err
    assert "Traceback" not in err
    for path in output.rglob("*.*"):
        assert not path.name.startswith(".")
        with Image.open(path) as image:
            image.load()


def test_killed_at_random_moments_and_started_again(models, make_folder, tmp_path):
    source, output = make_folder(tmp_path / "in", 60), tmp_path / "out"
    arguments = ("--model", models.tinted, "--workers", 2, "--device", "cpu")
    assert finish(source, tmp_path / "undisturbed", *arguments)[0] == 0
    dice = random.Random(0)  # noqa: S311
    for _ in range(5):
        running = process(source, output, *arguments)
        while not output.exists() and running.poll() is None:
            time.sleep(0.002)
        time.sleep(dice.uniform(0, 0.15))
        running.kill()
        running.communicate()
    assert finish(source, output, *arguments)[0] == 0
    assert contents(output) == contents(tmp_path / "undisturbed")


def peak_memory(source: Path, output: Path, model: Path) -> int:
    """The peak resident memory of a run, in KiB."""
    code = (
        "import sys, resource; from colorize_cli.cli import command;"
        "command(sys.argv[1:], standalone_mode=False);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    arguments = [source, output, "--model", model, "--workers", 2, "--device", "cpu", "--quiet"]
    line = [sys.executable, "-c", code, *map(str, arguments)]
    return int(subprocess.run(line, capture_output=True, text=True, check=True, timeout=120).stdout)


def test_memory_does_not_grow_with_the_number_of_files(models, grey_photo, tmp_path):
    picture = Image.fromarray(grey_photo).resize((320, 240))
    for count in (30, 240):
        (tmp_path / str(count)).mkdir()
        for index in range(count):
            picture.save(tmp_path / str(count) / f"{index}.jpg")
    few, many = (peak_memory(tmp_path / str(n), tmp_path / f"out{n}", models.tinted) for n in (30, 240))
    assert many <= 1.1 * few


def test_examples_are_lines_of_their_own():
    lines = [line.strip() for line in invoke("--help").output.splitlines()]
    assert "colorize scans/ coloured/" in lines
    assert not any("\\b" in line for line in lines)


@pytest.mark.parametrize("option", [("--strength", "nan"), ("--strength", "3"), ("--size", "5")])
def test_impossible_settings_are_wrong_usage(models, make_folder, tmp_path, option):
    result = invoke(make_folder(tmp_path / "in", 1), tmp_path / "out", "--model", models.grey, *option)
    assert result.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_an_unknown_ending_of_the_output_is_wrong_usage(models, make_folder, tmp_path):
    source = next(make_folder(tmp_path / "in", 1).glob("*.png"))
    result = invoke(source, tmp_path / "out.gif", "--model", models.grey)
    assert result.exit_code == 2
    assert "out.gif" in result.stderr
    assert ".png" in result.stderr


def test_a_closed_stdout_is_no_failure(models, make_folder, tmp_path):
    source = make_folder(tmp_path / "in", 1)
    line = '"$@" >&-'
    arguments = [source, tmp_path / "out", "--model", models.grey, "--device", "cpu"]
    command_line = ["sh", "-c", line, "sh", sys.executable, "-m", "colorize_cli", *map(str, arguments)]
    done = subprocess.run(command_line, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert len(contents(tmp_path / "out")) == 1
