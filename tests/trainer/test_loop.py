import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from trainer.checkpoint import CheckpointError, load_generator
from trainer.config import ConfigError, Phase, from_json, to_json
from trainer.data.prepare import CROPS_NAME, MANIFEST_NAME, DataError
from trainer.loop import CHECKPOINT_NAME, Run, learning_rate, on_hardware, train
from trainer.models import GENERATORS
from trainer.run_log import CONFIG_NAME, METRICS_NAME

BATCH = 4


class Observer:
    """Remembers how far it was told the run is, and calls `reaction` each time."""

    def __init__(self, reaction=lambda _samples: None):
        self.seen = []
        self.notices = []
        self._reaction = reaction

    def notice(self, text):
        self.notices.append(text)

    def advanced(self, samples_seen, figures):  # noqa: ARG002 - as Watcher has it
        self.seen.append(samples_seen)
        self._reaction(samples_seen)


def interrupt_at(samples):
    return Observer(lambda seen: os.kill(os.getpid(), signal.SIGINT) if seen == samples else None)


def crash_at(samples):
    def crash(seen):
        if seen == samples:
            raise RuntimeError("power cut")

    return Observer(crash)


@pytest.mark.parametrize(
    ("asked", "has_bf16", "settled"),
    [
        ("auto", True, "bf16-mixed"),
        ("auto", False, "32-true"),
        ("32-true", True, "32-true"),
        ("bf16-mixed", False, "bf16-mixed"),
    ],
)
def test_precision_is_settled_by_what_the_hardware_has(asked, has_bf16, settled, tiny, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": has_bf16})
    assert on_hardware(replace(tiny, precision=asked), "cpu") == replace(tiny, precision=settled)


@pytest.fixture
def run(prepared, tmp_path) -> Run:
    return Run(tmp_path / "run", prepared, prepared)


def checkpoint(run: Run) -> dict:
    return torch.load(run.folder / CHECKPOINT_NAME, weights_only=True)


def metrics(run: Run) -> list[dict]:
    return [json.loads(line) for line in (run.folder / METRICS_NAME).read_text().splitlines()]


def differences(one, other, where="") -> list[str]:
    """Where two nested states differ in any bit."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        return [d for key in one for d in differences(one[key], other[key], f"{where}.{key}")]
    if isinstance(one, list | tuple):
        assert len(one) == len(other), where
        return [d for i in range(len(one)) for d in differences(one[i], other[i], f"{where}.{i}")]
    if isinstance(one, torch.Tensor):
        return [] if torch.equal(one, other) else [where]
    return [] if one == other or where == ".seconds" else [where]


@pytest.fixture(params=GENERATORS)
def any_generator(tiny, request):
    return replace(tiny, model=replace(tiny.model, generator=request.param))


@pytest.mark.parametrize("stop", [1, 3])  # updates: in the first and in the adversarial phase
def test_an_interrupted_run_continues_bit_for_bit(any_generator, run, fabric, tmp_path, stop):
    straight = replace(run, folder=tmp_path / "straight")
    train(any_generator, straight, fabric, Observer())
    stopped = train(any_generator, run, fabric, interrupt_at(stop * BATCH))
    assert stopped.samples_seen == stop * BATCH
    finished = train(any_generator, run, fabric, Observer())
    assert finished.samples_seen == any_generator.total_samples == 6 * BATCH
    assert differences(checkpoint(straight), checkpoint(run)) == []


def test_a_crashed_run_continues_bit_for_bit_from_its_last_checkpoint(tiny, run, fabric, tmp_path):
    straight = replace(run, folder=tmp_path / "straight")
    train(tiny, straight, fabric, Observer())
    with pytest.raises(RuntimeError, match="power cut"):
        train(tiny, run, fabric, crash_at(5 * BATCH))
    assert checkpoint(run)["samples_seen"] == 4 * BATCH
    train(tiny, run, fabric, Observer())
    assert differences(checkpoint(straight), checkpoint(run)) == []


def test_training_twice_gives_the_same(tiny, run, fabric, tmp_path):
    again = replace(run, folder=tmp_path / "again")
    for place in (run, again):
        torch.manual_seed(time.monotonic_ns())  # what was drawn before does not matter
        train(tiny, place, fabric, Observer())
    assert differences(checkpoint(run), checkpoint(again)) == []


def test_another_seed_trains_on_other_batches(tiny, run, fabric, tmp_path):
    """Also from the same weights to start with."""
    train(tiny, run, fabric, Observer())
    start = run.folder / CHECKPOINT_NAME
    weights = []
    for seed in (1, 2):
        place = Run(tmp_path / str(seed), run.train_data, run.validation_data, start_from=start)
        train(replace(tiny, seed=seed, phases=tiny.phases[:1]), place, fabric, Observer())
        weights.append(checkpoint(place)["generator"]["head.weight"])
    assert not torch.equal(*weights)


def test_a_finished_run_is_left_as_it_is(tiny, run, fabric):
    first = train(tiny, run, fabric, Observer())
    before, lines = checkpoint(run), metrics(run)
    observer = Observer()
    again = train(tiny, run, fabric, observer)
    assert again.samples_seen == first.samples_seen
    assert observer.seen == []
    assert differences(before, checkpoint(run)) == []
    assert metrics(run) == lines


def test_a_phase_whose_samples_are_no_multiple_of_its_batch_ends_exactly(tiny, run, fabric):
    config = replace(tiny, phases=(Phase(samples=6, crop_size=32, batch_size=4), tiny.phases[1]))
    train(config, run, fabric, Observer())
    state = checkpoint(run)
    assert state["samples_seen"] == 6 + tiny.phases[1].samples
    assert state["updates"] == 2 + 4


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"ema_decay": 0.5}, {"phases": (Phase(samples=8, crop_size=32),)}]
)
def test_a_folder_of_another_configuration_is_refused_and_left_alone(tiny, run, fabric, change):
    train(tiny, run, fabric, interrupt_at(BATCH))
    with pytest.raises(ConfigError) as caught:
        train(replace(tiny, **change), run, fabric, interrupt_at(2 * BATCH))
    assert str(run.folder) in str(caught.value)
    assert from_json((run.folder / CONFIG_NAME).read_text()) == tiny


def test_a_folder_of_other_networks_is_refused_and_left_alone(tiny, run, fabric):
    train(tiny, run, fabric, interrupt_at(BATCH))
    other = replace(tiny, model=replace(tiny.model, width=8))
    with pytest.raises((CheckpointError, ConfigError)):
        train(other, run, fabric, Observer())
    assert from_json((run.folder / CONFIG_NAME).read_text()) == tiny


def test_a_damaged_checkpoint_is_named_and_left_alone(tiny, run, fabric):
    run.folder.mkdir()
    (run.folder / CHECKPOINT_NAME).write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt"):
        train(tiny, run, fabric, Observer())
    assert (run.folder / CHECKPOINT_NAME).read_bytes() == b"damaged"


@pytest.mark.parametrize("harm", [lambda path: path.unlink(), lambda path: path.write_bytes(b"damaged")])
def test_where_the_newest_checkpoint_is_damaged_the_one_before_is_taken(tiny, run, fabric, tmp_path, harm):
    straight = replace(run, folder=tmp_path / "straight")
    train(tiny, straight, fabric, Observer())
    with pytest.raises(RuntimeError, match="power cut"):
        train(tiny, run, fabric, crash_at(5 * BATCH))
    harm(run.folder / CHECKPOINT_NAME)
    observer = Observer()
    train(tiny, run, fabric, observer)
    assert observer.seen[0] == 4 * BATCH  # the one before was of 3 batches
    assert [CHECKPOINT_NAME in notice and "previous" in notice for notice in observer.notices] == [True]
    assert differences(checkpoint(straight), checkpoint(run)) == []


def test_a_run_that_crashed_leaves_no_line_of_metrics_twice(tiny, run, fabric):
    with pytest.raises(RuntimeError, match="power cut"):
        train(tiny, run, fabric, crash_at(4 * BATCH))
    with (run.folder / METRICS_NAME).open("a") as lines:
        lines.write('{"kind": "train", "sam')  # cut short
    train(tiny, run, fabric, Observer())
    evaluated = [line["samples"] for line in metrics(run) if line["kind"] == "evaluation"]
    assert evaluated == [4, 8, 12, 16, 20, 24]


def test_metrics_are_json_lines_in_order(tiny, run, fabric):
    train(tiny, run, fabric, Observer())
    lines = metrics(run)
    assert [line["samples"] for line in lines if line["kind"] == "evaluation"] == [4, 8, 12, 16, 20, 24]
    assert [line["samples"] for line in lines if line["kind"] == "train"][-1] == 24
    for line in lines:
        assert line["seconds"] >= 0
        assert all(math.isfinite(value) for name, value in line.items() if name != "kind")
    wanted = {"psnr", "gain", "gain_at_65", "colourfulness", "colourfulness_share", "ab_mae"}
    assert all(wanted <= line.keys() for line in lines if line["kind"] == "evaluation")
    assert {"reconstruction", "discriminator", "adversarial", "feature_matching"} <= lines[-2].keys()


def test_evaluation_takes_no_more_crops_than_asked_for_spread_over_the_set(
    tiny, run, fabric, prepared, tmp_path
):
    crops = np.load(prepared / CROPS_NAME)[::6]  # of 16, the fewest steps that leave no more than 3
    np.save(tmp_path / CROPS_NAME, crops)
    manifest = json.loads((prepared / MANIFEST_NAME).read_text())
    (tmp_path / MANIFEST_NAME).write_text(json.dumps(manifest | {"crops": len(crops)}))
    some = replace(run, folder=tmp_path / "some", validation_data=tmp_path)
    train(tiny, some, fabric, Observer())
    train(replace(tiny, evaluate_crops=3), run, fabric, Observer())
    evaluations = [
        [line | {"seconds": 0} for line in metrics(place) if line["kind"] == "evaluation"]
        for place in (some, run)
    ]
    assert len(crops) == 3
    assert evaluations[0] == evaluations[1]


def test_seconds_add_up_over_the_sessions_of_a_run(tiny, run, fabric):
    first = train(tiny, run, fabric, interrupt_at(3 * BATCH))
    second = train(tiny, run, fabric, Observer())
    assert 0 < first.seconds < second.seconds
    seconds = [line["seconds"] for line in metrics(run)]
    assert seconds == sorted(seconds)


def test_every_evaluation_leaves_a_sample_sheet(tiny, run, fabric):
    train(tiny, run, fabric, Observer())
    sheets = sorted((run.folder / "samples").iterdir())
    assert [sheet.name for sheet in sheets] == [f"{samples:09d}.png" for samples in range(4, 25, 4)]
    with Image.open(sheets[-1]) as sheet:
        assert sheet.size == (8 * 32, 2 * 3 * 32)  # 16 pictures in two bands of grey, predicted, true
        pixels = np.asarray(sheet).astype(int)
    chroma = np.ptp(pixels, axis=2)
    assert chroma[:32].max() <= 1, "the first row is grey"
    assert chroma[64:96].mean() > 20, "the third row is true"


def test_run_leaves_its_configuration_and_a_tensorboard_file(tiny, run, fabric):
    train(tiny, run, fabric, Observer())
    assert from_json((run.folder / CONFIG_NAME).read_text()) == tiny
    events = list((run.folder / "tensorboard").glob("events.out.tfevents.*"))
    assert len(events) == 1
    assert events[0].stat().st_size > 1000
    assert not list(run.folder.rglob("*.part"))


def test_the_checkpoint_can_be_exported_from(tiny, run, fabric):
    train(tiny, run, fabric, Observer())
    generator, config = load_generator(run.folder / CHECKPOINT_NAME)
    assert config == tiny
    assert all(parameter.isfinite().all() for parameter in generator.parameters())


def test_a_dry_run_makes_its_updates_and_writes_nothing(tiny, run, fabric, tmp_path):
    progress = train(tiny, replace(run, stop_after=2), fabric, Observer())
    assert progress.samples_seen == 2 * BATCH
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_leaves_a_run_that_has_begun_alone(tiny, run, fabric):
    train(tiny, run, fabric, interrupt_at(BATCH))
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    train(tiny, replace(run, stop_after=2), fabric, Observer())
    assert {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()} == before


def test_a_new_run_can_start_from_the_weights_of_another(tiny, run, fabric, tmp_path):
    train(tiny, run, fabric, Observer())
    place = Run(tmp_path / "new", run.train_data, run.validation_data, run.folder / CHECKPOINT_NAME)
    still = replace(tiny, phases=(replace(tiny.phases[0], learning_rate=0.0, final_learning_rate=0.0),))
    train(still, place, fabric, Observer())
    old, new = checkpoint(run)["ema"], checkpoint(place)["generator"]
    assert torch.equal(old["head.weight"], new["head.weight"])


def test_signals_are_handled_as_before_afterwards(tiny, run, fabric):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    train(tiny, run, fabric, Observer())
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def damaged_copy(folder, target):
    target.mkdir()
    (target / CROPS_NAME).write_bytes((folder / CROPS_NAME).read_bytes()[:-1])
    (target / MANIFEST_NAME).write_bytes((folder / MANIFEST_NAME).read_bytes())
    return target


@pytest.mark.parametrize("field", ["train_data", "validation_data"])
def test_damaged_data_is_named_before_anything_is_written(tiny, run, fabric, tmp_path, field):
    broken = damaged_copy(run.train_data, tmp_path / "broken")
    with pytest.raises(DataError, match="broken"):
        train(tiny, replace(run, **{field: broken}), fabric, Observer())
    assert not run.folder.exists()


UNTRAINABLE = {
    "crops larger than the prepared": {"phases": (Phase(4, 64, 2),)},
    "crops that do not fit the generator": {"phases": (Phase(4, 40, 2),)},
    "crops too small for the discriminator": {"phases": (Phase(4, 16, 2, adversarial=1),)},
    "evaluation that does not fit the generator": {"phases": (Phase(4, 32, 2),), "evaluate_size": 40},
}


@pytest.mark.parametrize("change", UNTRAINABLE.values(), ids=UNTRAINABLE)
def test_sizes_that_do_not_fit_are_a_config_error_before_anything_is_written(tiny, run, fabric, change):
    config = replace(tiny, model=replace(tiny.model, discriminator_layers=3), **change)
    with pytest.raises(ConfigError):
        train(config, run, fabric, Observer())
    assert not run.folder.exists()


@pytest.mark.parametrize(
    ("part", "change"),
    [("model", {"generator": "vgg"}), ("loss", {"reconstruction": "l3"}), ("loss", {"gan": "magic"})],
)
def test_names_that_no_table_has_are_a_config_error_before_anything_is_written(
    tiny, run, fabric, part, change
):
    config = replace(tiny, **{part: replace(getattr(tiny, part), **change)})
    with pytest.raises(ConfigError, match=next(iter(change.values()))):
        train(config, run, fabric, Observer())
    assert not run.folder.exists()


def test_learning_rate_rises_to_its_start_and_falls_to_its_end():
    phase = Phase(samples=1000, warmup=100, learning_rate=1.0, final_learning_rate=0.1)
    rates = [learning_rate(phase, within) for within in range(1000)]
    assert 0 < rates[0] <= 0.01
    assert rates[49] == pytest.approx(0.5)
    assert max(rates) == pytest.approx(1.0, abs=0.03)
    assert rates[:100] == sorted(rates[:100])
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert rates[-1] == pytest.approx(0.1, abs=1e-3)
    assert max(abs(b - a) for a, b in pairwise(rates)) < 0.03, "no jumps"


def test_learning_rate_is_halfway_in_the_middle():
    phase = Phase(samples=1000, learning_rate=1.0, final_learning_rate=0.1)
    assert learning_rate(phase, 0) == 1.0
    assert learning_rate(phase, 500) == pytest.approx(0.55)


def test_a_run_uses_the_rates_of_its_phases(tiny, run, fabric):
    phases = (
        replace(tiny.phases[0], learning_rate=1e-3, final_learning_rate=1e-4),
        replace(tiny.phases[1], learning_rate=1e-5, discriminator_learning_rate=3e-4),
    )
    config = replace(tiny, phases=phases)
    rates = []

    def look(samples):
        if samples > BATCH:  # there is a checkpoint of the update before
            state = checkpoint(run)
            groups = [g for i in (0, 1) for g in state[f"generator_optimizer_{i}"]["param_groups"]]
            rates.append({group["lr"] for group in groups})

    train(config, run, fabric, Observer(look))
    expected = [{learning_rate(phases[0], 0)}, {learning_rate(phases[0], BATCH)}]
    expected += [{learning_rate(phases[1], within)} for within in range(0, 3 * BATCH, BATCH)]
    assert [rate for i, rate in enumerate(rates) if i == 0 or rate != rates[i - 1]] == expected
    assert checkpoint(run)["discriminator_optimizer"]["param_groups"][0]["lr"] == 3e-4


def start(command, environment):
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def wait_for_evaluation(process, run, after: int) -> None:
    """Until the run has been evaluated beyond `after` samples."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        file = run.folder / METRICS_NAME
        if file.exists() and any(line["samples"] > after for line in metrics(run)):
            return
        time.sleep(0.1)
    pytest.fail("the run did not come to an evaluation")


def test_a_stopped_process_leaves_a_checkpoint_and_the_same_command_continues(run, subprocess_environment):
    fields = {
        "phases": [{"samples": 10**7, "crop_size": 32, "batch_size": 4}],
        "model.width": 4,
        "evaluate_every": 4,
        "evaluate_size": 32,
    }
    command = [sys.executable, "-m", "trainer", "train", str(run.train_data), "--device", "cpu"]
    command += ["--validation", str(run.validation_data), "--run", str(run.folder)]
    command += [word for name, value in fields.items() for word in ("--set", f"{name}={json.dumps(value)}")]
    seen = 0
    for number in (signal.SIGINT, signal.SIGTERM):
        process = start(command, subprocess_environment)
        try:
            wait_for_evaluation(process, run, seen)
            process.send_signal(number)
            _, errors = process.communicate(timeout=120)
        finally:
            process.kill()
            process.wait()
        assert process.returncode == 130
        assert "continue" in errors
        assert "Traceback" not in errors
        assert checkpoint(run)["samples_seen"] > seen
        seen = checkpoint(run)["samples_seen"]
        load_generator(run.folder / CHECKPOINT_NAME)
    assert to_json(load_generator(run.folder / CHECKPOINT_NAME)[1]) == (run.folder / CONFIG_NAME).read_text()
