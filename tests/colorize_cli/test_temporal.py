"""Chroma that stays where it is, and goes when the film cuts."""

import numpy as np
import pytest

from colorize_cli.temporal import Steady

HEIGHT, WIDTH = 64, 96


def texture(seed: int) -> np.ndarray:
    """Smooth noise, wider than the picture, L*."""
    import cv2

    noise = np.random.default_rng(seed).normal(size=(HEIGHT, 3 * WIDTH)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.5)
    return 50 + 18 * smooth / smooth.std()


def scene(seed: int, frames: int, speed: float = 2) -> list[np.ndarray]:
    """A camera that pans over a texture."""
    whole = texture(seed)
    return [np.ascontiguousarray(whole[:, round(speed * n) :][:, :WIDTH]) for n in range(frames)]


def chroma(value: float, noise: float, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (value + noise * random.normal(size=(2, HEIGHT // 2, WIDTH // 2))).astype(np.float32)


@pytest.mark.parametrize("speed", [0, 2])
def test_flicker_is_held(speed):
    flickering = [chroma(20 + 5 * (-1) ** n, 0, n) for n in range(30)]
    steady = Steady(0.9)
    out = [steady.next(small, ab) for small, ab in zip(scene(0, 30, speed), flickering, strict=True)]
    tail = np.stack(out[15:])
    assert np.abs(np.diff(tail, axis=0)).mean() < 2.5  # of 10
    assert abs(tail.mean() - 20) < 2
    assert steady.cuts == 0


def test_without_keeping_each_frame_is_as_predicted():
    steady = Steady(0)
    for n, small in enumerate(scene(0, 5)):
        ab = chroma(10, 5, n)
        np.testing.assert_array_equal(steady.next(small, ab), ab)


def test_a_cut_lets_nothing_through():
    steady = Steady(0.9)
    for small in scene(0, 8):
        steady.next(small, chroma(30, 0, 0))
    out = steady.next(scene(1, 1)[0], chroma(-30, 0, 0))
    np.testing.assert_array_equal(out, chroma(-30, 0, 0))
    assert steady.cuts == 1


def test_a_change_of_light_is_no_cut():
    steady = Steady(0.9)
    for n, small in enumerate(scene(0, 20)):
        steady.next(small * (0.8 if n % 2 else 1.0), chroma(10, 0, 0))
    assert steady.cuts == 0


def test_colour_goes_along_with_what_moves():
    """What lies to the left of an edge that moves is red, to the right of it is blue."""
    whole = texture(3)
    whole[:, 70:] = 95 - whole[:, 70:] / 2
    steady = Steady(0.9)
    for n in range(12):
        small = np.ascontiguousarray(whole[:, 3 * n :][:, :WIDTH])
        edge = (70 - 3 * n) // 2
        ab = np.full((2, HEIGHT // 2, WIDTH // 2), -20, np.float32)
        ab[:, :, : max(edge, 0)] = 20
        out = steady.next(small, ab)
    edge = (70 - 33) // 2
    assert out[0, :, : edge - 3].mean() > 17
    assert out[0, :, edge + 3 :].mean() < -17


def test_it_goes_on_from_a_state():
    frames = scene(2, 12)
    colours = [chroma(10, 4, n) for n in range(12)]
    one, other = Steady(0.8), Steady(0.8)
    whole = [one.next(small, ab) for small, ab in zip(frames, colours, strict=True)]
    for small, ab in zip(frames[:6], colours, strict=False):
        other.next(small, ab)
    resumed = Steady(0.8)
    resumed.resume(*other.state, other.cuts)
    rest = [resumed.next(small, ab) for small, ab in zip(frames[6:], colours[6:], strict=True)]
    np.testing.assert_array_equal(np.stack(rest), np.stack(whole[6:]))
