"""XXH64 of a tensor's bytes, taken in as they are written: enough to find damage, and cheap.

The specification is https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md. It is no defence
against somebody who forges tensors on purpose.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from modelyard.merging.kernels.constants import XXH_PRIME_1, XXH_PRIME_2
from modelyard.merging.kernels.library import load_kernels

_PRIME_3 = 0x165667B19E3779F9
_PRIME_4 = 0x85EBCA77C2B2AE63
_PRIME_5 = 0x27D4EB2F165667C5
_WORD = (1 << 64) - 1
_STRIPE_BYTES = 32


class Checksum:
    """A running XXH64 with seed 0; parts of a multiple of 32 bytes are taken in without a copy."""

    def __init__(self) -> None:
        self._kernel = load_kernels().digest
        self._lanes = np.array(
            [(XXH_PRIME_1 + XXH_PRIME_2) & _WORD, XXH_PRIME_2, 0, -XXH_PRIME_1 & _WORD], np.uint64
        )
        self._lanes_at = self._lanes.ctypes.data
        self._bytes = 0
        self._rest = b""

    def update(self, data: npt.NDArray[np.uint8], count: int, address: int) -> None:
        """Take in the first `count` bytes of an array that lies at `address`."""
        if self._rest:
            data = np.frombuffer(self._rest + data[:count].tobytes(), np.uint8)
            self._bytes -= len(self._rest)
            count, address = len(data), data.ctypes.data
        rest = count % _STRIPE_BYTES
        if count > rest:
            self._kernel(address, count - rest, self._lanes_at)
        self._rest = data[count - rest : count].tobytes() if rest else b""
        self._bytes += count

    def value(self) -> str:
        """Sixteen hex digits of what was taken in."""
        lanes = [int(lane) for lane in self._lanes]
        if self._bytes >= _STRIPE_BYTES:
            h = sum(_turned(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18), strict=True)) & _WORD
            for lane in lanes:
                h = ((h ^ _round(0, lane)) * XXH_PRIME_1 + _PRIME_4) & _WORD
        else:
            h = _PRIME_5
        return f"{_finish((h + self._bytes) & _WORD, self._rest):016x}"


def _finish(h: int, rest: bytes) -> int:
    while len(rest) >= 8:
        h = (_turned(h ^ _round(0, int.from_bytes(rest[:8], "little")), 27) * XXH_PRIME_1 + _PRIME_4) & _WORD
        rest = rest[8:]
    if len(rest) >= 4:
        word = int.from_bytes(rest[:4], "little")
        h = (_turned(h ^ (word * XXH_PRIME_1 & _WORD), 23) * XXH_PRIME_2 + _PRIME_3) & _WORD
        rest = rest[4:]
    for byte in rest:
        h = _turned(h ^ (byte * _PRIME_5 & _WORD), 11) * XXH_PRIME_1 & _WORD
    h = (h ^ h >> 33) * XXH_PRIME_2 & _WORD
    h = (h ^ h >> 29) * _PRIME_3 & _WORD
    return h ^ h >> 32


def _round(lane: int, word: int) -> int:
    return _turned((lane + word * XXH_PRIME_2) & _WORD, 31) * XXH_PRIME_1 & _WORD


def _turned(value: int, bits: int) -> int:
    return (value << bits | value >> (64 - bits)) & _WORD
