"""Pictures from web servers, by URLs that contain secrets."""

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from colorize_cli.core.formats import endings
from colorize_cli.core.location import Url
from colorize_cli.engine import transfer
from colorize_cli.storage import remote
from colorize_cli.storage.discovery import plan
from tests.helpers.cli import contents

pytestmark = pytest.mark.usefixtures("environment")

SECRET = "hush%2Fhush"  # noqa: S105
QUERY = f"X-Amz-Credential=me&X-Amz-Signature={SECRET}"


class Web(ThreadingHTTPServer):
    """Serves a folder to clients that sign their requests."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.asked: Counter[tuple[str, str]] = Counter()
        self.versions = True
        self.endless = False
        self.url = f"http://user:{SECRET}@127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Web

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        parts = urlsplit(self.path)
        path = self.server.folder / unquote(parts.path)[1:]
        self.server.asked[self.command, path.name] += 1
        if parts.query != QUERY:
            self.send_error(403, f"not signed: {self.path}")
        elif not path.is_file():
            self.send_error(404)
        elif self.server.endless:
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                while body:
                    self.wfile.write(bytes(1 << 16))
        else:
            content = path.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            if self.server.versions:
                self.send_header("ETag", f'"{hash(content)}"')
            self.end_headers()
            self.wfile.write(content if body else b"")

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def web(tmp_path) -> Iterator[Web]:
    server = Web(tmp_path / "in")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def said(result, *files: Path) -> str:
    return result.output + result.stderr + "".join(path.read_text(errors="replace") for path in files)


def test_secrets_in_urls_are_used_and_not_shown(colorize, local, web, tmp_path):
    source, expected = local(2)
    (source / "0000.png").rename(source / "a b.png")
    page = tmp_path / "page.html"
    arguments = (f"{web.url}/a%20b.png?{QUERY}", f"{web.url}/sub/0001.jpg?{QUERY}", tmp_path / "out")
    result = colorize(*arguments, "--json", "--report", page)
    assert result.exit_code == 0, result.output
    assert contents(tmp_path / "out") == {
        "a b.png": expected["0000.png"],
        "0001.jpg": expected["sub/0001.jpg"],
    }
    notes = list((tmp_path / "out" / ".colorize").iterdir())
    text = said(result, page, *notes)
    assert f"http://127.0.0.1:{web.server_port}/a%20b.png" in text
    assert f'href="http://127.0.0.1:{web.server_port}/sub/0001.jpg"' in text
    assert "hush" not in text
    web.asked.clear()
    assert "2 skipped (2 up to date)" in colorize(*arguments).stderr
    assert not [name for method, name in web.asked if method == "GET"]


def test_secrets_are_not_recorded_in_a_store(colorize, local, web, bucket):
    local(2)
    result = colorize(f"{web.url}/0000.png?{QUERY}", f"{bucket.url}/out/", "--json")
    assert result.exit_code == 0, result.output
    notes = b"".join(bucket.notes("out")).decode()
    assert f"http://127.0.0.1:{web.server_port}/0000.png" in notes
    assert "hush" not in said(result) + notes


def test_source_without_version_is_fetched_and_compared(colorize, local, web, bucket, tmp_path):
    local(2)
    web.versions = False
    for output in (tmp_path / "out", f"{bucket.url}/out/"):
        arguments = (f"{web.url}/0000.png?{QUERY}", output)
        assert "1 done" in colorize(*arguments).stderr
        web.asked.clear()
        assert "0 done, 1 skipped (1 up to date)" in colorize(*arguments).stderr
        assert web.asked["GET", "0000.png"] == 1


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (f"absent.png?{QUERY}", "no such file or directory: http://127.0.0.1:{}/absent.png"),
        ("0000.png?X-Amz-Signature=hush", "http://127.0.0.1:{}/0000.png: the store answered 403 "),
        (f"?{QUERY}", "http://127.0.0.1:{}/"),
    ],
)
def test_unavailable_url_is_named_without_secrets(colorize, local, web, tmp_path, name, reason):
    local(2)
    result = colorize(f"{web.url}/{name}", tmp_path / "out")
    assert result.exit_code == 2, result.output
    assert reason.format(web.server_port) in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert "hush" not in said(result)


def test_list_of_urls_fails_only_missing_ones(colorize, local, web, tmp_path):
    source, expected = local(3)
    (tmp_path / "list").write_text(
        f"{web.url}/0000.png?{QUERY}\n{web.url}/absent.png?{QUERY}\n{source}/0002.png\n"
    )
    result = colorize("--files-from", tmp_path / "list", tmp_path / "out")
    assert result.exit_code == 1
    assert f"http://127.0.0.1:{web.server_port}/absent.png: there is no such object" in result.stderr
    assert contents(tmp_path / "out") == {name: expected[name] for name in ("0000.png", "0002.png")}
    assert "hush" not in said(result)


def test_plan_repr_holds_no_secret(web, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"x")
    planned = plan([Url(f"{web.url}/a.png?{QUERY}")], tmp_path / "out", endings())
    assert "/a.png" in repr(planned)
    assert "hush" not in repr(planned)


def test_web_as_output_is_refused(colorize, local, web):
    source, _ = local(1)
    result = colorize(source, f"{web.url}/out?{QUERY}")
    assert result.exit_code == 2
    assert result.stderr.endswith("/out: cannot write to the web; give a directory, a file or a store\n")
    assert "hush" not in said(result)


def test_unreachable_server_exits_2_with_one_line(colorize, web, tmp_path, hasty):
    web.shutdown()
    web.server_close()
    result = colorize(f"{web.url}/a.png?{QUERY}", tmp_path / "out")
    assert result.exit_code == 2
    assert "Cannot connect" in result.stderr or "Connect call failed" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert "hush" not in said(result)


def test_web_body_without_end_fails_at_a_bound(colorize, local, web, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "MOST_UNKNOWN", 10 << 20)
    web.endless = True
    local(1)
    result = colorize(f"{web.url}/0000.png?{QUERY}", tmp_path / "out/")
    assert result.exit_code == 1
    assert "the store does not give its size, and it is longer than 10 MiB" in result.stderr
    assert SECRET not in result.stderr
    assert contents(tmp_path / "out") == {}
    assert web.asked["GET", "0000.png"] <= 2


def test_web_picture_with_an_impossible_size_is_not_fetched(colorize, local, web, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "_MOST_PICTURE", 1 << 9)
    local(1)
    result = colorize(f"{web.url}/0000.png?{QUERY}", tmp_path / "out/")
    assert result.exit_code == 1
    assert "it is longer than 0 MiB" in result.stderr
