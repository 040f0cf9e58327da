// Conversion between float formats, on bits: round to nearest even, subnormals kept.
//
// Overflow becomes infinity (NaN where the format has none) and a NaN becomes its sign with the canonical
// quiet NaN. Widening is exact. One rounding only: a double goes to bfloat16 directly, never by way of
// float32.
#ifndef PLAIT_ENCODE_H
#define PLAIT_ENCODE_H

#include <string.h>

#include "vectors.h"

// Codes by which loops branch, once a tile; encode.py has the same.
enum { CODE_F64, CODE_F32, CODE_F16, CODE_BF16, CODE_F8 };

// What a narrow format is made of; see NARROW in encode.py.
typedef struct { int64_t exponent_bits, mantissa_bits, nan, too_large, overflow, signed_zero; } narrow_format;

typedef uint16_t u16_in_memory __attribute__((IN_MEMORY));
typedef uint32_t u32_in_memory __attribute__((IN_MEMORY));
typedef uint64_t u64_in_memory __attribute__((IN_MEMORY));

#define CAST(name, from, to)                       \
    INLINE to name(from value) {                   \
        to result;                                 \
        memcpy(&result, &value, sizeof result);    \
        return result;                             \
    }
CAST(as_f32, uint32_t, float)
CAST(as_u32, float, uint32_t)
CAST(as_f64, uint64_t, double)
CAST(as_u64, double, uint64_t)
#undef CAST

INLINE float bf16_to_f32(uint16_t x) { return as_f32((uint32_t)x << 16); }

INLINE float f16_to_f32(uint16_t x) {
    uint32_t digits = (uint32_t)(x & 0x7FFF) << 13, exponent = digits & 0x0F800000;
    digits += 112u << 23;
    // Zero and subnormals: let the subtraction normalise.
    uint32_t small = as_u32(as_f32(digits + (1u << 23)) - as_f32(113u << 23));
    uint32_t result = exponent == 0x0F800000 ? digits + (112u << 23) : exponent == 0 ? small : digits;
    return as_f32(result | (uint32_t)(x & 0x8000) << 16);
}

INLINE uint16_t f32_to_bf16(float x) {
    uint32_t bits = as_u32(x);
    uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
    uint32_t nan = ((bits >> 16) & 0x8000) | 0x7FC0;
    return (uint16_t)((bits & 0x7FFFFFFF) > 0x7F800000 ? nan : rounded);
}

INLINE uint16_t f32_to_f16(float x) {
    uint32_t bits = as_u32(x), sign = (bits >> 16) & 0x8000, digits = bits & 0x7FFFFFFF;
    // Below the smallest normal: adding 0.5 lets the addition itself round to the subnormal step.
    uint32_t small = as_u32(as_f32(digits) + 0.5f) - 0x3F000000;
    uint32_t normal = (digits - (112u << 23) + 0xFFF + ((digits >> 13) & 1)) >> 13;
    uint32_t result = digits < (113u << 23) ? small : normal;
    result = digits >= 0x47800000 ? 0x7C00 : result;
    result = digits > 0x7F800000 ? 0x7E00 : result;
    return (uint16_t)(result | sign);
}

INLINE uint32_t f32_bits(float x) {
    uint32_t bits = as_u32(x);
    return x == x ? bits : (bits & 0x80000000) | 0x7FC00000;
}

INLINE uint64_t f64_bits(double x) {
    uint64_t bits = as_u64(x);
    return x == x ? bits : (bits & (1ull << 63)) | (0x7FF8ull << 48);
}

INLINE uint32_t f64_to_f32_bits(double x) {
    return x == x ? as_u32((float)x) : ((uint32_t)(as_u64(x) >> 32) & 0x80000000) | 0x7FC00000;
}

