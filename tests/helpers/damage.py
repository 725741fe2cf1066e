"""Random damage of files."""

import random
import struct

NUMBERS = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Damage a file in one to four places, half of them near the head, where the structure is."""
    data = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        end = len(data)
        if not end:
            break
        start = chance.randrange(min(end, 160) if chance.random() < 0.5 else end)
        size = chance.randint(1, 4) if chance.random() < 0.5 else chance.randint(1, max(1, end // 3))
        match chance.choice(("cut", "bit", "bit", "byte", "zeros", "insert", "delete", "repeat", "number")):
            case "cut":
                del data[start:]
            case "bit":
                data[start] ^= 1 << chance.randrange(8)
            case "byte":
                data[start] = chance.randrange(256)
            case "zeros":
                data[start : start + size] = bytes(len(data[start : start + size]))
            case "insert":
                data[start:start] = chance.randbytes(min(size, 40))
            case "delete":
                del data[start : start + size]
            case "repeat":
                data[start:start] = data[start : start + size]
            case "number":
                packed = struct.pack(chance.choice("<>") + "I", chance.choice(NUMBERS))
                data[start : start + 4] = packed
    return bytes(data)
