"""The kernels: loops over one block of a tensor's elements, in float64 whatever the stored types.

numba compiles these functions to object code, once a machine (`library.py`); at run time numba is
not loaded. They take raw addresses, allocate nothing and raise nothing. A block is worked through
in tiles that stay in the first cache: inputs are widened to float64, the arithmetic is done, and
the result is rounded once, to nearest even, into the output's type. Sums are folded by halves, so
that they do not depend on the vector width of the machine.

Words used throughout: `inputs` are the addresses of the models' blocks and `codes` their types
(`CODES`); where there is a base it is the last of `m` inputs. `scratch` has `scratch_size(m)` values of
float64. `stats[j]` counts values of input j that are not finite, `stats[m]` values that overflowed.
"""

from __future__ import annotations

from numba import njit, types

from modelyard.merging.kernels.constants import (
    BAND,
    BF16,
    RANDOM,
    SIGN_NONE,
    SIGN_SUM,
    SIGNATURES,
    TILE,
    XXH_PRIME_1,
    XXH_PRIME_2,
)
from modelyard.merging.kernels.elements import (
    at_u16,
    at_u64,
    beyond,
    f32_of,
    narrowed,
    not_finite,
    u64_of,
    widened,
)

_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
#: A sum of weights below it divides nothing.
_TINY = 1e-8


def widen(address, code, n, out):
    """All n elements as float64; how many of them are not finite."""
    widened(address, code, 0, n, out, 0)
    return not_finite(out, 0, n)


def narrow(values, n, code, address):
    """All n values into the output's type; how many finite ones it cannot hold."""
    narrowed(values, 0, n, code, address, 0)
    return beyond(values, 0, n, code) - not_finite(values, 0, n)


@njit(error_model="numpy")
def _add(address, code, begin, n, c, scratch, spare):
    """scratch[0 .. n] += c * elements begin .. begin + n."""
    if code == BF16:
        shorts = at_u16(address)
        for i in range(n):
            scratch[i] += c * types.float64(
                f32_of(types.uint32(types.uint32(shorts[begin + i]) << types.uint32(16)))
            )
    else:
        widened(address, code, begin, n, scratch, spare)
        for i in range(n):
            scratch[i] += c * scratch[spare + i]


def weighted_sum(inputs, codes, m, coefficients, n, scratch, out, out_code, stats):
    """out = sum over j of coefficients[j] * inputs[j].

    An input that is not finite makes the sum so: only then are the inputs looked at one by one.
    """
    for begin in range(0, n, TILE):
        count = min(TILE, n - begin)
        for i in range(count):
            scratch[i] = -0.0  # added to, it leaves the sign of a zero alone
        for j in range(m):
            _add(inputs[j], codes[j], begin, count, coefficients[j], scratch, TILE)
        lost = beyond(scratch, 0, count, out_code)
        if lost:
            stats[m] += lost - not_finite(scratch, 0, count)
            for j in range(m):
                widened(inputs[j], codes[j], begin, count, scratch, TILE)
                stats[j] += not_finite(scratch, TILE, count)
        narrowed(scratch, 0, count, out_code, out, begin)


@njit(error_model="numpy")
def _load(inputs, codes, m, relative, begin, count, scratch):
    """Widen all inputs into consecutive tiles; with `relative`, less the base, which stays the last tile."""
    for j in range(m):
        widened(inputs[j], codes[j], begin, count, scratch, j * TILE)
    if relative:
        last = (m - 1) * TILE
        for j in range(m - 1):
            to = j * TILE
            for i in range(count):
                scratch[to + i] -= scratch[last + i]


@njit(error_model="numpy")
def _folded(scratch, at, count):
    """The sum of a tile's first values, by halves: the same order, and few roundings, on every machine."""
    for i in range(count, TILE):
        scratch[at + i] = 0.0
    width = TILE
    while width > 1:
        width //= 2
        for i in range(width):
            scratch[at + i] += scratch[at + width + i]
    return scratch[at]


def gram(inputs, codes, m, relative, n, scratch, out):
    """out[i * k + j] += <x_i, x_j>, of k = m inputs, or of the k = m - 1 differences to the base."""
    k = m - 1 if relative else m
    spare = m * TILE
    for begin in range(0, n, TILE):
        count = min(TILE, n - begin)
        _load(inputs, codes, m, relative, begin, count, scratch)
        for a in range(k):
            for b in range(a, k):
                for i in range(count):
                    scratch[spare + i] = scratch[a * TILE + i] * scratch[b * TILE + i]
                value = _folded(scratch, spare, count)
                out[a * k + b] += value
                if b != a:
                    out[b * k + a] += value


