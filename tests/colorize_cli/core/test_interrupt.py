"""Ends of processes by signals. Each process prints a line when it is ready for the signal."""

import signal
import subprocess
import sys

import pytest

from colorize_cli.core import interrupt

LATE = interrupt._LATE.decode()


def run(code: str, *numbers: int, ignored: bool = False) -> tuple[int, str, str]:
    """Run code, send signals when it has printed a line, and return its status and the rest of its output."""

    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.SIG_DFL)

    line = [sys.executable, "-c", f"import time\nfrom colorize_cli.core import interrupt\n{code}"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(line, text=True, preexec_fn=prepare, **pipes) as process:
        assert process.stdout.readline() == "ready\n"
        for number in numbers:
            process.send_signal(number)
        process.stdin.close()
        out, err = process.stdout.read(), process.stderr.read()
    return process.returncode, out, err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_before_there_is_work_ends_the_process_at_once(number):
    code = "interrupt.install(); print('ready', flush=True); time.sleep(30)"
    assert run(code, number) == (130, "", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_during_work_is_an_interrupt(number):
    code = """
interrupt.install()
try:
    with interrupt.graceful():
        print('ready', flush=True)
        time.sleep(30)
except KeyboardInterrupt:
    print('summary')
    interrupt.leave(130)
"""
    assert run(code, number) == (130, "summary\n", "")


def test_interrupt_that_becomes_another_error_ends_with_the_status_of_interrupts():
    """As an import of a native module does: it raises ImportError."""
    code = """
import sys
from colorize_cli import __main__
from colorize_cli.storage import discovery

def plan(*_, **__):
    with interrupt.graceful():
        try:
            print('ready', flush=True)
            time.sleep(30)
        except KeyboardInterrupt:
            raise ImportError('initialization failed') from None

discovery.plan = plan
sys.argv[1:] = ['in', 'out']
__main__.main()
"""
    assert run(code, signal.SIGINT) == (130, "", "")


HANGING = """
import os, sys, tempfile, threading
from pathlib import Path
from colorize_cli.storage import atomic

folder = Path(tempfile.mkdtemp())

def count():
    print(len(list(folder.iterdir())), file=sys.stderr, flush=True)

def again():
    time.sleep(0.5)
    os.kill(os.getpid(), 2)

interrupt.install()
interrupt.cleanups.append(count)
with interrupt.graceful({patience}), atomic.directory(folder, '.d'), atomic.writing(folder / 'a') as file:
    try:
        print('ready', flush=True)
        time.sleep(30)
    except KeyboardInterrupt:
        count()
        {more}
        time.sleep(30)
"""


def test_work_that_goes_on_after_a_signal_is_ended_and_cleaned_up():
    """As a long call of the network or of a store does."""
    code = HANGING.format(patience=0.2, more="")
    assert run(code, signal.SIGINT) == (130, "", f"2\n0\n{LATE}")


def test_second_signal_ends_the_process_at_once():
    code = HANGING.format(patience=30, more="threading.Thread(target=again).start()")
    assert run(code, signal.SIGINT) == (130, "", "2\n0\n")


def test_signal_that_the_parent_ignores_stays_ignored():
    code = "interrupt.install(); print('ready', flush=True); time.sleep(0.3); print('done')"
    assert run(code, signal.SIGINT, ignored=True) == (0, "done\n", "")


def test_leave_does_not_wait_for_threads():
    """Neither for those of pools, which Python joins, nor for daemons in native calls, which it breaks."""
    code = """
import threading
from concurrent.futures import ThreadPoolExecutor
ThreadPoolExecutor(1).submit(time.sleep, 30)
threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
print('ready', flush=True)
print('written', end='')
interrupt.leave(3)
"""
    assert run(code) == (3, "written", "")


@pytest.mark.parametrize(("status", "code"), [(None, 1), (0, 1), (2, 2)])
def test_leave_with_lost_output_is_no_success(status, code):
    code_ = "import sys\nprint('ready', flush=True)\nsys.stdout = open('/dev/full', 'w')\nprint('lost')\n"
    assert run(f"{code_}interrupt.leave({status})")[0] == code


def test_leave_with_a_message_is_left_to_python():
    with pytest.raises(SystemExit, match="a message"):
        interrupt.leave("a message")


def test_import_of_the_package_keeps_the_handlers_of_a_program():
    code = (
        "import signal; before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)\n"
        "import colorize_cli.api, colorize_cli.cli\n"
        "assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("error", "text"),
    [("RecursionError('a\\nb')", "RecursionError: a b"), ("OSError(5, 'bad disk')", "bad disk")],
)
def test_defect_of_a_command_is_one_line(tmp_path, error, text):
    code = (
        "import sys; from colorize_cli import __main__; from colorize_cli.storage import discovery\n"
        f"def fail(*_, **__): raise {error}\n"
        "discovery.plan = fail; sys.argv[1:] = ['in', 'out']; __main__.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("colorize: ")
    assert done.stderr.endswith(f"{text}\n")
    assert len(done.stderr.splitlines()) == 1
