"""The engine for this machine: images in a pipeline of concurrent stages, then videos one after the other."""

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
    """Colorize images, then videos. Yields skipped jobs first, then outcomes as they end.

    Args:
        plan: The jobs.
        settings: The settings of the run.
        announce: Called with one line about the chosen device if `settings.device` is "auto".
        progress: Called with the position in a video after each frame.

    Raises:
        ModelError: The model cannot be loaded. Raised only if at least one job is not skipped.
        DeviceError: The requested device does not work. Raised only if at least one job is not skipped.
        UsageError: The output directory cannot be created, or the hints or the reference cannot be used.
    """
    guidance = Guidance.of(settings, plan)
    if not plan.jobs:
        return
    session = Session(plan.root, settings, guidance, announce, progress)
    try:
        images: list[Job] = []
        videos: list[Job] = []
        for job in plan.jobs:
            if (skipped := session.skipped(job)) is not None:
                yield skipped
            else:
                (videos if is_video_job(job) else images).append(job)
        if images or videos:
            session.open(many=are_many(len(images), videos=bool(videos)))
        if images:
            yield from session.colorize_images(images)
        for job in videos:
            yield session.colorize_video(job)
    finally:
        session.close()


def preview(plan: Plan, settings: Settings) -> Iterator[tuple[Job, str | None]]:
    """Yield each job with the reason why `run` would skip it, or None. Writes nothing.

    Raises:
        ModelError: The model cannot be read.
        UsageError: The hints or the reference cannot be used.
    """
    outputs = Outputs(plan.root, settings, Guidance.of(settings, plan), read_only=True)
    for job in plan.jobs:
        yield job, outputs.reason_to_skip(job)
