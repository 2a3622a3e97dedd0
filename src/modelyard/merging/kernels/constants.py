"""The numbers that kernels and their callers agree on."""

from __future__ import annotations

#: Codes of element types.
BF16, F16, F32, F64, E4M3, E5M2 = range(6)
#: Elements that are worked on at once, so that all inputs' tiles stay in the first cache.
TILE = 1024
#: What a mask keeps: all, magnitudes between two bounds, or each element with a probability.
ALL, BAND, RANDOM = range(3)
#: How the sign of an element is elected.
SIGN_NONE, SIGN_SUM, SIGN_COUNT = range(3)
#: Random numbers are whole numbers below this.
RANDOM_RANGE = 1 << 53
#: Two of the primes of the xxHash specification.
XXH_PRIME_1 = 0x9E3779B185EBCA87
XXH_PRIME_2 = 0xC2B2AE3D27D4EB4F

#: What each kernel takes and returns: `p` pointer to uint64, `n` to int64, `v` to float64, `a` an address,
#: `i` an int64, `d` a float64, `-` nothing. The names of the arguments stand in `source.py`.
SIGNATURES = {
    "widen": ("aiiv", "i"),
    "narrow": ("viia", "i"),
    "weighted_sum": ("pnivivain", "-"),
    "gram": ("pniiivv", "-"),
    "histogram": ("pniiiinnv", "-"),
    "collect": ("pniiiiinvnniv", "-"),
    "masked_sums": ("pniiinvnpvv", "-"),
    "digest": ("aip", "-"),
    "combine": ("pniiinvnpvviidvain", "-"),
}


def scratch_size(m: int) -> int:
    """The float64 values that a kernel over m inputs needs to work in."""
    return (m + 3) * TILE
