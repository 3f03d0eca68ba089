/* What the compiled loops share: slabs, runs along their last dimension, pairs, and elements read and written.
 *
 * normcli.arithmetic.slabs decides what a slab is; here one is cut into cells, which threads take (tensors.c), and these into
 * tiles that stay in a second-level cache. Elements are widened to double when they are read and rounded once when they are
 * written (half precision also in single, where a bound on its error shows that no digit changes). For half and
 * single precision that is all, with sums about a pilot, near the mean; for double, every sum is a pair high + low
 * (Knuth's two-sum, TAOCP 2, 4.2.2) and so is every intermediate of an output (products with fma), so
 * that only the last addition rounds.
 *
 * Built with -ffp-contract=off: an fma is where one is written, and every processor gives the same bits.
 */

#ifndef NORMCLI_LOOPS_H
#define NORMCLI_LOOPS_H

#include <Python.h> /* of which setup.py says how much is used */
#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define MOST_DIMENSIONS 16
#define ROWS 4
#define CHUNK 1024 /* elements that are widened at a time; in double a fraction of a first-level cache */

#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__)
#define EVERY_PROCESSOR __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define EVERY_PROCESSOR
#endif
#define INLINE static inline __attribute__((always_inline))

enum Dtype { FLOAT16, BFLOAT16, FLOAT32, FLOAT64 };

/* A slab: dimensions in the order in which they lie in memory. The strides of x, y and g are in bytes,
 * those of statistics and parameters in elements: 0 where a dimension has none of its own. The last
 * stride of statistics and parameters is 0 or 1. In a backward pass y is the gradient of x, which is
 * g * weight * rstd - slope * (x - mean) - shift. */
typedef struct {
    int64_t rank, dtype, x_dtype, g_dtype, centers, given; /* given: the statistics are not to be worked out */
    int64_t shape[MOST_DIMENSIONS], x_stride[MOST_DIMENSIONS], y_stride[MOST_DIMENSIONS], g_stride[MOST_DIMENSIONS];
    int64_t stat_stride[MOST_DIMENSIONS], param_stride[MOST_DIMENSIONS];
    int64_t steps[MOST_DIMENSIONS]; /* how much of each dimension a cell takes: see tensors.c */
    int64_t tile, threads;    /* how many elements make a tile, and how many threads may work at the cells */
    int64_t cut, step;        /* the dimension that is cut into tiles, and how many of it make one: see in_tiles */
    int64_t whole_row;        /* the size of the tensor's last dimension, of which a slab may hold a part */
    double n, divisor, eps;   /* n of a whole group; what the sum of squares is divided by */
    const char *x;
    char *y;
    const char *g;
    double *mean, *mean_low, *var, *rstd, *var_low, *rstd_low; /* the last two for double only, else null */
    double *sum, *sum_low, *squares, *squares_low; /* of a part of a longer group, one after the other */
    double *shift, *shift_low, *slope, *slope_low, *size; /* size: the sum of |g * weight|, for double only */
    double *shifts, *shifts_low, *slopes, *slopes_low; /* of a part of a longer group: the sums of its tiles */
    const double *weight, *bias;
    double *grad_weight, *grad_weight_low, *grad_bias, *grad_bias_low; /* null where there are none */
} Slab;

/* A run: the elements along the last dimension, for one place in the others. */
typedef struct {
    int64_t index[MOST_DIMENSIONS], stat, param;
    const char *x, *g;
    char *y;
} Run;

INLINE int next_run(const Slab *slab, Run *run, int64_t inside) {
    for (int64_t d = slab->rank - 1 - inside; d >= 0; d--) {
        run->x += slab->x_stride[d];
        run->y += slab->y_stride[d];
        run->g += slab->g_stride[d];
        run->stat += slab->stat_stride[d];
        run->param += slab->param_stride[d];
        if (++run->index[d] < slab->shape[d]) return 1;
        run->x -= slab->x_stride[d] * slab->shape[d];
        run->y -= slab->y_stride[d] * slab->shape[d];
        run->g -= slab->g_stride[d] * slab->shape[d];
        run->stat -= slab->stat_stride[d] * slab->shape[d];
        run->param -= slab->param_stride[d] * slab->shape[d];
        run->index[d] = 0;
    }
    return 0;
}

