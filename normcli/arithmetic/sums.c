/* What a tile adds up to, and its statistics. loops.h says how numbers are kept. */

#include "loops.h"

/* ---- pairs and odd rows --------------------------------------------------------------------------------- */

static const double PART[2 * LANES] = {1, 1, 1, 1, 1, 1, 1, 1};

/* Add eight elements (squares == 0), or the squares of their deviations from mean + mean_low; `some` has 1 for
 * those that count and 0 for those that do not. */
INLINE void add_eight(Lanes value, Lanes some, int squares, int pairs, Lanes mean, Lanes mean_low, Lanes *high,
                      Lanes *low) {
    Lanes lost, more = {0};
    if (squares && pairs) {
        Lanes d, e;
        TWO_SUM(d, e, value, -mean);
        d *= some;
        e = (e - mean_low) * some;
        value = d * d;
        for (int k = 0; k < LANES; k++) /* e^2 too: the mean may be large beside d */
            more[k] = __builtin_fma(e[k], 2 * d[k] + e[k], __builtin_fma(d[k], d[k], -value[k]));
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
    Lanes high[SUMS] = {{0}}, low[SUMS] = {{0}}, value, all = (Lanes){0} + 1, m = (Lanes){0} + mean;
    Lanes l = (Lanes){0} + mean_low;
    int64_t i = 0;
    for (; i + SUMS * LANES <= n; i += SUMS * LANES)
        for (int q = 0; q < SUMS; q++) {
            value = eight_of(b, i + q * LANES, LANES, single);
            add_eight(value, all, squares, pairs, m, l, high + q, low + q);
        }
    for (; i + LANES <= n; i += LANES) {
        value = eight_of(b, i, LANES, single);
        add_eight(value, all, squares, pairs, m, l, high, low);
    }
    if (i < n) {
        Lanes some;
        value = eight_of(b, i, n - i, single);
        memcpy(&some, PART + LANES - (n - i), sizeof some);
        add_eight(value, some, squares, pairs, m, l, high, low);
    }
    add_lanes(high, low, pairs, sum, rest);
}

/* The same for statistics that lie side by side, as pairs: one sum for each element of the chunk. */
INLINE void sums_of_chunk(const char *restrict b, int64_t n, int single, int squares, const double *restrict mean,
                          const double *restrict mean_low, double *restrict sum, double *restrict rest) {
    for (int64_t i = 0; i < n; i++) {
        double value = single ? ((const float *)b)[i] : ((const double *)b)[i], more = 0, total, lost;
        if (squares) {
            double d, e;
            TWO_SUM(d, e, value, -mean[i]);
            e -= mean_low[i];
            value = d * d;
            more = __builtin_fma(e, 2 * d + e, __builtin_fma(d, d, -value));
        }
        TWO_SUM(total, lost, sum[i], value);
        sum[i] = total;
        rest[i] += lost + more;
    }
}

/* The lanes of eight rows' pairs put together, all rows at once, and added to their statistics. */
INLINE void add_eight_rows(double high[LANES][LANES], double low[LANES][LANES], int64_t several, int64_t next, double *sum,
                           double *rest) {
    double highs[LANES], lows[LANES];
    for (int k = 0; k < LANES; k++) highs[k] = high[k][0], lows[k] = low[k][0];
    for (int j = 1; j < LANES; j++)
        for (int k = 0; k < LANES; k++) {
            double lost;
            TWO_SUM(highs[k], lost, highs[k], high[k][j]);
            lows[k] += low[k][j] + lost;
        }
    for (int64_t k = 0; k < several; k++) add_pair(sum + k * next, rest + k * next, highs[k], lows[k]);
}

/* Short rows of doubles: what the lanes of each hold waits until eight can be put together. */
enum { SHORT_DOUBLES = 128 };
INLINE void add_short_rows(const Slab *t, int squares) {
    double highs[LANES][LANES], lows[LANES][LANES];
    int64_t last = t->rank - 1, above = last - 1, n = t->shape[last], rows = t->shape[above], next = t->stat_stride[above];
    Lanes all = (Lanes){0} + 1, some;
    memcpy(&some, PART + LANES - n % LANES, sizeof some);
    Run run = first_run(t);
    do
        for (int64_t row = 0; row < rows; row += LANES) {
            int64_t several = rows - row < LANES ? rows - row : LANES, s = run.stat + row * next;
            double *sum = (squares ? t->var : t->mean) + s, *rest = (squares ? t->var_low : t->mean_low) + s;
            for (int64_t k = 0; k < several; k++) {
                const char *x = run.x + (row + k) * t->x_stride[above];
                Lanes high = {0}, low = {0}, mean = (Lanes){0} + t->mean[s + k * next];
                Lanes mean_low = (Lanes){0} + t->mean_low[s + k * next];
                int64_t i = 0;
                for (; i + LANES <= n; i += LANES)
                    add_eight(eight_of(x, i, LANES, 0), all, squares, 1, mean, mean_low, &high, &low);
                if (i < n) add_eight(eight_of(x, i, n - i, 0), some, squares, 1, mean, mean_low, &high, &low);
                memcpy(highs[k], &high, sizeof high), memcpy(lows[k], &low, sizeof low);
            }
            for (int64_t k = several; k < LANES; k++) memset(highs[k], 0, sizeof *highs), memset(lows[k], 0, sizeof *lows);
            add_eight_rows(highs, lows, several, next, sum, rest);
        }
    while (next_run(t, &run, 2));
}

EVERY_PROCESSOR static void add_short_doubles(const Slab *t, int squares) {
    if (squares) add_short_rows(t, 1);
    else add_short_rows(t, 0);
}

INLINE int in_short_doubles(const Slab *t) {
    int64_t last = t->rank - 1;
    return last > 0 && t->dtype == FLOAT64 && t->x_dtype == FLOAT64 && t->x_stride[last] == 8 && !t->stat_stride[last] &&
           t->shape[last] <= SHORT_DOUBLES;
}

INLINE void add_chunk(const Slab *t, const Run *run, int64_t at, int64_t rows, int squares, int pairs) {
    double buffer[CHUNK];
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
    for (int64_t row = 0; pairs && row < rows; row++) { /* others are added up in columns.c */
        b = readable(t, x + row * down, n, buffer, &single);
        if (single) sums_of_chunk(b, n, 1, squares, mean, mean_low, sum, rest);
        else sums_of_chunk(b, n, 0, squares, mean, mean_low, sum, rest);
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

/* ---- statistics ------------------------------------------------------------------------------------- */

/* Sums become means. */
EVERY_PROCESSOR static void finish_mean(const Slab *t, double n) {
    double *mean = t->mean, *mean_low = t->mean_low;
    EACH_STATISTIC(t, s) divide_pair(mean + s, mean_low + s, n);
    END_EACH(t);
}

/* Sums of squares become variances and rstd = 1 / sqrt(squares / divisor + eps). */
EVERY_PROCESSOR static void finish_doubles(const Slab *t) {
    double *restrict var = t->var, *restrict rstd = t->rstd, n = t->n, divisor = t->divisor, eps = t->eps;
    EACH_STATISTIC(t, s) {
        double squares = var[s];
        var[s] = squares / n;
        rstd[s] = 1 / sqrt(squares / divisor + eps);
    }
    END_EACH(t);
}

EVERY_PROCESSOR static void finish_pairs(const Slab *t) {
    double *var = t->var, *var_low = t->var_low, *rstd = t->rstd, *rstd_low = t->rstd_low;
    double n = t->n, divisor = t->divisor, eps = t->eps;
    EACH_STATISTIC(t, s) {
        double high = var[s], low = var_low[s];
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

void normcli_finish(const Slab *t) {
    if (t->dtype == FLOAT64) finish_pairs(t);
    else finish_doubles(t);
}

/* ---- tiles ------------------------------------------------------------------------------------------ */

/* Add up a tile as it lies. */
static void add_tile_up(const Slab *t, int how) {
    if (in_rows(t)) normcli_add_rows(t, how);
    else if (t->dtype != FLOAT64 && t->stat_stride[t->rank - 1]) normcli_add_columns(t, how);
    else if (in_short_doubles(t)) {
        if (how & TOTALS) add_short_doubles(t, 0);
        if (how & SQUARES) add_short_doubles(t, 1);
    } else {
        if (how & TOTALS) add_up(t, 0);
        if (how & SQUARES) add_up(t, 1);
    }
}

/* Add up a tile to nothing: its values, their squares, or both. */
static void add(const Slab *t, const Wide *wide, int how) {
    const Slab *slab = &wide->slab;
    if (how & TOTALS) clear(t->mean, t->mean_low, t);
    if (how & SQUARES) clear(t->var, t->var_low, t);
    if (!wide->held) {
        add_tile_up(t, how);
        return;
    }
    if (how & TOTALS) clear(slab->mean, slab->mean_low, slab), normcli_spread(t, wide, t->rstd, slab->rstd);
    else normcli_spread(t, wide, t->mean, slab->mean), normcli_spread(t, wide, t->mean_low, slab->mean_low);
    if (how & SQUARES) clear(slab->var, slab->var_low, slab);
    if (wide->by_rows && wide->rest.shape[t->rank - 2]) add_tile_up(&wide->rest, how);
    add_tile_up(slab, how);
    if (how & TOTALS) normcli_fold(t, wide, t->mean, t->mean_low, slab->mean, slab->mean_low);
    if (how & SQUARES) normcli_fold(t, wide, t->var, t->var_low, slab->var, slab->var_low);
}

enum { PILOTS = 16 }; /* elements, of which a pilot needs half */

/* A pilot for each group, in rstd: the mean of its first few elements as a float, or 0. */
static void find_pilots(const Slab *t) {
    Slab first = *t;
    int64_t last = t->rank - 1, n = 1;
    for (int64_t d = 0; d <= last; d++) {
        int64_t most = d == last || (d == last - 1 && t->stat_stride[last]) ? 8 : 1;
        if (!t->stat_stride[d]) n *= first.shape[d] = t->shape[d] < most ? t->shape[d] : most;
    }
    clear(t->mean, t->rstd, t);
    add_tile_up(&first, TOTALS);
    EACH_STATISTIC(t, s) {
        float pilot = (float)(t->mean[s] / (double)n);
        t->rstd[s] = pilot - pilot == 0 ? pilot : 0;
    }
    END_EACH(t);
}

/* Sums about pilots become means and sums of squares about them; false, and NaN in rstd, where digits were lost or
 * something is infinite.
 *
 * With u = 2^-53, k^2 = n (mean - pilot)^2 / (squares about the mean), and c additions one after the other in each
 * lane: the squares about the pilot are 1 + k^2 times those about the mean, and what is subtracted from them is k^2
 * times those. Rounding makes the first wrong by (c + 3) u of itself at most, and the second by about 2 (c + 2) u of
 * 1 + k^2, as the values' sum is: together by less than 3 (c + 3) (1 + k^2) u. Of a slab's 2^20 elements c is 400 in
 * rows, and below 8200 in columns, four rows at a time, as those of 32 or less are laid side by side; with k^2 <= 4
 * that is 2^-36. rstd is wrong by half of it, and so is an output: by 0.0001 of a float's unit in the last place if all
 * errors were the largest possible, and of one sign. They are neither: so much suffices for more, shorter rows too. */
EVERY_PROCESSOR static int settled(const Slab *t, double n) {
    double *restrict mean = t->mean, *restrict low = t->mean_low, *restrict var = t->var, *restrict rstd = t->rstd;
    int64_t lost = 0;
    double inverse = 1 / n;
    EACH_STATISTIC(t, s) {
        double quotient = mean[s] / n, rest = __builtin_fma(-quotient, n, mean[s]) * inverse;
        double aside = mean[s] * quotient, squares = var[s] - aside, sum, rounding;
        int sure = aside <= 4 * squares;
        lost |= !sure;
        TWO_SUM(sum, rounding, rstd[s], quotient);
        mean[s] = sum;
        low[s] = rounding + rest;
        var[s] = squares;
        rstd[s] = sure ? 0 : NAN;
    }
    END_EACH(t);
    return !lost;
}

/* The same in two passes, which lose no digits. */
static void in_two_passes(const Slab *t, const Wide *wide, double n) {
    if (t->centers) {
        if (t->dtype != FLOAT64) clear(t->rstd, NULL, t);
        add(t, wide, TOTALS);
        finish_mean(t, n);
    } else
        clear(t->mean, t->mean_low, t);
    add(t, wide, SQUARES);
}

/* The groups that lost digits in one pass, again; what the others have does not depend on their neighbours. */
static void in_two_more(const Slab *t, double n) {
    Slab again = *t;
    double *after, *held = normcli_hold(&again, 0, &after);
    int64_t number = 0;
    if (!held) again = *t;
    Wide wide = normcli_widened(&again);
    in_two_passes(&again, &wide, n);
    free(wide.held);
    if (!held) return;
    EACH_STATISTIC(t, s) {
        int64_t from = number++;
        if (t->rstd[s] == 0) continue;
        t->mean[s] = again.mean[from], t->mean_low[s] = again.mean_low[from], t->var[s] = again.var[from];
    }
    END_EACH(t);
    free(held);
}

/* Means and sums of squares about them, of a tile's own n elements of each group. */
void normcli_means_and_squares(const Slab *t, const Wide *wide, double n) {
    int one_pass = t->centers && (in_rows(t) || wide->held || t->stat_stride[t->rank - 1]) && t->dtype != FLOAT64;
    one_pass = one_pass && n > PILOTS; /* of fewer a pilot takes as long as the mean */
    if (!one_pass) {
        in_two_passes(t, wide, n);
        return;
    }
    find_pilots(t);
    add(t, wide, TOTALS | SQUARES);
    if (!settled(t, n)) in_two_more(t, n);
}
