/* Rows of floats, each of which belongs to one group. loops.h says how numbers are kept. */

#include "loops.h"

/* Short rows are added up four at once, so that no addition waits for the one before it; each row's last eight are read
 * together, those before them left out. */
typedef int64_t Bits __attribute__((vector_size(64), aligned(8)));
enum { FEW = 192, PART = 4096 }; /* elements of a row that is short; that are added up before they join the rest */

static const int64_t COUNTED[2 * LANES] = {[LANES... 2 * LANES - 1] = -1};

INLINE Lanes eight_floats(const char *x) { return eight_of(x, 0, LANES, 1); }

/* A row's part as floats: in the tensor itself, or in a buffer, after as many of the elements before it as the last
 * eight reach back. */
INLINE const char *floats_of(const Slab *t, const char *x, int64_t at, int64_t n, float *buffer) {
    if (t->x_dtype == FLOAT32) return x + 4 * at;
    int64_t before = n < LANES ? LANES - n : 0;
    normcli_widen(t->x_dtype, x + 2 * (at - before), 2, n + before, buffer);
    return (const char *)(buffer + before);
}

INLINE void add_eight_floats(Lanes d, int how, Lanes *sum, Lanes *square) {
    if (how & TOTALS) *sum += d;
    if (how & SQUARES) *square += d * d;
}

INLINE void add_four_rows(const char *const x[ROWS], int64_t n, int how, const double pilot[ROWS], double sum[ROWS],
                          double square[ROWS]) {
    Lanes sums[ROWS] = {{0}}, squares[ROWS] = {{0}};
    Bits some;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int k = 0; k < ROWS; k++) add_eight_floats(eight_floats(x[k] + 4 * i) - pilot[k], how, sums + k, squares + k);
    memcpy(&some, COUNTED + (n - i), sizeof some);
    for (int k = 0; i < n && k < ROWS; k++) {
        Lanes d = eight_floats(x[k] + 4 * (n - LANES)) - pilot[k];
        add_eight_floats((Lanes)((Bits)d & some), how, sums + k, squares + k);
    }
    Four all;
    if (how & TOTALS) all = totals_of(sums), memcpy(sum, &all, sizeof all);
    if (how & SQUARES) all = totals_of(squares), memcpy(square, &all, sizeof all);
}

INLINE void add_row(const char *x, int64_t n, int how, double pilot, double *sum, double *square) {
    Lanes sums[ROWS] = {{0}}, squares[ROWS] = {{0}}, both[ROWS] = {{0}};
    Bits some;
    int64_t i = 0;
    for (; i + ROWS * LANES <= n; i += ROWS * LANES)
        for (int k = 0; k < ROWS; k++)
            add_eight_floats(eight_floats(x + 4 * (i + k * LANES)) - pilot, how, sums + k, squares + k);
    for (; i + LANES <= n; i += LANES) add_eight_floats(eight_floats(x + 4 * i) - pilot, how, sums, squares);
    memcpy(&some, COUNTED + (n - i), sizeof some);
    if (i < n) {
        Lanes d = eight_floats(x + 4 * (n - LANES)) - pilot;
        add_eight_floats((Lanes)((Bits)d & some), how, sums + 1, squares + 1);
    }
    both[0] = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    both[1] = (squares[0] + squares[1]) + (squares[2] + squares[3]);
    Four all = totals_of(both);
    if (how & TOTALS) *sum += all[0];
    if (how & SQUARES) *square += all[1];
}

INLINE void add_rows(const Slab *t, int how) {
    int64_t last = t->rank - 1, size = t->shape[last], rows = last ? t->shape[last - 1] : 1;
    int64_t down = last ? t->x_stride[last - 1] : 0, next = last ? t->stat_stride[last - 1] : 0;
    int64_t most = t->x_dtype == FLOAT32 ? PART : CHUNK;
    const double *pilots = how == SQUARES ? t->mean : t->rstd;
    float buffer[ROWS][CHUNK + LANES];
    Run run = first_run(t);
    do {
        const double *pilot = pilots + run.stat;
        double *sum = t->mean + run.stat, *square = t->var + run.stat;
        if (size >= FEW)
            for (int64_t row = 0; row < rows; row++)
                for (int64_t at = 0, s = row * next; at < size; at += most) {
                    int64_t n = size - at < most ? size - at : most;
                    add_row(floats_of(t, run.x + row * down, at, n, buffer[0]), n, how, pilot[s], sum + s, square + s);
                }
        else
            for (int64_t row = 0; row < rows; row += ROWS) {
                int64_t several = rows - row < ROWS ? rows - row : ROWS;
                double centers[ROWS], sums[ROWS], squares[ROWS];
                const char *x[ROWS];
                for (int64_t k = 0; k < ROWS; k++) {
                    int64_t other = k < several ? k : 0;
                    x[k] = k < several ? floats_of(t, run.x + (row + k) * down, 0, size, buffer[k]) : x[0];
                    centers[k] = pilot[(row + other) * next];
                }
                add_four_rows(x, size, how, centers, sums, squares);
                for (int64_t k = 0; k < several; k++) {
                    if (how & TOTALS) sum[(row + k) * next] += sums[k];
                    if (how & SQUARES) square[(row + k) * next] += squares[k];
                }
            }
    } while (next_run(t, &run, 2));
}

EVERY_PROCESSOR void normcli_add_rows(const Slab *t, int how) {
    if (how == TOTALS) add_rows(t, TOTALS);
    else if (how == SQUARES) add_rows(t, SQUARES);
    else add_rows(t, TOTALS | SQUARES);
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

/* The choices that are the same for all rows are made before them. */
INLINE void emit_rows(const Slab *t, int own, const double *weight, const double *bias) {
    int64_t last = t->rank - 1, n = t->shape[last], above = last - 1, rows = last ? t->shape[above] : 1;
    int64_t down = last ? t->x_stride[above] : 0, below = last ? t->y_stride[above] : 0;
    int64_t next = last ? t->stat_stride[above] : 0, other = last ? t->param_stride[above] : 0;
    Run run = first_run(t);
    do
        for (int64_t row = 0; row < rows; row++) {
            int64_t s = run.stat + row * next, p = run.param + row * other;
            emit_row(run.x + row * down, run.y + row * below, n, t->mean[s], t->mean_low[s], t->rstd[s], own,
                     weight ? weight + p : NULL, bias ? bias + p : NULL);
        }
    while (next_run(t, &run, 2));
}

EVERY_PROCESSOR void normcli_emit_rows(const Slab *t) {
    const double *weight = t->weight, *bias = t->bias;
    if (!weight && !bias) emit_rows(t, 0, NULL, NULL);
    else if (!t->param_stride[t->rank - 1]) emit_rows(t, 0, weight, bias);
    else if (weight && bias) emit_rows(t, 1, weight, bias);
    else if (weight) emit_rows(t, 1, weight, NULL);
    else emit_rows(t, 1, NULL, bias);
}
