"""Sources and outputs in remote stores: the stages fetch and put, and the outputs' states and records.

A source is fetched whole into a staging directory and colorized there. Its record is written to the manifest
(see `manifest_remote`), and then the output is uploaded whole under its final name. Finally its staged files
are removed. The objects between the start of their fetch and the end of their put are bounded in bytes and in
number.

The staging directory lies in the system's directory for temporary files (TMPDIR), and only its user can read
it. It is removed at the end of the run. If the run was killed, the next run removes it.
"""

import contextlib
import itertools
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from colorize_cli.core.errors import ReadError, UsageError, WriteError
from colorize_cli.core.formats import check_kind, is_video
from colorize_cli.core.jobs import FileInfo, Job, LocalFiles
from colorize_cli.core.location import STREAM, Location, Url
from colorize_cli.core.pipeline import Gate, Stage
from colorize_cli.core.settings import Settings
from colorize_cli.engine.outputs import Outputs, Recorder, Skip
from colorize_cli.guidance import Guidance
from colorize_cli.image import reader
from colorize_cli.storage import atomic
from colorize_cli.storage.filesystem import SourceFingerprint
from colorize_cli.storage.manifest import State, source_of
from colorize_cli.storage.manifest_remote import RemoteManifest
from colorize_cli.storage.remote import MissingError, RemotePath, RemoteStorage

# Maximum sum of the bytes of all objects between the start of their fetch and the end of their put. A larger
# object is processed alone.
BYTES_IN_FLIGHT = 256 << 20
_UNKNOWN_SIZE = 16 << 20  # bytes assumed for an object if the store does not report its size
_MOST_PICTURE = 2 << 30  # bytes of a picture that are fetched at most
_FETCH_THREADS, _PUT_THREADS = 8, 16
# Differs from the prefix of other temporary files, which `atomic.sweep` removes as files.
_STAGED = "staged"


class RemoteOutputs(Outputs):
    """The outputs of a run in a store, with their manifest. Safe for use from several threads."""

    def __init__(
        self,
        root: Url | None,
        settings: Settings,
        guidance: Guidance,
        storage: RemoteStorage,
        *,
        read_only: bool = False,
        listed: bool = True,
    ) -> None:
        """Open the manifest.

        Args:
            root: The output directory; None if a single file becomes a single file, for which there is no
                manifest.
            settings: The settings of the run.
            guidance: The hints and the reference of the run.
            storage: The stores.
            read_only: Write nothing to the store.
            listed: See `RemoteManifest`.

        Raises:
            UsageError: The store cannot be read, or its manifest cannot be put in order.
        """
        super().__init__(None, settings, guidance)
        self._storage = storage
        self._made: dict[Job, SourceFingerprint | None] = {}
        self._remote: RemoteManifest | None = None
        self._where: RemotePath | None = None
        if root is not None:
            self._where = storage.locate(root)
            try:
                self._remote = RemoteManifest(
                    self._where, read_only=read_only, listed=listed, checksum=settings.checksum
                )
            except (ReadError, WriteError) as error:
                raise UsageError(f"{root}: {error}") from error

    def state(self, files: LocalFiles) -> State:
        """Return the state of the job's output."""
        if self._remote is not None:
            return self._remote.state(files, self.recipe_of(files.job))
        where = self._located(files)
        return State.ABSENT if where.file_system.info(where.path) is None else State.FOREIGN

    def _made_by(self, files: LocalFiles) -> list[str]:
        """Return the recipes in the records that may be of the output."""
        return [] if self._remote is None else self._remote.recipes(files)

    def earlier(self, files: LocalFiles) -> Location | None:
        """Return an output of the same source that an earlier version made under another name, if any."""
        name = None if self._remote is None else self._remote.earlier(files)
        return None if name is None or self._where is None else self._where.below(name).url

    def settle(self, files: LocalFiles) -> None:
        """Fetch an output if only its content can decide its state, and record it for the next run.

        Raises:
            Skip: The output can be left as it is.
            ReadError: The output cannot be fetched.
        """
        if self._settings.overwrite or self._remote is None or self.state(files) is not State.UNDECIDED:
            return
        found = self._remote.found(files)
        if found is not None:
            content = self._content(files, found)
            state = self._remote.state_by_content(files, self.recipe_of(files.job), content)
            if state in (State.CURRENT, State.FOREIGN):
                raise Skip(state.value)

    def make_root(self) -> None:
        """Check that the manifest can be written, before any work is done.

        Raises:
            UsageError: The store does not accept it.
        """
        if self._remote is not None and self._where is not None:
            try:
                self._remote.prepare()
            except WriteError as error:
                raise UsageError(f"{self._where.url}: {error}") from error

    def make_folder(self, files: LocalFiles) -> None:
        """Do nothing: the staging directory exists."""

    def source_of(self, files: LocalFiles) -> SourceFingerprint | None:
        """Return the source's fingerprint for the manifest, or None if there is no manifest."""
        if self._remote is None:
            return None
        with reader.explained():
            return source_of(files)

    def recorder(self, files: LocalFiles, source: SourceFingerprint | None) -> Recorder:
        """Return a function that keeps the source's fingerprint for `put`."""

        def record(_: os.stat_result) -> None:
            self._made[files.job] = source

        return record

    def put(self, files: LocalFiles) -> None:
        """Upload an output, if it was made, after recording in the manifest how it was made.

        Raises:
            Skip: Another object appeared at the destination since the run began.
            ReadError: The store cannot be read.
            WriteError: The output cannot be uploaded.
        """
        if not files.destination.is_file():
            return
        source, where = self._made.pop(files.job, None), self._located(files)
        made = SourceFingerprint.of(files.destination)
        record = None
        if self._remote is not None and source is not None:
            record = self._remote.intend(files, source, made, self.recipe_of(files.job))
        found = None
        before = None if self._remote is None else self._remote.found(files)
        if not self._settings.overwrite and before is None and where.file_system.is_there(where.path):
            found = where.file_system.info(where.path)  # another run may have put it, with the same content
        if found is None:
            found = where.file_system.put(files.destination, where.path)
        elif self._content(files, found) != made.content:
            raise Skip(State.FOREIGN.value)
        if self._remote is not None and record is not None:
            self._remote.note(record, found)

    def close(self) -> None:
        """Write the outstanding records and close the manifest.

        Raises:
            WriteError: Some records cannot be written.
        """
        if self._remote is not None:
            self._remote.close()

    def _located(self, files: LocalFiles) -> RemotePath:
        assert isinstance(files.job.destination, Url)  # noqa: S101 - these are the outputs in a store
        return self._storage.locate(files.job.destination)

    def _content(self, files: LocalFiles, found: FileInfo) -> str:
        """Return a digest of an object's content, which is fetched for that, beside the output."""
        copy = files.destination.with_name(f"{files.destination.name}.found")
        try:
            self._located(files).file_system.fetch(found, copy)
            return SourceFingerprint.of(copy).content
        finally:
            copy.unlink(missing_ok=True)


