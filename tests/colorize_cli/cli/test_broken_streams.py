"""Standard output and standard error that cannot be written to."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.videos import Recipe, make

FULL = Path("/dev/full")
NO_SPACE = "cannot write to standard output: No space left on device"
pytestmark = pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")


def run_into(streams: str, *arguments: object) -> tuple[int, str]:
    """Run the command in a shell, with redirections; return its exit status and stderr."""
    line = ["bash", "-c", f'set -o pipefail; "$@" {streams}', "bash", sys.executable, "-m", "colorize_cli"]
    done = subprocess.run(
        [*line, *map(str, arguments)], stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    return done.returncode, done.stderr


@pytest.fixture
def picture(gray_photo, tmp_path) -> Path:
    Image.fromarray(gray_photo).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.fixture
def options(models) -> tuple[object, ...]:
    return "--model", models.tinted, "--device", "cpu"


def test_picture_to_a_full_disk_fails_with_the_reason(picture, options):
    code, err = run_into("> /dev/full", picture, "-", *options, "-q")
    assert (code, err) == (1, f"{picture}: {NO_SPACE}\n")


def test_video_to_a_full_disk_fails_with_the_reason(tmp_path, options):
    source = make(tmp_path / "a.mkv", Recipe(frames=8))
    code, err = run_into("> /dev/full", source, "-", *options, "-q")
    assert (code, err) == (1, f"{source}: {NO_SPACE}\n")


def test_video_into_a_closed_pipe_fails_with_the_reason(tmp_path, options):
    source = make(tmp_path / "a.mkv", Recipe(frames=60, width=320, height=240))
    code, err = run_into("--codec ffv1 | head -c 1000 > /dev/null", source, "-", *options, "-q")
    assert (code, err) == (1, f"{source}: cannot write to standard output: Broken pipe\n")


def test_json_to_a_full_disk_ends_the_run_with_the_reason(picture, options):
    code, err = run_into("--json > /dev/full", picture, picture.with_name("b.png"), *options)
    assert code == 1
    assert err.splitlines()[-1] == f"{NO_SPACE}: 1 done, 0 skipped, 0 failed, 0 left"
    assert picture.with_name("b.png").is_file()


@pytest.mark.parametrize("arguments", [("--dry-run", "{picture}", "b.png"), ("models",), ("--help",)])
def test_texts_to_a_full_disk_fail_with_the_reason(picture, arguments):
    given = [argument.format(picture=picture) for argument in arguments]
    assert run_into("> /dev/full", *given) == (1, f"colorize: {NO_SPACE}\n")


def test_run_with_a_full_stderr_goes_on(picture, options):
    assert run_into("2> /dev/full", picture, picture.with_name("b.png"), *options) == (0, "")
    assert picture.with_name("b.png").is_file()