INLINE Run first_run(const Slab *slab) {
    Run run;
    memset(&run, 0, sizeof run);
    run.x = slab->x;
    run.y = slab->y;
    run.g = slab->g;
    return run;
}

/* ---- pairs -------------------------------------------------------------------------------------- */

#define TWO_SUM(sum, rest, a, b)                                      \
    do {                                                              \
        __typeof__(sum) a_ = (a), b_ = (b), s_ = a_ + b_, t_ = s_ - a_; \
        (rest) = (a_ - (s_ - t_)) + (b_ - t_);                        \
        (sum) = s_;                                                   \
    } while (0)

INLINE void add_pair(double *high, double *low, double more_high, double more_low) {
    double sum, rest;
    TWO_SUM(sum, rest, *high, more_high);
    rest += *low + more_low;
    *high = sum + rest;
    *low = rest - (*high - sum);
    if (!isfinite(*high)) *high = sum, *low = 0;
}

INLINE void divide_pair(double *high, double *low, double by) {
    double quotient = *high / by, rest = (__builtin_fma(-quotient, by, *high) + *low) / by;
    *high = quotient + rest;
    *low = rest - (*high - quotient);
    if (!isfinite(*high) || !isfinite(*low)) *high = quotient, *low = 0;
}

INLINE void multiply_pair(double *high, double *low, double by) {
    double product = *high * by;
    *low = __builtin_fma(*high, by, -product) + *low * by;
    *high = product;
}

/* ---- reading and writing elements ----------------------------------------------------------------- */

INLINE float float_of(uint32_t bits) { float f; memcpy(&f, &bits, 4); return f; }
INLINE uint64_t bits_of_double(double d) { uint64_t bits; memcpy(&bits, &d, 8); return bits; }
INLINE double double_of(uint64_t bits) { double d; memcpy(&d, &bits, 8); return d; }
INLINE uint32_t bits_of(float f) { uint32_t bits; memcpy(&bits, &f, 4); return bits; }

INLINE double from_half(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = (uint32_t)(h & 0x7fff) << 13;
    uint32_t finite = bits_of(float_of(rest) * 0x1p112f);
    return float_of(sign | (rest >= 0x0f800000 ? rest | 0x7f800000 : finite));
}

/* A double rounded once, to nearest, ties to even, to a format whose significand has 53 - DROPPED bits and whose
 * bias is BIAS: below LEAST the subnormals, which adding MAGIC rounds (its last place is their step), and from
 * MOST on infinity. All in integers of 64 bits, so that eight go at a time. */
#define NARROWED(name, DROPPED, BIAS, LEAST, MAGIC, MOST, INFINITE, NOT_A_NUMBER)                     \
    INLINE uint16_t name(double d) {                                                                  \
        double size = fabs(d), magic = MAGIC;                                                         \
        uint64_t u = bits_of_double(size), sign = (bits_of_double(d) >> 48) & 0x8000;                 \
        uint64_t small = bits_of_double(size + magic) - bits_of_double(magic);                        \
        uint64_t near = u + ((1ull << (DROPPED - 1)) - 1) + ((u >> DROPPED) & 1);                     \
        uint64_t normal = (near >> DROPPED) - ((1023ull - BIAS) << (52 - DROPPED));                   \
        uint64_t large = size > DBL_MAX || size <= DBL_MAX ? INFINITE : NOT_A_NUMBER;                 \
        return (uint16_t)(sign | (size < LEAST ? small : size < MOST ? normal : large));              \
    }
NARROWED(to_half, 42, 15, 0x1p-14, 0x1p28, 0x1p16, 0x7c00, 0x7e00)
NARROWED(to_brain, 45, 127, 0x1p-126, 0x1p-81, 0x1p128, 0x7f80, 0x7fc0)

#define LOAD_INTO(type, x, to, expression)                              \
    {                                                                   \
        if (stride == (int64_t)sizeof(type)) {                          \
            const type *restrict from = (const type *)(x);              \
            for (int64_t i = 0; i < n; i++) { type e = from[i]; (to)[i] = (expression); } \
        } else                                                          \
            for (int64_t i = 0; i < n; i++) { type e; memcpy(&e, (x) + i * stride, sizeof e); (to)[i] = (expression); } \
    }
#define LOAD(type, expression) LOAD_INTO(type, x, to, expression)

