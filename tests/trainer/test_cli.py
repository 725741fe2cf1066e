import json
import re
import runpy
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import click
import onnx
import pytest
import torch
from click.testing import CliRunner, Result

import trainer
from trainer.checkpoint import Progress, load_generator
from trainer.cli import _Bar, main
from trainer.config import Config, Phase, from_json
from trainer.data.prepare import CROPS_NAME
from trainer.loop import CHECKPOINT_NAME
from trainer.presets import PRESETS

COMMANDS = main.commands
FACTS = ["--working-size", "64", "--trained-on", "nothing", "--license", "CC0-1.0"]


def invoke(*arguments, **environment) -> Result:
    return CliRunner(env=environment).invoke(main, [str(argument) for argument in arguments])


def assert_one_line_error(result: Result, *names) -> None:
    """Check for exit code 1 and one line of error with the given names, after any progress bar."""
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == 1
    errors = result.stderr[result.stderr.index("Error: ") :]
    assert errors.count("\n") == 1, errors
    assert all(str(name) in errors for name in names), errors


@pytest.fixture
def checkpoint(small_export, tmp_path):
    path = tmp_path / "run" / CHECKPOINT_NAME
    path.parent.mkdir()
    shutil.copy(small_export.checkpoint, path)
    return path


@pytest.fixture
def train_arguments(prepared, tmp_path):
    """A run of two small updates."""
    phases = json.dumps([{"samples": 8, "crop_size": 32, "batch_size": 4}])
    fields = {"phases": phases, "model.generator": "pix2pix_unet", "model.width": 4, "model.depth": 3}
    fields |= {"evaluate_size": 32}
    return [
        *("train", prepared, "--validation", prepared, "--run", tmp_path / "run", "--device", "cpu"),
        *(word for name, value in fields.items() for word in ("--set", f"{name}={value}")),
    ]


def test_commands_match_the_readme():
    assert set(COMMANDS) == {"prepare", "train", "evaluate", "export", "quantize", "quantise", "report"}


def test_british_spellings_are_hidden_aliases():
    assert COMMANDS["quantise"].callback is COMMANDS["quantize"].callback
    assert COMMANDS["quantise"].params == COMMANDS["quantize"].params
    assert "quantise" not in invoke("--help").stdout
    assert {"--license", "--licence"} in [set(option.opts) for option in COMMANDS["export"].params]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_describes_the_command_and_every_argument(name):
    result = invoke(name, "--help")
    assert result.exit_code == 0
    description = COMMANDS[name].help
    assert len(description) > 20
    for parameter in COMMANDS[name].params:
        if isinstance(parameter, click.Argument):
            metavar = (parameter.metavar or parameter.name.upper()).rstrip(".")
            assert metavar.removesuffix("S") in description.upper(), metavar


@pytest.mark.parametrize(
    "option",
    [
        pytest.param(parameter, id=f"{name} {parameter.opts[-1]}")
        for name, command in COMMANDS.items()
        for parameter in command.params
        if isinstance(parameter, click.Option)
    ],
)
def test_every_option_has_help_text(option):
    assert option.help
    assert option.help.endswith((".", "]"))


def test_program_has_help_and_version():
    assert invoke("--help").exit_code == 0
    version = invoke("--version")
    assert version.exit_code == 0
    assert version.stdout.strip()


def test_help_is_fast_and_imports_no_torch(subprocess_environment):
    code = "import sys, trainer.cli; sys.exit('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], env=subprocess_environment, check=False).returncode == 0
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("paint",),
        ("prepare",),
        ("prepare", "only-one"),
        ("prepare", "source", "out", "--size", "many"),
        ("prepare", "source", "out", "--size", "0"),
        ("train",),
        ("train", "data", "--run", "run"),
        ("train", "data", "--validation", "data", "--run", "run", "--preset", "none"),
        ("train", "data", "--validation", "data", "--run", "run", "--set", "color=3"),
        ("train", "data", "--validation", "data", "--run", "run", "--set", "seed"),
        ("train", "data", "--validation", "data", "--run", "run", "--set", "phases=3"),
        ("train", "data", "--validation", "data", "--run", "run", "--device", "tpu"),
        ("evaluate", "model.onnx"),
        ("evaluate", "model.onnx", "pictures", "--size", "8"),
        ("evaluate", "model.onnx", "pictures", "--at-colorfulness", "3"),
        ("evaluate", "model.onnx", "pictures", "--sheet", "sheet.png", "--sheet-pictures", "0"),
        ("export", "checkpoint.pt", "model.onnx"),
        ("export", "checkpoint.pt", "model.onnx", *FACTS, "--working-size", "3"),
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_2_with_one_line_of_error(arguments):
    result = invoke(*arguments)
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert sum(line.startswith("Error: ") for line in result.stderr.splitlines()) == 1
    assert result.stderr.splitlines()[-1].startswith("Error: ")


