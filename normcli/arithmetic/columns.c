/* Statistics side by side, each of a column of floats or doubles. loops.h says how numbers are kept. */

#include "loops.h"

enum { COLUMNS = 512 }; /* of which statistics, parameters and a few rows stay in a first-level cache */

#define ELEMENT(x, i) (single ? (double)((const float *)(x))[i] : ((const double *)(x))[i])

INLINE void add_to(double *sums, Lanes more) {
    Lanes sum;
    memcpy(&sum, sums, sizeof sum);
    sum += more;
    memcpy(sums, &sum, sizeof sum);
}

/* Some rows at once: what they are added to is fetched and put back once for all. */
INLINE void add_some(const char *const *x, int rows, int64_t n, int single, int how, const double *pilots, double *sums,
                     double *squares, int64_t ahead) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        Lanes pilot, sum = {0}, square = {0};
        memcpy(&pilot, pilots + i, sizeof pilot);
        for (int k = 0; k < rows; k++) {
            if (rows > 1) __builtin_prefetch(x[k] + ahead + (single ? 4 : 8) * i);
            Lanes d = eight_of(x[k], i, LANES, single) - pilot;
            sum += d;
            square += d * d;
        }
        if (how & TOTALS) add_to(sums + i, sum);
        if (how & SQUARES) add_to(squares + i, square);
    }
    for (; i < n; i++) {
        double sum = 0, square = 0;
        for (int k = 0; k < rows; k++) {
            double d = ELEMENT(x[k], i) - pilots[i];
            sum += d;
            square += d * d;
        }
        if (how & TOTALS) sums[i] += sum;
        if (how & SQUARES) squares[i] += square;
    }
}

INLINE void add_columns(const Slab *t, int how) {
    int64_t last = t->rank - 1, above = last - 1, size = t->shape[last];
    int64_t rows = above >= 0 && !t->stat_stride[above] ? t->shape[above] : 1, inside = rows > 1 ? 2 : 1;
    int64_t down = rows > 1 ? t->x_stride[above] : 0;
    const double *pilots = how == SQUARES ? t->mean : t->rstd;
    double buffer[ROWS][COLUMNS];
    int halves = t->x_dtype <= BFLOAT16 && t->x_stride[last] == 2;
    for (int64_t at = 0; at < size; at += COLUMNS) {
        int64_t n = size - at < COLUMNS ? size - at : COLUMNS;
        Run run = first_run(t);
        do {
            const double *pilot = pilots + run.stat + at;
            double *sum = t->mean + run.stat + at, *square = t->var + run.stat + at;
            for (int64_t row = 0, several; row < rows; row += several) {
                const char *x[ROWS];
                int single = 0;
                several = rows - row < ROWS ? 1 : ROWS;
                for (int64_t k = 0; k < several; k++) {
                    x[k] = run.x + (row + k) * down + at * t->x_stride[last];
                    if (!halves) x[k] = readable(t, x[k], n, buffer[k], &single);
                    else normcli_widen(t->x_dtype, x[k], 2, n, (float *)buffer[k]), x[k] = (char *)buffer[k], single = 1;
                }
                if (single && several == ROWS) add_some(x, ROWS, n, 1, how, pilot, sum, square, ROWS * down);
                else if (single) add_some(x, 1, n, 1, how, pilot, sum, square, ROWS * down);
                else if (several == ROWS) add_some(x, ROWS, n, 0, how, pilot, sum, square, ROWS * down);
                else add_some(x, 1, n, 0, how, pilot, sum, square, ROWS * down);
            }
        } while (next_run(t, &run, inside));
    }
}

EVERY_PROCESSOR void normcli_add_columns(const Slab *t, int how) {
    if (how == TOTALS) add_columns(t, TOTALS);
    else if (how == SQUARES) add_columns(t, SQUARES);
    else add_columns(t, TOTALS | SQUARES);
}

/* What a block of columns shares: rstd * weight, and bias. */
typedef struct {
    double scale[COLUMNS], bias[COLUMNS];
} Block;

/* False where a scale left double's range. A group whose var + eps is 0 has nothing but its mean: 0 by definition. */
INLINE int block_of(const Slab *t, int64_t stat, int64_t param, int64_t n, Block *block) {
    int64_t each = t->param_stride[t->rank - 1], left = 0;
    const double *rstd = t->rstd + stat, *weight = t->weight ? t->weight + param : NULL;
    const double *bias = t->bias ? t->bias + param : NULL;
    for (int64_t i = 0; i < n; i++) {
        double own = weight ? weight[each * i] : 1, scale = (!t->given & (rstd[i] == INFINITY) ? 0 : rstd[i]) * own;
        block->scale[i] = scale;
        block->bias[i] = bias ? bias[each * i] : -0.0; /* y + -0.0 is y */
        left |= (fabs(scale) == INFINITY) & (fabs(own) <= DBL_MAX);
    }
    return !left;
}

