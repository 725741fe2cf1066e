import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from colorize_cli.inference import registry
from tests.helpers.cli import invoke
from tests.helpers.models import write_rgb_model


@pytest.fixture
def folder(tmp_path, models, monkeypatch) -> Path:
    """A user's folder with a native model, a model of kind ddcolor, and a broken file."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(
        registry.platformdirs, "user_data_path", lambda *_, **__: tmp_path / "data" / "colorize"
    )
    folder = tmp_path / "data" / "colorize" / "models"
    folder.mkdir(parents=True)
    (folder / "tinted.onnx").write_bytes(models.tinted.read_bytes())
    (folder / "tinted-int8.onnx").write_bytes(models.tinted.read_bytes())
    write_rgb_model(folder / "theirs.onnx", "ddcolor", side=64, batch=1)
    (folder / "broken.onnx").write_text("no model")
    return folder


def test_entries_list_all_models_with_their_facts(folder):
    found = {entry.name: entry for entry in registry.entries()}
    bundled = sorted(path.stem for path in registry.MODELS.glob("*.onnx") if path.stem != "default")
    assert list(found) == ["default", *bundled, "broken", "theirs", "tinted"]
    assert (found["default"].kind, found["default"].path) == ("native", None)
    assert (found["theirs"].kind, found["theirs"].working_size) == ("ddcolor", 64)
    assert (found["tinted"].says, found["tinted"].size) == (
        "stand-in",
        (folder / "tinted.onnx").stat().st_size,
    )
    assert "not an ONNX file" in (found["broken"].problem or "")
    assert all(len(entry.sha256) == 64 for entry in found.values())


def test_resolve_finds_models_by_name(folder, tmp_path, monkeypatch):
    assert registry.resolve(None) is None
    assert registry.resolve(Path("default")) is None
    assert registry.resolve(Path("tinted")) == folder / "tinted.onnx"
    assert registry.resolve(Path("tinted.onnx")) == folder / "tinted.onnx"
    assert registry.resolve(Path("absent")) == Path("absent")
    assert registry.resolve(Path("elsewhere/tinted")) == Path("elsewhere/tinted")
    monkeypatch.chdir(tmp_path)
    Path("tinted").write_text("a file of that name comes first")
    assert registry.resolve(Path("tinted")) == Path("tinted")


def test_resolve_prefers_the_folder_to_bundled_models(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "MODELS", bundled := tmp_path / "bundled")
    bundled.mkdir()
    for name in ("open", "tinted"):
        (bundled / f"{name}.onnx").write_bytes((folder / "tinted.onnx").read_bytes())
    assert registry.resolve(Path("open")) == bundled / "open.onnx"
    assert registry.resolve(Path("tinted")) == folder / "tinted.onnx"
    listed = {entry.name: entry.path for entry in registry.entries()}
    assert list(listed) == ["default", "open", "tinted", "broken", "theirs"]
    assert listed["open"] == str(bundled / "open.onnx")
    assert listed["tinted"] == str(folder / "tinted.onnx")


def test_model_name_colorizes_as_its_file(folder, tmp_path, make_folder):
    source = make_folder(tmp_path / "in", 1) / "0000.png"
    for name, output in (("tinted", "a.png"), (folder / "tinted.onnx", "b.png")):
        result = invoke(source, tmp_path / output, "--model", name, "--device", "cpu")
        assert result.exit_code == 0, result.output
    one, other = (np.asarray(Image.open(tmp_path / name)) for name in ("a.png", "b.png"))
    np.testing.assert_array_equal(one, other)
    absent = invoke(source, tmp_path / "c.png", "--model", "absent", "--device", "cpu")
    assert absent.exit_code == 2
    assert "cannot read the model absent" in absent.stderr


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "colorize_cli", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def test_models_command_lists_models(folder):
    plain = run("models")
    assert plain.returncode == 0
    assert "default\n" in plain.stdout
    assert "looked for in" in plain.stderr
    lines = [json.loads(line) for line in run("models", "--json").stdout.splitlines()]
    assert lines[0]["name"] == "default"
