"""Remote jobs as local jobs, with files in the staging directory for objects in a store."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from colorize_cli.core.jobs import Job, Outcome, Plan, Status, Transfer
from colorize_cli.core.settings import Settings
from colorize_cli.guidance import Guidance
from colorize_cli.storage.remote import RemotePath
from colorize_cli.storage.remote_discovery import RemoteJob, RemotePlan


@dataclass(frozen=True)
class StagedJob:
    """A remote job, and the local job that stands for it."""

    remote_job: RemoteJob
    job: Job

    def shown(self, outcome: Outcome) -> Outcome:
        """Convert an outcome of the local job: staged file names become the remote job's locations."""
        transfer, reason = self.remote_job.transfer, outcome.reason
        if reason is not None:
            reason = reason.replace(str(self.job.source), str(transfer.source))
            reason = reason.replace(str(self.job.destination), str(transfer.destination))
        files = self.job if outcome.status is Status.DONE else None
        job = Transfer(transfer.source, transfer.destination, files)
        return replace(outcome, job=job, reason=reason)

    def forget(self) -> None:
        """Remove its files from the staging directory."""
        if isinstance(self.remote_job.source, RemotePath):
            self.job.source.unlink(missing_ok=True)
        if isinstance(self.remote_job.destination, RemotePath):
            self.job.destination.unlink(missing_ok=True)


def stage_jobs(plan: RemotePlan, folder: Path) -> list[StagedJob]:
    """Pair each remote job of a plan with a local job.

    Args:
        plan: The remote jobs.
        folder: The staging directory. Its files get numbers as names, because the name of an object need not
            be a valid file name.
    """
    for name in ("in", "out"):
        (folder / name).mkdir()

    def local(location: Path | RemotePath, name: str, number: int) -> Path:
        return (
            location if isinstance(location, Path) else folder / name / f"{number:06d}{location.url.suffix}"
        )

    return [
        StagedJob(
            remote_job,
            Job(local(remote_job.source, "in", number), local(remote_job.destination, "out", number)),
        )
        for number, remote_job in enumerate(plan.jobs)
    ]


def guidance_of(plan: RemotePlan, settings: Settings, staged_jobs: Sequence[StagedJob]) -> Guidance:
    """Return the guidance for the local jobs. Hints name the sources by their remote names.

    Raises:
        UsageError: The hints or the reference cannot be used; see `Guidance.of`.
    """
    named = {_named(staged_job.remote_job): staged_job.job for staged_job in staged_jobs}
    elsewhere = tuple(map(_named, plan.elsewhere))
    root = None if plan.root is None else _path(plan.root)
    guidance = Guidance.of(settings, Plan(tuple(named), plan.ignored, root, elsewhere))
    return Guidance(
        {named[job]: hints for job, hints in guidance.hints.items() if job in named}, guidance.reference
    )


def _named(remote_job: RemoteJob) -> Job:
    return Job(_path(remote_job.source), _path(remote_job.destination))


def _path(location: Path | RemotePath) -> Path:
    """Return a path that has the text of the URL. It names no file."""
    return location if isinstance(location, Path) else Path(str(location.url))
