"""A check that a node sees the same code, model, inputs and output directory as this machine.

The machine that leads a run makes a `NodeCheck`. Each node runs `examine`, which writes an answer to the
output directory, here or in a store, and the leading machine reads it back with `confirm`. Transport is left
to the caller.
"""

import contextlib
import hashlib
import importlib.metadata
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from colorize_cli.core.errors import ColorizeError, ReadError, UsageError, WriteError
from colorize_cli.core.location import Location, Url
from colorize_cli.core.settings import Settings
from colorize_cli.inference import model
from colorize_cli.storage import atomic
from colorize_cli.storage.filesystem import Storages

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
    file: Location
    content: bytes
    source: Location
    beginning: tuple[str, str]

    def examine(self) -> Location:
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
        storages, shared = Storages(), _shared(self.file)
        storage = storages.of(self.file)
        try:
            seen = storage.read(self.file)
        except (OSError, ReadError) as error:
            raise UsageError(
                f"does not see the files of this machine in the output directory {self.file.parent}{shared}:"
                f" {_why(error)}"
            ) from error
        if seen != self.content:
            raise UsageError(f"sees a different output directory {self.file.parent}{shared}")
        beginning = _beginning(self.source, storages)
        if beginning != self.beginning:
            reason = beginning[1] or "its content is different there"
            raise UsageError(f"does not see the input {self.source}{_shared(self.source)}: {reason}")
        # Named after the leading machine's file, so that this machine removes an answer it never received.
        stem = self.file.name.removesuffix(_SUFFIX)
        folder = self.file.above(1) if isinstance(self.file, Url) else self.file.parent
        answer = folder / f"{stem}.{secrets.token_hex(8)}{_SUFFIX}"
        try:
            storage.write(answer, self.content)
        except (OSError, WriteError) as error:
            raise UsageError(
                f"cannot write to the output directory {self.file.parent}: {_why(error)}"
            ) from error
        if storage.entry(self.file) is None:  # the leading machine has stopped waiting
            storage.remove([answer])
        return answer

    def confirm(self, answer: Location) -> None:
        """Read back the answer of another machine and remove it.

        Raises:
            UsageError: The answer is missing or has different content.
        """
        storage, shared = Storages().of(answer), _shared(self.file)
        try:
            seen = storage.read(answer)
            storage.remove([answer])
        except (OSError, ReadError) as error:
            raise UsageError(
                f"writes a file to {self.file.parent} that this machine cannot read{shared}: {_why(error)}"
            ) from error
        if seen != self.content:
            raise UsageError(
                f"writes a file to {self.file.parent} that has different content on this machine{shared}"
            )


@contextlib.contextmanager
def prepared_check(settings: Settings, folder: Location, source: Location) -> Iterator[NodeCheck]:
    """Prepare a check that is valid as long as the block lasts.

    Args:
        settings: Settings of the run, with an absolute path of the model.
        folder: The output directory, which must exist, or a directory in a store.
        source: One of the inputs.

    Raises:
        ModelError: The model cannot be read.
        UsageError: The output directory cannot be written to.
    """
    recipe = settings.recipe(model.digest(settings.model))
    content = secrets.token_bytes(32)
    name = atomic.claim(_SUFFIX)
    file, storages = folder / name, Storages()
    try:
        try:
            storages.of(file).write(file, content)
        except (OSError, WriteError) as error:
            raise UsageError(f"cannot write to the output directory {folder}: {_why(error)}") from error
        beginning = _beginning(source, storages)
        yield NodeCheck(_version(), settings, recipe, file, content, source, beginning)
    finally:
        if isinstance(file, Path):
            atomic.remove_named_after(file)
        else:
            storages.remote.remove_below(file.above(1), name.removesuffix(_SUFFIX))
        atomic.release(name)


def _version() -> str:
    return importlib.metadata.version("colorize-cli")


def _beginning(location: Location, storages: Storages) -> tuple[str, str]:
    """Return a digest of the first bytes of a file and "", or "" and the reason why it cannot be read.

    An input that fails in the same way on both machines does not reject a node: its job will fail by itself.
    """
    try:
        content = storages.of(location).read(location, _BEGINNING)
    except (OSError, ReadError) as error:
        return "", _why(error)
    return hashlib.blake2b(content, digest_size=16).hexdigest(), ""


def _why(error: OSError | ColorizeError) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _shared(location: Location) -> str:
    """Return advice for a message about a file that another machine does not see."""
    return "; use a shared file system" if isinstance(location, Path) else ""
