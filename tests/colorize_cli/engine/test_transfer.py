"""Complete runs from and to a store with the S3 protocol."""

import contextlib
import io
import json
import os
import random
import signal
import time
import zlib
from pathlib import Path

import pytest
from PIL import Image

from colorize_cli.engine import transfer
from tests.helpers.cli import contents, finish, piped, process
from tests.helpers.videos import Recipe, make

pytestmark = pytest.mark.usefixtures("environment")

FAULTS = (500, 503, "cut", 500, 503, "cut", "slow")


def staged(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "tmp").glob("staged*"))


def asked(server, method: str, part: str) -> int:
    return sum(count for (m, path), count in server.asked.items() if m == method and part in path)


def test_run_between_stores_is_not_repeated(colorize, local, bucket, server, tmp_path):
    source, expected = local(10)
    bucket.fill(source, "in")
    result = colorize(f"{bucket.url}/in", f"{bucket.url}/out")
    assert result.exit_code == 0, result.output
    assert "10 done, 0 skipped, 0 failed" in result.stderr
    assert f"{bucket.url}/in/sub/0001.jpg -> {bucket.url}/out/sub/0001.jpg" in result.stderr
    assert bucket.contents("out") == expected
    assert staged(tmp_path) == []
    for _ in range(2):
        server.asked.clear()
        result = colorize(f"{bucket.url}/in", f"{bucket.url}/out")
        assert result.exit_code == 0, result.output
        assert "0 done, 10 skipped (10 up to date), 0 failed" in result.stderr
        assert (
            asked(server, "GET", "/in/") == asked(server, "GET", "/out/0") == asked(server, "PUT", "/") == 0
        )


