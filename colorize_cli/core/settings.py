"""Settings of a run."""

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
# Increment these when the same picture, model and options give different pixels than before.
_RENDERING = 6
_VIDEO_RENDERING = 4


@dataclass(frozen=True)
class VideoSettings:
    """Settings of videos.

    Attributes:
        steady: Strength of temporal smoothing, from 0 (none) to 1: how much of the previous frame's color is
            kept.
        every: Distance in frames between calls of the network. Chroma is propagated to the frames between.
            None adapts the distance to the motion. With `steady` 0 the network runs on every frame.
        codec: libavcodec's name of the encoder; None to choose one that suits the file.
        crf: Constant quality of the encoder, from 0 to 63; None for a high quality.
        preset: The encoder's trade-off between speed and file size; None for the encoder's default.
        pixel_format: libavutil's name of the pixel format; None for the input's.
        start: Start of the colorized part, in seconds after the video's first frame.
        duration: Length of that part in seconds; None to continue to the end.
        preview: Number of frames of a contact sheet that is made instead of a video; None for a video.
        audio: True to keep the sound.
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
    audio: bool = True

    def __post_init__(self) -> None:
        """Raise UsageError for settings that no run can satisfy."""
        if not 0 <= self.steady <= 1:
            raise UsageError(f"steady {self.steady} is not between 0 and 1")
        if self.every is not None and self.every < 1:
            raise UsageError(f"every must be at least 1 frame, not {self.every}")
        if self.crf is not None and not 0 <= self.crf <= 63:
            raise UsageError(f"crf {self.crf} is not between 0 and 63")
        if not 0 <= self.start < math.inf:
            raise UsageError(f"start must be a finite number of seconds, at least 0, not {self.start}")
        if self.duration is not None and not 0 < self.duration < math.inf:
            raise UsageError(f"duration must be a finite number of seconds, above 0, not {self.duration}")
        if self.preview is not None and not 1 <= self.preview <= MOST_PREVIEWED:
            raise UsageError(f"preview {self.preview} is not between 1 and {MOST_PREVIEWED}")

    @property
    def trial(self) -> str:
        """The time range in the form of a file name's end, such as ".60s-70s"; empty for the whole video."""
        if not self.start and self.duration is None:
            return ""
        end = "end" if self.duration is None else f"{self.start + self.duration:.12g}s"
        return f".{self.start:.12g}s-{end}"

    def recipe(self) -> str:
        """Return a digest of all fields."""
        # The former class name and fields keep outputs of earlier versions up to date.
        text = repr((_VIDEO_RENDERING, self)).replace("VideoSettings(", "FilmSettings(", 1)
        text = text.replace(", audio=True", "")
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Settings:
    """Settings of a run.

    Attributes:
        model: Path of an ONNX file; None for the model included in this package.
        model_kind: Name of the model's adapter, one of MODEL_KINDS; None to detect it.
        device: "auto", "cpu", "cuda", or, with several GPUs, "cuda:1", "cuda:0,1" or "cuda:all".
        precision: Number format in which the network computes: "auto", "fp32", "fp16" or "int8".
        batch_size: Maximum number of pictures per call of the network; None to choose it automatically.
        workers: Number of threads for each of reading, composing and writing.
        size: Short side in pixels of the network's input, from 16 to 4096; None for the model's default.
        strength: Factor on the predicted chroma, from 0 (gray) to 2; 1 keeps the model's prediction.
        overwrite: True to make all outputs. Otherwise jobs are skipped if their output is up to date, or
            exists but was not made by this program or was changed since.
        checksum: True to compare the content of all inputs on this machine with the digests in the records
            of their outputs. Otherwise an input whose size and modification time are unchanged is not read.
        max_pixels: Maximum number of pixels of a picture. Larger ones are refused before they are decoded.
        format: Format of all outputs, by Pillow's name; None for each input's format.
        quality: Quality of JPEG, WebP and AVIF outputs, from 1 to 100; None for the input's quality if it is
            known, otherwise a high one.
        if_colored: Treatment of a picture that is already in color: "skip", "copy" (the output is the
            unchanged input) or "recolor".
        hints: JSON file or PNG with the colors of some points of pictures (see `guidance.hints`), or a
            directory with such JSON files. Hints beside a picture are used without it.
        reference: Color photograph whose palette is applied to all pictures.
        video: Additional settings of videos.
        engine: "local" for this process, or "ray" for a cluster.
        address: Address of the cluster, host:port or "auto"; None for a cluster on this machine that ends
            with the run.
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
    checksum: bool = False
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
        """Raise UsageError for settings that no run can satisfy."""
        if not 0 <= self.strength <= MOST_STRENGTH:  # false for NaN too
            raise UsageError(f"strength {self.strength} is not between 0 and {MOST_STRENGTH:g}")
        if self.size is not None and not SIZES[0] <= self.size <= SIZES[1]:
            raise UsageError(f"size {self.size} is not between {SIZES[0]} and {SIZES[1]}")
        batch_size = 1 if self.batch_size is None else self.batch_size
        if min(batch_size, self.workers, self.max_pixels) < 1:
            raise UsageError("batch_size, workers and max_pixels must be at least 1")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise UsageError(f"quality {self.quality} is not between 1 and 100")
        if self.if_colored not in IF_COLORED:
            raise UsageError(f"if_colored {self.if_colored!r} is not one of {', '.join(IF_COLORED)}")
        if self.engine not in ENGINES:
            raise UsageError(f"engine {self.engine!r} is not one of {', '.join(ENGINES)}")
        if self.address is not None and self.engine != "ray":
            raise UsageError("a cluster address needs the engine ray")

    def recipe(self, model: bytes) -> str:
        """Return a digest of the model and of the settings that decide the pixels of pictures.

        Args:
            model: Digest of the model file.
        """
        digest = hashlib.blake2b(model, digest_size=16)
        digest.update(repr((_RENDERING, self.size, self.strength, self.quality)).encode())
        if self.if_colored == "copy":
            digest.update(b"copy")
        if self.precision != "auto":  # which depends on the machine, and must not make outputs stale
            digest.update(self.precision.encode())
        if self.model_kind is not None:
            digest.update(self.model_kind.encode())
        return digest.hexdigest()


def available_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
