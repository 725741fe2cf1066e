"""The command `colorize`, as a process: what has to be settled before its modules are loaded."""

import gc
import os
from typing import NoReturn


def settle() -> None:
    """No threads of OpenBLAS, which would spin while they wait for work, and for now no collector."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    gc.disable()  # `process_setup.prepare` has it back


def main() -> NoReturn:
    """The entry point."""
    settle()
    from colorize_cli import cli

    cli.main()


if __name__ == "__main__":
    main()
