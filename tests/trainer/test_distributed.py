"""Training in several processes is equivalent to training in one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from trainer.checkpoint import load_generator
from trainer.loop import CHECKPOINT_NAME
from trainer.run_log import METRICS_NAME

UPDATES = 20
SCRIPT = f"""
import sys
from pathlib import Path

import trainer.loop
from trainer.config import Config, ModelConfig, Phase
from trainer.loop import Run, launched, train


class Silent:
    def advanced(self, progress, figures):
        pass

    def notice(self, text):
        raise AssertionError(text)


if __name__ == "__main__":
    trainer.loop._LOG_EVERY = 1
    data, folder = map(Path, sys.argv[1:])
    phase = dict(crop_size=32, batch_size=8, learning_rate=1e-3, final_learning_rate=1e-3, warmup=2000)
    config = Config(
        phases=(
            Phase(samples=8 * {UPDATES // 2}, **phase),
            Phase(samples=8 * {UPDATES // 2}, adversarial=0.2, feature_matching=2.0, **phase),
        ),
        model=ModelConfig(
            "encoder_unet",
            width=8,
            enlarge=2,
            frozen_blocks=3,
            discriminator_width=8,
            discriminator_layers=1,
            spectral_norm=False,
        ),
        evaluate_size=32,
    )
    train(config, Run(folder, data, data), launched("cpu", "32-true"), Silent())
"""


def train_in(processes: int, script: Path, data: Path, folder: Path) -> list[dict[str, float]]:
    """Return the metrics of a run with `processes` processes."""
    launcher = (
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        if processes > 1
        else []
    )
    command = [sys.executable, *launcher, str(script), str(data), str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in (folder / METRICS_NAME).read_text().splitlines()]


@pytest.fixture(scope="module")
def runs(prepared, tmp_path_factory):
    """Folders and metrics of a run in one process, and of a run in two processes with gloo."""
    place = tmp_path_factory.mktemp("distributed")
    script = place / "script.py"
    script.write_text(SCRIPT)
    return {n: (place / str(n), train_in(n, script, prepared, place / str(n))) for n in (1, 2)}


def test_loss_curve_equals_that_of_one_process(runs):
    alone, together = (metrics for _, metrics in runs.values())
    assert len(alone) == len(together) == UPDATES + 1
    figures = ("reconstruction", "discriminator", "adversarial", "feature_matching")
    for one, two in zip(alone, together, strict=True):
        assert (one["kind"], one["samples"]) == (two["kind"], two["samples"])
        for name in figures:
            assert one.get(name) == pytest.approx(two.get(name), abs=1e-4)
    assert {name for line in together for name in line} >= set(figures)


def test_averaged_generator_equals_that_of_one_process(runs):
    alone, together = (load_generator(folder / CHECKPOINT_NAME)[0] for folder, _ in runs.values())
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(together.state_dict()[name], value, rtol=1e-3, atol=1e-3, msg=name)
