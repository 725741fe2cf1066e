"""The lines of `--json` have the form that the page on operations describes."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.cli import invoke
from tests.helpers.film_files import make_film

PAGE = (Path(__file__).parents[3] / "colorize_cli" / "OPERATIONS.md").read_text()
TYPES = {"string": str, "number": (int, float), "object": dict, "array": list, "null": type(None)}


def table(name: str) -> dict[str, list[str]]:
    """Return the other cells of each row of a table of the page, by the name in the first cell."""
    (block,) = re.findall(rf"<!-- {name} -->\n(.*?)<!-- end -->", PAGE, re.DOTALL)
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", block, re.MULTILINE)
    return {key: cells.split(" | ") for key, cells in rows}


def stages(kind: str) -> set[str]:
    """Return the documented stages of `pictures` or `films` that need no store."""
    return {name for name, (of, _) in table("stages").items() if of in (kind, "both")} - {"fetch", "put"}


def lines(*arguments: object) -> dict[str, dict]:
    """Return the JSON lines of a run by the name of the source, after a check of their fields and types."""
    found = [json.loads(line) for line in invoke(*arguments, "--json").stdout.splitlines()]
    fields = table("fields")
    for line in found:
        assert list(line) == list(fields)
        for field, (types, _) in fields.items():
            assert isinstance(line[field], tuple(TYPES[name] for name in types.split(" or ")))
        assert f"`{line['status']}`" in fields["status"][1]
        assert all(isinstance(seconds, float) for seconds in line["seconds"].values())
        assert all(isinstance(note, str) for note in line["notes"])
    return {Path(line["source"]).name: line for line in found}


@pytest.fixture
def folder(gray_photo, tmp_path):
    """Return a folder with a picture, a picture in color, a damaged picture, a film and another file."""
    (tmp_path / "in").mkdir()
    Image.fromarray(gray_photo).save(tmp_path / "in" / "gray.png")
    colored = Image.merge("RGB", [Image.linear_gradient("L").rotate(turn) for turn in (0, 90, 180)])
    colored.save(tmp_path / "in" / "colored.png")
    (tmp_path / "in" / "damaged.jpg").write_bytes(b"nothing")
    (tmp_path / "in" / "letter.pdf").touch()
    make_film(tmp_path / "in" / "film.avi", frames=4)
    return tmp_path / "in"


def test_json_lines_have_the_documented_form(models, folder, tmp_path):
    run = (folder, tmp_path / "out", "--model", models.tinted, "--device", "cpu")
    planned = lines(*run, "--dry-run")
    assert {line["status"] for line in planned.values()} == {"planned", "skipped"}
    found = lines(*run)
    assert found.keys() == planned.keys() == {"in", "gray.png", "colored.png", "damaged.jpg", "film.avi"}
    status = {name: line["status"] for name, line in found.items()}
    skipped = {"in": "skipped", "colored.png": "skipped"}
    assert status == skipped | {"gray.png": "done", "damaged.jpg": "failed", "film.avi": "done"}
    assert found["in"]["ignored"] == {".pdf": 1}
    picture, film = found["gray.png"], found["film.avi"]
    assert picture["seconds"].keys() == stages("pictures")
    assert (picture["device"], picture["frames"]) == ("cpu", None)
    assert film["seconds"].keys() == stages("films")
    assert (film["device"], film["frames"], film["cuts"]) == ("cpu", 4, 0)
    again = lines(*run)
    assert (again["gray.png"]["status"], again["gray.png"]["reason"]) == ("skipped", "up to date")


def test_json_line_of_a_film_has_its_notes(models, tmp_path):
    make_film(tmp_path / "a.mkv", chapters=True, frames=3)
    run = (tmp_path / "a.mkv", tmp_path / "b.avi", "--model", models.tinted, "--device", "cpu")
    assert lines(*run)["a.mkv"]["notes"] == ["its list of chapters is left out, because .avi cannot hold it"]
