"""Films: one job with many frames, kept in order.

    frames -> small copy -> movement -> network, in batches -> steady -> chroma -> encoder

Each stage runs in a thread of its own, and at most `_FRAMES_IN_FLIGHT` frames are in memory. What is encoded
lies in stretches beside the output until the film is whole; then they are joined, with all that lies beside
the picture in the source, and get the output's name.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
from av.container import OutputContainer
from av.stream import Stream
from av.video.frame import VideoFrame
from PIL import Image

from colorize_cli.color import Floats
from colorize_cli.errors import ReadError
from colorize_cli.jobs import FilmSettings, Position, Progress, Settings
from colorize_cli.media.film import encoding, joining, painting, source
from colorize_cli.media.film.encoding import Encoding
from colorize_cli.media.film.joining import Span
from colorize_cli.media.film.sheet import Pair, contact_sheet
from colorize_cli.media.film.source import Film, Layout, planar_name
from colorize_cli.media.film.stills import frames_at, image_of
from colorize_cli.media.film.workfolder import Stretch as Done
from colorize_cli.media.film.workfolder import WorkFolder
from colorize_cli.model import Model
from colorize_cli.pipeline import Gate, Pipeline, Stage
from colorize_cli.temporal import Chooser, Follower, Move, Steady
from colorize_cli.working import working_copy

_FRAMES_IN_FLIGHT = 48
# So much film, in seconds, is lost at most when a run is killed. Encoders begin anew with each stretch, and
# most would have put a key frame there.
_STRETCH_SECONDS = 10
# Of the chroma that `--steady 1` keeps where the frame before can be trusted wholly.
MOST_KEPT = 0.97
# Longest side of the pictures in a contact sheet, in pixels.
_PREVIEW_SIDE = 480


@dataclass
class Told:
    """What became of a film.

    Attributes:
        frames: How many were coloured, those of earlier runs among them.
        cuts: How many were found.
        damaged: How many packets and frames could not be decoded.
        seconds: Time spent by stage.
    """

    frames: int = 0
    cuts: int = 0
    damaged: int = 0
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Item:
    """A frame on its way."""

    number: int
    frame: VideoFrame
    small: Floats | None = None
    move: Move | None = None
    seen: bool = True
    ab: Floats | None = None
    cuts: int = 0


def colour(
    path: Path,
    output: Path,
    kind: str,
    folder: WorkFolder,
    network: Model,
    settings: Settings,
    told: Told,
    progress: Progress = lambda _: None,
) -> None:
    """Colours a film into a file.

    Args:
        path: The film.
        output: The file that is written.
        kind: The ending of its final name, in lower case.
        folder: Where stretches lie until then.
        network: What colours.
        settings: How.
        told: Filled in as it goes on.
        progress: Is told how far it is, whenever a frame is done.

    Raises:
        ReadError: It is no film known here, or damaged beyond use.
        WriteError: The encoder or the file's kind cannot take it.
        UsageError: It is asked for what cannot be.
        OSError: A file cannot be read or written.
    """
    with source.opened(path) as film:
        asked = settings.film
        chosen = encoding.choose(kind, film.picture, asked)
        _Colouring(film, chosen, network, settings, told).run(path, folder, progress)
        told.damaged = film.damaged
        picture, index = film.picture, film.stream.index
        span = _span(film, asked)
        if not folder.done:
            raise ReadError(f"it ends before {asked.start:g} seconds")
    begun = time.perf_counter()
    parts = [(folder.path / stretch.file, stretch.first) for stretch in folder.done]
    joining.join(parts, path, index, picture, output, kind, span)
    told.seconds["join"] = time.perf_counter() - begun


def pipe(
    readable: Path | BinaryIO,
    format_: str | None,
    writable: Path | BinaryIO,
    kind: str,
    network: Model,
    settings: Settings,
    told: Told,
    progress: Progress = lambda _: None,
) -> None:
    """Colours a film that is read, or written, once and from its beginning to its end.

    Args:
        readable: The film.
        format_: libavformat's name of its kind; None to find out.
        writable: Where to.
        kind: The ending of the name of such a file, with the dot.
        network: What colours.
        settings: How.
        told: Filled in as it goes on.
        progress: Is told how far it is, whenever a frame is done.

    Raises:
        ReadError: As `colour`, and the others.
    """
    container = encoding.CONTAINERS[kind]
    with source.opened(readable, format_, others=True) as film:
        chosen = encoding.choose(kind, film.picture, settings.film)
        span = _span(film, settings.film)
        opened: Any = str(writable) if isinstance(writable, Path) else writable
        with av.open(opened, "w", format=container.format, options=dict(container.muxing)) as out:
            joining.describe(film.container, out, chapters=span is None)
            encoder = encoding.Encoder(out, film.picture, chosen, film.first.interlaced_frame)
            joining.label_picture(encoder.stream, film.stream, film.picture)
            streams = [s for s in film.container.streams if s.index != film.stream.index]
            targets = {s.index: joining.add_beside(s, out, kind) for s in streams}
            colouring = _Colouring(film, chosen, network, settings, told)
            with contextlib.closing(colouring.ordered(0)) as items:
                for item in items:
                    if span is not None and item.frame.pts is not None:
                        item.frame.pts -= span[0]
                    encoder.add(item.frame)
                    told.frames, told.cuts = told.frames + 1, item.cuts
                    progress(Position(Path("-"), told.frames, None, float(film.picture.rate)))
                    _pass_on(film, out, targets, span)
            if not told.frames:
                raise ReadError(f"it ends before {settings.film.start:g} seconds")
            encoder.finish()
            _pass_on(film, out, targets, span)
        told.damaged = film.damaged


def _span(film: Film, asked: FilmSettings) -> Span | None:
    """The part of a film that is asked for; None for all of it."""
    if not asked.start and asked.duration is None:
        return None
    end = None if asked.duration is None else film.time_of(asked.start + asked.duration)
    return film.time_of(asked.start), end


def _pass_on(film: Film, out: OutputContainer, targets: dict[int, Stream | None], span: Span | None) -> None:
    while film.others:
        packet = film.others.popleft()
        target = targets[packet.stream.index]
        if target is not None and (span is None or joining.take(packet, span, film.picture.time_base)):
            packet.stream = target
            out.mux_one(packet)


def preview(path: Path, frames: int, network: Model, settings: Settings, told: Told) -> Image.Image:
    """A contact sheet of a film: some of its frames before and after, each coloured by itself.

    Args:
        path: The film.
        frames: How many, at equal distances in the part of the film that is asked for.
        network: What colours.
        settings: How.
        told: Filled in as it goes on.

    Raises:
        ReadError: It is no film known here, or damaged there.
    """
    asked = settings.film
    with source.opened(path) as film:
        layout = film.picture.layout
        holds = Layout.of(planar_name(layout.reduced or (1, 1), layout.bits))
        assert holds is not None  # noqa: S101 - a layout of ours in its plain form
        colouring = _Colouring(film, Encoding("rawvideo", holds, {}), network, settings, told)
        length = max(0.0, film.seconds - asked.start)
        if asked.duration is not None:
            length = min(length, asked.duration)
        if not length and asked.start:
            raise ReadError(f"it ends before {asked.start:g} seconds")
        times = [asked.start + length * (number + 0.5) / frames for number in range(frames)]
        pairs: list[Pair] = []
        for seconds, frame in zip(times, frames_at(film, times), strict=True):
            before = image_of(frame, film.picture, _PREVIEW_SIDE)
            after = image_of(colouring.alone(frame), film.picture, _PREVIEW_SIDE)
            pairs.append(Pair(seconds, before, after))
            told.frames += 1
    return contact_sheet(pairs)


class _Colouring:
    """The stages of one film."""

    def __init__(
        self,
        film: Film,
        chosen: Encoding,
        network: Model,
        settings: Settings,
        told: Told,
    ) -> None:
        self._film, self._encoding = film, chosen
        self._network, self._settings, self._told = network, settings, told
        self._sides = settings.size or network.card.working_size, network.card.multiple_of
        self._table = film.picture.coding.lightness_table()
        asked = settings.film
        self._follower = Follower()
        # Without steadiness nothing is carried along, so that the network has to see all.
        self._chooser = Chooser(asked.every if asked.steady else 1)
        self._steady = Steady(MOST_KEPT * asked.steady)
        self._length = max(1, round(_STRETCH_SECONDS * film.picture.rate))

    def run(self, path: Path, folder: WorkFolder, progress: Progress) -> None:
        """Encodes what has not been encoded yet, in stretches."""
        if (state := folder.state()) is not None:
            small, ab = state
            self._follower.next(small)
            self._steady.resume(ab, folder.done[-1].cuts)
        finished = sum(stretch.frames for stretch in folder.done)
        items = self.ordered(finished)
        self._told.frames, self._told.cuts = finished, self._steady.cuts
        expected, rate = self._film.expected, float(self._film.picture.rate)
        begun = time.perf_counter()

        def advance() -> None:
            self._told.frames += 1
            progress(Position(path, self._told.frames, expected, rate))

        try:
            while (first := next(items, None)) is not None:
                self._stretch(folder, first, items, advance)
        finally:
            items.close()
        self._told.seconds["film"] = time.perf_counter() - begun

    def _stretch(
        self,
        folder: WorkFolder,
        item: _Item,
        items: Iterator[_Item],
        advance: Callable[[], None],
    ) -> None:
        name = folder.name()
        path, first = folder.path / name, item.frame.pts
        assert first is not None  # noqa: S101 - source gives every frame one
        frames = 0
        picture = self._film.picture
        with encoding.stretch(path, picture, self._encoding, item.frame.interlaced_frame) as stretch:
            following: _Item | None = item
            while following is not None:
                item = following
                stretch.add(item.frame)
                frames += 1
                advance()
                following = next(items, None) if frames < self._length else None
        assert item.small is not None  # noqa: S101 - the stages gave it
        assert item.ab is not None  # noqa: S101
        self._told.cuts = item.cuts
        done = Done(name, first, frames, path.stat().st_size, item.cuts)
        folder.add(done, item.small, item.ab)

    def ordered(self, start: int) -> Any:
        """Coloured frames from number `start` on, in order."""
        batch = self._settings.batch_size or self._network.batch_size
        pipeline = Pipeline(
            stages=(
                Stage("copy", self._copy, gate=Gate(lambda _: 1, _FRAMES_IN_FLIGHT)),
                Stage("follow", self._followed),
                Stage("infer", self._infer, batch=batch),
                Stage("steady", self._steadied),
                Stage("chroma", self._painted, self._settings.workers),
            ),
            capacity=max(4, batch),
        )
        asked = self._settings.film
        frames = enumerate(self._film.frames(asked.start, asked.duration))
        numbered = (_Item(n, frame) for n, frame in frames if n >= start)
        waiting: dict[int, _Item] = {}
        results = pipeline.run(numbered)
        try:
            for result in results:
                if result.error is not None:
                    raise result.error
                for stage, seconds in result.seconds.items():
                    self._told.seconds[stage] = self._told.seconds.get(stage, 0.0) + seconds
                waiting[result.value.number] = result.value
                while start in waiting:
                    yield waiting.pop(start)
                    start += 1
        finally:
            results.close()

    def alone(self, frame: VideoFrame) -> VideoFrame:
        """A frame in colour, whatever is before it."""
        (item,) = self._infer([self._copy(_Item(0, frame))])
        return self._painted(item).frame

    def _copy(self, item: _Item) -> _Item:
        picture = self._film.picture
        lightness = source.lightness_of(item.frame, self._table)
        small = working_copy(lightness, *self._sides, float(picture.aspect))
        return dataclasses.replace(item, small=np.ascontiguousarray(np.rot90(small, picture.quarter_turns)))

    def _followed(self, item: _Item) -> _Item:
        assert item.small is not None  # noqa: S101 - the stage before gave it
        move = self._follower.next(item.small)
        # The last of each stretch, so that the next one begins in the same way after a kill.
        seen = self._chooser.next(move, last=(item.number + 1) % self._length == 0)
        return dataclasses.replace(item, move=move, seen=seen)

    def _infer(self, items: list[_Item]) -> list[_Item]:
        copies = [item.small for item in items if item.seen and item.small is not None]
        predicted = iter(self._network.predict(np.stack(copies)[:, None]) if copies else ())
        return [dataclasses.replace(item, ab=next(predicted)) if item.seen else item for item in items]

    def _steadied(self, item: _Item) -> _Item:
        ab = self._steady.next(item.move, item.ab)
        return dataclasses.replace(item, ab=ab, cuts=self._steady.cuts)

    def _painted(self, item: _Item) -> _Item:
        assert item.ab is not None  # noqa: S101 - the stages before gave it
        picture, layout = self._film.picture, self._encoding.layout
        assert layout.reduced is not None  # noqa: S101 - an encoding has chroma
        turned = np.rot90(item.ab, -picture.quarter_turns, axes=(1, 2))
        cb, cr = painting.chroma_planes(
            source.luma_of(item.frame), turned, self._settings.strength, picture, layout.reduced
        )
        return dataclasses.replace(item, frame=painting.painted(item.frame, layout, cb, cr))
