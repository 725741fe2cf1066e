import errno
import threading
import time

import aiohttp
import botocore.exceptions
import pytest
from fsspec.exceptions import FSTimeoutError

from colorize_cli.storage.retry import Patience, Retrier, explained, is_missing, is_transient

pytestmark = pytest.mark.usefixtures("environment")


def answered(status: int, code: str = "", message: str = "") -> Exception:
    """Make an error like botocore's."""
    response = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return botocore.exceptions.ClientError(response, "GetObject")


def web(status: int, message: str = "") -> Exception:
    return aiohttp.ClientResponseError(None, (), status=status, message=message)


def of(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


TRANSIENT = [
    TimeoutError(),
    FSTimeoutError(),
    ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
    aiohttp.ServerDisconnectedError(),
    of(aiohttp.ClientPayloadError("half"), aiohttp.http_exceptions.ContentLengthError("half")),
    botocore.exceptions.EndpointConnectionError(endpoint_url="http://h"),
    botocore.exceptions.ReadTimeoutError(endpoint_url="http://h"),
    botocore.exceptions.ConnectionClosedError(endpoint_url="http://h"),
    of(OSError(errno.EBUSY, "Slow down"), answered(503, "SlowDown")),
    of(OSError(errno.EIO, "?"), answered(500, "InternalError")),
    of(OSError(errno.EINVAL, "?"), answered(400, "IncompleteBody")),
    of(PermissionError("?"), answered(403, "RequestTimeout")),
    of(FileNotFoundError("https://h/a?hush"), web(503)),
    of(FileNotFoundError("https://h/a"), aiohttp.ClientConnectionError()),
    web(429),
    OSError(errno.ETIMEDOUT, "?"),
]
PERMANENT = [
    FileNotFoundError("/a"),
    of(FileNotFoundError("a"), answered(404, "NoSuchKey")),
    of(PermissionError("no"), answered(403, "AccessDenied")),
    of(FileNotFoundError("https://h/a"), web(403)),
    of(OSError(errno.ENOSYS, "?"), answered(501, "NotImplemented")),
    botocore.exceptions.NoCredentialsError(),
    OSError(errno.ENOSPC, "No space left on device"),
    NotImplementedError(),
    ValueError("?"),
]


@pytest.mark.parametrize("error", TRANSIENT, ids=repr)
def test_is_transient_is_true_for_temporary_errors(error):
    assert is_transient(error)
    assert not is_missing(error)


@pytest.mark.parametrize("error", PERMANENT, ids=repr)
def test_is_transient_is_false_for_permanent_errors(error):
    assert not is_transient(error)


@pytest.mark.parametrize(
    ("error", "missing", "text"),
    [
        (FileNotFoundError("/a"), True, "there is no such object"),
        (
            of(FileNotFoundError("no"), answered(404, "NoSuchBucket", "No\nbucket")),
            True,
            "the store answered 404 Not Found: No bucket",
        ),
        (
            of(FileNotFoundError("https://h/a?hush"), web(403, "Forbidden")),
            False,
            "the store answered 403 Forbidden",
        ),
        (
            of(FileNotFoundError("https://h/a?hush"), aiohttp.InvalidURL("https://h/a?hush")),
            False,
            "https://h/a",
        ),
        (
            answered(403, "X", "see https://u:hush@h/"),
            False,
            "the store answered 403 Forbidden: see https://h/",
        ),
        (FSTimeoutError(), False, "timed out"),
        (OSError(errno.ENOSPC, "No space left on device", "/a"), False, "No space left on device"),
        (NotImplementedError(), False, "NotImplementedError"),
    ],
)
def test_explained_is_one_line_without_secrets(error, missing, text):
    assert is_missing(error) == missing
    assert explained(error) == text


def failing(*errors: Exception):
    left = list(errors)

    def attempt() -> str:
        if left:
            raise left.pop(0)
        return "well"

    return attempt, left


def test_retrier_tries_until_success():
    attempt, left = failing(TimeoutError(), web(500))
    assert Retrier(Patience(first=0.001)).call(attempt) == "well"
    assert not left


def test_retrier_limits_tries_and_time():
    attempt, left = failing(*[TimeoutError()] * 9)
    with pytest.raises(TimeoutError):
        Retrier(Patience(tries=5, first=0.001)).call(attempt)
    assert len(left) == 4
    attempt, left = failing(*[TimeoutError()] * 9)
    with pytest.raises(TimeoutError):
        Retrier(Patience(tries=9, first=0.01, total=0)).call(attempt)
    assert len(left) == 8


def test_retrier_tries_permanent_errors_once():
    attempt, left = failing(PermissionError(), TimeoutError())
    with pytest.raises(PermissionError):
        Retrier(Patience()).call(attempt)
    assert len(left) == 1


def test_pauses_double_up_to_a_limit_with_jitter():
    patience = Patience(tries=9, first=1, longest=10)
    longest = [1, 2, 4, 8, 10, 10, 10, 10]
    pauses = list(patience.pauses())
    assert all(most / 2 <= pause <= most for pause, most in zip(pauses, longest, strict=True))
    assert pauses != list(patience.pauses())
    assert sum(Patience().pauses()) < 60


def test_retrier_stopped_waits_no_longer():
    retrier = Retrier(Patience(first=60, longest=60, total=600))
    threading.Timer(0.05, retrier.stop).start()
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        retrier.call(failing(*[TimeoutError()] * 9)[0])
    assert time.monotonic() - begun < 10
