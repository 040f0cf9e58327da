// Parameter selection for one width of bit patterns; included once for each, with
//   STORED  the patterns' type in memory
//   LANE    the type that counts and ranks are held in: STORED, but 16 bits at least; SIGNED the same
//   NAMED   puts the width behind a name
//
// An array is cut into tiles and these into blocks of four vectors. A block is counted (how many
// sub-models changed each element, and which), drawn for, ranked (which of the changed ones is taken) and
// picked, so that each source is loaded once from memory and the second time from the nearest cache.
// Blocks with values that are not finite, and what is left over at the end, take the plain loops,
// which say what the vectors do: a NaN differs from everything, and is counted.

typedef VECTOR(LANE) NAMED(lanes);
typedef VECTOR(SIGNED) NAMED(signed_lanes);
typedef STORED NAMED(stored) __attribute__((IN_MEMORY));
#define lanes NAMED(lanes)

enum {
    NAMED(LANES) = VECTOR_BYTES / sizeof(LANE),
    NAMED(BLOCK) = VECTORS * NAMED(LANES),
};
#define LANES NAMED(LANES)
#define BLOCK NAMED(BLOCK)
#define wide NAMED(wide)

typedef STORED NAMED(stored_lanes) __attribute__((vector_size(VECTOR_BYTES / sizeof(LANE) * sizeof(STORED)), IN_MEMORY));
typedef uint32_t wide __attribute__((vector_size(VECTOR_BYTES / sizeof(LANE) * 4), IN_MEMORY));
typedef int32_t NAMED(signed_wide) __attribute__((vector_size(VECTOR_BYTES / sizeof(LANE) * 4)));

INLINE lanes NAMED(load)(const uint8_t *from, size_t at) {
    return __builtin_convertvector(*(const NAMED(stored_lanes) *)(from + at * sizeof(STORED)), lanes);
}

INLINE void NAMED(store)(uint8_t *to, size_t at, lanes value) {
    *(NAMED(stored_lanes) *)(to + at * sizeof(STORED)) = __builtin_convertvector(value, NAMED(stored_lanes));
}

INLINE STORED NAMED(one)(const uint8_t *from, size_t at) { return ((const NAMED(stored) *)from)[at]; }

INLINE void NAMED(set_one)(uint8_t *to, size_t at, STORED value) { ((NAMED(stored) *)to)[at] = value; }

INLINE int NAMED(not_finite)(const value_form *form, STORED x) {
    return ((x ^ form->flip) & form->digits) >= form->inf_from;
}

INLINE int NAMED(changed)(const value_form *form, STORED x, STORED b) {
    int nan = ((x ^ form->flip) & form->digits) >= form->nan_from;
    return nan || (x != b && ((x | b) & form->zero) != 0);
}

// A float's sign aside, x | b is no smaller than either: one look at it rules out infinities and NaN in
// both. It may suspect where there is none (1.0 | 2.0 has all bits of an exponent), and a second look tells;
// of 8 bits it would suspect nearly every block.
INLINE int NAMED(can_share)(const value_form *form) {
    return sizeof(STORED) > 1 && form->flip == 0 && form->digits == form->zero && form->digits != 0;
}

// The second look at a block: whether all of it is finite.
static __attribute__((noinline)) int NAMED(all_finite)(const selection *s, size_t at) {
    const lanes digits = (lanes){} + (LANE)s->form->digits;
    lanes largest = {};
    for (size_t i = 0; i <= s->num_models; i++) {
        const uint8_t *source = i < s->num_models ? s->inputs[i] : s->base;
        for (int k = 0; k < VECTORS; k++)
            largest = __builtin_elementwise_max(largest, NAMED(load)(source, at + k * LANES) & digits);
    }
    return !any((longs)(lanes)(largest >= (LANE)s->form->inf_from));
}

