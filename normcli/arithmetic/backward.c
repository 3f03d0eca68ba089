/* The backward pass of one slab of a tensor: sums of d = g * weight and of d * (x - mean) for each group, the gradients
 * of x, and what weight and bias receive. loops.h says how numbers are kept; the statistics are known. */

#include "loops.h"

/* Whether sums are pairs; of others backward_floats.c knows more. */
static int in_pairs(const Slab *t) { return t->dtype == FLOAT64 || t->g_dtype == FLOAT64; }

/* What one element, or all of a chunk, is worked out with. */
typedef struct {
    const double *mean, *mean_low, *rstd, *rstd_low, *shift, *shift_low, *slope, *slope_low;
} Factors;

static const double NONE[CHUNK], ONE[CHUNK] = {[0 ... CHUNK - 1] = 1};

INLINE Factors factors_at(const Slab *t, int64_t s) {
    const double *rstd_low = t->rstd_low ? t->rstd_low + s : NONE;
    return (Factors){t->mean + s, t->mean_low + s, t->rstd + s, rstd_low,
                     t->shift + s, t->shift_low + s, t->slope + s, t->slope_low + s};
}

/* Where a chunk of x and of g can be read as doubles. */
typedef struct {
    const double *x, *g;
} Both;

INLINE const double *doubles_of(int64_t dtype, const char *x, int64_t stride, int64_t n, double *buffer) {
    if (dtype == FLOAT64 && stride == 8) return (const double *)x;
    load(dtype, x, stride, n, buffer);
    return buffer;
}

INLINE Both read_both(const Slab *t, const char *x, const char *g, int64_t n, double *buffers) {
    int64_t last = t->rank - 1;
    return (Both){doubles_of(t->x_dtype, x, t->x_stride[last], n, buffers),
                  doubles_of(t->g_dtype, g, t->g_stride[last], n, buffers + CHUNK)};
}

/* ---- sums ------------------------------------------------------------------------------------------- */

typedef struct {
    double sum, sum_low, product, product_low, size; /* of d, of d * deviation, of |d| */
} Products;

/* Eight elements of a chunk, or the n that are left: where there are fewer, g is 0 for the others. */
INLINE void add_eight_products(const Both *both, int64_t at, int64_t n, int own_stat, int own_weight, const Factors *f,
                               const double *weight, Lanes *sum, Lanes *sum_low, Lanes *products, Lanes *products_low,
                               Lanes *size) {
    Lanes value = eight_of((const char *)both->x, at, n, 0), d = eight_of((const char *)both->g, at, n, 0), d_low = {0};
    Lanes mean = (Lanes){0} + f->mean[0], mean_low = (Lanes){0} + f->mean_low[0], r, r_low;
    if (own_stat) {
        mean = eight_of((const char *)f->mean, at, n, 0), mean_low = eight_of((const char *)f->mean_low, at, n, 0);
        r = eight_of((const char *)f->rstd, at, n, 0), r_low = eight_of((const char *)f->rstd_low, at, n, 0);
    }
    if (own_weight) {
        Lanes w = eight_of((const char *)weight, at, n, 0), scaled = d * w;
        for (int k = 0; k < LANES; k++) d_low[k] = __builtin_fma(d[k], w[k], -scaled[k]);
        d = scaled;
    }
    Lanes deviation, rest, product, more, lost, minus = -mean;
    TWO_SUM(deviation, rest, value, minus);
    rest -= mean_low;
    product = d * deviation;
    for (int k = 0; k < LANES; k++) more[k] = __builtin_fma(d[k], deviation[k], -product[k]);
    more += d * rest + d_low * deviation;
    if (own_stat) {
        Lanes scaled = product * r;
        for (int k = 0; k < LANES; k++) lost[k] = __builtin_fma(product[k], r[k], -scaled[k]);
        more = lost + (product * r_low + more * r);
        product = scaled;
    }
    for (int k = 0; k < LANES; k++) (*size)[k] += fabs(d[k]);
    TWO_SUM(*sum, lost, *sum, d);
    *sum_low += lost + d_low;
    TWO_SUM(*products, lost, *products, product);
    *products_low += lost + more;
}

