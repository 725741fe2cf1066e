"""Guidance of a run, read from files: hints for its images, and a reference photograph.

Hints lie in files beside the images (`scan.jpg.hints.json`), or are given for a run: a directory with such
files at the same relative paths, or one file, which for several images names them.

Named hints are matched to the images of a plan as follows. A name is first taken as a path, relative to the
input directory or to the working directory. If no image has this path, it is taken as a file name in any
directory. A name that matches no image or several, and two names for the same image, are errors. Otherwise
mistakes would only show in the results. A file for one image that cannot be read fails only this image.
"""

import functools
import os
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from colorize_cli.color.lab import Floats
from colorize_cli.color.lightness import UNIFORM16, Lightness, uniform_codes
from colorize_cli.compose import Overlay
from colorize_cli.core.errors import ReadError, UsageError
from colorize_cli.core.formats import HINTS_SUFFIX, is_video
from colorize_cli.core.jobs import Job, Plan
from colorize_cli.core.location import Location
from colorize_cli.core.settings import Settings
from colorize_cli.guidance import hints as notation
from colorize_cli.guidance.hints import DrawnHints, Hints, PaintedHints
from colorize_cli.guidance.palette import Palette, transfer
from colorize_cli.guidance.propagation import spread
from colorize_cli.image import reader, thumbnail
from colorize_cli.inference.model import Model
from colorize_cli.storage import stdio
from colorize_cli.storage.filesystem import LocalStorage, Storages

# Increment this when the same hints or reference give different pixels.
_RENDERING = 2
_PNG = b"\x89PNG"
# Longest side in pixels of the thumbnail from which a reference's palette is computed.
_SIDE = 256
_READ_THREADS = 16
_MOST_BYTES = 1 << 28  # of a file of hints


@dataclass(frozen=True)
class Guidance:
    """The guidance of a run.

    Attributes:
        hints: The hints of each image that has any.
        reference: The palette of the reference for all images, or None.
        problems: The reason for each job whose hints cannot be used.
    """

    hints: Mapping[Job, Hints] = field(default_factory=dict)
    reference: Palette | None = None
    problems: Mapping[Job, str] = field(default_factory=dict)

    @staticmethod
    def of(settings: Settings, plan: Plan, announce: Callable[[str], None] = lambda _: None) -> "Guidance":
        """Read the hints beside the images, and the hints and the reference in the settings.

        Args:
            settings: The settings of the run.
            plan: The jobs.
            announce: Called with lines for the user on hints that are not used.

        Raises:
            UsageError: A file in the settings cannot be read, has the wrong format, does not match the plan,
                or would be replaced by an output. The message names it.
        """
        for path in filter(None, (settings.hints, settings.reference)):
            for job in plan.jobs:
                same_name = job.destination.name == path.name
                if same_name and os.path.realpath(str(job.destination)) == os.path.realpath(path):
                    raise UsageError(f"{job.source} would replace {path}; inputs are never modified")
        reference = None
        if settings.reference is not None:
            reference = read_reference(settings.reference, settings.max_pixels)
        beside = {job: job.hints for job in plan.jobs if job.hints is not None}
        given: dict[Job, Hints] = {}
        below: dict[Job, Path] = {}
        if settings.hints is not None and settings.hints.is_dir():
            below = _found_below(settings.hints, plan, announce)
        elif settings.hints is not None:
            content = read_hints(settings.hints, settings.max_pixels)
            try:
                given = _matched(content, plan)
            except UsageError as error:
                raise UsageError(f"{settings.hints}: {error}") from error
        for job, location in beside.items():
            if job in given or job in below:
                announce(f"{location} is not used: --hints {settings.hints} has hints for {job.source}")
        hints, problems = _read({job: path for job, path in {**beside, **below}.items() if job not in given})
        hints |= given
        for job in hints:
            if is_video(job.source):
                problems[job] = "hints are for pictures, and it is a video; remove its hints"
        return Guidance(hints, reference, problems)

    def digest(self, job: Job | None = None) -> bytes:
        """Return a digest of the guidance for `job` (or for jobs without hints); empty if there is none."""
        hints = [] if job is None or job not in self.hints else [self.hints[job].digest]
        shared = [] if self.reference is None else [self.reference.digest]
        return repr((_RENDERING, shared, hints)).encode() if shared or hints else b""

    @staticmethod
    def had_hints(digest: bytes) -> bool:
        """Return True if a value of `digest` is for a job with hints."""
        return bool(digest) and not digest.endswith(b", [])")