#define STORE(type, expression)                                         \
    if (stride == (int64_t)sizeof(type)) {                              \
        type *restrict into = (type *)y;                                \
        for (int64_t i = 0; i < n; i++) { double e = from[i]; into[i] = (expression); } \
    } else                                                              \
        for (int64_t i = 0; i < n; i++) { double e = from[i]; type v = (expression); memcpy(y + i * stride, &v, sizeof v); }

INLINE void load(int64_t dtype, const char *x, int64_t stride, int64_t n, double *restrict to) {
    switch (dtype) {
    case FLOAT16: LOAD(uint16_t, from_half(e)) break;
    case BFLOAT16: LOAD(uint16_t, float_of((uint32_t)e << 16)) break;
    case FLOAT32: LOAD(float, e) break;
    default: LOAD(double, e)
    }
}

INLINE void store(int64_t dtype, const double *restrict from, int64_t n, char *y, int64_t stride) {
    switch (dtype) {
    case FLOAT16: STORE(uint16_t, to_half(e)) break;
    case BFLOAT16: STORE(uint16_t, to_brain(e)) break;
    case FLOAT32: STORE(float, (float)e) break;
    default: STORE(double, e)
    }
}

/* ---- lanes ---------------------------------------------------------------------------------------- */

/* Four sums of eight lanes each, so that no addition waits for the one before it. */
enum { LANES = 8, SUMS = 4 };
typedef double Lanes __attribute__((vector_size(64), aligned(8)));
typedef float Eight __attribute__((vector_size(32)));

/* Up to eight elements, widened; the rest are 0. */
INLINE Lanes eight_of(const char *b, int64_t at, int64_t n, int single) {
    double wide[LANES] = {0};
    float narrow[LANES] = {0};
    Lanes value;
    if (single) {
        memcpy(narrow, b + at * 4, (size_t)n * 4);
        for (int k = 0; k < LANES; k++) wide[k] = narrow[k];
    } else
        memcpy(wide, b + at * 8, (size_t)n * 8);
    memcpy(&value, wide, sizeof value);
    return value;
}

/* Add what the lanes hold to a number, or to a pair. */
INLINE void add_lanes(Lanes high[SUMS], Lanes low[SUMS], int pairs, double *sum, double *rest) {
    for (int half = SUMS / 2; half; half /= 2)
        for (int q = 0; q < half; q++) {
            Lanes lost = {0};
            if (pairs) TWO_SUM(high[q], lost, high[q], high[q + half]);
            else high[q] += high[q + half];
            low[q] += low[q + half] + lost;
        }
    double highs[LANES], lows[LANES], lost = 0;
    memcpy(highs, high, sizeof highs);
    memcpy(lows, low, sizeof lows);
    for (int half = LANES / 2; half; half /= 2)
        for (int k = 0; k < half; k++) {
            if (pairs) TWO_SUM(highs[k], lost, highs[k], highs[k + half]);
            else highs[k] += highs[k + half];
            lows[k] += lows[k + half] + lost;
        }
    if (pairs) add_pair(sum, rest, highs[0], lows[0]);
    else *sum += highs[0];
}

typedef double Four __attribute__((vector_size(32)));
#ifdef __clang__
#define OF_BOTH(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define OF_BOTH(a, b, ...) __builtin_shuffle(a, b, (Places){__VA_ARGS__})
typedef int64_t Places __attribute__((vector_size(32)));
#endif

/* The lanes of four sums, added up. */
INLINE Four totals_of(const Lanes lanes[ROWS]) {
    Four ends[ROWS], halves[2];
    for (int k = 0; k < ROWS; k++) memcpy(halves, lanes + k, sizeof halves), ends[k] = halves[0] + halves[1];
    for (int k = 0; k < ROWS; k += 2)
        ends[k] = OF_BOTH(ends[k], ends[k + 1], 0, 4, 2, 6) + OF_BOTH(ends[k], ends[k + 1], 1, 5, 3, 7);
    return OF_BOTH(ends[0], ends[2], 0, 1, 4, 5) + OF_BOTH(ends[0], ends[2], 2, 3, 6, 7);
}

/* Where the elements of a chunk can be read as float or double: in the tensor itself, or widened in a buffer. */
INLINE const char *readable(const Slab *t, const char *x, int64_t n, double *buffer, int *single) {
    int64_t stride = t->x_stride[t->rank - 1];
    *single = t->x_dtype == FLOAT32 && stride == 4;
    if (*single || (t->x_dtype == FLOAT64 && stride == 8)) return x;
    load(t->x_dtype, x, stride, n, buffer);
    return (const char *)buffer;
}

