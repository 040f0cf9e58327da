// Vectors as the compiler knows them: as wide as the processor's level has, the same code on every level.
#ifndef PLAIT_VECTORS_H
#define PLAIT_VECTORS_H

#include <stddef.h>
#include <stdint.h>

#if defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#include <immintrin.h>
#define VECTOR_BYTES 64
#elif defined(__AVX2__)
#include <immintrin.h>
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif

#define INLINE static inline __attribute__((always_inline))
#define VECTOR(type) type __attribute__((vector_size(VECTOR_BYTES)))
// Sources lie in files at any byte: what is read from memory claims no alignment.
#define IN_MEMORY aligned(1), may_alias

typedef VECTOR(uint16_t) halves;
typedef VECTOR(uint32_t) words;
typedef VECTOR(int32_t) signed_words;
typedef VECTOR(uint64_t) longs;
typedef uint32_t words_in_memory __attribute__((vector_size(VECTOR_BYTES), IN_MEMORY));

enum { WORDS = VECTOR_BYTES / 4, LONGS = VECTOR_BYTES / 8 };

INLINE words load_words(const uint32_t *from) { return *(const words_in_memory *)from; }
INLINE void store_words(uint32_t *to, words value) { *(words_in_memory *)to = value; }

// Even lanes of a, each followed by the same of b.
INLINE words evens(words a, words b) {
#if VECTOR_BYTES == 64
    return __builtin_shufflevector(a, b, 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30);
#elif VECTOR_BYTES == 32
    return __builtin_shufflevector(a, b, 0, 8, 2, 10, 4, 12, 6, 14);
#else
    return __builtin_shufflevector(a, b, 0, 4, 2, 6);
#endif
}

// Odd lanes of a, each followed by the same of b.
INLINE words odds(words a, words b) {
#if VECTOR_BYTES == 64
    return __builtin_shufflevector(a, b, 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31);
#elif VECTOR_BYTES == 32
    return __builtin_shufflevector(a, b, 1, 9, 3, 11, 5, 13, 7, 15);
#else
    return __builtin_shufflevector(a, b, 1, 5, 3, 7);
#endif
}

// a * b of the low halves of 64-bit lanes: one instruction, as both operands are seen to be small.
INLINE longs multiply_low(longs a, longs b) { return (a & 0xFFFFFFFF) * (b & 0xFFFFFFFF); }

// (a * b) >> 32, lane by lane.
INLINE words multiply_high(words a, words b) {
    longs even = multiply_low((longs)a, (longs)b);
    longs odd = ((longs)a >> 32) * ((longs)b >> 32);
    return odds((words)even, (words)odd);
}

// Whether any bit is set.
INLINE int any(longs value) {
#if VECTOR_BYTES == 64
    return _mm512_test_epi64_mask((__m512i)value, (__m512i)value) != 0;
#elif VECTOR_BYTES == 32
    return !_mm256_testz_si256((__m256i)value, (__m256i)value);
#else
    return (value[0] | value[1]) != 0;
#endif
}

// a where the mask's lanes are all ones, b where they are zero.
INLINE longs choose(longs mask, longs a, longs b) {
#if VECTOR_BYTES == 64
    return (longs)_mm512_ternarylogic_epi64((__m512i)mask, (__m512i)a, (__m512i)b, 0xCA);
#elif VECTOR_BYTES == 32
    return (longs)_mm256_blendv_epi8((__m256i)b, (__m256i)a, (__m256i)mask);
#else
    return b ^ ((a ^ b) & mask);
#endif
}

// table[index], lane by lane, of a table with room for 32 entries of which `size` count.
INLINE words look_up(const uint32_t *table, size_t size, words index) {
#if VECTOR_BYTES == 64
    if (size <= 32) {
        const __m512i low = (__m512i)load_words(table), high = (__m512i)load_words(table + WORDS);
        return (words)_mm512_permutex2var_epi32(low, (__m512i)index, high);
    }
#elif VECTOR_BYTES == 32
    __m256i at = (__m256i)index;
    if (size <= 32) {
        __m256i found = _mm256_permutevar8x32_epi32((__m256i)load_words(table), at);
        for (size_t from = 8; from < size; from += 8) {
            __m256i more = _mm256_permutevar8x32_epi32((__m256i)load_words(table + from), at);
            __m256i here = _mm256_cmpgt_epi32(at, _mm256_set1_epi32((int)from - 1));
            found = _mm256_blendv_epi8(found, more, here);
        }
        return (words)found;
    }
#endif
    (void)size;
    words result;
    for (int lane = 0; lane < WORDS; lane++) result[lane] = table[index[lane]];
    return result;
}

#endif