def apply_guidance(
    lightness: Lightness, ab: Floats, hints: Hints | None, reference: Palette | None
) -> tuple[Floats, Overlay | None]:
    """Apply the guidance to the predicted chroma of an image.

    Args:
        lightness: Lightness of the image, (H, W).
        ab: Predicted CIE a* and b*, (2, h, w).
        hints: Hints for the image, if any.
        reference: The palette of the reference, if any. It is applied before the hints.

    Returns:
        The new a* and b*, (2, h, w), and the overlay of the hints, both for `compose`.

    Raises:
        UsageError: A hint lies outside of the image, or painted hints have another aspect ratio.
    """
    if hints is not None:
        hints.check(lightness.shape)
    if reference is not None:
        ab = transfer(lightness, ab, reference)
    if hints is None:
        return ab, None
    return ab, spread(lightness, functools.partial(hints.rows, lightness.shape))


@dataclass(eq=False)
class PaletteModel(Model):
    """A model whose predictions have the palette of a reference. For films, frame by frame.

    Attributes:
        palette: The palette of the reference.
    """

    palette: Palette | None = None

    def predict(self, lightness: Floats) -> Floats:
        """Predict like `Model.predict`, and apply the palette to each frame."""
        chroma = super().predict(lightness)
        if self.palette is None:
            return chroma
        frames = (Lightness(uniform_codes(small[0]), UNIFORM16) for small in lightness)
        return np.stack([transfer(frame, ab, self.palette) for frame, ab in zip(frames, chroma, strict=True)])


def hints_of(given: Mapping[str, Any] | Image.Image | Path, max_pixels: int) -> Hints:
    """Return the hints for a single image from a Python API argument.

    Raises:
        UsageError: The hints are not valid, or are for several named images.
    """
    if isinstance(given, Image.Image):
        return notation.from_image(given)
    if isinstance(given, Mapping):
        return notation.from_object(given)
    read = read_hints(given, max_pixels)
    if isinstance(read, dict):
        raise UsageError(f"{given}: these hints are for images by name; give the hints of one image")
    return read


def reference_of(given: Image.Image | Path, max_pixels: int) -> Palette:
    """Return the palette of a reference from a Python API argument.

    Raises:
        UsageError: The reference cannot be read or is gray.
    """
    if not isinstance(given, Image.Image):
        return read_reference(given, max_pixels)
    image = given.convert("RGB")
    image.thumbnail((_SIDE, _SIDE))
    return Palette.of(np.asarray(image))


def read_hints(path: Path, max_pixels: int) -> Hints | dict[str, DrawnHints]:
    """Read a picture or a JSON file with the hints for one image, or with hints for several images by name.

    Raises:
        UsageError: The file cannot be read or has another format. The message names it.
    """
    try:
        with path.open("rb") as file:
            content = stdio.read_all(file, _MOST_BYTES)
    except OSError as error:
        raise UsageError(f"cannot read the hints {path}: {error.strerror}") from error
    if content is None:
        raise UsageError(f"{path}: hints of more than {_MOST_BYTES >> 20} MiB are not supported")
    try:
        try:
            with reader.open_page(content, max_pixels) as image:
                copy = image.copy()
        except ReadError:
            if content.startswith(_PNG):
                raise
            return notation.parse(content)
        return notation.from_image(copy)
    except (ReadError, UsageError) as error:
        raise UsageError(f"{path}: {error}") from error


def read_reference(path: Path, max_pixels: int) -> Palette:
    """Read the palette of a reference photograph.

    Raises:
        UsageError: The file cannot be read, or the photograph is gray. The message names the file.
    """
    try:
        image = thumbnail.color_thumbnail(path, max_pixels, _SIDE)
        return Palette.of(np.asarray(image.convert("RGB")))
    except (ReadError, UsageError) as error:
        raise UsageError(f"cannot use the reference {path}: {error}") from error