/* How many rows of chunks share their statistics, where these lie side by side. */
INLINE int64_t rows_of(const Slab *t) {
    int64_t above = t->rank - 2;
    return above >= 0 && t->stat_stride[t->rank - 1] && !t->stat_stride[above] && !t->param_stride[above] ? t->shape[above] : 1;
}

/* Do something with every chunk; where statistics lie side by side, with all rows of chunks that share them, so that
 * they stay in the first-level cache. */
#define EACH_CHUNK(t, action) EACH_CHUNK_OF(t, rows_of(t), (t)->stat_stride[(t)->rank - 1], action)
#define EACH_CHUNK_OF(t, rows_, side_by_side, action)                                                          \
    do {                                                                                                       \
        int64_t size_ = (t)->shape[(t)->rank - 1], rows = rows_, inside_ = rows > 1 ? 2 : 1;                   \
        Run run = first_run(t);                                                                                \
        if (side_by_side)                                                                                      \
            for (int64_t at = 0; at < size_; at += CHUNK, run = first_run(t))                                  \
                do action; while (next_run(t, &run, inside_));                                                 \
        else                                                                                                   \
            do                                                                                                 \
                for (int64_t at = 0; at < size_; at += CHUNK) action;                                          \
            while (next_run(t, &run, 1));                                                                      \
    } while (0)

/* A slab's statistics alone: the dimensions that have some, of which the last lies side by side. */
INLINE Slab statistics_of(const Slab *t) {
    Slab stats = *t;
    stats.rank = 0;
    for (int64_t d = 0; d < t->rank; d++)
        if (t->stat_stride[d]) {
            stats.shape[stats.rank] = t->shape[d];
            stats.stat_stride[stats.rank++] = t->stat_stride[d];
        }
    if (!stats.rank) stats.shape[stats.rank++] = 1;
    return stats;
}

#if defined(__GNUC__) && !defined(__clang__)
#define INDEPENDENT _Pragma("GCC ivdep")
#else
#define INDEPENDENT
#endif

#define EACH_STATISTIC(t, s)                                                    \
    Slab stats_ = statistics_of(t);                                             \
    Run run_ = first_run(&stats_);                                              \
    do                                                                          \
        INDEPENDENT                                                             \
        for (int64_t s = run_.stat; s < run_.stat + stats_.shape[stats_.rank - 1]; s++)

#define END_EACH(t) while (next_run(&stats_, &run_, 1))

INLINE void clear(double *high, double *low, const Slab *t) {
    EACH_STATISTIC(t, s) {
        high[s] = 0;
        if (low) low[s] = 0;
    }
    END_EACH(t);
}

/* Of a slab, `most` at most of one dimension from some place on. */
INLINE void take(Slab *t, int64_t d, int64_t start, int64_t most) {
    int64_t stat = start * t->stat_stride[d], param = start * t->param_stride[d];
    t->shape[d] = t->shape[d] - start < most ? t->shape[d] - start : most;
    t->x += start * t->x_stride[d];
    if (t->y) t->y += start * t->y_stride[d];
    if (t->g) t->g += start * t->g_stride[d];
    double **own[] = {&t->mean, &t->mean_low, &t->var, &t->rstd, &t->var_low, &t->rstd_low,
                      &t->shift, &t->shift_low, &t->slope, &t->slope_low, &t->size};
    for (size_t k = 0; k < sizeof own / sizeof *own; k++)
        if (*own[k]) *own[k] += stat;
    double **params[] = {&t->grad_weight, &t->grad_weight_low, &t->grad_bias, &t->grad_bias_low};
    for (size_t k = 0; k < sizeof params / sizeof *params; k++)
        if (*params[k]) *params[k] += param;
    if (t->weight) t->weight += param;
    if (t->bias) t->bias += param;
}

INLINE int is_averaged(const Slab *t, int64_t d) { return t->stat_stride[d] == 0; }

/* A slab that is to be cut into tiles, along the longest of the dimensions that are averaged over, or are not. Tiles
 * whose statistics lie side by side are wide, and no last one is narrow. */
