"""Whether another machine sees what this one sees: the code, the model, the inputs, and the output directory.

The machine that leads a run makes a `NodeCheck`; every other one examines it, and writes in its turn what the
first reads back. Knows nothing of how a probe gets there.
"""

import contextlib
import hashlib
import importlib.metadata
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from colorize_cli.core.errors import ColorizeError, UsageError
from colorize_cli.core.settings import Settings
from colorize_cli.inference import model
from colorize_cli.storage import atomic

_SUFFIX = ".probe"
_BEGINNING = 1 << 16  # bytes of an input that are compared


@dataclass(frozen=True)
class NodeCheck:
    """What the machine that leads a run sees.

    Attributes:
        version: Of this program.
        settings: Of the run, of which the model's path is absolute.
        recipe: Digest of the model and the options that shape pixels.
        file: A file in the output directory, that was just written.
        content: What is in it, random.
        source: One of the inputs.
        beginning: A digest of how that begins, and why it cannot be read, if it cannot.
    """

    version: str
    settings: Settings
    recipe: str
    file: Path
    content: bytes
    source: Path
    beginning: tuple[str, str]

    def examine(self) -> Path:
        """Looks, on another machine, whether all of it is the same there.

        Returns:
            A file in the output directory with the same content, which `confirm` awaits.

        Raises:
            UsageError: It is not; the text says what.
        """
        if (version := _version()) != self.version:
            raise UsageError(f"has colorize-cli {version}, and here it is {self.version}")
        try:
            recipe = self.settings.recipe(model.digest(self.settings.model))
        except ColorizeError as error:
            raise UsageError(str(error)) from error
        if recipe != self.recipe:
            raise UsageError(f"has another {self.settings.model or 'model in its installation'}")
        try:
            seen = self.file.read_bytes()
        except OSError as error:
            raise UsageError(f"does not see the output {self.file.parent}: {error.strerror}") from error
        if seen != self.content:
            raise UsageError(f"sees another output {self.file.parent}")
        beginning = _beginning(self.source)
        if beginning != self.beginning:
            why = beginning[1] or "it has another content there"
            raise UsageError(f"does not see the input {self.source}: {why}")
        # It bears the name of the machine that leads, which removes it, also if it never hears of it.
        answer = self.file.with_suffix(f".{secrets.token_hex(8)}{_SUFFIX}")
        try:
            answer.write_bytes(self.content)
        except OSError as error:
            raise UsageError(f"cannot write to the output {self.file.parent}: {error.strerror}") from error
        if not self.file.exists():  # nobody waits for it any more
            answer.unlink(missing_ok=True)
        return answer

    def confirm(self, answer: Path) -> None:
        """Reads back what another machine wrote, and removes it.

        Raises:
            UsageError: It is not there.
        """
        try:
            seen = answer.read_bytes()
            answer.unlink()
        except OSError as error:
            raise UsageError(
                f"writes to {self.file.parent} what is not seen here: {error.strerror}"
            ) from error
        if seen != self.content:
            raise UsageError(f"writes to {self.file.parent} what is seen otherwise here")


@contextlib.contextmanager
def prepared_check(settings: Settings, folder: Path, source: Path) -> Iterator[NodeCheck]:
    """A probe of a run, for as long as it may be examined.

    Args:
        settings: Of the run; the model's path is absolute.
        folder: The output directory, which is there.
        source: One of the inputs.

    Raises:
        ModelError: The model cannot be read.
        UsageError: The output directory cannot be written to.
    """
    recipe = settings.recipe(model.digest(settings.model))
    content = secrets.token_bytes(32)
    name = atomic.claim(_SUFFIX)
    file = folder / name
    try:
        try:
            file.write_bytes(content)
        except OSError as error:
            raise UsageError(f"cannot write to the output {folder}: {error.strerror}") from error
        yield NodeCheck(_version(), settings, recipe, file, content, source, _beginning(source))
    finally:
        atomic.remove_named_after(file)
        atomic.release(name)


def _version() -> str:
    return importlib.metadata.version("colorize-cli")


def _beginning(path: Path) -> tuple[str, str]:
    """What cannot be read here either is no reason to refuse a machine: it will be a failure of its own."""
    try:
        with path.open("rb") as file:
            return hashlib.blake2b(file.read(_BEGINNING), digest_size=16).hexdigest(), ""
    except OSError as error:
        return "", error.strerror or type(error).__name__
