"""A bar on a terminal, by rich, which takes as long to load as numpy and is not needed elsewhere."""

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

_DESCRIPTION = "colouring"


class Screen:
    """A terminal."""

    def __init__(self, console: Console | None = None) -> None:
        """Takes a console; None for one on stderr that shows lines as they are."""
        self._console = console or Console(stderr=True, soft_wrap=True, highlight=False, markup=False)

    def print(self, line: str, *, bad: bool = False) -> None:
        """Prints a line, above the bar if there is one."""
        self._console.print(Text(line, style="red" if bad else ""))

    def bar(self, total: int) -> "Bar | None":
        """A bar for so many; None where lines can't be drawn anew."""
        console = self._console
        return Bar(console, total) if console.is_terminal and not console.is_dumb_terminal else None


class Bar:
    """How many of `total` are done, how fast, and for how long it will go on; while it is entered."""

    def __init__(self, console: Console, total: int) -> None:
        """Prepares it."""
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
        """What is written before it."""
        return self._progress.tasks[self._task].description

    def advance(self) -> None:
        """One more is done."""
        self._progress.update(self._task, advance=1, description=_DESCRIPTION)

    def describe(self, what: str) -> None:
        """Says what is being done, until the next is."""
        self._progress.update(self._task, description=what)

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
