"""Elements of every stored type: widened to float64, and rounded back once; compiled by numba.

Values are given by arrays of float64 and a place in them, stored elements by an address, a type's code
and a place. Nothing is allocated and nothing raised.
"""

from __future__ import annotations

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from modelyard.merging.kernels.constants import BF16, E4M3, E5M2, F16, F32, F64

_EXPONENT = 0x7FF0000000000000
_MAGNITUDE = 0x7FFFFFFFFFFFFFFF
_SIGN = 0x8000000000000000


def _bitcast(to, source, llvm_type):
    @intrinsic
    def cast(_typing, _value):
        def generate(_context, builder, _signature, arguments):
            return builder.bitcast(arguments[0], llvm_type)

        return to(source), generate

    return cast


def _pointer(element, llvm_type):
    @intrinsic
    def cast(_typing, _address):
        def generate(_context, builder, _signature, arguments):
            return builder.inttoptr(arguments[0], llvm_type.as_pointer())

        return types.CPointer(element)(types.uint64), generate

    return cast


f32_of = _bitcast(types.float32, types.uint32, ir.FloatType())
u32_of = _bitcast(types.uint32, types.float32, ir.IntType(32))
_f64_of = _bitcast(types.float64, types.uint64, ir.DoubleType())
u64_of = _bitcast(types.uint64, types.float64, ir.IntType(64))
_at_u8 = _pointer(types.uint8, ir.IntType(8))
at_u16 = _pointer(types.uint16, ir.IntType(16))
at_u64 = _pointer(types.uint64, ir.IntType(64))
_at_f32 = _pointer(types.float32, ir.FloatType())
_at_f64 = _pointer(types.float64, ir.DoubleType())


@njit(error_model="numpy")
def _half(bits):
    """The value of a float16's 16 bits."""
    wide = types.uint32(bits & types.uint16(0x7FFF)) << types.uint32(13)
    scaled = f32_of(wide) * types.float32(2.0**112)
    special = f32_of(wide | types.uint32(0x7F800000))
    value = special if (bits & types.uint16(0x7C00)) == types.uint16(0x7C00) else scaled
    return types.float64(-value if bits & types.uint16(0x8000) else value)


@njit(error_model="numpy")
def _quarter(bits):
    """The value of a float8_e4m3fn's 8 bits."""
    low = bits & types.uint8(0x7F)
    value = f32_of(types.uint32(low) << types.uint32(20)) * types.float32(2.0**120)
    if low == types.uint8(0x7F):
        value = types.float32(float("nan"))
    return types.float64(-value if bits & types.uint8(0x80) else value)


@njit(error_model="numpy")
def widened(address, code, begin, n, out, to):
    """Elements begin .. begin + n as float64 at out[to ..]."""
    if code == BF16:
        shorts = at_u16(address)
        for i in range(n):
            out[to + i] = types.float64(f32_of(types.uint32(shorts[begin + i]) << types.uint32(16)))
    elif code == F32:
        singles = _at_f32(address)
        for i in range(n):
            out[to + i] = types.float64(singles[begin + i])
    elif code == F64:
        doubles = _at_f64(address)
        for i in range(n):
            out[to + i] = doubles[begin + i]
    elif code == F16:
        shorts = at_u16(address)
        for i in range(n):
            out[to + i] = _half(shorts[begin + i])
    elif code == E4M3:
        octets = _at_u8(address)
        for i in range(n):
            out[to + i] = _quarter(octets[begin + i])
    else:
        octets = _at_u8(address)
        for i in range(n):
            out[to + i] = _half(types.uint16(octets[begin + i]) << types.uint16(8))


@njit(error_model="numpy")
def not_finite(values, start, n):
    """How many values are NaN or infinite."""
    wrong = types.int64(0)
    for i in range(n):
        wrong += (u64_of(values[start + i]) & types.uint64(_EXPONENT)) == types.uint64(_EXPONENT)
    return wrong


@njit(error_model="numpy")
def _rounded(x, digits, lowest):
    """x rounded to nearest even to so many binary digits after the first, or to 2^(lowest - digits)."""
    bits = u64_of(x)
    exponent = types.int64((bits >> types.uint64(52)) & types.uint64(0x7FF))
    step = max(exponent, types.int64(1023 + lowest))
    magic = _f64_of(types.uint64(step + 52 - digits) << types.uint64(52)) * 1.5
    r = (x + magic) - magic
    signed = _f64_of((u64_of(r) & types.uint64(_MAGNITUDE)) | (bits & types.uint64(_SIGN)))
    return x if exponent > 1500 else signed


@njit(error_model="numpy")
def _half_bits(r):
    """The float16 of a value that was rounded to one."""
    bits = types.uint16(u32_of(types.float32(abs(r) * 2.0**-112)) >> types.uint32(13))
    if abs(r) >= 65536.0:
        bits = types.uint16(0x7C00)
    if r != r:
        bits = types.uint16(0x7E00)
    sign = types.uint16((u64_of(r) >> types.uint64(48)) & types.uint64(0x8000))
    return bits | sign


@njit(error_model="numpy")
def _quarter_bits(r):
    """The float8_e4m3fn of a value that was rounded to one; it has no infinity."""
    bits = types.uint8(u32_of(types.float32(abs(r) * 2.0**-120)) >> types.uint32(20))
    if not abs(r) <= 448.0:
        bits = types.uint8(0x7F)
    sign = types.uint8((u64_of(r) >> types.uint64(56)) & types.uint64(0x80))
    return bits | sign


@njit(error_model="numpy")
def _limit(code):
    """The least magnitude that a type cannot hold after rounding."""
    if code == BF16:
        return 2.0**128
    if code == F16:
        return 65536.0
    if code == E4M3:
        return 448.0000001
    if code == E5M2:
        return 65536.0
    if code == F32:
        return 3.4028235677973366e38
    return float("inf")


@njit(error_model="numpy")
def beyond(values, start, n, code):
    """How many values the output's type cannot hold, those among them that are not finite."""
    limit = _limit(code)
    lost = types.int64(0)
    for i in range(n):
        lost += 0 if abs(values[start + i]) < limit else 1
    return lost


@njit(error_model="numpy")
def narrowed(values, start, n, code, address, begin):
    """Store values[start ..] as elements begin .. of the output."""
    if code == F64:
        doubles = _at_f64(address)
        for i in range(n):
            doubles[begin + i] = values[start + i]
        return
    if code == BF16:
        shorts = at_u16(address)
        for i in range(n):
            r = types.float32(_rounded(values[start + i], 7, -126))
            shorts[begin + i] = types.uint16(u32_of(r) >> types.uint32(16))
    elif code == F32:
        singles = _at_f32(address)
        for i in range(n):
            singles[begin + i] = types.float32(values[start + i])
    elif code == F16:
        shorts = at_u16(address)
        for i in range(n):
            shorts[begin + i] = _half_bits(_rounded(values[start + i], 10, -14))
    elif code == E4M3:
        octets = _at_u8(address)
        for i in range(n):
            octets[begin + i] = _quarter_bits(_rounded(values[start + i], 3, -6))
    else:
        octets = _at_u8(address)
        for i in range(n):
            r = _rounded(values[start + i], 2, -14)
            octets[begin + i] = types.uint8(_half_bits(r) >> types.uint16(8))
