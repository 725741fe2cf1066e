import copy
import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

import trainer.checkpoint
from trainer.checkpoint import (
    CheckpointError,
    Progress,
    blended,
    load_checkpoint,
    load_generator,
    load_pretrained,
    save_checkpoint,
    save_weights,
    start_from,
)
from trainer.config import ModelConfig, Phase, to_json
from trainer.models import build_generator
from trainer.models.encoders import build_encoder
from trainer.optim import set_learning_rate
from trainer.step import build_train_state, update

GAN = Phase(crop_size=32, adversarial=0.1, feature_matching=1.0)


@pytest.fixture(scope="module")
def trained(tiny, fabric, batch):
    """A training state after two updates. Do not change it."""
    state = build_train_state(tiny, fabric)
    for optimizer in state.generator_optimizers:
        set_learning_rate(optimizer, 0.01)
    set_learning_rate(state.discriminator_optimizer, 0.01)
    for _ in range(2):
        update(state, batch, GAN, tiny, fabric)
    return state


@pytest.fixture(scope="module")
def content(trained, tiny, tmp_path_factory) -> bytes:
    """The bytes of a checkpoint of the trained state."""
    path = tmp_path_factory.mktemp("content") / "checkpoint.pt"
    save_checkpoint(path, trained, tiny, Progress(8, 1.5))
    return path.read_bytes()


@pytest.fixture
def saved(content, tmp_path):
    path = tmp_path / "run" / "checkpoint.pt"
    path.parent.mkdir()
    path.write_bytes(content)
    return path


def tensors(tree) -> list:
    """Return all leaves of nested dicts and lists, in order."""
    if isinstance(tree, dict):
        return [leaf for key in sorted(tree, key=str) for leaf in (key, *tensors(tree[key]))]
    return [leaf for item in tree for leaf in tensors(item)] if isinstance(tree, list | tuple) else [tree]


def equal(one, other) -> bool:
    return all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
        for a, b in zip(tensors(one), tensors(other), strict=True)
    )


def parts(state):
    return [
        state.generator.state_dict(),
        state.ema.state_dict(),
        state.discriminator.state_dict(),
        *(optimizer.state_dict() for optimizer in state.generator_optimizers),
        state.discriminator_optimizer.state_dict(),
        state.updates,
    ]


def test_load_checkpoint_restores_everything(trained, tiny, fabric, tmp_path):
    random = torch.get_rng_state()
    save_checkpoint(tmp_path / "checkpoint.pt", trained, tiny, Progress(8, 1.5))
    fresh = build_train_state(replace(tiny, seed=9), fabric)
    assert not equal(parts(fresh), parts(trained))
    assert load_checkpoint(tmp_path / "checkpoint.pt", fresh, tiny) == Progress(8, 1.5)
    assert equal(parts(fresh), parts(trained))
    assert torch.equal(torch.get_rng_state(), random)


