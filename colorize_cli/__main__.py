"""Start the command `colorize` as a process, with the settings that must precede all imports."""

import gc
import os
from typing import NoReturn


def settle() -> None:
    """Keep OpenBLAS from starting threads, which would busy-wait, and disable garbage collection."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    gc.disable()  # until `process_setup.prepare`


def main() -> NoReturn:
    """Run the command `colorize` and end the process."""
    from colorize_cli.core import interrupt

    interrupt.install()
    settle()
    from colorize_cli import cli

    try:
        cli.main()
    except SystemExit as ended:
        interrupt.leave(ended.code)


if __name__ == "__main__":
    main()
