import json
import math
import os
import shutil
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

from trainer.checkpoint import CheckpointError, load_generator, save_weights
from trainer.config import ConfigError, Phase, from_json, to_json
from trainer.data.prepare import CROPS_NAME, MANIFEST_NAME, DataError
from trainer.loop import CHECKPOINT_NAME, Estimate, Run, learning_rate, on_hardware, rehearse, train
from trainer.losses import ADVERSARIAL, LOSSES
from trainer.models.encoders import build_encoder
from trainer.models.loss import Loss
from trainer.run_log import CONFIG_NAME, METRICS_NAME
from trainer.step import TrainingError

BATCH = 4


class Observer:
    """Records the reported progress, and calls `reaction` at each report."""

    def __init__(self, reaction=lambda _samples: None):
        self.seen = []
        self.figures = []
        self.notices = []
        self._reaction = reaction

    def notice(self, text):
        self.notices.append(text)

    def advanced(self, progress, figures):
        new = self.seen[-1:] != [progress.samples_seen]
        self.seen.append(progress.samples_seen)
        self.figures.append(figures)
        if new:
            self._reaction(progress.samples_seen)


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
def test_precision_auto_depends_on_the_hardware(asked, has_bf16, settled, tiny, monkeypatch):
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
    """Return the paths at which two nested states differ in any bit."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        return [d for key in one for d in differences(one[key], other[key], f"{where}.{key}")]
    if isinstance(one, list | tuple):
        assert len(one) == len(other), where
        return [d for i in range(len(one)) for d in differences(one[i], other[i], f"{where}.{i}")]
    if isinstance(one, torch.Tensor):
        return [] if torch.equal(one, other) else [where]
    return [] if one == other or where == ".seconds" else [where]


@pytest.fixture(scope="module")
def straight(tiny, prepared, fabric, tmp_path_factory) -> Run:
    """An uninterrupted run of `tiny`. Do not change it."""
    run = Run(tmp_path_factory.mktemp("loop") / "straight", prepared, prepared)
    train(tiny, run, fabric, Observer())
    return run


@pytest.fixture
def finished(straight, run) -> Run:
    """A copy of the uninterrupted run."""
    shutil.copytree(straight.folder, run.folder)
    return run


@pytest.mark.parametrize("stop", [1, 3])  # updates: in the first and in the adversarial phase
def test_interrupted_run_continues_bit_for_bit(tiny, straight, run, fabric, stop):
    stopped = train(tiny, run, fabric, interrupt_at(stop * BATCH))
    assert stopped.samples_seen == stop * BATCH
    finished = train(tiny, run, fabric, Observer())
    assert finished.samples_seen == tiny.total_samples == 6 * BATCH
    assert differences(checkpoint(straight), checkpoint(run)) == []


def test_interrupted_run_with_pretrained_parts_continues_bit_for_bit(with_encoder, run, fabric, tmp_path):
    """A partly frozen encoder, a perceptual loss and a projected discriminator."""
    phase = Phase(3 * BATCH, 32, BATCH, losses={"perceptual": 0.5}, adversarial=0.1, feature_matching=1.0)
    model = replace(with_encoder.model, discriminator="projected")
    config = replace(with_encoder, phases=(phase,), model=model)
    straight = replace(run, folder=tmp_path / "straight")
    train(config, straight, fabric, Observer())
    assert train(config, run, fabric, interrupt_at(2 * BATCH)).samples_seen == 2 * BATCH
    train(config, run, fabric, Observer())
    assert differences(checkpoint(straight), checkpoint(run)) == []


def test_new_run_starts_with_the_published_encoder(with_encoder, run, fabric):
    """At a learning rate of 0 the checkpoint contains the initial weights."""
    phase = Phase(BATCH, 32, BATCH, learning_rate=0.0, final_learning_rate=0.0)
    train(replace(with_encoder, phases=(phase,)), run, fabric, Observer())
    published = build_encoder(with_encoder.model.encoder)
    published.load_pretrained()
    state = checkpoint(run)
    for part in ("generator", "ema"):
        for name, value in published.state_dict().items():
            torch.testing.assert_close(state[part][f"encoder.{name}"], value, msg=name)


def test_crashed_run_continues_bit_for_bit(tiny, straight, run, fabric):
    with pytest.raises(RuntimeError, match="power cut"):
        train(tiny, run, fabric, crash_at(5 * BATCH))
    assert checkpoint(run)["samples_seen"] == 4 * BATCH
    train(tiny, run, fabric, Observer())
    assert differences(checkpoint(straight), checkpoint(run)) == []


def test_run_repeated_gives_the_same_checkpoint(tiny, straight, run, fabric):
    torch.manual_seed(time.monotonic_ns())  # the state of the random generator does not matter
    train(tiny, run, fabric, Observer())
    assert differences(checkpoint(straight), checkpoint(run)) == []


def test_run_with_another_seed_draws_other_batches(tiny, straight, run, fabric, tmp_path):
    """Also with `start_from`."""
    weights = []
    for seed in (1, 2):
        place = replace(run, folder=tmp_path / str(seed))
        start_from = str(straight.folder / CHECKPOINT_NAME)
        config = replace(tiny, seed=seed, phases=tiny.phases[:1], start_from=start_from)
        train(config, place, fabric, Observer())
        weights.append(checkpoint(place)["generator"]["head.1.weight"])
    assert not torch.equal(*weights)


def evaluated(run: Run) -> list[int]:
    return [line["samples"] for line in metrics(run) if line["kind"] == "evaluation"]


def test_stopped_run_is_evaluated_with_a_sheet(tiny, run, fabric):
    config = replace(tiny, evaluate_every=1000, checkpoint_every=1000)
    observer = interrupt_at(3 * BATCH)
    train(config, run, fabric, observer)
    assert evaluated(run) == [3 * BATCH]
    assert [sheet.name for sheet in (run.folder / "samples").iterdir()] == [f"{3 * BATCH:09d}.png"]
    assert observer.notices == ["stopping after an evaluation; Ctrl-C again stops at once"]
    train(config, run, fabric, Observer())
    assert evaluated(run) == [3 * BATCH, 6 * BATCH]


def test_second_interrupt_skips_the_evaluation_and_keeps_the_checkpoint(tiny, run, fabric, monkeypatch):
    def interrupted(*_):
        signal.raise_signal(signal.SIGINT)

    config = replace(tiny, evaluate_every=1000)
    monkeypatch.setattr("trainer.loop.predict", interrupted)
    assert train(config, run, fabric, interrupt_at(3 * BATCH)).samples_seen == 3 * BATCH
    assert checkpoint(run)["samples_seen"] == 3 * BATCH
    assert evaluated(run) == []


@pytest.mark.parametrize("name", ["_LOG_SECONDS", "_EVALUATE_SECONDS"])
def test_figures_come_by_time_too(tiny, run, fabric, monkeypatch, name):
    """Every update takes two seconds here, and the interval is three."""
    monkeypatch.setattr(f"trainer.loop.{name}", 3.0)
    monkeypatch.setattr("trainer.loop._Clock.seconds", lambda _: 2.0 * next(updates))
    updates = iter(range(1, 7))
    observer = Observer()
    train(replace(tiny, evaluate_every=1000), run, fabric, observer)
    kind = "train" if name == "_LOG_SECONDS" else "evaluation"
    assert [line["samples"] for line in metrics(run) if line["kind"] == kind] == [8, 16, 24]
    shown = "reconstruction" if kind == "train" else "gain"
    assert [n for n, f in zip(observer.seen, observer.figures, strict=True) if shown in f] == [8, 16, 24]


def test_run_is_reported_at_its_start_and_after_every_update(tiny, run, fabric):
    first, second = interrupt_at(3 * BATCH), Observer()
    for observer in (first, second):
        train(replace(tiny, evaluate_every=1000), run, fabric, observer)
    assert sorted(set(first.seen)) == [0, 4, 8, 12]
    assert second.notices == ["continuing from 12 samples"]
    assert second.seen[:2] == [12, 16]


class Ticking:
    """A clock that goes five seconds forward at every reading."""

    def __init__(self, earlier: float) -> None:
        self.now = earlier

    def seconds(self) -> float:
        self.now += 5
        return self.now


def test_timed_run_ends_by_the_clock_and_continues(tiny, run, fabric, monkeypatch):
    """Two phases of 8 and 16 samples share a minute; an update takes 5 seconds."""
    monkeypatch.setattr("trainer.loop._Clock", Ticking)
    config = replace(tiny, minutes=1.0, evaluate_every=1000)
    assert train(config, run, fabric, interrupt_at(3 * BATCH)).seconds == 15.0
    progress = train(config, run, fabric, Observer())
    assert (progress.samples_seen, progress.seconds) == (12 * BATCH, 60.0)
    adversarial = checkpoint(run)["discriminator_optimizer"]["state"][0]["step"]
    assert adversarial == 8, "the second phase has two thirds of the time"
    again = Observer()
    train(config, run, fabric, again)
    assert again.seen == []


def test_intervals_of_outputs_may_change_in_mid_run(tiny, straight, run, fabric):
    train(tiny, run, fabric, interrupt_at(BATCH))
    changed = replace(tiny, evaluate_every=3 * BATCH, checkpoint_every=2 * BATCH)
    train(changed, run, fabric, Observer())
    assert evaluated(run) == [4, 12, 24]
    assert from_json((run.folder / CONFIG_NAME).read_text()) == changed
    assert [d for d in differences(checkpoint(straight), checkpoint(run)) if d != ".config"] == []


class MeanAbsolute(Loss):
    """A loss as a user may write it."""

    multiple_of = 16

    def __init__(self, beta: float) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, lightness, prediction, ab):  # noqa: ARG002 - as Loss has it
        return (prediction - ab).abs().mean() / self.beta


def test_loss_of_a_user_needs_one_row(tiny, run, fabric, monkeypatch):
    phases = (replace(tiny.phases[0], losses={"mine": 0.5}), tiny.phases[1])
    config = replace(tiny, phases=phases)
    with pytest.raises(ConfigError, match=r"phases\.losses: 'mine' is not one of perceptual"):
        train(config, run, fabric, Observer())
    monkeypatch.setitem(LOSSES, "mine", lambda config: MeanAbsolute(config.loss.beta))
    monkeypatch.setattr("trainer.loop._LOG_EVERY", 1)
    train(config, run, fabric, Observer())
    logged = [line for line in metrics(run) if line["kind"] == "train"]
    assert ["mine" in line for line in logged] == [True] * 2 + [False] * 4
    unfit = replace(config, phases=(replace(phases[0], crop_size=40),))
    with pytest.raises(ConfigError, match=r"phases\.0\.crop_size: 40 is not a multiple of 16"):
        train(unfit, replace(run, folder=run.folder / "unfit"), fabric, Observer())


def test_finished_run_is_not_changed(tiny, finished, fabric):
    before, lines = checkpoint(finished), metrics(finished)
    observer = Observer()
    assert train(tiny, finished, fabric, observer).samples_seen == tiny.total_samples
    assert observer.seen == []
    assert differences(before, checkpoint(finished)) == []
    assert metrics(finished) == lines


def test_phase_with_a_partial_last_batch_ends_exactly(tiny, run, fabric):
    config = replace(tiny, phases=(Phase(samples=6, crop_size=32, batch_size=4), tiny.phases[1]))
    train(config, run, fabric, Observer())
    state = checkpoint(run)
    assert state["samples_seen"] == 6 + tiny.phases[1].samples
    assert state["updates"] == 2 + 4


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"ema_decay": 0.5}, {"phases": (Phase(samples=8, crop_size=32),)}]
)
def test_folder_with_another_config_is_refused_unchanged(tiny, run, fabric, change):
    train(tiny, run, fabric, interrupt_at(BATCH))
    with pytest.raises(ConfigError) as caught:
        train(replace(tiny, **change), run, fabric, interrupt_at(2 * BATCH))
    assert str(run.folder) in str(caught.value)
    assert from_json((run.folder / CONFIG_NAME).read_text()) == tiny


def test_folder_with_other_networks_is_refused_unchanged(tiny, run, fabric):
    train(tiny, run, fabric, interrupt_at(BATCH))
    other = replace(tiny, model=replace(tiny.model, width=8))
    with pytest.raises((CheckpointError, ConfigError)):
        train(other, run, fabric, Observer())
    assert from_json((run.folder / CONFIG_NAME).read_text()) == tiny


def test_damaged_checkpoint_is_named_and_unchanged(tiny, run, fabric):
    run.folder.mkdir()
    (run.folder / CHECKPOINT_NAME).write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt"):
        train(tiny, run, fabric, Observer())
    assert (run.folder / CHECKPOINT_NAME).read_bytes() == b"damaged"


@pytest.mark.parametrize("harm", [lambda path: path.unlink(), lambda path: path.write_bytes(b"damaged")])
def test_damaged_checkpoint_falls_back_to_the_previous_one(tiny, straight, run, fabric, harm):
    with pytest.raises(RuntimeError, match="power cut"):
        train(tiny, run, fabric, crash_at(5 * BATCH))
    harm(run.folder / CHECKPOINT_NAME)
    observer = Observer()
    train(tiny, run, fabric, observer)
    assert observer.seen[0] == 3 * BATCH  # the previous checkpoint was written after 3 batches
    first, second = observer.notices
    assert CHECKPOINT_NAME in first
    assert "previous" in first
    assert second == f"continuing from {3 * BATCH} samples"
    assert differences(checkpoint(straight), checkpoint(run)) == []


def test_crashed_run_leaves_no_duplicate_metrics(tiny, run, fabric):
    with pytest.raises(RuntimeError, match="power cut"):
        train(tiny, run, fabric, crash_at(4 * BATCH))
    with (run.folder / METRICS_NAME).open("a") as lines:
        lines.write('{"kind": "train", "sam')  # truncated
    train(tiny, run, fabric, Observer())
    evaluated = [line["samples"] for line in metrics(run) if line["kind"] == "evaluation"]
    assert evaluated == [4, 8, 12, 16, 20, 24]


def test_metrics_are_json_lines_in_order(straight):
    lines = metrics(straight)
    assert [line["samples"] for line in lines if line["kind"] == "evaluation"] == [4, 8, 12, 16, 20, 24]
    assert [line["samples"] for line in lines if line["kind"] == "train"][-1] == 24
    for line in lines:
        assert line["seconds"] >= 0
        assert all(math.isfinite(value) for name, value in line.items() if name != "kind")
    wanted = {"psnr", "gain", "colorfulness", "colorfulness_share", "ab_mae"}
    assert all(wanted <= line.keys() for line in lines if line["kind"] == "evaluation")
    assert {"reconstruction", "discriminator", "adversarial", "feature_matching"} <= lines[-2].keys()


def test_evaluation_uses_a_spread_of_the_requested_crops(tiny, run, fabric, prepared, tmp_path):
    crops = np.load(prepared / CROPS_NAME)[::6]  # 3 of 16, as evenly spread as possible
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


def test_evaluation_writes_a_sample_sheet(straight):
    sheets = sorted((straight.folder / "samples").iterdir())
    assert [sheet.name for sheet in sheets] == [f"{samples:09d}.png" for samples in range(4, 25, 4)]
    with Image.open(sheets[-1]) as sheet:
        assert sheet.size == (8 * 32, 2 * 3 * 32)  # 16 pictures in two bands of gray, predicted, true
        pixels = np.asarray(sheet).astype(int)
    chroma = np.ptp(pixels, axis=2)
    assert chroma[:32].max() <= 1, "the first row is gray"
    assert chroma[64:96].mean() > 20, "the third row is true"


def test_run_writes_its_config_and_a_tensorboard_file(tiny, straight):
    assert from_json((straight.folder / CONFIG_NAME).read_text()) == tiny
    events = list((straight.folder / "tensorboard").glob("events.out.tfevents.*"))
    assert len(events) == 1
    assert events[0].stat().st_size > 1000
    assert not list(straight.folder.rglob(".colorize-*"))


def test_finished_checkpoint_loads_as_a_generator(tiny, straight):
    generator, config = load_generator(straight.folder / CHECKPOINT_NAME)
    assert config == tiny
    assert all(parameter.isfinite().all() for parameter in generator.parameters())


def test_rehearsal_estimates_the_time_and_writes_nothing(tiny, run, fabric, tmp_path, monkeypatch):
    """On a clock on which the second update takes one second in the first phase and two in the second."""
    readings = iter([0, 9, 10, 0, 9, 11, 0, 3])  # starts of two updates and end, twice; an evaluation
    monkeypatch.setattr(time, "monotonic", lambda: next(readings))
    expected = rehearse(replace(tiny, evaluate_every=2 * BATCH), run, fabric)
    assert expected == Estimate(samples=6 * BATCH, seconds=2 * 1 + 4 * 2 + (3 + 1) * 3)
    assert list(tmp_path.iterdir()) == []


def test_rehearsal_of_a_timed_run_estimates_its_samples(tiny, run, fabric, monkeypatch):
    readings = iter([0, 9, 10, 0, 9, 11])
    monkeypatch.setattr(time, "monotonic", lambda: next(readings))
    expected = rehearse(replace(tiny, minutes=1.0), run, fabric)
    assert expected == Estimate(samples=BATCH * 20 + BATCH * 40 // 2, seconds=60.0)


def test_rehearsal_finds_what_is_wrong_with_a_later_phase(tiny, run, fabric, monkeypatch):
    def fail(*_):
        raise TrainingError("the loss is nan")

    monkeypatch.setitem(ADVERSARIAL, "hinge", type("Broken", (), {"generator": fail, "discriminator": fail}))
    with pytest.raises(TrainingError):
        rehearse(tiny, run, fabric)


def test_rehearsal_does_not_change_an_existing_run(tiny, run, fabric):
    train(tiny, run, fabric, interrupt_at(BATCH))
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    rehearse(tiny, run, fabric)
    assert {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", [CHECKPOINT_NAME, "weights.safetensors"])
def test_new_run_starts_from_the_file_in_its_config(tiny, straight, run, fabric, tmp_path, name):
    weights = tmp_path / "weights.safetensors"
    save_weights(weights, load_generator(straight.folder / CHECKPOINT_NAME)[0], tiny)
    start = straight.folder / name if name == CHECKPOINT_NAME else weights
    phase = replace(tiny.phases[0], samples=BATCH, learning_rate=0.0, final_learning_rate=0.0)
    config = replace(tiny, phases=(phase,), start_from=str(start))
    train(config, run, fabric, Observer())
    old, new = checkpoint(straight)["ema"], checkpoint(run)["generator"]
    torch.testing.assert_close(old["head.1.weight"], new["head.1.weight"], rtol=1e-3, atol=1e-6)
    assert from_json((run.folder / CONFIG_NAME).read_text()) == config


def test_continued_run_does_not_need_its_start_file(tiny, straight, run, fabric, tmp_path):
    start = tmp_path / "start.pt"
    shutil.copy(straight.folder / CHECKPOINT_NAME, start)
    config = replace(tiny, phases=tiny.phases[:1], start_from=str(start))
    train(config, run, fabric, interrupt_at(BATCH))
    start.unlink()
    assert train(config, run, fabric, Observer()).samples_seen == 2 * BATCH


@pytest.mark.parametrize("kind", ["missing", "damaged", "another generator's"])
def test_unusable_start_file_is_named_before_writing(tiny, straight, run, fabric, tmp_path, kind):
    start, config = tmp_path / "start.pt", tiny
    if kind == "damaged":
        start.write_bytes(b"damaged")
    elif kind == "another generator's":
        shutil.copy(straight.folder / CHECKPOINT_NAME, start)
        config = replace(tiny, model=replace(tiny.model, width=8))
    with pytest.raises(CheckpointError, match=r"start\.pt"):
        train(replace(config, start_from=str(start)), run, fabric, Observer())
    assert not run.folder.exists()


def test_signal_handlers_are_restored(tiny, run, fabric):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    train(tiny, run, fabric, interrupt_at(BATCH))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def damaged_copy(folder, target):
    target.mkdir()
    (target / CROPS_NAME).write_bytes((folder / CROPS_NAME).read_bytes()[:-1])
    (target / MANIFEST_NAME).write_bytes((folder / MANIFEST_NAME).read_bytes())
    return target


@pytest.mark.parametrize("field", ["train_data", "validation_data"])
def test_damaged_data_is_named_before_writing(tiny, run, fabric, tmp_path, field):
    broken = damaged_copy(run.train_data, tmp_path / "broken")
    with pytest.raises(DataError, match="broken"):
        train(tiny, replace(run, **{field: broken}), fabric, Observer())
    assert not run.folder.exists()


UNTRAINABLE = {
    "crops larger than the prepared": {"phases": (Phase(4, 64, 2),)},
    "crops that do not fit the generator": {"phases": (Phase(4, 36, 2),)},
    "crops too small for the discriminator": {"phases": (Phase(4, 16, 2, adversarial=1),)},
    "evaluation that does not fit the generator": {"phases": (Phase(4, 32, 2),), "evaluate_size": 36},
}


@pytest.mark.parametrize("change", UNTRAINABLE.values(), ids=UNTRAINABLE)
def test_sizes_that_do_not_fit_are_a_config_error_before_writing(tiny, run, fabric, change):
    config = replace(tiny, model=replace(tiny.model, discriminator_layers=3), **change)
    with pytest.raises(ConfigError):
        train(config, run, fabric, Observer())
    assert not run.folder.exists()


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("model", {"generator": "vgg"}),
        ("model", {"discriminator": "vgg"}),
        ("model", {"generator": "encoder_unet", "encoder": "vgg"}),
        ("loss", {"reconstruction": "l3"}),
        ("loss", {"gan": "magic"}),
    ],
)
def test_unknown_names_are_a_config_error_before_writing(tiny, run, fabric, part, change):
    config = replace(tiny, **{part: replace(getattr(tiny, part), **change)})
    with pytest.raises(ConfigError, match=list(change.values())[-1]):
        train(config, run, fabric, Observer())
    assert not run.folder.exists()


def test_learning_rate_warms_up_and_decays():
    phase = Phase(samples=1000, warmup=100, learning_rate=1.0, final_learning_rate=0.1)
    rates = [learning_rate(phase, within) for within in range(1000)]
    assert 0 < rates[0] <= 0.01
    assert rates[49] == pytest.approx(0.5)
    assert max(rates) == pytest.approx(1.0, abs=0.03)
    assert rates[:100] == sorted(rates[:100])
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert rates[-1] == pytest.approx(0.1, abs=1e-3)
    assert max(abs(b - a) for a, b in pairwise(rates)) < 0.03, "no jumps"


def test_learning_rate_at_half_time_is_the_mean():
    phase = Phase(samples=1000, learning_rate=1.0, final_learning_rate=0.1)
    assert learning_rate(phase, 0) == 1.0
    assert learning_rate(phase, 500) == pytest.approx(0.55)


def test_run_uses_the_learning_rates_of_its_phases(tiny, run, fabric):
    phases = (
        replace(tiny.phases[0], learning_rate=1e-3, final_learning_rate=1e-4),
        replace(tiny.phases[1], learning_rate=1e-5, discriminator_learning_rate=3e-4),
    )
    config = replace(tiny, phases=phases)
    rates = []

    def look(samples):
        if samples > BATCH:  # the previous update has written a checkpoint
            state = checkpoint(run)
            optimizers = [value for key, value in state.items() if key.startswith("generator_optimizer")]
            groups = [group for optimizer in optimizers for group in optimizer["param_groups"]]
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
    """Wait for an evaluation of the run after more than `after` samples."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        file = run.folder / METRICS_NAME
        if file.exists() and any(line["samples"] > after for line in metrics(run)):
            return
        time.sleep(0.1)
    pytest.fail("the run did not come to an evaluation")


