"""Report outcomes to people and programs.

People get a progress bar on a terminal and plain lines elsewhere, on stderr. Programs get JSON lines on
stdout, one object for each outcome, and before these one for each directory in which something is left out,
not counted in the summary. OPERATIONS.md describes the fields.
"""

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, TextIO

import click

from colorize_cli.core.errors import printable
from colorize_cli.core.jobs import Outcome, Position, Status
from colorize_cli.core.location import Location

if TYPE_CHECKING:
    from rich.console import Console

    from colorize_cli.cli.progress_bar import Bar


def to_json(outcome: Outcome, status: str | None = None) -> str:
    """Return an outcome as JSON without a line break. OPERATIONS.md describes the fields.

    Args:
        outcome: The outcome.
        status: Given in place of the status of the outcome.
    """
    return json.dumps(
        {
            "source": str(outcome.job.source),
            "destination": str(outcome.job.destination),
            "status": status or outcome.status.value,
            "reason": outcome.reason,
            "seconds": {stage: round(seconds, 6) for stage, seconds in outcome.seconds.items()},
            "device": outcome.device,
            "batch": outcome.batch,
            "frames": outcome.frames,
            "cuts": outcome.cuts,
            "size": outcome.size,
            "ignored": outcome.ignored,
            "notes": outcome.notes,
        }
    )


class Display:
    """The messages and progress of a run, and its summary."""

    def __init__(
        self, total: int, *, quiet: bool, json_lines: TextIO | None = None, console: "Console | None" = None
    ) -> None:
        """Prepare to show `total` outcomes. With `quiet`, only failures are printed on stderr."""
        self._console = console
        forced = not {"FORCE_COLOR", "TTY_COMPATIBLE"}.isdisjoint(os.environ)  # rich obeys these too
        if console is None and (forced or (sys.stderr is not None and sys.stderr.isatty())):
            from rich.console import Console

            self._console = Console(stderr=True)
        self._total = total
        self._quiet = quiet
        self._json_lines = json_lines
        self.counts: Counter[Status] = Counter()
        self._reasons: Counter[str] = Counter()
        self._bar: Bar | None = None
        self._showing: Location | None = None
        self._begun = (0.0, 0)
        self._position: Position | None = None  # in a video that is under way

    def say(self, line: str) -> None:
        """Print one line, unless quiet."""
        if not self._quiet:
            self._print(line)

    def leave_out(self, outcome: Outcome) -> None:
        """Report a directory in which something is left out, without counting it."""
        self.say(f"{outcome.job.source}: {outcome.reason}")
        if self._json_lines is not None:
            print(to_json(outcome), file=self._json_lines, flush=True)

    def show(self, outcomes: Iterable[Outcome]) -> None:
        """Show outcomes as they arrive, and count them."""
        console = self._console
        if self._quiet or console is None or not console.is_terminal or console.is_dumb_terminal:
            for outcome in outcomes:
                self._count(outcome)
                if outcome.status is Status.DONE and self._json_lines is None:
                    self.say(f"{outcome.job.source} -> {outcome.job.destination}")
            return
        from colorize_cli.cli.progress_bar import Bar

        with Bar(console, self._total) as bar:
            self._bar = bar
            for outcome in outcomes:
                self._count(outcome)
                bar.advance()
            self._bar = None

    def video(self, position: Position) -> None:
        """Show the position in a video in the progress bar, with speed and time left."""
        self._position = position
        if self._bar is None:
            return
        if position.path != self._showing:
            self._showing, self._begun = position.path, (time.monotonic(), position.frames)
        seconds = time.monotonic() - self._begun[0]
        rate = (position.frames - self._begun[1]) / seconds if seconds > 1 else 0
        speed = f", {rate / position.rate:.2f} x real time" if rate else ""
        name = printable(position.path.name)
        if self._total == 1:
            self._bar.describe(f"{name}{speed}")
            self._bar.count_frames(position.frames, position.expected)
            return
        of, left = "", ""
        if position.expected:
            of = f" of about {position.expected}"
            if rate:
                remaining = max(0, position.expected - position.frames) / rate
                left = f", {timedelta(seconds=round(remaining))} left"
        self._bar.describe(f"{name}: frame {position.frames}{of}{speed}{left}")

    def summarize(self, stopped: str | None = None) -> None:
        """Print the number of jobs by status.

        If `stopped` names a cause, print the number of jobs left, and how much of a video is kept, too.
        """
        done, failed = self.counts[Status.DONE], self.counts[Status.FAILED]
        reasons = ", ".join(f"{count} {reason}" for reason, count in self._reasons.most_common())
        why = f" ({reasons})" if reasons else ""
        line = f"{done} done, {self.counts[Status.SKIPPED]} skipped{why}, {failed} failed"
        left = self._total - self.counts.total()
        self.say(f"{stopped}: {line}, {left} left" if stopped else line)
        if stopped and left:
            kept = ""
            if (position := self._position) is not None and position.kept:
                kept = f"{position.kept} colored frames of {position.path} are kept; "
            self.say(f"{kept}the same command does the rest")

    def _count(self, outcome: Outcome) -> None:
        self.counts[outcome.status] += 1
        self._position = None
        if self._json_lines is not None:
            print(to_json(outcome), file=self._json_lines, flush=True)
        for note in outcome.notes:
            self.say(f"{outcome.job.source}: {note}")
        if outcome.status is Status.SKIPPED:
            self._reasons[outcome.reason or "not needed"] += 1
        if outcome.status is Status.FAILED:
            self._print(f"{outcome.job.source}: {outcome.reason}", bad=True)

    def _print(self, line: str, *, bad: bool = False) -> None:
        if self._console is None:
            click.echo(printable(line), err=True)
        else:
            self._console.print(
                printable(line),
                style="red" if bad else None,
                markup=False,
                emoji=False,
                highlight=False,
                soft_wrap=True,
            )
