"""The command line: arguments, messages and progress."""

import logging
import os
import signal
import sys
import warnings
from typing import NoReturn

from colorize_cli.cli import compare
from colorize_cli.cli.run import command

# `models` is a command only if it stands alone or before one of these. Otherwise it is a folder to colorize.
_LISTING = ("--json", "--help", "-h")


def main() -> NoReturn:
    """Run the command that the arguments of the process name, and end the process."""
    _protect_stdout()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Pillow warns about unusual pictures that it can read. It raises an error if it cannot read one.
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
    """Reserve stdout for requested data: redirect the output of native libraries to stderr."""
    if sys.stdout is None:  # closed by the parent process
        return
    sys.stdout.flush()
    data = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(data, "w", encoding=sys.stdout.encoding, errors="surrogateescape")
