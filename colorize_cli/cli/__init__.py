"""The command line: arguments, messages and progress.

`command` is the group of all commands. Each has a module of its name, which is imported when it is needed.
"""

import importlib
import logging
import sys
import warnings
from typing import NoReturn

import click
from click.shell_completion import CompletionItem

from colorize_cli.cli import options, run
from colorize_cli.storage import stdio

_COMMANDS = ("run", "retouch", "compare", "models", "doctor")


class _Commands(click.Group):
    """The commands by name. Arguments that do not begin with the name of a command are arguments of `run`."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names in the order of `--help`."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command; None if there is none of this name."""
        if cmd_name not in _COMMANDS:
            return None
        found: click.Command = importlib.import_module(f"colorize_cli.cli.{cmd_name}").command
        return found

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the name of the command, which may be left out for `run`."""
        if args and args[0] not in (*_COMMANDS, *ctx.help_option_names):
            args = ["run", *args]
        if not args and not ctx.resilient_parsing:  # that is completion of the first word
            raise click.UsageError(run.NOTHING, ctx)
        return super().parse_args(ctx, args)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help of `run` with the list of commands in it."""
        run.command.format_usage(ctx, formatter)
        formatter.write_usage(ctx.command_path, "COMMAND ...", prefix=" " * len("Usage: "))
        self.format_commands(ctx, formatter)
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text("`colorize COMMAND --help` describes a command.")
        run.command.format_help_text(ctx, formatter)
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(
                "A file or directory with the name of a command is given as ./compare, for example."
            )
        run.command.format_options(ctx, formatter)
        run.command.format_epilog(ctx, formatter)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the first word: a command, or an option or path for `run`."""
        commands = super().shell_complete(ctx, incomplete)
        options = run.command.shell_complete(ctx, incomplete)
        known = {item.value for item in options}
        paths = [] if incomplete.startswith("-") else [CompletionItem(incomplete, type="file")]
        return [*(item for item in commands if item.value not in known), *options, *paths]


command = _Commands(context_settings={"help_option_names": ["-h", "--help"]})


def main() -> NoReturn:
    """Run the command that the arguments of the process name, and end the process."""
    stdio.protect()
    # Pillow warns about unusual pictures that it can read. It raises an error if it cannot read one.
    warnings.simplefilter("ignore")
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    call(sys.argv[1:])


def call(arguments: list[str]) -> NoReturn:
    """Run the command that the arguments name, and raise SystemExit with its exit status."""
    with options.exit_on_error(sys.exit):
        sys.exit(command.main(arguments, "colorize", standalone_mode=False))
    raise AssertionError("the block above ends in SystemExit")
