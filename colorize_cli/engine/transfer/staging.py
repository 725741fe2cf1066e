"""The directory on this machine in which objects are worked on: fetched copies, and what becomes of them.

It lies where the system has temporary files (TMPDIR), can be read by its user alone, and is removed at the
end of the run; that of a run that was killed, by the next one.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from colorize_cli.core.errors import UsageError
from colorize_cli.storage import atomic

# Not how other temporary files begin, which are swept as files.
_PREFIX = "staged"


@contextlib.contextmanager
def directory() -> Iterator[Path]:
    """A new directory, for as long as the block lasts.

    Raises:
        UsageError: It cannot be made.
    """
    with contextlib.ExitStack() as stack:
        try:
            path = stack.enter_context(atomic.directory(Path(tempfile.gettempdir()), ".d", _PREFIX))
        except OSError as error:
            raise UsageError(f"cannot make {error.filename}: {error.strerror}") from error
        yield path
