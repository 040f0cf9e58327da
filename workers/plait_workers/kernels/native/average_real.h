// Weighted average (Eq. 1 of arXiv 2410.03743) for one accumulator; included once for each, with
//   REAL   float or double
//   NAMED  puts it behind a name
//
// a = +0; then, in the order of the sub-models, a = fl(a + fl(w_i * theta_i)), without fused multiply-add;
// one rounding to the output's format at the end. So the result does not depend on how a tensor is cut.

INLINE void NAMED(add_loop)(REAL *total, const uint8_t *from, int code, size_t n, REAL weight, const double *table) {
    for (size_t j = 0; j < n; j++) {
        REAL x = code == CODE_F8 ? (REAL)table[from[j]] : code == CODE_F64 ? (REAL)load_f64(from, j) : (REAL)load_f32(from, code, j);
        total[j] = total[j] + weight * x;
    }
}

// Adds a tile's elements of one input, while those of its next tile are fetched: a processor's own prefetching
// begins anew with every input.
INLINE void NAMED(add_fetching)(REAL *total, const uint8_t *from, int code, size_t size, size_t n, REAL weight, const double *table) {
    for (size_t j = 0; j < n; j += FETCHED) {
        size_t count = n - j < FETCHED ? n - j : FETCHED;
        for (size_t line = 0; line < FETCHED * size; line += 64)
            __builtin_prefetch(from + (AVERAGE_TILE + j) * size + line, 0, 2);
        NAMED(add_loop)(total + j, from + j * size, code, count, weight, table);
    }
}

// n elements from element `start` of an input, added to a tile.
static void NAMED(add)(REAL *total, const uint8_t *input, int code, size_t start, size_t n, REAL weight, const double *table) {
    switch (code) {
    case CODE_BF16: NAMED(add_fetching)(total, input + 2 * start, CODE_BF16, 2, n, weight, table); break;
    case CODE_F16: NAMED(add_fetching)(total, input + 2 * start, CODE_F16, 2, n, weight, table); break;
    case CODE_F32: NAMED(add_fetching)(total, input + 4 * start, CODE_F32, 4, n, weight, table); break;
    case CODE_F8: NAMED(add_fetching)(total, input + start, CODE_F8, 1, n, weight, table); break;
    default: NAMED(add_fetching)(total, input + 8 * start, CODE_F64, 8, n, weight, table);
    }
}

INLINE int64_t NAMED(count_not_finite)(const REAL *total, size_t n) {
    int64_t count = 0;
    for (size_t j = 0; j < n; j++) count += !(total[j] - total[j] == 0);
    return count;
}

INLINE void NAMED(round_to)(const REAL *total, uint8_t *out, int code, size_t n, const narrow_format *to) {
    for (size_t j = 0; j < n; j++) {
        if (sizeof(REAL) == 4) convert_from_f32((float)total[j], out, code, j, to);
        else convert_from_f64((double)total[j], out, code, j, to);
    }
}

static void NAMED(round)(const REAL *total, uint8_t *out, int code, size_t start, size_t n, const narrow_format *to) {
    switch (code) {
    case CODE_BF16: NAMED(round_to)(total, out + 2 * start, CODE_BF16, n, to); break;
    case CODE_F16: NAMED(round_to)(total, out + 2 * start, CODE_F16, n, to); break;
    case CODE_F32: NAMED(round_to)(total, out + 4 * start, CODE_F32, n, to); break;
    case CODE_F8: NAMED(round_to)(total, out + start, CODE_F8, n, to); break;
    default: NAMED(round_to)(total, out + 8 * start, CODE_F64, n, to);
    }
}

INLINE REAL NAMED(one_of)(const averaging *a, size_t i, size_t j) {
    const uint8_t *from = a->inputs[i];
    switch (a->codes[i]) {
    case CODE_F8: return (REAL)a->table[from[j]];
    case CODE_F64: return (REAL)load_f64(from, j);
    default: return (REAL)load_f32(from, (int)a->codes[i], j);
    }
}

// Of several NaN the processor keeps one's sign, and which one is the compiler's choice. Ours: the first that
// appears, in the order of the sub-models; one that arithmetic makes (inf - inf, 0 * inf) is negative.
static REAL NAMED(nan_of)(const averaging *a, size_t j) {
    REAL total = 0, nan = (REAL)NAN;
    for (size_t i = 0; i < a->num_models; i++) {
        REAL x = NAMED(one_of)(a, i, j);
        if (x != x) return signbit(x) ? -nan : nan;
        REAL product = (REAL)a->weights[i] * x;
        total = total + product;
        if (total != total) break;
    }
    return -nan;
}

void EXPORTED(NAMED(average))(const averaging *a) {
    REAL total[AVERAGE_TILE];
    for (size_t start = 0; start < a->n; start += AVERAGE_TILE) {
        size_t n = a->n - start < AVERAGE_TILE ? a->n - start : AVERAGE_TILE;
        memset(total, 0, n * sizeof(REAL));
        for (size_t i = 0; i < a->num_models; i++)
            NAMED(add)(total, a->inputs[i], (int)a->codes[i], start, n, (REAL)a->weights[i], a->table);
        int is_finite = !NAMED(count_not_finite)(total, n);
        for (size_t j = 0; !is_finite && j < n; j++)
            if (total[j] != total[j]) total[j] = NAMED(nan_of)(a, start + j);
        NAMED(round)(total, a->out, a->out_code, start, n, a->to);
        for (size_t i = 0; !is_finite && i < a->num_models; i++) {
            memset(total, 0, n * sizeof(REAL));
            NAMED(add)(total, a->inputs[i], (int)a->codes[i], start, n, 1, a->table);
            a->stats[a->num_models + 1 + i] += NAMED(count_not_finite)(total, n);
        }
    }
}

#undef REAL
#undef NAMED
