"""Helpers to parse HTML pages and to drive a browser."""

import base64
import io
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from PIL import Image

ATTACKS = (
    "<img src=x onerror=document.title='owned'>.png",
    "\"><script>document.title='owned'<\\script>.png",
    "' onfocus='document.title=1' autofocus='.png",
    "&lt;b&gt; & co.png",
    "line\nbreak\x1b[31m.png",
    "%2e%2e%2fup.png",
    "javascript:document.title='owned'#?.png",
    "{{ 7 * 7 }} {% raw %} {# ${title}.png",
    "größer 写真 \u202egnp.png",
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


class Page(HTMLParser):
    """A parsed page: its tags with their attributes, its text by tag, and the cells of its tables."""

    def __init__(self, path: Path):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self.tables: list[list[list[str]]] = []
        self._open: list[str] = []
        self.html = path.read_bytes().decode()
        self.feed(self.html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "input"):
            self._open.append(tag)
            self.text.setdefault(tag, []).append("")
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        for tag in set(self._open):
            self.text[tag][-1] += data
        if {"td", "th"} & set(self._open):
            self.tables[-1][-1][-1] += data

    def attributes(self, tag: str, name: str) -> list[str]:
        return [attributes[name] for found, attributes in self.tags if found == tag and name in attributes]

    def pictures(self) -> list[Image.Image]:
        head = "data:image/jpeg;base64,"
        sources = self.attributes("img", "src")
        assert all(source.startswith(head) for source in sources)
        images = [Image.open(io.BytesIO(base64.b64decode(source.removeprefix(head)))) for source in sources]
        for image in images:
            image.load()
        return images


def leads_to(page: Path, href: str) -> bytes:
    """Resolve an address in a page to a file, like a browser."""
    assert ":" not in href
    return os.path.normpath(os.fsencode(page.parent) + b"/" + unquote_to_bytes(href))


class Browser:
    """Headless Chromium, driven through a pipe (Chrome DevTools Protocol)."""

    def __init__(self, folder: Path):
        (down, self._down), (self._up, up) = os.pipe(), os.pipe()
        # Chromium expects the pipes as file descriptors 3 and 4.
        code = (
            "import fcntl, os, sys\n"
            "ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD_CLOEXEC, 10) for end in sys.argv[1:3]]\n"
            "for number, end in enumerate(ends, 3): os.dup2(end, number)\n"
            "os.execv(sys.argv[3], sys.argv[3:])"
        )
        options = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking")
        line = [
            sys.executable,
            "-c",
            code,
            str(down),
            str(up),
            CHROMIUM,
            *options,
            f"--user-data-dir={folder}",
        ]
        self._process = subprocess.Popen(
            [*line, "--remote-debugging-pipe", "about:blank"],
            pass_fds=(down, up),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (down, up):
            os.close(end)
        self._numbers = itertools.count(1)
        self._rest = b""
        self._session: dict[str, str] = {}
        self.events: list[dict] = []
        targets = self.call("Target.getTargets")["targetInfos"]
        target = next(target["targetId"] for target in targets if target["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self._down)  # makes Chromium exit
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._up)

    def call(self, method: str, **parameters) -> dict:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters, **self._session}
        os.write(self._down, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def _receive(self) -> dict:
        until = time.monotonic() + 60
        while b"\0" not in self._rest:
            assert select.select([self._up], [], [], max(0, until - time.monotonic()))[0], "no answer"
            received = os.read(self._up, 1 << 20)
            assert received, "Chromium has ended"
            self._rest += received
        message, _, self._rest = self._rest.partition(b"\0")
        answer = json.loads(message)
        if "method" in answer:
            self.events.append(answer)
        return answer

    def visit(self, path: Path) -> None:
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._receive()

    def evaluate(self, expression: str):
        asked = {"expression": expression, "returnByValue": True, "awaitPromise": True}
        result = self.call("Runtime.evaluate", **asked)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def show_a_pair(self) -> None:
        """Scroll to the first pair of pictures, which load lazily."""
        self.evaluate(
            "document.querySelector('.pair').scrollIntoView(), "
            "Promise.all([...document.querySelector('.pair').querySelectorAll('img')]"
            ".map(i => (i.loading = 'eager', i.decode())))"
        )

    def press(self, key: str, code: int) -> None:
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)