// A double as a narrow format's bit pattern, by one rounding.
INLINE uint64_t narrow(double x, const narrow_format *to) {
    int64_t bits = (int64_t)(as_u64(x) & 0x7FFFFFFFFFFFFFFF);
    int64_t sign = (int64_t)(as_u64(x) >> 63) << (to->exponent_bits + to->mantissa_bits);
    if (bits > 0x7FF0000000000000) return (uint64_t)(to->nan | sign);
    // Formats without negative zero also have one more step of bias.
    int64_t exponent = (bits >> 52) - 1023 + (1ll << (to->exponent_bits - 1)) - to->signed_zero;
    int64_t shift = 52 - to->mantissa_bits;
    if (exponent <= 0) {
        shift += 1 - exponent;
        exponent = 1;
    }
    if (shift > 54) return (uint64_t)(to->signed_zero ? sign : 0);
    int64_t digits = (bits & ((1ll << 52) - 1)) | (1ll << 52);
    int64_t kept = digits >> shift, rest = digits & ((1ll << shift) - 1), half = 1ll << (shift - 1);
    if (rest > half || (rest == half && (kept & 1))) kept++;
    int64_t result = ((exponent - 1) << to->mantissa_bits) + kept;
    if (result >= to->too_large) return (uint64_t)(to->overflow | sign);
    return (uint64_t)(result || to->signed_zero ? result | sign : 0);
}

INLINE void convert_from_f32(float x, uint8_t *out, int code, size_t j, const narrow_format *to) {
    if (code == CODE_F32) ((u32_in_memory *)out)[j] = f32_bits(x);
    else if (code == CODE_BF16) ((u16_in_memory *)out)[j] = f32_to_bf16(x);
    else if (code == CODE_F16) ((u16_in_memory *)out)[j] = f32_to_f16(x);
    else if (code == CODE_F64) ((u64_in_memory *)out)[j] = f64_bits(x);
    else out[j] = (uint8_t)narrow(x, to);
}

INLINE void convert_from_f64(double x, uint8_t *out, int code, size_t j, const narrow_format *to) {
    if (code == CODE_F32) ((u32_in_memory *)out)[j] = f64_to_f32_bits(x);
    else if (code == CODE_F64) ((u64_in_memory *)out)[j] = f64_bits(x);
    else if (code == CODE_F8) out[j] = (uint8_t)narrow(x, to);
    else ((u16_in_memory *)out)[j] = (uint16_t)narrow(x, to);
}

INLINE float load_f32(const uint8_t *from, int code, size_t j) {
    if (code == CODE_F32) return as_f32(((const u32_in_memory *)from)[j]);
    uint16_t half = ((const u16_in_memory *)from)[j];
    return code == CODE_BF16 ? bf16_to_f32(half) : f16_to_f32(half);
}

INLINE double load_f64(const uint8_t *from, size_t j) { return as_f64(((const u64_in_memory *)from)[j]); }

// One loop for each pair of formats.
INLINE void convert_loop(const uint8_t *from, int code, uint8_t *out, int out_code, size_t n, const narrow_format *to) {
    if (code == CODE_F64)
        for (size_t j = 0; j < n; j++) convert_from_f64(load_f64(from, j), out, out_code, j, to);
    else
        for (size_t j = 0; j < n; j++) convert_from_f32(load_f32(from, code, j), out, out_code, j, to);
}

INLINE void convert_from(const uint8_t *from, int code, uint8_t *out, int out_code, size_t n, const narrow_format *to) {
    switch (out_code) {
    case CODE_F64: convert_loop(from, code, out, CODE_F64, n, to); break;
    case CODE_F32: convert_loop(from, code, out, CODE_F32, n, to); break;
    case CODE_F16: convert_loop(from, code, out, CODE_F16, n, to); break;
    case CODE_BF16: convert_loop(from, code, out, CODE_BF16, n, to); break;
    default: convert_loop(from, code, out, CODE_F8, n, to);
    }
}

INLINE void convert_any(const uint8_t *from, int code, uint8_t *out, int out_code, size_t n, const narrow_format *to) {
    switch (code) {
    case CODE_F64: convert_from(from, CODE_F64, out, out_code, n, to); break;
    case CODE_F32: convert_from(from, CODE_F32, out, out_code, n, to); break;
    case CODE_F16: convert_from(from, CODE_F16, out, out_code, n, to); break;
    default: convert_from(from, CODE_BF16, out, out_code, n, to);
    }
}

#endif
