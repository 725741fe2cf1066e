"""The log of a run, written beside its checkpoint: configuration, JSON lines, TensorBoard, sample sheets."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from colorize_cli.storage import atomic
from trainer.checkpoint import Progress
from trainer.config import Config, to_json
from trainer.data.dataset import Batch
from trainer.lab import recompose
from trainer.sample_grid import save_sheet

CONFIG_NAME = "config.json"
METRICS_NAME = "metrics.jsonl"
SAMPLES_NAME = "samples"
_SHEET_PICTURES = 24


class RunLog:
    """Writes the log into the folder of a run, or nothing without a folder.

    Args:
        folder: folder of the run; None to write nothing.
        config: configuration of the run.
        progress: start of the run, or the position of the checkpoint it continues from.
    """

    def __init__(self, folder: Path | None, config: Config, progress: Progress) -> None:
        self._folder = folder
        self._config = config
        self._start = progress.samples_seen

    def __enter__(self) -> RunLog:
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / CONFIG_NAME).write_text(to_json(self._config))
            _drop_lines_after(self._folder / METRICS_NAME, self._start)
            self._lines = (self._folder / METRICS_NAME).open("a")
            self._board = SummaryWriter(str(self._folder / "tensorboard"))
        return self

    def __exit__(self, *exception: object) -> None:
        if self._folder is not None:
            self._lines.close()
            self._board.close()

    def record(self, kind: str, progress: Progress, figures: dict[str, float]) -> dict[str, float]:
        """Write figures to the JSON lines and to TensorBoard, and return them."""
        if self._folder is not None:
            values = {
                "kind": kind,
                "samples": progress.samples_seen,
                "seconds": round(progress.seconds, 1),
                **figures,
            }
            self._lines.write(json.dumps(values) + "\n")
            self._lines.flush()
            for name, value in figures.items():
                self._board.add_scalar(f"{kind}/{name}", value, progress.samples_seen)
        return figures

    def show(self, progress: Progress, batch: Batch, predicted: Tensor) -> None:
        """Save a sample sheet of pictures evenly spread over the validation set."""
        if self._folder is None:
            return
        every = max(1, len(predicted) // _SHEET_PICTURES)
        lightness, ab, predicted = (
            x[::every][:_SHEET_PICTURES] for x in (batch.lightness, batch.ab, predicted)
        )
        rows = (recompose(lightness, chroma) for chroma in (torch.zeros_like(ab), predicted, ab))
        save_sheet(self._folder / SAMPLES_NAME / f"{progress.samples_seen:09d}.png", *rows)


def _drop_lines_after(path: Path, samples: int) -> None:
    """Remove the lines that the run wrote after the checkpoint it continues from."""
    if not path.exists():
        return
    kept = [line for line in path.read_text().splitlines() if _samples_of(line) <= samples]
    with atomic.writing(path) as file:
        file.write("".join(f"{line}\n" for line in kept).encode())


def _samples_of(line: str) -> float:
    try:
        return float(json.loads(line)["samples"])
    except (ValueError, KeyError, TypeError):  # truncated when the run was killed
        return math.inf