/* The sums of a chunk; with statistics for each element, those of d * (x - mean) * rstd. */
INLINE Products products(const Both *both, int64_t n, int own_stat, int own_weight, const Factors *f, const double *weight) {
    Lanes sum[SUMS] = {{0}}, sum_low[SUMS] = {{0}}, product[SUMS] = {{0}}, product_low[SUMS] = {{0}}, size = {0};
    int64_t i = 0;
#define ADD(n, q)                                                                                          \
    add_eight_products(both, i + (q) * LANES, n, own_stat, own_weight, f, weight, sum + (q), sum_low + (q), \
                       product + (q), product_low + (q), &size)
    for (; i + SUMS * LANES <= n; i += SUMS * LANES)
        for (int q = 0; q < SUMS; q++) ADD(LANES, q);
    for (; i < n; i += LANES) ADD(n - i < LANES ? n - i : LANES, 0);
#undef ADD
    Products found = {0};
    add_lanes(sum, sum_low, 1, &found.sum, &found.sum_low);
    add_lanes(product, product_low, 1, &found.product, &found.product_low);
    for (int k = 0; k < LANES; k++) found.size += size[k];
    return found;
}

/* Where sums lie side by side: one of d and one of d * deviation, or of d * deviation * rstd, for each element of a row. */
typedef struct {
    double *sum, *sum_low, *product, *product_low, *size;
} Sums;

INLINE void add_row(const Both *both, int64_t n, int own_stat, int scaled, const Factors *f, const double *restrict weight,
                    int64_t own_weight, const Sums *to) {
    double *restrict sums = to->sum, *restrict sums_low = to->sum_low, *restrict size = to->size;
    double *restrict products = to->product, *restrict products_low = to->product_low;
    const double *restrict x = both->x, *restrict g = both->g;
    INDEPENDENT
    for (int64_t i = 0; i < n; i++) {
        int64_t s = own_stat ? i : 0;
        double w = weight[own_weight ? i : 0], deviation, rest, lost, d = g[i] * w, d_low = __builtin_fma(g[i], w, -d);
        TWO_SUM(deviation, rest, x[i], -f->mean[s]);
        rest -= f->mean_low[s];
        double product = d * deviation, more = __builtin_fma(d, deviation, -product) + (d * rest + d_low * deviation);
        if (scaled) {
            double r = f->rstd[s], whole = product * r;
            more = __builtin_fma(product, r, -whole) + (product * f->rstd_low[s] + more * r);
            product = whole;
        }
        if (size) size[i] += fabs(d);
        TWO_SUM(sums[i], lost, sums[i], d);
        sums_low[i] += lost + d_low;
        TWO_SUM(products[i], lost, products[i], product);
        products_low[i] += lost + more;
    }
}

/* ---- what a group's gradients share ------------------------------------------------------------------- */

EVERY_PROCESSOR static void product_at(const Slab *t, const Run *run, int64_t at, int64_t rows) {
    double buffers[2 * CHUNK];
    int64_t last = t->rank - 1, above = last - 1, n = t->shape[last] - at < CHUNK ? t->shape[last] - at : CHUNK;
    int64_t s = run->stat + t->stat_stride[last] * at, p = run->param + t->param_stride[last] * at;
    int own_weight = t->weight && t->param_stride[last];
    const double *weight = t->weight ? t->weight + p : ONE;
    const char *x = run->x + at * t->x_stride[last], *g = run->g + at * t->g_stride[last];
    Factors f = factors_at(t, s);
    if (!t->stat_stride[last]) {
        Both both = read_both(t, x, g, n, buffers);
        Products found = own_weight ? products(&both, n, 0, 1, &f, weight) : products(&both, n, 0, 0, &f, weight);
        if (t->weight && !own_weight) {
            multiply_pair(&found.sum, &found.sum_low, *weight);
            multiply_pair(&found.product, &found.product_low, *weight);
            found.size *= fabs(*weight);
        }
        add_pair(t->shift + s, t->shift_low + s, found.sum, found.sum_low);
        add_pair(t->slope + s, t->slope_low + s, found.product, found.product_low);
        if (t->size) t->size[s] += found.size;
        return;
    }
    Sums to = {t->shift + s, t->shift_low + s, t->slope + s, t->slope_low + s, t->size ? t->size + s : NULL};
    for (int64_t row = 0; row < rows; row++) {
        int64_t down = rows > 1 ? row * t->x_stride[above] : 0, below = rows > 1 ? row * t->g_stride[above] : 0;
        Both both = read_both(t, x + down, g + below, n, buffers);
        if (own_weight) add_row(&both, n, 1, 0, &f, weight, 1, &to);
        else add_row(&both, n, 1, 0, &f, weight, 0, &to);
    }
}

