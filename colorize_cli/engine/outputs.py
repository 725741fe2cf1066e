"""The outputs of a run: which of them exist already, how they are written, and their manifest records."""

import functools
import io
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from colorize_cli.core.errors import UsageError, WriteError
from colorize_cli.core.formats import is_video
from colorize_cli.core.jobs import Job
from colorize_cli.core.location import STREAM
from colorize_cli.core.settings import Settings
from colorize_cli.guidance import Guidance
from colorize_cli.image import reader, writer
from colorize_cli.image.frame import Page
from colorize_cli.inference import model
from colorize_cli.storage import stdio
from colorize_cli.storage.fingerprint import Fingerprint, SourceFingerprint
from colorize_cli.storage.manifest import State
from colorize_cli.storage.manifest_local import LocalManifest


class Skip(Exception):  # noqa: N818 - control flow, not an error
    """Raised when a job need not be done after all; the text is the reason."""


class Outputs:
    """The outputs below one directory, with the manifest that records how each was made."""

    def __init__(
        self,
        root: Path | None,
        settings: Settings,
        guidance: Guidance,
        *,
        origins: Mapping[Path, Fingerprint] | None = None,
        read_only: bool = False,
    ) -> None:
        self._settings = settings
        self._root = root
        self._manifest: LocalManifest | None = None
        self._video_recipe = settings.video.recipe()
        self._guidance = guidance
        if root is not None:
            self._manifest = LocalManifest(
                root, self._recipe, self._job_recipe, origins=origins, read_only=read_only
            )

    @functools.cached_property
    def _recipe(self) -> str:
        return self._settings.recipe(model.digest(self._settings.model))

    def recipe_of(self, job: Job) -> str:
        """Return a digest of everything that determines the job's output, except its source."""
        return self._recipe + self._job_recipe(job)

    def _job_recipe(self, job: Job) -> str:
        video = self._video_recipe if is_video(job.source) else ""
        return self._guidance.digest(job).hex() + video

    def reason_to_skip(self, job: Job) -> str | None:
        """Return why the job's output can be left as it is, or None if it must be made."""
        if self._settings.overwrite or job.destination == STREAM:
            return None
        if self._manifest is None:
            return State.FOREIGN.value if _exists(job.destination) else None
        state = self._manifest.state(job)
        return state.value if state in (State.CURRENT, State.FOREIGN) else None

    def write(self, job: Job, source: SourceFingerprint | None, format_: str, pages: Iterable[Page]) -> None:
        """Encode and write an output, and record in the manifest how it was made.

        Args:
            job: The job. Its destination may be standard output.
            source: Fingerprint of the source as it was read; None to add no record.
            format_: Pillow's name of the format; used for standard output only.
            pages: Each page or frame with its colors.

        Raises:
            WriteError: The output cannot be written.
        """
        if job.destination == STREAM:
            file = io.BytesIO()
            writer.encode(file, format_, pages, self._settings.quality)
            stdio.write_stdout(file.getvalue())
            return
        self.make_folder(job)
        writer.write(job.destination, pages, self._settings.quality, self.note(job, source))

    def copy(self, job: Job, source: SourceFingerprint | None, content: Path | bytes) -> None:
        """Write the source unchanged as the output, and record that in the manifest.

        Args:
            job: The job. Its destination may be standard output.
            source: Fingerprint of the source as it was read; None to add no record.
            content: The source's path or its bytes.

        Raises:
            ReadError: The source cannot be read.
            WriteError: The output cannot be written.
        """
        with reader.explained():
            data = content if isinstance(content, bytes) else content.read_bytes()
        if job.destination == STREAM:
            stdio.write_stdout(data)
        else:
            self.make_folder(job)
            writer.write_content(job.destination, data, self.note(job, source))

    def make_root(self) -> None:
        """Create the output directory if it does not exist.

        Raises:
            UsageError: It cannot be created.
        """
        if self._root is not None:
            make_directory(self._root)

    def make_folder(self, job: Job) -> None:
        """Create the folder of a job's output, but never the output directory itself.

        If the output directory was moved during the run, creating it again would split the outputs between
        two directories.

        Raises:
            WriteError: The output directory has disappeared, or the folder cannot be created.
        """
        folder, root = job.destination.parent, self._root
        try:
            if root is None:
                folder.mkdir(parents=True, exist_ok=True)
            elif not folder.is_dir():
                below = folder.relative_to(root)
                for made in (*reversed(below.parents), below)[1:]:
                    (root / made).mkdir(exist_ok=True)
        except OSError as error:
            raise WriteError(f"cannot write {job.destination}: {error.strerror or error}") from error
        if root is not None and not root.is_dir():
            raise WriteError(f"the output directory {root} has disappeared during the run")

    def note(self, job: Job, source: SourceFingerprint | None) -> Callable[[os.stat_result], None]:
        """Return a function that records the job's output in the manifest.

        It takes the `stat` result of the finished file and must be called just before the file is renamed to
        its final name. It does nothing if there is no manifest or `source` is None.
        """
        manifest = self._manifest

        def note(status: os.stat_result) -> None:
            if manifest is not None and source is not None:
                manifest.add(job, source, Fingerprint.of(status))

        return note

    def source_of(self, job: Job) -> SourceFingerprint | None:
        """Return the source's fingerprint for the manifest, or None if there is no manifest.

        Raises:
            ReadError: The source cannot be read.
        """
        if self._manifest is None:
            return None
        with reader.explained():
            return self._manifest.source_of(job)

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


def _exists(destination: Path) -> bool:
    try:
        return destination.is_file()
    except OSError:  # writing will report the error
        return False
