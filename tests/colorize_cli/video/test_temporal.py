"""Chroma stays stable over time and changes at cuts."""

import numpy as np
import pytest

from colorize_cli.video.temporal import FlowTracker, KeyframeSelector, TemporalFilter

HEIGHT, WIDTH = 64, 96


def texture(seed: int) -> np.ndarray:
    """Return smooth noise in L*, wider than the frame."""
    import cv2

    noise = np.random.default_rng(seed).normal(size=(HEIGHT, 3 * WIDTH)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.5)
    return 50 + 18 * smooth / smooth.std()


def scene(seed: int, frames: int, speed: float = 2) -> list[np.ndarray]:
    """Return frames of a camera that pans over a texture."""
    whole = texture(seed)
    return [np.ascontiguousarray(whole[:, round(speed * n) :][:, :WIDTH]) for n in range(frames)]


def chroma(value: float, noise: float, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (value + noise * random.normal(size=(2, HEIGHT // 2, WIDTH // 2))).astype(np.float32)


class Filter:
    """The whole filter, for a network that sees every frame."""

    def __init__(self, keep: float) -> None:
        self.tracker, self.steady = FlowTracker(), TemporalFilter(keep)

    @property
    def cuts(self) -> int:
        return self.steady.cuts

    def next(self, small: np.ndarray, ab: np.ndarray) -> np.ndarray:
        return self.steady.next(self.tracker.next(small), ab)


@pytest.mark.parametrize("speed", [0, 2])
def test_filter_reduces_flicker(speed):
    flickering = [chroma(20 + 5 * (-1) ** n, 0, n) for n in range(30)]
    steady = Filter(0.9)
    out = [steady.next(small, ab) for small, ab in zip(scene(0, 30, speed), flickering, strict=True)]
    tail = np.stack(out[15:])
    assert np.abs(np.diff(tail, axis=0)).mean() < 2.5  # of 10
    assert abs(tail.mean() - 20) < 2
    assert steady.cuts == 0


def test_filter_without_keep_returns_predictions():
    steady = Filter(0)
    for n, small in enumerate(scene(0, 5)):
        ab = chroma(10, 5, n)
        np.testing.assert_array_equal(steady.next(small, ab), ab)


def test_filter_carries_no_chroma_across_a_cut():
    steady = Filter(0.9)
    for small in scene(0, 8):
        steady.next(small, chroma(30, 0, 0))
    out = steady.next(scene(1, 1)[0], chroma(-30, 0, 0))
    np.testing.assert_array_equal(out, chroma(-30, 0, 0))
    assert steady.cuts == 1


@pytest.mark.parametrize(("width", "every"), [(WIDTH, 1), (WIDTH, 3), (WIDTH, None), (80, None)])
def test_filter_after_a_cut_equals_a_new_start(width, every):
    """Results are equal bit by bit. In small frames OpenCV computes the first flow differently."""
    shots = [small[:, :width] for small in (*scene(0, 7), *scene(1, 12))]
    after: list[list[np.ndarray]] = []
    for frames in (shots, shots[7:]):
        tracker, selector, steady = FlowTracker(), KeyframeSelector(every), TemporalFilter(0.9)
        out = []
        for n, small in enumerate(frames, 19 - len(frames)):
            motion = tracker.next(np.ascontiguousarray(small))
            ab = chroma(0, 20, n) if selector.next(motion) else None
            out.append(steady.next(motion, ab))
        after.append(out[-12:])
    np.testing.assert_array_equal(*after)


def test_brightness_change_is_not_a_cut():
    steady = Filter(0.9)
    for n, small in enumerate(scene(0, 20)):
        steady.next(small * (0.8 if n % 2 else 1.0), chroma(10, 0, 0))
    assert steady.cuts == 0


def test_filter_colors_follow_moving_objects():
    """Left of a moving edge is red, right of it is blue."""
    whole = texture(3)
    whole[:, 70:] = 95 - whole[:, 70:] / 2
    steady = Filter(0.9)
    for n in range(12):
        small = np.ascontiguousarray(whole[:, 3 * n :][:, :WIDTH])
        edge = (70 - 3 * n) // 2
        ab = np.full((2, HEIGHT // 2, WIDTH // 2), -20, np.float32)
        ab[:, :, : max(edge, 0)] = 20
        out = steady.next(small, ab)
    edge = (70 - 33) // 2
    assert out[0, :, : edge - 3].mean() > 17
    assert out[0, :, edge + 3 :].mean() < -17


def seen_of(frames: list[np.ndarray], every: int | None) -> list[bool]:
    tracker, selector = FlowTracker(), KeyframeSelector(every)
    return [selector.next(tracker.next(small)) for small in frames]


def test_selector_takes_every_nth_frame_and_the_first_of_a_shot():
    frames = scene(0, 8) + scene(1, 6)
    assert [n for n, seen in enumerate(seen_of(frames, 3)) if seen] == [0, 3, 6, 8, 11]
    assert all(seen_of(frames, 1))


def test_selector_in_auto_mode_takes_more_frames_in_fast_motion():
    calm, wild = seen_of(scene(0, 40, speed=1), None), seen_of(scene(0, 14, speed=12), None)
    assert calm.count(True) <= 12
    assert wild.count(True) > 10


@pytest.mark.parametrize("every", [2, 4, None])
def test_filter_colors_follow_motion_between_key_frames(every):
    whole = texture(3)
    whole[:, 70:] = 95 - whole[:, 70:] / 2
    tracker, selector, steady = FlowTracker(), KeyframeSelector(every), TemporalFilter(0.9)
    for n in range(18):
        motion = tracker.next(np.ascontiguousarray(whole[:, 2 * n :][:, :WIDTH]))
        edge = 35 - n
        ab = np.full((2, HEIGHT // 2, WIDTH // 2), -20, np.float32)
        ab[:, :, :edge] = 20
        out = steady.next(motion, ab if selector.next(motion) else None)
        assert out[0, :, : edge - 4].mean() > 16
        assert out[0, :, edge + 4 :].mean() < -16


def test_filter_adapts_as_fast_with_skipped_frames():
    def after(every: int) -> float:
        tracker, selector, steady = FlowTracker(), KeyframeSelector(every), TemporalFilter(0.9)
        for n, small in enumerate(scene(0, 25, speed=0)):
            motion = tracker.next(small)
            out = steady.next(motion, chroma(0 if n < 5 else 30, 0, n) if selector.next(motion) else None)
        return float(out.mean())

    assert abs(after(4) - after(1)) < 3


@pytest.mark.parametrize("every", [1, 3, None])
def test_filter_resumes_after_a_key_frame(every):
    frames = scene(2, 12, speed=1)
    colors = [chroma(10, 4, n) for n in range(12)]
    tracker, selector, steady = FlowTracker(), KeyframeSelector(every), TemporalFilter(0.8)
    whole = []
    for n, (small, ab) in enumerate(zip(frames, colors, strict=True)):
        motion = tracker.next(small)
        whole.append(steady.next(motion, ab if selector.next(motion, last=n == 5) else None))
    tracker, selector, resumed = FlowTracker(), KeyframeSelector(every), TemporalFilter(0.8)
    tracker.next(frames[5])
    resumed.resume(whole[5], 2)
    for small, ab, expected in zip(frames[6:], colors[6:], whole[6:], strict=True):
        motion = tracker.next(small)
        out = resumed.next(motion, ab if selector.next(motion) else None)
        np.testing.assert_array_equal(out, expected)
    assert resumed.cuts == 2
