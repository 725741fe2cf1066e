"""Measure the training step with and without drawing its batches, to see if training waits for data.

    python tests/benchmarks/training.py --rounds 3 --updates 10

For every crop size both are timed in turns, and the fastest round counts. The crops are random, 128 pixels
wide and in memory, as in `colorize-train train`. The recipe is `photo` with its degradations of old film,
without and with adversarial losses. The figures need a quiet machine.
"""

import json
import time
from collections.abc import Callable

import click
import torch
from lightning.fabric import Fabric
from rich.console import Console
from rich.table import Table

from trainer.config import Config, Phase
from trainer.data.dataset import Batch, Crops, draw_batch
from trainer.loop import on_hardware
from trainer.optim import set_learning_rate
from trainer.presets import PRESETS
from trainer.step import build_train_state, update

CROPS, CROP_SIZE, BATCH = 2000, 128, 48
# The discriminator of `photo` needs chroma of 24 pixels, crops of 48.
STEPS = {
    "reconstruction": ((32, 64, 128), {}),
    "adversarial": ((64, 128), {"adversarial": 0.2, "feature_matching": 2.0}),
}


def seconds_of(rounds: int, *works: Callable[[], None]) -> list[float]:
    """Return the seconds of each function, the fastest of several rounds in turns."""
    best = [float("inf")] * len(works)
    for _ in range(rounds):
        for i, work in enumerate(works):
            begun = time.perf_counter()
            work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            best[i] = min(best[i], time.perf_counter() - begun)
    return best


def measure(
    phase: Phase, config: Config, fabric: Fabric, crops: Crops, rounds: int, updates: int
) -> dict[str, float]:
    """Return the samples per second of one phase."""
    state = build_train_state(config, fabric)
    for optimizer in state.generator_optimizers:
        set_learning_rate(optimizer, 1e-4)

    def draw(number: int) -> Batch:
        return draw_batch(crops, number * BATCH, BATCH, phase.crop_size, config.augment, 0, fabric.device)

    fixed = draw(0)
    update(state, fixed, phase, config, fabric)

    def step_alone() -> None:
        for _ in range(updates):
            update(state, fixed, phase, config, fabric)

    def with_data() -> None:
        for number in range(updates):
            update(state, draw(number), phase, config, fabric)

    alone, both = seconds_of(rounds, step_alone, with_data)
    samples = updates * BATCH
    return {"alone": samples / alone, "with data": samples / both, "ratio": alone / both}


@click.command()
@click.option("--rounds", default=3, show_default=True)
@click.option("--updates", default=10, show_default=True, help="Updates in one round.")
@click.option("--device", default="auto", show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(rounds: int, updates: int, device: str, as_json: bool) -> None:
    """Measure the training step with and without its data."""
    config = on_hardware(PRESETS["photo"], device)
    fabric = Fabric(accelerator=device, devices=1, precision=config.precision)
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (CROPS, CROP_SIZE, CROP_SIZE, 3), dtype=torch.uint8, generator=random)
    crops = Crops(pixels.permute(0, 3, 1, 2).to(fabric.device))
    found = {}
    for losses, (sizes, weights) in STEPS.items():
        for size in sizes:
            phase = Phase(crop_size=size, batch_size=BATCH, **weights)
            found[f"{losses}, {size} pixels"] = measure(phase, config, fabric, crops, rounds, updates)
    if as_json:
        click.echo(json.dumps(found))
        return
    table = Table("step", "samples/s alone", "with data", "ratio")
    for name, row in found.items():
        table.add_row(name, f"{row['alone']:.1f}", f"{row['with data']:.1f}", f"{row['ratio']:.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()