@pytest.mark.heavy
def test_run_with_store_faults_completes_all_objects(models, local, bucket, server, tmp_path):
    source, expected = local(500)
    bucket.fill(source, "in")

    def rule(method: str, path: str, before: int) -> object:
        """Fail the first answer, or the first two, for one object in ten."""
        number = zlib.crc32(f"{method} {path.partition(bucket.name)[2]}".encode())
        if number % 10 or before > number // 10 % 2:
            return None
        fault = FAULTS[number // 20 % len(FAULTS)]
        return 500 if fault == "cut" and method != "GET" else fault

    server.rule = rule
    options = ("--model", models.tinted, "--device", "cpu", "--json")
    code, out, err = finish(f"{bucket.url}/in", f"{bucket.url}/out", *options)
    assert code == 0, err
    assert {json.loads(line)["status"] for line in out.splitlines()} == {"done"}
    assert len(out.splitlines()) == 500
    assert all(server.faults[fault] > 5 for fault in FAULTS), server.faults
    assert bucket.contents("out") == expected
    assert staged(tmp_path) == []


def test_missing_or_refused_object_fails_alone_without_retry(colorize, local, bucket, server):
    source, expected = local(6)
    bucket.fill(source, "in")

    def rule(method: str, path: str, _: int) -> object:
        if method == "GET" and path.endswith("0000.png"):
            return lambda: bucket.delete("in/0000.png")
        return 403 if method == "GET" and path.endswith("0001.jpg") else None

    server.rule = rule
    result = colorize(f"{bucket.url}/in", f"{bucket.url}/out")
    assert result.exit_code == 1
    assert f"{bucket.url}/in/0000.png: it no longer exists in the store" in result.stderr
    assert f"{bucket.url}/in/sub/0001.jpg: the store answered 403 Forbidden: injected" in result.stderr
    assert bucket.contents("out").keys() == expected.keys() - {"0000.png", "sub/0001.jpg"}
    assert asked(server, "GET", "0000.png") == asked(server, "GET", "in/sub/0001.jpg") == 1


@pytest.mark.parametrize("fault", [500, "cut"])
def test_retries_are_bounded(colorize, local, bucket, server, hasty, fault):
    source, expected = local(3)
    bucket.fill(source, "in")
    server.rule = lambda method, path, _: fault if method == "GET" and "/in/0000.png" in path else None
    result = colorize(f"{bucket.url}/in", f"{bucket.url}/out")
    assert result.exit_code == 1
    assert asked(server, "GET", "/in/0000.png") == 4
    (line,) = [line for line in result.stderr.splitlines() if "0000.png" in line]
    assert "500 Internal Server Error" in line or "Not enough data" in line
    assert bucket.contents("out").keys() == expected.keys() - {"0000.png"}


def test_unusable_store_exits_2_with_one_line(colorize, local, bucket, server, hasty):
    source, _ = local(2)
    bucket.fill(source, "in")
    for rule, asked_for in (
        (lambda _, path, __: 503 if path.strip("/") == bucket.name else None, "the store answered 503"),
        (lambda method, *_: 403 if method == "PUT" else None, "cannot write it: the store answered 403"),
    ):
        server.rule = rule
        result = colorize(f"{bucket.url}/in", f"{bucket.url}/out")
        assert result.exit_code == 2, result.output
        assert len(result.stderr.splitlines()) == 1
        assert asked_for in result.stderr
    server.reset()
    for arguments in (
        (f"{bucket.url}/absent", f"{bucket.url}/out"),
        (f"{bucket.url}/in", "s3://not-there/out"),
    ):
        result = colorize(*arguments)
        assert result.exit_code == 2
        assert len(result.stderr.splitlines()) == 1
    assert bucket.keys("out") == []


def test_outputs_of_others_are_not_replaced(colorize, local, bucket):
    source, expected = local(4)
    bucket.fill(source, "in")
    bucket.put("out/0000.png", b"mine")
    assert colorize(f"{bucket.url}/in", f"{bucket.url}/out").exit_code == 0
    assert bucket.contents("out") == expected | {"0000.png": b"mine"}
    bucket.put("out/0002.png", bucket.get("out/0002.png")[::-1])  # the size stays the same
    result = colorize(f"{bucket.url}/in", f"{bucket.url}/out")
    assert "0 done, 4 skipped (2 there already, not as colorize left it, 2 up to date)" in result.stderr
    assert colorize(f"{bucket.url}/in", f"{bucket.url}/out", "--overwrite").exit_code == 0
    assert bucket.contents("out") == expected


def test_outputs_that_appear_during_the_run_are_kept(colorize, local, bucket, server, tmp_path):
    source, expected = local(4)
    bucket.fill(source, "in")

    def rule(method: str, path: str, _: int) -> object:
        if method == "GET" and path.endswith("in/0000.png"):
            return lambda: bucket.put("out/0000.png", b"mine")
        if method == "GET" and path.endswith("in/0002.png"):  # another run puts it
            return lambda: bucket.put("out/0002.png", expected["0002.png"])
        return None

    server.rule = rule
    page = tmp_path / "page.html"
    result = colorize(f"{bucket.url}/in", f"{bucket.url}/out", "--report", page)
    assert page.read_text().count('type="range"') == 3  # those with pictures before and after
    assert "3 done, 1 skipped (1 there already, not as colorize left it), 0 failed" in result.stderr
    assert bucket.contents("out") == expected | {"0000.png": b"mine"}
    result = colorize(f"{bucket.url}/in", f"{bucket.url}/out")
    assert "0 done, 4 skipped (3 up to date, 1 there already" in result.stderr


def test_changed_inputs_and_models_remake_outputs(colorize, models, local, bucket, server):
    source, _ = local(4)
    bucket.fill(source, "in")
    assert colorize(f"{bucket.url}/in", f"{bucket.url}/out").exit_code == 0
    before = bucket.contents("out")
    bucket.put("in/0000.png", bucket.get("in/0002.png"))
    result = colorize(f"{bucket.url}/in", f"{bucket.url}/out")
    assert "1 done, 3 skipped (3 up to date)" in result.stderr
    assert bucket.contents("out") == before | {"0000.png": before["0002.png"]}
    result = colorize(f"{bucket.url}/in", f"{bucket.url}/out", model=models.vivid)
    assert "4 done, 0 skipped" in result.stderr
    assert not set(bucket.contents("out").values()) & set(before.values())


def test_outputs_without_version_records_are_known_by_content(colorize, local, bucket, server):
    source, _ = local(4)
    bucket.fill(source, "in")
    assert colorize(f"{bucket.url}/in", f"{bucket.url}/out").exit_code == 0
    (part,) = bucket.keys("out/.colorize/")
    lines = bucket.get(part).splitlines(keepends=True)
    assert len(lines) == 8
    bucket.put(part, b"".join(line for line in lines if "version" not in json.loads(line)["written"]))
    assert len(bucket.notes("out")) == 4
    bucket.put("out/0002.png", bucket.get("out/0002.png")[::-1])
    server.asked.clear()
    result = colorize(f"{bucket.url}/in", f"{bucket.url}/out")
    assert "0 done, 4 skipped (3 up to date, 1 there already, not as colorize left it)" in result.stderr
    assert asked(server, "GET", "/in/") == 0
    server.asked.clear()
    colorize(f"{bucket.url}/in", f"{bucket.url}/out")
    assert asked(server, "GET", "/out/0") + asked(server, "GET", "/out/sub") == 1  # the changed one


def test_outputs_of_an_earlier_version_are_up_to_date(colorize, local, bucket):
    source, _ = local(4)
    bucket.fill(source, "in")
    assert colorize(f"{bucket.url}/in", f"{bucket.url}/out").exit_code == 0
    (part,) = bucket.keys("out/.colorize/")
    lines = []
    for values in map(json.loads, bucket.get(part).splitlines()):
        written = values.pop("written")
        lines.append(values | {"size": written["size"], "version": written.get("version", "")})
    bucket.put(part, "".join(f"{json.dumps(values)}\n" for values in lines).encode())
    result = colorize(f"{bucket.url}/in", f"{bucket.url}/out")
    assert "0 done, 4 skipped (4 up to date), 0 failed" in result.stderr


def test_killed_runs_are_completed_by_the_next_run(models, local, bucket, tmp_path):
    source, expected = local(40)
    bucket.fill(source, "in")
    arguments = (f"{bucket.url}/in", f"{bucket.url}/out", "--model", models.tinted, "--device", "cpu")
    dice = random.Random(1)  # noqa: S311
    for wanted in (1, 12):
        running_ = process(*arguments)
        while len(bucket.keys("out/")) <= wanted and running_.poll() is None:
            time.sleep(0.002)
        time.sleep(dice.uniform(0, 0.05))
        running_.kill()
        running_.communicate()
        assert staged(tmp_path)
    assert len(bucket.contents("out")) < 40
    code, _, err = finish(*arguments)
    assert code == 0, err
    assert "not as colorize left it" not in err
    assert bucket.contents("out") == expected
    assert staged(tmp_path) == []


def test_interrupted_run_leaves_complete_outputs(models, local, bucket, tmp_path):
    source, expected = local(60)
    bucket.fill(source, "in")
    unignored = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    running_ = process(f"{bucket.url}/in", f"{bucket.url}/out", "--model", models.tinted, **unignored)
    while not bucket.contents("out"):
        assert running_.poll() is None
        time.sleep(0.002)
    running_.send_signal(signal.SIGINT)
    begun = time.monotonic()
    _, err = running_.communicate(timeout=30)
    assert time.monotonic() - begun < 10  # running stages may take longer on a busy machine
    assert running_.returncode == 130, err
    assert "interrupted: " in err
    assert "Traceback" not in err
    made = bucket.contents("out")
    assert 0 < len(made) < 60
    assert all(expected[name] == content for name, content in made.items())
    assert staged(tmp_path) == []


def test_run_to_a_store_and_back_is_not_repeated(colorize, local, bucket, server, tmp_path):
    source, expected = local(6)
    for _ in range(2):
        result = colorize(source, f"{bucket.url}/out")
        assert result.exit_code == 0, result.output
        assert bucket.contents("out") == expected
    assert "6 up to date" in result.stderr
    os.utime(source / "0000.png", (1, 1))
    result = colorize(source, f"{bucket.url}/out")
    assert "6 up to date" in result.stderr
    bucket.fill(source, "in")
    assert colorize(f"{bucket.url}/in", tmp_path / "back").exit_code == 0
    assert contents(tmp_path / "back") == expected
    server.asked.clear()
    result = colorize(f"{bucket.url}/in", tmp_path / "back")
    assert "6 up to date" in result.stderr
    assert asked(server, "GET", "/in/") == 0
    bucket.put("in/0000.png", bucket.get("in/0002.png"))
    result = colorize(f"{bucket.url}/in", tmp_path / "back")
    assert "1 done, 5 skipped (5 up to date)" in result.stderr
    assert contents(tmp_path / "back")["0000.png"] == expected["0002.png"]


def test_staged_bytes_are_bounded(colorize, local, bucket, server, monkeypatch, tmp_path):
    source, expected = local(30)
    bucket.fill(source, "in")
    largest = max(path.stat().st_size for path in source.rglob("*.*"))
    monkeypatch.setattr(transfer, "BYTES_IN_FLIGHT", 3 * largest)
    seen: list[int] = []

    def look() -> None:
        with contextlib.suppress(FileNotFoundError):
            seen.append(sum(path.stat().st_size for path in (tmp_path / "tmp").glob("*/in/*")))

    server.rule = lambda method, *_: look if method == "PUT" else None
    assert colorize(f"{bucket.url}/in", f"{bucket.url}/out").exit_code == 0
    assert bucket.contents("out") == expected
    # Plus the objects with outcomes that wait to be reported.
    assert 0 < max(seen) <= (3 + 6) * largest < sum(len(bucket.get(key)) for key in bucket.keys("in/"))


def test_single_objects_and_standard_streams_work(colorize, models, local, bucket):
    source, expected = local(2)
    bucket.fill(source, "in")
    picture = f"{bucket.url}/in/0000.png"
    options = ("--model", models.tinted, "--device", "cpu", "-q")
    assert colorize(picture, f"{bucket.url}/one.png").exit_code == 0
    assert bucket.get("one.png") == expected["0000.png"]
    result = colorize(picture, f"{bucket.url}/one.png")
    assert f"{bucket.url}/one.png exists; use --overwrite to replace it" in result.stderr
    assert colorize(picture, f"{bucket.url}/directory/").exit_code == 0
    assert bucket.contents("directory") == {"0000.png": expected["0000.png"]}
    done = piped(b"", picture, "-", *options)
    assert (done.returncode, done.stdout) == (0, expected["0000.png"]), done.stderr
    done = piped((source / "0000.png").read_bytes(), "-", f"{bucket.url}/two.png", *options)
    assert done.returncode == 0, done.stderr
    assert bucket.get("two.png") == expected["0000.png"]
    for arguments in (("-", f"{bucket.url}/in"), (f"{bucket.url}/in", "-"), (picture, f"{bucket.url}/a.xyz")):
        assert colorize(*arguments).exit_code == 2


def test_videos_in_a_store_are_colorized(colorize, bucket, tmp_path):
    (tmp_path / "in").mkdir()
    make(tmp_path / "in" / "a.mkv", Recipe())
    bucket.fill(tmp_path / "in", "in")
    lossless = ("--codec", "ffv1")  # the size is the same each time
    result = colorize(f"{bucket.url}/in", f"{bucket.url}/out", "--json", *lossless)
    assert result.exit_code == 0, result.output
    outcome = json.loads(result.stdout)
    assert outcome["source"] == f"{bucket.url}/in/a.mkv"
    assert outcome["frames"] > 1
    assert colorize(tmp_path / "in", tmp_path / "local", *lossless).exit_code == 0
    assert bucket.contents("out").keys() == {"a.mkv"}
    assert len(bucket.get("out/a.mkv")) == (tmp_path / "local" / "a.mkv").stat().st_size
    assert "1 up to date" in colorize(f"{bucket.url}/in", f"{bucket.url}/out", *lossless).stderr
    assert staged(tmp_path) == []


def test_dry_run_of_a_store_equals_that_of_a_folder(colorize, local, bucket, server, tmp_path):
    source, _ = local(12)
    bucket.fill(source, "in")
    bucket.put("in/notes.txt", b"x")
    bucket.put("in/.hidden/a.png", b"x")
    for options in (
        (),
        ("--shard", "2/3"),
        ("--include", "*.jpg", "--exclude", "sub"),
        ("--exclude", "000*"),
    ):
        here = colorize(source, tmp_path / "out", "--dry-run", *options).stdout
        there = colorize(f"{bucket.url}/in", f"{bucket.url}/out", "--dry-run", *options).stdout
        assert there == here.replace(str(source), f"{bucket.url}/in").replace(str(tmp_path), bucket.url)
    assert "files of other kinds ignored: .txt 1" in colorize(f"{bucket.url}/in", f"{bucket.url}/out").stderr
    keys = bucket.keys()
    server.asked.clear()
    bucket.put("out/0000.png", b"mine")
    out = colorize(f"{bucket.url}/in", f"{bucket.url}/out", "--dry-run").stdout.splitlines()
    assert out[0] == (
        f"skip\t{bucket.url}/in/0000.png\t{bucket.url}/out/0000.png\tthere already, not as colorize left it"
    )
    assert all(line.startswith("skip\t") and line.endswith("\tup to date") for line in out[1:])
    assert bucket.keys() == keys
    assert asked(server, "PUT", "/") == 0


def test_output_named_by_an_earlier_version_is_reported_and_made(colorize, bucket, gray_photo):
    file = io.BytesIO()
    Image.fromarray(gray_photo).save(file, "GIF")
    bucket.put("in/a.gif", file.getvalue())
    assert colorize(f"{bucket.url}/in", f"{bucket.url}/out").exit_code == 0
    for key in bucket.keys("out/"):
        content = bucket.get(key).replace(b"a.gif.png", b"a.png")
        bucket.delete(key)
        bucket.put(key.replace("a.gif.png", "a.png"), content)
    assert bucket.contents("out").keys() == {"a.png"}
    result = colorize(f"{bucket.url}/in", f"{bucket.url}/out")
    assert result.exit_code == 0
    assert (
        f"{bucket.url}/out/a.png was made from {bucket.url}/in/a.gif by an earlier version;"
        " the output is now called a.gif.png and is made again"
    ) in result.stderr.splitlines()
    assert bucket.contents("out").keys() == {"a.png", "a.gif.png"}


def test_object_names_of_all_kinds_are_handled(colorize, local, bucket, tmp_path):
    source, _ = local(1)
    picture = (source / "0000.png").read_bytes()
    names = [
        "a b.png",
        "ä写.png",
        "100%.png",
        "a?b=c.png",
        "#1.png",
        "x" * 200 + "/" + "y" * 300 + ".png",
        "/a.png",
    ]
    for name in (*names, "../up.png", "sub/../../up.png", "sub/"):
        bucket.put(f"in/{name}", picture)
    result = colorize(f"{bucket.url}/in", f"{bucket.url}/out")
    assert result.exit_code == 1
    assert "7 done, 0 skipped, 2 failed" in result.stderr
    assert "ignored" not in result.stderr
    assert result.stderr.count("its name has . or .. as a part") == 2
    assert bucket.contents("out").keys() == set(names)
    assert not [key for key in bucket.keys("out") if "up.png" in key]
    result = colorize(f"{bucket.url}/in", tmp_path / "here" / "out")
    assert "5 done, 0 skipped, 4 failed" in result.stderr
    assert "its name is impossible for a local file" in result.stderr
    assert "output's name would be longer than 255 bytes" in result.stderr
    assert contents(tmp_path / "here").keys() >= {f"out/{name}" for name in names[:5]}
    assert len(list((tmp_path / "here").rglob("*.png"))) == 5


def test_hints_and_report_work_with_stores(colorize, local, bucket, tmp_path):
    source, expected = local(4)
    bucket.fill(source, "in")
    hints = tmp_path / "hints.json"
    hints.write_text(json.dumps({"sub/0001.jpg": {"points": [{"x": 5, "y": 5, "color": "#ff0000"}]}}))
    page = tmp_path / "page.html"
    arguments = ("--hints", hints, "--report", page)
    result = colorize(f"{bucket.url}/in", f"{bucket.url}/out", *arguments)
    assert result.exit_code == 0, result.output
    made = bucket.contents("out")
    assert {name for name in made if made[name] != expected[name]} == {"sub/0001.jpg"}
    text = page.read_text()
    assert text.count('type="range"') == 4
    assert f"{bucket.url}/in/sub" in text
    assert colorize(f"{bucket.url}/in", f"{bucket.url}/out", *arguments).exit_code == 0
    assert page.read_text().count("the file was not fetched") == 4


def test_hints_beside_an_object_are_found_by_every_run(colorize, local, bucket):
    source, _ = local(4)
    bucket.fill(source, "in")
    urls = f"{bucket.url}/in", f"{bucket.url}/out"

    def run(*inputs: str) -> tuple[set[str], list[str]]:
        """Return the outputs that changed, and the lines on stderr about hints."""
        before = bucket.contents("out")
        result = colorize(*inputs)
        assert result.exit_code == 0, result.output
        after = bucket.contents("out")
        changed = {name for name in after if after[name] != before.get(name)}
        return changed, [line for line in result.stderr.splitlines() if "with hints" in line]

    hints = [json.dumps({"points": [{"x": 5, "y": 5, "color": color}]}) for color in ("#f00", "#00f")]
    assert len(run(*urls)[0]) == 4
    plain = bucket.contents("out")
    for text in hints:
        (source / "sub" / "0001.jpg.hints.json").write_text(text)
        bucket.fill(source, "in")
        assert run(*urls) == ({"sub/0001.jpg"}, [])
        assert run(*urls) == run(f"{bucket.url}/in/sub/0001.jpg", f"{bucket.url}/out/sub/") == (set(), [])
    corrected = bucket.contents("out")
    (source / "sub" / "0001.jpg.hints.json").unlink()
    bucket.delete("in/sub/0001.jpg.hints.json")
    changed, said = run(*urls)
    assert changed == {"sub/0001.jpg"}
    assert said == [
        f"{urls[1]}/sub/0001.jpg was made with hints, and is made again without, as this run has none for"
        f" {urls[0]}/sub/0001.jpg"
    ]
    assert bucket.contents("out") == plain != corrected


def test_lookup_of_hints_that_is_refused_counts_as_none(colorize, local, bucket, server, hasty, tmp_path):
    source, _ = local(4)
    bucket.fill(source, "in")
    arguments = (f"{bucket.url}/in/sub/0001.jpg", tmp_path / "out")
    server.rule = lambda _, path, __: 403 if "hints.json" in path else None
    result = colorize(*arguments)
    assert result.exit_code == 0, result.output
    assert "1 done" in result.stderr
    server.rule = lambda _, path, __: 503 if "hints.json" in path else None
    result = colorize(*arguments)
    assert result.exit_code == 2
    assert f"{bucket.url}/in/sub/0001.jpg.hints.json: the store answered 503" in result.stderr


def test_two_processes_on_one_store_give_the_output_of_one(models, local, bucket):
    source, expected = local(10)
    bucket.fill(source, "in")
    arguments = (f"{bucket.url}/in", f"{bucket.url}/out", "--model", models.tinted, "--device", "cpu")
    both = [process(*arguments) for _ in range(2)]
    ends = [each.communicate(timeout=120)[1] for each in both]
    assert [each.returncode for each in both] == [0, 0], ends
    assert not any("not as colorize left it" in end for end in ends)
    assert bucket.contents("out") == expected


def test_missing_fsspec_names_the_extra(models, make_folder, tmp_path):
    source = make_folder(tmp_path / "in", 1)
    (tmp_path / "absent" / "fsspec").mkdir(parents=True)
    (tmp_path / "absent" / "fsspec" / "__init__.py").write_text(
        "raise ModuleNotFoundError('No module: fsspec')"
    )
    path = f"{tmp_path}/absent:{os.environ.get('PYTHONPATH', '')}"
    running_ = process(source, "s3://bucket/out", env=os.environ | {"PYTHONPATH": path})
    out, err = running_.communicate(timeout=60)
    assert (running_.returncode, out) == (2, "")
    assert err == "colorize: s3://bucket/out: to use remote stores, pip install 'colorize-cli[remote]'\n"
