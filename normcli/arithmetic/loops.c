/* The forward pass of one slab of a tensor: sums, sums of squares and outputs. loops.h says how numbers are kept. */

#include "loops.h"

#define PIECE 256 /* of a chunk, where what is in doubt is worked out again */

/* A slab's size and where each field lies, for normcli.arithmetic.loops to compare with what it was told. */
#define AT(field) (int64_t)offsetof(Slab, field)
const int64_t normcli_slab[] = {
    (int64_t)sizeof(Slab),
    AT(rank), AT(dtype), AT(x_dtype), AT(g_dtype), AT(centers), AT(given),
    AT(shape), AT(x_stride), AT(y_stride), AT(g_stride), AT(stat_stride), AT(param_stride),
    AT(steps), AT(tile), AT(threads), AT(cut), AT(step), AT(whole_row), AT(n), AT(divisor), AT(eps),
    AT(x), AT(y), AT(g), AT(mean), AT(mean_low), AT(var), AT(rstd), AT(var_low), AT(rstd_low),
    AT(sum), AT(sum_low), AT(squares), AT(squares_low),
    AT(shift), AT(shift_low), AT(slope), AT(slope_low), AT(size),
    AT(shifts), AT(shifts_low), AT(slopes), AT(slopes_low),
    AT(weight), AT(bias), AT(grad_weight), AT(grad_weight_low), AT(grad_bias), AT(grad_bias_low),
};
#undef AT

/* ---- half precision ------------------------------------------------------------------------------- */

/* Floats that are themselves rounded, to 16 bits by integers of 32, sixteen at a time. True where one of them came to
 * lie halfway between two results, or among the subnormals: then the doubles must be rounded by loops.h's functions. */
INLINE int to_halves(const float *restrict from, int64_t n, uint16_t *restrict to) {
    uint32_t sure = 1;
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits = bits_of(from[i]), u = bits & 0x7fffffff, sign = bits >> 16 & 0x8000;
        int32_t size = (int32_t)u, normal = (int32_t)((u + 0xc8000fff + (u >> 13 & 1)) >> 13);
        int32_t large = size > 0x7f800000 ? 0x7e00 : 0x7c00, near = size >= 0x47800000 ? large : normal;
        uint32_t subnormal = (size > 0) & (size < 0x38800000), apart = ((u & 0x1fff) ^ 0x1000) & (subnormal - 1);
        sure = apart < sure ? apart : sure; /* 0 halfway between two */
        near = size > 0 ? near : 0;
        to[i] = (uint16_t)(sign | (uint32_t)near);
    }
    return !sure;
}

/* Numbers in single precision: of a group (low is mean_low * rstd), and of a piece's parameters, with the part of a
 * bound on an output's error that comes from the bias. */
#define WRONG 0x1.cp-22f /* 7 u */
typedef struct {
    float mean, low, rstd, slack;
} Single;
typedef struct {
    float weight[CHUNK], bias[CHUNK], wrong[CHUNK];
    double largest; /* weight, infinite where one is too small to keep its digits */
} Singles;
typedef struct {
    int64_t at;
    uint32_t left; /* a bit for each of sixteen elements */
} Doubt;

/* The same by the instructions that processors have for it, as far as sixteen at a time go. */
#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define SIXTEEN __attribute__((target("avx512f,avx512bw,avx512vl")))
static int has_sixteen(void) { return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"); }

#define EACH(number) _mm512_set1_epi32(number)

SIXTEEN static int64_t widen_halves(const uint16_t *from, int64_t n, float *to) {
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        _mm512_storeu_ps(to + i, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(from + i))));
    return i;
}

SIXTEEN static int64_t narrow_halves(const float *from, int64_t n, uint16_t *to, int *doubtful) {
    __mmask16 doubt = 0;
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        __m512 value = _mm512_loadu_ps(from + i);
        __m512i bits = _mm512_castps_si512(value), size = _mm512_and_si512(bits, EACH(0x7fffffff));
        __m512i sign = _mm512_and_si512(_mm512_srli_epi32(bits, 16), EACH(0x8000));
        __m256i near = _mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        __m256i none = _mm512_cvtepi32_epi16(_mm512_or_si512(sign, EACH(0x7e00))); /* whatever NaN it was */
        __mmask16 nan = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
        doubt |= _mm512_cmplt_epu32_mask(_mm512_sub_epi32(size, EACH(1)), EACH(0x38800000 - 1)); /* subnormal */
        doubt |= _mm512_cmpeq_epi32_mask(_mm512_and_si512(bits, EACH(0x1fff)), EACH(0x1000));    /* halfway */
        _mm256_storeu_si256((__m256i *)(to + i), _mm256_mask_mov_epi16(near, nan, none));
    }
    *doubtful |= doubt != 0;
    return i;
}

/* Outputs of 16 bits from elements of 16 bits, in single precision. What each is wrong by, with u = 2^-24:
 *
 * - x - mean is exact where it is small beside the mean (Sterbenz), else wrong by u of itself; with rstd's rounding,
 *   that of mean_low * rstd and of the fma, the normalized element is wrong by 3.1 u of itself and 2.1 u^2 |mean| rstd;
 * - the weight's rounding adds u of the product, the bias's u of itself, and the second fma u of the result.
 *
 * The product is at most |result| + |bias|, and adding or subtracting the bound is wrong by another u of the result: so
 * 7 u (|result| + |bias|) + slack suffices, where slack has what the mean and an underflow may add. Where both ends
 * are rounded to the same 16 bits, these are right; the others, and what is not finite, are doubtful. */