enum { LEAST_WIDTH = 256 };
INLINE Slab in_tiles(const Slab *slab, int averaged) {
    Slab t = *slab;
    int64_t size = 1, longest = 0;
    t.cut = 0, t.step = t.shape[0];
    for (int64_t d = 0; d < t.rank; d++) {
        size *= t.shape[d];
        if (is_averaged(&t, d) == averaged && t.shape[d] > longest) longest = t.shape[t.cut = d];
    }
    if (longest) t.step = t.tile * longest / size > 1 ? t.tile * longest / size : 1;
    if (!averaged && longest && t.cut == t.rank - 1) {
        int64_t tiles = longest / (t.step > LEAST_WIDTH ? t.step : LEAST_WIDTH);
        int64_t each = (longest + (tiles > 1 ? tiles : 1) - 1) / (tiles > 1 ? tiles : 1);
        t.step = (each + 15) / 16 * 16;
    }
    return t;
}

INLINE Slab tile_of(const Slab *slab, int64_t start) {
    Slab tile = *slab;
    take(&tile, slab->cut, start, slab->step);
    return tile;
}

/* ---- of one file, for the others ---------------------------------------------------------------------- */

#define HIDDEN __attribute__((visibility("hidden")))

/* What is added up: the deviations from a pilot in rstd, to mean, and their squares, to var; or squares alone, of the
 * deviations from mean. */
enum { TOTALS = 1, SQUARES = 2 };

INLINE int in_rows(const Slab *t) {
    int64_t last = t->rank - 1;
    return t->dtype != FLOAT64 && t->x_dtype <= FLOAT32 && t->x_stride[last] == (t->x_dtype == FLOAT32 ? 4 : 2) &&
           !t->stat_stride[last] && t->shape[last] >= LANES;
}

HIDDEN void normcli_add_rows(const Slab *t, int how);
HIDDEN void normcli_emit_rows(const Slab *t);
HIDDEN void normcli_sum_floats(const Slab *t);
HIDDEN void normcli_emit_floats(const Slab *t);
HIDDEN void normcli_add_columns(const Slab *t, int how);
HIDDEN int normcli_emit_columns(const Slab *t);
HIDDEN void normcli_widen(int64_t dtype, const char *x, int64_t stride, int64_t n, float *to);
HIDDEN int normcli_narrow(int64_t dtype, const float *from, int64_t n, uint16_t *to);
HIDDEN int normcli_takes_singles(const Slab *t);
HIDDEN void normcli_emit_singles(const Slab *t);
HIDDEN int normcli_takes_single_columns(const Slab *t);
HIDDEN int normcli_emit_single_columns(const Slab *t, const Run *run, int64_t at, int64_t n);
HIDDEN void normcli_emit_tile(const Slab *t);

/* A tile of short runs as one of longer ones whose every element has statistics of its own. */
typedef struct {
    Slab slab, rest;
    int64_t times; /* elements, or rows, that share each statistic */
    int by_rows;
    double *held; /* null where there is nothing to widen, or no memory is free */
} Wide;

HIDDEN Wide normcli_widened(const Slab *t);
HIDDEN int64_t normcli_packed(Slab *t);
HIDDEN double *normcli_hold(Slab *wide, int64_t parameters, double **after);
HIDDEN void normcli_means_and_squares(const Slab *t, const Wide *wide, double n);
HIDDEN void normcli_fold(const Slab *t, const Wide *wide, double *high, double *low, const double *more,
                         const double *more_low);
HIDDEN void normcli_spread(const Slab *t, const Wide *wide, const double *values, double *to);
HIDDEN float *normcli_in_single(const Slab *t, Slab *copy);
HIDDEN int normcli_takes_turned(const Slab *t);
HIDDEN void normcli_turned(const Slab *t);
HIDDEN void normcli_whole(const Slab *slab);
HIDDEN void normcli_emit(const Slab *slab);
int normcli_moments(const Slab *slab);
void normcli_finish(const Slab *t);
int normcli_tensor(const Slab *t);

/* ---- of threads.c ------------------------------------------------------------------------------------- */

/* Do a step for each number from 0 to count - 1, in this thread and up to threads - 1 others. */
typedef void Step(void *of, int64_t number);
HIDDEN void normcli_each(int64_t count, int64_t threads, Step *step, void *of);
HIDDEN void normcli_pause(int64_t times); /* while waiting for another thread, for the so many-th time */

#endif
