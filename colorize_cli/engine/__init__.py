"""The engines that run the jobs of a plan: one file or one folder each, and one row in `ENGINES`.

An engine takes a plan and settings and yields one `Outcome` per job, in the order in which jobs end. It calls
`announce` with lines for the user, such as the chosen device, and `progress` with the position in a video.
Closing the returned generator stops the run cleanly.
"""

from collections.abc import Callable, Generator
from typing import Protocol

from colorize_cli.core.errors import UsageError
from colorize_cli.core.jobs import Outcome, Plan, Progress
from colorize_cli.core.settings import Settings
from colorize_cli.engine import session

__all__ = ["ENGINES", "Engine"]


class Engine(Protocol):
    """A function that runs the jobs of a plan, as the module docstring describes."""

    def __call__(
        self, plan: Plan, settings: Settings, announce: Callable[[str], None], progress: Progress = ...
    ) -> Generator[Outcome, None, None]:
        """Run the jobs of `plan` and yield their outcomes as they end."""


def _ray(
    plan: Plan,
    settings: Settings,
    announce: Callable[[str], None],
    progress: Progress = lambda _: None,
) -> Generator[Outcome, None, None]:
    """Run `cluster.run`, importing Ray only when this engine is used."""
    try:
        from colorize_cli.engine import cluster
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise UsageError("--engine ray needs Ray: pip install 'colorize-cli[ray]'") from error
    yield from cluster.run(plan, settings, announce, progress)


ENGINES: dict[str, Engine] = {
    "local": session.run,
    "ray": _ray,
}
