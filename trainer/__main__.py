"""Start the command `colorize-train` as a process."""

import sys
from typing import NoReturn

from colorize_cli.cli.options import exit_on_error
from colorize_cli.core.errors import ColorizeError
from trainer import cli

_OURS = ("colorize_cli", "trainer")


def main() -> NoReturn:
    """Run the command that the arguments of the process name, and end the process."""
    with exit_on_error(sys.exit, "colorize-train"):
        try:
            sys.exit(cli.main(prog_name="colorize-train", standalone_mode=False))
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] in _OURS:
                raise
            raise ColorizeError(
                f"{error.name} is not installed; install what training needs with:"
                " pip install 'colorize-cli[train]'"
            ) from error
    raise AssertionError("the block above ends the process")


if __name__ == "__main__":
    main()
