"""Guidance of a run, read from files: hints for its images, and a reference photograph.

Named hints are matched to the images of a plan as follows. A name is first taken as a path, relative to the
input directory or to the working directory. If no image has this path, it is taken as a file name in any
directory. A name that matches no image or several, and two names for the same image, are errors. Otherwise
mistakes would only show in the results.
"""

import functools
import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from colorize_cli.color.lab import Floats
from colorize_cli.color.lightness import Lightness
from colorize_cli.compose import Overlay
from colorize_cli.core.errors import ReadError, UsageError
from colorize_cli.core.jobs import Job, Plan
from colorize_cli.core.settings import Settings
from colorize_cli.guidance import hints as notation
from colorize_cli.guidance.hints import DrawnHints, Hints, PaintedHints
from colorize_cli.guidance.palette import Palette, transfer
from colorize_cli.guidance.propagation import spread
from colorize_cli.image import reader, thumbnail

# Increment this when the same hints or reference give different pixels.
_RENDERING = 1
_PNG = b"\x89PNG"
# Longest side in pixels of the thumbnail from which a reference's palette is computed.
_SIDE = 256


@dataclass(frozen=True)
class Guidance:
    """The guidance of a run.

    Attributes:
        hints: The hints of each image that has any.
        reference: The palette of the reference for all images, or None.
    """

    hints: Mapping[Job, Hints] = field(default_factory=dict)
    reference: Palette | None = None

    @staticmethod
    def of(settings: Settings, plan: Plan) -> "Guidance":
        """Read the hints and reference files in the settings.

        Raises:
            UsageError: A file cannot be read, has the wrong format, does not match the plan, or would be
                replaced by an output. The message names it.
        """
        for path in filter(None, (settings.hints, settings.reference)):
            for job in plan.jobs:
                same_name = job.destination.name == path.name
                if same_name and os.path.realpath(str(job.destination)) == os.path.realpath(path):
                    raise UsageError(f"{job.source} would replace {path}; inputs are never modified")
        reference, hints = None, {}
        if settings.reference is not None:
            reference = read_reference(settings.reference, settings.max_pixels)
        if settings.hints is not None:
            given = read_hints(settings.hints, settings.max_pixels)
            try:
                hints = _matched(given, plan)
            except UsageError as error:
                raise UsageError(f"{settings.hints}: {error}") from error
        return Guidance(hints, reference)

    def digest(self, job: Job | None = None) -> bytes:
        """Return a digest of the guidance for `job` (or for jobs without hints); empty if there is none."""
        hints = [] if job is None or job not in self.hints else [self.hints[job].digest]
        shared = [] if self.reference is None else [self.reference.digest]
        return repr((_RENDERING, shared, hints)).encode() if shared or hints else b""


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
    """Read a PNG or JSON file with the hints for one image, or with hints for several images by name.

    Raises:
        UsageError: The file cannot be read or has another format. The message names it.
    """
    try:
        content = path.read_bytes()
        if not content.startswith(_PNG):
            return notation.parse(content)
        with reader.opened(content, max_pixels) as image:
            copy = image.copy()
        return notation.from_image(copy)
    except OSError as error:
        raise UsageError(f"cannot read the hints {path}: {error.strerror}") from error
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
        # A URL is compared as text. The path below the input is the file name if the image was given itself.
        source, destination = Path(str(job.source)), Path(str(job.destination))
        depth = 1 if plan.root is None else len(destination.relative_to(Path(str(plan.root))).parts)
        below_input = str(Path(*source.parts[-depth:]))
        for path in (below_input, os.path.normpath(source), str(source.absolute())):
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