// Marks which values of a block equal the base's, and counts them; false if one is not finite.
INLINE int NAMED(count)(const selection *s, size_t at, int shared, lanes *marks, lanes *values, const lanes *base, lanes *equal) {
    const lanes zero = (lanes){} + (LANE)s->form->zero, digits = (lanes){} + (LANE)s->form->digits;
    const lanes flip = (lanes){} + (LANE)s->form->flip;
    lanes largest = {};
    for (int k = 0; k < VECTORS; k++) {
        equal[k] = (lanes){};
        largest = __builtin_elementwise_max(largest, (base[k] ^ flip) & digits);
    }
    for (size_t i = 0; i < s->num_models; i++) {
        const uint8_t *input = s->inputs[i];
        for (size_t line = 0; line < BLOCK * sizeof(STORED); line += 64)
            __builtin_prefetch(input + at * sizeof(STORED) + line + AHEAD);
#pragma clang loop unroll(full)
        for (int k = 0; k < VECTORS; k++) {
            lanes x = NAMED(load)(input, at + k * LANES), both = (x | base[k]) & zero;
            lanes same = (lanes)(x == base[k]) | (lanes)(both == 0);
            largest = __builtin_elementwise_max(largest, shared ? both : (x ^ flip) & digits);
            equal[k] -= same;
            marks[i * VECTORS + k] = same;
            values[i * VECTORS + k] = x;
        }
    }
    return !any((longs)(lanes)(largest >= (LANE)s->form->inf_from)) || (shared && NAMED(all_finite)(s, at));
}

INLINE void NAMED(from_words)(const uint32_t *words_of, lanes *to) {
    for (int k = 0; k < VECTORS; k++)
        to[k] = __builtin_convertvector(*(const wide *)(words_of + k * LANES), lanes);
}

INLINE void NAMED(to_words)(const lanes *from, uint32_t *words_of) {
    for (int k = 0; k < VECTORS; k++)
        *(wide *)(words_of + k * LANES) = __builtin_convertvector(from[k], wide);
}

// Which of the changed sub-models is taken: 0 .. M - 1, or all ones for the base.
INLINE void NAMED(rank)(const selection *s, const law *law, const lanes *equal, const uint32_t *u, const uint32_t *v, lanes *rank) {
    uint32_t counts[BLOCK];
    NAMED(to_words)(equal, counts);
    for (size_t j = 0; j < BLOCK; j += WORDS) {
        words changed = (uint32_t)s->num_models - load_words(counts + j);
        words kept = (words)(load_words(v + j) < look_up(law->keep, law->keep_size, changed));
        store_words(counts + j, multiply_high(load_words(u + j), changed) | kept);
    }
    NAMED(from_words)(counts, rank);
}

// Take the ranked one: sub-model i if it changed the element, and rank of the changed ones came before it.
// Instead of counting those down, values that equal the base's are added to the rank, until it is i.
INLINE void NAMED(pick)(const selection *s, size_t at, const lanes *marks, const lanes *values, const lanes *base, lanes *rank, lanes *taken) {
    lanes out[VECTORS];
    for (int k = 0; k < VECTORS; k++) out[k] = base[k];
    for (size_t i = 0; i < s->num_models; i++) {
        lanes hits = {};
#pragma clang loop unroll(full)
        for (int k = 0; k < VECTORS; k++) {
            lanes same = marks[i * VECTORS + k], x = values[i * VECTORS + k];
            lanes hit = ~same & (lanes)(rank[k] == (LANE)i);
            out[k] = (lanes)choose((longs)hit, (longs)x, (longs)out[k]);
            rank[k] -= same;
            hits += hit;
        }
        taken[i] -= hits;
    }
    for (int k = 0; k < VECTORS; k++) NAMED(store)(s->out, at + k * LANES, out[k]);
}

// Tallies of a tile, added to the statistics; the base was kept in what is left of `elements`.
INLINE void NAMED(tally)(const selection *s, lanes *taken, size_t elements) {
    for (size_t i = 0; i < s->num_models; i++) {
        int64_t sum = 0;
        for (int lane = 0; lane < LANES; lane++) sum += (int64_t)taken[i][lane];
        s->stats[i] += sum;
        elements -= (size_t)sum;
        taken[i] = (lanes){};
    }
    s->stats[s->num_models] += (int64_t)elements;
}

