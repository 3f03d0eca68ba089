/* The backward pass where x and grad_output are of 32 bits or fewer: sums in double, several rows at once. loops.h says how
 * numbers are kept. */

#include "loops.h"

/* Columns, of which statistics, parameters and sums stay in a first-level cache; elements of a row that is short. */
enum { COLUMNS = 512, FEW = 192 };

static const double ONE[COLUMNS] = {[0 ... COLUMNS - 1] = 1};
static const int64_t COUNTED[2 * LANES] = {[LANES... 2 * LANES - 1] = -1};
typedef int64_t Bits __attribute__((vector_size(64), aligned(8)));

/* Some rows: what is read, where gradients of x go (null: nowhere), and how far the rows after them are away. */
typedef struct {
    const char *x[ROWS], *g[ROWS];
    char *to[ROWS];
    int64_t x_ahead, g_ahead, to_ahead;
    int to_single, given; /* given: x does not matter for its gradient, and need not be finite */
} Rows;

/* Elements as floats: in the tensor itself, or in a buffer. */
INLINE const char *floats_of(int64_t dtype, const char *x, int64_t stride, int64_t n, float *buffer) {
    if (dtype == FLOAT32 && stride == 4) return x;
    if (dtype == FLOAT32) LOAD_INTO(float, x, buffer, e)
    else normcli_widen(dtype, x, stride, n, buffer);
    return (const char *)buffer;
}

INLINE void read_rows(const Slab *t, const char *x, const char *g, int64_t n, float buffers[ROWS][2 * COLUMNS], Rows *rows,
                      int64_t k) {
    int64_t last = t->rank - 1;
    rows->x[k] = floats_of(t->x_dtype, x, t->x_stride[last], n, buffers[k]);
    rows->g[k] = floats_of(t->g_dtype, g, t->g_stride[last], n, buffers[k] + COLUMNS);
}

/* ---- sums where a row is of one group ----------------------------------------------------------------- */

/* Sums of d = g * weight and of d * (x - mean), of some rows' eight elements, the first of them left out. */
INLINE void add_eight(const char *x, const char *g, int64_t at, Bits some, double mean, double low, int own,
                      const double *weight, Lanes *sum, Lanes *product) {
    Lanes d = eight_of(g, at, LANES, 1), more = eight_of(x, at, LANES, 1) - mean - low;
    if (own) d *= eight_of((const char *)weight, at, LANES, 0);
    more *= d;
    *sum += (Lanes)((Bits)d & some);
    *product += (Lanes)((Bits)more & some);
}

/* Of each row, or, where there is one, of four parts of it: so no addition waits for the one before it. */
INLINE void add_rows(const Rows *rows, int count, int64_t n, int own, const double mean[ROWS], const double low[ROWS],
                     const double *weight, double sum[ROWS], double product[ROWS]) {
    Lanes sums[ROWS] = {{0}}, products[ROWS] = {{0}};
    const Bits all = (Bits){0} - 1;
    int64_t i = 0;
    if (count == 1)
        for (; i + ROWS * LANES <= n; i += ROWS * LANES)
            for (int k = 0; k < ROWS; k++)
                add_eight(rows->x[0], rows->g[0], i + k * LANES, all, *mean, *low, own, weight, sums + k, products + k);
    for (; i + LANES <= n; i += LANES)
        for (int k = 0; k < count; k++)
            add_eight(rows->x[k], rows->g[k], i, all, mean[k], low[k], own, weight, sums + k, products + k);
    if (i < n && n >= LANES) {
        Bits some;
        memcpy(&some, COUNTED + (n - i), sizeof some);
        for (int k = 0; k < count; k++)
            add_eight(rows->x[k], rows->g[k], n - LANES, some, mean[k], low[k], own, weight, sums + k, products + k);
        i = n;
    }
    if (count == 1) {
        sums[0] = (sums[0] + sums[1]) + (sums[2] + sums[3]);
        products[0] = (products[0] + products[1]) + (products[2] + products[3]);
    }
    Four all_sums = totals_of(sums), all_products = totals_of(products);
    for (; i < n; i++) /* of less than eight */
        for (int k = 0; k < count; k++) {
            double d = ((const float *)rows->g[k])[i] * (own ? weight[i] : 1);
            all_sums[k] += d;
            all_products[k] += d * (((const float *)rows->x[k])[i] - mean[k] - low[k]);
        }
    memcpy(sum, &all_sums, sizeof all_sums), memcpy(product, &all_products, sizeof all_products);
}

