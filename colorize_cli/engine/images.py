"""The pipeline for images: decode -> infer -> compose -> encode. Each stage has its separate threads.

Files in stores have two more, fetch before the others and put after them (see `transfer`).
"""

import contextlib
import functools
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from colorize_cli.color.lab import Floats
from colorize_cli.color.resize import working_copy
from colorize_cli.compose import compose, compose16, compose_planes
from colorize_cli.core.errors import DeviceMemoryError, UsageError, WriteError, reason_of
from colorize_cli.core.formats import FORMAT_OF_SUFFIX, PICTURE_FORMATS, check_kind, is_video
from colorize_cli.core.jobs import Job, LocalFiles, Outcome
from colorize_cli.core.location import STREAM
from colorize_cli.core.pipeline import Gate, Pipeline, Result, Stage
from colorize_cli.core.settings import Settings
from colorize_cli.engine.outputs import Outputs, Skip, own_files, shown
from colorize_cli.guidance import Guidance, apply_guidance
from colorize_cli.guidance.hints import Hints
from colorize_cli.image import reader
from colorize_cli.image.frame import Colors, Frame, Page
from colorize_cli.inference.model import Model
from colorize_cli.storage import atomic, stdio
from colorize_cli.storage.filesystem import DAMAGED, SourceFingerprint

if TYPE_CHECKING:
    from colorize_cli.engine.transfer import Transfer

T = TypeVar("T")

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
PATIENCE = 1.2


@dataclass(frozen=True)
class _Still:
    """A still image on its way through the stages: decoded, then with its chroma, then with its colors."""

    files: LocalFiles
    source: SourceFingerprint | None
    format: str
    frame: Frame
    small: Floats
    ab: Floats | None = None
    colors: Colors | None = None
    size: int | None = None


@dataclass(frozen=True)
class _Document:
    """A file that is read while its output is written: it has several pages, or is already in color."""

    files: LocalFiles
    source: SourceFingerprint | None
    format: str
    damage: str | None
    is_color: bool = False
    same_format: bool = False


