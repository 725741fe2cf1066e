"""Segments begin at places that do not depend on anything before a split point."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from colorize_cli.video.stages import Segmenter

RATE = Fraction(5)  # so that 10 seconds are 50 frames and 2 seconds 10


def begins_of(points: set[int], frames: int, segmenter: Segmenter, first: int = 0) -> list[tuple[int, int]]:
    """Return the first frame of each segment, with the latest split point."""
    numbers = range(first, frames)
    return [(n, segmenter.split_point) for n in numbers if segmenter.begins(n, is_split_point=n in points)]


def test_segments_without_split_points_last_ten_seconds():
    assert [n for n, _ in begins_of(set(), 160, Segmenter(RATE))] == [0, 50, 100, 150]


def test_segments_begin_at_split_points_two_seconds_apart():
    points = {5, 12, 20, 21, 22, 80, 130}
    begins = begins_of(points, 200, Segmenter(RATE))
    assert begins == [(0, 0), (12, 12), (22, 22), (72, 22), (80, 80), (130, 130), (180, 130)]


def test_split_point_right_after_a_full_segment_counts():
    assert begins_of({50, 101}, 120, Segmenter(RATE)) == [(0, 0), (50, 50), (100, 50), (101, 101)]


def test_is_last_is_true_at_the_end_of_a_full_segment():
    segmenter, last = Segmenter(RATE), []
    for n in range(140):
        segmenter.begins(n, is_split_point=n == 70)
        last += [n] if segmenter.is_last(n) else []
    assert last == [49, 119]


@given(st.sets(st.integers(0, 400), max_size=60), st.integers(1, 30))
def test_segments_are_independent_of_earlier_frames(points, rate):
    whole = begins_of(points, 400, Segmenter(Fraction(rate)))
    for number, (first, point) in enumerate(whole):
        rest = begins_of(points, 400, Segmenter(Fraction(rate), point), first)
        assert rest == whole[number:]
        if point == first:
            assert (
                begins_of({n for n in points if n > first}, 400, Segmenter(Fraction(rate), first), first)
                == rest
            )


@given(st.sets(st.integers(0, 400), max_size=60), st.integers(1, 30))
def test_split_points_depend_only_on_candidates(points, rate):
    wanted, last = [], 0
    for point in sorted(points):
        if point - last >= 2 * rate:
            wanted.append(point)
            last = point
    taken = [n for n, point in begins_of(points, 401, Segmenter(Fraction(rate))) if n == point and n]
    assert taken == wanted
