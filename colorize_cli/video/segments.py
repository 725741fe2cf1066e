"""Where a film is divided into stretches, each of which is encoded by itself.

A *place* is a key frame of the source that the film has cut to: nothing is carried over a cut, and the source
can be read from a key frame on. A place is taken if it is at least two seconds after the one taken before it,
the first of which is the film's first frame. Stretches begin at the places that are taken, and wherever ten
seconds have passed since the last one began.

So which places are taken depends on the cuts and key frames alone, and what becomes of a film from such a
place on does not depend on what is before it: who begins there, and knows nothing else, divides the rest in
the same way.
"""

from fractions import Fraction

# So much film, in seconds, is lost at most when a run is killed. Encoders begin anew with each stretch, and
# most would have put a key frame there.
_LONGEST = 10
# Shorter stretches cost hardly any time (of shots of half a second each its own: less than 3 per cent), but
# files: two each, the one of which is larger than the film in it then, and three waits for the disk.
_LEAST = 2


class Segmenter:
    """Divides a film whose frames are given in their order.

    Attributes:
        split_point: Number of the frame at the last place that was taken.
    """

    def __init__(self, rate: Fraction, split_point: int = 0) -> None:
        """Begins with a stretch.

        Args:
            rate: Frames a second, about.
            split_point: Number of the frame at the last place that was taken until then.
        """
        self.split_point = split_point
        self._length, self._least = (max(1, round(seconds * rate)) for seconds in (_LONGEST, _LEAST))
        self._begun: int | None = None

    def wants(self, number: int) -> bool:
        """Whether a frame is far enough from the last place to be another."""
        return number - self.split_point >= self._least

    def begins(self, number: int, *, is_split_point: bool) -> bool:
        """Whether a stretch begins with the next frame.

        Args:
            number: The frame's.
            is_split_point: Whether the film has cut to it and it is a key frame.
        """
        taken = is_split_point and self.wants(number)
        if taken:
            self.split_point = number
        if taken or self._begun is None or number == self._begun + self._length:
            self._begun = number
            return True
        return False

    def is_last(self, number: int) -> bool:
        """Whether a stretch ends with the frame that was given last, whatever comes after it."""
        return self._begun is not None and number + 1 == self._begun + self._length