// A mask of lanes as one of words.
INLINE wide NAMED(widen)(lanes mask) {
    return (wide)__builtin_convertvector((NAMED(signed_lanes))mask, NAMED(signed_wide));
}

// With other weights: the target of each element, see target_of.
INLINE void NAMED(aim)(const selection *s, const law *law, const lanes *marks, const uint32_t *u, const uint32_t *v, uint32_t *targets) {
    for (int k = 0; k < VECTORS; k += 2) {
        wide same[2] = {};
        for (size_t i = 0; i < s->num_models; i++)
            for (int half = 0; half < 2; half++)
                same[half] += NAMED(widen)(marks[i * VECTORS + k + half]) & law->weights[i];
        for (int half = 0; half < 2; half++) *(wide *)(targets + (k + half) * LANES) = same[half];
    }
    for (size_t j = 0; j < BLOCK; j += WORDS) {
        // S - M is what did not change. M = 0 makes q 0 and not 2**32: then nobody is marked.
        words same = load_words(targets + j), q = same << 8, keep = law->resample < 0 ? (words){} : q;
        for (int round = 0; round < law->resample; round++) keep = multiply_high(keep, q);
        words target = multiply_high(load_words(u + j), WEIGHT_SUM - same);
        store_words(targets + j, target | (words)(load_words(v + j) < keep));
    }
}

// Take the sub-model on whose weight the target lies; what of it lies beyond is left for the others.
// Beyond its sub-model a target wraps around to more than all weights together.
INLINE void NAMED(pick_weighted)(const selection *s, const law *law, size_t at, const lanes *marks, const lanes *values, const lanes *base, const uint32_t *targets, lanes *taken) {
    const uint32_t sign = 0x80000000u; // compares are of signed numbers
    for (int k = 0; k < VECTORS; k += 2) {
        wide left[2];
        lanes out[2] = {base[k], base[k + 1]};
        for (int half = 0; half < 2; half++) left[half] = *(const wide *)(targets + (k + half) * LANES) ^ sign;
        for (size_t i = 0; i < s->num_models; i++) {
            const wide weight = (wide){} + law->weights[i];
            lanes hits = {};
            for (int half = 0; half < 2; half++) {
                lanes same = marks[i * VECTORS + k + half], x = values[i * VECTORS + k + half];
                NAMED(signed_wide) below = (NAMED(signed_wide))left[half] < (NAMED(signed_wide))(weight ^ sign);
                lanes hit = (lanes)__builtin_convertvector(below, NAMED(signed_lanes)) & ~same;
                left[half] -= ~NAMED(widen)(same) & weight;
                out[half] = (lanes)choose((longs)hit, (longs)x, (longs)out[half]);
                hits += hit;
            }
            taken[i] -= hits;
        }
        for (int half = 0; half < 2; half++) NAMED(store)(s->out, at + (k + half) * LANES, out[half]);
    }
}

// Elements one by one: what the vectors do, and what else may be.
static __attribute__((noinline)) void NAMED(few)(const selection *s, const law *law, size_t at, size_t count, const uint32_t *u, const uint32_t *v) {
    int64_t *not_finite = s->stats + s->num_models + 1;
    for (size_t j = 0; j < count; j++) {
        STORED b = NAMED(one)(s->base, at + j), result = b;
        uint32_t changed = 0;
        size_t who = s->num_models;
        not_finite[who] += NAMED(not_finite)(s->form, b);
        for (size_t i = 0; i < s->num_models; i++) {
            STORED x = NAMED(one)(s->inputs[i], at + j);
            not_finite[i] += NAMED(not_finite)(s->form, x);
            if (NAMED(changed)(s->form, x, b)) changed += law->weights[i];
        }
        uint32_t left = target_of(law, u[j], v[j], changed);
        for (size_t i = 0; changed && left != NOBODY && i < s->num_models; i++) {
            STORED x = NAMED(one)(s->inputs[i], at + j);
            if (!NAMED(changed)(s->form, x, b)) continue;
            if (left < law->weights[i]) {
                result = x, who = i;
                break;
            }
            left -= law->weights[i];
        }
        NAMED(set_one)(s->out, at + j, result);
        s->stats[who]++;
    }
}