/* The sums of a tile whose rows are each of one group. */
INLINE void sum_rows(const Slab *t, int own) {
    float buffers[ROWS][2 * COLUMNS];
    int64_t last = t->rank - 1, above = last - 1, size = t->shape[last], count = last ? t->shape[above] : 1;
    int64_t down = last ? t->x_stride[above] : 0, below = last ? t->g_stride[above] : 0;
    int64_t next = last ? t->stat_stride[above] : 0, other = last ? t->param_stride[above] : 0;
    int each = size < FEW && (!own || !other) ? ROWS : 1;
    Run run = first_run(t);
    do
        for (int64_t row = 0; row < count; row += each) {
            int64_t several = count - row < each ? count - row : each;
            for (int64_t at = 0; at < size; at += COLUMNS) {
                int64_t n = size - at < COLUMNS ? size - at : COLUMNS;
                const double *weight = t->weight ? t->weight + run.param + row * other + t->param_stride[last] * at : ONE;
                double mean[ROWS], low[ROWS], sum[ROWS], product[ROWS];
                Rows rows;
                for (int64_t k = 0; k < each; k++) {
                    int64_t r = row + (k < several ? k : 0), s = run.stat + r * next;
                    mean[k] = t->mean[s], low[k] = t->mean_low[s];
                    read_rows(t, run.x + r * down + at * t->x_stride[last], run.g + r * below + at * t->g_stride[last], n,
                              buffers, &rows, k);
                }
                if (each == 1) add_rows(&rows, 1, n, own, mean, low, weight, sum, product);
                else add_rows(&rows, ROWS, n, own, mean, low, weight, sum, product);
                for (int64_t k = 0; k < several; k++) {
                    int64_t s = run.stat + (row + k) * next;
                    double w = own || !t->weight ? 1 : t->weight[run.param + (row + k) * other];
                    add_pair(t->shift + s, t->shift_low + s, sum[k] * w, 0);
                    add_pair(t->slope + s, t->slope_low + s, product[k] * w, 0);
                }
            }
        }
    while (next_run(t, &run, 2));
}

EVERY_PROCESSOR static void sum_all_rows(const Slab *t) {
    if (t->weight && t->param_stride[t->rank - 1]) sum_rows(t, 1);
    else sum_rows(t, 0);
}

/* ---- eight elements ----------------------------------------------------------------------------------- */

/* What eight elements are worked out with. */
typedef struct {
    Lanes mean, low, rstd, shift, slope;
} Factors;

INLINE Lanes some_of(const double *values, int64_t at, int64_t n, int own) {
    return own ? eight_of((const char *)values, at, n, 0) : (Lanes){0} + *values;
}

INLINE Factors factors_of(const Slab *t, int64_t s, int64_t at, int64_t n, int own) {
    return (Factors){some_of(t->mean + s, at, n, own), some_of(t->mean_low + s, at, n, own), some_of(t->rstd + s, at, n, own),
                     some_of(t->shift + s, at, n, own), some_of(t->slope + s, at, n, own)};
}

/* The gradients g * weight * rstd - slope * (x - mean) - shift, and what is added to the sums of g and of g times the
 * normalized elements. */
INLINE void eight_gradients(const Rows *rows, int k, int64_t at, int64_t n, const Factors *f, Lanes weight, Lanes *sum,
                            Lanes *product) {
    Lanes d = eight_of(rows->g[k], at, n, 1), deviation = eight_of(rows->x[k], at, n, 1) - f->mean;
    *sum += d;
    *product += d * ((deviation - f->low) * f->rstd);
    if (!rows->to[k]) return;
    Lanes value = d * (weight * f->rstd);
    if (!rows->given) value = value - deviation * f->slope - f->shift;
    Eight narrow = __builtin_convertvector(value, Eight);
    if (rows->to_single) memcpy(rows->to[k] + 4 * at, &narrow, (size_t)n * 4);
    else memcpy(rows->to[k] + 8 * at, &value, (size_t)n * 8);
}

