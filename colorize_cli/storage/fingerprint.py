"""Fingerprints of files, to detect changes: size, modification time and a digest of the content."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_DIGITS = 32  # hexadecimal digits of a digest that are recorded


@dataclass(frozen=True)
class Fingerprint:
    """Properties of a file or object that change when it is written to.

    Attributes:
        size: Size in bytes.
        mtime_ns: Modification time of a file in nanoseconds; 0 for an object in a store.
        version: Version of an object, in whatever form the store gives it; empty for a file.
    """

    size: int
    mtime_ns: int = 0
    version: str = ""

    @staticmethod
    def of(stat: os.stat_result) -> "Fingerprint":
        """Return the fingerprint of a file, given its status."""
        return Fingerprint(stat.st_size, stat.st_mtime_ns)


@dataclass(frozen=True)
class SourceFingerprint:
    """Fingerprint and content digest of a source as it was read.

    Attributes:
        stamp: Size and time, or size and version.
        content: First 32 hexadecimal digits of the content's SHA-256.
    """

    stamp: Fingerprint
    content: str

    @staticmethod
    def from_values(values: dict[str, Any]) -> "SourceFingerprint":
        """Invert `asdict`, for values that were read from JSON.

        Raises:
            KeyError, TypeError: The values are not those of a SourceFingerprint.
        """
        return SourceFingerprint(Fingerprint(**values["stamp"]), str(values["content"]))

    @staticmethod
    def of(path: Path) -> "SourceFingerprint":
        """Read a file and return its fingerprint.

        Raises:
            OSError: The file cannot be read.
        """
        with path.open("rb") as file:
            fingerprint = Fingerprint.of(os.fstat(file.fileno()))
            return SourceFingerprint(fingerprint, hashlib.file_digest(file, "sha256").hexdigest()[:_DIGITS])


# Stands for a source that could not be read to its end. It counts as changed, so the next run tries it again.
DAMAGED = SourceFingerprint(Fingerprint(0), "damaged")