// Whether nobody changed anything in a block: then nothing is drawn.
INLINE int NAMED(is_frozen)(const selection *s, const lanes *equal) {
    lanes frozen = (lanes)(equal[0] == (LANE)s->num_models);
    for (int k = 1; k < VECTORS; k++) frozen &= (lanes)(equal[k] == (LANE)s->num_models);
    return !any(~(longs)frozen);
}

INLINE int NAMED(select)(const selection *s, const law *law, const int weighted) {
    scratch scratch;
    numbers drawn;
    if (!make_scratch(&scratch, s->num_models, 2 * BLOCK * sizeof(LANE))) return free_scratch(&scratch), -1;
    lanes *marks = scratch.marks, *values = marks + s->num_models * VECTORS, *taken = scratch.taken, base[VECTORS], equal[VECTORS], ranks[VECTORS];
    uint32_t targets[BLOCK];
    size_t in_vectors = 0;
    const int shared = NAMED(can_share)(s->form);
    for (size_t start = 0; start < s->n; start += TILE) {
        size_t stop = start + TILE < s->n ? start + TILE : s->n, odd = (s->first + start) & 1;
        int is_drawn = 0;
        for (size_t at = start; at < stop; at += BLOCK) {
            size_t count = stop - at < BLOCK ? stop - at : BLOCK;
            int plain = count == BLOCK;
            if (plain) {
                for (int k = 0; k < VECTORS; k++) base[k] = NAMED(load)(s->base, at + k * LANES);
                plain = shared ? NAMED(count)(s, at, 1, marks, values, base, equal) : NAMED(count)(s, at, 0, marks, values, base, equal);
            }
            if (plain && NAMED(is_frozen)(s, equal)) {
                for (int k = 0; k < VECTORS; k++) NAMED(store)(s->out, at + k * LANES, base[k]);
                s->stats[s->num_models] += BLOCK;
                continue;
            }
            if (!is_drawn) draw(s->k0, s->k1, s->first + start, stop - start, drawn.u, drawn.v);
            is_drawn = 1;
            const uint32_t *u = drawn.u + odd + (at - start), *v = drawn.v + odd + (at - start);
            if (!plain) {
                NAMED(few)(s, law, at, count, u, v);
                continue;
            }
            if (weighted) {
                NAMED(aim)(s, law, marks, u, v, targets);
                NAMED(pick_weighted)(s, law, at, marks, values, base, targets, taken);
            } else {
                NAMED(rank)(s, law, equal, u, v, ranks);
                NAMED(pick)(s, at, marks, values, base, ranks, taken);
            }
            in_vectors += BLOCK;
        }
        if (stop == s->n || start / TILE % TALLY == TALLY - 1) {
            NAMED(tally)(s, taken, in_vectors);
            in_vectors = 0;
        }
    }
    free_scratch(&scratch);
    return 0;
}

int EXPORTED(NAMED(select_equal))(const selection *s, const law *law) { return NAMED(select)(s, law, 0); }

int EXPORTED(NAMED(select_weighted))(const selection *s, const law *law) { return NAMED(select)(s, law, 1); }

