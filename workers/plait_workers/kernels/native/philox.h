// Philox4x32-10: counter-based random numbers, one block for every two elements of a tensor.
//
// Source: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC'11.
#ifndef PLAIT_PHILOX_H
#define PLAIT_PHILOX_H

#include "vectors.h"

enum { PHILOX_ROUNDS = 10 };
#define PHILOX_M0 0xD2511F53u
#define PHILOX_M1 0xCD9E8D57u
#define PHILOX_W0 0x9E3779B9u
#define PHILOX_W1 0xBB67AE85u

INLINE void philox_one(uint32_t x[4], uint32_t k0, uint32_t k1) {
    for (int round = 0; round < PHILOX_ROUNDS; round++) {
        uint64_t p0 = (uint64_t)PHILOX_M0 * x[0], p1 = (uint64_t)PHILOX_M1 * x[2];
        x[0] = (uint32_t)(p1 >> 32) ^ x[1] ^ k0;
        x[1] = (uint32_t)p1;
        x[2] = (uint32_t)(p0 >> 32) ^ x[3] ^ k1;
        x[3] = (uint32_t)p0;
        k0 += PHILOX_W0;
        k1 += PHILOX_W1;
    }
}

// Words live in 64-bit lanes; only their low halves count, and only multiplications care.
typedef struct { longs x0, x1, x2, x3; } philox_state;

INLINE philox_state philox_round(philox_state s, uint32_t k0, uint32_t k1) {
    longs p0 = multiply_low(s.x0, (longs){} + PHILOX_M0), p1 = multiply_low(s.x2, (longs){} + PHILOX_M1);
    return (philox_state){(p1 >> 32) ^ (s.x1 ^ k0), p1, (p0 >> 32) ^ (s.x3 ^ k1), p0};
}

// After two rounds on counters (low, high, 0, 0): with words two and three zero, half of both is known.
INLINE philox_state philox_begin(longs low, uint32_t high, uint32_t k0, uint32_t k1) {
    uint64_t known = (uint64_t)PHILOX_M0 * (high ^ k0);
    longs p0 = multiply_low(low, (longs){} + PHILOX_M0);
    longs p1 = multiply_low((p0 >> 32) ^ k1, (longs){} + PHILOX_M1);
    uint32_t second0 = k0 + PHILOX_W0, second1 = (uint32_t)(known >> 32) ^ (k1 + PHILOX_W1);
    return (philox_state){(p1 >> 32) ^ second0, p1, p0 ^ second1, (longs){} + (known & 0xFFFFFFFF)};
}

// Numbers (u, v) for elements first, first + 1, .. : `count` of them rounded up to whole vectors, with
// the element before `first` in front where `first` is odd. Room for count + 4 * WORDS in each is needed.
INLINE void draw(uint32_t k0, uint32_t k1, uint64_t first, size_t count, uint32_t *u, uint32_t *v) {
    uint64_t block = first >> 1;
    size_t num_blocks = (count + (first & 1) + 1) / 2;
    uint32_t low = (uint32_t)block, high = (uint32_t)(block >> 32);
    if ((uint64_t)low + num_blocks > 0xFFFFFFFF) { // the counter's second word changes on the way
        for (size_t i = 0; i < num_blocks; i++) {
            uint32_t x[4] = {(uint32_t)(block + i), (uint32_t)((block + i) >> 32), 0, 0};
            philox_one(x, k0, k1);
            u[2 * i] = x[0], v[2 * i] = x[1], u[2 * i + 1] = x[2], v[2 * i + 1] = x[3];
        }
        return;
    }
    longs step;
    for (int lane = 0; lane < LONGS; lane++) step[lane] = (uint64_t)lane;
    // Two at a time: one alone would wait for the latency of its ten dependent multiplications.
    for (size_t i = 0; i < num_blocks; i += 2 * LONGS) {
        longs counter = step + (low + (uint64_t)i);
        philox_state a = philox_begin(counter, high, k0, k1);
        philox_state b = philox_begin(counter + LONGS, high, k0, k1);
        uint32_t a0 = k0 + 2 * PHILOX_W0, a1 = k1 + 2 * PHILOX_W1;
#pragma clang loop unroll(full)
        for (int round = 2; round < PHILOX_ROUNDS; round++) {
            a = philox_round(a, a0, a1);
            b = philox_round(b, a0, a1);
            a0 += PHILOX_W0;
            a1 += PHILOX_W1;
        }
        store_words(u + 2 * i, evens((words)a.x0, (words)a.x2));
        store_words(v + 2 * i, evens((words)a.x1, (words)a.x3));
        store_words(u + 2 * i + WORDS, evens((words)b.x0, (words)b.x2));
        store_words(v + 2 * i + WORDS, evens((words)b.x1, (words)b.x3));
    }
}

#endif
