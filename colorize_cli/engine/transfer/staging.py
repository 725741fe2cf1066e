"""The staging directory: holds fetched copies of remote objects, and their outputs until they are uploaded.

It lies in the system's directory for temporary files (TMPDIR), and only its user can read it. It is removed
at the end of the run. If the run was killed, the next run removes it.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from colorize_cli.core.errors import UsageError
from colorize_cli.storage import atomic

# Differs from the prefix of other temporary files, which `atomic.sweep` removes as files.
_PREFIX = "staged"


@contextlib.contextmanager
def directory() -> Iterator[Path]:
    """Create a staging directory that exists as long as the block lasts.

    Raises:
        UsageError: The directory cannot be created.
    """
    with contextlib.ExitStack() as stack:
        try:
            path = stack.enter_context(atomic.directory(Path(tempfile.gettempdir()), ".d", _PREFIX))
        except OSError as error:
            raise UsageError(
                f"cannot create {error.filename}: {error.strerror}; set TMPDIR to a writable directory"
            ) from error
        yield path