static void sum_tile(const Slab *t) {
    if (in_pairs(t)) EACH_CHUNK(t, product_at(t, &run, at, rows));
    else normcli_sum_floats(t);
}

static void clear_products(const Slab *t) {
    clear(t->shift, t->shift_low, t);
    clear(t->slope, t->slope_low, t);
}

/* The sums of d and of d * deviation of a tile, in shift and slope. */
static void add_products(const Slab *t, const Wide *wide) {
    const Slab *slab = &wide->slab;
    clear_products(t);
    if (!wide->held) {
        sum_tile(t);
        return;
    }
    normcli_spread(t, wide, t->mean, slab->mean), normcli_spread(t, wide, t->mean_low, slab->mean_low);
    clear_products(slab);
    if (t->size) clear(slab->size, NULL, slab);
    if (wide->by_rows && wide->rest.shape[t->rank - 2]) sum_tile(&wide->rest);
    sum_tile(slab);
    normcli_fold(t, wide, t->shift, t->shift_low, slab->shift, slab->shift_low);
    normcli_fold(t, wide, t->slope, t->slope_low, slab->slope, slab->slope_low);
    if (t->size) normcli_fold(t, wide, t->size, NULL, slab->size, NULL);
}

/* Sums become rstd^3 * sum(d * deviation) / divisor, by which a deviation is multiplied, and rstd times the mean of d, less
 * what a deviation from the mean's higher part is too large by. */
EVERY_PROCESSOR static void finish_doubles(const Slab *t) {
    const double *restrict mean_low = t->mean_low, *restrict rstd = t->rstd, n = t->n, divisor = t->divisor;
    double *restrict shift = t->shift, *restrict shift_low = t->shift_low;
    double *restrict slope = t->slope, *restrict slope_low = t->slope_low, centers = t->centers != 0;
    EACH_STATISTIC(t, s) {
        double r = rstd[s], each = (slope[s] + slope_low[s]) / divisor * r * r * r, mean = (shift[s] + shift_low[s]) / n * r;
        shift[s] = (centers ? mean : 0) - each * mean_low[s];
        slope[s] = each, shift_low[s] = slope_low[s] = 0;
    }
    END_EACH(t);
}

EVERY_PROCESSOR static void finish_pairs(const Slab *t) {
    EACH_STATISTIC(t, s) {
        double r = t->rstd[s], r_low = t->rstd_low[s], mean_low = t->mean_low[s];
        double shift = t->centers ? t->shift[s] : 0, shift_low = t->centers ? t->shift_low[s] : 0, more;
        double slope = t->slope[s], slope_low = t->slope_low[s];
        divide_pair(&shift, &shift_low, t->n);
        divide_pair(&slope, &slope_low, t->divisor);
        more = shift * r_low;
        multiply_pair(&shift, &shift_low, r);
        shift_low += more;
        for (int k = 0; k < 3; k++) {
            more = slope * r_low;
            multiply_pair(&slope, &slope_low, r);
            slope_low += more;
        }
        more = slope * mean_low;
        add_pair(&shift, &shift_low, -more, -__builtin_fma(slope, mean_low, -more) - slope_low * mean_low);
        t->shift[s] = shift, t->shift_low[s] = shift_low, t->slope[s] = slope, t->slope_low[s] = slope_low;
    }
    END_EACH(t);
}

void normcli_finish_backward(const Slab *t) {
    if (t->dtype == FLOAT64) finish_pairs(t);
    else finish_doubles(t);
}

