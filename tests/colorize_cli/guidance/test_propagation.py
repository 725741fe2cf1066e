"""Propagation of hints."""

import functools

import numpy as np
import pytest

from colorize_cli.color import lab
from colorize_cli.color.lightness import GRAY8, Lightness
from colorize_cli.compose import Overlay, compose
from colorize_cli.guidance.hints import from_object
from colorize_cli.guidance.propagation import spread

SHAPE = (240, 320)
AB = np.stack([np.full((24, 32), 10), np.full((24, 32), -15)]).astype(np.float32)


def scene(inside: int, outside: int) -> Lightness:
    """Return a gray square of 100 pixels on another gray, with some grain."""
    codes = np.full(SHAPE, outside)
    codes[70:170, 110:210] = inside
    grain = np.random.default_rng(0).normal(0, 2, SHAPE)
    return Lightness(np.clip(codes + grain, 0, 255).astype(np.uint8), GRAY8)


def overlay_of(lightness: Lightness, hints: dict) -> Overlay:
    return spread(lightness, functools.partial(from_object(hints).rows, lightness.shape))


def colored(lightness: Lightness, hints=None) -> np.ndarray:
    nothing = Overlay(np.zeros((3, 8, 8), np.float32), lambda *_: None)
    overlay = nothing if hints is None else overlay_of(lightness, hints)
    return lab.srgb_to_lab(compose(lightness, AB, 1.0, overlay) / 255)[..., 1:]


def point(x: int, y: int, color: str) -> dict:
    return {"points": [{"x": x, "y": y, "color": color}]}


@pytest.mark.parametrize(("inside", "outside"), [(150, 70), (90, 180)])
def test_hint_fills_an_object_up_to_its_edge(inside, outside):
    lightness = scene(inside, outside)
    before, after = colored(lightness), colored(lightness, point(160, 120, "#a06030"))
    hint = lab.srgb_to_lab(np.array([0xA0, 0x60, 0x30]) / 255)[1:]
    change = np.linalg.norm(after - before, axis=-1)
    whole = np.linalg.norm(hint - AB[:, 0, 0])
    assert np.abs(after[100:140, 140:180] - hint).mean() < 3
    assert change[80:160, 120:200].mean() > 0.8 * whole
    beyond = np.ones(SHAPE, bool)
    beyond[55:185, 95:225] = False
    assert change[beyond].mean() < 0.03 * whole
    assert change[:30].max() < 1
    assert change[:, :50].max() < 1


def test_hint_on_a_uniform_background_fades_with_distance():
    lightness = Lightness(np.full(SHAPE, 128, np.uint8), GRAY8)
    change = np.abs(colored(lightness, point(20, 120, "#a06030")) - colored(lightness)).max(-1)[120]
    assert change[20] > 20
    assert change[250:].max() < 1
    assert np.all(np.diff(change[60:200:20]) <= 0.5)


def test_hints_share_the_background_between_them():
    lightness = Lightness(np.full(SHAPE, 128, np.uint8), GRAY8)
    hints = {"points": [{"x": 60, "y": 120, "color": "#c03020"}, {"x": 260, "y": 120, "color": "#3040c0"}]}
    found = colored(lightness, hints)[120]
    red, blue = (lab.srgb_to_lab(np.array(rgb) / 255)[1:] for rgb in ((192, 48, 32), (48, 64, 192)))
    for x, own, other in ((80, red, blue), (240, blue, red)):
        assert np.linalg.norm(found[x] - own) < np.linalg.norm(found[x] - other)


def test_overlay_values_are_within_bounds():
    planes = overlay_of(scene(150, 70), point(160, 120, "#a06030")).planes
    assert planes.dtype == np.float32
    assert planes[2].min() >= 0
    assert planes[2].max() <= 1
