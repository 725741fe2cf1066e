"""The outputs of a run in a store: what is there already, what is put, and the notes on it."""

from pathlib import Path

from colorize_cli.core.errors import ReadError, UsageError, WriteError
from colorize_cli.engine.outputs import SkippedError
from colorize_cli.storage.fingerprint import Source, Stamp
from colorize_cli.storage.manifest import State
from colorize_cli.storage.manifest_remote import Entry, Manifest
from colorize_cli.storage.remote import Found, Object
from colorize_cli.storage.remote_discovery import Errand

_NOTHING = Stamp(-1)  # of no file


class RemoteOutputs:
    """What is in a store under the names of a run's outputs. May be used from several threads."""

    def __init__(self, root: Object | None, *, overwrite: bool, read_only: bool = False) -> None:
        """Lists what is there.

        Args:
            root: The output directory; None where a single file becomes a single file, of which nothing is
                noted.
            overwrite: Make all anew.
            read_only: Ask only; nothing is written.

        Raises:
            UsageError: The store cannot be asked.
        """
        self._overwrite = overwrite
        self._root = root
        self._manifest: Manifest | None = None
        if root is not None:
            try:
                self._manifest = Manifest(root, read_only=read_only)
            except (ReadError, WriteError) as error:
                raise UsageError(f"{root.url}: {error}") from error

    @property
    def are_noted(self) -> bool:
        """Whether it is noted how outputs were made."""
        return self._manifest is not None

    def state(self, errand: Errand, destination: Object, recipe: str) -> State | None:
        """What an output is to a run; None if one must look at its content.

        Raises:
            ReadError: The store cannot be asked.
        """
        if self._overwrite:
            return State.ABSENT
        if self._manifest is None:
            there = destination.store.info(destination.path)
            return State.ABSENT if there is None else State.FOREIGN
        return self._manifest.state(errand.name, _stamp(errand), recipe)

    def state_by_content(self, errand: Errand, destination: Object, recipe: str, file: Path) -> State:
        """What an output is to a run, where `state` does not know.

        Args:
            errand: The picture.
            destination: The output.
            recipe: Digest of the model and the options that shape pixels.
            file: Where a copy of the output may lie for a moment.

        Raises:
            ReadError: The output cannot be fetched.
        """
        found = None if self._manifest is None else self._manifest.found(errand.name)
        if self._manifest is None or found is None:
            return State.ABSENT
        content = _content(destination, found, file)
        return self._manifest.state_by_content(errand.name, content, _stamp(errand), recipe)

    def is_made_from(self, errand: Errand, source: Source, recipe: str) -> bool:
        """Whether the output was made by that recipe of what the source contains, whatever its stamp says."""
        if self._overwrite or self._manifest is None:
            return False
        return self._manifest.is_made_from(errand.name, source, recipe)

    def prepare(self) -> None:
        """Sees that there can be outputs, before any work is done.

        Raises:
            UsageError: There cannot.
        """
        if self._manifest is not None and self._root is not None:
            try:
                self._manifest.prepare()
            except WriteError as error:
                raise UsageError(f"{self._root.url}: {error}") from error

    def put(
        self, errand: Errand, destination: Object, source: Source | None, recipe: str, file: Path
    ) -> None:
        """Puts an output, after a note of how it was made.

        Args:
            errand: The picture.
            destination: The output.
            source: What it was made from; None where nothing is noted.
            recipe: Digest of the model and the options that shape pixels.
            file: What is put.

        Raises:
            SkippedError: Meanwhile something was put there.
            ReadError: The store cannot be asked.
            WriteError: It cannot be put.
        """
        made = Source.of(file)
        entry = None
        if self._manifest is not None and source is not None:
            address = str(errand.transfer.source)
            entry = Entry(errand.name, made.stamp.size, made.content, address, source, recipe)
            self._manifest.intend(entry)
        found = self._appeared(errand, destination)
        if found is None:
            found = destination.store.put(file, destination.path)
        elif _content(destination, found, file) != made.content:
            raise SkippedError(State.FOREIGN.value)
        if self._manifest is not None and entry is not None:
            self._manifest.note(entry, found)

    def _appeared(self, errand: Errand, destination: Object) -> Found | None:
        """What is there that was not when the run began; another run's, perhaps, and the same."""
        was = None if self._manifest is None else self._manifest.found(errand.name)
        if self._overwrite or was is not None or not destination.store.is_there(destination.path):
            return None
        return destination.store.info(destination.path)

    def close(self) -> None:
        """Ends the notes.

        Raises:
            WriteError: Some cannot be written.
        """
        if self._manifest is not None:
            self._manifest.close()


def _content(output: Object, found: Found, file: Path) -> str:
    """A digest of an output's content, of which a copy lies in a file for a moment."""
    try:
        output.store.fetch(found, file)
        return Source.of(file).content
    finally:
        file.unlink(missing_ok=True)


def _stamp(errand: Errand) -> Stamp:
    """What tells whether the source is the one that an output was made from."""
    if isinstance(errand.source, Object):
        return _NOTHING if errand.found is None else errand.found.stamp
    try:
        return Stamp.of(errand.source.stat())
    except OSError:  # reading it will say so
        return _NOTHING
