"""onnxruntime writes a device id and a database of events below HOME unless it is told not to."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image


def home_after(home: Path, *line: object, **environment: str) -> list[str]:
    """Run a command with an empty HOME, and return what it left there."""
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        kept.pop(name, None)
    kept |= {"HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"} | environment
    subprocess.run([sys.executable, *map(str, line)], env=kept, check=True, capture_output=True, timeout=60)
    return sorted(str(path.relative_to(home)) for path in home.rglob("*"))


def test_run_leaves_an_empty_home_empty(models, gray_photo, tmp_path):
    Image.fromarray(gray_photo).save(tmp_path / "a.png")
    line = ("-m", "colorize_cli", tmp_path / "a.png", tmp_path / "b.png", "--model", models.gray)
    assert home_after(tmp_path / "home", *line) == []
    assert (tmp_path / "b.png").is_file()


@pytest.mark.parametrize(
    "module", ["colorize_cli.api", "colorize_cli.engine.cluster.worker", "trainer.config"]
)
def test_other_processes_leave_an_empty_home_empty(tmp_path, module):
    code = f"import {module}, onnxruntime"
    assert home_after(tmp_path / "home", "-c", code) == []


def test_setting_of_the_user_is_kept(tmp_path):
    code = "import os, colorize_cli, trainer; assert os.environ['ORT_DISABLE_TELEMETRY'] == '0'"
    assert home_after(tmp_path / "home", "-c", code, ORT_DISABLE_TELEMETRY="0") == []
