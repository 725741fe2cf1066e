"""Chroma over time in a film: what a place was a frame ago it is still, until the film cuts.

A network that sees one frame at a time says something slightly different every time. So the chroma of the
frame before is carried along the optical flow (Kroeger et al. 2016, "Fast Optical Flow using Dense Inverse
Search") and mixed with what the network says now, the more, the more a place can be trusted to be the same:

- the flow from this frame to the one before and the flow from there must lead back to where they began
  (Sundaram et al. 2010, "Dense point trajectories by GPU-accelerated large displacement optical flow"), which
  fails where something comes into view from behind something else, so that nothing drags its colour along;
- and what the flow leads to must be as light, a change of the whole picture's lightness apart.

Where hardly any place can be trusted the film has cut, and the network alone has its say. On film with known
cuts less than a tenth of the picture is trusted there, and elsewhere more than a third.

All this happens on the small copies that the network sees, and takes a few milliseconds a frame.
"""

import dataclasses
from dataclasses import dataclass

import cv2
import numpy as np

from colorize_cli.color import Bytes, Floats

# Below this share of trusted picture the film has cut.
_CUT = 0.2
# Squared pixels by which the flows may miss, and what of their squared length is added to that.
_MISS, _MISS_OF_LENGTH = 0.5, 0.05
# L* by which a place may differ, smoothed over this many pixels.
_DIFFERENCE, _SMOOTHED = 6.0, 5


@dataclass(frozen=True)
class _Seen:
    """The frame before."""

    codes: Bytes
    small: Floats
    ab: Floats

    @staticmethod
    def of(small: Floats, ab: Floats) -> "_Seen":
        return _Seen(np.rint(np.clip(small * np.float32(2.55), 0, 255)).astype(np.uint8), small, ab)


class Steady:
    """Steadies the chroma of the frames of one film, which are given in their order.

    Attributes:
        cuts: How many cuts there were.
    """

    def __init__(self, keep: float) -> None:
        """Begins a film.

        Args:
            keep: How much of the chroma is carried over where the frame before can be trusted wholly, in
                [0, 1): 0 leaves each frame as the network colours it.
        """
        self._keep = np.float32(keep)
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._before: _Seen | None = None
        self.cuts = 0

    def next(self, small: Floats, ab: Floats) -> Floats:
        """The chroma of the next frame.

        Args:
            small: L* in [0, 100] of the frame as the network saw it, (h, w).
            ab: CIE a* and b* that the network predicts, (2, h', w'), covering the same picture.

        Returns:
            (2, h', w') float32.
        """
        seen = _Seen.of(small, ab)
        if self._before is not None and self._before.small.shape == small.shape:
            back, trust = self._trusted(seen, self._before)
            if trust.mean() < _CUT:
                self.cuts += 1
            else:
                mixed = self._mixed(ab, self._before.ab, back, trust)
                seen = dataclasses.replace(seen, ab=mixed)
        self._before = seen
        return seen.ab

    @property
    def state(self) -> tuple[Floats, Floats] | None:
        """What the next frame depends on: lightness and chroma of the frame before."""
        return None if self._before is None else (self._before.small, self._before.ab)

    def resume(self, small: Floats, ab: Floats, cuts: int) -> None:
        """Goes on from a `state`, and the number of cuts until then."""
        self._before, self.cuts = _Seen.of(small, ab), cuts

    def _trusted(self, now: _Seen, before: _Seen) -> tuple[Floats, Floats]:
        """The flow (h, w, 2) from a frame to the one before, and where that is trusted, (h, w) in [0, 1]."""
        back, forth = self._flow(now.codes, before.codes), self._flow(before.codes, now.codes)
        x, y = _moved(back)
        returned = _at(forth, x, y)
        miss = np.square(returned + back).sum(-1)
        length = np.square(returned).sum(-1) + np.square(back).sum(-1)
        difference = now.small - _at(before.small, x, y)
        difference -= np.median(difference)
        smoothed = cv2.blur(np.abs(difference), (_SMOOTHED, _SMOOTHED))
        height, width = now.small.shape
        inside = (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
        trust = np.exp(-miss / (_MISS + _MISS_OF_LENGTH * length) - smoothed / np.float32(_DIFFERENCE))
        return back, np.asarray(trust * inside, np.float32)

    def _flow(self, of: Bytes, to: Bytes) -> Floats:
        return np.asarray(self._dis.calc(of, to, None), np.float32)  # type: ignore[call-overload]

    def _mixed(self, ab: Floats, before: Floats, back: Floats, trust: Floats) -> Floats:
        height, width = ab.shape[1:]
        scale = np.array([width / back.shape[1], height / back.shape[0]], np.float32)
        x, y = _moved(_reduced(back, height, width) * scale)
        kept = self._keep * _reduced(trust, height, width)
        carried = np.stack([_at(plane, x, y) for plane in before])
        return np.asarray(ab + kept * (carried - ab), np.float32)


def _moved(flow: Floats) -> tuple[Floats, Floats]:
    """Where each pixel is led to: x and y, (h, w) each."""
    height, width = flow.shape[:2]
    x = np.arange(width, dtype=np.float32) + flow[..., 0]
    y = np.arange(height, dtype=np.float32)[:, None] + flow[..., 1]
    return x, y


def _at(values: Floats, x: Floats, y: Floats) -> Floats:
    """Values at fractional places, linearly; beyond the border those on it."""
    return np.asarray(cv2.remap(values, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32)


def _reduced(values: Floats, height: int, width: int) -> Floats:
    return np.asarray(cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA), np.float32)
