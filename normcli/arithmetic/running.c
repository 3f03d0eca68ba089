/* The running statistics after a batch: what it costs for each channel matters where there are a million of them. */

#include "loops.h"

/* The batch's statistics are pairs, or have no low part; `over` is 0 where the variance is taken as it is. */
typedef struct {
    int64_t channels;
    double momentum, n, over; /* over: what the variance is multiplied with n / over for */
    const double *mean, *mean_low, *var, *var_low, *old_mean, *old_var;
    double *new_mean, *new_var;
} Running;

const int64_t normcli_running_size = sizeof(Running); /* for normcli.arithmetic.running to compare with its own */

INLINE double mixed(double old, double batch, double batch_low, double momentum) {
    double keep, keep_low, high, low;
    TWO_SUM(keep, keep_low, 1.0, -momentum);
    high = keep, low = keep_low;
    multiply_pair(&high, &low, old);
    multiply_pair(&batch, &batch_low, momentum);
    double sum, rest;
    TWO_SUM(sum, rest, high, batch);
    return isfinite(sum) ? sum + (rest + (low + batch_low)) : high + batch;
}

EVERY_PROCESSOR void normcli_running(const Running *r) {
    INDEPENDENT
    for (int64_t c = 0; c < r->channels; c++) {
        double var = r->var[c], var_low = r->var_low ? r->var_low[c] : 0;
        if (r->over != 0) {
            multiply_pair(&var, &var_low, r->n);
            divide_pair(&var, &var_low, r->over);
        }
        r->new_mean[c] = mixed(r->old_mean[c], r->mean[c], r->mean_low ? r->mean_low[c] : 0, r->momentum);
        r->new_var[c] = mixed(r->old_var[c], var, var_low, r->momentum);
    }
}
