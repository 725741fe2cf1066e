"""What a user asks of the colours of a run, read from files: hints for its pictures, and a reference.

Hints in a file by pictures' names are matched to a plan's pictures like this. A name is first a path, below
the directory that was given as input or from the working directory; what is no such path is the plain name of
a file in whatever directory. A name of no picture or of several, and a picture with two names, are refused:
nobody is to find out from the result that hints went astray.
"""

import hashlib
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

# Raised whenever the same hints or reference give other pixels than before.
_RENDERING = 1
_PNG = b"\x89PNG"
# Longest side of the copy of a reference that its palette is of, in pixels.
_SIDE = 256


@dataclass(frozen=True)
class Reference:
    """A reference photograph: its palette, and a digest of what that was made from."""

    palette: Palette
    digest: bytes


@dataclass(frozen=True)
class Guidance:
    """What is asked of the colours of a run.

    Attributes:
        hints: Of the pictures that have any.
        reference: For all pictures, or None.
    """

    hints: Mapping[Job, Hints] = field(default_factory=dict)
    reference: Reference | None = None

    @staticmethod
    def of(settings: Settings, plan: Plan) -> "Guidance":
        """Reads the files that the settings name.

        Raises:
            UsageError: One cannot be read, is not of its kind, does not fit the plan, or would be replaced by
                an output. The text names it.
        """
        for path in (settings.hints, settings.reference):
            if path is not None:
                _refuse_replacing(path, plan)
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
        """Of what is asked for a picture, or for those without hints; empty if that is nothing."""
        own = [] if job is None or job not in self.hints else [self.hints[job].digest]
        shared = [] if self.reference is None else [self.reference.digest]
        return repr((_RENDERING, shared, own)).encode() if shared or own else b""


def apply_guidance(
    lightness: Lightness, ab: Floats, hints: Hints | None, reference: Reference | None
) -> tuple[Floats, Overlay | None]:
    """A picture's chroma by what is asked of it.

    Args:
        lightness: The picture's own, (H, W).
        ab: The network's a* and b*, (2, h, w).
        hints: Its hints, if it has any.
        reference: The reference, if there is one. The hints come after it.

    Returns:
        What `compose` takes: a* and b*, (2, h, w), and what is laid over them.

    Raises:
        UsageError: A hint lies outside of the picture, or hints as an image have another aspect.
    """
    if hints is not None:
        hints.check(lightness.shape)
    if reference is not None:
        ab = transfer(lightness, ab, reference.palette)
    return ab, None if hints is None else spread(lightness, hints)


def hints_of(given: Mapping[str, Any] | Image.Image | Path, max_pixels: int) -> Hints:
    """The hints of one picture, as they are given in Python.

    Raises:
        UsageError: They are none, or are by names of pictures.
    """
    if isinstance(given, Image.Image):
        return notation.from_image(given)
    if isinstance(given, Mapping):
        return notation.from_object(given)
    read = read_hints(given, max_pixels)
    if isinstance(read, dict):
        raise UsageError(f"{given}: these hints are by names of pictures")
    return read


def reference_of(given: Image.Image | Path, max_pixels: int) -> Reference:
    """A reference, as it is given in Python.

    Raises:
        UsageError: It cannot be read, or is grey.
    """
    if not isinstance(given, Image.Image):
        return read_reference(given, max_pixels)
    image = given.convert("RGB")
    image.thumbnail((_SIDE, _SIDE))
    return _reference(image)


def read_hints(path: Path, max_pixels: int) -> Hints | dict[str, DrawnHints]:
    """Hints from a PNG or JSON file: those of one picture, or those of several by their names.

    Raises:
        UsageError: It cannot be read or is neither. The text names it.
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


def read_reference(path: Path, max_pixels: int) -> Reference:
    """The reference photograph in a file.

    Raises:
        UsageError: It cannot be read, or is grey. The text names it.
    """
    try:
        return _reference(thumbnail.color_thumbnail(path, max_pixels, _SIDE))
    except (ReadError, UsageError) as error:
        raise UsageError(f"cannot use the reference {path}: {error}") from error


def _reference(image: Image.Image) -> Reference:
    rgb = np.asarray(image.convert("RGB"))
    content = repr(rgb.shape).encode() + rgb.tobytes()
    return Reference(Palette.of(rgb), hashlib.blake2b(content, digest_size=16).digest())


def _refuse_replacing(path: Path, plan: Plan) -> None:
    for job in plan.jobs:
        if job.destination.name == path.name and os.path.realpath(job.destination) == os.path.realpath(path):
            raise UsageError(f"{job.source} would replace {path}; inputs are never modified")


def _matched(given: Hints | dict[str, DrawnHints], plan: Plan) -> dict[Job, Hints]:
    jobs = (*plan.jobs, *plan.elsewhere)
    if not isinstance(given, dict):
        if len(jobs) == 1:
            return {jobs[0]: given}
        if isinstance(given, PaintedHints):
            raise UsageError(
                f"hints as an image are for a single picture, and here are {len(jobs)}; use JSON"
            )
        form = '{"name.jpg": {"points": ...}}'
        raise UsageError(f"these hints are for a single picture, and here are {len(jobs)}; name them: {form}")
    paths, names = defaultdict(set), defaultdict(set)
    for job in jobs:
        for path in (_below_input(job, plan), os.path.normpath(job.source), str(job.source.absolute())):
            paths[path].add(job)
        names[job.source.name].add(job)
    hints: dict[Job, Hints] = {}
    owners: dict[Job, str] = {}
    for name, marks in given.items():
        job = _only(name, paths.get(os.path.normpath(name)) or names.get(name) or set())
        if job in owners:
            raise UsageError(f"{owners[job]!r} and {name!r} are both {job.source}")
        owners[job], hints[job] = name, marks
    return hints


def _below_input(job: Job, plan: Plan) -> str:
    """The path of a picture below the directory that was given as input; of one that was given, its name."""
    depth = 1 if plan.root is None else len(job.destination.relative_to(plan.root).parts)
    return str(Path(*job.source.parts[-depth:]))


def _only(name: str, found: set[Job]) -> Job:
    if not found:
        raise UsageError(f"{name!r} is none of the pictures of this run")
    if len(found) > 1:
        one, other, *_ = sorted(str(job.source) for job in found)
        raise UsageError(f"{name!r} may be {one} or {other}; give its path")
    return next(iter(found))
