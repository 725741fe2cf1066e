"""Trying again what may go better the next time, and saying in one line what went wrong.

Stores fail in the errors of many libraries, some of which say one thing and were caused by another: a web
server's 503 comes as a FileNotFoundError. So it is the whole chain of causes that is looked at. The libraries
are known by their errors' names only, for not all of them are installed.
"""

import errno
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import responses
from typing import TypeVar

from colorize_cli.core.errors import one_line
from colorize_cli.core.location import redacted

T = TypeVar("T")

NOT_THERE = "there is no such object"

# Besides these all answers from 500 on; of the two that say "not implemented" nothing changes.
_TRANSIENT_STATUS = frozenset({408, 425, 429})
_PERMANENT_STATUS = frozenset({501, 505})
# What S3 says with a status of 400, 403 or 409.
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
# Of aiohttp, botocore, fsspec, http.client, requests, paramiko.
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
    """How often and for how long something is tried.

    Attributes:
        tries: How often.
        first: Seconds before the second try; before each further one twice as many, all less up to a half by
            chance, so that what failed together does not come back together.
        longest: Most seconds between two tries.
        total: Seconds after which no further try is begun.
    """

    tries: int = 8
    first: float = 0.2
    longest: float = 15.0
    total: float = 120.0

    def pauses(self) -> Iterator[float]:
        """Seconds between the tries."""
        for number in range(self.tries - 1):
            yield min(self.first * 2**number, self.longest) * random.uniform(0.5, 1)  # noqa: S311


class Retrier:
    """Tries things, until it is stopped. May be used from several threads."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._stopped = threading.Event()

    def call(self, attempt: Callable[[], T]) -> T:
        """What `attempt` returns; it is called again where it failed for a reason that may pass.

        Raises:
            Exception: What it raised the last time.
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
        """Nothing is tried again from now on."""
        self._stopped.set()


def is_transient(error: BaseException) -> bool:
    """Whether the same may go well the next time."""
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
    """Whether it says that there is nothing under the name."""
    chain = list(_causes(error))
    status = _status(chain)
    if status is None:
        return all(isinstance(each, FileNotFoundError | KeyError) for each in chain)
    return isinstance(error, FileNotFoundError) and status in (404, 410)


def explained(error: BaseException) -> str:
    """What went wrong, in one line without secrets."""
    chain = list(_causes(error))
    status = _status(chain)
    if status is not None:
        phrase = responses.get(status, "")
        said = next(filter(None, map(_message, chain)), phrase)
        more = "" if said.lower() == phrase.lower() else f": {said}"
        return redacted(one_line(f"the store answered {status} {phrase}{more}"))
    if is_missing(error):  # the text is but its path
        return NOT_THERE
    for each in reversed(chain):
        if text := one_line(getattr(each, "strerror", None) or each):
            return redacted(text)
    return "timed out" if isinstance(error, TimeoutError) else type(error).__name__


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error, and what it was raised from, and so on."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        yield following
        seen.add(id(following))
        following = following.__cause__


def _names(error: BaseException) -> Iterator[str]:
    return (kind.__name__ for kind in type(error).__mro__)


def _response(error: BaseException) -> dict[str, dict[str, object]]:
    """What botocore keeps of an answer."""
    response = getattr(error, "response", None)
    return response if isinstance(response, dict) else {}


def _code(error: BaseException) -> object:
    return _response(error).get("Error", {}).get("Code")


def _message(error: BaseException) -> str:
    said = _response(error).get("Error", {}).get("Message") or getattr(error, "message", None)
    return said if isinstance(said, str) else ""


def _status(chain: list[BaseException]) -> int | None:
    """The status of the answer that an error came of, if it came of one."""
    for error in chain:
        if "HttpProcessingError" in _names(error):  # aiohttp's, of an answer that breaks off
            return None
        answer = _response(error).get("ResponseMetadata", {}).get("HTTPStatusCode")
        for name in ("", "status", "status_code", "code"):  # what has several means the same by them
            value = getattr(error, name, None) if name else answer
            if isinstance(value, int) and 400 <= value < 600:
                return value
    return None
