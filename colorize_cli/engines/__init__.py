"""The ways to run many jobs: one file and one row each.

An engine takes a plan and settings, yields one `Outcome` per job as they end, and hands `announce` the lines
that its user should know, such as the device chosen. Closing what it returns stops it cleanly.
"""

from collections.abc import Callable, Generator

from colorize_cli.engines import local
from colorize_cli.jobs import Outcome, Plan, Settings

__all__ = ["ENGINES", "Engine"]

Engine = Callable[[Plan, Settings, Callable[[str], None]], Generator[Outcome, None, None]]

ENGINES: dict[str, Engine] = {
    "local": local.run,
}
