import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from colorize_cli import __version__
from colorize_cli.color import lab, lightness
from tests.helpers.cli import contents, finish, invoke, piped, process
from tests.helpers.png_files import png_header
from tests.helpers.sessions import has_gpu
from tests.helpers.videos import Recipe, make


def test_help_shows_examples_and_exit_codes():
    result = invoke("--help")
    assert result.exit_code == 0
    for text in ("Examples:", "colorize scans/ colorized/", "130 interrupted", "--device", "--dry-run"):
        assert text in result.output


def test_version_option_prints_the_version():
    assert __version__ in invoke("--version").output


def test_folder_in_this_process_is_colorized(models, make_folder, tmp_path):
    source = make_folder(tmp_path / "in", 6)
    result = invoke(source, tmp_path / "out", "--model", models.tinted, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert "6 done, 0 skipped, 0 failed" in result.stderr
    assert contents(tmp_path / "out").keys() == contents(source).keys()


def test_folder_in_another_process_is_colorized(models, make_folder, tmp_path):
    source = make_folder(tmp_path / "in", 6)
    (source / "notes.txt").touch()
    code, out, err = finish(source, tmp_path / "out", "--model", models.tinted)
    assert (code, out) == (0, "")
    assert sum(line.startswith("device: ") for line in err.splitlines()) == 1
    assert "files of other kinds ignored: .txt 1" in err
    # The device, the ignored files, one line per picture, and the summary; nothing from native libraries.
    assert len(err.splitlines()) == 1 + 1 + 6 + 1


def test_png_output_keeps_lightness(models, gray_photo, tmp_path):
    Image.fromarray(gray_photo).save(tmp_path / "a.png")
    result = invoke(tmp_path / "a.png", tmp_path / "b.png", "--model", models.vivid, "--device", "cpu")
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "b.png") as image:
        difference = np.abs(lab.srgb_to_lab(np.asarray(image) / 255)[..., 0] - lightness.GRAY8[gray_photo])
    assert difference.mean() <= 0.3
    assert difference.max() <= 1.5


def test_jpeg_output_keeps_lightness_as_well_as_pillow(models, gray_photo, tmp_path):
    Image.fromarray(gray_photo).save(tmp_path / "a.jpg", quality=90)
    with Image.open(tmp_path / "a.jpg") as image:
        before = lightness.GRAY8[np.asarray(image)]
        image.convert("RGB").save(tmp_path / "again.jpg", quality=95)
    result = invoke(tmp_path / "a.jpg", tmp_path / "b.jpg", "--model", models.tinted, "--device", "cpu")
    assert result.exit_code == 0, result.output

    def error(name: str) -> np.ndarray:
        with Image.open(tmp_path / name) as image:
            return np.abs(lab.srgb_to_lab(np.asarray(image) / 255)[..., 0] - before)

    # Color is rounded to 8-bit RGB and YCbCr, and gray is not: hence the tolerance.
    assert error("b.jpg").mean() <= error("again.jpg").mean() + 0.2
    assert np.quantile(error("b.jpg"), 0.999) <= np.quantile(error("again.jpg"), 0.999) + 0.5


def test_bad_files_give_one_line_each_and_exit_1(models, make_folder, tmp_path):
    source = make_folder(tmp_path / "in", 8)
    (source / "empty.jpg").touch()
    (source / "text.jpg").write_text("no picture")
    (source / "huge.png").write_bytes(png_header(30000, 30000))
    (source / "cut.jpg").write_bytes((source / "sub" / "0001.jpg").read_bytes()[:2000])
    code, out, err = finish(source, tmp_path / "out", "--model", models.gray, "--device", "cpu", "--quiet")
    assert (code, out) == (1, "")
    lines = sorted(err.splitlines())
    assert [line.split(": ")[0] for line in lines] == sorted(
        str(source / name) for name in ("cut.jpg", "empty.jpg", "huge.png", "text.jpg")
    )
    assert len(contents(tmp_path / "out")) == 8


