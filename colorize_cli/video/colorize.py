"""Films: one job with many frames.

What is encoded lies in stretches beside the output until the film is whole; then they are joined, with all
that lies beside the picture in the source, and get the output's name.
"""

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import av
from av.container import OutputContainer
from av.stream import Stream

from colorize_cli.core.errors import ReadError
from colorize_cli.core.jobs import Position, Progress
from colorize_cli.core.settings import FilmSettings, Settings
from colorize_cli.inference.model import Model
from colorize_cli.video import muxer, reader
from colorize_cli.video.encoder import CONTAINERS, Encoder, choose
from colorize_cli.video.muxer import Span
from colorize_cli.video.reader import Film
from colorize_cli.video.stages import Colouring, Told
from colorize_cli.video.work_dir import WorkFolder


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
    with reader.opened(path) as film:
        asked = settings.film
        colouring = Colouring(film, choose(kind, film.picture, asked), network, settings, told)
        colouring.run(path, folder, film.frames(asked.start, asked.duration), film.expected, progress)
        told.damaged = film.damaged
        if not folder.done:
            raise ReadError(f"it ends before {asked.start:g} seconds")
    join(path, output, kind, [folder], settings, told)


def join(
    path: Path, output: Path, kind: str, folders: Sequence[WorkFolder], settings: Settings, told: Told
) -> None:
    """Writes a film of the stretches that are whole, and of all that lies beside the picture in its source.

    Args:
        path: The film.
        output: The file that is written.
        kind: The ending of its final name, in lower case.
        folders: Where the stretches lie, in their order.
        settings: How it was coloured.
        told: Gets the seconds that it took.

    Raises:
        ReadError: As `colour`, and the others.
    """
    begun = time.perf_counter()
    with reader.opened(path) as film:
        picture, index, span = film.picture, film.stream.index, _span(film, settings.film)
    stretches = [(folder.path / stretch.file, stretch.first) for folder in folders for stretch in folder.done]
    muxer.join(stretches, path, index, picture, output, kind, span)
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
    container = CONTAINERS[kind]
    with reader.opened(readable, format_, others=True) as film:
        chosen = choose(kind, film.picture, settings.film)
        span = _span(film, settings.film)
        opened: Any = str(writable) if isinstance(writable, Path) else writable
        with av.open(opened, "w", format=container.format, options=dict(container.muxing)) as out:
            muxer.describe(film.container, out, chapters=span is None)
            encoder = Encoder(out, film.picture, chosen, film.first.interlaced_frame)
            muxer.label_picture(encoder.stream, film.stream, film.picture)
            streams = [s for s in film.container.streams if s.index != film.stream.index]
            targets = {s.index: muxer.add_beside(s, out, kind) for s in streams}
            colouring = Colouring(film, chosen, network, settings, told)
            frames = film.frames(settings.film.start, settings.film.duration)
            with contextlib.closing(colouring.ordered(frames)) as items:
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
        if target is not None and (span is None or muxer.take(packet, span, film.picture.time_base)):
            packet.stream = target
            out.mux_one(packet)
