"""Find models by name: the bundled ones, and those in the user's folder of models.

A new kind of ONNX file has its row elsewhere: in `adapters.MODEL_FORMATS`.

Modules that need numpy are imported where they are used, since names are also resolved for `doctor`, which
must start without numpy.
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import platformdirs

from colorize_cli.core.errors import ModelError
from colorize_cli.inference import DEFAULT, MODELS

_SUFFIX = ".onnx"


@dataclass(frozen=True)
class ListedModel:
    """Model with the metadata of its file. The metadata is None if the model cannot be used.

    Attributes:
        name: Name for `--model`.
        path: The file; None for the bundled default model.
        size: Size of the file in bytes; 0 if it cannot be read.
        sha256: SHA-256 of the file, in hexadecimal; empty if it cannot be read.
        kind: Kind of the file (see `adapters`).
        says: Name in the metadata.
        working_size: Short side of the network's input in pixels.
        licence: License of the weights.
        problem: Reason why the model cannot be used; None if it can.
    """

    name: str
    path: str | None
    size: int
    sha256: str
    kind: str | None = None
    says: str | None = None
    working_size: int | None = None
    licence: str | None = None
    problem: str | None = None


def folder() -> Path:
    """Return the user's folder of models, which need not exist."""
    return platformdirs.user_data_path("colorize", appauthor=False) / "models"


def resolve(named: Path | None) -> Path | None:
    """Return the file of a path or name; None for the bundled default model.

    A path that exists is returned as it is. A bare name, with or without .onnx, is searched in the user's
    folder and then among the bundled models.
    """
    if named is None or named.exists() or len(named.parts) != 1:
        return named
    for directory in (folder(), MODELS):
        for candidate in (directory / named, directory / f"{named}{_SUFFIX}"):
            if candidate.is_file():
                return None if candidate == DEFAULT else candidate
    return None if str(named) == DEFAULT.stem else named


def entries() -> list[ListedModel]:
    """List all models, the default first and the other bundled ones next.

    A bundled model that a model of the user's folder hides is left out, and so are variants in another
    precision.
    """
    from colorize_cli.inference.model import VARIANTS

    paths = {
        path.stem: path for directory in (MODELS, folder()) for path in sorted(directory.glob(f"*{_SUFFIX}"))
    }
    variants = {
        stem
        for stem in paths
        if any(stem.removesuffix(suffix) in paths.keys() - {stem} for suffix in VARIANTS.values())
    }
    default = paths.pop(DEFAULT.stem, DEFAULT)
    return [_entry(DEFAULT.stem, None if default == DEFAULT else default)] + [
        _entry(name, path) for name, path in paths.items() if name not in variants
    ]


def _entry(name: str, path: Path | None) -> ListedModel:
    from colorize_cli.inference import model

    where = None if path is None else str(path)
    try:
        content = model.read(path)
    except ModelError as error:
        return ListedModel(name, where, 0, "", problem=str(error))
    plain = ListedModel(name, where, len(content), hashlib.sha256(content).hexdigest())
    try:
        info = model.load(path, "cpu", precision="fp32").info
    except ModelError as error:
        return replace(plain, problem=str(error))
    return replace(
        plain, kind=info.kind, says=info.name, working_size=info.working_size, licence=info.license
    )
