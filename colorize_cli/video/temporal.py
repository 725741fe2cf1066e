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

So the network need not see every frame: while most of the picture can be trusted, chroma is carried along
alone, and what the network says then is mixed in for all frames since it was last asked.

All this happens on the small copies that the network sees, and takes a few milliseconds a frame.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from colorize_cli.color.lab import Bytes, Floats

# Below this share of trusted picture the film has cut.
_CUT = 0.2
# Squared pixels by which the flows may miss, and what of their squared length is added to that.
_MISS, _MISS_OF_LENGTH = 0.5, 0.05
# L* by which a place may differ, smoothed over this many pixels.
_DIFFERENCE, _SMOOTHED = 6.0, 5
# A place is sure above this trust; the network is asked again before less than such a part of the picture has
# been sure ever since, and after so many frames at the latest.
_SURE, _ENOUGH, _LONGEST = 0.5, 0.9, 4


@dataclass(frozen=True)
class Motion:
    """How a frame follows from the one before.

    Attributes:
        back: The flow from this frame to the one before, (h, w, 2), in pixels.
        trust: Where that is trusted, (h, w) in [0, 1].
        cut: Whether the film has cut.
    """

    back: Floats
    trust: Floats
    cut: bool


class FlowTracker:
    """Follows the movement in a film whose frames are given in their order."""

    def __init__(self) -> None:
        """Begins a film."""
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._before: tuple[Bytes, Floats] | None = None

    def next(self, small: Floats) -> Motion | None:
        """How the next frame follows; None for the first.

        Args:
            small: L* in [0, 100] of the frame as the network sees it, (h, w).
        """
        codes = np.rint(np.clip(small * np.float32(2.55), 0, 255)).astype(np.uint8)
        before, self._before = self._before, (codes, small)
        if before is None:
            # For small frames OpenCV sets its scales anew when it is called first, and in another way then.
            self._flow(codes, codes)
            return None
        back, trust = self._trusted((codes, small), before)
        return Motion(back, trust, bool(trust.mean() < _CUT))

    def _trusted(self, now: tuple[Bytes, Floats], before: tuple[Bytes, Floats]) -> tuple[Floats, Floats]:
        (codes, small), (old_codes, old_small) = now, before
        back, forth = self._flow(codes, old_codes), self._flow(old_codes, codes)
        x, y = _displaced(back)
        returned = _at(forth, x, y)
        miss = _squared_length(returned + back)
        length = _squared_length(returned) + _squared_length(back)
        difference = small - _at(old_small, x, y)
        difference -= np.median(difference)
        smoothed = cv2.blur(np.abs(difference), (_SMOOTHED, _SMOOTHED))
        height, width = small.shape
        inside = (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
        trust = np.exp(-miss / (_MISS + _MISS_OF_LENGTH * length) - smoothed / np.float32(_DIFFERENCE))
        return back, np.asarray(trust * inside, np.float32)

    def _flow(self, of: Bytes, to: Bytes) -> Floats:
        return np.asarray(self._dis.calc(of, to, None), np.float32)  # type: ignore[call-overload]


class KeyframeSelector:
    """Chooses the frames of a film that the network is to see, which are given in their order."""

    def __init__(self, every: int | None) -> None:
        """Begins a film.

        Args:
            every: It sees every so many-th frame of a shot, and the first; None for as many as the movement
                asks for.
        """
        self._every = every
        self._since, self._trusted = 0, 1.0

    def next(self, motion: Motion | None, *, last: bool = False) -> bool:
        """Whether the network is to see the next frame.

        Args:
            motion: How it follows from the one before; None for the first.
            last: It is to see it in any case.
        """
        if motion is not None and not motion.cut and not last:
            self._since += 1
            self._trusted *= float(np.mean(motion.trust > _SURE))
            asked = self._since >= (self._every or _LONGEST)
            if not asked and (self._every is not None or self._trusted > _ENOUGH):
                return False
        self._since, self._trusted = 0, 1.0
        return True


class TemporalFilter:
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
        self._keep = keep
        self._before: Floats | None = None
        self._since = 0
        self.cuts = 0

    def next(self, motion: Motion | None, ab: Floats | None) -> Floats:
        """The chroma of the next frame.

        Args:
            motion: How it follows from the one before; None for the first.
            ab: CIE a* and b* that the network predicts, (2, h', w'), covering the same picture; None where it
                did not see the frame, which is neither the first nor after a cut.

        Returns:
            (2, h', w') float32.
        """
        self._since += 1
        if motion is not None and motion.cut:
            self.cuts += 1
        if self._before is None or motion is None or motion.cut:
            assert ab is not None  # noqa: S101 - the promise above
            self._since = 0
        elif ab is None:
            ab = self._carried(self._before, motion)
        else:
            height, width = ab.shape[1:]
            kept = np.float32(self._keep**self._since) * _reduced(motion.trust, height, width)
            ab = np.asarray(ab + kept * (self._carried(self._before, motion) - ab), np.float32)
            self._since = 0
        self._before = ab
        return ab

    def resume(self, ab: Floats, cuts: int) -> None:
        """Goes on after a frame that the network saw, of that chroma, and so many cuts."""
        self._before, self._since, self.cuts = ab, 0, cuts

    def _carried(self, before: Floats, motion: Motion) -> Floats:
        """The chroma of the frame before, where it has moved to."""
        height, width = before.shape[1:]
        scale = np.array([width / motion.back.shape[1], height / motion.back.shape[0]], np.float32)
        x, y = _displaced(_reduced(motion.back, height, width) * scale)
        # Linearly it would be smoothed a little with every frame, and fade.
        return np.stack([_at(plane, x, y, cv2.INTER_CUBIC) for plane in before])


def _squared_length(flow: Floats) -> Floats:
    return np.asarray(cv2.transform(flow * flow, np.ones((1, 2), np.float32)), np.float32)


def _displaced(flow: Floats) -> tuple[Floats, Floats]:
    """Where each pixel is led to: x and y, (h, w) each."""
    height, width = flow.shape[:2]
    x = np.arange(width, dtype=np.float32) + flow[..., 0]
    y = np.arange(height, dtype=np.float32)[:, None] + flow[..., 1]
    return x, y


def _at(values: Floats, x: Floats, y: Floats, method: int = cv2.INTER_LINEAR) -> Floats:
    """Values at fractional places; beyond the border those on it."""
    return np.asarray(cv2.remap(values, x, y, method, borderMode=cv2.BORDER_REPLICATE), np.float32)


def _reduced(values: Floats, height: int, width: int) -> Floats:
    return np.asarray(cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA), np.float32)
