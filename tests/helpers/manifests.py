"""Outputs and their records in a local manifest."""

from pathlib import Path

from colorize_cli.core.jobs import Job, LocalFiles
from colorize_cli.storage.filesystem import Fingerprint, SourceFingerprint
from colorize_cli.storage.manifest_local import LocalManifest


def files(source: Path, destination: Path) -> LocalFiles:
    return LocalFiles(Job(source, destination), source, destination)


def make(job: LocalFiles, manifest: LocalManifest, content: bytes = b"color", recipe: str = "r") -> None:
    job.destination.parent.mkdir(parents=True, exist_ok=True)
    job.destination.write_bytes(content)
    manifest.add(job, SourceFingerprint.of(job.source), Fingerprint.of(job.destination.stat()), recipe)


def made(job: LocalFiles, root: Path, recipe: str = "r") -> None:
    manifest = LocalManifest(root)
    make(job, manifest, recipe=recipe)
    manifest.close()
