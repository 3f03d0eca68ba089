/* The backward pass of one slab of a tensor: sums of d = g * weight and of d * (x - mean) for each group, the gradients
 * of x, and what weight and bias receive. loops.h says how numbers are kept; the statistics are known. */

#include "loops.h"

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

/* Where a chunk of x and of g can be read, both as float or both as double. */
typedef struct {
    const char *x[ROWS], *g[ROWS];
    int single;
} Both;

INLINE void read_both(const Slab *t, const char *x, const char *g, int64_t n, double *buffers, Both *both, int64_t k) {
    int64_t last = t->rank - 1, x_stride = t->x_stride[last], g_stride = t->g_stride[last];
    int64_t size = t->x_dtype == FLOAT32 ? 4 : t->x_dtype == FLOAT64 ? 8 : 0;
    both->x[k] = x, both->g[k] = g, both->single = size == 4;
    if (t->g_dtype == t->x_dtype && size && x_stride == size && g_stride == size) return;
    load(t->x_dtype, x, x_stride, n, buffers);
    load(t->g_dtype, g, g_stride, n, buffers + CHUNK);
    both->x[k] = (const char *)buffers, both->g[k] = (const char *)(buffers + CHUNK), both->single = 0;
}

#define AT(b, i) (single ? (double)((const float *)(b))[i] : ((const double *)(b))[i])

/* ---- sums ------------------------------------------------------------------------------------------- */

typedef struct {
    double sum, sum_low, product, product_low, size; /* of d, of d * deviation, of |d| */
} Products;

