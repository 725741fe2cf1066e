"""Typical mistakes, and the exact message of each."""

import re

import pytest
from PIL import Image

from colorize_cli import cli
from tests.helpers.videos import Recipe, make

SEE = " (see colorize --help)"
# The words of a command line, in a directory with the inputs below, and the message.
MISTAKES = {
    "": f"nothing to colorize: give INPUT and OUTPUT{SEE}",
    "in": f"nothing to colorize: give INPUT and OUTPUT{SEE}",
    "absent out": "no such file or directory: absent",
    "in in": "the output in is the input in; inputs are never modified",
    "in a.png": "the output a.png is a file; give a directory",
    "in two out": "in/a.png and two/a.png would both become out/a.png",
    "in out --quality 300": f"Invalid value for '--quality': 300 is not in the range 1<=x<=100{SEE}",
    "in out --strength": "Option '--strength' requires an argument",
    "in out --model absent.onnx": "cannot read the model absent.onnx: No such file or directory",
    "in out --device gpu": "no such device: gpu (auto, cpu, cuda, cuda:0, cuda:0,1 or cuda:all)",
    "in out --hints broken.json": "broken.json: not valid JSON: Expecting value: line 1 column 1 (char 0)",
    "in out --reference a.png": "cannot use the reference a.png: it has no colors",
    "in out --shard 3/2": "there is no shard 3 of 2",
    "in out --report page": "the report page must end in .html or .htm",
    "in out --address head:6379": "a cluster address needs the engine ray",
    "a.png - --engine ray": "--engine ray cannot use - (standard input or output), which exists on this"
    " machine only; use --engine local",
    "a.png - --json": "--json and the output would both go to standard output; give a file as OUTPUT",
    "in -": "with - for standard input or output, give exactly one input, which is a file or -",
    "empty out": "no pictures or films in empty; --allow-empty allows that",
    "--files-from nul out": "the list has NUL characters; if it is from find -print0, add --null (-0)",
    "--files-from absent out": f"Invalid value for '--files-from': 'absent': No such file or directory{SEE}",
    "film.mkv out --duration 0": "duration must be a finite number of seconds, above 0, not 0.0",
    "film.mkv out --hints broken.json": "--hints has no effect: hints are for photographs, and there"
    " are only films",
    "compare in page.html --model default": "compare takes 2 to 4 models, each after --model; 1 given",
    "models x": "Got unexpected extra argument (x) (see colorize models --help)",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mistakes")
    for name in ("in", "two", "empty"):
        (folder / name).mkdir()
    for name in ("a.png", "in/a.png", "two/a.png"):
        Image.new("L", (16, 16)).save(folder / name)
    (folder / "broken.json").write_text("no JSON")
    (folder / "nul").write_bytes(b"in/a.png\0")
    make(folder / "film.mkv", Recipe(frames=1))
    return folder


@pytest.mark.parametrize("line", MISTAKES)
def test_mistake_costs_one_line(folder, monkeypatch, capsys, line):
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as ended:
        cli.call(line.split())
    assert ended.value.code in (1, 2)
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"colorize: {MISTAKES[line]}\n")
    assert not list(folder.glob("out/*"))


def test_misspelt_option_names_the_right_one(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit):
        cli.call(["in", "out", "--stength", "1"])
    assert re.fullmatch(r"colorize: No such option '?--stength.*--strength.*\n", capsys.readouterr().err)