/* ---- gradients -------------------------------------------------------------------------------------- */

/* g * weight * rstd - slope * (x - mean) - shift; factors and weight are those of each element, or of all. */
INLINE void gradient_chunk(const double *restrict x, const double *restrict g, double *restrict to, int64_t n, int own_stat,
                           int own_weight, const Factors *f, const double *restrict weight) {
    const double *restrict mean = f->mean, *restrict rstd = f->rstd, *restrict rstd_low = f->rstd_low;
    const double *restrict shift = f->shift, *restrict shift_low = f->shift_low;
    const double *restrict slope = f->slope, *restrict slope_low = f->slope_low;
    for (int64_t i = 0; i < n; i++) {
        int64_t s = own_stat ? i : 0;
        double w = weight[own_weight ? i : 0], r = rstd[s], value, deviation, rest, term, term_low, less, plain;
        double scaled = g[i] * w, low = __builtin_fma(g[i], w, -scaled), d = scaled * r;
        low = __builtin_fma(scaled, r, -d) + (scaled * rstd_low[s] + low * r);
        TWO_SUM(deviation, rest, x[i], -mean[s]);
        term = deviation * slope[s];
        term_low = __builtin_fma(deviation, slope[s], -term) + (deviation * slope_low[s] + rest * slope[s]);
        plain = d - term - shift[s];
        TWO_SUM(value, rest, d, -term);
        TWO_SUM(value, less, value, -shift[s]);
        value += (rest + less) + (low - term_low - shift_low[s]);
        to[i] = fabs(value) <= DBL_MAX ? value : plain; /* what infinity lost is not a number */
    }
}

/* What a chunk adds to the gradients of weight and bias where these are one number for all of it. */
INLINE void add_to_parameter(const Slab *t, const Both *both, int64_t n, int64_t p, int own_stat, const Factors *f) {
    Products found = own_stat ? products(both, n, 1, 0, f, ONE) : products(both, n, 0, 0, f, ONE);
    double more = own_stat ? 0 : found.product * *f->rstd_low;
    if (!own_stat) multiply_pair(&found.product, &found.product_low, *f->rstd);
    add_pair(t->grad_bias + p, t->grad_bias_low + p, found.sum, found.sum_low);
    add_pair(t->grad_weight + p, t->grad_weight_low + p, found.product, found.product_low + more);
}

EVERY_PROCESSOR static void emit_at(const Slab *t, const Run *run, int64_t at, int64_t rows) {
    double buffers[2 * CHUNK], result[CHUNK];
    int64_t last = t->rank - 1, above = last - 1, n = t->shape[last] - at < CHUNK ? t->shape[last] - at : CHUNK;
    int own_stat = t->stat_stride[last] != 0, own_weight = t->weight && t->param_stride[last];
    int64_t s = run->stat + t->stat_stride[last] * at, p = run->param + t->param_stride[last] * at;
    const double *weight = t->weight ? t->weight + p : ONE;
    const char *x = run->x + at * t->x_stride[last], *g = run->g + at * t->g_stride[last];
    int direct = t->dtype == FLOAT64 && t->y_stride[last] == 8;
    for (int64_t row = 0; row < rows; row++) {
        int64_t down = rows > 1 ? row : 0, up = rows > 1 ? above : last; /* strides of the last times 0 */
        Factors f = factors_at(t, s + down * t->stat_stride[up]);
        Both both = read_both(t, x + down * t->x_stride[up], g + down * t->g_stride[up], n, buffers);
        if (t->y) {
            char *y = run->y + at * t->y_stride[last] + down * t->y_stride[up];
            double *to = direct ? (double *)y : result;
            const double *deviant = t->given ? NONE : both.x; /* of no account, and maybe not finite */
#define GRADIENT(own, param) gradient_chunk(deviant, both.g, to, n, own, param, &f, weight)
            if (own_stat && own_weight) GRADIENT(1, 1);
            else if (own_stat) GRADIENT(1, 0);
            else if (own_weight) GRADIENT(0, 1);
            else GRADIENT(0, 0);
            if (!direct) store(t->dtype, result, n, y, t->y_stride[last]);
        }
        if (!t->grad_weight) continue;
        if (!t->param_stride[last]) {
            add_to_parameter(t, &both, n, p, own_stat, &f);
            continue;
        }
        Sums to = {t->grad_bias + p, t->grad_bias_low + p, t->grad_weight + p, t->grad_weight_low + p, NULL};
        if (own_stat) add_row(&both, n, 1, 1, &f, ONE, 0, &to);
        else add_row(&both, n, 0, 1, &f, ONE, 0, &to);
    }
}