class Transfer:
    """Staged copies of remote files, for one session. Safe for use from several threads."""

    def __init__(self, folder: Path, storage: RemoteStorage, outputs: Outputs) -> None:
        """Stage in `folder`, which the caller removes in the end."""
        self._folder, self._storage, self._outputs = folder, storage, outputs
        self._numbers = itertools.count()
        for name in ("in", "out"):
            (folder / name).mkdir()

    def files_of(self, job: Job) -> LocalFiles:
        """Return the files of a job, with new names for those in stores: a name may be no valid file name."""
        number = next(self._numbers)

        def local(location: Location, name: str) -> Path:
            if isinstance(location, Path):
                return location
            return self._folder / name / f"{number:06d}{location.suffix}"

        return LocalFiles(job, local(job.source, "in"), local(job.destination, "out"))

    def fetching(self) -> Stage:
        """Return the stage from the files of a job to the same with its source fetched."""
        return Stage("fetch", self.fetch, _FETCH_THREADS, gate=Gate(_bytes, BYTES_IN_FLIGHT))

    def putting(self) -> Stage:
        """Return the stage that uploads an output. It takes tuples that begin with the files of a job."""

        def put(item: tuple[LocalFiles, Any]) -> tuple[LocalFiles, Any]:
            self.put(item[0])
            return item

        return Stage("put", put, _PUT_THREADS)

    def fetch(self, files: LocalFiles) -> LocalFiles:
        """Fetch the source, unless its output can be left as it is. Return the files with its metadata then.

        Raises:
            Skip: The output can be left as it is.
            ReadError: The source is no longer there, cannot be read or has an unsupported type.
        """
        if files.source != STREAM:
            check_kind(files.source)
        self._outputs.settle(files)
        job = files.job
        if not isinstance(job.source, Url) or job.found is None:
            return files
        if (job.found.size or 0) > _MOST_PICTURE and not is_video(files.source):
            raise ReadError(f"it is longer than {_MOST_PICTURE >> 20} MiB")
        try:
            found = self._storage.locate(job.source).file_system.fetch(job.found, files.source)
        except MissingError as error:
            raise ReadError("it no longer exists in the store") from error
        return replace(files, job=replace(job, found=found))

    def put(self, files: LocalFiles) -> None:
        """Upload the output, if it belongs in a store; see `RemoteOutputs.put`."""
        if files.destination != STREAM:
            self._outputs.put(files)

    def forget(self, files: LocalFiles) -> None:
        """Remove the staged copies."""
        if isinstance(files.job.source, Url):
            files.source.unlink(missing_ok=True)
        if isinstance(files.job.destination, Url):
            files.destination.unlink(missing_ok=True)

    def stop(self) -> None:
        """Stop all retries from now on."""
        self._storage.stop()


@contextlib.contextmanager
def staging_directory() -> Iterator[Path]:
    """Create a staging directory that exists as long as the block lasts.

    Raises:
        UsageError: The directory cannot be created.
    """
    with contextlib.ExitStack() as stack:
        try:
            path = stack.enter_context(atomic.directory(Path(tempfile.gettempdir()), ".d", _STAGED))
        except OSError as error:
            raise UsageError(
                f"cannot create {error.filename}: {error.strerror}; set TMPDIR to a writable directory"
            ) from error
        yield path


def _bytes(files: LocalFiles) -> int:
    """Return the number of bytes that a job counts for in `BYTES_IN_FLIGHT`."""
    found = files.job.found
    if found is None:
        return 0
    return _UNKNOWN_SIZE if found.size is None else found.size
