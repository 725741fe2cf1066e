"""The outputs of a run: what is there already, and the notes on what is made."""

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


class Skip(Exception):  # noqa: N818 - it is no error
    """There is no need to colour a picture after all; the text says why."""


class Outputs:
    """What is there already, and the notes on what is made."""

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
                root, self._recipe, self._own_recipe, origins=origins, read_only=read_only
            )

    @functools.cached_property
    def _recipe(self) -> str:
        return self._settings.recipe(model.digest(self._settings.model))

    def recipe_of(self, job: Job) -> str:
        """A digest of all but the source that decides what the job's output is."""
        return self._recipe + self._own_recipe(job)

    def _own_recipe(self, job: Job) -> str:
        video = self._video_recipe if is_video(job.source) else ""
        return self._guidance.digest(job).hex() + video

    def reason_to_skip(self, job: Job) -> str | None:
        """Why the job's output can stay as it is; None if it is to be made."""
        if self._settings.overwrite or job.destination == STREAM:
            return None
        if self._manifest is None:
            return State.FOREIGN.value if _exists(job.destination) else None
        state = self._manifest.state(job)
        return state.value if state in (State.CURRENT, State.FOREIGN) else None

    def write(self, job: Job, source: SourceFingerprint | None, format_: str, pages: Iterable[Page]) -> None:
        """Writes an output, and a note of how it was made."""
        if job.destination == STREAM:
            file = io.BytesIO()
            writer.encode(file, format_, pages, self._settings.quality)
            stdio.write_stdout(file.getvalue())
            return
        self.make_folder(job)
        writer.write(job.destination, pages, self._settings.quality, self.note(job, source))

    def copy(self, job: Job, source: SourceFingerprint | None, content: Path | bytes) -> None:
        """Writes a source as it is, and a note of that."""
        with reader.explained():
            data = content if isinstance(content, bytes) else content.read_bytes()
        if job.destination == STREAM:
            stdio.write_stdout(data)
        else:
            self.make_folder(job)
            writer.write_content(job.destination, data, self.note(job, source))

    def make_root(self) -> None:
        """Makes the output directory, where there is none."""
        if self._root is not None:
            make_directory(self._root)

    def make_folder(self, job: Job) -> None:
        """Makes the folder that an output lies in, but never the output directory itself.

        Where that was moved away, making it anew would put some outputs here, some there.

        Raises:
            WriteError: It has disappeared, or the folder cannot be made.
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
            raise WriteError(f"the output {root} has disappeared")

    def note(self, job: Job, source: SourceFingerprint | None) -> Callable[[os.stat_result], None]:
        """What is to be called with the status of an output, just before it gets its name."""
        manifest = self._manifest

        def note(status: os.stat_result) -> None:
            if manifest is not None and source is not None:
                manifest.add(job, source, Fingerprint.of(status))

        return note

    def source_of(self, job: Job) -> SourceFingerprint | None:
        """What there is to note of a source before it is read."""
        if self._manifest is None:
            return None
        with reader.explained():
            return self._manifest.source_of(job)

    def close(self) -> None:
        """Ends the notes."""
        if self._manifest is not None:
            self._manifest.close()


def make_directory(path: Path) -> None:
    """Makes a directory for outputs, where there is none.

    Raises:
        UsageError: It cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the output {path}: {error.strerror}") from error


def _exists(destination: Path) -> bool:
    try:
        return destination.is_file()
    except OSError:  # the writing will say what is wrong with it
        return False
