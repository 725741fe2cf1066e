"""Numbers by keys, many millions of them, in 16 bytes for each."""

import numpy as np
import numpy.typing as npt

_Numbers = npt.NDArray[np.uint64]
# So many wait in a dictionary, each of which there costs ten times as much, until they are sorted in.
_MOST_WAITING = 1 << 16


class Lookup:
    """A mapping from 64 bits to 64 bits, which only grows; of a key that is set twice the last number holds.

    Sorted arrays, each at least twice as long as the next, so that what is set is moved few times.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, int] = {}
        self._sorted: list[tuple[_Numbers, _Numbers]] = []

    def __setitem__(self, key: int, number: int) -> None:
        self._waiting[key] = number
        if len(self._waiting) >= _MOST_WAITING:
            self._settle()

    def get(self, key: int) -> int | None:
        """The number of a key; None where it has none."""
        if key in self._waiting:
            return self._waiting[key]
        wanted = np.uint64(key)
        for keys, numbers in reversed(self._sorted):
            position = int(np.searchsorted(keys, wanted))
            if position < len(keys) and keys[position] == wanted:
                return int(numbers[position])
        return None

    def _settle(self) -> None:
        keys = np.fromiter(self._waiting.keys(), np.uint64, len(self._waiting))
        numbers = np.fromiter(self._waiting.values(), np.uint64, len(self._waiting))
        self._waiting = {}
        while self._sorted and len(self._sorted[-1][0]) < 2 * len(keys):
            older_keys, older_numbers = self._sorted.pop()
            keys, numbers = np.concatenate([older_keys, keys]), np.concatenate([older_numbers, numbers])
        order = np.argsort(keys, kind="stable")
        keys, numbers = keys[order], numbers[order]
        last = np.append(keys[1:] != keys[:-1], True)
        self._sorted.append((keys[last], numbers[last]))
