/* Half precision: elements of 16 bits widened, and outputs rounded to them. loops.h says how numbers are kept. */

#include "loops.h"

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
    float mean[CHUNK], low[CHUNK], rstd[CHUNK], slack[CHUNK];
} Columns; /* the same of groups side by side */
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
    __mmask16 rest = (__mmask16)((1u << (n - i)) - 1);
    _mm512_mask_storeu_ps(to + i, rest, _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(rest, from + i)));
    return n;
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
 * are rounded to the same 16 bits, these are right; the others, and what is not finite, are doubtful.
 *
 * Without weight and bias (plain), of groups whose |mean| rstd is at most 2^9, an element of 2^-14 or more is wrong by less than
 * 3.1 + 1 of its units in the last place, and so doubtful only within 6 of halfway between two results. */
typedef struct {
    __m512 mean, low, rstd, slack;
} Sixteen;
enum { NEAR = 6 };
#define IN_SIXTEENS SIXTEEN static inline __attribute__((always_inline))

IN_SIXTEENS __m256i rounded_halves(__m512 value) {
    return _mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

IN_SIXTEENS __mmask16 plainly(int64_t dtype, __m512 result, __m256i *narrow) {
    __m512i bits = _mm512_castps_si512(result), size = _mm512_and_si512(bits, EACH(0x7fffffff));
    __m512i half = EACH(dtype == FLOAT16 ? 0x1000 : 0x8000), below = EACH(dtype == FLOAT16 ? 0x1fff : 0xffff);
    __m512i up = _mm512_add_epi32(bits, half); /* a multiple of 2 * half where the result was halfway */
    *narrow = dtype == FLOAT16 ? rounded_halves(result) : _mm512_cvtepi32_epi16(_mm512_srli_epi32(up, 16));
    __mmask16 apart = _mm512_cmpgt_epu32_mask(_mm512_and_si512(_mm512_add_epi32(up, EACH(NEAR)), below), EACH(2 * NEAR));
    return _mm512_mask_cmpge_epu32_mask(apart, size, EACH(0x38800000)); /* 2^-14 */
}

IN_SIXTEENS __mmask16 surely(int64_t dtype, __m512 result, __m512 error, __m256i *narrow) {
    __m512 below = _mm512_sub_ps(result, error), above = _mm512_add_ps(result, error);
    __mmask16 sure = _mm512_cmp_ps_mask(error, _mm512_set1_ps(0x1p100f), _CMP_LT_OQ);
    if (dtype == FLOAT16) {
        *narrow = rounded_halves(below);
        return sure & _mm256_cmpeq_epi16_mask(*narrow, rounded_halves(above));
    } /* halfway is upwards for both, as neither end is the result */
    __m512i one = _mm512_add_epi32(_mm512_castps_si512(below), EACH(0x8000));
    __m512i other = _mm512_add_epi32(_mm512_castps_si512(above), EACH(0x8000));
    *narrow = _mm512_cvtepi32_epi16(_mm512_srli_epi32(one, 16));
    return sure & _mm512_testn_epi32_mask(_mm512_xor_si512(one, other), EACH(-0x10000));
}

IN_SIXTEENS int64_t sixteen_at(int64_t dtype, const char *x, char *y, int64_t i, __mmask16 some, Sixteen group,
                               const Singles *with, Doubt *doubt) {
    __m256i read = _mm256_maskz_loadu_epi16(some, x + 2 * i), narrow;
    __m512 value = dtype == FLOAT16 ? _mm512_cvtph_ps(read)
                                    : _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(read), 16));
    __m512 result = _mm512_fmsub_ps(_mm512_sub_ps(value, group.mean), group.rstd, group.low);
    __mmask16 sure;
    if (with) {
        result = _mm512_fmadd_ps(result, _mm512_loadu_ps(with->weight + i), _mm512_loadu_ps(with->bias + i));
        __m512 error = _mm512_fmadd_ps(_mm512_abs_ps(result), _mm512_set1_ps(WRONG), _mm512_loadu_ps(with->wrong + i));
        sure = surely(dtype, result, _mm512_add_ps(error, group.slack), &narrow);
    } else
        sure = plainly(dtype, result, &narrow);
    _mm256_mask_storeu_epi16(y + 2 * i, some, narrow);
    doubt->at = i;
    doubt->left = (uint32_t)some & ~(uint32_t)sure;
    return doubt->left != 0;
}

