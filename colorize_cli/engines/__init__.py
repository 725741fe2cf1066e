"""The ways to run many jobs: one file and one row each.

An engine takes a plan and settings, yields one `Outcome` per job as they end, hands `announce` the lines that
its user should know, such as the device chosen, and `progress` how far a film is. Closing what it returns
stops it cleanly.
"""

from collections.abc import Callable, Generator
from typing import Protocol

from colorize_cli.engines import local
from colorize_cli.jobs import Outcome, Plan, Progress, Settings

__all__ = ["ENGINES", "Engine"]


class Engine(Protocol):
    """See above."""

    def __call__(
        self, plan: Plan, settings: Settings, announce: Callable[[str], None], progress: Progress = ...
    ) -> Generator[Outcome, None, None]:
        """Runs the plan's jobs."""


ENGINES: dict[str, Engine] = {
    "local": local.run,
}