def test_stopped_process_saves_a_checkpoint_and_can_continue(run, subprocess_environment):
    fields = {
        "phases": [{"samples": 10**7, "crop_size": 32, "batch_size": 4}],
        "model.generator": "pix2pix_unet",
        "model.width": 4,
        "model.depth": 3,
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


@pytest.mark.parametrize("name", ["discriminator", "encoder"])
def test_unknown_name_that_no_phase_uses_is_a_config_error(name, tiny, run, fabric):
    config = replace(tiny, phases=tiny.phases[:1], model=replace(tiny.model, **{name: "vgg"}))
    with pytest.raises(ConfigError, match=rf"model\.{name}: 'vgg' is not one of"):
        train(config, run, fabric, Observer())


@pytest.mark.parametrize("weight", [{"adversarial": 1.0}, {"losses": {"perceptual": 1.0}}])
def test_crops_that_do_not_fit_the_fixed_encoder_are_a_config_error(weight, tiny, run, fabric):
    """48 is a multiple of pix2pix_unet's 8, but not of the encoder's 32."""
    phase = replace(tiny.phases[0], crop_size=48, **weight)
    config = replace(tiny, phases=(phase,), model=replace(tiny.model, discriminator="projected"))
    with pytest.raises(ConfigError, match=r"phases\.0\.crop_size: 48"):
        train(config, run, fabric, Observer())


def test_small_crops_are_not_limited_by_an_unused_patchgan(with_encoder, run, fabric):
    model = replace(with_encoder.model, enlarge=1, discriminator="projected", discriminator_layers=3)
    phase = Phase(samples=BATCH, crop_size=32, batch_size=BATCH, adversarial=1.0)
    config = replace(with_encoder, phases=(phase,), model=model)
    assert train(config, run, fabric, Observer()).samples_seen == BATCH


def test_last_batch_that_cannot_be_normalized_is_a_config_error(with_encoder, run, fabric):
    """At 32 pixels the encoder's deepest features are a single pixel."""
    model = replace(with_encoder.model, enlarge=1)
    config = replace(with_encoder, phases=(Phase(5, 32, 4),), model=model)
    with pytest.raises(ConfigError, match=r"phases\.0\.samples"):
        train(config, run, fabric, Observer())