def test_prepare_reports_written_crops_and_omitted_pictures(tmp_path, picture):
    (tmp_path / "in").mkdir()
    picture(1).save(tmp_path / "in" / "good.png")
    picture(2).convert("L").save(tmp_path / "in" / "gray.png")
    (tmp_path / "in" / "text.png").write_text("no picture")
    result = invoke("prepare", tmp_path / "in", tmp_path / "out", "--size", "16", COLUMNS="500")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "1 crops of 16 pixels from 1 pictures" in result.stderr
    assert "left out 1: gray (gray.png)" in result.stderr
    assert "left out 1: unreadable (UnidentifiedImageError) (text.png)" in result.stderr
    assert (tmp_path / "out" / CROPS_NAME).exists()


@pytest.mark.parametrize("folder", ["[red]", "x[", ":smile:", "long" * 30])
def test_prepare_prints_names_with_markup_literally(tmp_path, picture, folder):
    """rich would interpret [red] and [/b] as markup, and wrap lines."""
    (tmp_path / "in" / folder).mkdir(parents=True)
    picture(1).save(tmp_path / "in" / "good.png")
    (tmp_path / "in" / folder / "b].png").write_text("no picture")
    result = invoke("prepare", tmp_path / "in", tmp_path / "out", "--size", "16")
    assert result.exit_code == 0, repr(result.exception)
    assert f"{folder}/b].png" in result.stderr


@pytest.mark.parametrize("name", ["nowhere", "notes.txt", "empty"])
def test_prepare_unusable_source_is_named(tmp_path, name):
    (tmp_path / "notes.txt").write_text("no tar file")
    (tmp_path / "empty").mkdir()
    assert_one_line_error(invoke("prepare", tmp_path / name, tmp_path / "out"), tmp_path / name)


def test_prepare_unwritable_output_is_named(tmp_path, picture):
    picture(1).save(tmp_path / "picture.png")
    (tmp_path / "file").write_text("in the way")
    result = invoke("prepare", tmp_path / "picture.png", tmp_path / "file")
    assert_one_line_error(result, tmp_path / "file")


def test_train_prints_its_configuration_and_trains(train_arguments, tmp_path):
    result = invoke(*train_arguments)
    assert result.exit_code == 0, result.output
    config = from_json(result.stdout)
    assert config.total_samples == 8
    assert config == load_generator(tmp_path / "run" / CHECKPOINT_NAME)[1]


def test_train_starts_from_the_default_preset(train_arguments):
    config = from_json(invoke(*train_arguments, "--dry-run").stdout)
    assert config.loss == PRESETS["photo"].loss


def test_train_dry_run_writes_nothing(train_arguments, tmp_path):
    result = invoke(*train_arguments, "--dry-run")
    assert result.exit_code == 0, result.output
    assert list(tmp_path.iterdir()) == []


def test_train_dry_run_estimates_the_time(train_arguments):
    result = invoke(*train_arguments, "--dry-run")
    assert re.fullmatch(r"about 8 samples in 0:00:\d\d \(h:mm:ss\)\n", result.stderr)


def test_train_samples_and_minutes_replace_phases(train_arguments):
    found = [invoke(*train_arguments, *more, "--dry-run") for more in (("--samples", 20), ("--minutes", 2.5))]
    assert [result.exit_code for result in found] == [0, 0]
    samples, minutes = (from_json(result.stdout) for result in found)
    assert (samples.total_samples, samples.minutes) == (20, 0.0)
    assert (minutes.total_samples, minutes.minutes) == (8, 2.5)
    assert "samples in 0:02:30" in found[1].stderr
    both = invoke(*train_arguments, "--samples", 20, "--minutes", 1)
    assert both.exit_code == 2
    assert both.stderr.endswith("Error: --samples and --minutes exclude each other\n")


