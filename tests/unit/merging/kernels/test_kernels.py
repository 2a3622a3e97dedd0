"""The kernels' edges: stored values are read right, results are rounded right, checksums are XXH64."""

from __future__ import annotations

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from modelyard.merging.kernels import constants
from modelyard.merging.kernels.checksum import Checksum
from modelyard.merging.kernels.library import load_kernels

#: Code, bits of exponent and of mantissa, stored type, and whether the largest exponent has infinities.
SMALL = {
    "bf16": (constants.BF16, 8, 7, np.uint16, True),
    "f16": (constants.F16, 5, 10, np.uint16, True),
    "e4m3": (constants.E4M3, 4, 3, np.uint8, False),
    "e5m2": (constants.E5M2, 5, 2, np.uint8, True),
}


def values_of(exponent_bits, mantissa_bits, *, infinite):
    """Every non-negative value of a small float in the order of its bits, by the definition."""
    bias, top = 2 ** (exponent_bits - 1) - 1, 2**exponent_bits - 1
    found = []
    for bits in range(2 ** (exponent_bits + mantissa_bits)):
        exponent, fraction = bits >> mantissa_bits, bits & (2**mantissa_bits - 1)
        if infinite and exponent == top:
            found.append(np.inf if fraction == 0 else np.nan)
        elif not infinite and exponent == top and fraction == 2**mantissa_bits - 1:
            found.append(np.nan)
        elif exponent == 0:
            found.append(fraction * 2.0 ** (1 - bias - mantissa_bits))
        else:
            found.append((2**mantissa_bits + fraction) * 2.0 ** (exponent - bias - mantissa_bits))
    return np.array(found)


def widened(code, stored):
    out = np.empty(len(stored))
    wrong = load_kernels().widen(stored.ctypes.data, code, len(stored), out.ctypes.data)
    return out, wrong


def narrowed(code, values, stored_type):
    values = np.ascontiguousarray(values, np.float64)
    out = np.empty(len(values), stored_type)
    lost = load_kernels().narrow(values.ctypes.data, len(values), code, out.ctypes.data)
    return out, lost


@pytest.mark.parametrize("name", SMALL)
def test_every_stored_value_is_read(name):
    code, exponent, mantissa, stored_type, infinite = SMALL[name]
    expected = values_of(exponent, mantissa, infinite=infinite)
    bits = np.arange(len(expected)).astype(stored_type)
    sign = stored_type(len(expected))
    for stored, factor in ((bits, 1.0), (bits | sign, -1.0)):
        out, wrong = widened(code, stored)
        np.testing.assert_array_equal(out, factor * expected)
        assert np.array_equal(np.signbit(out[expected == 0]), [factor < 0])
        assert wrong == np.count_nonzero(~np.isfinite(expected))


@pytest.mark.parametrize("name", SMALL)
def test_results_are_rounded_to_nearest_even(name):
    code, exponent, mantissa, stored_type, infinite = SMALL[name]
    table = values_of(exponent, mantissa, infinite=infinite)
    finite = table[np.isfinite(table)]
    middles = (finite[:-1] + finite[1:]) / 2  # exact in float64
    chance = np.random.default_rng(7)
    between = finite[:-1] + chance.random(len(middles)) * np.diff(finite)
    for values, expected in (
        (finite, np.arange(len(finite))),
        (middles, np.arange(len(middles)) + np.arange(len(middles)) % 2),
        (np.nextafter(middles, np.inf), np.arange(len(middles)) + 1),
        (np.nextafter(middles, -np.inf), np.arange(len(middles))),
        (between, np.arange(len(middles)) + (between > middles)),
    ):
        out, lost = narrowed(code, values, stored_type)
        np.testing.assert_array_equal(out, expected.astype(stored_type))
        below, _ = narrowed(code, -values, stored_type)
        np.testing.assert_array_equal(below, expected.astype(stored_type) | stored_type(len(table)))
        assert lost == 0


@pytest.mark.parametrize("name", SMALL)
def test_what_is_too_large_is_counted_and_never_finite(name):
    code, exponent, mantissa, stored_type, infinite = SMALL[name]
    table = values_of(exponent, mantissa, infinite=infinite)
    largest = table[np.isfinite(table)].max()
    values = np.array([largest * 1.5, -largest * 4, 1e300, np.inf, -np.inf, np.nan, largest, 0.0])
    out, lost = narrowed(code, values, stored_type)
    back, _ = widened(code, out)
    assert not np.isfinite(back[:6]).any()
    assert back[6] == largest
    assert lost == 3


def test_single_and_double_precision():
    values = np.array([1 / 3, -0.0, 1e-45, 3.5e38, np.nan, -1e308])
    singles, lost = narrowed(constants.F32, values, np.float32)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(singles, values.astype(np.float32))
    assert lost == 2
    doubles, lost = narrowed(constants.F64, values, np.float64)
    np.testing.assert_array_equal(doubles, values)
    assert lost == 0


@given(st.binary(max_size=300), st.integers(0, 9))
def test_checksums_are_xxh64(data, stripes):
    running = Checksum()
    head = np.arange(32 * stripes, dtype=np.uint8)
    tail = np.frombuffer(data, np.uint8).copy() if data else np.empty(1, np.uint8)
    running.update(head, len(head), head.ctypes.data)
    running.update(tail, len(data), tail.ctypes.data)
    assert running.value() == xxhash.xxh64(head.tobytes() + data).hexdigest()


@given(st.lists(st.binary(max_size=90), max_size=8))
def test_checksums_do_not_depend_on_the_parts(parts):
    running = Checksum()
    for part in parts:
        data = np.frombuffer(part, np.uint8).copy() if part else np.empty(1, np.uint8)
        running.update(data, len(part), data.ctypes.data)
    assert running.value() == xxhash.xxh64(b"".join(parts)).hexdigest()
