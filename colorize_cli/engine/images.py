"""The pipeline for images: decode -> infer -> compose -> encode. Each stage has its separate threads."""

import contextlib
import functools
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from colorize_cli.color.lab import Floats
from colorize_cli.color.resize import working_copy
from colorize_cli.compose import compose, compose16, compose_planes
from colorize_cli.core.errors import DeviceMemoryError, ReadError, UsageError, WriteError, reason_of
from colorize_cli.core.formats import FORMATS, HOLDS, check_kind, is_video
from colorize_cli.core.jobs import Job, Outcome, Status
from colorize_cli.core.location import STREAM
from colorize_cli.core.pipeline import Gate, Pipeline, Result, Stage
from colorize_cli.core.settings import Settings
from colorize_cli.engine.outputs import Outputs, Skip
from colorize_cli.guidance import Guidance, apply_guidance
from colorize_cli.guidance.hints import Hints
from colorize_cli.image import reader
from colorize_cli.image.frame import Colors, Frame, Page
from colorize_cli.inference.model import Model
from colorize_cli.storage import atomic, stdio
from colorize_cli.storage.fingerprint import DAMAGED, SourceFingerprint

# Maximum sum of pixels of all images between the start of decoding and the end of writing. A pixel takes 10
# bytes in a gray image and up to 20 in a color image, so this bounds the memory. A larger image is processed
# alone.
PIXELS_IN_FLIGHT = 100_000_000
# The same for the pages or frames of one file, in pixels between reading and writing.
_PAGES_IN_FLIGHT = 32_000_000
_MIN_CAPACITY = 4
# Short side in pixels of the smallest working copy tried after an out-of-memory error.
_MIN_SIZE = 32
# Seconds. An interrupt by the user must take effect within two.
_PATIENCE = 1.2


@dataclass(frozen=True)
class _Decoded:
    job: Job
    source: SourceFingerprint | None
    format: str
    frame: Frame
    small: Floats


@dataclass(frozen=True)
class _Document:
    """A file with several pages or frames, read page by page while its output is written."""

    job: Job
    source: SourceFingerprint | None
    format: str
    damage: str | None


@dataclass(frozen=True)
class _Original(_Document):
    """A file already in color, to be copied."""

    same_format: bool


@dataclass(frozen=True)
class _Predicted:
    decoded: _Decoded
    ab: Floats
    size: int | None = None


@dataclass(frozen=True)
class _Composed:
    decoded: _Decoded
    colors: Colors
    size: int | None


