"""Stand-ins for sessions of onnxruntime."""

import ctypes
import dataclasses

import numpy as np

from colorize_cli.inference import model
from colorize_cli.inference.sessions import Sessions


def has_gpu() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


class FakeSession:
    """Stand-in for a GPU session with memory for a number of pixels."""

    def __init__(self, pixels: int, message: str = "CUDA failure 2: out of memory") -> None:
        self.pixels, self.message = pixels, message
        self.batches: list[tuple[int, ...]] = []

    def run(self, _: list[str], feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        lightness = feed["lightness"]
        self.batches.append(lightness.shape)
        if lightness.size > self.pixels:
            raise RuntimeError(self.message)
        return [np.repeat(lightness[:, :, ::2, ::2], 2, axis=1) / 5]


def on_gpus(models, *sessions: FakeSession) -> model.Model:
    """Make a model that runs in these sessions."""
    loaded = model.load(models.tinted, "cpu")
    return dataclasses.replace(loaded, device="cuda", _sessions=Sessions(sessions))
