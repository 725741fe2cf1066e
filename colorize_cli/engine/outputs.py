"""The outputs of a run: which of them exist already, how they are written, and their manifest records."""

import contextlib
import functools
import io
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from colorize_cli.core.errors import UsageError, WriteError
from colorize_cli.core.formats import is_video
from colorize_cli.core.jobs import Job, LocalFiles
from colorize_cli.core.location import STREAM, Location, Url, redacted
from colorize_cli.core.settings import Settings
from colorize_cli.guidance import Guidance
from colorize_cli.image import reader, writer
from colorize_cli.image.frame import Page
from colorize_cli.inference import model
from colorize_cli.storage import stdio
from colorize_cli.storage.filesystem import Fingerprint, SourceFingerprint
from colorize_cli.storage.manifest import State, source_of
from colorize_cli.storage.manifest_local import LocalManifest, manifest_of

Recorder = Callable[[os.stat_result], None]
"""Records an output, given the status of the finished file; see `Outputs.recorder`."""


class Skip(Exception):  # noqa: N818 - control flow, not an error
    """Raised when a job need not be done after all; the text is the reason."""


def own_files(job: Job) -> LocalFiles:
    """Return the files of a job whose source and destination are on this machine."""
    if isinstance(job.source, Url) or isinstance(job.destination, Url):
        raise TypeError(f"{job} is not on this machine")
    return LocalFiles(job, job.source, job.destination)


def shown(text: str, files: LocalFiles) -> str:
    """Return a message with the locations of a job in place of staged copies, and without secrets."""
    for path, location in ((files.source, files.job.source), (files.destination, files.job.destination)):
        if isinstance(location, Url):
            text = redacted(text.replace(str(path), str(location)))
    return text


