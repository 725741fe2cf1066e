"""A film that is coloured in parts, each by itself, by whatever process or machine, in any order.

    parts -> colour_part, of each -> join_parts

A part begins at a place that is taken (see `segments`) and ends where the next one begins. So its stretches
are those that the film would have if it were coloured in one go, and so is the film.

A worker reads a part from the key frame at its beginning, if the film can be searched. What it reads then is
held against what was read when the film was divided; where it differs the part is read from the film's
beginning, which is slow, but what is done in one go.
"""

import contextlib
import functools
import itertools
import json
import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from av.video.frame import VideoFrame

from colorize_cli.core.errors import ReadError, WriteError
from colorize_cli.core.jobs import Progress
from colorize_cli.core.settings import Settings
from colorize_cli.inference.adapters import Card
from colorize_cli.inference.model import Model
from colorize_cli.storage import atomic
from colorize_cli.video import colorize, encoder, pixel_format, reader
from colorize_cli.video.reader import Film
from colorize_cli.video.segments import Divider
from colorize_cli.video.stages import Colouring, SmallCopy, Told
from colorize_cli.video.temporal import Follower
from colorize_cli.video.work_dir import WorkFolder

_PARTS = "parts.json"
# Of luma every so many-th row is looked at, to tell frames apart: what lacks a frame that it refers to is
# wrong all over.
_ROWS = 8


@dataclass(frozen=True)
class Part:
    """A part of a film, or of what is asked for of it.

    Attributes:
        number: From 0 on.
        first: Number of its first frame.
        begins: When that is shown, by the time base of the picture.
        frames: How many it has.
        damaged: How many packets and frames could not be decoded when it was read with all that is before it.
        mark: Of its first frame (see `_mark`).
        marks: Of all its frames.
    """

    number: int
    first: int
    begins: int
    frames: int
    damaged: int
    mark: int
    marks: int


def parts(path: Path, folder: WorkFolder, card: Card, settings: Settings, count: int) -> tuple[Part, ...]:
    """Divides a film, for which it is decoded once; or tells how it was divided, if it was.

    Args:
        path: The film.
        folder: Its work folder, where the parts are noted: what was begun with them is gone on with, whatever
            `count` is then.
        card: Of the network that is to colour it.
        settings: How that is to be done.
        count: About how many parts there are to be: as many, or fewer if there are no places for them, and
            about as long as each other.

    Raises:
        ReadError: It is no film known here, or damaged beyond use.
        OSError: A file cannot be read or written.
    """
    noted = folder.path / _PARTS
    with contextlib.suppress(FileNotFoundError, ValueError, TypeError):
        return tuple(Part(**values) for values in json.loads(noted.read_bytes()))
    with reader.opened(path) as film:
        survey = _surveyed(film, card, settings)
    if not survey.marks:
        raise ReadError(f"it ends before {settings.film.start:g} seconds")
    found = tuple(_parts(survey, count))
    with atomic.writing(noted) as file:
        file.write(json.dumps([asdict(part) for part in found]).encode())
    return found


def colour_part(
    path: Path,
    kind: str,
    folder: WorkFolder,
    part: Part,
    network: Model,
    settings: Settings,
    told: Told,
    progress: Progress = lambda _: None,
) -> None:
    """Colours what has not been coloured yet of a part.

    Args:
        path: The film.
        kind: The ending of the final name of the file that it becomes, in lower case.
        folder: The film's work folder; the part's lies below it.
        part: Which.
        network: What colours.
        settings: How.
        told: Filled in as it goes on, of this part.
        progress: Is told how far the part is, whenever a frame is done.

    Raises:
        ReadError: The film cannot be read as it could be when it was divided.
        WriteError: The encoder or the file's kind cannot take it.
        UsageError: It is asked for what cannot be.
        OSError: A file cannot be read or written.
    """
    own = folder.part(part.number)
    if own.done and (own.done[0].first != part.begins or _frames_in(own) > part.frames):
        own.clear()  # of a film that was divided in another way
    told.damaged = part.damaged
    if _frames_in(own) == part.frames:
        told.frames, told.cuts = part.frames, own.done[-1].cuts
        return

    def run(film: Film, frames: Iterator[VideoFrame]) -> None:
        chosen = encoder.choose(kind, film.picture, settings.film)
        colouring = Colouring(film, chosen, network, settings, told, part.first)
        colouring.run(path, own, frames, part.frames, progress)

    # What is made of damage depends on what is before it.
    if part.first and not part.damaged:
        with reader.opened(path) as film:
            frames = _searched(film, part)
            if frames is not None:
                try:
                    run(film, frames)
                except _AstrayError:
                    own.clear()
                else:
                    return
    with reader.opened(path) as film:
        run(film, _from_the_beginning(film, part, settings))