class Images:
    """Colorizes image files. Each may have several pages or frames."""

    def __init__(self, network: Model, settings: Settings, guidance: Guidance, outputs: Outputs) -> None:
        self._network = network
        self._settings = settings
        self._guidance = guidance
        self._outputs = outputs
        self._sides = settings.size or network.info.working_size, network.info.multiple_of
        self._stdin = functools.cache(stdio.read_stdin)

    def colorize(self, jobs: Iterable[Job]) -> Generator[Outcome, None, None]:
        """Colorize a stream of jobs and yield outcomes as they end."""
        Image.MAX_IMAGE_PIXELS = None  # Pillow's limit, for the whole process; ours is `settings.max_pixels`
        results = self.pipeline().run(jobs)
        try:
            for result in results:
                yield _outcome(result, self._network.device)
        finally:
            results.close()
            atomic.abandon()

    def pipeline(self) -> Pipeline:
        """Return the pipeline from a job to the size that `_encode` returns."""
        workers = self._settings.workers
        batch_size = self._settings.batch_size or self._network.batch_size
        return Pipeline(
            stages=(
                Stage("decode", self._decode, workers, gate=Gate(self._weigh, PIXELS_IN_FLIGHT)),
                Stage("infer", self._infer, self._network.parallel, batch=batch_size, key=_shape),
                Stage("compose", self._compose, workers),
                Stage("encode", self._encode, workers),
            ),
            capacity=max(_MIN_CAPACITY, batch_size),
            patience=_PATIENCE,
        )

    def _weigh(self, job: Job) -> int:
        """Return the number of pixels of the job's source that are in memory at one time."""
        if job.source != STREAM:
            check_kind(job.source)
        return reader.size_of(self._content(job), self._settings.max_pixels)

    def _decode(self, job: Job) -> _Decoded | _Document:
        # Another process may have made the output since the run began.
        if (reason := self._outputs.reason_to_skip(job)) is not None:
            raise Skip(reason)
        source = self._outputs.source_of(job)
        frame = reader.read(self._content(job), self._settings.max_pixels)
        if frame.damage and source is not None:
            source = DAMAGED  # the next run tries it again
        format_ = self._format(job, frame)
        if frame.is_color and self._settings.if_colored != "recolor":
            # Standard output must receive an image in every case.
            if self._settings.if_colored == "skip" and job.destination != STREAM:
                raise Skip("already in color")
            return _Original(job, source, format_, frame.damage, format_ == frame.format)
        if frame.pages > 1:
            return _Document(job, source, format_, frame.damage)
        return _Decoded(job, source, format_, frame, self._copy(frame))

    def _infer(self, batch: list[_Decoded] | list[_Document]) -> list[_Predicted] | list[_Document]:
        decoded = [item for item in batch if isinstance(item, _Decoded)]
        if len(decoded) < len(batch):
            return [item for item in batch if isinstance(item, _Document)]
        if len(decoded) > 1:
            return list(map(_Predicted, decoded, self._predict([item.small for item in decoded])))
        return [_Predicted(decoded[0], *self._predict_one(decoded[0].frame, decoded[0].small))]

    def _compose(self, item: _Predicted | _Document) -> _Composed | _Document:
        if isinstance(item, _Document):
            return item
        decoded = item.decoded
        hints = self._guidance.hints.get(decoded.job)
        return _Composed(decoded, self._colors(decoded.frame, item.ab, decoded.format, hints), item.size)

    def _encode(self, item: _Composed | _Document) -> int | None:
        """Write the output. Returns the short side of the working copy if memory forced a smaller one.

        Raises:
            ReadError: The source is damaged. The output has been written.
        """
        if isinstance(item, _Original):
            content, limit = self._content(item.job), self._settings.max_pixels
            if item.same_format:
                self._outputs.copy(item.job, item.source, content)
            else:
                self._outputs.write(item.job, item.source, item.format, reader.original_pages(content, limit))
        elif isinstance(item, _Document):
            self._outputs.write(item.job, item.source, item.format, self._colorized_pages(item))
        else:
            done = item.decoded
            self._outputs.write(done.job, done.source, done.format, [(done.frame, item.colors)])
        damage = item.decoded.frame.damage if isinstance(item, _Composed) else item.damage
        if damage is not None:
            raise ReadError(f"damaged: {damage}; the output contains only what could be decoded")
        return item.size if isinstance(item, _Composed) else None

    def _colorized_pages(self, document: _Document) -> Iterator[Page]:
        """Yield the colorized pages in order. Reads ahead while earlier pages are colorized."""
        pages = reader.read_pages(self._content(document.job), self._settings.max_pixels)
        ahead: deque[tuple[Frame, Future[Colors]]] = deque()
        hints = self._guidance.hints.get(document.job)
        with contextlib.closing(pages), ThreadPoolExecutor(self._settings.workers) as pool:
            for frame in pages:
                while ahead and sum(other.pixels for other, _ in ahead) + frame.pixels > _PAGES_IN_FLIGHT:
                    yield _next_page(ahead)
                ahead.append((frame, pool.submit(self._colorized, frame, document.format, hints)))
                hints = None  # hints apply to the first page only
            while ahead:
                yield _next_page(ahead)

    def _colorized(self, frame: Frame, format_: str, hints: Hints | None) -> Colors:
        ab, _ = self._predict_one(frame, self._copy(frame))
        return self._colors(frame, ab, format_, hints)

    def _copy(self, frame: Frame) -> Floats:
        return working_copy(frame.lightness, *self._sides)

    def _predict(self, copies: list[Floats]) -> Floats:
        return self._network.predict(np.stack(copies)[:, None])

    def _predict_one(self, frame: Frame, copy: Floats) -> tuple[Floats, int | None]:
        """Predict the chroma of one image from its working copy.

        After an out-of-memory error the working copy is halved until the prediction succeeds.

        Returns:
            The chroma, and the short side in pixels of the smaller working copy; None if `copy` was used.

        Raises:
            DeviceMemoryError: The memory does not suffice for the smallest working copy either.
        """
        size, multiple = self._sides
        smaller = None
        while True:
            try:
                return self._predict([copy])[0], smaller
            except DeviceMemoryError:
                smaller = (smaller or size) // 2
                if smaller < max(_MIN_SIZE, multiple):
                    raise
            copy = working_copy(frame.lightness, smaller, multiple)

    def _colors(self, frame: Frame, ab: Floats, format_: str, hints: Hints | None) -> Colors:
        if hints is not None and frame.showing is not None:
            raise UsageError(
                "hints work for still pictures only, and it is an animation; colorize it without hints"
            )
        ab, overlay = apply_guidance(frame.lightness, ab, hints, self._guidance.reference)
        if format_ == "JPEG" and overlay is None:
            return compose_planes(frame.lightness, ab, self._settings.strength)
        compose_frame = compose16 if frame.deep and HOLDS[format_].deep else compose
        return compose_frame(frame.lightness, ab, self._settings.strength, overlay)

    def _content(self, job: Job) -> Path | bytes:
        return self._stdin() if job.source == STREAM else job.source

    def _format(self, job: Job, frame: Frame) -> str:
        """Return Pillow's name of the output format."""
        if is_video(job.destination):
            raise WriteError(
                f"the output of a picture must be a picture, not {job.destination.suffix};"
                " choose another suffix"
            )
        if job.destination != STREAM:
            return FORMATS[job.destination.suffix.lower()]
        source_format = frame.format or "PNG"
        return self._settings.format or HOLDS[source_format].written_as or source_format


def _shape(item: _Decoded | _Document) -> tuple[int, ...] | None:
    return item.small.shape if isinstance(item, _Decoded) else None


def _next_page(ahead: deque[tuple[Frame, Future[Colors]]]) -> Page:
    frame, colors = ahead.popleft()
    return frame, colors.result()


def _outcome(result: Result[Job], device: str) -> Outcome:
    job, error = result.source, result.error
    if isinstance(error, Skip):
        return Outcome(job, Status.SKIPPED, str(error))
    used = device if result.batch else None
    if error is None:
        return Outcome(job, Status.DONE, None, result.seconds, used, result.batch, size=result.value)
    return Outcome(job, Status.FAILED, reason_of(error), result.seconds, used, result.batch)