SIXTEEN static inline __attribute__((always_inline)) int64_t sixteen_at(
    int64_t dtype, const char *x, char *y, int64_t i, __mmask16 some, Single group, const Singles *with, Doubt *doubt) {
    const __m512 mean = _mm512_set1_ps(group.mean), low = _mm512_set1_ps(group.low), rstd = _mm512_set1_ps(group.rstd);
    const __m512 slack = _mm512_set1_ps(group.slack), most = _mm512_set1_ps(0x1p100f);
    __m256i read = _mm256_maskz_loadu_epi16(some, x + 2 * i), narrow;
    __m512 value = dtype == FLOAT16 ? _mm512_cvtph_ps(read)
                                    : _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(read), 16));
    __m512 normalized = _mm512_fmsub_ps(_mm512_sub_ps(value, mean), rstd, low);
    __m512 result = _mm512_fmadd_ps(normalized, _mm512_loadu_ps(with->weight + i), _mm512_loadu_ps(with->bias + i));
    __m512 error = _mm512_fmadd_ps(_mm512_abs_ps(result), _mm512_set1_ps(WRONG), _mm512_loadu_ps(with->wrong + i));
    error = _mm512_add_ps(error, slack);
    __m512 below = _mm512_sub_ps(result, error), above = _mm512_add_ps(result, error);
    __mmask16 sure = _mm512_cmp_ps_mask(error, most, _CMP_LT_OQ);
    if (dtype == FLOAT16) {
        narrow = _mm512_cvtps_ph(below, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        sure &= _mm256_cmpeq_epi16_mask(narrow, _mm512_cvtps_ph(above, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    } else { /* halfway is upwards for both, as neither end is the result */
        __m512i one = _mm512_add_epi32(_mm512_castps_si512(below), EACH(0x8000));
        __m512i other = _mm512_add_epi32(_mm512_castps_si512(above), EACH(0x8000));
        narrow = _mm512_cvtepi32_epi16(_mm512_srli_epi32(one, 16));
        sure &= _mm512_testn_epi32_mask(_mm512_xor_si512(one, other), EACH(-0x10000));
    }
    _mm256_mask_storeu_epi16(y + 2 * i, some, narrow);
    doubt->at = i;
    doubt->left = (uint32_t)some & ~(uint32_t)sure;
    return doubt->left != 0;
}

SIXTEEN static inline __attribute__((always_inline)) int64_t sixteens(
    int64_t dtype, const char *x, char *y, int64_t n, Single group, const Singles *with, Doubt *doubts) {
    int64_t i = 0, count = 0;
    for (; i + 16 <= n; i += 16) count += sixteen_at(dtype, x, y, i, 0xffff, group, with, doubts + count);
    __mmask16 rest = (__mmask16)((1u << (n - i)) - 1);
    if (rest) count += sixteen_at(dtype, x, y, i, rest, group, with, doubts + count);
    return count;
}

/* How many sixteens have doubtful elements. */
SIXTEEN static int64_t emit_sixteens(int64_t dtype, const char *x, char *y, int64_t n, Single group, const Singles *with,
                                     Doubt *doubts) {
    return dtype == FLOAT16 ? sixteens(FLOAT16, x, y, n, group, with, doubts)
                            : sixteens(BFLOAT16, x, y, n, group, with, doubts);
}
#else
static int has_sixteen(void) { return 0; }
static int64_t emit_sixteens(int64_t dtype, const char *x, char *y, int64_t n, Single group, const Singles *with,
                             Doubt *doubts) {
    return (void)dtype, (void)x, (void)y, (void)n, (void)group, (void)with, (void)doubts, 0;
}
static int64_t widen_halves(const uint16_t *from, int64_t n, float *to) { return (void)from, (void)n, (void)to, 0; }
static int64_t narrow_halves(const float *from, int64_t n, uint16_t *to, int *doubtful) {
    return (void)from, (void)n, (void)to, (void)doubtful, 0;
}
#endif

INLINE int to_brains(const float *restrict from, int64_t n, uint16_t *restrict to) {
    uint32_t sure = 1;
    for (int64_t i = 0; i < n; i++) {
        uint32_t u = bits_of(from[i]), apart = (u & 0xffff) ^ 0x8000, near = (u + 0x7fff + (u >> 16 & 1)) >> 16;
        sure = apart < sure ? apart : sure;
        to[i] = (uint16_t)((u & 0x7fffffff) > 0x7f800000 ? u >> 16 | 0x40 : near);
    }
    return !sure;
}

/* ---- sums ----------------------------------------------------------------------------------------- */

static const double PART[2 * LANES] = {1, 1, 1, 1, 1, 1, 1, 1};

/* Add eight elements (squares == 0), or the squares of their deviations from mean + mean_low; `some` has 1 for
 * those that count and 0 for those that do not. */
INLINE void add_eight(Lanes value, Lanes some, int squares, int pairs, double mean, double mean_low, Lanes *high,
                      Lanes *low) {
    Lanes lost, more = {0};
    if (squares && pairs) {
        Lanes d, e, minus = (Lanes){0} - mean;
        TWO_SUM(d, e, value, minus);
        d *= some;
        e = (e - mean_low) * some;
        value = d * d;
        for (int k = 0; k < LANES; k++) more[k] = __builtin_fma(d[k], d[k], -value[k]);
        more += e * (2 * d + e); /* e^2 too: the mean may be large beside d */
    } else if (squares) {
        Lanes d = (value - mean) * some; /* what the mean's rounding adds is below any digit */
        value = d * d;
    }
    if (pairs) {
        TWO_SUM(*high, lost, *high, value);
        *low += lost + more;
    } else
        *high += value;
}

/* The sum of a chunk of float (single) or double, or of its squares, added to a pair. */
INLINE void sum_of_chunk(const char *restrict b, int64_t n, int single, int squares, int pairs, double mean, double mean_low,
                         double *sum, double *rest) {
    Lanes high[SUMS] = {{0}}, low[SUMS] = {{0}}, value, all = (Lanes){0} + 1;
    int64_t i = 0;
    for (; i + SUMS * LANES <= n; i += SUMS * LANES)
        for (int q = 0; q < SUMS; q++) {
            value = eight_of(b, i + q * LANES, LANES, single);
            add_eight(value, all, squares, pairs, mean, mean_low, high + q, low + q);
        }
    for (; i + LANES <= n; i += LANES) {
        value = eight_of(b, i, LANES, single);
        add_eight(value, all, squares, pairs, mean, mean_low, high, low);
    }
    if (i < n) {
        Lanes some;
        value = eight_of(b, i, n - i, single);
        memcpy(&some, PART + LANES - (n - i), sizeof some);
        add_eight(value, some, squares, pairs, mean, mean_low, high, low);
    }
    add_lanes(high, low, pairs, sum, rest);
}

/* The same for statistics that lie side by side: one sum for each element of the chunk. */
INLINE void sums_of_chunk(const char *restrict b, int64_t n, int single, int squares, int pairs,
                          const double *restrict mean, const double *restrict mean_low, double *restrict sum,
                          double *restrict rest) {
    for (int64_t i = 0; i < n; i++) {
        double value = single ? ((const float *)b)[i] : ((const double *)b)[i], more = 0;
        if (squares && pairs) {
            double d, e;
            TWO_SUM(d, e, value, -mean[i]);
            e -= mean_low[i];
            value = d * d;
            more = __builtin_fma(d, d, -value) + e * (2 * d + e);
        } else if (squares) {
            double d = value - mean[i];
            value = d * d;
        }
        if (pairs) {
            double total, lost;
            TWO_SUM(total, lost, sum[i], value);
            sum[i] = total;
            rest[i] += lost + more;
        } else
            sum[i] += value;
    }
}

/* Four rows of it at once, for float and half precision: the sums are fetched and put back once for all. */
INLINE void sums_of_rows(const char *const b[ROWS], int64_t n, int single, int squares, const double *restrict mean,
                         double *restrict sum) {
    const char *restrict b0 = b[0], *restrict b1 = b[1], *restrict b2 = b[2], *restrict b3 = b[3];
#define AT(b, i) (single ? (double)((const float *)(b))[i] : ((const double *)(b))[i])
    for (int64_t i = 0; i < n; i++) {
        double m = squares ? mean[i] : 0;
        double d0 = AT(b0, i) - m, d1 = AT(b1, i) - m, d2 = AT(b2, i) - m, d3 = AT(b3, i) - m;
        sum[i] += squares ? (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3) : (d0 + d1) + (d2 + d3);
    }
}

INLINE void add_chunk(const Slab *t, const Run *run, int64_t at, int64_t rows, int squares, int pairs) {
    double buffer[ROWS * CHUNK];
    int64_t last = t->rank - 1, n = t->shape[last] - at < CHUNK ? t->shape[last] - at : CHUNK;
    int64_t s = run->stat + t->stat_stride[last] * at, down = rows > 1 ? t->x_stride[last - 1] : 0;
    double *sum = (squares ? t->var : t->mean) + s, *rest = squares ? t->var_low : t->mean_low;
    const double *mean = t->mean + s, *mean_low = t->mean_low + s;
    const char *x = run->x + at * t->x_stride[last], *b;
    if (rest) rest += s;
    int single;
    if (!t->stat_stride[last]) {
        b = readable(t, x, n, buffer, &single);
        if (single) sum_of_chunk(b, n, 1, squares, pairs, *mean, *mean_low, sum, rest);
        else sum_of_chunk(b, n, 0, squares, pairs, *mean, *mean_low, sum, rest);
        return;
    }
    int64_t row = 0;
    for (; !pairs && row + ROWS <= rows; row += ROWS) {
        const char *several[ROWS];
        for (int64_t k = 0; k < ROWS; k++) several[k] = readable(t, x + (row + k) * down, n, buffer + k * CHUNK, &single);
        if (single) sums_of_rows(several, n, 1, squares, mean, sum);
        else sums_of_rows(several, n, 0, squares, mean, sum);
    }
    for (; row < rows; row++) {
        b = readable(t, x + row * down, n, buffer, &single);
        if (single) sums_of_chunk(b, n, 1, squares, pairs, mean, mean_low, sum, rest);
        else sums_of_chunk(b, n, 0, squares, pairs, mean, mean_low, sum, rest);
    }
}

EVERY_PROCESSOR static void add_at(const Slab *t, const Run *run, int64_t at, int64_t rows, int squares) {
    if (t->dtype != FLOAT64) {
        if (squares) add_chunk(t, run, at, rows, 1, 0);
        else add_chunk(t, run, at, rows, 0, 0);
    } else if (squares) add_chunk(t, run, at, rows, 1, 1);
    else add_chunk(t, run, at, rows, 0, 1);
}

/* Add up a tile into mean and mean_low, or its squares into var and var_low. */
static void add_up(const Slab *t, int squares) { EACH_CHUNK(t, add_at(t, &run, at, rows, squares)); }

/* Elements of half precision as floats. */
INLINE void widen_row_of(int64_t dtype, const char *x, int64_t stride, int64_t n, float *to) {
    if (dtype == FLOAT16) {
        int64_t done = stride == 2 && has_sixteen() ? widen_halves((const uint16_t *)x, n, to) : 0;
        x += done * stride, to += done, n -= done;
        LOAD(uint16_t, (float)from_half(e))
    } else LOAD(uint16_t, float_of((uint32_t)e << 16))
}

/* ---- rows ------------------------------------------------------------------------------------------- */

/* Rows of floats, each of which belongs to one group: four are added up at once, so that no addition waits for the one
 * before it however short they are, and each row's last eight are read together, those before them left out. */
typedef float Eight __attribute__((vector_size(32)));
typedef int64_t Bits __attribute__((vector_size(64), aligned(8)));
typedef double Four __attribute__((vector_size(32)));
#ifdef __clang__
#define OF_BOTH(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define OF_BOTH(a, b, ...) __builtin_shuffle(a, b, (Places){__VA_ARGS__})
typedef int64_t Places __attribute__((vector_size(32)));
#endif
enum { FEW = 256 };

static const int64_t COUNTED[2 * LANES] = {[LANES... 2 * LANES - 1] = -1};

INLINE int in_rows(const Slab *t) {
    int64_t last = t->rank - 1;
    return t->dtype != FLOAT64 && t->x_dtype <= FLOAT32 && t->x_stride[last] == (t->x_dtype == FLOAT32 ? 4 : 2) &&
           !t->stat_stride[last] && t->shape[last] >= LANES;
}

/* A row's part as floats: in the tensor itself, or in a buffer, after as many of the elements before it as the last
 * eight reach back. */
INLINE const char *floats_of(const Slab *t, const char *x, int64_t at, int64_t n, float *buffer) {
    if (t->x_dtype == FLOAT32) return x + 4 * at;
    int64_t before = n < LANES ? LANES - n : 0;
    widen_row_of(t->x_dtype, x + 2 * (at - before), 2, n + before, buffer);
    return (const char *)(buffer + before);
}

INLINE Lanes eight_floats(const char *x) { return eight_of(x, 0, LANES, 1); }

INLINE void sums_of_four(const char *const x[ROWS], int64_t n, int squares, const double mean[ROWS],
                         double total[ROWS]) {
    Lanes sum[ROWS] = {{0}}, value;
    Bits some;
    Four ends[ROWS], halves[2];
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int k = 0; k < ROWS; k++) {
            value = eight_floats(x[k] + 4 * i);
            if (squares) value -= mean[k], value *= value;
            sum[k] += value;
        }
    memcpy(&some, COUNTED + (n - i), sizeof some);
    for (int k = 0; i < n && k < ROWS; k++) {
        value = eight_floats(x[k] + 4 * (n - LANES));
        if (squares) value -= mean[k], value *= value;
        sum[k] += (Lanes)((Bits)value & some);
    }
    for (int k = 0; k < ROWS; k++) memcpy(halves, sum + k, sizeof halves), ends[k] = halves[0] + halves[1];
    for (int k = 0; k < ROWS; k += 2)
        ends[k] = OF_BOTH(ends[k], ends[k + 1], 0, 4, 2, 6) + OF_BOTH(ends[k], ends[k + 1], 1, 5, 3, 7);
    Four all = OF_BOTH(ends[0], ends[2], 0, 1, 4, 5) + OF_BOTH(ends[0], ends[2], 2, 3, 6, 7);
    for (int k = 0; k < ROWS; k++) total[k] = all[k];
}

INLINE void add_rows(const Slab *t, int squares) {
    int64_t last = t->rank - 1, size = t->shape[last], rows = last ? t->shape[last - 1] : 1;
    int64_t down = last ? t->x_stride[last - 1] : 0, next = last ? t->stat_stride[last - 1] : 0;
    double *sums = squares ? t->var : t->mean;
    float buffer[ROWS][CHUNK + LANES];
    Run run = first_run(t);
    do
        for (int64_t row = 0; row < rows; row += ROWS) {
            int64_t several = rows - row < ROWS ? rows - row : ROWS;
            double *sum = sums + run.stat + row * next;
            const double *mean = t->mean + run.stat + row * next;
            const char *x[ROWS], *in = run.x + row * down;
            for (int64_t at = 0; at < size; at += CHUNK) {
                int64_t n = size - at < CHUNK ? size - at : CHUNK;
                double means[ROWS], totals[ROWS];
                for (int64_t k = 0; k < several; k++) x[k] = floats_of(t, in + k * down, at, n, buffer[k]);
                if (several < ROWS && size >= FEW) {
                    for (int64_t k = 0; k < several; k++)
                        sum_of_chunk(x[k], n, 1, squares, 0, mean[k * next], 0, sum + k * next, NULL);
                    continue;
                }
                for (int64_t k = several; k < ROWS; k++) x[k] = x[0];
                for (int64_t k = 0; k < ROWS; k++) means[k] = mean[k < several ? k * next : 0];
                sums_of_four(x, n, squares, means, totals);
                for (int64_t k = 0; k < several; k++) sum[k * next] += totals[k];
            }
        }
    while (next_run(t, &run, 2));
}

EVERY_PROCESSOR static void add_up_rows(const Slab *t, int squares) {
    if (squares) add_rows(t, 1);
    else add_rows(t, 0);
}

/* Outputs of a row, which has eight elements or more; the last eight are written together, some of them again. */
INLINE void emit_row(const char *x, char *y, int64_t n, double mean, double mean_low, double rstd, int own,
                     const double *weight, const double *bias) {
    double scale = weight ? *weight : 1, shift = bias ? *bias : -0.0; /* y + -0.0 is y */
    int undefined = rstd == INFINITY;
    for (int64_t i = 0; i < n; i += LANES) {
        int64_t at = i + LANES <= n ? i : n - LANES;
        Lanes d = (eight_floats(x + 4 * at) - mean) - mean_low, value = d * rstd, w, c;
        if (undefined) value = (Lanes)((Bits)value & (d != 0)); /* by definition, where var + eps is 0 */
        if (own && weight) memcpy(&w, weight + at, sizeof w), value *= w;
        if (own && bias) memcpy(&c, bias + at, sizeof c), value += c;
        if (!own && (weight || bias)) value = value * scale + shift;
        Eight narrow = __builtin_convertvector(value, Eight);
        memcpy(y + 4 * at, &narrow, sizeof narrow);
    }
}

/* As floats, where they lie so: the choices that are the same for all elements of a row are made before it. */
EVERY_PROCESSOR static void emit_up_rows(const Slab *t) {
    int64_t last = t->rank - 1, n = t->shape[last];
    const double *weight = t->weight, *bias = t->bias;
    Run run = first_run(t);
    do {
        const double *mean = t->mean + run.stat, *low = t->mean_low + run.stat, *rstd = t->rstd + run.stat;
        const double *w = weight ? weight + run.param : NULL, *c = bias ? bias + run.param : NULL;
#define EMIT_ROW(own, w, c) emit_row(run.x, run.y, n, *mean, *low, *rstd, own, w, c)
        if (!weight && !bias) EMIT_ROW(0, NULL, NULL);
        else if (!t->param_stride[last]) EMIT_ROW(0, w, c);
        else if (weight && bias) EMIT_ROW(1, w, c);
        else if (weight) EMIT_ROW(1, w, NULL);
        else EMIT_ROW(1, NULL, c);
    } while (next_run(t, &run, 1));
}

/* ---- statistics ------------------------------------------------------------------------------------- */

/* Sums become means. */
EVERY_PROCESSOR static void finish_mean(const Slab *t, double n) {
    double *mean = t->mean, *mean_low = t->mean_low;
    EACH_STATISTIC(t, s) divide_pair(mean + s, mean_low + s, n);
    END_EACH(t);
}

/* Sums of squares become variances and rstd = 1 / sqrt(squares / divisor + eps). */
EVERY_PROCESSOR void normcli_finish(const Slab *t) {
    double *var = t->var, *var_low = t->var_low, *rstd = t->rstd, *rstd_low = t->rstd_low;
    double n = t->n, divisor = t->divisor, eps = t->eps;
    int pairs = t->dtype == FLOAT64;
    EACH_STATISTIC(t, s) {
        double high = var[s], low = pairs ? var_low[s] : 0;
        if (!pairs) {
            var[s] = high / n;
            rstd[s] = 1 / sqrt(high / divisor + eps);
            continue;
        }
        divide_pair(var + s, var_low + s, n);
        divide_pair(&high, &low, divisor);
        add_pair(&high, &low, eps, 0);
        double root = sqrt(high), rest = (__builtin_fma(-root, root, high) + low) / (2 * root), inverse = 1 / root;
        rest = (__builtin_fma(-inverse, root, 1) - inverse * rest) * inverse;
        rstd[s] = inverse;
        rstd_low[s] = isfinite(rest) ? rest : 0;
    }
    END_EACH(t);
}

/* ---- outputs ---------------------------------------------------------------------------------------- */

/* deviation * rstd * weight + bias; statistics and parameters are those of each element, or of all. */
INLINE void emit_chunk(const char *restrict x, char *restrict to, int64_t n, int from_single, int to_single, int pairs,
                       int own_stat, int own_param, int sure, int affine, const double *restrict mean, const double *restrict mean_low,
                       const double *restrict rstd, const double *restrict rstd_low, const double *restrict weight,
                       const double *restrict bias) {
    for (int64_t i = 0; i < n; i++) {
        int64_t s = own_stat ? i : 0, p = own_param ? i : 0;
        double value = from_single ? ((const float *)x)[i] : ((const double *)x)[i], r = rstd[s];
        if (!pairs) {
            double d = value - mean[s] - mean_low[s];
            double y = !sure && ((d == 0) & (r == INFINITY)) ? 0 : d * r; /* by definition, where var + eps is 0 */
            value = affine ? y * weight[p] + bias[p] : y;
        } else {
            double d, e, deviation, y, y_low, scaled, sum, rest;
            TWO_SUM(d, e, value, -mean[s]);
            e -= mean_low[s]; /* apart from the choice below: a load in it would keep this from going eight at a time */
            e = fabs(d) <= DBL_MAX ? e : 0; /* infinity loses nothing */
            deviation = d + e;
            e -= deviation - d;
            d = deviation;
            y = d * r;
            y_low = __builtin_fma(d, r, -y) + (d * rstd_low[s] + e * r);
            y = (d == 0) & (r == INFINITY) ? 0 : y;
            scaled = y * weight[p];
            y_low = __builtin_fma(y, weight[p], -scaled) + y_low * weight[p];
            TWO_SUM(sum, rest, scaled, bias[p]);
            value = sum + (rest + y_low);
            value = value == value && fabs(sum) <= DBL_MAX ? value : sum; /* what infinity lost is not a number */
        }
        if (to_single) ((float *)to)[i] = (float)value;
        else ((double *)to)[i] = value;
    }
}

static const double ONE[CHUNK] = {[0 ... CHUNK - 1] = 1}, NONE[CHUNK] = {[0 ... CHUNK - 1] = -0.0}; /* y + -0.0 is y */

#define EMIT(from_single, to_single, own, param, sure, affine) \
    emit_chunk(x, to, n, from_single, to_single, pairs, own, param, sure, affine, m, ml, r, rl, w, c)
#define EMIT_EACH(from_single, to_single)                                       \
    do {                                                                        \
        int plain = !t->weight && !t->bias;                                     \
        if (own && param) EMIT(from_single, to_single, 1, 1, 0, 1);             \
        else if (own && plain) EMIT(from_single, to_single, 1, 0, 0, 0);        \
        else if (own) EMIT(from_single, to_single, 1, 0, 0, 1);                 \
        else if (param) EMIT(from_single, to_single, 0, 1, 0, 1);               \
        else if (*r == INFINITY) EMIT(from_single, to_single, 0, 0, 0, 1);      \
        else if (plain) EMIT(from_single, to_single, 0, 0, 1, 0);               \
        else EMIT(from_single, to_single, 0, 0, 1, 1);                          \
    } while (0)

/* Outputs of 16 bits from floats: a piece at a time, short enough that few pieces must be rounded from doubles. */
EVERY_PROCESSOR static void emit_halves(const Slab *t, const char *x, char *y, int64_t size, int64_t own, int64_t param,
                        const double *m, const double *ml, const double *r, const double *w, const double *c) {
    const double *rl = NULL;
    const int pairs = 0;
    float rounded[PIECE];
    double wide[PIECE], exact[PIECE];
    for (int64_t n; size > 0; size -= n) {
        n = size < PIECE ? size : PIECE;
        char *to = (char *)rounded;
        EMIT_EACH(1, 1);
        uint16_t *narrow = (uint16_t *)y;
        int doubtful = 0;
        if (t->dtype == FLOAT16) {
            int64_t done = has_sixteen() ? narrow_halves(rounded, n, narrow, &doubtful) : 0;
            doubtful |= to_halves(rounded + done, n - done, narrow + done);
        } else
            doubtful = to_brains(rounded, n, narrow);
        if (doubtful) {
            const char *single = x;
            load(FLOAT32, x, 4, n, wide);
            x = (const char *)wide, to = (char *)exact;
            EMIT_EACH(0, 0);
            store(t->dtype, exact, n, y, 2);
            x = single;
        }
        x += 4 * n, y += 2 * n;
        if (own) m += n, ml += n, r += n;
        if (param) w += n, c += n;
    }
}

/* Whether a row's outputs can be had in single precision, of which emit_sixteens is told. */
INLINE int in_single(const Slab *t) {
    int64_t last = t->rank - 1;
    return has_sixteen() && t->dtype <= BFLOAT16 && t->x_dtype == t->dtype && t->x_stride[last] == 2 &&
           t->y_stride[last] == 2 && !t->stat_stride[last] && t->shape[last] >= 16;
}

/* A group's numbers, unless something may leave the range in which the bound holds. */
INLINE int single_of(double mean, double mean_low, double rstd, double largest, Single *group) {
    float near = (float)mean;
    group->mean = near;
    group->low = (float)(((mean - near) + mean_low) * rstd);
    group->rstd = (float)rstd;
    group->slack = (float)((fabs(mean) * rstd * 0x1p-46 + 0x1p-120) * largest + 0x1p-120);
    return largest < INFINITY && fabs(mean) < 0x1p100 && rstd < 0x1p60 && rstd > 0x1p-60;
}

INLINE void singles_of(int64_t n, const double *restrict weight, const double *restrict bias, Singles *restrict to) {
    uint64_t one = bits_of_double(1), largest = 0, least = one;
    for (int64_t i = 0; i < n; i++) {
        uint64_t size = bits_of_double(fabs(weight[i])), other = size ? size : one; /* in the order of the numbers */
        to->weight[i] = (float)weight[i];
        to->bias[i] = (float)bias[i];
        to->wrong[i] = WRONG * fabsf((float)bias[i]);
        largest = size > largest ? size : largest;
        least = other < least ? other : least;
    }
    for (int64_t i = n; i < (n + 15) / 16 * 16; i++) to->weight[i] = to->bias[i] = to->wrong[i] = 0;
    to->largest = least > bits_of_double(0x1p-100) && largest < bits_of_double(0x1p60) ? double_of(largest) : INFINITY;
}

/* One output in double precision. */
INLINE void emit_one(int64_t dtype, const char *x, char *y, double mean, double mean_low, double rstd, double weight,
                     double bias) {
    double value;
    load(dtype, x, 2, 1, &value);
    double d = value - mean - mean_low;
    value = ((d == 0) & (rstd == INFINITY) ? 0 : d * rstd) * weight + bias;
    store(dtype, &value, 1, y, 2);
}

/* Outputs of 16 bits, a piece at a time of all rows that share its parameters. */
EVERY_PROCESSOR static void emit_singles(const Slab *t) {
    Singles singles;
    double weight[CHUNK], bias[CHUNK];
    Doubt doubts[CHUNK / 16 + 1];
    int64_t last = t->rank - 1, size = t->shape[last], each = t->param_stride[last] != 0, above = last - 1;
    int64_t rows = last && !t->param_stride[above] ? t->shape[above] : 1, inside = rows > 1 ? 2 : 1;
    int64_t down = rows > 1 ? t->x_stride[above] : 0, below = rows > 1 ? t->y_stride[above] : 0;
    int64_t next = rows > 1 ? t->stat_stride[above] : 0, had = -1;
    Run run = first_run(t);
    do
        for (int64_t at = 0; at < size; at += CHUNK) {
            int64_t n = size - at < CHUNK ? size - at : CHUNK, p = run.param + each * at;
            const double *w = t->weight ? t->weight + p : ONE, *c = t->bias ? t->bias + p : NONE;
            if (each) singles_of(n, w, c, &singles);
            else if (p != had) {
                for (int64_t i = 0; i < CHUNK; i++) weight[i] = *w, bias[i] = *c;
                singles_of(CHUNK, weight, bias, &singles);
                had = p;
            }
            for (int64_t row = 0; row < rows; row++) {
                int64_t s = run.stat + row * next;
                const char *x = run.x + row * down + 2 * at;
                char *y = run.y + row * below + 2 * at;
                double mean = t->mean[s], mean_low = t->mean_low[s], rstd = t->rstd[s];
                Single group;
                int64_t count = 0;
                if (single_of(mean, mean_low, rstd, singles.largest, &group))
                    count = emit_sixteens(t->dtype, x, y, n, group, &singles, doubts);
                else
                    for (int64_t i = 0; i < n; i += 16)
                        doubts[count++] = (Doubt){i, n - i < 16 ? (1u << (n - i)) - 1 : 0xffff};
                for (int64_t d = 0; d < count; d++)
                    for (uint32_t left = doubts[d].left; left; left &= left - 1) {
                        int64_t k = doubts[d].at + __builtin_ctz(left), of = each ? k : 0;
                        emit_one(t->dtype, x + 2 * k, y + 2 * k, mean, mean_low, rstd, w[of], c[of]);
                    }
            }
        }
    while (next_run(t, &run, inside));
}

INLINE void emit_rows(const Slab *t, const Run *run, int64_t at, int64_t rows, int pairs) {
    double buffer[CHUNK], result[CHUNK];
    int64_t last = t->rank - 1, n = t->shape[last] - at < CHUNK ? t->shape[last] - at : CHUNK;
    int64_t own = t->stat_stride[last], param = t->param_stride[last], stride = t->y_stride[last];
    int64_t s = run->stat + own * at, p = run->param + param * at;
    const double *m = t->mean + s, *ml = t->mean_low + s, *r = t->rstd + s, *rl = pairs ? t->rstd_low + s : NULL;
    const double *w = t->weight ? t->weight + p : ONE, *c = t->bias ? t->bias + p : NONE;
    for (int64_t row = 0; row < rows; row++) {
        int64_t down = rows > 1 ? row * t->x_stride[last - 1] : 0, below = rows > 1 ? row * t->y_stride[last - 1] : 0;
        char *y = run->y + at * stride + below, *to = (char *)result;
        int single;
        const char *x = readable(t, run->x + at * t->x_stride[last] + down, n, buffer, &single);
        int direct = t->dtype == FLOAT64 ? stride == 8 : t->dtype == FLOAT32 && single && stride == 4;
        if (direct) to = y;
        if (!pairs && t->dtype <= BFLOAT16 && single && stride == 2) {
            emit_halves(t, x, y, n, own, param, m, ml, r, w, c);
            continue;
        }
        if (single && !direct) {
            load(FLOAT32, x, 4, n, buffer);
            x = (const char *)buffer;
        }
        if (pairs || !direct) EMIT_EACH(0, 0);
        else EMIT_EACH(1, 1);
        if (!direct) store(t->dtype, result, n, y, stride);
    }
}

EVERY_PROCESSOR static void emit_at(const Slab *t, const Run *run, int64_t at, int64_t rows) {
    if (t->dtype == FLOAT64) emit_rows(t, run, at, rows, 1);
    else emit_rows(t, run, at, rows, 0);
}

static void emit_tile(const Slab *t) {
    if (in_single(t)) emit_singles(t);
    else if (in_rows(t) && t->dtype == FLOAT32 && t->y_stride[t->rank - 1] == 4) emit_up_rows(t);
    else EACH_CHUNK(t, emit_at(t, &run, at, rows));
}

/* ---- slabs ------------------------------------------------------------------------------------------ */

/* Short runs are worked on many at a time, in a tile of longer ones whose every element has statistics of its own; what
 * it adds up is folded into the tile's, and the tile's statistics are spread over it. There are two ways to lay it out:
 *
 * - Where groups are cut into short runs side by side (channels last, a few channels to a group), a row of runs is one.
 * - Where statistics lie side by side and rows are short (channels last), several rows are one, and what is left of
 *   the rows is a tile of its own. */
enum { SHORT = 32, SHORT_ROW = 32, LONG_ROW = 448, MOST_WIDE = 12582912 /* 96 MiB */ };

INLINE int lie_side_by_side(const Slab *t, int64_t above, int64_t n) {
    int64_t last = above + 1;
    return t->x_stride[above] == n * t->x_stride[last] && (!t->y || t->y_stride[above] == n * t->y_stride[last]) &&
           (!t->g || t->g_stride[above] == n * t->g_stride[last]);
}

/* Have a slab's statistics lie in C order, without what is not its own; how many there are. */
int64_t normcli_packed(Slab *t) {
    int64_t size = 1;
    for (int64_t d = t->rank - 1; d >= 0; d--) {
        int64_t own = t->stat_stride[d] != 0;
        t->stat_stride[d] = own ? size : 0;
        size *= own ? t->shape[d] : 1;
    }
    return size;
}

/* Room for the statistics of a widened slab, of which only the strides' zeros are right, and for parameters after it. */
static double *hold(Slab *wide, int64_t parameters, double **after) {
    int64_t size = normcli_packed(wide);
    double **own[] = {&wide->mean, &wide->mean_low, &wide->var, &wide->rstd, &wide->var_low, &wide->rstd_low,
                      &wide->shift, &wide->shift_low, &wide->slope, &wide->slope_low, &wide->size};
    int64_t count = wide->g ? sizeof own / sizeof *own : 6;
    double *held = count * size > MOST_WIDE ? NULL : malloc((size_t)(count * size + 2 * parameters) * sizeof *held);
    for (int64_t k = 0; held && k < count; k++) *own[k] = held + k * size;
    *after = held + count * size;
    return held;
}

static void widen_row(const Slab *t, Wide *wide) {
    int64_t last = t->rank - 1, above = last - 1, n = t->shape[last];
    if (n >= SHORT || !t->stat_stride[above] || !lie_side_by_side(t, above, n)) return;
    if (t->param_stride[last] ? t->param_stride[above] != n * t->param_stride[last] : t->param_stride[above]) return;
    Slab *slab = &wide->slab;
    slab->rank = last;
    slab->shape[above] *= n;
    slab->x_stride[above] = t->x_stride[last];
    slab->y_stride[above] = t->y_stride[last];
    slab->g_stride[above] = t->g_stride[last];
    slab->param_stride[above] = t->param_stride[last];
    wide->times = n;
    double *after;
    wide->held = hold(slab, 0, &after);
}

static void widen_rows(const Slab *t, Wide *wide) {
    int64_t last = t->rank - 1, above = last - 1, n = t->shape[last], times = LONG_ROW / n, rows = t->shape[above];
    int64_t parameters = t->param_stride[last] ? times * n : 0;
    if (n != t->whole_row) return; /* the same for a slab of a file, whose parts are copied side by side */
    if (n > SHORT_ROW || t->stat_stride[above] || t->param_stride[above] || rows < 4 * times) return;
    if (!lie_side_by_side(t, above, n)) return;
    for (int64_t d = 0; d < above; d++)
        if (t->param_stride[d]) return;
    Slab *slab = &wide->slab, *rest = &wide->rest;
    slab->shape[last] = times * n;
    slab->shape[above] = rows / times;
    slab->x_stride[above] *= times;
    slab->y_stride[above] *= times;
    rest->shape[above] = rows % times;
    rest->x += (rows - rows % times) * t->x_stride[above];
    if (rest->y) rest->y += (rows - rows % times) * t->y_stride[above];
    wide->times = times;
    wide->by_rows = 1;
    double *weight, *bias;
    wide->held = hold(slab, parameters, &weight);
    if (!wide->held) return;
    bias = weight + parameters;
    for (int64_t i = 0; i < parameters; i++) {
        if (t->weight) weight[i] = t->weight[i % n];
        if (t->bias) bias[i] = t->bias[i % n];
    }
    if (t->weight && parameters) slab->weight = weight;
    if (t->bias && parameters) slab->bias = bias;
}

Wide normcli_widened(const Slab *t) {
    Wide wide = {.slab = *t, .rest = *t};
    if (t->rank > 1 && t->stat_stride[t->rank - 1]) {
        if (!t->g) widen_rows(t, &wide); /* what parameters receive is not folded */
    } else if (t->rank > 1 && (t->g || !in_rows(t))) widen_row(t, &wide);
    return wide;
}

/* The place, among a widened slab's statistics, of the k-th that belongs to the tile's statistic of that number. */
INLINE int64_t place(const Wide *wide, int64_t n, int64_t number, int64_t k) {
    return wide->by_rows ? (number / n * wide->times + k) * n + number % n : number * wide->times + k;
}

void normcli_fold(const Slab *t, const Wide *wide, double *high, double *low, const double *more, const double *more_low) {
    int64_t number = 0, n = t->shape[t->rank - 1];
    int pairs = t->dtype == FLOAT64;
    Slab stats = statistics_of(t);
    Run run = first_run(&stats);
    do
        for (int64_t s = run.stat; s < run.stat + stats.shape[stats.rank - 1]; s++, number++)
            for (int64_t k = 0; k < wide->times; k++) {
                int64_t at = place(wide, n, number, k);
                if (low && (pairs || t->g)) add_pair(high + s, low + s, more[at], more_low[at]);
                else high[s] += more[at];
            }
    while (next_run(&stats, &run, 1));
}

void normcli_spread(const Slab *t, const Wide *wide, const double *values, double *to) {
    int64_t number = 0, n = t->shape[t->rank - 1];
    if (!values) return;
    Slab stats = statistics_of(t);
    Run run = first_run(&stats);
    do
        for (int64_t s = run.stat; s < run.stat + stats.shape[stats.rank - 1]; s++, number++)
            for (int64_t k = 0; k < wide->times; k++) to[place(wide, n, number, k)] = values[s];
    while (next_run(&stats, &run, 1));
}

/* The sums of a tile, or its sums of squares about the mean. */
static void sums(const Slab *t, const Wide *wide, int squares) {
    double *high = squares ? t->var : t->mean, *low = squares ? t->var_low : t->mean_low;
    const Slab *slab = &wide->slab;
    double *more = squares ? slab->var : slab->mean, *more_low = squares ? slab->var_low : slab->mean_low;
    if (wide->held && squares) normcli_spread(t, wide, t->mean, slab->mean), normcli_spread(t, wide, t->mean_low, slab->mean_low);
    clear(high, low, t);
    if (!wide->held) {
        if (in_rows(t)) add_up_rows(t, squares);
        else add_up(t, squares);
        return;
    }
    if (wide->by_rows && wide->rest.shape[t->rank - 2]) add_up(&wide->rest, squares);
    clear(more, more_low, slab);
    add_up(slab, squares);
    normcli_fold(t, wide, high, low, more, more_low);
}

static void emit_with(const Slab *t, const Wide *wide) {
    const Slab *slab = &wide->slab;
    if (!wide->held) {
        emit_tile(t);
        return;
    }
    normcli_spread(t, wide, t->mean, slab->mean), normcli_spread(t, wide, t->mean_low, slab->mean_low);
    normcli_spread(t, wide, t->rstd, slab->rstd), normcli_spread(t, wide, t->rstd_low, slab->rstd_low);
    if (wide->by_rows && wide->rest.shape[t->rank - 2]) emit_tile(&wide->rest);
    emit_tile(slab);
}

/* Half precision is widened once for all passes over a tile: a copy in single precision, in C order. Null where the
 * elements are not of half precision, or no memory is free. */
EVERY_PROCESSOR static void widen_runs(const Slab *t, float *to) {
    int64_t last = t->rank - 1, stride = t->x_stride[last];
    Run run = first_run(t);
    do {
        int64_t n = t->shape[last];
        widen_row_of(t->dtype, run.x, stride, n, to);
        to += n;
    } while (next_run(t, &run, 1));
}

float *normcli_in_single(const Slab *t, Slab *copy) {
    int64_t size = 1;
    if (t->dtype > BFLOAT16) return NULL;
    *copy = *t;
    for (int64_t d = t->rank - 1; d >= 0; size *= t->shape[d--]) copy->x_stride[d] = size * 4;
    int both = t->g && t->g_dtype <= BFLOAT16;
    float *held = malloc((size_t)(both ? 2 * size : size) * sizeof *held);
    if (!held) return NULL;
    widen_runs(t, held);
    if (both) {
        Slab other = *t;
        other.x = t->g, other.dtype = t->g_dtype;
        memcpy(other.x_stride, t->g_stride, sizeof other.x_stride);
        widen_runs(&other, held + size);
        copy->g = (const char *)(held + size), copy->g_dtype = FLOAT32;
        memcpy(copy->g_stride, copy->x_stride, sizeof copy->g_stride);
    }
    copy->x = (const char *)held;
    copy->x_dtype = FLOAT32;
    return held;
}

/* Statistics and outputs of a slab that holds whole groups, tile by tile. */
void normcli_whole(const Slab *whole) {
    Slab slab = in_tiles(whole, 0);
    for (int64_t start = 0; start < slab.shape[slab.cut]; start += slab.step) {
        Slab tile = tile_of(&slab, start), copy;
        float *single = in_single(&tile) ? NULL : normcli_in_single(&tile, &copy);
        if (single) tile = copy;
        Wide wide = normcli_widened(&tile);
        if (tile.centers) {
            sums(&tile, &wide, 0);
            finish_mean(&tile, slab.n);
        } else
            clear(tile.mean, tile.mean_low, &tile);
        sums(&tile, &wide, 1);
        normcli_finish(&tile);
        if (slab.y) emit_with(&tile, &wide);
        free(wide.held), free(single);
    }
}

/* Add a tile's sums, in mean and mean_low, to those of the tiles before it, of which each group has seen
 * `seen` elements; the squares are moved to the common mean (Chan, Golub and LeVeque 1983). The tile's mean stays. */
EVERY_PROCESSOR static void add_tile(const Slab *tile, double seen, double n) {
    EACH_STATISTIC(tile, s) {
        double mean = tile->sum[s], mean_low = tile->sum_low[s];
        add_pair(tile->sum + s, tile->sum_low + s, tile->mean[s], tile->mean_low[s]);
        divide_pair(tile->mean + s, tile->mean_low + s, n);
        if (seen) {
            divide_pair(&mean, &mean_low, seen);
            add_pair(&mean, &mean_low, -tile->mean[s], -tile->mean_low[s]);
            double square = mean * mean, low = __builtin_fma(mean, mean, -square) + 2 * mean * mean_low;
            multiply_pair(&square, &low, seen);
            multiply_pair(&square, &low, n);
            divide_pair(&square, &low, seen + n);
            add_pair(tile->squares + s, tile->squares_low + s, square, low);
        }
    }
    END_EACH(tile);
}

EVERY_PROCESSOR static void add_squares(const Slab *tile) {
    EACH_STATISTIC(tile, s) add_pair(tile->squares + s, tile->squares_low + s, tile->var[s], tile->var_low[s]);
    END_EACH(tile);
}

/* Sums, and sums of squares about the mean, of a slab that is a part of longer groups, to where `sum` says: all sums, what
 * their rounding left, and so the squares. 0 where no memory is free. */
int normcli_moments(const Slab *part) {
    Slab slab = in_tiles(part, 1);
    int64_t size = normcli_packed(&slab);
    double *tiles = malloc((size_t)(4 * size) * sizeof *tiles);
    if (!tiles) return 0;
    slab.mean = tiles, slab.mean_low = tiles + size, slab.var = tiles + 2 * size, slab.var_low = tiles + 3 * size;
    slab.sum_low = slab.sum + size, slab.squares = slab.sum + 2 * size, slab.squares_low = slab.sum + 3 * size;
    memset(slab.sum, 0, (size_t)(4 * size) * sizeof *slab.sum);
    double each = 1, seen = 0; /* elements of a group for each step along the cut, and those seen */
    for (int64_t d = 0; d < slab.rank; d++)
        if (!slab.stat_stride[d] && d != slab.cut) each *= (double)slab.shape[d];
    for (int64_t start = 0; start < slab.shape[slab.cut]; start += slab.step) {
        Slab tile = tile_of(&slab, start), copy;
        float *single = in_rows(&tile) ? NULL : normcli_in_single(&tile, &copy);
        if (single) tile = copy;
        double n = each * (double)tile.shape[slab.cut];
        Wide wide = normcli_widened(&tile);
        if (tile.centers) {
            sums(&tile, &wide, 0);
            add_tile(&tile, seen, n);
        } else
            clear(tile.mean, tile.mean_low, &tile);
        sums(&tile, &wide, 1);
        add_squares(&tile);
        free(wide.held), free(single);
        seen += n;
    }
    free(tiles);
    return 1;
}

/* Outputs of a slab whose statistics are known. */
void normcli_emit(const Slab *slab) {
    Wide wide = normcli_widened(slab);
    emit_with(slab, &wide);
    free(wide.held);
}

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "normcli.arithmetic._loops", .m_size = -1};
PyMODINIT_FUNC PyInit__loops(void) { return PyModule_Create(&definition); } /* ctypes calls the functions above */
