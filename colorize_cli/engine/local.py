"""All on this machine: pictures through stages that run at once, then films, one after the other."""

from collections.abc import Callable, Generator, Iterator

from colorize_cli.core.jobs import Job, Outcome, Plan, Progress
from colorize_cli.core.settings import Settings
from colorize_cli.engine.outputs import Outputs
from colorize_cli.engine.session import Session, are_many, is_video_job
from colorize_cli.guidance import Guidance


def run(
    plan: Plan,
    settings: Settings,
    announce: Callable[[str], None],
    progress: Progress = lambda _: None,
) -> Generator[Outcome, None, None]:
    """Colours pictures, then films; yields outcomes as they end, those skipped first.

    Args:
        plan: What to colour.
        settings: How.
        announce: Receives one line on the device chosen where `settings.device` is "auto".
        progress: Is told how far a film is, whenever a frame is done.

    Raises:
        ModelError: The model cannot be loaded. Like the next, only if there is anything to be done.
        DeviceError: The device asked for does not work.
        UsageError: The output directory cannot be made, or the hints or the reference cannot be used.
    """
    guidance = Guidance.of(settings, plan)
    if not plan.jobs:
        return
    session = Session(plan.root, settings, guidance, announce, progress)
    try:
        pictures: list[Job] = []
        videos: list[Job] = []
        for job in plan.jobs:
            if (skipped := session.skipped(job)) is not None:
                yield skipped
            else:
                (videos if is_video_job(job) else pictures).append(job)
        if pictures or videos:
            session.open(many=are_many(len(pictures), videos=bool(videos)))
        if pictures:
            yield from session.colorize_images(pictures)
        for job in videos:
            yield session.colorize_video(job)
    finally:
        session.close()


def preview(plan: Plan, settings: Settings) -> Iterator[tuple[Job, str | None]]:
    """What `run` would do: the jobs, and why each would be skipped, if it would. Nothing is written.

    Raises:
        ModelError: The model cannot be read.
        UsageError: The hints or the reference cannot be used.
    """
    outputs = Outputs(plan.root, settings, Guidance.of(settings, plan), read_only=True)
    for job in plan.jobs:
        yield job, outputs.reason_to_skip(job)
