"""Retries after transient errors, and explanations of errors in one line.

Stores raise the exceptions of many libraries, and some differ from their cause: a web server's 503 arrives as
a FileNotFoundError. So the whole chain of causes is examined. Exceptions are recognized by their names only,
because not all of the libraries are installed.
"""

import errno
import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import responses
from typing import TypeVar

from colorize_cli.core.errors import one_line
from colorize_cli.core.location import redacted
from colorize_cli.storage.filesystem import NOT_THERE

T = TypeVar("T")

# All statuses from 500 on are transient too, except for the two that mean "not implemented".
_TRANSIENT_STATUS = frozenset({408, 425, 429})
_PERMANENT_STATUS = frozenset({501, 505})
# Error codes of S3, sent with a status of 400, 403 or 409.
_TRANSIENT_CODES = frozenset(
    {
        "BadDigest",
        "IncompleteBody",
        "OperationAborted",
        "RequestLimitExceeded",
        "RequestTimeout",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "XAmzContentSHA256Mismatch",
    }
)
_TRANSIENT_ERRNO = frozenset(
    getattr(errno, name)
    for name in (
        "EAGAIN",
        "EBUSY",
        "ECONNABORTED",
        "ECONNREFUSED",
        "ECONNRESET",
        "EHOSTUNREACH",
        "ENETDOWN",
        "ENETUNREACH",
        "EPIPE",
        "EREMOTEIO",
        "ETIMEDOUT",
    )
    if hasattr(errno, name)
)
# Exceptions of aiohttp, botocore, fsspec, http.client, requests and paramiko.
_TRANSIENT_NAMES = frozenset(
    {
        "ClientConnectionError",
        "ClientPayloadError",
        "ConnectionError",
        "HTTPClientError",
        "IncompleteRead",
        "IncompleteReadError",
        "ProtocolError",
        "ResponseParserError",
        "SSHException",
        "Timeout",
        "TimeoutError",
    }
)
_PERMANENT_NAMES = frozenset(
    {
        "AuthenticationException",
        "CertificateError",
        "ClientConnectorCertificateError",
        "SSLCertVerificationError",
    }
)


@dataclass(frozen=True)
class Patience:
    """Limits of the retries of a call.

    Attributes:
        tries: Maximum number of tries.
        first: Seconds before the second try. The pause doubles before each further try. Each pause is
            shortened by a random share of up to a half, so that calls that failed together do not return
            together.
        longest: Maximum number of seconds between two tries.
        total: Number of seconds after which no further try begins.
    """

    tries: int = 8
    first: float = 0.2
    longest: float = 15.0
    total: float = 120.0

    def pauses(self) -> Iterator[float]:
        """Yield the pauses between the tries, in seconds."""
        for number in range(self.tries - 1):
            yield min(self.first * 2**number, self.longest) * random.uniform(0.5, 1)  # noqa: S311


class Retrier:
    """Repeats failed calls until it is stopped. May be used from several threads."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._stopped = threading.Event()

    def call(self, attempt: Callable[[], T]) -> T:
        """Return the result of `attempt`. It is called again after transient errors.

        Raises:
            Exception: The exception of the last call.
        """
        begun = time.monotonic()
        for pause in self._patience.pauses():
            try:
                return attempt()
            except Exception as error:
                if not is_transient(error) or time.monotonic() - begun + pause > self._patience.total:
                    raise
                if self._stopped.wait(pause):
                    raise
        return attempt()

    def stop(self) -> None:
        """Stop all retries from now on."""
        self._stopped.set()


def is_transient(error: BaseException) -> bool:
    """Return True if the same call may succeed the next time."""
    chain = list(_causes(error))
    names = {name for each in chain for name in _names(each)}
    if names & _PERMANENT_NAMES:
        return False
    if names & _TRANSIENT_NAMES or any(_code(each) in _TRANSIENT_CODES for each in chain):
        return True
    status = _status(chain)
    if status is not None:
        return status in _TRANSIENT_STATUS or (status >= 500 and status not in _PERMANENT_STATUS)
    return any(isinstance(each, OSError) and each.errno in _TRANSIENT_ERRNO for each in chain)


def is_missing(error: BaseException) -> bool:
    """Return True if the error means that no object has the name."""
    chain = list(_causes(error))
    status = _status(chain)
    if status is None:
        return all(isinstance(each, FileNotFoundError | KeyError) for each in chain)
    return isinstance(error, FileNotFoundError) and status in (404, 410)


def explained(error: BaseException) -> str:
    """Return an explanation of the error, in one line without secrets."""
    chain = list(_causes(error))
    status = _status(chain)
    if status is not None:
        phrase = responses.get(status, "")
        message = next(filter(None, map(_message, chain)), phrase)
        more = "" if message.lower() == phrase.lower() else f": {message}"
        return redacted(one_line(f"the store answered {status} {phrase}{more}"))
    if is_missing(error):  # its text is only the path
        return NOT_THERE
    for each in reversed(chain):
        if text := one_line(getattr(each, "strerror", None) or each):
            return redacted(text)
    return "timed out" if isinstance(error, TimeoutError) else type(error).__name__


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, the error that it was raised from, and so on."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        yield following
        seen.add(id(following))
        following = following.__cause__


def _names(error: BaseException) -> Iterator[str]:
    return (kind.__name__ for kind in type(error).__mro__)


def _response(error: BaseException) -> dict[str, dict[str, object]]:
    """Return the response that botocore attaches to an error; empty if there is none."""
    response = getattr(error, "response", None)
    return response if isinstance(response, dict) else {}


def _code(error: BaseException) -> object:
    return _response(error).get("Error", {}).get("Code")


def _message(error: BaseException) -> str:
    message = _response(error).get("Error", {}).get("Message") or getattr(error, "message", None)
    return message if isinstance(message, str) else ""


def _status(chain: list[BaseException]) -> int | None:
    """Return the HTTP status that caused an error; None if no HTTP status did."""
    for error in chain:
        if "HttpProcessingError" in _names(error):  # aiohttp's error for a truncated response
            return None
        by_botocore = _response(error).get("ResponseMetadata", {}).get("HTTPStatusCode")
        by_others = (getattr(error, name, None) for name in ("status", "status_code", "code"))
        for value in itertools.chain([by_botocore], by_others):  # an error with several has the same in all
            if isinstance(value, int) and 400 <= value < 600:
                return value
    return None
