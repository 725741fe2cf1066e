"""Encoding does not depend on the machine."""

import dataclasses
import os

import pytest

from colorize_cli.core.settings import VideoSettings
from colorize_cli.video import encoder, reader
from tests.helpers.videos import Recipe, make, packets


def repeatable(encoding: encoder.Encoding) -> encoder.Encoding:
    """Disable x264's assembly, because its AVX-512 code is not reproducible."""
    if encoding.codec != "libx264":
        return encoding
    return dataclasses.replace(encoding, options={**encoding.options, "x264-params": "asm=0"})


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="the number of cores cannot be chosen here",
)
@pytest.mark.parametrize(
    ("kind", "codec"), [(".mp4", None), (".webm", None), (".avi", None), (".mpg", None), (".mkv", "libx265")]
)
def test_encoding_is_independent_of_cores(tmp_path, kind, codec):
    path = make(
        tmp_path / "a.mkv", Recipe(frames=60, width=256, height=256, cut=33, time_base=1 / Recipe().rate)
    )
    cpus, found = os.sched_getaffinity(0), []
    for cores in (1, 2):
        os.sched_setaffinity(0, sorted(cpus)[:cores])
        try:
            with reader.opened(path) as video:
                chosen = repeatable(encoder.choose(kind, video.info, VideoSettings(codec=codec)))
                output = tmp_path / f"{cores}.nut"
                with encoder.segment(output, video.info, chosen, video.first) as segment:
                    for frame in video.frames():
                        segment.add(frame)
        finally:
            os.sched_setaffinity(0, cpus)
        found.append(packets(output))
    assert len(found[0]) >= 60
    assert found[0] == found[1]
