/* The running statistics after a batch: what it costs for each channel matters where there are a million of them. */

#include "loops.h"

#define BESIDE 256 /* channels whose samples are added up at a time */

HIDDEN int normcli_addresses(PyObject *arrays, double **addresses);

/* Where each array of a tuple has its first element, null for None; not 0 where Python has an error to raise. */
int normcli_addresses(PyObject *arrays, double **addresses) {
    for (Py_ssize_t k = 0; k < PyTuple_Size(arrays); k++) {
        PyObject *array = PyTuple_GetItem(arrays, k);
        Py_buffer buffer;
        addresses[k] = NULL;
        if (array == Py_None) continue;
        if (PyObject_GetBuffer(array, &buffer, PyBUF_STRIDES)) return -1;
        addresses[k] = buffer.buf;
        PyBuffer_Release(&buffer); /* the caller holds the array */
    }
    return 0;
}

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

/* Some channels side by side: what they are after a batch whose statistic is the sum of its rows by `samples`, each
 * times n / over where `over` is not 0. `held` has room for two numbers of each sample and channel. */
EVERY_PROCESSOR static void update(const double *high, const double *low, int64_t rows, int64_t apart,
                                   int64_t channels, double samples, double n, double over, double momentum, const double *old,
                                   double *new, double *held) {
    double *lows = held + rows * channels;
    for (int64_t s = 0; s < rows; s++) {
        INDEPENDENT
        for (int64_t c = 0; c < channels; c++) {
            double value = high[s * apart + c], rest = low ? low[s * apart + c] : 0;
            if (over != 0) {
                multiply_pair(&value, &rest, n);
                divide_pair(&value, &rest, over);
            }
            held[s * channels + c] = value, lows[s * channels + c] = rest;
        }
    }
    for (int64_t left = rows; left > 1; left = (left + 1) / 2) { /* level by level, as pairs are summed */
        int64_t half = left / 2 * channels, last = (left - 1) * channels;
        INDEPENDENT
        for (int64_t k = 0; k < half; k++) add_pair(held + k, lows + k, held[half + k], lows[half + k]);
        if (left % 2) {
            memcpy(held + half, held + last, (size_t)channels * sizeof *held);
            memcpy(lows + half, lows + last, (size_t)channels * sizeof *lows);
        }
    }
    INDEPENDENT
    for (int64_t c = 0; c < channels; c++) {
        if (samples != 1) divide_pair(held + c, lows + c, samples);
        new[c] = mixed(old[c], held[c], lows[c], momentum);
    }
}

/* The arrays are mean, mean_low, var and var_low of a batch (rows by channels), the two running statistics and two rows
 * for what becomes of these. What has no low part has None; `over` is 0 where the variance is taken as it is. 0, or -1
 * for an error of Python's. */
int64_t normcli_updated(int64_t rows, int64_t channels, double samples, double n, double over, double momentum,
                        PyObject *arrays) {
    double *at[7], *held = malloc((size_t)(rows * (channels < BESIDE ? channels : BESIDE) * 2) * sizeof *held);
    if (!held) return PyErr_NoMemory(), -1;
    int failed = normcli_addresses(arrays, at);
    for (int64_t c = 0; c < channels && !failed; c += BESIDE) {
        int64_t some = channels - c < BESIDE ? channels - c : BESIDE;
        double *new = at[6] + c;
        update(at[0] + c, at[1] ? at[1] + c : NULL, rows, channels, some, samples, n, 0, momentum, at[4] + c, new, held);
        update(at[2] + c, at[3] ? at[3] + c : NULL, rows, channels, some, samples, n, over, momentum, at[5] + c,
               new + channels, held);
    }
    free(held);
    return failed;
}
