"""Records of outputs, and the states of an output.

`engine.outputs` decides by them whether a job is skipped; for remote outputs `engine.transfer.running` does.
"""

import json
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from colorize_cli.storage.fingerprint import Fingerprint, SourceFingerprint

DIRECTORY = ".colorize"


class State(Enum):
    """States of an output in view of a run."""

    ABSENT = "absent"
    CURRENT = "up to date"
    STALE = "made from another input or by another recipe"
    FOREIGN = "there already, not as colorize left it"


@dataclass(frozen=True)
class Record:
    """One line of a manifest, which records how an output was made.

    Attributes:
        output: Path of the output below the output directory.
        written: Fingerprint of the output.
        source: Fingerprint of its source.
        recipe: Digest of the model and of the options that decide pixels.
    """

    output: str
    written: Fingerprint
    source: SourceFingerprint
    recipe: str

    def to_line(self) -> bytes:
        """Return the record as a line of JSON. Names that are not valid Unicode are preserved."""
        values = asdict(self, dict_factory=lambda pairs: {k: v for k, v in pairs if v or k != "version"})
        return json.dumps(values, separators=(",", ":")).encode() + b"\n"

    @staticmethod
    def from_line(line: bytes) -> "Record":
        """Parse a line made by `to_line`.

        Raises:
            ValueError: The line is not a record.
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
            raise ValueError(f"not a record: {line!r}") from error
