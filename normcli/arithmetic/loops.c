/* The forward pass of one slab of a tensor: its tiles, their sums and statistics. loops.h says how numbers are kept. */

#include "loops.h"

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

/* Room for the statistics that a widened slab has, of which only the strides' zeros are right, and for parameters after it. */
double *normcli_hold(Slab *wide, int64_t parameters, double **after) {
    int64_t size = normcli_packed(wide);
    double **own[] = {&wide->mean, &wide->mean_low, &wide->var, &wide->rstd, &wide->var_low, &wide->rstd_low,
                      &wide->shift, &wide->shift_low, &wide->slope, &wide->slope_low, &wide->size};
    int64_t count = wide->g ? sizeof own / sizeof *own : 6;
    double *held = count * size > MOST_WIDE ? NULL : malloc((size_t)(count * size + parameters) * sizeof *held);
    for (int64_t k = 0; held && k < count; k++)
        if (*own[k]) *own[k] = held + k * size;
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
    wide->held = normcli_hold(slab, 0, &after);
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
    slab->g_stride[above] *= times;
    rest->shape[above] = rows % times;
    rest->x += (rows - rows % times) * t->x_stride[above];
    if (rest->y) rest->y += (rows - rows % times) * t->y_stride[above];
    if (rest->g) rest->g += (rows - rows % times) * t->g_stride[above];
    wide->times = times;
    wide->by_rows = 1;
    double *weight, *bias;
    wide->held = normcli_hold(slab, 6 * parameters, &weight);
    if (!wide->held) return;
    bias = weight + parameters;
    for (int64_t i = 0; i < parameters; i++) {
        if (t->weight) weight[i] = t->weight[i % n];
        if (t->bias) bias[i] = t->bias[i % n];
    }
    if (t->weight && parameters) slab->weight = weight;
    if (t->bias && parameters) slab->bias = bias;
    if (!t->grad_weight || !parameters) return;
    slab->grad_weight = bias + parameters, slab->grad_weight_low = bias + 2 * parameters;
    slab->grad_bias = bias + 3 * parameters, slab->grad_bias_low = bias + 4 * parameters;
    memset(slab->grad_weight, 0, (size_t)(4 * parameters) * sizeof *slab->grad_weight);
}

/* Rows of floats so short that columns with statistics of their own are quicker, although these must be spread. */
static int are_short(const Slab *t) { return t->dtype != FLOAT64 && t->shape[t->rank - 1] < SHORT; }

Wide normcli_widened(const Slab *t) {
    Wide wide = {.slab = *t, .rest = *t};
    if (t->rank > 1 && t->stat_stride[t->rank - 1]) widen_rows(t, &wide);
    else if (t->rank > 1 && (t->g || !in_rows(t) || are_short(t))) widen_row(t, &wide);
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

static void emit_with(const Slab *t, const Wide *wide) {
    const Slab *slab = &wide->slab;
    if (!wide->held) {
        normcli_emit_tile(t);
        return;
    }
    normcli_spread(t, wide, t->mean, slab->mean), normcli_spread(t, wide, t->mean_low, slab->mean_low);
    normcli_spread(t, wide, t->rstd, slab->rstd), normcli_spread(t, wide, t->rstd_low, slab->rstd_low);
    if (wide->by_rows && wide->rest.shape[t->rank - 2]) normcli_emit_tile(&wide->rest);
    normcli_emit_tile(slab);
}

/* Half precision is widened once for all passes over a tile: a copy in single precision, in C order. Null where the
 * elements are not of half precision, or no memory is free. */
EVERY_PROCESSOR static void widen_runs(const Slab *t, float *to) {
    int64_t last = t->rank - 1, stride = t->x_stride[last], n = t->shape[last], inside = 1;
    for (; inside <= last && t->x_stride[last - inside] == n * stride; inside++) n *= t->shape[last - inside];
    Run run = first_run(t);
    do {
        normcli_widen(t->dtype, run.x, stride, n, to);
        to += n;
    } while (next_run(t, &run, inside));
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
    if (normcli_takes_turned(whole)) {
        normcli_turned(whole);
        return;
    }
    Slab slab = in_tiles(whole, 0);
    for (int64_t start = 0; start < slab.shape[slab.cut]; start += slab.step) {
        Slab tile = tile_of(&slab, start), copy;
        Wide wide = normcli_widened(&tile);
        int as_they_are = normcli_takes_singles(&tile) || normcli_takes_single_columns(&wide.slab);
        float *single = as_they_are ? NULL : normcli_in_single(&tile, &copy);
        if (single) free(wide.held), tile = copy, wide = normcli_widened(&tile);
        normcli_means_and_squares(&tile, &wide, slab.n);
        normcli_finish(&tile);
        if (slab.y) emit_with(&tile, &wide);
        free(wide.held), free(single);
    }
}

/* Add what n elements of each group add up to, n times the tile's mean, to the sums of the `seen` elements of the tiles
 * before it; the squares are moved to the common mean (Chan, Golub and LeVeque 1983). */
EVERY_PROCESSOR static void add_tile(const Slab *tile, double seen, double n) {
    EACH_STATISTIC(tile, s) {
        double mean = tile->sum[s], mean_low = tile->sum_low[s];
        double sum = tile->mean[s], sum_low = tile->mean_low[s];
        multiply_pair(&sum, &sum_low, n);
        add_pair(tile->sum + s, tile->sum_low + s, sum, sum_low);
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
    double *tiles = malloc((size_t)(5 * size) * sizeof *tiles);
    if (!tiles) return 0;
    slab.mean = tiles, slab.mean_low = tiles + size, slab.var = tiles + 2 * size, slab.var_low = tiles + 3 * size;
    slab.rstd = tiles + 4 * size;
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
        normcli_means_and_squares(&tile, &wide, n);
        if (tile.centers) add_tile(&tile, seen, n);
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
