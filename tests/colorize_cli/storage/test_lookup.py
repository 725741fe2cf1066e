import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colorize_cli.storage import manifest_local
from colorize_cli.storage.manifest_local import Lookup

bits = st.integers(0, 2**64 - 1)


@given(st.lists(st.tuples(st.integers(0, 40) | bits, bits), max_size=200), st.integers(1, 20))
def test_lookup_equals_a_dictionary(pairs, most):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest_local, "_MOST_WAITING", most)
        found, expected = Lookup(), {}
        for key, number in pairs:
            found[key] = number
            expected[key] = number
        for key in {*expected, *range(50)}:
            assert found.get(key) == expected.get(key)


def test_lookup_needs_little_memory():
    count = 400_000
    tracemalloc.start()
    try:
        found = Lookup()
        for number in range(count):
            found[number * 0x9E3779B97F4A7C15 % 2**64] = number
        size = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert found.get(0x9E3779B97F4A7C15) == 1
    assert size < 48 * count  # the latest entries are in a dictionary