/* The numbers of one group, or of sixteen side by side. */
IN_SIXTEENS Sixteen sixteen_of(const Single *group, const Columns *columns, int64_t i) {
    if (!columns)
        return (Sixteen){_mm512_set1_ps(group->mean), _mm512_set1_ps(group->low), _mm512_set1_ps(group->rstd),
                         _mm512_set1_ps(group->slack)};
    return (Sixteen){_mm512_loadu_ps(columns->mean + i), _mm512_loadu_ps(columns->low + i), _mm512_loadu_ps(columns->rstd + i),
                     _mm512_loadu_ps(columns->slack + i)};
}

IN_SIXTEENS int64_t sixteens(int64_t dtype, const char *x, char *y, int64_t n, const Single *group, const Columns *columns,
                             const Singles *with, Doubt *doubts) {
    int64_t i = 0, count = 0;
    for (; i + 16 <= n; i += 16)
        count += sixteen_at(dtype, x, y, i, 0xffff, sixteen_of(group, columns, i), with, doubts + count);
    __mmask16 rest = (__mmask16)((1u << (n - i)) - 1);
    if (rest) count += sixteen_at(dtype, x, y, i, rest, sixteen_of(group, columns, i), with, doubts + count);
    return count;
}

/* How many sixteens have doubtful elements. */
#define SIXTEENS(group, columns, with)                                                         \
    (dtype == FLOAT16 ? sixteens(FLOAT16, x, y, n, group, columns, with, doubts)               \
                      : sixteens(BFLOAT16, x, y, n, group, columns, with, doubts))
