"""The command `colorize`, as a process: what has to be settled before its modules are loaded."""

import gc
import os
from typing import NoReturn


def settle() -> None:
    """Settles it."""
    # Its threads would wait for work by spinning, which is none here (see `process`).
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    gc.disable()  # until there is something to be collected


def main() -> NoReturn:
    """The entry point."""
    settle()
    from colorize_cli import cli

    cli.main()


if __name__ == "__main__":
    main()
