"""Where stretches begin, and that it does not depend on what is before a place."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from colorize_cli.video.segments import Segmenter

RATE = Fraction(5)  # so that 10 seconds are 50 frames and 2 seconds 10


def begins_of(places: set[int], frames: int, segmenter: Segmenter, first: int = 0) -> list[tuple[int, int]]:
    """Where stretches begin, and the place that each is of."""
    numbers = range(first, frames)
    return [(n, segmenter.split_point) for n in numbers if segmenter.begins(n, is_split_point=n in places)]


def test_a_film_without_places_is_divided_every_ten_seconds():
    assert [n for n, _ in begins_of(set(), 160, Segmenter(RATE))] == [0, 50, 100, 150]


def test_ten_seconds_are_counted_from_the_last_place_and_two_between_places():
    places = {5, 12, 20, 21, 22, 80, 130}
    begins = begins_of(places, 200, Segmenter(RATE))
    assert begins == [(0, 0), (12, 12), (22, 22), (72, 22), (80, 80), (130, 130), (180, 130)]


def test_a_place_is_taken_wherever_the_ten_seconds_end():
    assert begins_of({50, 101}, 120, Segmenter(RATE)) == [(0, 0), (50, 50), (100, 50), (101, 101)]


def test_the_last_frame_of_a_stretch_is_known_where_its_length_ends_it():
    segmenter, last = Segmenter(RATE), []
    for n in range(140):
        segmenter.begins(n, is_split_point=n == 70)
        last += [n] if segmenter.is_last(n) else []
    assert last == [49, 119]


@given(st.sets(st.integers(0, 400), max_size=60), st.integers(1, 30))
def test_what_follows_a_place_or_a_stretch_is_the_same_from_there(places, rate):
    whole = begins_of(places, 400, Segmenter(Fraction(rate)))
    for number, (first, place) in enumerate(whole):
        rest = begins_of(places, 400, Segmenter(Fraction(rate), place), first)
        assert rest == whole[number:]
        if place == first:
            assert (
                begins_of({n for n in places if n > first}, 400, Segmenter(Fraction(rate), first), first)
                == rest
            )


@given(st.sets(st.integers(0, 400), max_size=60), st.integers(1, 30))
def test_which_places_are_taken_depends_on_places_alone(places, rate):
    wanted, last = [], 0
    for place in sorted(places):
        if place - last >= 2 * rate:
            wanted.append(place)
            last = place
    taken = [n for n, place in begins_of(places, 401, Segmenter(Fraction(rate))) if n == place and n]
    assert taken == wanted
