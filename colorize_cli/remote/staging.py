"""The directory on this machine in which objects are worked on: fetched copies, and what becomes of them.

It lies where the system has temporary files (TMPDIR), can be read by its user alone, and is removed at the
end of the run; that of a run that was killed, by the next one.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from colorize_cli.errors import UsageError
from colorize_cli.media import atomic

# Not how other temporary files begin, which are swept as files.
_PREFIX = "staged"


@contextlib.contextmanager
def directory() -> Iterator[Path]:
    """A new directory, for as long as the block lasts.

    Raises:
        UsageError: It cannot be made.
    """
    parent = Path(tempfile.gettempdir())
    _sweep(parent)
    name = atomic.claim(".d")
    path = parent / f"{_PREFIX}{name}"
    try:
        path.mkdir(mode=0o700)
    except OSError as error:
        raise UsageError(f"cannot make {path}: {error.strerror}") from error
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        atomic.release(name)


def _sweep(parent: Path) -> None:
    """Removes what runs of this user that were killed on this host have left."""
    for path in parent.glob(f"{_PREFIX}.colorize-*"):
        with contextlib.suppress(OSError):
            own = not hasattr(os, "getuid") or path.lstat().st_uid == os.getuid()
            if own and not path.is_symlink() and atomic.is_left_over(path.name.removeprefix(_PREFIX)):
                shutil.rmtree(path, ignore_errors=True)
