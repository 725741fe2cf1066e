"""Prepared crops in memory, and the batches drawn from them.

Every random choice is a function of the seed and of the number of samples seen. So a resumed run draws the
same batches as an uninterrupted one.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.config import AugmentConfig
from trainer.data.degradation import age
from trainer.data.prepare import CROPS_NAME, MANIFEST_NAME, DataError
from trainer.lab import rgb_to_lab

_GPU_SHARE = 0.5  # maximum share of the free GPU memory for the crops


class Batch(NamedTuple):
    """The samples of one update."""

    lightness: Tensor
    """(N, 1, H, W) float32, L* in [0, 100]."""
    ab: Tensor
    """(N, 2, H, W) float32, a* and b* in CIE units."""
    clean: Tensor
    """(N, 1, H, W) float32, L* in [0, 100] before the degradations of old film."""


@dataclass(frozen=True)
class Shard:
    """The share of one process in every batch: process `rank` of `processes`."""

    rank: int = 0
    processes: int = 1

    def of(self, count: int) -> slice:
        """Return the indices of this process's samples in a batch of `count`, a multiple of `processes`."""
        each = count // self.processes
        return slice(self.rank * each, (self.rank + 1) * each)


@dataclass(frozen=True)
class Crops:
    """All crops of a prepared folder: (M, 3, S, S) uint8 sRGB, on the GPU if they fit."""

    pixels: Tensor

    @property
    def size(self) -> int:
        """Side S of the crops, in pixels."""
        return self.pixels.shape[-1]

    def __len__(self) -> int:
        return len(self.pixels)


def load_crops(folder: Path, device: torch.device) -> Crops:
    """Load the crops of a folder written by `prepare`.

    Raises:
        DataError: if the folder does not contain a complete set of crops.
    """
    try:
        manifest = json.loads((folder / MANIFEST_NAME).read_text())
        # Memory-mapped, so that several processes share the memory, and that it may be less than the crops.
        # Read-only, because the system reserves memory for a copy-on-write map.
        array = np.load(folder / CROPS_NAME, mmap_mode="r")
        expected = (manifest["crops"], manifest["size"], manifest["size"], 3)
    except (OSError, ValueError, EOFError, KeyError, TypeError) as error:
        raise DataError(f"{folder}: not a folder written by `colorize-train prepare` ({error})") from error
    if array.shape != expected or array.dtype != np.uint8:
        raise DataError(
            f"{folder}: damaged: {array.dtype} crops of shape {array.shape}, but uint8 of {expected} "
            f"in {MANIFEST_NAME}; run `colorize-train prepare` again"
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nothing writes to it
        pixels = torch.from_numpy(array).permute(0, 3, 1, 2)  # MHWC => MCHW, in channels_last memory
    if device.type == "cuda" and pixels.nbytes < _GPU_SHARE * torch.cuda.mem_get_info(device)[0]:
        pixels = pixels.to(device)
    return Crops(pixels)


def draw_batch(
    crops: Crops,
    samples_seen: int,
    count: int,
    size: int,
    augment: AugmentConfig,
    seed: int,
    device: torch.device,
    shard: Shard = Shard(),
) -> Batch:
    """Draw this process's share of the next `count` samples of the endless shuffled stream.

    Each pass over the crops has a new order. The scale and aspect of the window are drawn once for the batch,
    its position and a horizontal flip for each sample. The windows are resized to `size` with an antialiasing
    filter. Then the lightness of some samples is degraded like old film.

    Args:
        crops: all crops.
        samples_seen: position in the stream.
        count: size of the batch over all processes.
        size: side of the samples, in pixels.
        augment: ranges of the random choices.
        seed: seed of all random choices, together with `samples_seen`.
        device: device of the batch.
        shard: share of this process.
    """
    random = _generator(seed, "batch", samples_seen)
    index = _shuffled(len(crops), samples_seen, count, seed)
    height, width = _window(crops.size, augment, random)
    tops = torch.randint(crops.size - height + 1, (count,), generator=random)
    lefts = torch.randint(crops.size - width + 1, (count,), generator=random)
    flipped = torch.rand(count, generator=random) < (0.5 if augment.flip else 0.0)
    mine = shard.of(count)
    windows = torch.stack(
        [
            crops.pixels[i, :, top : top + height, left : left + width]
            for i, top, left in torch.stack((index, tops, lefts), dim=1)[mine].tolist()
        ]
    )
    rgb = _flip(resize(windows.to(device), size), flipped[mine].to(device))
    batch = to_batch(rgb)
    random = _generator(seed, "film", samples_seen + mine.start, device)
    aged = age(rgb, batch.lightness, augment.film, random)
    return batch._replace(lightness=aged)


def resize(pixels: Tensor, size: int) -> Tensor:
    """Resize with an antialiasing filter: (N, 3, H, W) uint8 => (N, 3, size, size) float32 in [0, 1]."""
    scaled = pixels.float().div_(255)
    if scaled.shape[-2:] == (size, size):
        return scaled
    return F.interpolate(scaled, (size, size), mode="bilinear", antialias=True).clamp_(0, 1)


def to_batch(rgb: Tensor) -> Batch:
    """Convert (N, 3, H, W) sRGB in [0, 1] to a batch without degradations."""
    lab = rgb_to_lab(rgb)
    lightness = lab[:, :1].contiguous()
    return Batch(lightness, lab[:, 1:].contiguous(), lightness)


def _flip(pixels: Tensor, flipped: Tensor) -> Tensor:
    return torch.where(flipped.view(-1, 1, 1, 1), pixels.flip(-1), pixels)


def _window(size: int, augment: AugmentConfig, random: torch.Generator) -> tuple[int, int]:
    """Draw height and width of a window inside a crop of side `size`."""
    scale, stretch = torch.rand(2, generator=random, dtype=torch.float64).tolist()
    side = size * (augment.min_scale + (1 - augment.min_scale) * scale)
    ratio = (1 + augment.aspect) ** (2 * stretch - 1)
    longest = max(ratio, 1.0)
    return max(1, int(side * ratio / longest)), max(1, int(side / longest))


def _generator(seed: int, use: str, number: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Create an independent random generator for every combination of seed, use and number.

    torch's CPU generator uses only the lowest 32 bits of its seed, so a 32-bit hash is the seed.
    """
    digest = hashlib.blake2b(f"{seed} {use} {number}".encode(), digest_size=4).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "little"))


def _shuffled(length: int, start: int, count: int, seed: int) -> Tensor:
    """Return items `start` to `start + count` of an endless stream of permutations of `range(length)`."""
    pieces = []
    while count > 0:
        epoch, offset = divmod(start, length)
        order = torch.randperm(length, generator=_generator(seed, "order", epoch))
        pieces.append(order[offset : offset + count])
        start, count = start + len(pieces[-1]), count - len(pieces[-1])
    return torch.cat(pieces)