INLINE void add_to_pairs(double *sums, double *lows, int64_t at, int64_t n, Lanes more) {
    Lanes sum = eight_of((const char *)sums, at, n, 0), low = eight_of((const char *)lows, at, n, 0), lost;
    TWO_SUM(sum, lost, sum, more);
    low += lost;
    memcpy(sums + at, &sum, (size_t)n * 8), memcpy(lows + at, &low, (size_t)n * 8);
}

/* ---- where sums lie side by side ---------------------------------------------------------------------- */

/* One of g, and one of g times the deviation or the normalized element, for each column. */
typedef struct {
    double *sum, *sum_low, *product, *product_low;
} Sums;

INLINE void eight_columns(const Slab *t, const Rows *rows, int count, int64_t s, const Factors *each, int64_t at, int own,
                          int gradients, const double *weight, int own_weight, const Sums *to) {
    const int64_t n = LANES;
    Lanes w = some_of(weight, at, n, own_weight), sum = {0}, product = {0};
    Factors f;
    if (own) f = factors_of(t, s, at, n, 1);
    for (int k = 0; k < count; k++) {
        if (count > 1) {
            __builtin_prefetch(rows->x[k] + rows->x_ahead + 4 * at);
            __builtin_prefetch(rows->g[k] + rows->g_ahead + 4 * at);
            if (gradients) __builtin_prefetch(rows->to[k] + rows->to_ahead + 4 * at, 1);
        }
        if (!own) f = each[k];
        if (gradients) eight_gradients(rows, k, at, n, &f, w, &sum, &product);
        else {
            Lanes d = eight_of(rows->g[k], at, n, 1);
            sum += d;
            product += d * (eight_of(rows->x[k], at, n, 1) - f.mean - f.low);
        }
    }
    if (!gradients) sum *= w, product *= w;
    if (!to) return;
    add_to_pairs(to->sum, to->sum_low, at, n, sum);
    add_to_pairs(to->product, to->product_low, at, n, product);
}

INLINE void one_column(const Slab *t, const Rows *rows, int count, int64_t s, int64_t next, int64_t i, int gradients, double w,
                       const Sums *to) {
    double sum = 0, product = 0, lost;
    for (int k = 0; k < count; k++, s += next) {
        double d = ((const float *)rows->g[k])[i], deviation = ((const float *)rows->x[k])[i] - t->mean[s], r = t->rstd[s];
        sum += d;
        product += gradients ? d * ((deviation - t->mean_low[s]) * r) : d * (deviation - t->mean_low[s]);
        if (!gradients || !rows->to[k]) continue;
        double value = d * (w * r);
        if (!rows->given) value = value - deviation * t->slope[s] - t->shift[s];
        if (rows->to_single) ((float *)rows->to[k])[i] = (float)value;
        else ((double *)rows->to[k])[i] = value;
    }
    if (!gradients) sum *= w, product *= w;
    if (!to) return;
    TWO_SUM(to->sum[i], lost, to->sum[i], sum);
    to->sum_low[i] += lost;
    TWO_SUM(to->product[i], lost, to->product[i], product);
    to->product_low[i] += lost;
}

INLINE void columns(const Slab *t, const Rows *some, int count, int64_t s, int64_t next, int64_t n, int own, int gradients,
                    const double *weight, int own_weight, const Sums *to) {
    const Rows kept = *some, *rows = &kept; /* which nothing that is written can change */
    const Sums at = to ? *to : (Sums){0};
    Factors each[ROWS];
    int64_t i = 0;
    for (int k = 0; !own && k < count; k++) each[k] = factors_of(t, s + k * next, 0, LANES, 0);
    for (; i + LANES <= n; i += LANES)
        eight_columns(t, rows, count, s, each, i, own, gradients, weight, own_weight, to ? &at : NULL);
    for (; i < n; i++)
        one_column(t, rows, count, own ? s + i : s, own ? 0 : next, i, gradients, weight[own_weight ? i : 0], to);
}

