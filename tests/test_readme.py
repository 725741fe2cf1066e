"""The pages of the documentation agree with the program and with each other.

`python -m tests.test_readme` updates the reference of options in the guide.
"""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from colorize_cli.cli import command

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "colorize_cli" / "README.md"
STRUCTURE = ROOT / "tests" / "README.md"
PAGES = [
    path
    for pattern in ("*.md", "colorize_cli/**/*.md", "trainer/**/*.md", "tests/**/*.md")
    for path in ROOT.glob(pattern)
]
BEGIN, END = "<!-- colorize --help -->\n```\n", "```\n<!-- end -->"


def reference() -> str:
    result = CliRunner().invoke(command, ["--help"], prog_name="colorize", terminal_width=110)
    assert result.exit_code == 0
    return result.output


def parts() -> tuple[str, str, str]:
    """Return the guide before the reference, the reference, and the rest."""
    before, begin, rest = GUIDE.read_text().partition(BEGIN)
    within, end, after = rest.partition(END)
    assert begin, "the guide has a place for the reference"
    assert end, "the reference ends"
    return before + begin, within, end + after


def test_guide_reference_equals_the_help():
    assert parts()[1] == reference(), "run python -m tests.test_readme"


def test_structure_tree_names_every_package():
    tree = re.search(r"```\n(colorize_cli/ .*?)```", STRUCTURE.read_text(), re.DOTALL)
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


def test_readme_has_at_most_150_lines():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)", prose, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_page_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


if __name__ == "__main__":
    before, _, after = parts()
    GUIDE.write_text(before + reference() + after)
