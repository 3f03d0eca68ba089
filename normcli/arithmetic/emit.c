/* Outputs, from elements and statistics. loops.h says how numbers are kept. */

#include "loops.h"

#define PIECE 256 /* of a chunk, where what is in doubt is worked out again */

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
            double d, e, deviation, sum, low;
            TWO_SUM(d, e, value, -mean[s]);
            e -= mean_low[s]; /* apart from the choice below: a load in it would keep this from going eight at a time */
            if (!sure) e = fabs(d) <= DBL_MAX ? e : 0; /* infinity loses nothing */
            deviation = d + e;
            e -= deviation - d;
            d = deviation;
            sum = d * r;
            low = __builtin_fma(d, r, -sum) + __builtin_fma(d, rstd_low[s], e * r);
            if (!sure) sum = (d == 0) & (r == INFINITY) ? 0 : sum;
            if (affine) {
                double scaled = sum * weight[p], rest;
                low = __builtin_fma(low, weight[p], __builtin_fma(sum, weight[p], -scaled));
                TWO_SUM(sum, rest, scaled, bias[p]);
                low += rest;
            }
            value = sum + low;
            if (!sure) value = value == value && fabs(sum) <= DBL_MAX ? value : sum; /* what infinity lost is no number */
        }
        if (to_single) ((float *)to)[i] = (float)value;
        else ((double *)to)[i] = value;
    }
}

static const double ONE[CHUNK] = {[0 ... CHUNK - 1] = 1}, NONE[CHUNK] = {[0 ... CHUNK - 1] = -0.0}; /* y + -0.0 is y */

/* Whether no deviation can be infinite or undefined: a group of which an element is not finite has no such statistics. */
INLINE int are_sure(const Slab *t, const double *restrict mean, const double *restrict rstd, int64_t n) {
    int64_t sure = !t->given;
    for (int64_t s = 0; s < n; s++) sure &= (fabs(mean[s]) <= DBL_MAX) & (rstd[s] > 0) & (rstd[s] <= DBL_MAX);
    return sure != 0;
}

/* Whether no product with a weight, and no sum with a bias, can leave double's range. */
INLINE int are_small(const double *restrict weight, const double *restrict bias, int64_t n) {
    int64_t small = 1;
    for (int64_t p = 0; p < n; p++) small &= (fabs(weight[p]) <= 0x1p500) & (fabs(bias[p]) <= 0x1p500);
    return small != 0;
}

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
#define EMIT_PAIRS(own, param)                                                  \
    do {                                                                        \
        if (!sure) EMIT(0, 0, own, param, 0, 1);                                \
        else if (t->weight || t->bias) EMIT(0, 0, own, param, 1, 1);            \
        else EMIT(0, 0, own, 0, 1, 0);                                          \
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
        if (normcli_narrow(t->dtype, rounded, n, (uint16_t *)y)) {
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

INLINE void emit_rows(const Slab *t, const Run *run, int64_t at, int64_t rows, int pairs) {
    double buffer[CHUNK], result[CHUNK];
    int64_t last = t->rank - 1, n = t->shape[last] - at < CHUNK ? t->shape[last] - at : CHUNK;
    int64_t own = t->stat_stride[last], param = t->param_stride[last], stride = t->y_stride[last];
    int64_t s = run->stat + own * at, p = run->param + param * at;
    const double *m = t->mean + s, *ml = t->mean_low + s, *r = t->rstd + s, *rl = pairs ? t->rstd_low + s : NULL;
    const double *w = t->weight ? t->weight + p : ONE, *c = t->bias ? t->bias + p : NONE;
    int sure = pairs && are_sure(t, m, r, own ? n : 1) && are_small(w, c, param ? n : 1);
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
        if (pairs) {
            if (own && param) EMIT_PAIRS(1, 1);
            else if (own) EMIT_PAIRS(1, 0);
            else if (param) EMIT_PAIRS(0, 1);
            else EMIT_PAIRS(0, 0);
        } else if (!direct) EMIT_EACH(0, 0);
        else EMIT_EACH(1, 1);
        if (!direct) store(t->dtype, result, n, y, stride);
    }
}

EVERY_PROCESSOR static void emit_at(const Slab *t, const Run *run, int64_t at, int64_t rows) {
    if (t->dtype == FLOAT64) emit_rows(t, run, at, rows, 1);
    else emit_rows(t, run, at, rows, 0);
}

void normcli_emit_tile(const Slab *t) {
    if (normcli_takes_singles(t)) normcli_emit_singles(t);
    else if (in_rows(t) && t->dtype == FLOAT32 && t->y_stride[t->rank - 1] == 4) normcli_emit_rows(t);
    else if (!normcli_emit_columns(t)) EACH_CHUNK(t, emit_at(t, &run, at, rows));
}

