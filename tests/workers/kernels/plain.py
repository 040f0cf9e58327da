"""Plain, slow references: Philox by the paper's text, float formats by exact rational arithmetic."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

MASK = 0xFFFFFFFF


def philox4x32(counter: tuple[int, int, int, int], key: tuple[int, int], rounds: int = 10) -> tuple[int, ...]:
    c, (k0, k1) = counter, key
    for _ in range(rounds):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = ((p1 >> 32) ^ c[1] ^ k0, p1 & MASK, (p0 >> 32) ^ c[3] ^ k1, p0 & MASK)
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return c


def key_of(seed: int, name: str) -> tuple[int, int]:
    state = hashlib.blake2b(key=seed.to_bytes(8, "little"), digest_size=8, person=b"plait.select.v1")
    state.update(name.encode())
    number = int.from_bytes(state.digest(), "little")
    return number & MASK, number >> 32


def uv_of(seed: int, name: str, element: int) -> tuple[int, int]:
    """The two numbers that decide element ``element`` of a tensor."""
    block = element >> 1
    x = philox4x32((block & MASK, block >> 32, 0, 0), key_of(seed, name))
    return (x[2], x[3]) if element & 1 else (x[0], x[1])


@dataclass(frozen=True)
class Format:
    """A float format; ``fnuz`` ones have one zero, one NaN and no infinity."""

    exponent: int
    mantissa: int
    has_infinity: bool = True
    fnuz: bool = False

    @property
    def bits(self) -> int:
        return 1 + self.exponent + self.mantissa

    @property
    def bias(self) -> int:
        return (1 << (self.exponent - 1)) - (0 if self.fnuz else 1)

    @property
    def sign_bit(self) -> int:
        return 1 << (self.bits - 1)

    @property
    def canonical_nan(self) -> int:
        if self.fnuz:
            return self.sign_bit
        if not self.has_infinity:
            return self.sign_bit - 1
        top = ((1 << self.exponent) - 1) << self.mantissa
        return top | 1 << (self.mantissa - 1)

    @property
    def beyond(self) -> int:
        """The first digits (a pattern without its sign) that are not a finite value's."""
        if self.fnuz:
            return self.sign_bit
        return self.sign_bit - 1 if not self.has_infinity else ((1 << self.exponent) - 1) << self.mantissa

    def decode(self, pattern: int) -> float:
        """The value as a double, which holds every format exactly. A NaN keeps its sign."""
        negative, digits = pattern & self.sign_bit, pattern & (self.sign_bit - 1)
        if self.fnuz and pattern == self.sign_bit:
            return math.nan
        if digits >= self.beyond and not self.fnuz:
            value = math.inf if self.has_infinity and digits == self.beyond else math.nan
        else:
            e, m = digits >> self.mantissa, digits & ((1 << self.mantissa) - 1)
            m += (1 << self.mantissa) if e else 0
            value = math.ldexp(m, max(e, 1) - self.bias - self.mantissa)
        return -value if negative else value

    def encode(self, value: float | Fraction) -> int:
        """The pattern nearest to ``value``: ties to even, by exact rational arithmetic."""
        if isinstance(value, float):
            sign = self.sign_bit if math.copysign(1.0, value) < 0 else 0
            if math.isnan(value):
                return self.canonical_nan | sign
            if math.isinf(value):
                return self._overflow(sign)
        else:
            sign = self.sign_bit if value < 0 else 0
        exact = abs(Fraction(value))
        least = 1 - self.bias
        e = least
        if exact:
            e = exact.numerator.bit_length() - exact.denominator.bit_length()
            e = max(e if Fraction(2) ** e <= exact else e - 1, least)
        digits = round(exact / Fraction(2) ** (e - self.mantissa))  # Python rounds ties to even
        pattern = ((e - least) << self.mantissa) + digits
        if pattern >= self.beyond:
            return self._overflow(sign)
        return 0 if self.fnuz and not pattern else pattern | sign

    def _overflow(self, sign: int) -> int:
        return (self.beyond if self.has_infinity else self.canonical_nan) | sign

    def decode_all(self, patterns: Iterable[int]) -> npt.NDArray[np.float64]:
        return np.array([self.decode(int(pattern)) for pattern in patterns], np.float64)


FORMATS = {
    "F64": Format(11, 52),
    "F32": Format(8, 23),
    "F16": Format(5, 10),
    "BF16": Format(8, 7),
    "F8_E5M2": Format(5, 2),
    "F8_E4M3": Format(4, 3, has_infinity=False),
    "F8_E5M2FNUZ": Format(5, 2, has_infinity=False, fnuz=True),
    "F8_E4M3FNUZ": Format(4, 3, has_infinity=False, fnuz=True),
}