def test_output_with_a_slash_is_a_directory_whatever_its_name(models, make_folder, tmp_path):
    picture = make_folder(tmp_path / "in", 1) / "0000.png"
    options = ("--model", models.tinted, "--device", "cpu")
    for output in ("results.v2/", "results.png/", "there/results.png//"):
        result = invoke(picture, f"{tmp_path}/{output}", *options)
        assert result.exit_code == 0, result.stderr
        assert contents(tmp_path / output).keys() == {"0000.png"}
    result = invoke(picture, f"{tmp_path}/in/0000.png/", *options)
    assert result.exit_code == 2
    assert f"the output {tmp_path}/in/0000.png is a file; give a directory" in result.stderr


def test_ignored_files_are_in_the_lines_the_report_and_the_json(models, make_folder, tmp_path):
    source = make_folder(tmp_path / "in", 2)
    for name in ("a.dng", "b.DNG", "c.pdf", "Thumbs.db"):
        (source / name).touch()
    options = ("--model", models.tinted, "--device", "cpu", "--json", "--report", tmp_path / "page.html")
    assert invoke(source, source / "first", *options).exit_code == 0
    result = invoke(source, source / "second", *options)
    assert result.exit_code == 0
    earlier = "left out, as it holds outputs of an earlier run; give it as an input to include it"
    ignored = "files of other kinds ignored: .dng 2, .pdf 1"
    lines = result.stderr.splitlines()
    assert lines[:2] == [f"{source}/first: {earlier}", f"{source}: {ignored}"]
    assert lines[-1] == "2 done, 0 skipped, 0 failed"
    objects = [json.loads(line) for line in result.stdout.splitlines()]
    assert [each["status"] for each in objects] == ["skipped", "skipped", "done", "done"]
    assert len({frozenset(each) for each in objects}) == 1
    fields = ("source", "destination", "reason", "ignored")
    assert [tuple(each[field] for field in fields) for each in objects[:2]] == [
        (f"{source}/first", f"{source}/second/first", earlier, None),
        (str(source), f"{source}/second", ignored, {".dng": 2, ".pdf": 1}),
    ]
    planned = invoke(source, source / "second", "--dry-run", "--model", models.tinted)
    assert planned.stderr.splitlines() == lines[:2]
    assert [line.split("\t")[0] for line in planned.stdout.splitlines()] == ["skip", "skip"]
    page = (tmp_path / "page.html").read_text()
    assert ignored in page
    assert earlier in page


@pytest.mark.usefixtures("locked")
def test_directory_that_cannot_be_searched_costs_one_line_and_exit_1(models, make_folder, tmp_path):
    source = make_folder(tmp_path / "in", 4)
    (source / "locked").mkdir()
    options = ("--model", models.tinted, "--device", "cpu", "--json", "--report", tmp_path / "page.html")
    result = invoke(source, tmp_path / "out", *options)
    assert result.exit_code == 1
    assert f"{source}/locked: cannot search it: Permission denied" in result.stderr.splitlines()
    assert result.stderr.splitlines()[-1] == "4 done, 0 skipped, 1 failed"
    failed = [line for line in map(json.loads, result.stdout.splitlines()) if line["status"] == "failed"]
    assert [(line["source"], line["reason"]) for line in failed] == [
        (f"{source}/locked", "cannot search it: Permission denied")
    ]
    assert "cannot search it: Permission denied" in (tmp_path / "page.html").read_text()
    assert contents(tmp_path / "out").keys() == contents(source).keys()


@pytest.mark.usefixtures("locked")
def test_listed_file_in_a_directory_that_cannot_be_searched_fails_alone(
    models, make_folder, tmp_path, monkeypatch
):
    source = make_folder(tmp_path / "in", 1)
    stat = os.stat

    def refusing(path, **options):
        if "locked/" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", refusing)
    listed = tmp_path / "list"
    listed.write_text(f"{source}/0000.png\n{source}/locked/a.png\n")
    result = invoke("--files-from", listed, tmp_path / "out", "--model", models.tinted, "--device", "cpu")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "1 done, 0 skipped, 1 failed"


