"""What is noted of an output, and what an output is to a run."""

import json
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from colorize_cli.storage.fingerprint import Fingerprint, SourceFingerprint

DIRECTORY = ".colorize"


class State(Enum):
    """What an output is to a run."""

    ABSENT = "absent"
    CURRENT = "up to date"
    STALE = "made from another input or by another recipe"
    FOREIGN = "there already, not as colorize left it"


@dataclass(frozen=True)
class Record:
    """A line: how an output was made.

    Attributes:
        output: Its path below the output directory.
        written: Its stamp.
        source: What it was made from.
        recipe: Digest of the model and the options that shape pixels.
    """

    output: str
    written: Fingerprint
    source: SourceFingerprint
    recipe: str

    def to_line(self) -> bytes:
        """As JSON; names that are not Unicode survive."""
        values = asdict(self, dict_factory=lambda pairs: {k: v for k, v in pairs if v or k != "version"})
        return json.dumps(values, separators=(",", ":")).encode() + b"\n"

    @staticmethod
    def from_line(line: bytes) -> "Record":
        """The inverse of `to_line`.

        Raises:
            ValueError: It is no such line.
        """
        try:
            values: dict[str, Any] = json.loads(line)
            return Record(
                str(values["output"]),
                Fingerprint(**values["written"]),
                SourceFingerprint.from_values(values["source"]),
                str(values["recipe"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"no record: {line!r}") from error
