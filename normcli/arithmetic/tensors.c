/* A tensor, or a slab of one, in one call: its cells, on some threads. A cell is at most steps[d] of each dimension d: whole
 * groups, or of groups that are longer one run in each of some. Where the cells are cut is told, and what the runs add up to
 * is merged in their order: so the number of threads does not change a bit. */

#include "loops.h"
#include <stdatomic.h>

/* How many cells there are along the dimensions that are averaged over, or along those that are not. */
static int64_t cells_of(const Slab *t, int averaged) {
    int64_t count = 1;
    for (int64_t d = 0; d < t->rank; d++)
        if (is_averaged(t, d) == averaged) count *= (t->shape[d] + t->steps[d] - 1) / t->steps[d];
    return count;
}

/* Take the cell of that number, among those along the dimensions that are averaged over, or are not. */
static void take_cell(Slab *cell, int averaged, int64_t number) {
    for (int64_t d = cell->rank - 1; d >= 0; d--) {
        if (is_averaged(cell, d) != averaged) continue;
        int64_t step = cell->steps[d], count = (cell->shape[d] + step - 1) / step;
        take(cell, d, number % count * step, step);
        number /= count;
    }
}

static Slab cell_of(const Slab *t, int64_t group, int64_t run) {
    Slab cell = *t;
    take_cell(&cell, 0, group), take_cell(&cell, 1, run);
    return cell;
}

/* ---- merging ---------------------------------------------------------------------------------------- */

/* How many elements of each group a cell holds. */
static double length_of(const Slab *cell) {
    double n = 1;
    for (int64_t d = 0; d < cell->rank; d++)
        if (is_averaged(cell, d)) n *= (double)cell->shape[d];
    return n;
}

/* Add the sums of a run to those of the group. */
INLINE void add_sums(double *restrict mean, double *restrict mean_low, const double *restrict row, int64_t size, int64_t n) {
    INDEPENDENT
    for (int64_t s = 0; s < n; s++) add_pair(mean + s, mean_low + s, row[s], row[size + s]);
}

/* The squares about the mean m of a run become those about the group's mean c, to which the run adds n * (m - c)^2 (Chan,
 * Golub and LeVeque 1983, Am. Stat. 37:242). */
INLINE void move_squares(const double *restrict mean, const double *restrict mean_low, double *restrict row, int64_t size,
                         int64_t count, double n) {
    INDEPENDENT
    for (int64_t s = 0; s < count; s++) {
        double m = row[s], m_low = row[size + s];
        divide_pair(&m, &m_low, n);
        add_pair(&m, &m_low, -mean[s], -mean_low[s]);
        double square = m * m, low = __builtin_fma(m, m, -square) + 2 * m * m_low;
        multiply_pair(&square, &low, n);
        add_pair(row + 2 * size + s, row + 3 * size + s, square, low);
    }
}

/* The statistics of whole groups, from what their runs add up to: a row for each, as normcli_moments leaves it. */
EVERY_PROCESSOR void normcli_join(const Slab *t) {
    int64_t runs = cells_of(t, 1), at = 0;
    Slab packed = *t, stats = statistics_of(t);
    int64_t size = normcli_packed(&packed), some = stats.shape[stats.rank - 1];
    Run run = first_run(&stats);
    do {
        double *mean = t->mean + run.stat, *mean_low = t->mean_low + run.stat, *rows = t->sum + at;
        memset(mean, 0, (size_t)some * sizeof *mean), memset(mean_low, 0, (size_t)some * sizeof *mean);
        for (int64_t r = 0; t->centers && r < runs; r++) add_sums(mean, mean_low, rows + 4 * size * r, size, some);
        for (int64_t s = 0; s < some; s++) divide_pair(mean + s, mean_low + s, t->n);
        double *squares = rows + 2 * size, *squares_low = squares + size;
        for (int64_t r = 0; r < runs; r++) {
            double *row = rows + 4 * size * r;
            Slab cell = *t;
            take_cell(&cell, 1, r);
            if (t->centers) move_squares(mean, mean_low, row, size, some, length_of(&cell));
            if (r) add_sums(squares, squares_low, row + 2 * size, size, some);
        }
        memcpy(t->var + run.stat, squares, (size_t)some * sizeof *squares);
        if (t->var_low) memcpy(t->var_low + run.stat, squares_low, (size_t)some * sizeof *squares);
        at += some;
    } while (next_run(&stats, &run, 1));
    normcli_finish(t);
}

