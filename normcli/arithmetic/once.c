/* A whole tensor in one call from Python, which says too whether there is nothing more to be looked at.
 *
 * Called with the interpreter's lock held, so that arrays can be asked where they lie; it is let go of while a tensor
 * is worked on that takes long. */

#include "loops.h"

#define FEW 4096            /* elements that are widened and narrowed here; as normcli.arithmetic.whole has it */
#define MANY 65536          /* elements from which on other threads of Python are not to wait */
#define LEAST_VAR 0x1p-900  /* as normcli.arithmetic.large has it */
#define SURELY 6e4          /* as normcli.arithmetic.warned has it */

/* What is prepared: the tensor as one slab, and how many elements, groups of statistics and parameters it has. */
typedef struct {
    Slab slab;
    int64_t size, groups, parameters;
} Once;

HIDDEN int normcli_addresses(PyObject *arrays, double **addresses); /* of running.c */

/* Whether a parameter has no number so large, or NaN; the largest, if it is one at all. */
static int bounded(const double *values, int64_t count, double *most) {
    for (int64_t k = 0; k < count; k++) {
        if (!(fabs(values[k]) < SURELY)) return 0;
        if (fabs(values[k]) > *most) *most = fabs(values[k]);
    }
    return 1;
}

/* Whether every statistic is finite and far from the end of double's range. */
EVERY_PROCESSOR static int within_range(const Slab *t, int64_t groups) {
    int64_t odd = 0, has_eps = t->eps >= LEAST_VAR;
    for (int64_t k = 0; k < groups; k++) { /* to the end, so that eight go at a time */
        double mean = fabs(t->mean[k]), var = t->var[k];
        int64_t mean_is_plain = (mean == 0) | ((mean >= LEAST_VAR) & (mean <= DBL_MAX));
        int64_t var_is_plain = ((var >= LEAST_VAR) & (var <= DBL_MAX)) | ((var == 0) & has_eps);
        odd |= !(mean_is_plain & var_is_plain & (t->rstd[k] <= DBL_MAX));
    }
    return !odd;
}

/* The same, and no output can leave float16's. */
static int is_plain(const Slab *t, int64_t groups, int64_t parameters) {
    double weight = t->weight ? 0 : 1, bias = 0;
    if (!within_range(t, groups)) return 0;
    if (t->weight && !bounded(t->weight, parameters, &weight)) return 0;
    if (t->bias && !bounded(t->bias, parameters, &bias)) return 0;
    return sqrt(t->n) * weight + bias < SURELY;
}

/* Fill the arrays x, y, the statistics (rows of mean, mean_low, var and rstd; of double also var_low and rstd_low), and
 * read weight and bias. What is of a narrower `dtype` than prepared lies without gaps. 1 where the statistics are plain;
 * otherwise they are to be looked at, and what is narrower has no outputs yet. -1 is an error of Python's. */
int64_t normcli_once(const Once *once, int64_t dtype, int64_t threads, PyObject *arrays) {
    Slab t = once->slab;
    t.threads = threads;
    double *at[5], wide_x[FEW], wide_y[FEW];
    if (normcli_addresses(arrays, at)) return -1;
    double *rows = at[2];
    int64_t groups = once->groups, bytes = dtype == FLOAT32 ? 4 : 2;
    int pairs = t.dtype == FLOAT64, narrow = dtype != t.dtype;
    t.x = (const char *)at[0], t.y = (char *)at[1], t.weight = at[3], t.bias = at[4];
    t.mean = rows, t.mean_low = rows + groups, t.var = rows + 2 * groups, t.rstd = rows + 3 * groups;
    if (pairs) t.var_low = rows + 4 * groups, t.rstd_low = rows + 5 * groups;
    if (narrow) {
        load(dtype, t.x, bytes, once->size, wide_x);
        t.x = (const char *)wide_x, t.y = (char *)wide_y;
    }
    PyThreadState *saved = once->size >= MANY ? PyEval_SaveThread() : NULL;
    int done = normcli_tensor(&t);
    if (pairs && done)
        for (int64_t k = 0; k < groups; k++) {
            double sure = t.rstd[k] + t.rstd_low[k];
            t.rstd_low[k] -= sure - t.rstd[k];
            t.rstd[k] = sure;
        }
    int plain = done && is_plain(&t, groups, once->parameters);
    if (narrow && plain) store(dtype, wide_y, once->size, (char *)at[1], bytes);
    if (saved) PyEval_RestoreThread(saved);
    if (!done) return PyErr_NoMemory(), -1;
    return plain;
}
