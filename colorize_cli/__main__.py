"""Start the command `colorize` as a process, with the settings that must precede all imports."""

import _signal  # type: ignore[import-not-found]  # the part of `signal` that takes no time to import
import gc
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def settle() -> None:
    """Keep OpenBLAS from starting threads, which would busy-wait, and disable garbage collection."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    gc.disable()  # until `process_setup.prepare`


def main() -> "NoReturn":
    """Run the command `colorize` and end the process."""
    for number in (_signal.SIGINT, _signal.SIGTERM):
        if _signal.getsignal(number) != _signal.SIG_IGN:
            _signal.signal(number, lambda *_: os._exit(130))  # until `interrupt.install`
    settle()
    from colorize_cli.core import interrupt

    interrupt.install()
    from colorize_cli import cli

    try:
        cli.main()
    except SystemExit as ended:
        interrupt.leave(ended.code)
    except Exception as error:  # a defect, or a machine without memory
        from colorize_cli.core.errors import EXIT_FAILED, printable, reason_of

        if not interrupt.happened():
            os.write(2, f"colorize: {printable(reason_of(error))}\n".encode())
        interrupt.leave(EXIT_FAILED)


if __name__ == "__main__":
    main()
