"""What a run is asked to do."""

import hashlib
import math
import os
from dataclasses import dataclass, field
from pathlib import Path

from colorize_cli.core.errors import UsageError

MOST_STRENGTH = 2.0
MOST_PREVIEWED = 100
SIZES = (16, 4096)
IF_COLORED = ("skip", "copy", "recolor")
PRECISIONS = ("auto", "fp32", "fp16", "int8")
ENGINES = ("local", "ray")  # the names of `engine.ENGINES`
MODEL_KINDS = ("native", "ddcolor", "deoldify")  # the names of `inference.adapters.MODEL_FORMATS`
# Raised whenever the same picture, model and options give other pixels than before.
_RENDERING = 6
_VIDEO_RENDERING = 4


@dataclass(frozen=True)
class VideoSettings:
    """What films are asked for.

    Attributes:
        steady: How much of the colours of the frame before is kept, from 0 to 1.
        every: The network sees every so many-th frame, and chroma is carried along in between; None for as
            many as the movement asks for. Without steadiness it sees all.
        codec: libavcodec's name of an encoder; None for one that suits the file.
        crf: The encoder's constant quality; None for a high one.
        preset: The encoder's, between speed and size; None for its own.
        pixel_format: libavutil's name of how samples are stored; None for the film's own way.
        start: Seconds after the film's first frame from which on it is coloured.
        duration: For how many seconds; None to its end.
        preview: Of how many frames a contact sheet is made instead of a film; None for a film.
    """

    steady: float = 1.0
    every: int | None = None
    codec: str | None = None
    crf: int | None = None
    preset: str | None = None
    pixel_format: str | None = None
    start: float = 0.0
    duration: float | None = None
    preview: int | None = None

    def __post_init__(self) -> None:
        """Refuses what no run can do, with a UsageError."""
        if not 0 <= self.steady <= 1:
            raise UsageError(f"steady {self.steady} is not between 0 and 1")
        if self.every is not None and self.every < 1:
            raise UsageError(f"every {self.every} is no number of frames")
        if self.crf is not None and not 0 <= self.crf <= 63:
            raise UsageError(f"crf {self.crf} is not between 0 and 63")
        if not 0 <= self.start < math.inf:
            raise UsageError(f"start {self.start} is no number of seconds")
        if self.duration is not None and not 0 < self.duration < math.inf:
            raise UsageError(f"duration {self.duration} is no number of seconds")
        if self.preview is not None and not 1 <= self.preview <= MOST_PREVIEWED:
            raise UsageError(f"preview {self.preview} is not between 1 and {MOST_PREVIEWED}")

    def recipe(self) -> str:
        """A digest of all of it."""
        # Under its former name, by which outputs of earlier versions stay up to date.
        text = repr((_VIDEO_RENDERING, self)).replace("VideoSettings(", "FilmSettings(", 1)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Settings:
    """What a run is asked to do.

    Attributes:
        model: An ONNX file; None for the model that comes with this package.
        model_kind: The contract that it is of; None to find out.
        device: "auto", "cpu", "cuda", or of several GPUs "cuda:1", "cuda:0,1" or "cuda:all".
        precision: What the network computes in: "auto", "fp32", "fp16" or "int8".
        batch_size: Most pictures in one call of the network; None for what suits it.
        workers: Threads for each of reading, composing and writing.
        size: Short side in pixels of the copy that the network sees; None for the model's own.
        strength: Factor on the predicted chroma: 0 is grey, 1 what the model says.
        overwrite: Replace outputs that exist; otherwise they are skipped.
        max_pixels: Pictures of more pixels are refused before they are decoded.
        format: The format of all outputs, by Pillow's name; None for that of each input.
        quality: Of outputs as JPEG, WebP and AVIF, from 1 to 100; None for that of the input, where it is
            known, or a high one.
        if_colored: What becomes of a picture that is in colour already: "skip", "copy" (its output is as it
            is) or "recolor".
        hints: A JSON file or PNG of colours that pictures are to have at some places (see `hints`).
        reference: A photograph in colour whose palette all pictures are to have.
        video: What films are asked for beyond that.
        engine: What runs the jobs: "local", or "ray" on a cluster.
        address: Of the cluster, host:port or "auto"; None for one on this machine that ends with the run.
    """

    model: Path | None = None
    model_kind: str | None = None
    device: str = "auto"
    precision: str = "auto"
    batch_size: int | None = None
    workers: int = field(default_factory=lambda: available_cores())
    size: int | None = None
    strength: float = 1.0
    overwrite: bool = False
    max_pixels: int = 250_000_000
    format: str | None = None
    quality: int | None = None
    if_colored: str = "skip"
    hints: Path | None = None
    reference: Path | None = None
    video: VideoSettings = field(default_factory=lambda: VideoSettings())
    engine: str = "local"
    address: str | None = None

    def __post_init__(self) -> None:
        """Refuses what no run can do, with a UsageError."""
        if not 0 <= self.strength <= MOST_STRENGTH:  # false for NaN too
            raise UsageError(f"strength {self.strength} is not between 0 and {MOST_STRENGTH:g}")
        if self.size is not None and not SIZES[0] <= self.size <= SIZES[1]:
            raise UsageError(f"size {self.size} is not between {SIZES[0]} and {SIZES[1]}")
        if min(self.batch_size or 1, self.workers, self.max_pixels) < 1 or self.batch_size == 0:
            raise UsageError("batch_size, workers and max_pixels are at least 1")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise UsageError(f"quality {self.quality} is not between 1 and 100")
        if self.if_colored not in IF_COLORED:
            raise UsageError(f"if_colored {self.if_colored!r} is none of {', '.join(IF_COLORED)}")
        if self.engine not in ENGINES:
            raise UsageError(f"engine {self.engine!r} is none of {', '.join(ENGINES)}")
        if self.address is not None and self.engine != "ray":
            raise UsageError("an address is of a cluster, which is for the engine ray")

    def recipe(self, model: bytes) -> str:
        """A digest of everything but the picture that decides its pixels; `model` is the model's digest."""
        digest = hashlib.blake2b(model, digest_size=16)
        digest.update(repr((_RENDERING, self.size, self.strength, self.quality)).encode())
        if self.if_colored == "copy":
            digest.update(b"copy")
        if self.precision != "auto":  # which is what suits the machine, and not another picture for that
            digest.update(self.precision.encode())
        if self.model_kind is not None:
            digest.update(self.model_kind.encode())
        return digest.hexdigest()


def available_cores() -> int:
    """How many CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
