"""Prepared crops in memory, and the batches drawn from them.

Every random choice is a function of the seed and of the number of samples seen, so that a run which is
resumed draws the batches that an undisturbed one would have drawn.
"""

from __future__ import annotations

import hashlib
import json
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

_GPU_SHARE = 0.5  # of the free GPU memory may be taken by the crops


class Batch(NamedTuple):
    """What a network learns from at once."""

    lightness: Tensor
    """(N, 1, H, W) float32, L* in [0, 100]."""
    ab: Tensor
    """(N, 2, H, W) float32, a* and b* in CIE units."""
    clean: Tensor
    """(N, 1, H, W) float32, L* of the picture before it was made to look like old film."""


@dataclass(frozen=True)
class Part:
    """Which of several processes that share every batch this is."""

    rank: int = 0
    processes: int = 1

    def of(self, count: int) -> slice:
        """The samples of a batch that are this process's own; `count` is a multiple of `processes`."""
        each = count // self.processes
        return slice(self.rank * each, (self.rank + 1) * each)


@dataclass(frozen=True)
class Crops:
    """All crops of a prepared folder: (M, 3, S, S) uint8 sRGB, on the GPU when they fit there."""

    pixels: Tensor

    @property
    def size(self) -> int:
        """Side of the crops, in pixels."""
        return self.pixels.shape[-1]

    def __len__(self) -> int:
        return len(self.pixels)


def load_crops(folder: Path, device: torch.device) -> Crops:
    """Read a folder that `prepare` wrote.

    Raises:
        DataError: if the folder holds no complete set of crops.
    """
    try:
        manifest = json.loads((folder / MANIFEST_NAME).read_text())
        # Mapped, so that several processes share the memory; copied on write, for torch wants to write.
        array = np.load(folder / CROPS_NAME, mmap_mode="c")
        expected = (manifest["crops"], manifest["size"], manifest["size"], 3)
    except (OSError, ValueError, EOFError, KeyError, TypeError) as error:
        raise DataError(f"{folder}: not a folder written by `colorize-train prepare` ({error})") from error
    if array.shape != expected or array.dtype != np.uint8:
        raise DataError(f"{folder}: {array.dtype} crops of {array.shape} where the manifest says {expected}")
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
    part: Part = Part(),
) -> Batch:
    """Of the `count` samples that follow the first `samples_seen` of an endless shuffled stream, a part.

    Each pass over the crops has its own order. One window size is drawn for the batch (its scale and aspect),
    a place and a mirroring for each sample; the windows are resized to `size` with an antialiasing filter.
    Then some samples' lightness is made to look like old film.
    """
    random = _generator(seed, "batch", samples_seen)
    index = _shuffled(len(crops), samples_seen, count, seed)
    height, width = _window(crops.size, augment, random)
    tops = torch.randint(crops.size - height + 1, (count,), generator=random)
    lefts = torch.randint(crops.size - width + 1, (count,), generator=random)
    mirrored = torch.rand(count, generator=random) < (0.5 if augment.flip else 0.0)
    own = part.of(count)
    windows = torch.stack(
        [
            crops.pixels[i, :, top : top + height, left : left + width]
            for i, top, left in torch.stack((index, tops, lefts), dim=1)[own].tolist()
        ]
    )
    rgb = _mirror(resize(windows.to(device), size), mirrored[own].to(device))
    batch = to_batch(rgb)
    random = _generator(seed, "film", samples_seen + own.start, device)
    aged = age(rgb, batch.lightness, augment.film, random)
    return batch._replace(lightness=aged)


def resize(pixels: Tensor, size: int) -> Tensor:
    """(N, 3, H, W) uint8 to (N, 3, size, size) float32 in [0, 1], antialiased."""
    scaled = pixels.float().div_(255)
    if scaled.shape[-2:] == (size, size):
        return scaled
    return F.interpolate(scaled, (size, size), mode="bilinear", antialias=True).clamp_(0, 1)


def to_batch(rgb: Tensor) -> Batch:
    """(N, 3, H, W) sRGB in [0, 1] to lightness and ab."""
    lab = rgb_to_lab(rgb)
    lightness = lab[:, :1].contiguous()
    return Batch(lightness, lab[:, 1:].contiguous(), lightness)


def _mirror(pixels: Tensor, mirrored: Tensor) -> Tensor:
    return torch.where(mirrored.view(-1, 1, 1, 1), pixels.flip(-1), pixels)


def _window(size: int, augment: AugmentConfig, random: torch.Generator) -> tuple[int, int]:
    """Height and width of a window inside a crop of side `size`."""
    scale, stretch = torch.rand(2, generator=random, dtype=torch.float64).tolist()
    side = size * (augment.min_scale + (1 - augment.min_scale) * scale)
    ratio = (1 + augment.aspect) ** (2 * stretch - 1)
    longest = max(ratio, 1.0)
    return max(1, int(side * ratio / longest)), max(1, int(side / longest))


def _generator(seed: int, use: str, number: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A random stream of its own for every seed, use and number.

    torch's generator on the CPU looks at the lowest 32 bits of its seed only, so these are a hash.
    """
    digest = hashlib.blake2b(f"{seed} {use} {number}".encode(), digest_size=4).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "little"))


def _shuffled(length: int, start: int, count: int, seed: int) -> Tensor:
    """Places `start` to `start + count` of the endless stream of permutations of `range(length)`."""
    parts = []
    while count > 0:
        epoch, offset = divmod(start, length)
        order = torch.randperm(length, generator=_generator(seed, "order", epoch))
        parts.append(order[offset : offset + count])
        start, count = start + len(parts[-1]), count - len(parts[-1])
    return torch.cat(parts)
