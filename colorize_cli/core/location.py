"""Locations of files: paths on this machine, and URLs in remote stores.

A URL may hold secrets: a password, or the signature of a link that grants access. Messages, JSON lines,
reports and manifests show URLs without them.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

_SCHEME = r"[a-z][a-z0-9+.-]+"  # at least two characters, because a single letter is a Windows drive
# A URL as fsspec defines it: `s3://b/k`, or a chain, in which each lies inside the next: `zip://a::s3://b/k`.
_URL = re.compile(rf"{_SCHEME}(?:::{_SCHEME})*://", re.IGNORECASE)
_CHAIN = re.compile(rf"::(?={_SCHEME}(?:::|://))", re.IGNORECASE)
# One URL in a text, up to its end or the beginning of the next URL of a chain.
_URL_IN_TEXT = re.compile(rf"{_SCHEME}://(?:(?!{_CHAIN.pattern})[^\s'\"<>])*", re.IGNORECASE)
_QUERY = re.compile(r"\?[^\s'\"<>=]*=[^\s'\"<>]*")
_LOCAL = ("file://", "local://")
_WEB = ("http", "https")
# A secret parameter, to recognize a query in URLs of other schemes, where a ? may also be part of a name.
_SECRET = re.compile(r"(auth|credential|key|passw|secret|sig|token)[^=&]*=", re.IGNORECASE)


@dataclass(frozen=True, repr=False)
class Url:
    """A URL in a remote store.

    `str` returns it without secrets: without a user name that has a password, and a web URL also without
    user name, query and fragment.

    Attributes:
        text: The URL as given by the user. It may hold secrets.
        path: Path in the store's form, if the store gave it: a name may hold characters that have another
            meaning in a URL. It may hold secrets on the web.
    """

    text: str
    path: str | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return "::".join(map(_without_secrets, _CHAIN.split(self.text)))

    def __repr__(self) -> str:
        return f"Url({str(self)!r})"

    @property
    def is_web(self) -> bool:
        """True if a browser can open it. In such a URL % is an escape, and no name contains ? or #."""
        return self.text.partition("://")[0].lower() in _WEB

    @property
    def name(self) -> str:
        """The last part of the path, as a file name. The escapes of a web URL are decoded."""
        path = _first(self.text)[1].partition("://")[2]
        if self.is_web:
            path = unquote(re.split("[?#]", path, maxsplit=1)[0].partition("/")[2])
        return path.rstrip("/").rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The suffix of the name, with the dot."""
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> str:
        """The URL of the containing directory, without secrets."""
        return str(self).rstrip("/").rpartition("/")[0]

    def __truediv__(self, name: str) -> "Url":
        """Return the URL of `name`, which may have several parts, below this one."""
        before, first, after = _first(self.text)
        path = None if self.path is None else f"{self.path}/{name}"
        return Url(f"{before}{first.rstrip('/')}/{name}{after}", path)

    def above(self, levels: int) -> "Url":
        """Return the URL without the last `levels` parts of its path."""
        before, first, after = _first(self.text)
        return Url(f"{before}{first.rstrip('/').rsplit('/', levels)[0]}{after}")


Location = Path | Url
# Stands for standard input or output. The path of a file with this name includes a directory.
STREAM = Path("-")


def parse_location(text: str) -> Location:
    """Return the location that a user's text stands for.

    A `file://` URL becomes a path. A text that begins with a directory (`./s3://a`) is a path too.
    """
    for prefix in _LOCAL:
        if text.startswith(prefix):
            return Path(text.removeprefix(prefix))
    return Url(text) if _URL.match(text) else Path(text)


def absolute(location: Location) -> Location:
    """Return a path as absolute, for a process with another working directory, and a URL as it is."""
    return location.absolute() if isinstance(location, Path) else location


def redacted(text: object) -> str:
    """Remove the secrets of all URLs from an error's text, and the queries that a server repeats.

    A URL is taken to end at white space or a quote.
    """
    return _QUERY.sub("", _URL_IN_TEXT.sub(lambda match: _without_secrets(match[0]), str(text)))


def _without_secrets(url: str) -> str:
    scheme, colon, rest = url.partition("://")
    if not colon:
        return url
    web = scheme.lower() in _WEB
    if web:
        rest = re.split("[?#]", rest, maxsplit=1)[0]
    elif _SECRET.search(rest.partition("?")[2]):
        rest = rest.partition("?")[0]
    authority, slash, path = rest.partition("/")
    user, _, host = authority.rpartition("@")
    if web or ":" in user:
        authority = host
    if "@" in path and re.search(r":[^\]]*[^\]\d]", authority):  # a password that contains a /
        return f"{scheme}://{path.rpartition('@')[2]}"
    return f"{scheme}://{authority}{slash}{path}"


def _first(text: str) -> tuple[str, str, str]:
    """Return the first URL of a chain that has a path, between the texts before and after it."""
    start = text.rfind("::", 0, text.find("://"))
    start = 0 if start < 0 else start + 2
    chain = _CHAIN.search(text, start)
    end = chain.start() if chain else len(text)
    return text[:start], text[start:end], text[end:]
