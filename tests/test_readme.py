"""The README agrees with the program.

`python -m tests.test_readme` updates the reference in the README.
"""

import re
from pathlib import Path

from click.testing import CliRunner

from colorize_cli.cli import command

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
BEGIN, END = "<!-- colorize --help -->\n```\n", "```\n<!-- end -->"


def reference() -> str:
    result = CliRunner().invoke(command, ["--help"], prog_name="colorize", terminal_width=110)
    assert result.exit_code == 0
    return result.output


def parts() -> tuple[str, str, str]:
    """Return the README before the reference, the reference, and the rest."""
    before, begin, rest = README.read_text().partition(BEGIN)
    within, end, after = rest.partition(END)
    assert begin, "the README has a place for the reference"
    assert end, "the reference ends"
    return before + begin, within, end + after


def test_readme_reference_equals_the_help():
    assert parts()[1] == reference(), "run python -m tests.test_readme"


def test_readme_tree_names_every_package():
    tree = re.search(r"```\n(colorize_cli/ .*?)```", README.read_text(), re.DOTALL)
    assert tree is not None
    named, above = set(), []
    for indent, name in re.findall(r"^( *)(\w+)/ ", tree[1], re.MULTILINE):
        above = [*above[: len(indent) // 2], name]
        named.add("/".join(above))
    packages = {
        path.parent.relative_to(ROOT).as_posix()
        for package in ("colorize_cli", "trainer")
        for path in (ROOT / package).rglob("__init__.py")
    }
    assert named == packages | {"colorize_cli/models", "trainer/pretrained", "tests"}


if __name__ == "__main__":
    before, _, after = parts()
    README.write_text(before + reference() + after)