/* The sums of a tile whose statistics lie side by side. */
EVERY_PROCESSOR static void sum_columns(const Slab *t) {
    float buffers[ROWS][2 * COLUMNS];
    int64_t last = t->rank - 1, above = last - 1, size = t->shape[last], count = rows_of(t), several;
    int64_t down = count > 1 ? t->x_stride[above] : 0, below = count > 1 ? t->g_stride[above] : 0;
    for (int64_t at = 0; at < size; at += COLUMNS) {
        int64_t n = size - at < COLUMNS ? size - at : COLUMNS;
        Run run = first_run(t);
        do {
            int64_t s = run.stat + at, p = run.param + t->param_stride[last] * at;
            int own = t->weight && t->param_stride[last];
            const double *weight = t->weight ? t->weight + p : ONE;
            Sums to = {t->shift + s, t->shift_low + s, t->slope + s, t->slope_low + s};
            for (int64_t row = 0; row < count; row += several) {
                Rows rows = {.x_ahead = ROWS * down, .g_ahead = ROWS * below};
                several = count - row < ROWS ? 1 : ROWS;
                for (int64_t k = 0; k < several; k++)
                    read_rows(t, run.x + (row + k) * down + at * t->x_stride[last],
                              run.g + (row + k) * below + at * t->g_stride[last], n, buffers, &rows, k);
                if (several == 1) columns(t, &rows, 1, s, 0, n, 1, 0, weight, own, &to);
                else columns(t, &rows, ROWS, s, 0, n, 1, 0, weight, own, &to);
            }
        } while (next_run(t, &run, count > 1 ? 2 : 1));
    }
}

void normcli_sum_floats(const Slab *t) {
    if (t->stat_stride[t->rank - 1]) sum_columns(t);
    else sum_all_rows(t);
}

/* ---- gradients ---------------------------------------------------------------------------------------- */

/* A row whose parameters are one of each: what these receive is added up along it. */
INLINE void reduce_row(const Slab *t, const Rows *some, int64_t s, int64_t n, int own, const double *weight, int64_t p,
                       int adds) {
    const Rows kept = *some, *rows = &kept; /* which nothing that is written can change */
    Lanes sums[SUMS] = {{0}}, products[SUMS] = {{0}}, none[SUMS] = {{0}}, w = (Lanes){0} + *weight;
    Factors f = factors_of(t, s, 0, n < LANES ? n : LANES, own);
    int64_t i = 0;
    for (; i + SUMS * LANES <= n; i += SUMS * LANES)
        for (int k = 0; k < SUMS; k++) {
            if (own) f = factors_of(t, s, i + k * LANES, LANES, 1);
            eight_gradients(rows, 0, i + k * LANES, LANES, &f, w, sums + k, products + k);
        }
    for (; i + LANES <= n; i += LANES) {
        if (own) f = factors_of(t, s, i, LANES, 1);
        eight_gradients(rows, 0, i, LANES, &f, w, sums, products);
    }
    if (i < n) {
        if (own) f = factors_of(t, s, i, n - i, 1);
        eight_gradients(rows, 0, i, n - i, &f, w, sums, products);
    }
    if (!adds) return;
    double sum = 0, product = 0, rest = 0;
    add_lanes(sums, none, 0, &sum, &rest);
    add_lanes(products, none, 0, &product, &rest);
    add_pair(t->grad_bias + p, t->grad_bias_low + p, sum, 0);
    add_pair(t->grad_weight + p, t->grad_weight_low + p, product, 0);
}

