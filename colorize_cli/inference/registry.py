"""Models that have names: the one that comes with this package, and those in the user's folder of models.

What needs numpy is imported where it is used: a name is looked up before `--doctor`, which must start without
it.
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import platformdirs

from colorize_cli.core.errors import ModelError

BUNDLED = "default"
_SUFFIX = ".onnx"


@dataclass(frozen=True)
class ListedModel:
    """A model, and what its file says of itself.

    Attributes:
        name: What `--model` takes.
        path: The file; None for the one that comes with this package.
        size: Of the file, in bytes.
        sha256: Of the file, in hexadecimal.
        kind: The contract that it is of; None where it is of none.
        says: The name that it has for itself; likewise.
        working_size: Short side in pixels of the copy that it sees; likewise.
        licence: Of its weights; likewise.
        problem: Why it cannot be used; None where it can.
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
    """The user's folder of models, which need not exist."""
    return platformdirs.user_data_path("colorize", appauthor=False) / "models"


def resolve(named: Path | None) -> Path | None:
    """The file that is meant by a path or a name; None for the model that comes with this package.

    A path of a file that exists is that file. A mere name, with or without .onnx, is then looked for in the
    user's folder.
    """
    if named is None or named.exists() or len(named.parts) != 1:
        return named
    for candidate in (folder() / named, folder() / f"{named}{_SUFFIX}"):
        if candidate.is_file():
            return candidate
    return None if str(named) == BUNDLED else named


def entries() -> list[ListedModel]:
    """All of them, the bundled one first. Variants in another precision are left out."""
    from colorize_cli.inference import model

    found = sorted(folder().glob(f"*{_SUFFIX}")) if folder().is_dir() else []
    stems = {path.stem for path in found}
    variants = {
        stem
        for stem in stems
        if any(stem.removesuffix(suffix) in stems - {stem} for suffix in model.VARIANTS.values())
    }
    return [_entry(BUNDLED, None)] + [_entry(path.stem, path) for path in found if path.stem not in variants]


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
