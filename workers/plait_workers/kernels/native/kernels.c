// All kernels, for one level of processors: compiled once a level, with LEVEL behind every name.
#pragma STDC FP_CONTRACT OFF

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define EXPORTED(name) __attribute__((visibility("default"))) JOIN(name, LEVEL)

#include <math.h>

#include "encode.h"
#include "select_common.h"

#define STORED uint8_t
#define LANE uint16_t
#define SIGNED int16_t
#define NAMED(name) name##_8
#include "select_width.h"

#define STORED uint16_t
#define LANE uint16_t
#define SIGNED int16_t
#define NAMED(name) name##_16
#include "select_width.h"

#define STORED uint32_t
#define LANE uint32_t
#define SIGNED int32_t
#define NAMED(name) name##_32
#include "select_width.h"

#define STORED uint64_t
#define LANE uint64_t
#define SIGNED int64_t
#define NAMED(name) name##_64
#include "select_width.h"

enum {
    AVERAGE_TILE = 2048, // elements: sums of a tile stay in the nearest cache
    FETCHED = 256,       // elements between two looks ahead
};

// One call: K arrays of n bit patterns, each in its own format, and a place for the result.
typedef struct {
    const uint8_t *const *inputs;
    const int64_t *codes;
    const double *weights; // each is rounded once to the accumulator's format
    const double *table;   // values by bit pattern if the inputs are 8-bit floats
    uint8_t *out;
    size_t num_models;
    size_t n;
    int out_code;
    const narrow_format *to; // the result's narrow format
    int64_t *stats;          // (2 K + 2): the inputs' non-finite values are added from K + 1 on
} averaging;

#define REAL float
#define NAMED(name) name##_f32
#include "average_real.h"

#define REAL double
#define NAMED(name) name##_f64
#include "average_real.h"

void EXPORTED(convert)(const uint8_t *from, int code, uint8_t *out, int out_code, size_t n, const narrow_format *to) {
    convert_any(from, code, out, out_code, n, to);
}

uint64_t EXPORTED(narrow)(double x, const narrow_format *to) { return narrow(x, to); }

void EXPORTED(philox)(uint32_t x[4], uint32_t k0, uint32_t k1) { philox_one(x, k0, k1); }

// Numbers for elements first .. first + count - 1.
void EXPORTED(draw)(uint32_t k0, uint32_t k1, uint64_t first, size_t count, uint32_t *u, uint32_t *v) {
    numbers drawn;
    for (size_t start = 0; start < count; start += TILE) {
        size_t size = count - start < TILE ? count - start : TILE, odd = (first + start) & 1;
        draw(k0, k1, first + start, size, drawn.u, drawn.v);
        memcpy(u + start, drawn.u + odd, size * sizeof *u);
        memcpy(v + start, drawn.v + odd, size * sizeof *v);
    }
}