def test_names_with_markup_and_control_characters_are_escaped(models, gray_photo, tmp_path):
    for name in ("[bold]x.png", "new\nline.png", "[nothing].png"):
        Image.fromarray(gray_photo).save(tmp_path / name)
    (tmp_path / "[red]bad\x1b.png").touch()
    code, _, err = finish(tmp_path, tmp_path / "out", "--model", models.gray)
    assert code == 1
    assert f"{tmp_path}/[red]bad\\x1b.png: the file is empty" in err
    assert "[bold]x.png" in err
    assert "new\\nline.png" in err
    assert (tmp_path / "out" / "new\nline.png").is_file()


@pytest.mark.parametrize("option", [(), ("--dry-run",)])
def test_input_without_pictures_exits_1_unless_allowed(models, tmp_path, option):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").touch()
    result = invoke(tmp_path / "in", tmp_path / "out", *option)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == (
        f"colorize: no pictures or films in {tmp_path}/in; --allow-empty allows that"
    )
    assert invoke(tmp_path / "in", tmp_path / "out", "--allow-empty", *option).exit_code == 0


def test_empty_list_exits_1_unless_allowed(tmp_path):
    (tmp_path / "list").touch()
    result = invoke("--files-from", tmp_path / "list", tmp_path / "out")
    assert result.exit_code == 1
    assert "no pictures or films in the list" in result.stderr
    assert invoke("--files-from", tmp_path / "list", tmp_path / "out", "--allow-empty").exit_code == 0


def test_shard_without_pictures_exits_0(models, make_folder, tmp_path):
    source = make_folder(tmp_path / "in", 1)
    codes = [
        invoke(source, tmp_path / "out", "--shard", f"{i}/2", "--model", models.gray).exit_code
        for i in (1, 2)
    ]
    assert codes == [0, 0]


def test_usage_errors_exit_2(models, make_folder, tmp_path):
    source = make_folder(tmp_path / "in", 2)
    assert invoke(tmp_path / "absent", tmp_path / "out").exit_code == 2
    assert invoke(source).exit_code == 2
    assert invoke(source, source).exit_code == 2
    assert invoke(source, tmp_path / "out", "--batch-size", 0).exit_code == 2
    assert invoke(source, tmp_path / "out", "--model", tmp_path / "absent.onnx").exit_code == 2
    result = invoke(source / "0000.png", source / "0000.png", tmp_path / "out", "--model", models.gray)
    assert result.exit_code == 0


def test_colliding_outputs_exit_2_before_any_work(models, make_folder, tmp_path):
    one, two = make_folder(tmp_path / "one", 2), make_folder(tmp_path / "two", 2)
    result = invoke(one, two, tmp_path / "out", "--model", models.gray)
    assert result.exit_code == 2
    assert str(one / "0000.png") in result.stderr
    assert str(two / "0000.png") in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(has_gpu(), reason="there is a GPU")
def test_cuda_without_gpu_exits_3_with_the_reason(models, make_folder, tmp_path):
    source = make_folder(tmp_path / "in", 2)
    code, out, err = finish(source, tmp_path / "out", "--model", models.gray, "--device", "cuda")
    assert (code, out) == (3, "")
    assert err == "colorize: no NVIDIA driver is installed here\n"


def test_dry_run_prints_the_plan_to_stdout(models, make_folder, tmp_path):
    source, output = make_folder(tmp_path / "in", 2), tmp_path / "out"
    output.mkdir()
    (output / "0000.png").touch()
    code, out, err = finish(source, output, "--dry-run")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"skip\t{source}/0000.png\t{output}/0000.png\tthere already, not as colorize left it",
        f"colorize\t{source}/sub/0001.jpg\t{output}/sub/0001.jpg",
    ]
    assert len(contents(output)) == 1


