"""Records of outputs, and the states of an output. Both manifests, here and in stores, have them.

`engine.outputs` decides by them whether a job is skipped.
"""

import contextlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import Enum
from typing import Any

from colorize_cli.core.formats import SUFFIXES_KEPT_IN_NAME
from colorize_cli.core.jobs import UP_TO_DATE, LocalFiles
from colorize_cli.storage.filesystem import Fingerprint, SourceFingerprint

_LEFT_OUT = frozenset({"version", "content", "address"})  # of a line where they are empty


class State(Enum):
    """States of an output in view of a run."""

    ABSENT = "absent"
    CURRENT = UP_TO_DATE
    STALE = "made from another input or by another recipe"
    FOREIGN = "there already, not as colorize left it"
    UNDECIDED = "in a store, to be fetched to find out"


@dataclass(frozen=True)
class Record:
    """One line of a manifest, which records how an output was made.

    Attributes:
        output: Path of the output below the output directory.
        written: Fingerprint of the output. In a store its version is empty until the output is uploaded.
        source: Fingerprint of its source.
        recipe: Digest of the model and of the options that decide pixels.
        content: Digest of the output's content; in stores only.
        address: Location of the source, without secrets; in stores only.
    """

    output: str
    written: Fingerprint
    source: SourceFingerprint
    recipe: str
    content: str = ""
    address: str = ""

    def to_line(self) -> bytes:
        """Return the record as a line of JSON. Names that are not valid Unicode are preserved."""
        values = asdict(self, dict_factory=lambda pairs: {k: v for k, v in pairs if v or k not in _LEFT_OUT})
        return json.dumps(values, separators=(",", ":")).encode() + b"\n"

    @staticmethod
    def from_line(line: bytes) -> "Record":
        """Parse a line made by `to_line`, or for a store by an earlier version.

        Raises:
            ValueError: The line is not a record.
        """
        try:
            values: dict[str, Any] = json.loads(line)
            if "written" not in values:
                written = Fingerprint(values["size"], 0, values["version"])
            else:
                written = Fingerprint(**values["written"])
            source = SourceFingerprint.from_values(values["source"])
            content, address = str(values.get("content", "")), str(values.get("address", ""))
            return Record(str(values["output"]), written, source, str(values["recipe"]), content, address)
        except (KeyError, TypeError, RecursionError) as error:
            raise ValueError("not a record") from error


def source_of(files: LocalFiles) -> SourceFingerprint:
    """Read a job's source and return its fingerprint. A staged copy has the size and version of its object.

    Raises:
        OSError: The source cannot be read.
    """
    source, found = SourceFingerprint.of(files.source), files.job.found
    return source if found is None else replace(source, stamp=Fingerprint.of(found))


def earlier_name(name: str, files: LocalFiles) -> str | None:
    """Return the name that earlier versions gave an output: `a.png` instead of `a.gif.png`.

    Args:
        name: Path of the output below the output directory.
        files: The files of the job.

    Returns:
        The path below the output directory; None if the name is the same.
    """
    source, suffix = files.job.source.suffix, files.job.destination.suffix
    is_kept = source.lower() in SUFFIXES_KEPT_IN_NAME - {suffix.lower()}
    stem = name.removesuffix(f"{source}{suffix}")
    return f"{stem}{suffix}" if is_kept and stem != name else None


def made_from(record: Record, files: LocalFiles) -> bool:
    """Return True if an output was made from the source of a job, which is read if its time has changed."""
    with contextlib.suppress(OSError):
        found = files.job.found
        stamp = Fingerprint.of(files.source.stat() if found is None else found)
        return record.source.stamp == stamp or record.source.content == source_of(files).content
    return False


def state_of(
    records: Sequence[Record], files: LocalFiles, recipe: str, *, checksum: bool = False
) -> tuple[State, Record | None]:
    """Return the state of an output that exists.

    The source is read if its time or version has changed since the output was made.

    Args:
        records: The records with the fingerprint of the output.
        files: The files of the job.
        recipe: Digest of the model and of the options that decide pixels, for this run.
        checksum: True to read a source on this machine even if its size and time are unchanged.

    Returns:
        The state, and a record to add for the next run if the source has changed but not its content.

    Raises:
        OSError: The source does not exist.
    """
    found = files.job.found
    stamp = Fingerprint.of(files.source.stat() if found is None else found)
    if not records:
        return State.FOREIGN, None
    same = [record for record in records if record.recipe == recipe]
    unchanged = any(record.source.stamp == stamp for record in same)
    if unchanged and not (checksum and found is None):
        return State.CURRENT, None
    if same:
        with contextlib.suppress(OSError):
            source = source_of(files)
            for record in same:
                if record.source.content == source.content:
                    return State.CURRENT, None if unchanged else replace(record, source=source)
    return State.STALE, None
