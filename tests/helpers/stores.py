"""A local server with the S3 protocol that fails on demand."""

import atexit
import functools
import logging
import os
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from moto.core import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import make_server

from colorize_cli.cli.run import command
from colorize_cli.storage import remote
from colorize_cli.storage.retry import Patience
from tests.helpers.cli import contents

STORE: Any = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
SECRET = "s3cr3t-hush"  # noqa: S105
# Method, path, number of earlier requests for the same -> a fault, or None.
Rule = Callable[[str, str, int], object]
ERROR = "<?xml version='1.0'?><Error><Code>{}</Code><Message>injected</Message></Error>"
CODES = {500: "InternalError", 503: "SlowDown", 403: "AccessDenied"}
SLOW = 2.5  # seconds, longer than the timeout of the clients


class Server:
    """moto's S3 behind faults.

    A rule's fault is a status, "cut" (half of the answer), "slow" (an answer after the client's timeout),
    or a function that is called before the answer.
    """

    def __init__(self) -> None:
        self._backend: Any = create_backend_app("s3")
        self._lock = threading.Lock()
        self.rule: Rule = lambda *_: None
        self.asked: Counter[tuple[str, str]] = Counter()
        self.faults: Counter[object] = Counter()
        self._server = make_server("127.0.0.1", 0, self, threaded=True, request_handler=MotoRequestHandler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def reset(self) -> None:
        self.rule = lambda *_: None
        self.asked.clear()
        self.faults.clear()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        request = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        with self._lock:
            fault = self.rule(*request, self.asked[request])
            self.asked[request] += 1
            if fault is not None:
                self.faults[fault] += 1
        if isinstance(fault, int):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            body = b"" if request[0] == "HEAD" else ERROR.format(CODES[fault]).encode()
            headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
            start_response(f"{fault} {CODES[fault]}", headers)
            return [body]
        if callable(fault):
            fault()
        answer = self._backend(environ, start_response)
        if fault == "cut":
            whole = b"".join(answer)
            return [whole[: len(whole) // 2]]
        if fault == "slow":
            time.sleep(SLOW)
        return answer


@functools.cache
def started() -> Server:
    """Start the only server of this process. s3fs keeps its clients for the first one."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = Server()
    atexit.register(server.stop)
    return server


@pytest.fixture(scope="session")
def _server() -> Server:
    return started()


@pytest.fixture
def server(_server: Server) -> Iterator[Server]:
    _server.reset()
    yield _server
    _server.reset()


@pytest.fixture
def environment(_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set credentials and the address of the server in the environment, and remove all others."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "FSSPEC_"))]:
        monkeypatch.delenv(name)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    given = {
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": _server.url,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "FSSPEC_S3": '{"config_kwargs": {"connect_timeout": 1, "read_timeout": 1}}',
        "TMPDIR": str(temporary),
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))


@dataclass(frozen=True)
class Bucket:
    """A bucket, accessed without the server."""

    name: str

    @property
    def url(self) -> str:
        return f"s3://{self.name}"

    def fill(self, folder: Path, prefix: str) -> None:
        for path in folder.rglob("*"):
            if path.is_file():
                self.put(f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())

    def put(self, key: str, content: bytes) -> None:
        STORE.put_object(self.name, key, content)

    def get(self, key: str) -> bytes:
        return STORE.get_object(self.name, key).value

    def delete(self, key: str) -> None:
        STORE.delete_object(self.name, key)

    def keys(self, prefix: str = "") -> list[str]:
        return sorted(key for key in STORE.buckets[self.name].keys if key.startswith(prefix))

    def contents(self, prefix: str) -> dict[str, bytes]:
        """Return objects by name below a prefix, without the manifest."""
        names = {key: key.removeprefix(f"{prefix}/") for key in self.keys(f"{prefix}/")}
        return {name: self.get(key) for key, name in names.items() if not name.startswith(".colorize/")}

    def notes(self, prefix: str) -> list[bytes]:
        """Return the lines of the manifest."""
        return [line for key in self.keys(f"{prefix}/.colorize/") for line in self.get(key).splitlines()]


@pytest.fixture
def bucket(server: Server) -> Bucket:
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    STORE.create_bucket(name, "us-east-1")
    return Bucket(name)


@pytest.fixture
def colorize(models):
    """Run `colorize` in this process."""

    def run(*arguments: object, model: Path = models.tinted):
        options = ("--model", model, "--device", "cpu")
        return CliRunner().invoke(command, [str(argument) for argument in (*arguments, *options)])

    return run


@pytest.fixture
def local(colorize, make_folder, tmp_path):
    """Make local pictures, and their outputs by a local run."""

    def make(count: int) -> tuple[Path, dict[str, bytes]]:
        source = make_folder(tmp_path / "in", count)
        result = colorize(source, tmp_path / "local")
        assert result.exit_code == 0, result.output
        return source, contents(tmp_path / "local")

    return make


@pytest.fixture
def hasty(monkeypatch):
    """Shorten the pauses between retries."""
    monkeypatch.setattr(remote, "Patience", lambda: Patience(tries=4, first=0.001))
