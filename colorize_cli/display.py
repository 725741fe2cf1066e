"""Outcomes to people: a progress bar on a terminal, plain lines elsewhere; all of it on stderr."""

from collections import Counter
from collections.abc import Iterable

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

from colorize_cli.jobs import Outcome, Status


def printable(text: object) -> str:
    """Text that is safe to print on one line: control characters and undecodable bytes are written out."""

    def escaped(character: str) -> str:
        if character.isprintable():
            return character
        return character.encode("unicode_escape", "surrogatepass").decode("ascii")

    return "".join(map(escaped, str(text)))


class Display:
    """What a run says while it runs, and at its end."""

    def __init__(self, total: int, *, quiet: bool, console: Console | None = None) -> None:
        """Prepares to show `total` outcomes; with `quiet`, only failures are shown."""
        self._total = total
        self._quiet = quiet
        self._console = console or Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
        self.counts: Counter[Status] = Counter()

    def say(self, line: str) -> None:
        """Prints one line, unless quiet."""
        if not self._quiet:
            self._print(line)

    def show(self, outcomes: Iterable[Outcome]) -> None:
        """Shows outcomes as they come, and counts them."""
        if self._quiet or not self._console.is_terminal or self._console.is_dumb_terminal:
            for outcome in outcomes:
                self._count(outcome)
                if outcome.status is Status.DONE:
                    self.say(f"{outcome.job.source} -> {outcome.job.destination}")
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task("colouring", total=self._total)
            for outcome in outcomes:
                self._count(outcome)
                progress.advance(task)

    def summarise(self, *, interrupted: bool = False) -> None:
        """Prints how many jobs ended how."""
        done, skipped, failed = (self.counts[status] for status in Status)
        line = f"{done} done, {skipped} skipped (output exists), {failed} failed"
        left = self._total - self.counts.total()
        self.say(f"interrupted: {line}, {left} left" if interrupted else line)

    def _count(self, outcome: Outcome) -> None:
        self.counts[outcome.status] += 1
        if outcome.status is Status.FAILED:
            self._print(f"{outcome.job.source}: {outcome.reason}", style="red")

    def _print(self, line: str, style: str = "") -> None:
        self._console.print(Text(printable(line), style=style))


class _Rate(ProgressColumn):
    """Files per second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f} files/s")