@njit(error_model="numpy")
def _score(mode, k, count, scratch, m):
    """Turn loaded differences into scores: magnitudes in place, or their variance in the first tile."""
    if mode == 0:
        for j in range(k):
            for i in range(count):
                scratch[j * TILE + i] = abs(scratch[j * TILE + i])
        return k
    mean = m * TILE
    for i in range(count):
        scratch[mean + i] = scratch[i]
    for j in range(1, k):
        for i in range(count):
            scratch[mean + i] += scratch[j * TILE + i]
    for i in range(count):
        scratch[mean + i] /= k
    for i in range(count):
        scratch[i] = (scratch[i] - scratch[mean + i]) ** 2
    for j in range(1, k):
        for i in range(count):
            scratch[i] += (scratch[j * TILE + i] - scratch[mean + i]) ** 2
    return 1


@njit(error_model="numpy")
def _count_row(scratch, at, count, shift, top, bins, start):
    if shift == 47:
        for i in range(count):
            bins[start + types.int64(u64_of(scratch[at + i]) >> types.uint64(47))] += 1
    else:
        for i in range(count):
            key = types.int64(u64_of(scratch[at + i])) >> shift
            if (key >> 16) == top:
                bins[start + (key & 65535)] += 1


def histogram(inputs, codes, m, mode, n, shift, tops, bins, scratch):
    """Count scores by sixteen bits of their float64 pattern, for each score row apart.

    A score counts when its bits above those sixteen are tops[j]; a negative tops[j] leaves row j
    out. `shift` is the lowest of the sixteen bits.
    """
    for begin in range(0, n, TILE):
        count = min(TILE, n - begin)
        _load(inputs, codes, m, True, begin, count, scratch)
        rows = _score(mode, m - 1, count, scratch, m)
        for j in range(rows):
            if tops[j] >= 0:
                _count_row(scratch, j * TILE, count, shift, tops[j], bins, j * 65536)


@njit(error_model="numpy")
def _gather_row(scratch, at, count, first, shift, top, found, places, start, held, capacity):
    for i in range(count):
        value = scratch[at + i]
        if (types.int64(u64_of(value)) >> shift) == top:
            if held < capacity:
                found[start + held] = value
                places[start + held] = first + i
            held += 1
    return held


def collect(inputs, codes, m, mode, n, first, shift, tops, found, places, counts, capacity, scratch):
    """Gather the scores whose bits above `shift` are tops[j], and their places, in order.

    Row j goes to found[j * capacity ..]; counts[j] goes on counting beyond the capacity.
    """
    for begin in range(0, n, TILE):
        count = min(TILE, n - begin)
        _load(inputs, codes, m, True, begin, count, scratch)
        rows = _score(mode, m - 1, count, scratch, m)
        for j in range(rows):
            if tops[j] >= 0:
                counts[j] = _gather_row(
                    scratch, j * TILE, count, first + begin, shift, tops[j], found, places, j * capacity,
                    counts[j], capacity,
                )  # fmt: skip


@njit(error_model="numpy")
def _uniform(key, index):
    """53 random bits for an element: SplitMix64 as a counter (Steele, Lea, Flood: OOPSLA 2014)."""
    z = key + (types.uint64(index) + types.uint64(1)) * types.uint64(_GOLDEN)
    z = (z ^ (z >> types.uint64(30))) * types.uint64(_MIX_1)
    z = (z ^ (z >> types.uint64(27))) * types.uint64(_MIX_2)
    return types.int64((z ^ (z >> types.uint64(31))) >> types.uint64(11))


@njit(error_model="numpy")
def _sparsify(kind, bounds, limits, key, j, to, count, first, scratch):
    """Set to zero the differences of model j that its mask drops."""
    if kind == BAND:
        high, low = bounds[2 * j], bounds[2 * j + 1]
        high_limit, low_limit = limits[2 * j], limits[2 * j + 1]
        for i in range(count):
            size = abs(scratch[to + i])
            kept = ((size < high) | ((size == high) & (first + i > high_limit))) & (
                (size > low) | ((size == low) & (first + i <= low_limit))
            )
            scratch[to + i] = scratch[to + i] if kept else 0.0
    elif kind == RANDOM:
        below = limits[2 * j]
        for i in range(count):
            scratch[to + i] = scratch[to + i] if _uniform(key, first + i) < below else 0.0


def masked_sums(inputs, codes, m, n, first, kinds, bounds, limits, keys, scratch, out):
    """out[2j] += the sum of |difference j|, and out[2j + 1] += that of what its mask keeps."""
    spare = m * TILE
    for begin in range(0, n, TILE):
        count = min(TILE, n - begin)
        _load(inputs, codes, m, True, begin, count, scratch)
        for j in range(m - 1):
            to = j * TILE
            for i in range(count):
                scratch[spare + i] = abs(scratch[to + i])
            out[2 * j] += _folded(scratch, spare, count)
            _sparsify(kinds[j], bounds, limits, keys[j], j, to, count, first + begin, scratch)
            for i in range(count):
                scratch[to + i] = abs(scratch[to + i])
            out[2 * j + 1] += _folded(scratch, to, count)


