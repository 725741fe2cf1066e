"""The ways to run many jobs: one file, or one folder of files, and one row each.

An engine takes a plan and settings, yields one `Outcome` per job as they end, hands `announce` the lines that
its user should know, such as the device chosen, and `progress` how far a film is. Closing what it returns
stops it cleanly.
"""

from collections.abc import Callable, Generator
from typing import Protocol

from colorize_cli.core.errors import UsageError
from colorize_cli.core.jobs import Outcome, Plan, Progress
from colorize_cli.core.settings import Settings
from colorize_cli.engine import local

__all__ = ["ENGINES", "Engine"]


class Engine(Protocol):
    """See above."""

    def __call__(
        self, plan: Plan, settings: Settings, announce: Callable[[str], None], progress: Progress = ...
    ) -> Generator[Outcome, None, None]:
        """Runs the plan's jobs."""


def _ray(
    plan: Plan,
    settings: Settings,
    announce: Callable[[str], None],
    progress: Progress = lambda _: None,
) -> Generator[Outcome, None, None]:
    """As `cluster.run`, which is loaded where it is wanted."""
    try:
        from colorize_cli.engine import cluster
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise UsageError("--engine ray needs Ray: pip install 'colorize-cli[ray]'") from error
    yield from cluster.run(plan, settings, announce, progress)


ENGINES: dict[str, Engine] = {
    "local": local.run,
    "ray": _ray,
}