class Outputs:
    """The outputs of a run on this machine, with the manifest that records how each was made.

    `transfer.RemoteOutputs` has the outputs in a store.
    """

    def __init__(
        self, root: Location | None, settings: Settings, guidance: Guidance, *, read_only: bool = False
    ) -> None:
        """Open the manifest.

        Args:
            root: The directory that contains all outputs; None if a single file becomes a single file, whose
                manifest is opened when it is needed.
            settings: The settings of the run.
            guidance: The hints and the reference of the run.
            read_only: True to write nothing.
        """
        self._settings, self._guidance = settings, guidance
        self._video_recipe = settings.video.recipe()
        self._read_only = read_only
        self._root = root if isinstance(root, Path) else None
        # Without links, before anyone can exchange it.
        self._real_root = None if self._root is None else os.path.realpath(self._root)
        self._manifest = None
        if self._root is not None:
            self._manifest = LocalManifest(self._root, read_only=read_only, checksum=settings.checksum)

    def _manifest_of(self, files: LocalFiles) -> LocalManifest | None:
        """Return the manifest for an output; None if it is a pipe, or made from one."""
        if self._manifest is None and STREAM not in (files.source, files.destination):
            self._manifest = manifest_of(
                files.destination, read_only=self._read_only, checksum=self._settings.checksum
            )
        return self._manifest

    @functools.cached_property
    def _recipe(self) -> str:
        return self._settings.recipe(model.digest(self._settings.model))

    def recipe_of(self, job: Job) -> str:
        """Return a digest of everything that determines the job's output, except its source."""
        video = self._video_recipe if is_video(job.source) else ""
        return self._recipe + self._guidance.digest(job).hex() + video

    def kept(self, files: LocalFiles) -> State | None:
        """Return the state of the job's output if it can be left as it is, or None if it must be made.

        Raises:
            ReadError: The store of the output cannot be read.
        """
        if self._settings.overwrite or files.destination == STREAM:
            return None
        state = self.state(files)
        return state if state in (State.CURRENT, State.FOREIGN) else None

    def state(self, files: LocalFiles) -> State:
        """Return the state of the job's output."""
        if (manifest := self._manifest_of(files)) is not None:
            return manifest.state(files, self.recipe_of(files.job))
        try:
            return State.FOREIGN if files.destination.is_file() else State.ABSENT
        except OSError:  # writing will report the error
            return State.ABSENT

    def loses_hints(self, files: LocalFiles) -> bool:
        """Return True if the output was made with hints, and the run has none for its source.

        Raises:
            ReadError: The store of the output cannot be read.
        """
        if files.job in self._guidance.hints or is_video(files.job.source):
            return False
        digests = [recipe[len(self._recipe) :] for recipe in self._made_by(files)]
        return any(Guidance.had_hints(bytes.fromhex(digest)) for digest in digests)

    def _made_by(self, files: LocalFiles) -> list[str]:
        """Return the recipe in the record of the output; in a store, in all that may be of it."""
        return [] if self._manifest is None else self._manifest.recipes(files)

    def earlier(self, files: LocalFiles) -> Location | None:
        """Return an output of the same source that an earlier version made under another name, if any."""
        if self._root is None or self._manifest is None:  # the user chose the name of a single output
            return None
        name = self._manifest.earlier(files)
        return None if name is None else self._root / name

    def write(
        self, files: LocalFiles, source: SourceFingerprint | None, format_: str, pages: Iterable[Page]
    ) -> None:
        """Encode and write an output, and record in the manifest how it was made.

        Args:
            files: The files of the job. The destination may be standard output.
            source: Fingerprint of the source as it was read; None to add no record.
            format_: Pillow's name of the format; used for standard output only.
            pages: Each page or frame with its colors.

        Raises:
            WriteError: The output cannot be written.
        """
        if files.destination == STREAM:
            file = io.BytesIO()
            writer.encode(file, format_, pages, self._settings.quality)
            stdio.write_stdout(file.getvalue())
            return
        self.make_folder(files)
        writer.write(files.destination, pages, self._settings.quality, self.recorder(files, source))

    def copy(self, files: LocalFiles, source: SourceFingerprint | None, content: Path | bytes) -> None:
        """Write the source unchanged as the output, and record that in the manifest.

        Args:
            files: The files of the job. The destination may be standard output.
            source: Fingerprint of the source as it was read; None to add no record.
            content: The source's path or its bytes.

        Raises:
            ReadError: The source cannot be read.
            WriteError: The output cannot be written.
        """
        with reader.explained():
            data = content if isinstance(content, bytes) else content.read_bytes()
        if files.destination == STREAM:
            stdio.write_stdout(data)
        else:
            self.make_folder(files)
            writer.write_content(files.destination, data, self.recorder(files, source))

    def make_root(self) -> None:
        """Create the output directory if it does not exist.

        Raises:
            UsageError: It cannot be created.
        """
        if self._root is not None:
            make_directory(self._root)

    def make_folder(self, files: LocalFiles) -> None:
        """Create the folder of a job's output, but never the output directory itself.

        If the output directory was moved during the run, creating it again would split the outputs between
        two directories.

        Raises:
            WriteError: The output directory has disappeared, the folder cannot be created, or it lies outside
                of the output directory now.
        """
        folder, root = files.destination.parent, self._root
        try:
            if root is None:
                folder.mkdir(parents=True, exist_ok=True)
            elif not folder.is_dir():
                below = folder.relative_to(root)
                for made in (*reversed(below.parents), below)[1:]:
                    self._check_inside(root / made.parent)
                    (root / made).mkdir(exist_ok=True)
        except OSError as error:
            raise WriteError(f"cannot write {files.destination}: {error.strerror or error}") from error
        if root is not None and not root.is_dir():
            raise WriteError(f"the output directory {root} has disappeared during the run")
        self._check_inside(folder)

    def _check_inside(self, folder: Path) -> None:
        """Raise WriteError if a directory lies outside of the output directory, by a link made in mid-run."""
        root, real = self._real_root, os.path.realpath(folder)
        if root is not None and os.path.commonpath((root, real)) != root:
            raise WriteError(f"{folder} was exchanged during the run, and is now {real}")

    def recorder(self, files: LocalFiles, source: SourceFingerprint | None) -> Recorder:
        """Return a function that records the job's output in the manifest.

        It takes the `stat` result of the finished file and must be called just before the file is renamed to
        its final name. It adds no record if there is no manifest or `source` is None. It raises WriteError if
        the record cannot be written, the folder lies outside of the output directory now, or the output's
        name leads to the source, as on a file system that folds names.
        """
        manifest = self._manifest_of(files)

        def record(status: os.stat_result) -> None:
            self._check_inside(files.destination.parent)
            with contextlib.suppress(OSError):  # there is no output yet
                replaced = files.destination.lstat()
                if replaced.st_nlink == 1 and os.path.samestat(replaced, files.source.stat()):
                    raise WriteError(f"{files.destination} is the input {files.source} itself")
            if manifest is not None and source is not None:
                manifest.add(files, source, Fingerprint.of(status), self.recipe_of(files.job))

        return record

    def source_of(self, files: LocalFiles) -> SourceFingerprint | None:
        """Return the source's fingerprint for the manifest, or None if there is no manifest.

        Raises:
            ReadError: The source cannot be read.
        """
        if self._manifest_of(files) is None:
            return None
        with reader.explained():
            return source_of(files)

    def settle(self, files: LocalFiles) -> None:
        """Do nothing: the state of an output on this machine is known."""

    def put(self, files: LocalFiles) -> None:
        """Do nothing: the output has its final name already."""

    def close(self) -> None:
        """Close the manifest."""
        if self._manifest is not None:
            self._manifest.close()


def make_directory(path: Path) -> None:
    """Create a directory for outputs, with its parents, if it does not exist.

    Raises:
        UsageError: It cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot create the output directory {path}: {error.strerror}") from error
