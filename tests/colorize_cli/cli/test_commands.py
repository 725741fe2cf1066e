import json
import os
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from colorize_cli import cli
from colorize_cli.cli import doctor
from colorize_cli.cli.doctor import Finding, Verdict
from tests.helpers.cli import finish

COMMANDS = ("run", "retouch", "compare", "models", "doctor")


def invoke(*arguments: object, **options):
    return CliRunner().invoke(cli.command, list(map(str, arguments)), prog_name="colorize", **options)


def completed(line: str) -> list[str]:
    """Return the completions of the last word of a command line, as type,value."""
    words = line.split(" ")
    environment = os.environ | {
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
        "_COLORIZE_COMPLETE": "bash_complete",
    }
    done = subprocess.run(
        [sys.executable, "-m", "colorize_cli"], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_lists_commands_and_options_of_run(option):
    result = invoke(option)
    assert result.exit_code == 0
    assert result.stdout.startswith(
        "Usage: colorize [OPTIONS] [INPUT...] OUTPUT\n       colorize COMMAND ...\n"
    )
    _, _, commands = result.stdout.partition("\n\nCommands:\n")
    listed, _, text = commands.partition("\n\n")
    assert [line.split()[0] for line in listed.splitlines()] == list(COMMANDS)
    assert "..." not in listed, "each command is described in full"
    assert text.index("  Examples:\n    colorize scans/ colorized/") < text.index("INPUT... are")
    _, _, options = text.partition("\nWhat is colorized:\n")
    titles = ["How it looks:", "Films:", "How it runs:", "Several machines:", "Other options:"]
    assert [line for line in options.splitlines() if line and not line.startswith(" ")] == titles
    alone = invoke("run", "--help").stdout
    assert alone.endswith(options)
    assert "--doctor" not in options


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_explains_every_option(name):
    result = invoke(name, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: colorize {name} [OPTIONS]")
    command = cli.command.get_command(click.Context(cli.command), name)
    assert all(option.help for option in command.params if isinstance(option, click.Option))


@pytest.mark.parametrize(
    "line",
    [
        "in out --model {model} --device cpu",
        "--model {model} --device cpu in out",
        "run in out --model {model} --device cpu",
        "run --model {model} in out --device cpu",
    ],
)
def test_command_without_a_name_is_run(models, make_folder, tmp_path, monkeypatch, line):
    monkeypatch.chdir(tmp_path)
    make_folder(tmp_path / "in", 1)
    result = invoke(*line.format(model=models.gray).split())
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "0000.png").is_file()


@pytest.mark.parametrize(
    "line",
    ["{options} ./models out", "run doctor out {options}", "{options} run out", "{options} -- compare out"],
)
def test_directory_named_like_a_command_is_colorized(models, make_folder, tmp_path, monkeypatch, line):
    monkeypatch.chdir(tmp_path)
    arguments = line.format(options=f"--model {models.gray} --device cpu").split()
    (name,) = {*COMMANDS, "./models"}.intersection(arguments[arguments[0] == "run" :])
    make_folder(tmp_path / name, 1)
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "0000.png").is_file()


def test_usage_errors_exit_2_with_a_message():
    for arguments, message in (
        ((), "nothing to colorize: give INPUT and OUTPUT"),
        (("out",), "nothing to colorize: give INPUT and OUTPUT"),
        (("in", "out", "--paint"), "--paint"),
        (("models", "out"), "Got unexpected extra argument (out)"),
        (("compare", "in", "out"), "to colorize a directory of this name, give ./compare"),
    ):
        result = invoke(*arguments)
        assert result.exit_code == 2
        assert message in result.stderr
        assert result.stdout == ""


def test_models_lists_models_as_json():
    result = invoke("models", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout.splitlines()[0])["name"] == "default"


@pytest.mark.parametrize("arguments", [("doctor", "--model"), ("--doctor",), ("run", "--doctor")])
def test_doctor_command_and_option_are_equal(models, monkeypatch, arguments):
    found = [Finding("a", Verdict.PROBLEM, "line\nbreak", "mend it")]
    monkeypatch.setattr(doctor, "examine", lambda model: [*found, Finding(str(model), Verdict.OK, "")])
    model = [str(models.gray)] if arguments[-1] == "--model" else []
    result = invoke(*arguments, *model)
    assert result.exit_code == 1
    assert result.stdout.splitlines()[:2] == [
        "PROBLEM  a             line\\nbreak",
        "         fix it with: mend it",
    ]
    assert result.stdout.splitlines()[2].split() == ["ok", *(model or ["None"])]


def test_doctor_starts_without_the_examined_modules(tmp_path):
    for module in ("cv2", "PIL", "onnxruntime", "platformdirs"):
        (tmp_path / module).mkdir()
        (tmp_path / module / "__init__.py").write_text("raise ImportError('it is broken')")
    code, out, _ = finish(
        "doctor", env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    )
    assert code == 1
    assert out.count("it is broken") >= 4
    assert "fix it with: " in out


@pytest.mark.parametrize(
    ("line", "completions"),
    [
        ("colorize com", ["plain,compare", "file,com"]),
        ("colorize --dev", ["plain,--device"]),
        ("colorize in/ --prec", ["plain,--precision"]),
        ("colorize in/ com", ["file,com"]),
        ("colorize compare in/ --si", ["plain,--size", "plain,--side"]),
        ("colorize doctor --m", ["plain,--model"]),
    ],
)
def test_completion_offers_commands_and_their_options(line, completions):
    assert completed(line) == completions
