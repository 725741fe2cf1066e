"""Whether a file is still what it was: its size, its time, and a digest of its content."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_DIGITS = 32  # of a digest that are noted


@dataclass(frozen=True)
class Fingerprint:
    """What changes when a file is written to.

    Attributes:
        size: In bytes.
        mtime_ns: The time of modification; of an object in a store 0.
        version: Of an object in a store what that calls its version, in whatever form; of a file empty.
    """

    size: int
    mtime_ns: int = 0
    version: str = ""

    @staticmethod
    def of(stat: os.stat_result) -> "Fingerprint":
        """The stamp of a file."""
        return Fingerprint(stat.st_size, stat.st_mtime_ns)


@dataclass(frozen=True)
class SourceFingerprint:
    """A source as it was read: its stamp, and a digest of its content."""

    stamp: Fingerprint
    content: str

    @staticmethod
    def from_values(values: dict[str, Any]) -> "SourceFingerprint":
        """The inverse of `asdict`, of values that were JSON.

        Raises:
            KeyError, TypeError: They are no such values.
        """
        return SourceFingerprint(Fingerprint(**values["stamp"]), str(values["content"]))

    @staticmethod
    def of(path: Path) -> "SourceFingerprint":
        """Reads the file.

        Raises:
            OSError: It cannot be read.
        """
        with path.open("rb") as file:
            fingerprint = Fingerprint.of(os.fstat(file.fileno()))
            return SourceFingerprint(fingerprint, hashlib.file_digest(file, "sha256").hexdigest()[:_DIGITS])


# Of a source that could not be read to its end: it counts as changed, so that the next run tries it again.
DAMAGED = SourceFingerprint(Fingerprint(0), "damaged")