@njit(error_model="numpy")
def _elect(k, election, weights, scales, count, scratch, m):
    """The sign that wins at each element: of the weighted sum, or of the number of models; 0 counts as +."""
    sign = m * TILE
    for i in range(count):
        scratch[sign + i] = 0.0
    for j in range(k):
        w, s, to = weights[j], scales[j], j * TILE
        if election == SIGN_SUM:
            for i in range(count):
                scratch[sign + i] += w * (s * scratch[to + i])
        else:
            for i in range(count):
                d = w * (s * scratch[to + i])
                scratch[sign + i] += (1.0 if d > 0 else 0.0) - (1.0 if d < 0 else 0.0)
    for i in range(count):
        scratch[sign + i] = 1.0 if scratch[sign + i] >= 0.0 else -1.0


@njit(error_model="numpy")
def _add_all(k, weights, scales, whole, part, count, scratch):
    """The weighted sum of all differences, divided."""
    for j in range(k):
        c = weights[j] * scales[j]
        for i in range(count):
            scratch[part + i] += c * scratch[j * TILE + i]
    for i in range(count):
        scratch[part + i] /= whole


@njit(error_model="numpy")
def _add_agreeing(k, weights, scales, divide, sign, part, count, scratch):
    """The weighted sum of the differences that have the elected sign, divided by their weights if wanted."""
    share = part + TILE
    for j in range(k):
        w, s = weights[j], scales[j]
        for i in range(count):
            d = w * (s * scratch[j * TILE + i])
            agrees = d * scratch[sign + i] > 0.0
            scratch[part + i] += d if agrees else 0.0
            scratch[share + i] += w if agrees else 0.0
    if divide:
        for i in range(count):
            d = scratch[share + i]
            scratch[part + i] /= d if abs(d) >= _TINY else 1.0


def combine(
    inputs, codes, m, n, first, kinds, bounds, limits, keys, weights, scales, election, divide, scale,
    scratch, out, out_code, stats,
):  # fmt: skip
    """out = base + scale * sum of weights[j] * scales[j] * masked difference j, over those that agree.

    With an election only differences whose weighted sign is the elected one take part. `divide`
    divides by the sum of the weights that took part (of all, without an election).
    """
    k = m - 1
    total = 0.0
    for j in range(k):
        total += weights[j]
    whole = total if divide and abs(total) >= _TINY else 1.0
    last, sign, part, share = k * TILE, m * TILE, (m + 1) * TILE, (m + 2) * TILE
    for begin in range(0, n, TILE):
        count = min(TILE, n - begin)
        for j in range(m):
            widened(inputs[j], codes[j], begin, count, scratch, j * TILE)
            stats[j] += not_finite(scratch, j * TILE, count)
        for j in range(k):
            for i in range(count):
                scratch[j * TILE + i] -= scratch[last + i]
            _sparsify(kinds[j], bounds, limits, keys[j], j, j * TILE, count, first + begin, scratch)
        for i in range(count):
            scratch[part + i] = 0.0
            scratch[share + i] = 0.0
        if election == SIGN_NONE:
            _add_all(k, weights, scales, whole, part, count, scratch)
        else:
            _elect(k, election, weights, scales, count, scratch, m)
            _add_agreeing(k, weights, scales, divide, sign, part, count, scratch)
        for i in range(count):
            scratch[part + i] = scratch[last + i] + scale * scratch[part + i]
        lost = beyond(scratch, part, count, out_code)
        if lost:
            stats[m] += lost - not_finite(scratch, part, count)
        narrowed(scratch, part, count, out_code, out, begin)


@njit(error_model="numpy")
def _turned(value, bits):
    return (value << types.uint64(bits)) | (value >> types.uint64(64 - bits))


def digest(address, n, state):
    """Take n bytes, a multiple of 32, into the lanes of an XXH64 digest (xxHash specification, step 2)."""
    words = at_u64(address)
    a, b, c, d = state[0], state[1], state[2], state[3]
    p1, p2 = types.uint64(XXH_PRIME_1), types.uint64(XXH_PRIME_2)
    for i in range(0, n // 8, 4):
        a = _turned(a + words[i] * p2, 31) * p1
        b = _turned(b + words[i + 1] * p2, 31) * p1
        c = _turned(c + words[i + 2] * p2, 31) * p1
        d = _turned(d + words[i + 3] * p2, 31) * p1
    state[0], state[1], state[2], state[3] = a, b, c, d


_LETTERS = {
    "p": types.CPointer(types.uint64),
    "n": types.CPointer(types.int64),
    "v": types.CPointer(types.float64),
    "a": types.uint64,
    "i": types.int64,
    "d": types.float64,
    "-": types.void,
}


def numba_signature(name):
    """A kernel's signature in numba's types."""
    arguments, result = SIGNATURES[name]
    return _LETTERS[result](*(_LETTERS[letter] for letter in arguments))


KERNELS = (widen, narrow, weighted_sum, gram, histogram, collect, masked_sums, combine, digest)