def test_dry_run_with_json_prints_json_only(models, make_folder, tmp_path):
    source, output = make_folder(tmp_path / "in", 2), tmp_path / "out"
    (source / "notes.txt").touch()
    output.mkdir()
    (output / "0000.png").touch()
    result = invoke(source, output, "--dry-run", "--json")
    objects = [json.loads(line) for line in result.stdout.splitlines()]
    assert all(each.keys() == JOB_FIELDS for each in objects)
    assert [(each["source"], each["status"], each["reason"]) for each in objects] == [
        (str(source), "skipped", "files of other kinds ignored: .txt 1"),
        (f"{source}/0000.png", "skipped", "there already, not as colorize left it"),
        (f"{source}/sub/0001.jpg", "planned", None),
    ]


def test_dry_run_into_a_closed_pipe_exits_1_silently(make_folder, tmp_path):
    source = make_folder(tmp_path / "in", 40)
    running = process(source, tmp_path / "out", "--dry-run")
    running.stdout.close()
    err = running.stderr.read()
    assert running.wait(60) == 1
    running.stderr.close()
    assert err == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_exits_130_and_leaves_complete_files(models, make_folder, tmp_path, number):
    source, output = make_folder(tmp_path / "in", 300), tmp_path / "out"
    # Shells start background jobs, perhaps these tests too, with the signal ignored.
    unignored = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    running = process(source, output, "--model", models.tinted, "--workers", 1, **unignored)
    while not list(output.rglob("*.png")):
        assert running.poll() is None
        time.sleep(0.005)
    running.send_signal(number)
    begun = time.monotonic()
    out, err = running.communicate(timeout=30)
    assert time.monotonic() - begun < 3
    assert (running.returncode, out) == (130, "")
    assert "interrupted: " in err
    assert "Traceback" not in err
    for path in map(output.joinpath, contents(output)):
        assert not path.name.startswith(".")
        with Image.open(path) as image:
            image.load()