class Images:
    """Colorizes image files. Each may have several pages or frames."""

    def __init__(
        self,
        network: Model,
        settings: Settings,
        guidance: Guidance,
        outputs: Outputs,
        transfer: "Transfer | None" = None,
    ) -> None:
        self._network = network
        self._transfer = transfer
        self._settings = settings
        self._guidance = guidance
        self._outputs = outputs
        self._sides = settings.size or network.info.working_size, network.info.multiple_of
        self._stdin = functools.cache(stdio.read_stdin)
        self._stopping = threading.Event()

    def colorize(self, jobs: Iterable[Job]) -> Generator[Outcome, None, None]:
        """Colorize a stream of jobs and yield outcomes as they end.

        Staged copies of an outcome's files exist until the next outcome is requested.
        """
        transfer = self._transfer
        self._stopping.clear()
        results = self.pipeline().run(map(own_files if transfer is None else transfer.files_of, jobs))
        try:
            for result in results:
                yield _outcome(result, self._network.device)
                if transfer is not None:
                    transfer.forget(result.source)
        except BaseException:
            if transfer is not None:
                transfer.stop()
            raise
        finally:
            self._stopping.set()
            results.close()
            atomic.abandon()

    def pipeline(self) -> Pipeline:
        """Return the pipeline from the files of a job to the size that `_encode` returns."""
        workers = self._settings.workers
        batch_size = self._settings.batch_size or self._network.batch_size

        def shape(item: _Still | _Document) -> tuple[int, ...] | None:
            return item.small.shape if isinstance(item, _Still) else None

        stages: tuple[Stage, ...] = (
            Stage("decode", self._decode, workers, gate=Gate(self._weigh, PIXELS_IN_FLIGHT)),
            Stage("infer", self._infer, self._network.parallel, batch=batch_size, key=shape),
            Stage("compose", self._compose, workers),
            Stage("encode", self._encode, workers),
        )
        if self._transfer is not None:
            stages = (self._transfer.fetching(), *stages, self._transfer.putting())
        return Pipeline(stages, capacity=max(_MIN_CAPACITY, batch_size), patience=PATIENCE)

    def _weigh(self, files: LocalFiles) -> int:
        """Return the number of pixels of the job's source that are in memory at one time."""
        if files.source != STREAM:
            check_kind(files.source)
        written = FORMAT_OF_SUFFIX.get(files.destination.suffix.lower(), self._settings.format)
        return reader.size_of(self._content(files), self._settings.max_pixels, written)

    def _decode(self, files: LocalFiles) -> _Still | _Document:
        # Another process may have made the output since the run began.
        if (kept := self._outputs.kept(files)) is not None:
            raise Skip(kept.value)
        source = self._outputs.source_of(files)
        frame = reader.read(self._content(files), self._settings.max_pixels)
        if frame.damage and source is not None:
            source = DAMAGED  # the next run tries it again
        format_ = self._format(files, frame)
        if frame.is_color and self._settings.if_colored != "recolor":
            if files.job in self._guidance.hints:
                raise UsageError(
                    "it is already in color, and hints are for gray pictures; use --if-colored recolor, or"
                    " remove its hints"
                )
            # Standard output must receive an image in every case.
            if self._settings.if_colored == "skip" and files.destination != STREAM:
                raise Skip("already in color")
            return _Document(files, source, format_, frame.damage, True, format_ == frame.format)
        if frame.pages > 1:
            return _Document(files, source, format_, frame.damage)
        return _Still(files, source, format_, frame, self._copy(frame))

    def _infer(self, batch: list[_Still | _Document]) -> list[_Still | _Document]:
        stills = [item for item in batch if isinstance(item, _Still)]
        if len(stills) < len(batch):  # documents have another key, and are never in one batch with stills
            return batch
        if len(stills) > 1:
            predicted = self._predict([item.small for item in stills])
            return [replace(item, ab=ab) for item, ab in zip(stills, predicted, strict=True)]
        ab, size = self._predict_one(stills[0].frame, stills[0].small)
        return [replace(stills[0], ab=ab, size=size)]

    def _compose(self, item: _Still | _Document) -> _Still | _Document:
        if isinstance(item, _Document):
            return item
        assert item.ab is not None  # noqa: S101 - set by the stage before
        hints = self._guidance.hints.get(item.files.job)
        return replace(item, ab=None, colors=self._colors(item.frame, item.ab, item.format, hints))

    def _encode(self, item: _Still | _Document) -> tuple[LocalFiles, int | None, str | None]:
        """Write the output.

        Returns:
            The files of the job, the short side of the working copy if memory forced a smaller one, and the
            damage of the source.
        """
        if isinstance(item, _Still):
            assert item.colors is not None  # noqa: S101 - set by the stage before
            self._outputs.write(item.files, item.source, item.format, [(item.frame, item.colors)])
            return item.files, item.size, item.frame.damage
        content, limit = self._content(item.files), self._settings.max_pixels
        if item.same_format:
            self._outputs.copy(item.files, item.source, content)
        elif item.is_color:
            pages = self._until_stopped(reader.original_pages(content, limit))
            self._outputs.write(item.files, item.source, item.format, pages)
        else:
            self._outputs.write(item.files, item.source, item.format, self._colorized_pages(item))
        return item.files, None, item.damage

    def _colorized_pages(self, document: _Document) -> Iterator[Page]:
        """Yield the colorized pages in order. Reads ahead while earlier pages are colorized."""
        pages = reader.read_pages(self._content(document.files), self._settings.max_pixels)
        ahead: deque[tuple[Frame, Future[Colors]]] = deque()
        hints = self._guidance.hints.get(document.files.job)
        with contextlib.closing(pages), ThreadPoolExecutor(self._settings.workers) as pool:
            for frame in self._until_stopped(pages):
                while ahead and sum(other.pixels for other, _ in ahead) + frame.pixels > _PAGES_IN_FLIGHT:
                    yield _next_page(ahead)
                ahead.append((frame, pool.submit(self._colorized, frame, document.format, hints)))
                hints = None  # hints apply to the first page only
            while ahead:
                yield _next_page(ahead)

    def _until_stopped(self, pages: Iterable[T]) -> Iterator[T]:
        for page in pages:
            if self._stopping.is_set():
                raise CancelledError
            yield page

    def _colorized(self, frame: Frame, format_: str, hints: Hints | None) -> Colors:
        if self._stopping.is_set():  # the process ends when all pages in the queue are done
            raise CancelledError
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
        compose_frame = compose16 if frame.deep and PICTURE_FORMATS[format_].deep else compose
        return compose_frame(frame.lightness, ab, self._settings.strength, overlay)

    def _content(self, files: LocalFiles) -> Path | bytes:
        return self._stdin() if files.source == STREAM else files.source

    def _format(self, files: LocalFiles, frame: Frame) -> str:
        """Return Pillow's name of the output format."""
        if is_video(files.destination):
            raise WriteError(
                f"the output of a picture must be a picture, not {files.destination.suffix};"
                " choose another suffix"
            )
        if files.destination != STREAM:
            return FORMAT_OF_SUFFIX[files.destination.suffix.lower()]
        source_format = frame.format or "PNG"
        return self._settings.format or PICTURE_FORMATS[source_format].written_as or source_format


def _next_page(ahead: deque[tuple[Frame, Future[Colors]]]) -> Page:
    frame, colors = ahead.popleft()
    return frame, colors.result()


def _outcome(result: Result[LocalFiles], device: str) -> Outcome:
    files, error = result.source, result.error
    if isinstance(error, Skip):
        return Outcome.skipped(files.job, str(error))
    figures = {
        "seconds": result.seconds,
        "device": device if result.batch else None,
        "batch": result.batch,
    }
    if error is not None:
        return Outcome.failed(files.job, shown(reason_of(error), files), **figures)
    _, size, damage = result.value
    if damage is not None:
        reason = f"damaged: {damage}; the output contains only what could be decoded"
        return Outcome.failed(files.job, reason, **figures)
    return Outcome.done(files.job, **figures, size=size, files=files)
