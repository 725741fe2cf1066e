"""A progress bar by rich. A separate module: rich takes as long to import as numpy."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

_DESCRIPTION = "colorizing"


class Bar:
    """A bar with the number of completed files, the rate and the time left. Shown inside `with`."""

    def __init__(self, console: Console, total: int) -> None:
        """Prepare a bar for `total` files."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=console, transient=True)
        self._task = self._progress.add_task(_DESCRIPTION, total=total)

    @property
    def description(self) -> str:
        """The text to the left of the bar."""
        return self._progress.tasks[self._task].description

    def advance(self) -> None:
        """Count one more file as done."""
        self._progress.update(self._task, advance=1, description=_DESCRIPTION)

    def describe(self, text: str) -> None:
        """Show `text` to the left of the bar until the next `advance`."""
        self._progress.update(self._task, description=text)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


class _Rate(ProgressColumn):
    """Files per second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f} files/s")
