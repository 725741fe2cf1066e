"""The outputs of a run in a store: which exist already, how they are uploaded, and their manifest records."""

from pathlib import Path

from colorize_cli.core.errors import ReadError, UsageError, WriteError
from colorize_cli.engine.outputs import Skip
from colorize_cli.storage.fingerprint import Fingerprint, SourceFingerprint
from colorize_cli.storage.manifest import State
from colorize_cli.storage.manifest_remote import RemoteManifest, RemoteRecord
from colorize_cli.storage.remote import FileInfo, RemotePath
from colorize_cli.storage.remote_discovery import RemoteJob

_NOTHING = Fingerprint(-1)  # equals the fingerprint of no file


class RemoteOutputs:
    """The outputs in a store, with their manifest. Safe for use from several threads."""

    def __init__(self, root: RemotePath | None, *, overwrite: bool, read_only: bool = False) -> None:
        """List the existing outputs.

        Args:
            root: The output directory; None if a single file becomes a single file, for which there is no
                manifest.
            overwrite: Treat every output as absent.
            read_only: Write nothing to the store.

        Raises:
            UsageError: The store cannot be read, or its manifest cannot be put in order.
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
        """True if a manifest records how outputs were made."""
        return self._manifest is not None

    def state(self, remote_job: RemoteJob, destination: RemotePath, recipe: str) -> State | None:
        """Return the state of an output, or None if only its content can decide (see `state_by_content`).

        Raises:
            ReadError: The store cannot be read.
        """
        if self._overwrite:
            return State.ABSENT
        if self._manifest is None:
            found = destination.file_system.info(destination.path)
            return State.ABSENT if found is None else State.FOREIGN
        return self._manifest.state(remote_job.name, _fingerprint(remote_job), recipe)

    def state_by_content(
        self, remote_job: RemoteJob, destination: RemotePath, recipe: str, file: Path
    ) -> State:
        """Fetch an output and return its state, for outputs whose `state` is None.

        Args:
            remote_job: The job of the output.
            destination: The output.
            recipe: Digest of the model and the options that shape pixels.
            file: Path for a temporary copy of the output.

        Raises:
            ReadError: The output cannot be fetched.
        """
        found = None if self._manifest is None else self._manifest.found(remote_job.name)
        if self._manifest is None or found is None:
            return State.ABSENT
        content = _content(destination, found, file)
        return self._manifest.state_by_content(remote_job.name, content, _fingerprint(remote_job), recipe)

    def is_made_from(self, remote_job: RemoteJob, source: SourceFingerprint, recipe: str) -> bool:
        """Return True if the output was made by this recipe from a source with this content.

        The source's fingerprint may differ otherwise, for instance in its time of modification.
        """
        if self._overwrite or self._manifest is None:
            return False
        return self._manifest.is_made_from(remote_job.name, source, recipe)

    def prepare(self) -> None:
        """Check that the manifest can be written, before any work is done.

        Raises:
            UsageError: The store does not accept it.
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
        """Upload an output, after recording in the manifest how it was made.

        Args:
            remote_job: The job of the output.
            destination: The output.
            source: Fingerprint of the source; None to add no record.
            recipe: Digest of the model and the options that shape pixels.
            file: The file to upload.

        Raises:
            Skip: Another object appeared at the destination since the run began.
            ReadError: The store cannot be read.
            WriteError: The output cannot be uploaded.
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
        """Return an object that appeared at `destination` since the run began, if any.

        Another run may have put it there, with the same content.
        """
        before = None if self._manifest is None else self._manifest.found(remote_job.name)
        if self._overwrite or before is not None or not destination.file_system.is_there(destination.path):
            return None
        return destination.file_system.info(destination.path)

    def close(self) -> None:
        """Write the outstanding records and close the manifest.

        Raises:
            WriteError: Some records cannot be written.
        """
        if self._manifest is not None:
            self._manifest.close()


def _content(output: RemotePath, found: FileInfo, file: Path) -> str:
    """Return a digest of an output's content. `file` is the path of a temporary copy."""
    try:
        output.file_system.fetch(found, file)
        return SourceFingerprint.of(file).content
    finally:
        file.unlink(missing_ok=True)


def _fingerprint(remote_job: RemoteJob) -> Fingerprint:
    """Return the current fingerprint of the job's source; one that matches no record if it is missing."""
    if isinstance(remote_job.source, RemotePath):
        return _NOTHING if remote_job.found is None else remote_job.found.fingerprint
    try:
        return Fingerprint.of(remote_job.source.stat())
    except OSError:  # reading the source will report the error
        return _NOTHING