SIXTEEN static int64_t emit_sixteens(int64_t dtype, const char *x, char *y, int64_t n, const Single *group, const Columns *columns,
                                     const Singles *with, Doubt *doubts) {
    if (columns) return with ? SIXTEENS(NULL, columns, with) : SIXTEENS(NULL, columns, NULL);
    return with ? SIXTEENS(group, NULL, with) : SIXTEENS(group, NULL, NULL);
}
#else
static int has_sixteen(void) { return 0; }
static int64_t emit_sixteens(int64_t dtype, const char *x, char *y, int64_t n, const Single *group, const Columns *columns,
                             const Singles *with, Doubt *doubts) {
    return (void)dtype, (void)x, (void)y, (void)n, (void)group, (void)columns, (void)with, (void)doubts, 0;
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

/* Elements of half precision as floats. */
EVERY_PROCESSOR void normcli_widen(int64_t dtype, const char *x, int64_t stride, int64_t n, float *to) {
    if (dtype == FLOAT16) {
        int64_t done = stride == 2 && has_sixteen() ? widen_halves((const uint16_t *)x, n, to) : 0;
        x += done * stride, to += done, n -= done;
        LOAD(uint16_t, (float)from_half(e))
    } else LOAD(uint16_t, float_of((uint32_t)e << 16))
}


/* Floats that are themselves rounded, to 16 bits; true where doubles must be rounded instead. */
EVERY_PROCESSOR int normcli_narrow(int64_t dtype, const float *from, int64_t n, uint16_t *to) {
    int doubtful = 0;
    if (dtype == BFLOAT16) return to_brains(from, n, to);
    int64_t done = has_sixteen() ? narrow_halves(from, n, to, &doubtful) : 0;
    return to_halves(from + done, n - done, to + done) | doubtful;
}

/* Whether a row's outputs can be had in single precision, of which normcli_emit_singles is told. */
int normcli_takes_singles(const Slab *t) {
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

/* Whether what the mean adds to an error is below what a result of 2^-14 or more can be told apart by. */
INLINE int is_near(double mean, double rstd) { return fabs(mean) * rstd <= 0x1p9; }

/* Parameters of n elements, or, where these share theirs (each == 0), of all. */
INLINE void singles_of(int64_t n, const double *restrict weight, const double *restrict bias, int64_t each,
                       Singles *restrict to) {
    uint64_t one = bits_of_double(1), largest = 0, least = one;
    int64_t end = (n + 15) / 16 * 16, own = each ? n : 1;
    for (int64_t i = 0; i < own; i++) {
        double w = weight ? weight[i] : 1, c = bias ? bias[i] : -0.0;
        uint64_t size = bits_of_double(fabs(w)), other = size ? size : one; /* in the order of the numbers */
        to->weight[i] = (float)w;
        to->bias[i] = (float)c;
        to->wrong[i] = WRONG * fabsf((float)c);
        largest = size > largest ? size : largest;
        least = other < least ? other : least;
    }
    for (int64_t i = own; i < end; i++) {
        to->weight[i] = each ? 0 : to->weight[0];
        to->bias[i] = each ? 0 : to->bias[0];
        to->wrong[i] = each ? 0 : to->wrong[0];
    }
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
EVERY_PROCESSOR void normcli_emit_singles(const Slab *t) {
    Singles singles;
    Doubt doubts[CHUNK / 16 + 1];
    int64_t last = t->rank - 1, size = t->shape[last], each = t->param_stride[last] != 0, above = last - 1;
    int64_t rows = last && !t->param_stride[above] ? t->shape[above] : 1, inside = rows > 1 ? 2 : 1;
    int64_t down = rows > 1 ? t->x_stride[above] : 0, below = rows > 1 ? t->y_stride[above] : 0;
    int64_t next = rows > 1 ? t->stat_stride[above] : 0, had = -1, size_had = 0;
    int plain = !t->weight && !t->bias;
    Run run = first_run(t);
    do
        for (int64_t at = 0; at < size; at += CHUNK) {
            int64_t n = size - at < CHUNK ? size - at : CHUNK, p = run.param + each * at;
            const double *w = t->weight ? t->weight + p : NULL, *c = t->bias ? t->bias + p : NULL;
            if (each || p != had || n > size_had) singles_of(n, w, c, each, &singles);
            had = p, size_had = n;
            for (int64_t row = 0; row < rows; row++) {
                int64_t s = run.stat + row * next;
                const char *x = run.x + row * down + 2 * at;
                char *y = run.y + row * below + 2 * at;
                double mean = t->mean[s], mean_low = t->mean_low[s], rstd = t->rstd[s];
                Single group;
                int64_t count = 0;
                if (single_of(mean, mean_low, rstd, singles.largest, &group))
                    count = emit_sixteens(t->dtype, x, y, n, &group, NULL, plain && is_near(mean, rstd) ? NULL : &singles, doubts);
                else
                    for (int64_t i = 0; i < n; i += 16)
                        doubts[count++] = (Doubt){i, n - i < 16 ? (1u << (n - i)) - 1 : 0xffff};
                for (int64_t d = 0; d < count; d++)
                    for (uint32_t left = doubts[d].left; left; left &= left - 1) {
                        int64_t k = doubts[d].at + __builtin_ctz(left), of = each ? k : 0;
                        emit_one(t->dtype, x + 2 * k, y + 2 * k, mean, mean_low, rstd, w ? w[of] : 1, c ? c[of] : -0.0);
                    }
            }
        }
    while (next_run(t, &run, inside));
}

/* Whether columns' outputs can be had in single precision. */
int normcli_takes_single_columns(const Slab *t) {
    int64_t last = t->rank - 1;
    return has_sixteen() && t->dtype <= BFLOAT16 && t->x_dtype == t->dtype && t->x_stride[last] == 2 && t->stat_stride[last] &&
           (!t->y || t->y_stride[last] == 2) && rows_of(t) >= ROWS;
}

/* Outputs of n columns from `at` on, in all rows of a run; false, and nothing done, where some are out of the bound's range. */
EVERY_PROCESSOR int normcli_emit_single_columns(const Slab *t, const Run *run, int64_t at, int64_t n) {
    Columns columns;
    Singles singles;
    Doubt doubts[CHUNK / 16 + 1];
    int64_t last = t->rank - 1, above = last - 1, each = t->param_stride[last] != 0;
    const double *w = t->weight ? t->weight + run->param + each * at : NULL;
    const double *c = t->bias ? t->bias + run->param + each * at : NULL;
    const double *mean = t->mean + run->stat + at, *low = t->mean_low + run->stat + at, *rstd = t->rstd + run->stat + at;
    int within = 1, plain = !w && !c;
    singles_of(n, w, c, each, &singles);
    for (int64_t i = 0; i < n; i++) {
        Single group;
        within &= single_of(mean[i], low[i], rstd[i], singles.largest, &group);
        plain &= is_near(mean[i], rstd[i]);
        columns.mean[i] = group.mean, columns.low[i] = group.low, columns.rstd[i] = group.rstd, columns.slack[i] = group.slack;
    }
    if (!within) return 0;
    for (int64_t row = 0; row < t->shape[above]; row++) {
        const char *x = run->x + row * t->x_stride[above] + 2 * at;
        char *y = run->y + row * t->y_stride[above] + 2 * at;
        int64_t count = emit_sixteens(t->dtype, x, y, n, NULL, &columns, plain ? NULL : &singles, doubts);
        for (int64_t d = 0; d < count; d++)
            for (uint32_t left = doubts[d].left; left; left &= left - 1) {
                int64_t k = doubts[d].at + __builtin_ctz(left), of = each ? k : 0;
                emit_one(t->dtype, x + 2 * k, y + 2 * k, mean[k], low[k], rstd[k], w ? w[of] : 1, c ? c[of] : -0.0);
            }
    }
    return 1;
}