/* Outputs of some rows at once, as floats or as doubles. No processor looks ahead from row to row by itself. */
INLINE void emit_some(const char *const *x, char *const *y, int rows, int64_t n, int to_single, const double *mean,
                      const double *low, const Block *block, int64_t ahead, int64_t below) {
    const int single = 1;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        Lanes m, l, scale, bias;
        memcpy(&m, mean + i, sizeof m), memcpy(&l, low + i, sizeof l);
        memcpy(&scale, block->scale + i, sizeof scale), memcpy(&bias, block->bias + i, sizeof bias);
        for (int k = 0; k < rows; k++) {
            if (rows > 1) __builtin_prefetch(x[k] + ahead + 4 * i);
            if (rows > 1 && to_single) __builtin_prefetch(y[k] + below + 4 * i, 1);
            Lanes value = (eight_of(x[k], i, LANES, single) - m - l) * scale + bias;
            Eight narrow = __builtin_convertvector(value, Eight);
            if (to_single) memcpy(y[k] + 4 * i, &narrow, sizeof narrow);
            else memcpy(y[k] + 8 * i, &value, sizeof value);
        }
    }
    for (; i < n; i++)
        for (int k = 0; k < rows; k++) {
            double value = (ELEMENT(x[k], i) - mean[i] - low[i]) * block->scale[i] + block->bias[i];
            if (to_single) ((float *)y[k])[i] = (float)value;
            else ((double *)y[k])[i] = value;
        }
}

/* Outputs of floats whose statistics lie side by side; false where they do not, or where a scale left double's range. */
EVERY_PROCESSOR int normcli_emit_columns(const Slab *t) {
    int64_t last = t->rank - 1, above = last - 1, size = t->shape[last], rows = rows_of(t), wide = t->y_stride[last];
    int64_t each = t->x_dtype == FLOAT32 ? 4 : 2, in_singles = normcli_takes_single_columns(t);
    if (t->dtype == FLOAT64 || t->x_dtype == FLOAT64 || t->x_stride[last] != each || !t->stat_stride[last]) return 0;
    if (rows < ROWS || wide != (t->dtype == FLOAT32 ? 4 : 2)) return 0;
    int64_t ahead = each == 4 ? ROWS * t->x_stride[above] : 0, below = ROWS * t->y_stride[above];
    Block block;
    float rounded[ROWS][COLUMNS], single[ROWS][COLUMNS];
    double exact[COLUMNS];
    for (int64_t at = 0; at < size; at += COLUMNS) {
        int64_t n = size - at < COLUMNS ? size - at : COLUMNS;
        Run run = first_run(t);
        do {
            int64_t s = run.stat + at, p = run.param + t->param_stride[last] * at;
            const double *mean = t->mean + s, *low = t->mean_low + s;
            if (in_singles && normcli_emit_single_columns(t, &run, at, n)) continue;
            if (!block_of(t, s, p, n, &block)) return 0;
            for (int64_t row = 0, several; row < rows; row += several) {
                const char *x[ROWS];
                char *y[ROWS], *to[ROWS];
                several = rows - row < ROWS ? 1 : ROWS;
                for (int64_t k = 0; k < several; k++) {
                    x[k] = run.x + (row + k) * t->x_stride[above] + each * at;
                    if (each == 2) normcli_widen(t->x_dtype, x[k], 2, n, single[k]), x[k] = (const char *)single[k];
                    y[k] = run.y + (row + k) * t->y_stride[above] + wide * at;
                    to[k] = t->dtype == FLOAT32 ? y[k] : (char *)rounded[k];
                }
                if (several == ROWS) emit_some(x, to, ROWS, n, 1, mean, low, &block, ahead, below);
                else emit_some(x, to, 1, n, 1, mean, low, &block, ahead, below);
                for (int64_t k = 0; t->dtype != FLOAT32 && k < several; k++) {
                    if (!normcli_narrow(t->dtype, rounded[k], n, (uint16_t *)y[k])) continue;
                    char *again = (char *)exact;
                    emit_some(x + k, &again, 1, n, 0, mean, low, &block, ahead, below);
                    store(t->dtype, exact, n, y[k], 2);
                }
            }
        } while (next_run(t, &run, 2));
    }
    return 1;
}