/* ---- cells ------------------------------------------------------------------------------------------ */

static void whole_cell(void *of, int64_t number) {
    Slab cell = cell_of(of, number, 0);
    normcli_whole(&cell);
}

static void emit_cell(void *of, int64_t number) {
    int64_t runs = cells_of(of, 1);
    Slab cell = cell_of(of, number / runs, number % runs);
    normcli_emit(&cell);
}

/* Groups longer than a cell. The steps are, for one place among the groups after another, to add up its runs, of which the
 * last to be done is followed by the merging, and to emit the runs of the place before it, which so has seldom to be
 * waited for; with one thread, those of the same place, while they may still be in a cache. */
typedef struct {
    const Slab *tensor;
    int64_t groups, runs, size, behind; /* size: of the rows of one place; behind: by how many places emitting is */
    double *rows;
    _Atomic int64_t *left; /* the runs of each place that are not added up, and one more until they are merged */
    _Atomic int failed;
} Long;

static void add_run(Long *all, int64_t group, int64_t run) {
    double *rows = all->rows + group * all->size;
    Slab cell = cell_of(all->tensor, group, run), place = *all->tensor;
    Slab packed = cell;
    cell.sum = rows + 4 * normcli_packed(&packed) * run;
    if (!normcli_moments(&cell)) all->failed = 1;
    if (atomic_fetch_sub(all->left + group, 1) != 2) return;
    take_cell(&place, 0, group);
    place.sum = rows;
    if (!all->failed) normcli_join(&place);
    atomic_fetch_sub(all->left + group, 1);
}

static void emit_run(Long *all, int64_t group, int64_t run) {
    for (int64_t times = 0; atomic_load(all->left + group); times++) normcli_pause(times);
    Slab cell = cell_of(all->tensor, group, run);
    if (!all->failed) normcli_emit(&cell);
}

static void step_of(void *of, int64_t number) {
    Long *all = of;
    int64_t group = number / (2 * all->runs), run = number % (2 * all->runs);
    if (run < all->runs) {
        if (group < all->groups) add_run(all, group, run);
    } else if (all->tensor->y && group >= all->behind)
        emit_run(all, group - all->behind, run - all->runs);
}

/* Statistics and outputs of a tensor, or outputs alone where the statistics are given. 0 where no memory is free. */
int normcli_tensor(const Slab *t) {
    int64_t groups = cells_of(t, 0), runs = cells_of(t, 1);
    if (t->given || runs == 1) {
        if (t->y || !t->given) normcli_each(groups * runs, t->threads, t->given ? emit_cell : whole_cell, (void *)t);
        return 1;
    }
    Slab first = cell_of(t, 0, 0);
    Long all = {.tensor = t, .groups = groups, .runs = runs, .size = 4 * runs * normcli_packed(&first), .behind = t->threads > 1};
    all.rows = malloc((size_t)(groups * all.size) * sizeof *all.rows);
    all.left = malloc((size_t)groups * sizeof *all.left);
    all.failed = !all.rows || !all.left;
    if (!all.failed) {
        for (int64_t g = 0; g < groups; g++) atomic_init(all.left + g, runs + 1);
        normcli_each((groups + all.behind) * 2 * runs, t->threads, step_of, &all);
    }
    free(all.rows), free((void *)all.left);
    return !all.failed;
}