def test_killed_runs_are_completed_by_the_next_run(models, make_folder, tmp_path):
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
    """Return the peak resident memory of a run, in KiB."""
    code = (
        "import sys, resource; from colorize_cli.cli.run import command;"
        "command(sys.argv[1:], standalone_mode=False);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    arguments = [source, output, "--model", model, "--workers", 2, "--device", "cpu", "--quiet"]
    line = [sys.executable, "-c", code, *map(str, arguments)]
    return int(subprocess.run(line, capture_output=True, text=True, check=True, timeout=120).stdout)


def test_peak_memory_is_independent_of_the_number_of_files(models, gray_photo, tmp_path):
    picture = Image.fromarray(gray_photo).resize((320, 240))
    for count in (30, 240):
        (tmp_path / str(count)).mkdir()
        for index in range(count):
            picture.save(tmp_path / str(count) / f"{index}.jpg")
    few, many = (peak_memory(tmp_path / str(n), tmp_path / f"out{n}", models.tinted) for n in (30, 240))
    assert many <= 1.1 * few


def test_help_examples_are_on_separate_lines():
    lines = [line.strip() for line in invoke("--help").output.splitlines()]
    assert "colorize scans/ colorized/" in lines
    assert not any("\\b" in line for line in lines)


@pytest.mark.parametrize("option", [("--strength", "nan"), ("--strength", "3"), ("--size", "5")])
def test_impossible_settings_exit_2(models, make_folder, tmp_path, option):
    result = invoke(make_folder(tmp_path / "in", 1), tmp_path / "out", "--model", models.gray, *option)
    assert result.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_unknown_suffix_of_the_output_exits_2(models, make_folder, tmp_path):
    source = next(make_folder(tmp_path / "in", 1).glob("*.png"))
    result = invoke(source, tmp_path / "out.gif", "--model", models.gray)
    assert result.exit_code == 2
    assert "out.gif" in result.stderr
    assert ".png" in result.stderr


def test_closed_stdout_is_not_a_failure(models, make_folder, tmp_path):
    source = make_folder(tmp_path / "in", 1)
    line = '"$@" >&-'
    arguments = [source, tmp_path / "out", "--model", models.gray, "--device", "cpu"]
    command_line = ["sh", "-c", line, "sh", sys.executable, "-m", "colorize_cli", *map(str, arguments)]
    done = subprocess.run(command_line, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert len(contents(tmp_path / "out")) == 1


JOB_FIELDS = {
    "source",
    "destination",
    "status",
    "reason",
    "seconds",
    "device",
    "batch",
    "frames",
    "cuts",
    "size",
    "ignored",
    "notes",
}


def test_json_prints_one_object_per_picture(models, make_folder, tmp_path):
    source = make_folder(tmp_path / "in", 4)
    (source / "empty.jpg").touch()
    arguments = (source, tmp_path / "out", "--model", models.gray, "--device", "cpu", "--json")
    code, out, err = finish(*arguments)
    assert code == 1
    objects = {Path(line["source"]).name: line for line in map(json.loads, out.splitlines())}
    assert len(objects) == 5
    assert all(line.keys() == JOB_FIELDS for line in objects.values())
    empty = objects.pop("empty.jpg")
    assert (empty["status"], empty["reason"], empty["batch"]) == ("failed", "the file is empty", None)
    for name, line in objects.items():
        assert (line["status"], line["reason"], line["device"]) == ("done", None, "cpu")
        assert Path(line["destination"]).name == name
        assert line["batch"] >= 1
        assert line["seconds"].keys() == {"decode", "infer", "compose", "encode"}
    assert err.splitlines() == [f"{source}/empty.jpg: the file is empty", "4 done, 0 skipped, 1 failed"]
    again = [json.loads(line) for line in finish(*arguments)[1].splitlines()]
    assert sorted(line["status"] for line in again) == ["failed"] + ["skipped"] * 4
    assert {line["reason"] for line in again if line["status"] == "skipped"} == {"up to date"}


def test_json_keeps_undecodable_names(models, gray_photo, tmp_path):
    source = tmp_path / os.fsdecode(b"\xff.png")
    Image.fromarray(gray_photo).save(source)
    _, out, _ = finish(tmp_path, tmp_path / "out", "--model", models.gray, "--json")
    assert Path(json.loads(out)["source"]) == source


def test_fail_fast_stops_at_the_first_failure(models, make_folder, tmp_path):
    source = make_folder(tmp_path / "in", 200)
    (source / "0000.png").write_bytes(b"")
    arguments = ("--model", models.gray, "--workers", 1, "--device", "cpu")
    code, _, err = finish(source, tmp_path / "out", *arguments, "--fail-fast")
    assert code == 1
    assert "stopped at the first failure: " in err
    assert len(contents(tmp_path / "out")) < 150
    assert finish(source, tmp_path / "out", *arguments)[0] == 1
    assert len(contents(tmp_path / "out")) == 199


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_standard_streams_are_colorized(models, gray_photo, tmp_path, format_):
    file = io.BytesIO()
    Image.fromarray(gray_photo).save(file, format_)
    done = piped(file.getvalue(), "-", "-", "--model", models.tinted, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    with Image.open(io.BytesIO(done.stdout)) as image:
        assert (image.format, image.mode, image.size) == (format_, "RGB", (160, 120))
    (tmp_path / "a.in").write_bytes(file.getvalue())
    with (tmp_path / "a.in").open("rb") as stdin, (tmp_path / "out").open("wb") as stdout:
        line = [sys.executable, "-m", "colorize_cli", "-", "-", "--model", str(models.tinted), "-q"]
        subprocess.run(line, stdin=stdin, stdout=stdout, timeout=60, check=True)
    assert (tmp_path / "out").read_bytes() == done.stdout


def test_standard_streams_mix_with_files(models, gray_photo, tmp_path):
    Image.fromarray(gray_photo).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    options = ("--model", models.tinted, "--device", "cpu")
    assert piped(data, "-", tmp_path / "b.png", *options).returncode == 0
    done = piped(b"", tmp_path / "a.png", "-", *options)
    assert done.returncode == 0
    assert done.stdout == (tmp_path / "b.png").read_bytes()


def test_bad_standard_input_is_one_line(models, make_folder, tmp_path):
    options = ("--model", models.gray, "--device", "cpu", "-q")
    for data in (b"", b"no picture", b"\x89PNG\r\n\x1a\n"):
        done = piped(data, "-", "-", *options)
        assert (done.returncode, done.stdout) == (1, b"")
        assert len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith(b"-: ")
    source = make_folder(tmp_path / "in", 2)
    wrong = [("-", tmp_path), ("-", source, tmp_path / "a.png"), (source, "-"), ("-", "-", "--json")]
    for arguments in wrong:
        assert piped(b"", *arguments, *options).returncode == 2


def test_closed_output_pipe_is_a_failure_in_one_line(models, gray_photo, tmp_path):
    Image.fromarray(gray_photo).resize((1600, 1200)).save(tmp_path / "a.png")
    running = process(tmp_path / "a.png", "-", "--model", models.tinted, "-q")
    running.stdout.close()
    err = running.stderr.read()
    assert running.wait(60) == 1
    running.stderr.close()
    assert err == "-: cannot write to standard output: Broken pipe\n".replace("-:", f"{tmp_path}/a.png:")


def test_files_from_keeps_directories(models, make_folder, tmp_path):
    make_folder(tmp_path / "in", 6)
    find = "find . -type f -print0" if sys.platform != "win32" else ""
    line = (
        f'{find} | "{sys.executable}" -m colorize_cli --files-from - -0 ../out --model {models.gray} --json'
    )
    done = subprocess.run(line, shell=True, cwd=tmp_path / "in", capture_output=True, check=False)  # noqa: S602
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 6
    assert contents(tmp_path / "out").keys() == contents(tmp_path / "in").keys()


def test_files_from_with_a_missing_file_fails_only_it(models, make_folder, tmp_path):
    source = make_folder(tmp_path / "in", 2)
    (tmp_path / "list").write_text(f"{source}/0000.png\n{source}/absent.png\n\n{source}\n")
    result = invoke("--files-from", tmp_path / "list", tmp_path / "out", "--model", models.gray)
    assert result.exit_code == 1
    assert f"{source}/absent.png: No such file or directory" in result.stderr
    assert contents(tmp_path / "out").keys() == {"0000.png"}


def test_changed_model_or_strength_remakes_outputs(models, make_folder, tmp_path):
    source, output = make_folder(tmp_path / "in", 3), tmp_path / "out"
    seen = []
    for arguments in ((models.tinted,), (models.tinted, "--strength", 0.5), (models.vivid,)):
        result = invoke(source, output, "--device", "cpu", "--model", *arguments)
        assert "3 done, 0 skipped" in result.stderr
        result = invoke(source, output, "--device", "cpu", "--model", *arguments)
        assert "0 done, 3 skipped (3 up to date), 0 failed" in result.stderr
        seen.append(contents(output))
    assert seen[0] != seen[1] != seen[2]


def test_single_output_is_made_again_with_other_options_only(models, gray_photo, tmp_path):
    Image.fromarray(gray_photo).save(tmp_path / "a.png")
    hints = tmp_path / "hints.json"
    hints.write_text('{"points": [{"x": 9, "y": 9, "color": "red"}]}')
    line = (tmp_path / "a.png", tmp_path / "b.png", "--device", "cpu", "--model", models.tinted)
    for options in ((), ("--strength", 0.5), ("--hints", hints)):
        assert "1 done, 0 skipped, 0 failed" in invoke(*line, *options).stderr
        assert "0 done, 1 skipped (1 up to date), 0 failed" in invoke(*line, *options).stderr


def test_single_video_is_made_again_with_other_options_only(models, tmp_path):
    source = make(tmp_path / "a.mkv", Recipe(frames=4))
    line = (source, tmp_path / "b.mkv", "--device", "cpu", "--model", models.tinted)
    for options in ((), ("--crf", 30)):
        assert "1 done, 0 skipped, 0 failed" in invoke(*line, *options).stderr
        assert "0 done, 1 skipped (1 up to date), 0 failed" in invoke(*line, *options).stderr


@pytest.mark.parametrize("option", [(), ("--strength", 0.5)])
def test_single_output_that_colorize_did_not_make_is_refused(models, gray_photo, tmp_path, option):
    for name in ("a.png", "b.png"):
        Image.fromarray(gray_photo).save(tmp_path / name)
    before = (tmp_path / "b.png").read_bytes()
    line = (tmp_path / "a.png", tmp_path / "b.png", "--device", "cpu", "--model", models.tinted, *option)
    result = invoke(*line)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[0] == (
        f"{tmp_path}/a.png: {tmp_path}/b.png exists and was not made by colorize, or was changed since;"
        " use --overwrite to replace it"
    )
    assert (tmp_path / "b.png").read_bytes() == before
    assert invoke(*line, "--overwrite").exit_code == 0


def test_single_output_within_an_output_directory_is_known_from_its_run(models, make_folder, tmp_path):
    source, output = make_folder(tmp_path / "in", 2), tmp_path / "out"
    options = ("--device", "cpu", "--model", models.tinted)
    assert invoke(source, output, *options).exit_code == 0
    one = (source / "sub" / "0001.jpg", output / "sub" / "0001.jpg", *options)
    assert "1 up to date" in invoke(*one).stderr
    assert "1 done" in invoke(*one, "--strength", 0.5).stderr
    assert "1 done, 1 skipped (1 up to date)" in invoke(source, output, *options).stderr


def test_directory_with_a_single_output_is_still_an_input(models, make_folder, tmp_path):
    source = make_folder(tmp_path / "in", 2) / "sub"
    options = ("--device", "cpu", "--model", models.gray)
    assert invoke(source / "0001.jpg", source / "b.jpg", *options).exit_code == 0
    assert invoke(source.parent, tmp_path / "out", *options).exit_code == 0
    assert contents(tmp_path / "out").keys() == {"0000.png", "sub/0001.jpg", "sub/b.jpg"}


@pytest.mark.parametrize("shards", [True, False])
def test_two_processes_on_one_folder_give_the_output_of_one(models, make_folder, tmp_path, shards):
    source = make_folder(tmp_path / "in", 40)
    options = ("--model", models.tinted, "--device", "cpu", "--workers", 1)
    assert finish(source, tmp_path / "one", *options)[0] == 0
    parts = [("--shard", f"{i}/2") if shards else () for i in (1, 2)]
    running = [process(source, tmp_path / "two", *options, *part) for part in parts]
    ends = [each.communicate(timeout=60)[1] for each in running]
    assert [each.returncode for each in running] == [0, 0], ends
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    if shards:
        done = [int(end.splitlines()[-1].split()[0]) for end in ends]
        assert sum(done) == 40
        assert min(done) > 5


def test_invalid_shards_exit_2(make_folder, tmp_path):
    source = make_folder(tmp_path / "in", 2)
    for shard in ("0/2", "3/2", "1", "a/b", "1/0"):
        assert invoke(source, tmp_path / "out", "--shard", shard).exit_code == 2


def test_report_is_written_however_the_run_ends(models, make_folder, tmp_path):
    source = make_folder(tmp_path / "in", 4)
    (source / "0000.png").write_bytes(b"")
    page = tmp_path / "page.html"
    arguments = (source, tmp_path / "out", "--model", models.tinted, "--report", page)
    assert invoke(*arguments).exit_code == 1
    text = page.read_text()
    assert text.count('type="range"') == 3
    assert "the file is empty" in text
    assert invoke(*arguments, "--fail-fast", "--overwrite").exit_code == 1
    assert "stopped at the first failure" in page.read_text()
    assert invoke(source, tmp_path / "out", "--report", tmp_path / "a.png").exit_code == 2


def test_doctor_option_examines_the_given_model(models):
    code, out, err = finish("--model", models.tinted, "--doctor")
    assert code == 0, out
    assert err == ""
    assert "stand-in" in out
    assert "no problem found" in out
