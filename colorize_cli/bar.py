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


def console() -> Console:
    """Of stderr, for lines as they are."""
    return Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


def has_bars(console: Console) -> bool:
    """Whether lines can be drawn anew there."""
    return console.is_terminal and not console.is_dumb_terminal


def print_line(console: Console, line: str, *, bad: bool = False) -> None:
    """Prints a line, above the bar if there is one."""
    console.print(Text(line, style="red" if bad else ""))


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
