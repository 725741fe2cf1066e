"""Temporal consistency: chroma follows the motion in a video from frame to frame, until a cut.

A network that sees one frame at a time predicts slightly different colors for every frame. So the chroma of
the previous frame is warped along the optical flow (Kroeger et al. 2016, "Fast Optical Flow using Dense
Inverse Search") and blended with the new prediction. The weight of the warped chroma follows the trust in
each pixel's motion, which has two criteria:

- The backward flow, followed by the forward flow, must return to its starting point (Sundaram et al. 2010,
  "Dense point trajectories by GPU-accelerated large displacement optical flow"). This fails at disocclusions,
  so a foreground object does not drag its color over the background.
- The lightness at the end of the flow must be the same, apart from a global change of lightness.

If hardly any pixel is trusted, it is a cut, and the network's prediction is used alone. In videos with known
cuts, less than a tenth of the frame is trusted at cuts and more than a third elsewhere.

So the network need not see every frame. While most of the frame is trusted, chroma is only warped. The next
prediction is blended in with the weight of all frames since the previous one.

All of this runs at the resolution of the network's input and takes a few milliseconds per frame.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from colorize_cli.color.lab import Bytes, Floats

# Mean trust below which a frame is taken to follow a cut.
_CUT = 0.2
# Tolerance of the flow round trip as a fraction of the short side, and its increase per squared length of the
# flows.
_MISS, _MISS_OF_LENGTH = 0.0055, 0.05
# Tolerance of the lightness difference in L*, and the side of the box that it is averaged over in pixels.
_DIFFERENCE, _SMOOTHED = 6.0, 5
# A pixel is reliable above a trust of `_SURE`. The network sees a frame again as soon as the share of pixels
# that stayed reliable since the previous one falls to `_ENOUGH`, and after `_LONGEST` frames at the latest.
_SURE, _ENOUGH, _LONGEST = 0.5, 0.9, 4


@dataclass(frozen=True)
class Motion:
    """Motion of a frame relative to the previous one.

    Attributes:
        back: Flow from this frame to the previous one, (h, w, 2), in pixels.
        trust: Trust in the flow, (h, w) in [0, 1].
        cut: True if there is a cut between the two frames.
    """

    back: Floats
    trust: Floats
    cut: bool


class FlowTracker:
    """Computes the motion between consecutive frames of a video. Takes the frames in order."""

    def __init__(self) -> None:
        """Start before the first frame."""
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._before: tuple[Bytes, Floats] | None = None

    def next(self, small: Floats) -> Motion | None:
        """Return the motion of the next frame relative to the previous one; None for the first frame.

        Args:
            small: L* in [0, 100] of the frame as the network's input, (h, w).
        """
        codes = np.rint(np.clip(small * np.float32(2.55), 0, 255)).astype(np.uint8)
        before, self._before = self._before, (codes, small)
        if before is None:
            # On its first call with small frames OpenCV adapts its scales, and computes a different result.
            self._flow(codes, codes)
            return None
        back, trust = self._trusted((codes, small), before)
        return Motion(back, trust, bool(trust.mean() < _CUT))

    def _trusted(self, now: tuple[Bytes, Floats], before: tuple[Bytes, Floats]) -> tuple[Floats, Floats]:
        """Return the backward flow and the trust in it. Frames are codes and L*."""
        (codes, small), (old_codes, old_small) = now, before
        back, forth = self._flow(codes, old_codes), self._flow(old_codes, codes)
        x, y = _displaced(back)
        returned = _sampled(forth, x, y)
        miss = _squared_length(returned + back)
        length = _squared_length(returned) + _squared_length(back)
        difference = small - _sampled(old_small, x, y)
        difference -= np.median(difference)
        smoothed = cv2.blur(np.abs(difference), (_SMOOTHED, _SMOOTHED))
        height, width = small.shape
        inside = (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
        tolerance = np.float32((_MISS * min(height, width)) ** 2)
        trust = np.exp(-miss / (tolerance + _MISS_OF_LENGTH * length) - smoothed / np.float32(_DIFFERENCE))
        return back, np.asarray(trust * inside, np.float32)

    def _flow(self, of: Bytes, to: Bytes) -> Floats:
        return np.asarray(self._dis.calc(of, to, None), np.float32)  # type: ignore[call-overload]


class KeyframeSelector:
    """Chooses the frames that the network sees. Takes the frames in order."""

    def __init__(self, every: int | None) -> None:
        """Start before the first frame.

        Args:
            every: Interval in frames, counted from the first frame of each shot; None to adapt to the motion.
        """
        self._every = every
        self._since, self._trusted = 0, 1.0

    def next(self, motion: Motion | None, *, last: bool = False) -> bool:
        """Return True if the network must see the next frame.

        Args:
            motion: Motion relative to the previous frame; None for the first frame.
            last: True if the network must see the frame in any case.
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
    """Stabilizes the chroma of a video over time. Takes the frames in order.

    Attributes:
        cuts: Number of cuts so far.
    """

    def __init__(self, keep: float) -> None:
        """Start before the first frame.

        Args:
            keep: Weight of the previous frame's chroma where it is fully trusted, in [0, 1). 0 leaves the
                network's predictions unchanged.
        """
        self._keep = keep
        self._before: Floats | None = None
        self._since = 0
        self.cuts = 0

    def next(self, motion: Motion | None, ab: Floats | None) -> Floats:
        """Return the chroma of the next frame.

        Args:
            motion: Motion relative to the previous frame; None for the first frame.
            ab: The predicted CIE a* and b*, (2, h', w'), covering the same field of view; None if the network
                did not see the frame. It must see the first frame and every frame after a cut.

        Returns:
            CIE a* and b*, (2, h', w') float32.
        """
        self._since += 1
        if motion is not None and motion.cut:
            self.cuts += 1
        if self._before is None or motion is None or motion.cut:
            assert ab is not None  # noqa: S101 - required above
            self._since = 0
        elif ab is None:
            ab = self._warped(self._before, motion)
        else:
            height, width = ab.shape[1:]
            kept = np.float32(self._keep**self._since) * _reduced(motion.trust, height, width)
            ab = np.asarray(ab + kept * (self._warped(self._before, motion) - ab), np.float32)
            self._since = 0
        self._before = ab
        return ab

    def resume(self, ab: Floats, cuts: int) -> None:
        """Continue after a frame that the network saw, with chroma `ab` and `cuts` cuts so far."""
        self._before, self._since, self.cuts = ab, 0, cuts

    def _warped(self, before: Floats, motion: Motion) -> Floats:
        """Return the previous frame's chroma, warped to the current frame."""
        height, width = before.shape[1:]
        scale = np.array([width / motion.back.shape[1], height / motion.back.shape[0]], np.float32)
        x, y = _displaced(_reduced(motion.back, height, width) * scale)
        # Linear interpolation would blur the chroma a little in every frame, until it fades.
        return np.stack([_sampled(plane, x, y, cv2.INTER_CUBIC) for plane in before])


def _squared_length(flow: Floats) -> Floats:
    return np.asarray(cv2.transform(flow * flow, np.ones((1, 2), np.float32)), np.float32)


def _displaced(flow: Floats) -> tuple[Floats, Floats]:
    """Return the end point of each pixel's flow: x and y, (h, w) each."""
    height, width = flow.shape[:2]
    x = np.arange(width, dtype=np.float32) + flow[..., 0]
    y = np.arange(height, dtype=np.float32)[:, None] + flow[..., 1]
    return x, y


def _sampled(values: Floats, x: Floats, y: Floats, method: int = cv2.INTER_LINEAR) -> Floats:
    """Return values interpolated at fractional positions. Positions outside get the value at the border."""
    return np.asarray(cv2.remap(values, x, y, method, borderMode=cv2.BORDER_REPLICATE), np.float32)


def _reduced(values: Floats, height: int, width: int) -> Floats:
    return np.asarray(cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA), np.float32)