def join_parts(
    path: Path,
    output: Path,
    kind: str,
    folder: WorkFolder,
    parts: Sequence[Part],
    settings: Settings,
    told: Told,
) -> None:
    """Writes a film of all its parts, and of all that lies beside the picture in its source.

    Args:
        path: The film.
        output: The file that is written.
        kind: The ending of its final name, in lower case.
        folder: The film's work folder; the parts' lie below it.
        parts: All of them, in their order.
        settings: How they were coloured.
        told: Filled in, of the whole film.

    Raises:
        WriteError: A part is not whole, or the file's kind cannot take what is beside the picture.
        ReadError: The film cannot be read any more.
        OSError: A file cannot be read or written.
    """
    folders = [folder.part(part.number) for part in parts]
    for part, own in zip(parts, folders, strict=True):
        if _frames_in(own) != part.frames:
            raise WriteError(f"of its part {part.number} {_frames_in(own)} of {part.frames} frames are there")
    told.frames = sum(part.frames for part in parts)
    told.cuts = sum(own.done[-1].cuts for own in folders)
    told.damaged = sum(part.damaged for part in parts)
    colorize.join(path, output, kind, folders, settings, told)


@dataclass(frozen=True)
class _Place:
    """Where a part can begin.

    Attributes:
        number: Of its frame.
        shown: When that is shown.
        damaged: How many packets and frames could not be decoded until then.
    """

    number: int
    shown: int
    damaged: int


@dataclass(frozen=True)
class _Survey:
    """What is known of a film that was read once: places, marks of all frames, and damage in all."""

    places: list[_Place]
    marks: "array[int]"
    damaged: int


def _surveyed(film: Film, card: Card, settings: Settings) -> _Survey:
    cuts, divider = _Cuts(SmallCopy(film.picture, card, settings)), Divider(film.picture.rate)
    places: list[_Place] = []
    marks = array("I")
    before: VideoFrame | None = None
    for number, frame in enumerate(film.frames(settings.film.start, settings.film.duration)):
        assert frame.pts is not None  # noqa: S101 - source gives every frame one
        if before is None:
            places.append(_Place(0, frame.pts, 0))
        elif frame.key_frame and divider.wants(number) and cuts.between(before, frame):
            divider.place = number
            places.append(_Place(number, frame.pts, film.damaged))
        marks.append(_mark(frame))
        before = frame
    return _Survey(places, marks, film.damaged)


class _Cuts:
    """Looks for cuts, between some of a film's frames only."""

    def __init__(self, small: SmallCopy) -> None:
        self._small = small
        self._follower = Follower()
        self._seen: VideoFrame | None = None

    def between(self, before: VideoFrame, frame: VideoFrame) -> bool:
        """Whether the film cuts between two frames, one of which follows the other."""
        if before is not self._seen:
            self._follower = Follower()
            self._follower.next(self._small(before))
        move = self._follower.next(self._small(frame))
        self._seen = frame
        return move is not None and move.cut


def _parts(survey: _Survey, count: int) -> Iterator[Part]:
    frames = len(survey.marks)
    begins = _chosen(survey.places, frames, count)
    ends = [*begins[1:], _Place(frames, 0, survey.damaged)]
    for number, (place, end) in enumerate(zip(begins, ends, strict=True)):
        marks = survey.marks[place.number : end.number]
        yield Part(
            number=number,
            first=place.number,
            begins=place.shown,
            frames=len(marks),
            damaged=end.damaged - place.damaged,
            mark=marks[0],
            marks=functools.reduce(_joined, marks, 0),
        )


def _chosen(places: Sequence[_Place], frames: int, count: int) -> list[_Place]:
    """Where about so many parts begin: each takes its share of what is left, to the nearest place."""
    chosen = [places[0]]
    for left in range(count, 1, -1):
        begun = chosen[-1].number
        wanted = begun + (frames - begun) / left
        later = [place for place in places if place.number > begun]
        if not later:
            break
        chosen.append(min(later, key=lambda place: abs(place.number - wanted)))
    return chosen


class _AstrayError(Exception):
    """What is read is not what was read when the film was divided."""


def _searched(film: Film, part: Part) -> Iterator[VideoFrame] | None:
    """The frames of a part, read from its beginning; None if that is not found."""
    frames = itertools.islice(film.between(part.begins), part.frames)
    first = next(frames, None)
    if first is None or _mark(first) != part.mark:
        return None
    return _checked(itertools.chain((first,), frames), part)


def _checked(frames: Iterator[VideoFrame], part: Part) -> Iterator[VideoFrame]:
    count = marks = 0
    for frame in frames:
        count, marks = count + 1, _joined(marks, _mark(frame))
        yield frame
    if (count, marks) != (part.frames, part.marks):
        raise _AstrayError


def _from_the_beginning(film: Film, part: Part, settings: Settings) -> Iterator[VideoFrame]:
    """The frames of a part, read as they are when the film is coloured in one go."""
    count = 0
    every = film.frames(settings.film.start, settings.film.duration)
    for frame in itertools.islice(every, part.first, part.first + part.frames):
        count += 1
        yield frame
    if count != part.frames:
        raise ReadError(f"it had {part.first + part.frames} frames, and has {part.first + count} now")


def _mark(frame: VideoFrame) -> int:
    """A number that frames hardly share which differ in luma, in time, or in whether they are key frames."""
    rows = pixel_format.luma_of(frame)[::_ROWS].tobytes()
    return zlib.crc32(rows, zlib.crc32(f"{frame.pts} {frame.key_frame}".encode()))


def _joined(marks: int, mark: int) -> int:
    """The mark of a row of frames, of that of all but the last and that of the last."""
    return zlib.crc32(mark.to_bytes(4, "little"), marks)


def _frames_in(folder: WorkFolder) -> int:
    return sum(stretch.frames for stretch in folder.done)
