"""A check that a node sees the same code, model, inputs and output directory as this machine.

The machine that leads a run makes a `NodeCheck`. Each node runs `examine`, which writes an answer to the
output directory, and the leading machine reads it back with `confirm`. Transport is left to the caller.
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
_BEGINNING = 1 << 16  # number of bytes compared at the beginning of an input


@dataclass(frozen=True)
class NodeCheck:
    """The view of the machine that leads a run.

    Attributes:
        version: Version of this program.
        settings: Settings of the run, with an absolute path of the model.
        recipe: Digest of the model and the options that shape pixels.
        file: A file just written to the output directory.
        content: Its random content.
        source: One of the inputs.
        beginning: Digest of the first bytes of the input, and an empty text. If the input cannot be read: an
            empty digest, and the reason.
    """

    version: str
    settings: Settings
    recipe: str
    file: Path
    content: bytes
    source: Path
    beginning: tuple[str, str]

    def examine(self) -> Path:
        """Compare this view with the view of the machine on which the method runs.

        Returns:
            A new file in the output directory with the same content, for `confirm`.

        Raises:
            UsageError: The views differ. The text completes a sentence that begins with the node's name.
        """
        if (version := _version()) != self.version:
            raise UsageError(
                f"has colorize-cli {version}, but this machine has {self.version}; install the same version"
            )
        try:
            recipe = self.settings.recipe(model.digest(self.settings.model))
        except ColorizeError as error:
            raise UsageError(str(error)) from error
        if recipe != self.recipe:
            which = f"model {self.settings.model}" if self.settings.model else "built-in model"
            raise UsageError(f"has a different {which}; use the same file on all nodes")
        try:
            seen = self.file.read_bytes()
        except OSError as error:
            raise UsageError(
                f"does not see the files of this machine in the output directory {self.file.parent};"
                f" use a shared file system: {error.strerror}"
            ) from error
        if seen != self.content:
            raise UsageError(
                f"sees a different output directory {self.file.parent}; use a shared file system"
            )
        beginning = _beginning(self.source)
        if beginning != self.beginning:
            reason = beginning[1] or "its content is different there"
            raise UsageError(f"does not see the input {self.source}; use a shared file system: {reason}")
        # Named after the leading machine's file, so that this machine removes an answer it never received.
        answer = self.file.with_suffix(f".{secrets.token_hex(8)}{_SUFFIX}")
        try:
            answer.write_bytes(self.content)
        except OSError as error:
            raise UsageError(
                f"cannot write to the output directory {self.file.parent}: {error.strerror}"
            ) from error
        if not self.file.exists():  # the leading machine has stopped waiting
            answer.unlink(missing_ok=True)
        return answer

    def confirm(self, answer: Path) -> None:
        """Read back the answer of another machine and remove it.

        Raises:
            UsageError: The answer is missing or has different content.
        """
        try:
            seen = answer.read_bytes()
            answer.unlink()
        except OSError as error:
            raise UsageError(
                f"writes a file to {self.file.parent} that this machine cannot read;"
                f" use a shared file system: {error.strerror}"
            ) from error
        if seen != self.content:
            raise UsageError(
                f"writes a file to {self.file.parent} that has different content on this machine;"
                " use a shared file system"
            )


@contextlib.contextmanager
def prepared_check(settings: Settings, folder: Path, source: Path) -> Iterator[NodeCheck]:
    """Prepare a check that is valid as long as the block lasts.

    Args:
        settings: Settings of the run, with an absolute path of the model.
        folder: The output directory, which must exist.
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
            raise UsageError(f"cannot write to the output directory {folder}: {error.strerror}") from error
        yield NodeCheck(_version(), settings, recipe, file, content, source, _beginning(source))
    finally:
        atomic.remove_named_after(file)
        atomic.release(name)


def _version() -> str:
    return importlib.metadata.version("colorize-cli")


def _beginning(path: Path) -> tuple[str, str]:
    """Return a digest of the first bytes of a file and "", or "" and the reason why it cannot be read.

    An input that fails in the same way on both machines does not reject a node: its job will fail by itself.
    """
    try:
        with path.open("rb") as file:
            return hashlib.blake2b(file.read(_BEGINNING), digest_size=16).hexdigest(), ""
    except OSError as error:
        return "", error.strerror or type(error).__name__