// Without resampling the base is not looked at: who is taken follows from u alone.
INLINE void NAMED(who)(const uint32_t *u, uint32_t total, const uint32_t *upto, size_t num_models, lanes *who) {
    uint32_t indices[BLOCK];
    for (size_t j = 0; j < BLOCK; j += WORDS) {
        words t = multiply_high(load_words(u + j), (words){} + total), index = t;
        if (total != num_models) {
            index = (words){};
            for (size_t i = 0; i + 1 < num_models; i++)
                index -= (words)((signed_words)t >= (signed_words)((words){} + upto[i]));
        }
        store_words(indices + j, index);
    }
    NAMED(from_words)(indices, who);
}

INLINE void NAMED(few_blind)(const selection *s, size_t at, size_t count, const uint32_t *u, uint32_t total, const uint32_t *upto) {
    for (size_t j = 0; j < count; j++) {
        uint32_t t = (uint32_t)(((uint64_t)u[j] * total) >> 32);
        size_t who = 0;
        while (upto[who] <= t) who++;
        for (size_t i = 0; i < s->num_models; i++)
            s->stats[s->num_models + 1 + i] += NAMED(not_finite)(s->form, NAMED(one)(s->inputs[i], at + j));
        NAMED(set_one)(s->out, at + j, NAMED(one)(s->inputs[who], at + j));
        s->stats[who]++;
    }
}

// False, and nothing counted, if a value is not finite.
INLINE int NAMED(pick_blind)(const selection *s, size_t at, const lanes *who, lanes *taken) {
    const lanes digits = (lanes){} + (LANE)s->form->digits, flip = (lanes){} + (LANE)s->form->flip;
    lanes out[VECTORS] = {}, largest = {};
    for (size_t i = 0; i < s->num_models; i++)
        for (int k = 0; k < VECTORS; k++) {
            lanes x = NAMED(load)(s->inputs[i], at + k * LANES);
            largest = __builtin_elementwise_max(largest, (x ^ flip) & digits);
            out[k] = (lanes)choose((longs)(lanes)(who[k] == (LANE)i), (longs)x, (longs)out[k]);
        }
    if (any((longs)(lanes)(largest >= (LANE)s->form->inf_from))) return 0;
    for (size_t i = 0; i < s->num_models; i++)
        for (int k = 0; k < VECTORS; k++) taken[i] -= (lanes)(who[k] == (LANE)i);
    for (int k = 0; k < VECTORS; k++) NAMED(store)(s->out, at + k * LANES, out[k]);
    return 1;
}

int EXPORTED(NAMED(select_blind))(const selection *s, uint32_t total, const uint32_t *upto) {
    scratch scratch;
    numbers drawn;
    if (!make_scratch(&scratch, s->num_models, 0)) return free_scratch(&scratch), -1;
    lanes *taken = scratch.taken, who[VECTORS];
    for (size_t start = 0; start < s->n; start += TILE) {
        size_t stop = start + TILE < s->n ? start + TILE : s->n, odd = (s->first + start) & 1, in_vectors = 0;
        draw(s->k0, s->k1, s->first + start, stop - start, drawn.u, drawn.v);
        for (size_t at = start; at < stop; at += BLOCK) {
            const uint32_t *u = drawn.u + odd + (at - start);
            size_t count = stop - at < BLOCK ? stop - at : BLOCK;
            if (count == BLOCK) {
                NAMED(who)(u, total, upto, s->num_models, who);
                if (NAMED(pick_blind)(s, at, who, taken)) {
                    in_vectors += BLOCK;
                    continue;
                }
            }
            NAMED(few_blind)(s, at, count, u, total, upto);
        }
        NAMED(tally)(s, taken, in_vectors);
    }
    free_scratch(&scratch);
    return 0;
}

// How many elements of x differ from the base's in value.
int64_t EXPORTED(NAMED(count_changed))(const uint8_t *x, const uint8_t *base, size_t n, const value_form *form) {
    int64_t count = 0;
    for (size_t j = 0; j < n; j++) count += NAMED(changed)(form, NAMED(one)(x, j), NAMED(one)(base, j));
    return count;
}

#undef lanes
#undef LANES
#undef BLOCK
#undef wide
#undef STORED
#undef LANE
#undef SIGNED
#undef NAMED
