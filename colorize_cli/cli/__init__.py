"""The command line: what a user types and sees."""

import logging
import os
import signal
import sys
import warnings
from typing import NoReturn

from colorize_cli.cli import compare
from colorize_cli.cli.run import command

# After `models` these list models; a folder of that name is coloured as any other.
_LISTING = ("--json", "--help", "-h")


def main() -> NoReturn:
    """The entry point: as `command`, for a process of its own."""
    _protect_stdout()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Pillow warns of oddities in pictures that it reads all the same; what it cannot read it raises.
    warnings.simplefilter("ignore")
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    if sys.argv[1:] == ["models"] or (sys.argv[1:2] == ["models"] and sys.argv[2] in _LISTING):
        from colorize_cli.cli import models

        models.command(sys.argv[2:], prog_name="colorize models")
    if compare.is_meant(sys.argv[1:]):
        compare.command(sys.argv[2:], prog_name="colorize compare")
    command(prog_name="colorize")
    raise AssertionError("click ends the process")


def _protect_stdout() -> None:
    """Keeps stdout for data the user asked for: what native libraries print goes to stderr."""
    if sys.stdout is None:  # closed by whoever started this: there is nothing to protect
        return
    sys.stdout.flush()
    data = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(data, "w", encoding=sys.stdout.encoding, errors="surrogateescape")