/* Eight elements of a chunk, or the n that are left: where there are fewer, g is 0 for the others. */
INLINE void add_eight_products(const char *x, const char *g, int64_t at, int64_t n, int single, int pairs, int own_stat,
                               int own_weight, const Factors *f, const double *weight, Lanes *sum, Lanes *sum_low,
                               Lanes *products, Lanes *products_low, Lanes *size) {
    Lanes value = eight_of(x, at, n, single), d = eight_of(g, at, n, single), d_low = {0}, product, lost;
    Lanes mean = (Lanes){0} + f->mean[0], mean_low = (Lanes){0} + f->mean_low[0], r, r_low;
    if (own_stat) {
        mean = eight_of((const char *)f->mean, at, n, 0), mean_low = eight_of((const char *)f->mean_low, at, n, 0);
        r = eight_of((const char *)f->rstd, at, n, 0);
        if (pairs) r_low = eight_of((const char *)f->rstd_low, at, n, 0);
    }
    if (own_weight) {
        Lanes w = eight_of((const char *)weight, at, n, 0), scaled = d * w;
        if (pairs)
            for (int k = 0; k < LANES; k++) d_low[k] = __builtin_fma(d[k], w[k], -scaled[k]);
        d = scaled;
    }
    if (!pairs) {
        product = d * (value - mean - mean_low);
        if (own_stat) product *= r;
        *sum += d;
        *products += product;
        return;
    }
    Lanes deviation, rest, more, minus = -mean;
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
INLINE Products products_of_chunk(const char *x, const char *g, int64_t n, int single, int pairs, int own_stat,
                                  int own_weight, const Factors *f, const double *weight) {
    Lanes sum[SUMS] = {{0}}, sum_low[SUMS] = {{0}}, product[SUMS] = {{0}}, product_low[SUMS] = {{0}}, size = {0};
    int64_t i = 0;
#define ADD(n, q)                                                                                          \
    add_eight_products(x, g, i + (q) * LANES, n, single, pairs, own_stat, own_weight, f, weight, sum + (q), \
                       sum_low + (q), product + (q), product_low + (q), &size)
    for (; i + SUMS * LANES <= n; i += SUMS * LANES)
        for (int q = 0; q < SUMS; q++) ADD(LANES, q);
    for (; i + LANES <= n; i += LANES) ADD(LANES, 0);
    if (i < n) ADD(n - i, 0);
#undef ADD
    Products found = {0};
    add_lanes(sum, sum_low, pairs, &found.sum, &found.sum_low);
    add_lanes(product, product_low, pairs, &found.product, &found.product_low);
    for (int k = 0; k < LANES; k++) found.size += size[k];
    return found;
}

/* The same by its flags, none of which costs anything inside a loop. */
INLINE Products products(const Both *both, int64_t n, int pairs, int own_stat, int own_weight, const Factors *f,
                         const double *weight) {
    const char *x = both->x[0], *g = both->g[0];
    if (!pairs && both->single) {
        if (own_stat) return products_of_chunk(x, g, n, 1, 0, 1, 0, f, weight);
        if (own_weight) return products_of_chunk(x, g, n, 1, 0, 0, 1, f, weight);
        return products_of_chunk(x, g, n, 1, 0, 0, 0, f, weight);
    }
    if (own_stat) return products_of_chunk(x, g, n, 0, pairs, 1, 0, f, weight);
    if (own_weight) return products_of_chunk(x, g, n, 0, pairs, 0, 1, f, weight);
    return products_of_chunk(x, g, n, 0, pairs, 0, 0, f, weight);
}

/* Where sums lie side by side: one of d and one of d * deviation for each element of a row, of one or several rows. */
typedef struct {
    double *sum, *sum_low, *product, *product_low, *size;
} Sums;

INLINE void add_rows(const Both *both, int64_t n, int64_t rows, int single, int pairs, int own_stat, int own_weight,
                     int scaled, int in_pairs, const Factors f[ROWS], const double *restrict weight, const Sums *to) {
    double *restrict sums = to->sum, *restrict sums_low = to->sum_low, *restrict size = to->size;
    double *restrict products = to->product, *restrict products_low = to->product_low;
    Both b = *both;
    INDEPENDENT
    for (int64_t i = 0; i < n; i++) {
        int64_t s = own_stat ? i : 0, p = own_weight ? i : 0;
        double sum = 0, product = 0, sum_low = 0, product_low = 0, w = weight[p], lost;
        for (int64_t k = 0; k < rows; k++) { /* one row, or all */
            double x = AT(b.x[k], i), g = AT(b.g[k], i), deviation, rest, more, r = scaled ? f[k].rstd[s] : 1;
            if (!pairs) {
                deviation = x - f[k].mean[s] - f[k].mean_low[s];
                sum += g;
                product += scaled ? g * (deviation * r) : g * deviation;
                continue;
            }
            TWO_SUM(deviation, rest, x, -f[k].mean[s]);
            rest -= f[k].mean_low[s];
            double d = g * w, d_low = __builtin_fma(g, w, -d);
            product = d * deviation;
            more = __builtin_fma(d, deviation, -product) + (d * rest + d_low * deviation);
            if (scaled) {
                double whole = product * r;
                more = __builtin_fma(product, r, -whole) + (product * f[k].rstd_low[s] + more * r);
                product = whole;
            }
            sum = d, sum_low = d_low, product_low = more;
            if (size) size[i] += fabs(d);
        }
        if (!pairs) sum *= w, product *= w;
        if (in_pairs) {
            TWO_SUM(sums[i], lost, sums[i], sum);
            sums_low[i] += lost + sum_low;
            TWO_SUM(products[i], lost, products[i], product);
            products_low[i] += lost + product_low;
        } else
            sums[i] += sum, products[i] += product;
    }
}

/* ---- what a group's gradients share ------------------------------------------------------------------- */

INLINE void product_chunk(const Slab *t, const Run *run, int64_t at, int64_t rows, int pairs) {
    double buffers[ROWS][2 * CHUNK];
    int64_t last = t->rank - 1, above = last - 1, n = t->shape[last] - at < CHUNK ? t->shape[last] - at : CHUNK;
    int64_t s = run->stat + t->stat_stride[last] * at, p = run->param + t->param_stride[last] * at;
    int own_weight = t->weight && t->param_stride[last];
    const double *weight = t->weight ? t->weight + p : ONE;
    const char *x = run->x + at * t->x_stride[last], *g = run->g + at * t->g_stride[last];
    Factors f[ROWS];
    Both both;
    f[0] = factors_at(t, s);
    if (!t->stat_stride[last]) {
        read_both(t, x, g, n, buffers[0], &both, 0);
        Products found = products(&both, n, pairs, 0, own_weight, f, weight);
        if (t->weight && !own_weight) {
            multiply_pair(&found.sum, &found.sum_low, *weight);
            multiply_pair(&found.product, &found.product_low, *weight);
            found.size *= fabs(*weight);
        }
        add_pair(t->shift + s, t->shift_low + s, found.sum, found.sum_low);
        add_pair(t->slope + s, t->slope_low + s, found.product, found.product_low);
        if (pairs) t->size[s] += found.size;
        return;
    }
    for (int64_t k = 1; k < ROWS; k++) f[k] = f[0];
    Sums to = {t->shift + s, t->shift_low + s, t->slope + s, t->slope_low + s, pairs ? t->size + s : NULL};
    for (int64_t row = 0, some; row < rows; row += some) {
        some = !pairs && row + ROWS <= rows ? ROWS : 1;
        for (int64_t k = 0; k < some; k++) {
            int64_t down = rows > 1 ? (row + k) * t->x_stride[above] : 0, below = rows > 1 ? (row + k) * t->g_stride[above] : 0;
            read_both(t, x + down, g + below, n, buffers[k], &both, k);
        }
#define ADD(rows, single, own_weight) add_rows(&both, n, rows, single, pairs, 1, own_weight, 0, 1, f, weight, &to)
        if (own_weight) {
            if (some == 1 || pairs) both.single && !pairs ? ADD(1, 1, 1) : ADD(1, 0, 1);
            else if (both.single) ADD(ROWS, 1, 1);
            else ADD(ROWS, 0, 1);
        } else if (some == 1 || pairs) both.single && !pairs ? ADD(1, 1, 0) : ADD(1, 0, 0);
        else if (both.single) ADD(ROWS, 1, 0);
        else ADD(ROWS, 0, 0);
#undef ADD
    }
}

EVERY_PROCESSOR static void product_at(const Slab *t, const Run *run, int64_t at, int64_t rows) {
    if (t->dtype == FLOAT64) product_chunk(t, run, at, rows, 1);
    else product_chunk(t, run, at, rows, 0);
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
        EACH_CHUNK(t, product_at(t, &run, at, rows));
        return;
    }
    normcli_spread(t, wide, t->mean, slab->mean), normcli_spread(t, wide, t->mean_low, slab->mean_low);
    clear_products(slab);
    if (t->size) clear(slab->size, NULL, slab);
    EACH_CHUNK(slab, product_at(slab, &run, at, rows));
    normcli_fold(t, wide, t->shift, t->shift_low, slab->shift, slab->shift_low);
    normcli_fold(t, wide, t->slope, t->slope_low, slab->slope, slab->slope_low);
    if (t->size) normcli_fold(t, wide, t->size, NULL, slab->size, NULL);
}

