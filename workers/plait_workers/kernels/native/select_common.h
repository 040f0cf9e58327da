// What every width of selection shares.
#ifndef PLAIT_SELECT_COMMON_H
#define PLAIT_SELECT_COMMON_H

#include <stdlib.h>
#include <string.h>

#include "philox.h"

enum {
    TILE = 1024,        // elements drawn for at once: numbers, marks and tallies of a tile stay in cache
    ROOM = TILE + 64,   // of a tile's numbers, rounded up to whole vectors
    TALLY = 128,        // tiles between two looks at tallies, which 16 bits then hold
    AHEAD = 1024,       // bytes
    VECTORS = 4,        // of a block, whose counts and ranks stay in registers
};

// What bit patterns mean; see forms.py.
typedef struct { uint64_t flip, digits, zero, inf_from, nan_from; } value_form;

// One call: K arrays of n bit patterns, the base's, and a place for the result; none is aligned.
typedef struct {
    const uint8_t *const *inputs;
    const uint8_t *base;
    uint8_t *out;
    size_t num_models;
    size_t n;
    uint64_t first;   // index of the first element within its whole tensor
    uint32_t k0, k1;  // the tensor's key
    const value_form *form;
    int64_t *stats;   // (2 K + 2): taken from each; base kept; not finite in each; in the base
} selection;

// (u, v) of the tile at hand.
typedef struct { uint32_t u[ROOM], v[ROOM]; } numbers;

// Scratch of a call, freed with it: marks of which values equal the base's, and tallies of what was taken.
typedef struct { void *marks, *taken; } scratch;

enum { ALIGNMENT = 64 };

INLINE int make_scratch(scratch *s, size_t num_models, size_t marks_each) {
    size_t tallies = (num_models * VECTOR_BYTES + ALIGNMENT) / ALIGNMENT * ALIGNMENT;
    s->marks = aligned_alloc(ALIGNMENT, (num_models * marks_each + ALIGNMENT) / ALIGNMENT * ALIGNMENT);
    s->taken = aligned_alloc(ALIGNMENT, tallies);
    if (s->taken != NULL) memset(s->taken, 0, tallies);
    return s->marks != NULL && s->taken != NULL;
}

INLINE void free_scratch(scratch *s) {
    free(s->marks);
    free(s->taken);
}

// What is drawn by. Equal weights: a threshold by the number of changed sub-models, and 1 for each. Others:
// integers with sum 2**24, and n, or -1 for unlimited.
typedef struct {
    const uint32_t *keep;
    size_t keep_size;
    const uint32_t *weights;
    int resample;
} law;

#define WEIGHT_SUM (1u << 24)
#define NOBODY 0xFFFFFFFFu

// Where on the running sum of changed weights an element is taken, or nobody's.
INLINE uint32_t target_of(const law *law, uint32_t u, uint32_t v, uint32_t changed) {
    uint32_t target = (uint32_t)(((uint64_t)u * changed) >> 32);
    if (law->keep != NULL) return v < law->keep[changed] ? NOBODY : target;
    uint32_t q = (WEIGHT_SUM - changed) << 8, keep = law->resample < 0 ? 0 : q;
    for (int i = 0; i < law->resample; i++) keep = (uint32_t)(((uint64_t)keep * q) >> 32);
    return v < keep ? NOBODY : target;
}

#endif