def test_train_finetune_starts_from_the_bundled_weights(prepared, tmp_path):
    """One update at a rate of 0 leaves the weights as they were."""
    phase = {"samples": 2, "batch_size": 2, "crop_size": 32, "learning_rate": 0.0, "final_learning_rate": 0.0}
    arguments = ["--run", tmp_path / "run", "--preset", "finetune", "--set", f"phases={json.dumps([phase])}"]
    fields = ["evaluate_size=32", "evaluate_crops=2", "precision=32-true"]
    assignments = [word for field in fields for word in ("--set", field)]
    result = invoke("train", prepared, "--validation", prepared, "--device", "cpu", *arguments, *assignments)
    assert result.exit_code == 0, result.output
    assert from_json(result.stdout).start_from == "photo"
    bundled = load_generator(Path(trainer.__file__).parent / "pretrained" / "photo.safetensors")[0]
    trained = load_generator(tmp_path / "run" / CHECKPOINT_NAME)[0]
    for name, parameter in bundled.named_parameters():
        torch.testing.assert_close(trained.get_parameter(name), parameter, msg=name)


def test_train_says_where_it_continues_and_shows_the_count(train_arguments, tmp_path, monkeypatch):
    """The bar counts from where the run continues, and its speed is that of this session."""
    stopping = {"evaluate_every": 1000, "checkpoint_every": 1000}
    arguments = [*train_arguments, *(w for n, v in stopping.items() for w in ("--set", f"{n}={v}"))]
    monkeypatch.setattr("trainer.loop._Clock", Interrupting)
    stopped = invoke(*arguments, COLUMNS="200")
    assert stopped.exit_code == 130
    assert "stopped after 4 samples; run the same command to continue" in stopped.stderr
    metrics = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["kind"] for line in metrics] == ["evaluation"]
    monkeypatch.undo()
    result = invoke(*arguments, COLUMNS="200")
    assert result.exit_code == 0
    assert "continuing from 4 samples\n" in result.stderr
    assert "8/8 samples" in result.stderr


class Interrupting:
    """A clock at whose first reading the user presses Ctrl-C."""

    def __init__(self, earlier: float) -> None:
        self.now = earlier

    def seconds(self) -> float:
        signal.raise_signal(signal.SIGINT)
        self.now += 1
        return self.now


def test_bar_moves_with_every_update_and_starts_at_the_resumed_count():
    config = Config(phases=(Phase(samples=1000),))
    with _Bar(config) as bar:
        bar.advanced(Progress(600, 60.0), {})
        assert (bar.task.completed, bar.task.fields["speed"]) == (600, 0.0)
        bar.advanced(Progress(640, 64.0), {})
        assert (bar.task.completed, bar.task.fields["speed"]) == (640, 10.0)
        bar.advanced(Progress(700, 70.0), {"reconstruction": 0.5, "gain": 1.0})
        assert (bar.task.completed, bar.task.fields["figures"]) == (700, "reconstruction 0.500")
        assert bar.task.fields["samples"] == "700/1000"
    timed = replace(config, minutes=2.0)
    with _Bar(timed) as bar:
        bar.advanced(Progress(7, 90.0), {})
        assert (bar.task.completed, bar.task.fields["samples"]) == (750, "7")


def test_train_unreadable_data_is_named(train_arguments, tmp_path, prepared):
    for place in (1, 3):
        arguments = [*train_arguments[:place], tmp_path / "nowhere", *train_arguments[place + 1 :]]
        assert_one_line_error(invoke(*arguments), tmp_path / "nowhere")
    assert not (tmp_path / "run").exists()


def test_train_damaged_checkpoint_is_named(train_arguments, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / CHECKPOINT_NAME).write_text("damaged")
    assert_one_line_error(invoke(*train_arguments), tmp_path / "run" / CHECKPOINT_NAME)


def test_train_start_from_option_sets_the_config_field(train_arguments, small_export, tmp_path):
    """Also overrides `--set`, and accepts a file name that is a number in JSON."""
    (tmp_path / "1").write_bytes(small_export.checkpoint.read_bytes())
    arguments = [*train_arguments, "--set", "model.width=8", "--set", "model.depth=2"]
    for start in (small_export.weights, small_export.checkpoint):
        more = ["--set", "start_from=elsewhere.pt", "--start-from", start, "--dry-run"]
        result = invoke(*arguments, *more)
        assert result.exit_code == 0, result.output
        assert from_json(result.stdout).start_from == str(start)
    assert from_json(invoke(*train_arguments, "--start-from", "1").stdout).start_from == "1"


