"""The stages that a film's frames go through, kept in order.

    frames -> small copy -> movement -> network, in batches -> steady -> chroma -> encoder

Each stage runs in a thread of its own, and at most `_FRAMES_IN_FLIGHT` frames are in memory.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from av.video.frame import VideoFrame

from colorize_cli.color.lab import Floats
from colorize_cli.color.resize import working_copy
from colorize_cli.core.jobs import Position, Progress
from colorize_cli.core.pipeline import Gate, Pipeline, Stage
from colorize_cli.core.settings import Settings
from colorize_cli.inference.adapters import Card
from colorize_cli.inference.model import Model
from colorize_cli.storage import atomic
from colorize_cli.video import chroma, encoder, pixel_format
from colorize_cli.video.encoder import Encoding
from colorize_cli.video.pixel_format import Picture
from colorize_cli.video.reader import Film
from colorize_cli.video.segments import Divider
from colorize_cli.video.temporal import Chooser, Follower, Move, Steady
from colorize_cli.video.work_dir import Stretch as Done
from colorize_cli.video.work_dir import WorkFolder

_FRAMES_IN_FLIGHT = 48
# Of the chroma that `--steady 1` keeps where the frame before can be trusted wholly.
MOST_KEPT = 0.97


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
    begins: bool = False  # a stretch
    place: int = 0  # that was taken last


class SmallCopy:
    """Makes what the network sees of a film's frames."""

    def __init__(self, picture: Picture, card: Card, settings: Settings) -> None:
        """Of frames like `picture`, for a network that says `card` of itself."""
        self._picture, self._table = picture, picture.coding.lightness_table()
        self._sides = settings.size or card.working_size, card.multiple_of

    def __call__(self, frame: VideoFrame) -> Floats:
        """L* in [0, 100] of a frame as a player shows it, (h, w)."""
        lightness = pixel_format.lightness_of(frame, self._table)
        small = working_copy(lightness, *self._sides, float(self._picture.aspect))
        return np.ascontiguousarray(np.rot90(small, self._picture.quarter_turns))


class Colouring:
    """The stages of one film, or of a part of one that begins at a place that is taken (see `segments`)."""

    def __init__(
        self,
        film: Film,
        chosen: Encoding,
        network: Model,
        settings: Settings,
        told: Told,
        first: int = 0,
    ) -> None:
        """Sets the stages up.

        Args:
            film: What is read.
            chosen: How it is encoded.
            network: What colours.
            settings: How.
            told: Filled in as it goes on.
            first: Number of the part's first frame; 0 for the film's.
        """
        self._film, self._encoding = film, chosen
        self._network, self._settings, self._told = network, settings, told
        self._small = SmallCopy(film.picture, network.card, settings)
        self._follower = Follower()
        # Without steadiness nothing is carried along, so that the network has to see all.
        self._chooser = Chooser(settings.film.every if settings.film.steady else 1)
        self._steady = Steady(MOST_KEPT * settings.film.steady)
        self._first = first
        self._divider = Divider(film.picture.rate, first)

    def run(
        self,
        path: Path,
        folder: WorkFolder,
        frames: Iterator[VideoFrame],
        expected: int | None,
        progress: Progress,
    ) -> None:
        """Encodes what has not been encoded yet, in stretches.

        Args:
            path: The film.
            folder: Where the stretches lie.
            frames: From the first frame on, those that are encoded already among them.
            expected: How many frames there are, if that is known.
            progress: Is told how far it is, whenever a frame is done.
        """
        # The film has cut to the first frame of a part.
        self._steady.cuts = int(self._first > 0)
        if (state := folder.state()) is not None:
            small, ab = state
            self._follower.next(small)
            self._steady.resume(ab, folder.done[-1].cuts)
            self._divider.place = folder.done[-1].place
        finished = sum(stretch.frames for stretch in folder.done)
        items = self.ordered(frames, finished)
        self._told.frames, self._told.cuts = finished, self._steady.cuts
        rate = float(self._film.picture.rate)
        begun = time.perf_counter()

        def advance() -> None:
            self._told.frames += 1
            progress(Position(path, self._told.frames, expected, rate))

        try:
            item = next(items, None)
            while item is not None:
                item = self._stretch(folder, item, items, advance)
        finally:
            items.close()
        self._told.seconds["film"] = time.perf_counter() - begun

    def _stretch(
        self,
        folder: WorkFolder,
        item: _Item,
        items: Iterator[_Item],
        advance: Callable[[], None],
    ) -> _Item | None:
        """Encodes a stretch that begins with a frame; gives the first frame of the next one."""
        name, first = folder.name(), item.frame.pts
        assert first is not None  # noqa: S101 - source gives every frame one
        path, frames = folder.path / name, 0
        following: _Item | None = item
        with (
            atomic.naming(path) as temporary,
            encoder.stretch(
                temporary, self._film.picture, self._encoding, item.frame.interlaced_frame
            ) as stretch,
        ):
            while following is not None and not (frames and following.begins):
                item = following
                stretch.add(item.frame)
                frames += 1
                advance()
                following = next(items, None)
        assert item.small is not None  # noqa: S101 - the stages gave it
        assert item.ab is not None  # noqa: S101
        self._told.cuts = item.cuts
        done = Done(name, first, frames, path.stat().st_size, item.cuts, item.place)
        folder.add(done, item.small, item.ab)
        return following

    def ordered(self, frames: Iterator[VideoFrame], skipped: int = 0) -> Any:
        """Coloured frames in order.

        Args:
            frames: From the first frame on.
            skipped: How many of them are left out.
        """
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
        number = self._first + skipped
        numbered = (_Item(n, frame) for n, frame in enumerate(frames, self._first) if n >= number)
        waiting: dict[int, _Item] = {}
        results = pipeline.run(numbered)
        try:
            for result in results:
                if result.error is not None:
                    raise result.error
                for stage, seconds in result.seconds.items():
                    self._told.seconds[stage] = self._told.seconds.get(stage, 0.0) + seconds
                waiting[result.value.number] = result.value
                while number in waiting:
                    yield waiting.pop(number)
                    number += 1
        finally:
            results.close()

    def alone(self, frame: VideoFrame) -> VideoFrame:
        """A frame in colour, whatever is before it."""
        (item,) = self._infer([self._copy(_Item(0, frame))])
        return self._painted(item).frame

    def _copy(self, item: _Item) -> _Item:
        return dataclasses.replace(item, small=self._small(item.frame))

    def _followed(self, item: _Item) -> _Item:
        assert item.small is not None  # noqa: S101 - the stage before gave it
        move = self._follower.next(item.small)
        cut = move is not None and move.cut
        begins = self._divider.begins(item.number, place=cut and bool(item.frame.key_frame))
        # The last of each stretch that ends for its length, so that the next one begins in the same way after
        # a kill. Nothing is carried on from the others.
        seen = self._chooser.next(move, last=self._divider.is_last(item.number))
        return dataclasses.replace(item, move=move, seen=seen, begins=begins, place=self._divider.place)

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
        cb, cr = chroma.chroma_planes(
            pixel_format.luma_of(item.frame), turned, self._settings.strength, picture, layout.reduced
        )
        return dataclasses.replace(item, frame=chroma.painted(item.frame, layout, cb, cr))