/* Sums become rstd^3 * sum(d * deviation) / divisor, by which a deviation is multiplied, and rstd times the mean of d, less
 * what a deviation from the mean's higher part is too large by. */
EVERY_PROCESSOR void normcli_finish_backward(const Slab *t) {
    int pairs = t->dtype == FLOAT64;
    EACH_STATISTIC(t, s) {
        double r = t->rstd[s], mean_low = t->mean_low[s];
        if (!pairs) {
            double slope = (t->slope[s] + t->slope_low[s]) / t->divisor * r * r * r;
            t->shift[s] = (t->centers ? (t->shift[s] + t->shift_low[s]) / t->n * r : 0) - slope * mean_low;
            t->slope[s] = slope, t->shift_low[s] = t->slope_low[s] = 0;
            continue;
        }
        double r_low = t->rstd_low[s];
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

/* ---- gradients -------------------------------------------------------------------------------------- */

/* g * weight * rstd - slope * (x - mean) - shift; factors and weight are those of each element, or of all. */
INLINE void gradient_chunk(const char *restrict x, const char *restrict g, char *restrict to, int64_t n, int single,
                           int to_single, int pairs, int own_stat, int own_weight, const Factors *f,
                           const double *restrict weight) {
    const double *restrict mean = f->mean, *restrict rstd = f->rstd, *restrict rstd_low = f->rstd_low;
    const double *restrict shift = f->shift, *restrict shift_low = f->shift_low;
    const double *restrict slope = f->slope, *restrict slope_low = f->slope_low;
    for (int64_t i = 0; i < n; i++) {
        int64_t s = own_stat ? i : 0, p = own_weight ? i : 0;
        double value = AT(x, i), d = AT(g, i), r = rstd[s], w = weight[p];
        if (!pairs)
            value = d * (w * r) - (value - mean[s]) * slope[s] - shift[s];
        else {
            double scaled = d * w, low = __builtin_fma(d, w, -scaled), deviation, rest, term, term_low, less, plain;
            d = scaled * r;
            low = __builtin_fma(scaled, r, -d) + (scaled * rstd_low[s] + low * r);
            TWO_SUM(deviation, rest, value, -mean[s]);
            term = deviation * slope[s];
            term_low = __builtin_fma(deviation, slope[s], -term) + (deviation * slope_low[s] + rest * slope[s]);
            plain = d - term - shift[s];
            TWO_SUM(value, rest, d, -term);
            TWO_SUM(value, less, value, -shift[s]);
            value += (rest + less) + (low - term_low - shift_low[s]);
            value = fabs(value) <= DBL_MAX ? value : plain; /* what infinity lost is not a number */
        }
        if (to_single) ((float *)to)[i] = (float)value;
        else ((double *)to)[i] = value;
    }
}

/* What a chunk adds to the gradients of weight and bias where these are one number for all of it. */
INLINE void add_to_parameter(const Slab *t, const Both *both, int64_t n, int64_t p, int pairs, int own_stat, const Factors *f) {
    Products found = products(both, n, pairs, own_stat, 0, f, ONE);
    double more = own_stat ? 0 : found.product * *f->rstd_low;
    if (!own_stat) multiply_pair(&found.product, &found.product_low, *f->rstd);
    add_pair(t->grad_bias + p, t->grad_bias_low + p, found.sum, found.sum_low);
    add_pair(t->grad_weight + p, t->grad_weight_low + p, found.product, found.product_low + more);
}

INLINE void emit_chunk(const Slab *t, const Run *run, int64_t at, int64_t rows, int pairs) {
    double buffers[ROWS][2 * CHUNK], result[CHUNK];
    int64_t last = t->rank - 1, above = last - 1, n = t->shape[last] - at < CHUNK ? t->shape[last] - at : CHUNK;
    int own_stat = t->stat_stride[last] != 0, own_weight = t->weight && t->param_stride[last];
    int64_t s = run->stat + t->stat_stride[last] * at, p = run->param + t->param_stride[last] * at;
    const double *weight = t->weight ? t->weight + p : ONE;
    const char *x = run->x + at * t->x_stride[last], *g = run->g + at * t->g_stride[last];
    Factors f[ROWS];
    Both both;
    for (int64_t row = 0, some; row < rows; row += some) {
        some = !pairs && row + ROWS <= rows ? ROWS : 1;
        for (int64_t k = 0; k < some; k++) {
            int64_t down = rows > 1 ? row + k : 0, up = rows > 1 ? above : last; /* strides of the last times 0 */
            f[k] = factors_at(t, s + down * t->stat_stride[up]);
            read_both(t, x + down * t->x_stride[up], g + down * t->g_stride[up], n, buffers[k], &both, k);
            if (!t->y) continue;
            char *y = run->y + at * t->y_stride[last] + down * t->y_stride[up], *to = (char *)result;
            int direct = t->y_stride[last] == (t->dtype == FLOAT64 ? 8 : 4) && t->dtype == (both.single ? FLOAT32 : FLOAT64);
            if (direct) to = y;
            const char *deviant = t->given ? (const char *)NONE : both.x[k]; /* of no account, and maybe not finite */
#define GRADIENT(single, to_single, own, param) \
    gradient_chunk(deviant, both.g[k], to, n, single, to_single, pairs, own, param, f + k, weight)
#define GRADIENT_EACH(single, to_single)                                   \
    do {                                                                   \
        if (own_stat && own_weight) GRADIENT(single, to_single, 1, 1);     \
        else if (own_stat) GRADIENT(single, to_single, 1, 0);              \
        else if (own_weight) GRADIENT(single, to_single, 0, 1);            \
        else GRADIENT(single, to_single, 0, 0);                            \
    } while (0)
            if (pairs || !both.single) GRADIENT_EACH(0, 0);
            else if (direct) GRADIENT_EACH(1, 1);
            else GRADIENT_EACH(1, 0);
            if (!direct) store(t->dtype, result, n, y, t->y_stride[last]);
        }
        if (!t->grad_weight) continue;
        if (!t->param_stride[last]) {
            add_to_parameter(t, &both, n, p, pairs, own_stat, f);
            continue;
        }
        Sums to = {t->grad_bias + p, t->grad_bias_low + p, t->grad_weight + p, t->grad_weight_low + p, NULL};
#define ADD(rows, single, own) add_rows(&both, n, rows, single, pairs, own, 0, 1, 1, f, ONE, &to)
        if (own_stat) {
            if (some == 1 || pairs) both.single && !pairs ? ADD(1, 1, 1) : ADD(1, 0, 1);
            else if (both.single) ADD(ROWS, 1, 1);
            else ADD(ROWS, 0, 1);
        } else if (some == 1 || pairs) both.single && !pairs ? ADD(1, 1, 0) : ADD(1, 0, 0);
        else if (both.single) ADD(ROWS, 1, 0);
        else ADD(ROWS, 0, 0);
#undef ADD
    }
}

EVERY_PROCESSOR static void emit_at(const Slab *t, const Run *run, int64_t at, int64_t rows) {
    if (t->dtype == FLOAT64) emit_chunk(t, run, at, rows, 1);
    else emit_chunk(t, run, at, rows, 0);
}

static void emit_tile(const Slab *t) {
    int64_t last = t->rank - 1, above = last - 1;
    int64_t several = above >= 0 && t->param_stride[last] && !t->param_stride[above] ? t->shape[above] : 1;
    EACH_CHUNK_OF(t, several, t->param_stride[last] || t->stat_stride[last], emit_at(t, &run, at, rows));
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
    emit_tile(to);
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