def test_train_start_from_by_either_option_gives_the_same_run(train_arguments, small_export, tmp_path):
    start = small_export.weights
    arguments = [*train_arguments, "--set", "model.width=8", "--set", "model.depth=2"]
    first = invoke(*arguments, "--start-from", start)
    assert first.exit_code == 0, first.output
    again = invoke(*arguments, "--set", f"start_from={start}")
    assert again.exit_code == 0, again.output
    assert from_json(again.stdout) == from_json(first.stdout)
    assert_one_line_error(invoke(*arguments), tmp_path / "run", "another configuration")


def test_train_unusable_start_weights_are_named(train_arguments, tmp_path, small_export):
    other = tmp_path / "other.pt"
    shutil.copy(small_export.checkpoint, other)
    for path in (tmp_path / "none.pt", other):
        assert_one_line_error(invoke(*train_arguments, "--start-from", path), path)
    assert not (tmp_path / "run").exists()


def test_train_run_that_is_a_file_is_named(train_arguments, tmp_path):
    (tmp_path / "run").write_text("in the way")
    assert_one_line_error(invoke(*train_arguments), tmp_path / "run")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_train_on_absent_gpu_fails_without_traceback(train_arguments):
    arguments = ["cuda" if argument == "cpu" else argument for argument in train_arguments]
    result = invoke(*arguments)
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code != 0
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "assignment",
    [
        "precision=7-bit",
        "model.generator=vgg",
        "model.enlarge=3",
        "loss.reconstruction=l3",
        "phases.0.crop_size=36",
        "evaluate_every=0",
    ],
)
def test_train_invalid_field_is_named(train_arguments, assignment):
    result = invoke(*train_arguments, "--set", assignment)
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code in (1, 2)
    assert assignment.split("=")[0].split(".")[-1] in result.stderr.splitlines()[-1]


def test_export_writes_the_model_and_the_weights(checkpoint, tmp_path):
    out, weights = tmp_path / "deep" / "model.onnx", tmp_path / "weights.safetensors"
    calibration = ["--chroma-gain", "1.25", "--mean-factor", "0.5", "--chroma-exponent", "1.1"]
    result = invoke("export", checkpoint, out, "--name", "test", *FACTS, "--weights", weights, *calibration)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert str(out) in result.stderr
    metadata = {entry.key: entry.value for entry in onnx.load(out).metadata_props}
    assert metadata["colorize.name"] == "test"
    assert metadata["colorize.working_size"] == "64"
    said = json.loads(metadata["colorize.calibration"])
    assert said == {"gain": 1.25, "mean_factor": 0.5, "exponent": 1.1}
    for name, value in load_generator(checkpoint)[0].state_dict().items():
        torch.testing.assert_close(load_generator(weights)[0].state_dict()[name], value, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["none.pt", "damaged.pt", "damaged.safetensors", "folder"])
def test_export_unreadable_checkpoint_is_named(tmp_path, name):
    if "damaged" in name:
        (tmp_path / name).write_text("damaged")
    elif name == "folder":
        (tmp_path / name).mkdir()
    assert_one_line_error(invoke("export", tmp_path / name, tmp_path / "m.onnx", *FACTS), tmp_path / name)
    assert not (tmp_path / "m.onnx").exists()


def test_export_unwritable_output_is_named(checkpoint, tmp_path):
    (tmp_path / "file").write_text("in the way")
    result = invoke("export", checkpoint, tmp_path / "file" / "model.onnx", *FACTS)
    assert_one_line_error(result, tmp_path / "file")


def test_export_weights_with_unknown_suffix_are_refused(checkpoint, tmp_path):
    weights = tmp_path / "weights.bin"
    result = invoke("export", checkpoint, tmp_path / "model.onnx", *FACTS, "--weights", weights)
    assert_one_line_error(result, weights, ".safetensors")
    assert not list(tmp_path.glob("*.onnx"))


def test_module_runs_as_the_program(monkeypatch, capfd, tmp_path):
    monkeypatch.setattr(sys, "argv", ["trainer", "export", str(tmp_path / "none.pt"), "out.onnx", *FACTS])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("trainer", run_name="__main__")
    assert caught.value.code == 1
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.startswith("colorize-train: ")
    assert said.err.count("\n") == 1
