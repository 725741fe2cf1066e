"""The outputs of a run in a store: what is there already, what is put, and the notes on it."""

from pathlib import Path

from colorize_cli.core.errors import ReadError, UsageError, WriteError
from colorize_cli.engine.outputs import Skip
from colorize_cli.storage.fingerprint import Fingerprint, SourceFingerprint
from colorize_cli.storage.manifest import State
from colorize_cli.storage.manifest_remote import RemoteManifest, RemoteRecord
from colorize_cli.storage.remote import FileInfo, RemotePath
from colorize_cli.storage.remote_discovery import RemoteJob

_NOTHING = Fingerprint(-1)  # of no file


class RemoteOutputs:
    """What is in a store under the names of a run's outputs. May be used from several threads."""

    def __init__(self, root: RemotePath | None, *, overwrite: bool, read_only: bool = False) -> None:
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
        self._manifest: RemoteManifest | None = None
        if root is not None:
            try:
                self._manifest = RemoteManifest(root, read_only=read_only)
            except (ReadError, WriteError) as error:
                raise UsageError(f"{root.url}: {error}") from error

    @property
    def are_noted(self) -> bool:
        """Whether it is noted how outputs were made."""
        return self._manifest is not None

    def state(self, remote_job: RemoteJob, destination: RemotePath, recipe: str) -> State | None:
        """What an output is to a run; None if one must look at its content.

        Raises:
            ReadError: The store cannot be asked.
        """
        if self._overwrite:
            return State.ABSENT
        if self._manifest is None:
            there = destination.file_system.info(destination.path)
            return State.ABSENT if there is None else State.FOREIGN
        return self._manifest.state(remote_job.name, _fingerprint(remote_job), recipe)

    def state_by_content(
        self, remote_job: RemoteJob, destination: RemotePath, recipe: str, file: Path
    ) -> State:
        """What an output is to a run, where `state` does not know.

        Args:
            remote_job: The picture.
            destination: The output.
            recipe: Digest of the model and the options that shape pixels.
            file: Where a copy of the output may lie for a moment.

        Raises:
            ReadError: The output cannot be fetched.
        """
        found = None if self._manifest is None else self._manifest.found(remote_job.name)
        if self._manifest is None or found is None:
            return State.ABSENT
        content = _content(destination, found, file)
        return self._manifest.state_by_content(remote_job.name, content, _fingerprint(remote_job), recipe)

    def is_made_from(self, remote_job: RemoteJob, source: SourceFingerprint, recipe: str) -> bool:
        """Whether the output was made by that recipe of what the source contains, whatever its stamp says."""
        if self._overwrite or self._manifest is None:
            return False
        return self._manifest.is_made_from(remote_job.name, source, recipe)

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
        self,
        remote_job: RemoteJob,
        destination: RemotePath,
        source: SourceFingerprint | None,
        recipe: str,
        file: Path,
    ) -> None:
        """Puts an output, after a note of how it was made.

        Args:
            remote_job: The picture.
            destination: The output.
            source: What it was made from; None where nothing is noted.
            recipe: Digest of the model and the options that shape pixels.
            file: What is put.

        Raises:
            Skip: Meanwhile something was put there.
            ReadError: The store cannot be asked.
            WriteError: It cannot be put.
        """
        made = SourceFingerprint.of(file)
        record = None
        if self._manifest is not None and source is not None:
            address = str(remote_job.transfer.source)
            record = RemoteRecord(remote_job.name, made.stamp.size, made.content, address, source, recipe)
            self._manifest.intend(record)
        found = self._appeared(remote_job, destination)
        if found is None:
            found = destination.file_system.put(file, destination.path)
        elif _content(destination, found, file) != made.content:
            raise Skip(State.FOREIGN.value)
        if self._manifest is not None and record is not None:
            self._manifest.note(record, found)

    def _appeared(self, remote_job: RemoteJob, destination: RemotePath) -> FileInfo | None:
        """What is there that was not when the run began; another run's, perhaps, and the same."""
        was = None if self._manifest is None else self._manifest.found(remote_job.name)
        if self._overwrite or was is not None or not destination.file_system.is_there(destination.path):
            return None
        return destination.file_system.info(destination.path)

    def close(self) -> None:
        """Ends the notes.

        Raises:
            WriteError: Some cannot be written.
        """
        if self._manifest is not None:
            self._manifest.close()


def _content(output: RemotePath, found: FileInfo, file: Path) -> str:
    """A digest of an output's content, of which a copy lies in a file for a moment."""
    try:
        output.file_system.fetch(found, file)
        return SourceFingerprint.of(file).content
    finally:
        file.unlink(missing_ok=True)


def _fingerprint(remote_job: RemoteJob) -> Fingerprint:
    """What tells whether the source is the one that an output was made from."""
    if isinstance(remote_job.source, RemotePath):
        return _NOTHING if remote_job.found is None else remote_job.found.fingerprint
    try:
        return Fingerprint.of(remote_job.source.stat())
    except OSError:  # reading it will say so
        return _NOTHING
