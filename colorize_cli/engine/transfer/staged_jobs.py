"""Remote jobs as jobs on this machine, with files in the staging directory for those that are in a store."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from colorize_cli.core.jobs import Job, Outcome, Plan, Status, Transfer
from colorize_cli.core.settings import Settings
from colorize_cli.guidance import Guidance
from colorize_cli.storage.remote import RemotePath
from colorize_cli.storage.remote_discovery import RemoteJob, RemotePlan


@dataclass(frozen=True)
class StagedJob:
    """A remote job, and the job that stands for it."""

    remote_job: RemoteJob
    job: Job

    def ended(self, status: Status, reason: str | None = None) -> Outcome:
        """An end of it in which nothing was made."""
        return Outcome(self.remote_job.transfer, status, reason)

    def shown(self, outcome: Outcome) -> Outcome:
        """The outcome of its job as its own: with addresses for the names of staged files."""
        transfer, reason = self.remote_job.transfer, outcome.reason
        if reason is not None:
            reason = reason.replace(str(self.job.source), str(transfer.source))
            reason = reason.replace(str(self.job.destination), str(transfer.destination))
        files = self.job if outcome.status is Status.DONE else None
        job = Transfer(transfer.source, transfer.destination, files)
        return Outcome(**{**vars(outcome), "job": job, "reason": reason})

    def forget(self) -> None:
        """Removes its files from the staging directory."""
        if isinstance(self.remote_job.source, RemotePath):
            self.job.source.unlink(missing_ok=True)
        if isinstance(self.remote_job.destination, RemotePath):
            self.job.destination.unlink(missing_ok=True)


def stage_jobs(plan: RemotePlan, folder: Path) -> list[StagedJob]:
    """The remote jobs of a plan, each with its job.

    Args:
        plan: What to colour.
        folder: The staging directory. Its files are called by numbers, for objects may be called anything.
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
    """What is asked of the colours of the tasks' jobs; pictures are known by their own names in it.

    Raises:
        UsageError: As of `Guidance.of`.
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
    """An address as a path of no file."""
    return location if isinstance(location, Path) else Path(str(location.url))