def test_save_checkpoint_that_fails_keeps_the_previous_file(saved, trained, tiny, monkeypatch):
    def fail(_state, file):
        file.write(b"half a checkpoint")
        raise OSError("disk full")

    before = saved.read_bytes()
    monkeypatch.setattr(trainer.checkpoint.torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(saved, trained, tiny, Progress(12, 2.0))
    assert saved.read_bytes() == before


def test_save_checkpoint_leaves_one_file(trained, tiny, tmp_path):
    save_checkpoint(tmp_path / "run" / "checkpoint.pt", trained, tiny, Progress(8, 1.5))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoint.pt"]


def test_save_checkpoint_removes_temporary_files_of_killed_runs(trained, tiny, tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from colorize_cli.storage import atomic\n"
        "with atomic.writing(Path(sys.argv[1])) as file:\n"
        "    file.write(b'half'); file.flush(); os._exit(9)"
    )
    assert (
        subprocess.run([sys.executable, "-c", code, tmp_path / "checkpoint.pt"], check=False).returncode == 9
    )
    assert len(list(tmp_path.iterdir())) == 1
    save_checkpoint(tmp_path / "checkpoint.pt", trained, tiny, Progress(8, 1.5))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


class Evil:
    """An object that runs a command when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("unpickled",)


def keep(part):
    return lambda path: path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])


def flip_bytes(path):
    data = bytearray(path.read_bytes())
    for place in range(0, len(data), 97):
        data[place] ^= 0x55
    path.write_bytes(data)


def without(name):
    def damage(path):
        state = torch.load(path, weights_only=True)
        del state[name]
        torch.save(state, path)

    return damage


def with_value(name, value):
    return lambda path: torch.save(torch.load(path, weights_only=True) | {name: value}, path)


DAMAGES = {
    "missing": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "empty": keep(0),
    "cut at the end": keep(0.99),
    "cut in the middle": keep(0.5),
    "cut at the start": keep(0.01),
    "flipped bytes": flip_bytes,
    "text": lambda path: path.write_text("not a checkpoint\n"),
    "zeros": lambda path: path.write_bytes(bytes(5000)),
    "a list": lambda path: torch.save([1, 2], path),
    "a tensor": lambda path: torch.save(torch.zeros(2), path),
    "code": lambda path: torch.save({"format": 1, "evil": Evil()}, path),
    "another format": with_value("format", 99),
    "no generator": without("ema"),
    "no configuration": without("config"),
    "damaged configuration": with_value("config", "{"),
    "configuration of another version": with_value("config", '{"color": 3}'),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_load_of_a_damaged_checkpoint_is_one_line(damage, saved, tiny, fabric, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    damage(saved)
    for load in (
        lambda: load_generator(saved),
        lambda: load_checkpoint(saved, build_train_state(tiny, fabric), tiny),
    ):
        with pytest.raises(CheckpointError) as caught:
            load()
        assert str(saved) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "unpickled").exists(), "reading ran code from the file"


@pytest.mark.parametrize("name", ["generator", "generator_optimizer_0", "discriminator", "random", "updates"])
def test_load_checkpoint_without_a_part_is_an_error(name, saved, tiny, fabric):
    without(name)(saved)
    with pytest.raises(CheckpointError, match="checkpoint"):
        load_checkpoint(saved, build_train_state(tiny, fabric), tiny)


def test_load_checkpoint_with_another_optimizer_is_an_error(saved, tiny, fabric):
    state = torch.load(saved, weights_only=True)
    state["generator_optimizer_0"]["param_groups"].pop()
    torch.save(state, saved)
    with pytest.raises(CheckpointError, match="checkpoint"):
        load_checkpoint(saved, build_train_state(tiny, fabric), tiny)


@pytest.mark.parametrize(
    "change",
    [
        {"width": 8},
        {"generator": "encoder_unet"},
        {"frozen_blocks": 1},
        {"discriminator_width": 8},
        {"discriminator": "projected"},
    ],
)
def test_load_checkpoint_with_other_networks_is_an_error(change, saved, tiny, fabric):
    other = replace(tiny, model=replace(tiny.model, **change))
    with pytest.raises(CheckpointError, match="networks") as caught:
        load_checkpoint(saved, build_train_state(other, fabric), other)
    assert str(saved) in str(caught.value)


def test_load_generator_returns_the_average_for_inference(saved, trained, tiny):
    generator, config = load_generator(saved)
    assert config == tiny
    assert not generator.training
    assert not any(parameter.requires_grad for parameter in generator.parameters())
    assert equal(generator.state_dict(), trained.ema.state_dict())


def test_save_weights_keeps_half_precision(trained, tiny, tmp_path):
    path = tmp_path / "deep" / "weights.safetensors"
    save_weights(path, trained.ema, tiny)
    generator, config = load_generator(path)
    assert config == tiny
    for name, value in trained.ema.state_dict().items():
        found = generator.state_dict()[name]
        assert found.dtype == value.dtype
        torch.testing.assert_close(found, value, rtol=1e-3, atol=1e-6, msg=name)


def test_save_weights_takes_half_the_space(tiny, tmp_path):
    generator = build_generator(ModelConfig("pix2pix_unet", width=16, depth=4))
    save_weights(tmp_path / "weights.safetensors", generator, tiny)
    floats = sum(value.numel() for value in generator.state_dict().values() if value.is_floating_point())
    assert (tmp_path / "weights.safetensors").stat().st_size < 0.55 * 4 * floats


def test_save_weights_refuses_overflow_of_half_precision(trained, tiny, tmp_path):
    generator = copy.deepcopy(trained.ema)
    next(generator.parameters()).data[0] = 1e6
    with pytest.raises(CheckpointError, match=r"weights\.safetensors: not written"):
        save_weights(tmp_path / "weights.safetensors", generator, tiny)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", [keep(0), keep(0.5), flip_bytes, lambda path: path.unlink()])
def test_load_generator_names_damaged_weights(damage, trained, tiny, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_weights(path, trained.ema, tiny)
    damage(path)
    with pytest.raises(CheckpointError, match=r"weights\.safetensors"):
        load_generator(path)


@pytest.mark.parametrize("metadata", [None, {"config": "{"}, {"config": "{}"}])
def test_load_generator_names_weights_of_another_program(metadata, tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "weights.safetensors", metadata)
    with pytest.raises(CheckpointError, match=r"weights\.safetensors"):
        load_generator(tmp_path / "weights.safetensors")


@pytest.mark.parametrize("name", ["checkpoint.pt", "weights.safetensors"])
def test_start_from_loads_the_average_of_an_earlier_run(name, trained, tiny, fabric, tmp_path):
    save_checkpoint(tmp_path / "checkpoint.pt", trained, tiny, Progress(8))
    save_weights(tmp_path / "weights.safetensors", trained.ema, tiny)
    fresh = build_train_state(replace(tiny, seed=9), fabric)
    start_from(fresh, str(tmp_path / name))
    for part in (fresh.generator, fresh.ema):
        for key, value in trained.ema.state_dict().items():
            torch.testing.assert_close(part.state_dict()[key], value, rtol=1e-3, atol=1e-6, msg=key)
    assert fresh.updates == 0
    assert not any(optimizer.state_dict()["state"] for optimizer in fresh.generator_optimizers)


def test_start_from_bundled_weights_that_are_not_installed_is_one_line(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer.checkpoint, "_PRETRAINED", tmp_path)
    with pytest.raises(CheckpointError) as caught:
        start_from(trained, "open")
    missing = tmp_path / "open.safetensors"
    assert str(caught.value) == f"open: {missing} is not installed; use a clone of the repository"


@pytest.mark.parametrize(
    "model", [ModelConfig(width=4), ModelConfig("pix2pix_unet", width=8, depth=3)], ids=["another", "wider"]
)
def test_start_from_a_generator_of_another_shape_is_one_line(model, saved, tiny, fabric):
    fresh = build_train_state(replace(tiny, model=model), fabric)
    with pytest.raises(CheckpointError) as caught:
        start_from(fresh, str(saved))
    assert str(saved) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_checkpoint_holds_the_config_of_the_run(saved, tiny):
    assert json.loads(torch.load(saved, weights_only=True)["config"]) == json.loads(to_json(tiny))


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_blended_weights_are_interpolated(share):
    torch.manual_seed(0)
    first, second = (build_generator(ModelConfig("pix2pix_unet", width=4, depth=3)) for _ in range(2))
    ours, theirs = ({k: v.clone() for k, v in g.state_dict().items()} for g in (first, second))
    for name, value in blended(first, second, share).state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, (1 - share) * ours[name] + share * theirs[name])


def test_blended_refuses_different_shapes():
    first, second = (build_generator(ModelConfig("pix2pix_unet", width, depth=3)) for width in (4, 8))
    with pytest.raises(CheckpointError, match="same shape"):
        blended(first, second, 0.5)


def test_load_pretrained_sets_the_encoder_of_generator_and_average(with_encoder, fabric):
    state = build_train_state(with_encoder, fabric)
    decoder = {n: v.clone() for n, v in state.generator.state_dict().items() if not n.startswith("encoder.")}
    load_pretrained(state)
    published = build_encoder(with_encoder.model.encoder)
    published.load_pretrained()
    for part in (state.generator, state.ema):
        found = part.state_dict()
        assert all(torch.equal(found[f"encoder.{n}"], v) for n, v in published.state_dict().items())
        assert all(torch.equal(found[name], value) for name, value in decoder.items())


def test_load_pretrained_without_encoder_changes_nothing(tiny, fabric):
    state = build_train_state(tiny, fabric)
    before = copy.deepcopy(state.generator.state_dict())
    load_pretrained(state)
    assert equal(state.generator.state_dict(), before)
    assert equal(state.ema.state_dict(), before)


def test_load_checkpoint_with_an_encoder_restores_everything(with_encoder, batch, fabric, tmp_path):
    """Includes its two or three optimizers, one of them for the encoder."""
    state = build_train_state(with_encoder, fabric)
    load_pretrained(state)
    for optimizer in state.generator_optimizers:
        set_learning_rate(optimizer, 0.001)
    update(state, batch, GAN, with_encoder, fabric)
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, state, with_encoder, Progress(4))
    fresh = build_train_state(replace(with_encoder, seed=9), fabric)
    load_checkpoint(path, fresh, with_encoder)
    assert equal(parts(fresh), parts(state))
    assert [o.param_groups[0]["lr"] for o in fresh.generator_optimizers][-1] == 0.001 * 0.25


def test_load_generator_needs_no_pretrained_wheel(with_encoder, tmp_path, monkeypatch):
    generator = build_generator(with_encoder.model)
    save_weights(tmp_path / "weights.safetensors", generator, with_encoder)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: pytest.fail(name))
    loaded, _ = load_generator(tmp_path / "weights.safetensors")
    for name, value in generator.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=1e-3, atol=1e-6)