def _found_below(directory: Path, plan: Plan, announce: Callable[[str], None]) -> dict[Job, Path]:
    """Return the hints files of jobs in a directory, at the paths of their sources below the input.

    Raises:
        UsageError: The directory, or one below it, cannot be searched.
    """
    jobs = {_below_input(job, plan): job for job in (*plan.jobs, *plan.elsewhere)}
    found: dict[Job, Path] = {}
    unused: list[Path] = []
    try:
        entries = list(LocalStorage().walk(directory, None, lambda _: False))
    except OSError as error:
        raise UsageError(f"cannot read the hints {directory}: {error.strerror}") from error
    for entry in entries:
        path = directory / entry.name
        if entry.is_directory and entry.error is not None:
            raise UsageError(f"cannot read the hints {path}: {entry.error}")
        if entry.is_directory:  # one with a manifest, see `Storage.walk`
            announce(f"{path} is not searched for hints, as it holds outputs of an earlier run")
        elif not entry.name.endswith(HINTS_SUFFIX):
            continue
        elif (job := jobs.get(str(Path(entry.name)).removesuffix(HINTS_SUFFIX))) is not None:
            found[job] = path
        else:
            unused.append(path)
    if unused:
        announce(f"{directory}: hints files for no picture of this run: {len(unused)}, such as {min(unused)}")
    elif not found:
        announce(f"{directory} has no hints files, whose names end in {HINTS_SUFFIX}")
    return {job: found[job] for job in plan.jobs if job in found}


def _read(files: Mapping[Job, Location]) -> tuple[dict[Job, Hints], dict[Job, str]]:
    """Read the hints file of each job. Return the hints, and the reasons of those that cannot be used."""
    storages = Storages()

    def read(location: Location) -> Hints | str:
        try:
            hints = notation.parse(storages.of(location).read(location, notation.LONGEST + 1))
        except OSError as error:
            return f"cannot read its hints {location}: {error.strerror}"
        except (ReadError, UsageError) as error:
            return f"cannot use its hints {location}: {error}"
        if isinstance(hints, dict):
            return f"cannot use its hints {location}: they are for images by name; give points and strokes"
        return hints

    with ThreadPoolExecutor(_READ_THREADS) as pool:
        results = dict(zip(files, pool.map(read, files.values()), strict=True))
    problems = {job: result for job, result in results.items() if isinstance(result, str)}
    return {job: result for job, result in results.items() if not isinstance(result, str)}, problems


def _below_input(job: Job, plan: Plan) -> str:
    """Return the path of a job's source below the input; its file name if the file was given itself."""
    # A URL is compared as text.
    source, destination = Path(str(job.source)), Path(str(job.destination))
    depth = 1 if plan.root is None else len(destination.relative_to(Path(str(plan.root))).parts)
    return str(Path(*source.parts[-depth:]))


def _matched(given: Hints | dict[str, DrawnHints], plan: Plan) -> dict[Job, Hints]:
    jobs = (*plan.jobs, *plan.elsewhere)
    if not isinstance(given, dict):
        if len(jobs) == 1:
            return {jobs[0]: given}
        if isinstance(given, PaintedHints):
            raise UsageError(
                f"painted hints are for a single image, but there are {len(jobs)}; use JSON with names"
            )
        form = '{"name.jpg": {"points": ...}}'
        raise UsageError(f"these hints are for a single image, but there are {len(jobs)}; name them: {form}")
    paths, names = defaultdict(set), defaultdict(set)
    for job in jobs:
        source = Path(str(job.source))
        for path in (_below_input(job, plan), os.path.normpath(source), str(source.absolute())):
            paths[path].add(job)
        names[job.source.name].add(job)
    hints: dict[Job, Hints] = {}
    owners: dict[Job, str] = {}
    for name, marks in given.items():
        job = _only(name, paths.get(os.path.normpath(name)) or names.get(name) or set())
        if job in owners:
            raise UsageError(f"{owners[job]!r} and {name!r} are both {job.source}; use one name for it")
        owners[job], hints[job] = name, marks
    return hints


def _only(name: str, found: set[Job]) -> Job:
    if not found:
        raise UsageError(f"{name!r} is none of the images of this run")
    if len(found) > 1:
        one, other, *_ = sorted(str(job.source) for job in found)
        raise UsageError(f"{name!r} may be {one} or {other}; give its path")
    return next(iter(found))
