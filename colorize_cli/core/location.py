"""Where files are: paths on this machine, and addresses in remote stores.

An address may hold secrets: a password, or the signature in a link that gives access. What is shown of it, in
messages, JSON lines, reports and notes, is without them.
"""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

_SCHEME = r"[a-z][a-z0-9+.-]+"  # of one letter it would be a drive of Windows
# What fsspec takes for an address: `s3://b/k`, or several, of which each lies in the next, `zip://a::s3://b/k`.
_URL = re.compile(rf"{_SCHEME}(?:::{_SCHEME})*://", re.IGNORECASE)
_CHAIN = re.compile(rf"::(?={_SCHEME}(?:::|://))", re.IGNORECASE)
# One address in a text, up to where it ends or the next one of a chain begins.
_ADDRESS = re.compile(rf"{_SCHEME}://(?:(?!{_CHAIN.pattern})[^\s'\"<>])*", re.IGNORECASE)
_QUERY = re.compile(r"\?[^\s'\"<>=]*=[^\s'\"<>]*")
_LOCAL = ("file://", "local://")
_WEB = ("http", "https")
# A parameter of an address that is not of the web, where what follows a ? may as well be part of a name.
_SECRET = re.compile(r"(auth|credential|key|passw|secret|sig|token)[^=&]*=", re.IGNORECASE)


@dataclass(frozen=True, repr=False)
class Url:
    """An address in a remote store.

    `str` gives what may be shown of it: no user with a password, and of a web address nothing after a `?`.

    Attributes:
        text: The address as it was given; it may hold secrets.
    """

    text: str

    def __str__(self) -> str:
        return "::".join(map(_without_secrets, _CHAIN.split(self.text)))

    def __repr__(self) -> str:
        return f"Url({str(self)!r})"

    @property
    def is_web(self) -> bool:
        """Whether a browser can open it: then % is an escape, and neither ? nor # is part of a name."""
        return self.text.partition("://")[0].lower() in _WEB

    @property
    def name(self) -> str:
        """The last part of its path, as a file is called."""
        path = _first(self.text)[1].partition("://")[2]
        if self.is_web:
            path = unquote(re.split("[?#]", path, maxsplit=1)[0].partition("/")[2])
        return path.rstrip("/").rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The ending of its name, with the dot."""
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> str:
        """What it lies in, as it may be shown."""
        return str(self).rstrip("/").rpartition("/")[0]

    def below(self, name: str) -> "Url":
        """The address of what lies in it under a name, which may have several parts."""
        before, own, after = _first(self.text)
        return Url(f"{before}{own.rstrip('/')}/{name}{after}")

    def above(self, levels: int) -> "Url":
        """The address without the last parts of its path, of so many."""
        before, own, after = _first(self.text)
        return Url(f"{before}{own.rstrip('/').rsplit('/', levels)[0]}{after}")


Location = Path | Url
# In place of a file: standard input or output. A file of that name has a directory before it.
STREAM = Path("-")


def parse_location(text: str) -> Location:
    """What a user's text stands for; `file://` is a path, as is what begins with a directory (`./s3://a`)."""
    for prefix in _LOCAL:
        if text.startswith(prefix):
            return Path(text.removeprefix(prefix))
    return Url(text) if _URL.match(text) else Path(text)


def redacted(text: object) -> str:
    """The text of an error in which no address shows a secret, nor the part of one that a server repeats.

    Addresses end there where white space or a quote comes.
    """
    return _QUERY.sub("", _ADDRESS.sub(lambda match: _without_secrets(match[0]), str(text)))


def _without_secrets(address: str) -> str:
    scheme, colon, rest = address.partition("://")
    if not colon:
        return address
    web = scheme.lower() in _WEB
    if web:
        rest = re.split("[?#]", rest, maxsplit=1)[0]
    elif _SECRET.search(rest.partition("?")[2]):
        rest = rest.partition("?")[0]
    authority, slash, path = rest.partition("/")
    user, _, host = authority.rpartition("@")
    if web or ":" in user:
        authority = host
    if "@" in path and re.search(r":[^\]]*[^\]\d]", authority):  # a password with a / in it
        return f"{scheme}://{path.rpartition('@')[2]}"
    return f"{scheme}://{authority}{slash}{path}"


def _first(text: str) -> tuple[str, str, str]:
    """The first address of a chain that has a path, with what is before and after it."""
    start = text.rfind("::", 0, text.find("://"))
    start = 0 if start < 0 else start + 2
    chain = _CHAIN.search(text, start)
    end = chain.start() if chain else len(text)
    return text[:start], text[start:end], text[end:]
