"""Errands as jobs on this machine, with files in the staging directory for those that are in a store."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from colorize_cli.core.jobs import Job, Outcome, Plan, Status, Transfer
from colorize_cli.core.settings import Settings
from colorize_cli.guidance import Steering
from colorize_cli.storage.remote import Object
from colorize_cli.storage.remote_discovery import Errand, RemotePlan


@dataclass(frozen=True)
class Task:
    """An errand, and the job that stands for it."""

    errand: Errand
    job: Job

    def ended(self, status: Status, reason: str | None = None) -> Outcome:
        """An end of it in which nothing was made."""
        return Outcome(self.errand.transfer, status, reason)

    def shown(self, outcome: Outcome) -> Outcome:
        """The outcome of its job as its own: with addresses for the names of staged files."""
        transfer, reason = self.errand.transfer, outcome.reason
        if reason is not None:
            reason = reason.replace(str(self.job.source), str(transfer.source))
            reason = reason.replace(str(self.job.destination), str(transfer.destination))
        files = self.job if outcome.status is Status.DONE else None
        job = Transfer(transfer.source, transfer.destination, files)
        return Outcome(**{**vars(outcome), "job": job, "reason": reason})

    def forget(self) -> None:
        """Removes its files from the staging directory."""
        if isinstance(self.errand.source, Object):
            self.job.source.unlink(missing_ok=True)
        if isinstance(self.errand.destination, Object):
            self.job.destination.unlink(missing_ok=True)


def tasks_of(plan: RemotePlan, folder: Path) -> list[Task]:
    """The plan's errands, each with its job.

    Args:
        plan: What to colour.
        folder: The staging directory. Its files are called by numbers, for objects may be called anything.
    """
    for name in ("in", "out"):
        (folder / name).mkdir()

    def local(place: Path | Object, name: str, number: int) -> Path:
        return place if isinstance(place, Path) else folder / name / f"{number:06d}{place.url.suffix}"

    return [
        Task(errand, Job(local(errand.source, "in", number), local(errand.destination, "out", number)))
        for number, errand in enumerate(plan.jobs)
    ]


def steering_of(plan: RemotePlan, settings: Settings, tasks: Sequence[Task]) -> Steering:
    """What is asked of the colours of the tasks' jobs; pictures are known by their own names in it.

    Raises:
        UsageError: As of `Steering.of`.
    """
    named = {_named(task.errand): task.job for task in tasks}
    elsewhere = tuple(map(_named, plan.elsewhere))
    root = None if plan.root is None else _path(plan.root)
    steering = Steering.of(settings, Plan(tuple(named), plan.ignored, root, elsewhere))
    return Steering(
        {named[job]: hints for job, hints in steering.hints.items() if job in named}, steering.reference
    )


def _named(errand: Errand) -> Job:
    return Job(_path(errand.source), _path(errand.destination))


def _path(place: Path | Object) -> Path:
    """An address as a path of no file."""
    return place if isinstance(place, Path) else Path(str(place.url))
