/* Short groups that lie in rows, turned: what was a row becomes a column, so that many are added up side by side and nothing
 * is left to be put together. loops.h says how numbers are kept. */

#include "loops.h"

enum {
    BLOCK = 2048, /* elements that are turned at a time: both copies stay in a first-level cache */
    LONGEST = 24, /* of a row that is turned; of doubles, whose sums in a row are pairs and so many more to put together */
    LONGEST_OF_DOUBLES = 31,
};

/* Four rows of four at a time, by the shuffles that interleave two vectors and those that join their halves. */
#ifdef __clang__
#define FROM_BOTH(Places, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define FROM_BOTH(Places, a, b, ...) __builtin_shuffle(a, b, (Places){__VA_ARGS__})
#endif
#define TURN(name, type, whole, width)                                                                            \
    typedef type name##_four __attribute__((vector_size(width)));                                                 \
    typedef whole name##_places __attribute__((vector_size(width)));                                              \
    INLINE void name##_four_by_four(const char *from, int64_t apart, char *to, int64_t below) {                   \
        name##_four row[4], pair[4];                                                                              \
        for (int k = 0; k < 4; k++) memcpy(row + k, from + k * apart, sizeof *row);                               \
        for (int k = 0; k < 4; k += 2) {                                                                          \
            pair[k] = FROM_BOTH(name##_places, row[k], row[k + 1], 0, 4, 2, 6);                                   \
            pair[k + 1] = FROM_BOTH(name##_places, row[k], row[k + 1], 1, 5, 3, 7);                               \
        }                                                                                                         \
        for (int k = 0; k < 2; k++) {                                                                             \
            row[k] = FROM_BOTH(name##_places, pair[k], pair[k + 2], 0, 1, 4, 5);                                  \
            row[k + 2] = FROM_BOTH(name##_places, pair[k], pair[k + 2], 2, 3, 6, 7);                              \
        }                                                                                                         \
        for (int k = 0; k < 4; k++) memcpy(to + k * below, row + k, sizeof *row);                                 \
    }                                                                                                             \
    INLINE void name(const char *from, int64_t apart, int64_t rows, int64_t n, char *to, int64_t below) {         \
        const int64_t size = sizeof(type);                                                                        \
        for (int64_t r = 0; r < rows && rows >= 4 && n >= 4; r += 4) /* the last four, some of them again */      \
            for (int64_t i = 0, at = r + 4 <= rows ? r : rows - 4; i < n; i += 4) {                               \
                int64_t j = i + 4 <= n ? i : n - 4;                                                               \
                name##_four_by_four(from + at * apart + j * size, apart, to + j * below + at * size, below);      \
            }                                                                                                     \
        for (int64_t r = 0; r < rows && (rows < 4 || n < 4); r++)                                                 \
            for (int64_t i = 0; i < n; i++)                                                                       \
                memcpy(to + i * below + r * size, from + r * apart + i * size, sizeof(type));                     \
    }
TURN(turn_doubles, double, int64_t, 32)
TURN(turn_floats, float, int32_t, 16)
TURN(turn_halves, uint16_t, uint16_t, 8)

/* Rows become columns: the element of a row at `from + r * apart` and place i comes to lie at `to + i * below`, place r. */
EVERY_PROCESSOR static void turn(int64_t dtype, const char *from, int64_t apart, int64_t rows, int64_t n, char *to,
                                 int64_t below) {
    if (dtype == FLOAT64) turn_doubles(from, apart, rows, n, to, below);
    else if (dtype == FLOAT32) turn_floats(from, apart, rows, n, to, below);
    else turn_halves(from, apart, rows, n, to, below);
}

static int64_t size_of(int64_t dtype) { return dtype == FLOAT64 ? 8 : dtype == FLOAT32 ? 4 : 2; }

/* Whether each row is a group, short, and its elements lie side by side. */
int normcli_takes_turned(const Slab *t) {
    int64_t last = t->rank - 1, n = t->shape[last], longest = t->dtype == FLOAT64 ? LONGEST_OF_DOUBLES : LONGEST;
    if (last < 1 || n > longest || t->stat_stride[last] || t->stat_stride[last - 1] != 1) return 0;
    for (int64_t d = 0; d < last; d++)
        if (!t->stat_stride[d] && t->shape[d] > 1) return 0;
    return t->x_stride[last] == size_of(t->x_dtype) && (!t->y || t->y_stride[last] == size_of(t->dtype));
}

/* Some rows of a slab as one of columns, in which x and y are buffers of their own. */
static Slab columns_of(const Slab *t, const Run *run, int64_t row, int64_t rows, double *x, double *y) {
    int64_t last = t->rank - 1, above = last - 1, n = t->shape[last], s = run->stat + row;
    Slab block = *t;
    block.rank = 2, block.whole_row = 0;
    block.x_dtype = t->x_dtype == FLOAT64 ? FLOAT64 : FLOAT32;
    block.shape[0] = n, block.shape[1] = rows;
    block.x_stride[1] = size_of(block.x_dtype), block.x_stride[0] = rows * block.x_stride[1];
    block.y_stride[1] = size_of(t->dtype), block.y_stride[0] = rows * block.y_stride[1];
    block.stat_stride[0] = 0, block.stat_stride[1] = 1;
    block.param_stride[0] = t->param_stride[last], block.param_stride[1] = t->param_stride[above];
    block.x = (const char *)x, block.y = t->y ? (char *)y : NULL;
    double **own[] = {&block.mean, &block.mean_low, &block.var, &block.rstd, &block.var_low, &block.rstd_low};
    for (size_t k = 0; k < sizeof own / sizeof *own; k++)
        if (*own[k]) *own[k] += s;
    if (block.weight) block.weight += run->param + row * t->param_stride[above];
    if (block.bias) block.bias += run->param + row * t->param_stride[above];
    return block;
}

/* Parameters that every element has of its own are turned too; others lie as they are wanted. */
static void turn_parameters(Slab *block, double *weight, double *bias) {
    int64_t n = block->shape[0], rows = block->shape[1], apart = 8 * block->param_stride[1];
    if (block->param_stride[1] <= 1) return;
    if (block->weight) turn(FLOAT64, (const char *)block->weight, apart, rows, n, (char *)weight, 8 * rows), block->weight = weight;
    if (block->bias) turn(FLOAT64, (const char *)block->bias, apart, rows, n, (char *)bias, 8 * rows), block->bias = bias;
    block->param_stride[0] = rows, block->param_stride[1] = 1;
}

/* Statistics and outputs of such a slab. */
void normcli_turned(const Slab *t) {
    double x[BLOCK], y[BLOCK], weight[BLOCK], bias[BLOCK];
    float widened[BLOCK];
    int64_t last = t->rank - 1, above = last - 1, n = t->shape[last], most = BLOCK / n / LANES * LANES;
    Run run = first_run(t);
    do
        for (int64_t row = 0, rows; row < t->shape[above]; row += rows) {
            rows = t->shape[above] - row < most ? t->shape[above] - row : most;
            const char *from = run.x + row * t->x_stride[above];
            int64_t apart = t->x_stride[above];
            Wide wide = {.slab = columns_of(t, &run, row, rows, x, y)};
            Slab *block = &wide.slab;
            if (t->x_dtype <= BFLOAT16) {
                int64_t pieces = apart == 2 * n ? 1 : rows, each = rows * n / pieces;
                for (int64_t k = 0; k < pieces; k++) normcli_widen(t->x_dtype, from + k * apart, 2, each, widened + k * n);
                from = (const char *)widened, apart = 4 * n;
            }
            turn(block->x_dtype, from, apart, rows, n, (char *)x, block->x_stride[0]);
            turn_parameters(block, weight, bias);
            normcli_means_and_squares(block, &wide, t->n);
            normcli_finish(block);
            if (!t->y) continue;
            normcli_emit_tile(block);
            turn(t->dtype, (char *)y, block->y_stride[0], n, rows, run.y + row * t->y_stride[above], t->y_stride[above]);
        }
    while (next_run(t, &run, 2));
}
