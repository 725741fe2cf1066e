"""A lookup table for many millions of numbers, in 16 bytes per entry."""

import numpy as np
import numpy.typing as npt

_Numbers = npt.NDArray[np.uint64]
# Number of entries that wait in a dictionary, where each takes ten times as much memory, before a merge.
_MOST_WAITING = 1 << 16


class Lookup:
    """A mapping from 64-bit keys to 64-bit numbers that only grows. Setting a key again replaces its number.

    Entries are stored in sorted arrays, each at least twice as long as the next. So an entry is moved only
    about log2(n) times among n entries.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, int] = {}
        self._sorted: list[tuple[_Numbers, _Numbers]] = []

    def __setitem__(self, key: int, number: int) -> None:
        self._waiting[key] = number
        if len(self._waiting) >= _MOST_WAITING:
            self._merge()

    def get(self, key: int) -> int | None:
        """Return the number of a key; None if it has none."""
        if key in self._waiting:
            return self._waiting[key]
        wanted = np.uint64(key)
        for keys, numbers in reversed(self._sorted):
            position = int(np.searchsorted(keys, wanted))
            if position < len(keys) and keys[position] == wanted:
                return int(numbers[position])
        return None

    def _merge(self) -> None:
        keys = np.fromiter(self._waiting.keys(), np.uint64, len(self._waiting))
        numbers = np.fromiter(self._waiting.values(), np.uint64, len(self._waiting))
        self._waiting = {}
        while self._sorted and len(self._sorted[-1][0]) < 2 * len(keys):
            older_keys, older_numbers = self._sorted.pop()
            keys, numbers = np.concatenate([older_keys, keys]), np.concatenate([older_numbers, numbers])
        order = np.argsort(keys, kind="stable")
        keys, numbers = keys[order], numbers[order]
        # The sort is stable and newer entries come last, so the last of equal keys holds the current number.
        last = np.append(keys[1:] != keys[:-1], True)
        self._sorted.append((keys[last], numbers[last]))