static void emit_tile(const Slab *t) {
    int64_t last = t->rank - 1, above = last - 1;
    int64_t several = above >= 0 && t->param_stride[last] && !t->param_stride[above] ? t->shape[above] : 1;
    if (in_pairs(t)) EACH_CHUNK_OF(t, several, t->param_stride[last] || t->stat_stride[last], emit_at(t, &run, at, rows));
    else normcli_emit_floats(t);
}

static void emit_with(const Slab *t, const Wide *wide) {
    if (!wide->held) {
        emit_tile(t);
        return;
    }
    const Slab *to = &wide->slab;
    normcli_spread(t, wide, t->mean, to->mean), normcli_spread(t, wide, t->mean_low, to->mean_low);
    normcli_spread(t, wide, t->rstd, to->rstd), normcli_spread(t, wide, t->rstd_low, to->rstd_low);
    normcli_spread(t, wide, t->shift, to->shift), normcli_spread(t, wide, t->shift_low, to->shift_low);
    normcli_spread(t, wide, t->slope, to->slope), normcli_spread(t, wide, t->slope_low, to->slope_low);
    if (wide->by_rows && wide->rest.shape[t->rank - 2]) emit_tile(&wide->rest);
    emit_tile(to);
    if (to->grad_weight == t->grad_weight) return;
    for (int64_t i = 0, last = t->rank - 1, n = t->shape[last]; i < to->shape[last]; i++) {
        add_pair(t->grad_weight + i % n, t->grad_weight_low + i % n, to->grad_weight[i], to->grad_weight_low[i]);
        add_pair(t->grad_bias + i % n, t->grad_bias_low + i % n, to->grad_bias[i], to->grad_bias_low[i]);
    }
}

/* ---- slabs ------------------------------------------------------------------------------------------ */

/* Gradients of a slab whose statistics, shift and slope are known. */
void normcli_emit_backward(const Slab *slab) {
    Wide wide = normcli_widened(slab);
    emit_with(slab, &wide);
    free(wide.held);
}

/* Sums and gradients of a slab that holds whole groups, tile by tile. */
void normcli_whole_backward(const Slab *whole) {
    Slab slab = in_tiles(whole, 0);
    for (int64_t start = 0; start < slab.shape[slab.cut]; start += slab.step) {
        Slab tile = tile_of(&slab, start), copy;
        float *single = normcli_in_single(&tile, &copy);
        if (single) tile = copy;
        Wide wide = normcli_widened(&tile);
        add_products(&tile, &wide);
        normcli_finish_backward(&tile);
        emit_with(&tile, &wide);
        free(wide.held), free(single);
    }
}

EVERY_PROCESSOR static void join_products(const Slab *tile) {
    EACH_STATISTIC(tile, s) {
        add_pair(tile->shifts + s, tile->shifts_low + s, tile->shift[s], tile->shift_low[s]);
        add_pair(tile->slopes + s, tile->slopes_low + s, tile->slope[s], tile->slope_low[s]);
    }
    END_EACH(tile);
}

/* The sums of a slab that is a part of longer groups. */
void normcli_part_backward(const Slab *part) {
    Slab slab = in_tiles(part, 1);
    for (int64_t start = 0; start < slab.shape[slab.cut]; start += slab.step) {
        Slab tile = tile_of(&slab, start), copy;
        float *single = normcli_in_single(&tile, &copy);
        if (single) tile = copy;
        Wide wide = normcli_widened(&tile);
        add_products(&tile, &wide);
        join_products(&tile);
        free(wide.held), free(single);
    }
}
