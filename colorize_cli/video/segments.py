"""Dividing a video into segments, which are encoded separately.

Candidate split points are key frames of the source right after a cut: no chroma is carried over a cut, and
decoding can begin at a key frame. A candidate becomes a split point if it is at least two seconds after the
previous split point. The first frame of the video is the first split point. A segment begins at every split
point, and whenever the current segment is ten seconds long.

So the split points depend only on cuts and key frames, and the output from a split point on does not depend
on anything before it. A worker that begins at a split point divides the rest of the video in the same way.
"""

from fractions import Fraction

# Seconds. This is the most work that is lost when a run is killed. Every segment begins with a key frame, but
# most encoders would place key frames about as often.
_LONGEST = 10
# Seconds. Shorter segments would cost little time (less than 3 percent for a video of half-second shots), but
# many files: two per segment, with a state file larger than the video, and three disk syncs.
_LEAST = 2


class Segmenter:
    """Divides a video into segments. Takes the frames in order.

    Attributes:
        split_point: Number of the frame at the latest split point.
    """

    def __init__(self, rate: Fraction, split_point: int = 0) -> None:
        """Begin at the start of a segment.

        Args:
            rate: Approximate frame rate, in frames per second.
            split_point: Number of the frame at the latest split point so far.
        """
        self.split_point = split_point
        self._length, self._least = (max(1, round(seconds * rate)) for seconds in (_LONGEST, _LEAST))
        self._begun: int | None = None

    def wants(self, number: int) -> bool:
        """Return True if frame `number` is far enough from the latest split point to be the next one."""
        return number - self.split_point >= self._least

    def begins(self, number: int, *, is_split_point: bool) -> bool:
        """Return True if a segment begins with frame `number`. Call once for every frame.

        Args:
            number: Number of the frame.
            is_split_point: True if the frame is a key frame right after a cut.
        """
        taken = is_split_point and self.wants(number)
        if taken:
            self.split_point = number
        if taken or self._begun is None or number == self._begun + self._length:
            self._begun = number
            return True
        return False

    def is_last(self, number: int) -> bool:
        """Return True if the segment ends with frame `number`, whatever follows. Call after `begins`."""
        return self._begun is not None and number + 1 == self._begun + self._length