/* Gradients of some rows of a chunk, and what parameters receive. */
INLINE void emit_some(const Slab *t, const Rows *rows, int64_t count, int64_t s, int64_t next, int64_t p, int64_t n, int adds) {
    int64_t last = t->rank - 1, own = t->stat_stride[last];
    const double *weight = t->weight ? t->weight + p : ONE;
    Sums to = {t->grad_bias + p, t->grad_bias_low + p, t->grad_weight + p, t->grad_weight_low + p};
    if (!t->param_stride[last]) {
        if (own) reduce_row(t, rows, s, n, 1, weight, p, adds);
        else reduce_row(t, rows, s, n, 0, weight, p, adds);
    } else if (count == 1) {
        if (own) columns(t, rows, 1, s, 0, n, 1, 1, weight, 1, adds ? &to : NULL);
        else columns(t, rows, 1, s, 0, n, 0, 1, weight, 1, adds ? &to : NULL);
    } else if (own) columns(t, rows, ROWS, s, 0, n, 1, 1, weight, 1, adds ? &to : NULL);
    else columns(t, rows, ROWS, s, next, n, 0, 1, weight, 1, adds ? &to : NULL);
}

EVERY_PROCESSOR static void emit_rows(const Slab *t, const Run *run, int64_t at, int64_t count) {
    float buffers[ROWS][2 * COLUMNS], rounded[ROWS][COLUMNS];
    double exact[ROWS][COLUMNS];
    int64_t last = t->rank - 1, above = last - 1, n = t->shape[last] - at < COLUMNS ? t->shape[last] - at : COLUMNS;
    int64_t s = run->stat + t->stat_stride[last] * at, p = run->param + t->param_stride[last] * at, stride = t->y_stride[last];
    int64_t down = count > 1 ? t->x_stride[above] : 0, below = count > 1 ? t->g_stride[above] : 0;
    int64_t out = count > 1 ? t->y_stride[above] : 0, next = count > 1 ? t->stat_stride[above] : 0;
    int64_t other = count > 1 ? t->param_stride[above] : 0;
    int several_at_once = t->param_stride[last] && !other && !(t->stat_stride[last] && next);
    int direct = t->dtype == FLOAT32 && stride == 4, narrowed = t->dtype <= BFLOAT16 && stride == 2, adds = t->grad_weight != NULL;
    for (int64_t row = 0, several; row < count; row += several) {
        several = several_at_once && row + ROWS <= count ? ROWS : 1;
        int64_t stat = s + row * next, param = p + row * other;
        Rows rows = {.x_ahead = ROWS * down, .g_ahead = ROWS * below, .to_ahead = direct ? ROWS * out : 0,
                     .to_single = direct || narrowed, .given = (int)t->given};
        for (int64_t k = 0; k < several; k++) {
            read_rows(t, run->x + (row + k) * down + at * t->x_stride[last],
                      run->g + (row + k) * below + at * t->g_stride[last], n, buffers, &rows, k);
            rows.to[k] = direct ? run->y + at * stride + (row + k) * out : narrowed ? (char *)rounded[k] : (char *)exact[k];
            if (!t->y) rows.to[k] = NULL;
        }
        emit_some(t, &rows, several, stat, next, param, n, adds);
        if (!t->y || direct) continue;
        for (int64_t k = 0; k < several; k++) {
            char *y = run->y + at * stride + (row + k) * out;
            if (narrowed) {
                if (!normcli_narrow(t->dtype, rounded[k], n, (uint16_t *)y)) continue;
                Rows again = rows;
                again.x[0] = rows.x[k], again.g[0] = rows.g[k], again.to[0] = (char *)exact[k], again.to_single = 0;
                emit_some(t, &again, 1, stat + k * next, 0, param, n, 0);
            }
            store(t->dtype, exact[k], n, y, stride);
        }
    }
}

void normcli_emit_floats(const Slab *t) {
    int64_t last = t->rank - 1, size = t->shape[last], count = last ? t->shape[last - 1] : 1;
    if (t->param_stride[last] || t->stat_stride[last]) {
        for (int64_t at = 0; at < size; at += COLUMNS) {
            Run run = first_run(t);
            do emit_rows(t, &run, at, count); while (next_run(t, &run, 2));
        }
        return;
    }
    Run run = first_run(t);
    do
        for (int64_t at = 0; at < size; at += COLUMNS) emit_rows(t, &run, at, count);
    while (next_run(t, &run, 2));
}
