import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from colorize_cli.cli.progress import Display
from colorize_cli.core.errors import printable
from colorize_cli.core.jobs import Job, Outcome, Position, Status

JOB = Job(Path("[bold]a[/].jpg"), Path("out/[bold]a[/].jpg"))
OUTCOMES = [
    Outcome(JOB, Status.DONE),
    Outcome(JOB, Status.SKIPPED, "up to date"),
    Outcome(Job(Path("line\nbreak\x1b[31m.jpg"), Path("o")), Status.FAILED, "it is [red]empty"),
]


def shown(*, quiet: bool, terminal: bool) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=40)
    display = Display(len(OUTCOMES), quiet=quiet, console=console)
    display.show(OUTCOMES)
    display.summarize()
    assert [display.counts[status] for status in Status] == [1, 1, 1]
    return file.getvalue()


def test_display_without_terminal_prints_plain_lines():
    assert shown(quiet=False, terminal=False).splitlines() == [
        "[bold]a[/].jpg -> out/[bold]a[/].jpg",
        "line\\nbreak\\x1b[31m.jpg: it is [red]empty",
        "1 done, 1 skipped (1 up to date), 1 failed",
    ]


def test_display_in_quiet_mode_prints_failures_only():
    assert shown(quiet=True, terminal=False).splitlines() == ["line\\nbreak\\x1b[31m.jpg: it is [red]empty"]


def test_display_without_terminal_does_not_load_rich():
    code = (
        "import sys; from pathlib import Path; from colorize_cli.cli.progress import Display;"
        "from colorize_cli.core.jobs import Job, Outcome, Status;"
        "display = Display(1, quiet=False);"
        "display.show([Outcome(Job(Path('a\\n.jpg'), Path('b')), Status.FAILED, 'empty')]);"
        "display.summarize(); sys.exit('rich' in sys.modules)"
    )
    for color, loaded in (("", 0), ("1", 1)):
        environment = {**os.environ, "FORCE_COLOR": color, "NO_COLOR": "1"}
        if not color:
            del environment["FORCE_COLOR"]
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
        assert (done.returncode, done.stdout) == (loaded, "")
        assert "a\\n.jpg: empty\n" in done.stderr
        assert "0 done, 0 skipped, 1 failed" in done.stderr


def test_display_on_a_terminal_shows_a_bar_and_failures():
    text = shown(quiet=False, terminal=True)
    assert "3/3" in text
    assert "it is [red]empty" in text
    assert "line\\nbreak" in text


def test_display_of_a_video_shows_speed_and_remaining_time(monkeypatch):
    file, now = io.StringIO(), iter([10.0, 10.0, 15.0])
    clock = SimpleNamespace(monotonic=lambda: next(now))
    monkeypatch.setattr("colorize_cli.cli.progress.time", clock)
    display = Display(2, quiet=False, console=Console(file=file, force_terminal=True, width=200))

    def outcomes():
        display.video(Position(Path("a.mp4"), 100, 1000, 25.0))
        display.video(Position(Path("a.mp4"), 350, 1000, 25.0))
        shown_lines.append(display._bar.description)
        yield OUTCOMES[0]

    shown_lines = []
    display.show(outcomes())
    assert shown_lines == ["a.mp4: frame 350 of about 1000, 2.00 x real time, 0:00:13 left"]


def test_display_of_a_single_video_counts_frames():
    file = io.StringIO()
    display = Display(1, quiet=False, console=Console(file=file, force_terminal=True, width=200))

    def outcomes():
        display.video(Position(Path("a.mp4"), 350, 1000, 25.0, 250))
        yield OUTCOMES[0]

    display.show(outcomes())
    assert "a.mp4" in file.getvalue()
    assert "350/1000" in file.getvalue()


def test_summary_of_a_stopped_video_says_what_is_kept(capsys):
    display = Display(2, quiet=False)
    display.video(Position(Path("a.mp4"), 350, 1000, 25.0, 250))
    display.summarize("interrupted")
    assert capsys.readouterr().err.splitlines() == [
        "interrupted: 0 done, 0 skipped, 0 failed, 2 left",
        "250 colored frames of a.mp4 are kept; the same command does the rest",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain ä 写", "plain ä 写"),
        ("tab\t", "tab\\t"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\udcff", "\\udcff"),
        ("\u202e", "\\u202e"),
    ],
)
def test_printable_escapes_control_characters(text, expected):
    assert printable(text) == expected


def test_bar_shows_the_name_of_a_video_as_it_is():
    """Brackets are markup for rich."""
    file = io.StringIO()
    display = Display(1, quiet=False, console=Console(file=file, force_terminal=True, width=120))

    def outcomes():
        display.video(Position(Path("[bold]a[red].mkv"), 1, 2, 25.0))
        display._bar._progress.refresh()
        yield Outcome(JOB, Status.DONE)

    display.show(outcomes())
    assert "[bold]a[red].mkv" in file.getvalue()
