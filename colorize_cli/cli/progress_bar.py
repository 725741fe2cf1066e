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
    """A bar with the number of completed files or frames, the rate and the time left, inside `with`."""

    def __init__(self, console: Console, total: int) -> None:
        """Prepare a bar for `total` files."""
        columns = (
            TextColumn("{task.description}", markup=False),  # it has names of files
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
        )
        self._is_of_frames = False
        self._progress = Progress(*columns, console=console, transient=True)
        self._task = self._progress.add_task(_DESCRIPTION, total=total, unit="files")

    @property
    def description(self) -> str:
        """The text to the left of the bar."""
        return self._progress.tasks[self._task].description

    def advance(self) -> None:
        """Count one more file as done."""
        if not self._is_of_frames:
            self._progress.update(self._task, advance=1, description=_DESCRIPTION)

    def describe(self, text: str) -> None:
        """Show `text` to the left of the bar until the next `advance`."""
        self._progress.update(self._task, description=text)

    def count_frames(self, done: int, expected: int | None) -> None:
        """Show a number of frames in place of files, for a run on a single video."""
        self._is_of_frames = True
        self._progress.update(self._task, completed=done, total=expected, unit="frames")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


class _Rate(ProgressColumn):
    """Files or frames per second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f} {task.fields['unit']}/s")
