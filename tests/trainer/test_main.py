import subprocess
import sys


def run(*line: object, **options) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, *map(str, line)], capture_output=True, text=True, timeout=60, check=False, **options
    )
    return done.returncode, done.stderr


def test_command_without_its_extra_names_what_to_install(tmp_path):
    code = "import sys; sys.modules['torch'] = None; from trainer.__main__ import main; main()"
    line = ("-c", code, "export", tmp_path / "a.pt", tmp_path / "a.onnx")
    returned, err = run(*line, "--working-size", "32", "--trained-on", "x", "--license", "x")
    assert returned == 1
    assert err == (
        "colorize-train: torch is not installed; install what training needs with:"
        " pip install 'colorize-cli[train]'\n"
    )


def test_wrong_use_is_one_line():
    returned, err = run("-m", "trainer", "train")
    assert (returned, err) == (
        2,
        "colorize-train: Missing argument 'DATA' (see colorize-train train --help)\n",
    )
