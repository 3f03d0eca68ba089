/* What a data set's elements add up to: for every item and channel the count, the sum, the squares about the mean (both
 * as pairs), the extremes, and what is not finite. normcli.arithmetic.pool says how a block is seen: items x outer x
 * kept x inner, in C order.
 *
 * Elements of one channel are gathered, piece by piece, into a first-level cache, unless they lie side by side; what a piece
 * adds up to is merged with what came before (Chan, Golub and LeVeque 1983). For float64 and integers of 32 bits sums are pairs,
 * and a second pass has squares about the mean. float32 and less are gone through once, about a pilot near the mean, whose
 * deviations float64 holds, and a second time only where the pilot was too far away. Integers of 16 bits
 * or fewer have exact sums of squares in integers.
 */

#include "loops.h"

enum { PIECE = 4096 }; /* doubles; of numbers of 32 bits or fewer twice as many */
enum More { UINT8 = FLOAT64 + 1, INT8, UINT16, INT16, INT32, UINT32 };
static const int64_t WIDTH[] = {2, 2, 4, 8, 1, 1, 2, 2, 4, 4};

typedef struct { double high, low; } Two;
typedef struct { double n; Two sum, squares; double least, most, nan, plus, minus; } Pool;

INLINE Two two(double high, double low) {
    Two t = {high + low, 0};
    t.low = low - (t.high - high);
    if (!isfinite(t.high) || !isfinite(t.low)) t.high = high, t.low = 0;
    return t;
}
INLINE Two plus(Two a, Two b) { add_pair(&a.high, &a.low, b.high, b.low); return a; }
INLINE Two times(Two a, Two b) {
    double product = a.high * b.high;
    return two(product, __builtin_fma(a.high, b.high, -product) + (a.high * b.low + a.low * b.high));
}
INLINE Two over(Two a, double by) { divide_pair(&a.high, &a.low, by); return a; }

/* Chan's merge of a piece into what came before. */
static void merge(Pool *all, const Pool *piece) {
    if (piece->least < all->least) all->least = piece->least;
    if (piece->most > all->most) all->most = piece->most;
    all->nan += piece->nan, all->plus += piece->plus, all->minus += piece->minus;
    if (!piece->n) return;
    if (all->n) {
        Two mean = over(all->sum, all->n), other = over(piece->sum, piece->n), minus = {-mean.high, -mean.low};
        Two distance = plus(other, minus), weight = over((Two){all->n * piece->n, 0}, all->n + piece->n);
        all->squares = plus(all->squares, plus(piece->squares, times(times(distance, distance), weight)));
        all->sum = plus(all->sum, piece->sum);
    } else
        all->sum = piece->sum, all->squares = piece->squares;
    all->n += piece->n;
}

/* ---- a piece of numbers in a buffer --------------------------------------------------------------- */

typedef int64_t Masks __attribute__((vector_size(64), aligned(8)));
INLINE Lanes chosen(Masks where, Lanes a, Lanes b) { return (Lanes)(((Masks)a & where) | ((Masks)b & ~where)); }

/* The sum and the extremes; a sum that is not finite tells that an element may not be. */
INLINE Two sum_of(const double *x, int64_t n, double *least, double *most) {
    Lanes high[SUMS] = {{0}}, low[SUMS] = {{0}}, small[SUMS], large[SUMS];
    for (int q = 0; q < SUMS; q++)
        for (int k = 0; k < LANES; k++) small[q][k] = x[0], large[q][k] = x[0];
    int64_t i = 0;
    for (; i + SUMS * LANES <= n; i += SUMS * LANES)
        for (int q = 0; q < SUMS; q++) {
            Lanes v, rest;
            memcpy(&v, x + i + q * LANES, sizeof v);
            small[q] = chosen(v < small[q], v, small[q]);
            large[q] = chosen(v > large[q], v, large[q]);
            TWO_SUM(high[q], rest, high[q], v);
            low[q] += rest;
        }
    Two sum = {0, 0};
    add_lanes(high, low, 1, &sum.high, &sum.low);
    *least = *most = x[0];
    for (int q = 0; q < SUMS; q++)
        for (int k = 0; k < LANES; k++) {
            if (small[q][k] < *least) *least = small[q][k];
            if (large[q][k] > *most) *most = large[q][k];
        }
    for (; i < n; i++) {
        if (x[i] < *least) *least = x[i];
        if (x[i] > *most) *most = x[i];
        sum = plus(sum, (Two){x[i], 0});
    }
    return sum;
}

/* The squares about the mean, and what is left of the deviations' sum, which the mean's own rounding leaves. */
INLINE Two squares_of(const double *x, int64_t n, Two sum) {
    double mean = over(sum, (double)n).high;
    Lanes high[SUMS] = {{0}}, low[SUMS] = {{0}}, away = (Lanes){0} - mean;
    int64_t i = 0;
    for (; i + SUMS * LANES <= n; i += SUMS * LANES)
        for (int q = 0; q < SUMS; q++) {
            Lanes v, d, rest, square, lost, error;
            memcpy(&v, x + i + q * LANES, sizeof v);
            TWO_SUM(d, rest, v, away);
            square = d * d;
            for (int k = 0; k < LANES; k++) error[k] = __builtin_fma(d[k], d[k], -square[k]);
            TWO_SUM(high[q], lost, high[q], square);
            low[q] += lost + (error + 2 * d * rest);
        }
    Two squares = {0, 0};
    add_lanes(high, low, 1, &squares.high, &squares.low);
    for (; i < n; i++) {
        Two d;
        TWO_SUM(d.high, d.low, x[i], -mean);
        squares = plus(squares, times(d, d));
    }
    double product = mean * (double)n;
    Two left = plus(sum, (Two){-product, -__builtin_fma(mean, (double)n, -product)}), correction = over(times(left, left), (double)n);
    return plus(squares, (Two){-correction.high, -correction.low});
}

/* Numbers that are not finite are counted and left out. */
#define FINITE_ALONE(name, type)                                       \
    static int64_t name(type *x, int64_t n, Pool *piece) {             \
        int64_t kept = 0;                                              \
        for (int64_t i = 0; i < n; i++)                                \
            if (isfinite(x[i])) x[kept++] = x[i];                      \
            else if (isnan(x[i])) piece->nan++;                        \
            else if (x[i] > 0) piece->plus++;                          \
            else piece->minus++;                                       \
        return kept;                                                   \
    }
FINITE_ALONE(finite_doubles, double)
FINITE_ALONE(finite_floats, float)

EVERY_PROCESSOR
static void pairs_of(double *x, int64_t n, Pool *all) {
    Pool piece = {.least = INFINITY, .most = -INFINITY};
    Two sum = sum_of(x, n, &piece.least, &piece.most);
    if (!isfinite(sum.high)) {
        n = finite_doubles(x, n, &piece);
        piece.least = INFINITY, piece.most = -INFINITY;
        if (n) sum = sum_of(x, n, &piece.least, &piece.most);
    }
    if (n) {
        piece.n = (double)n, piece.sum = sum;
        piece.squares = squares_of(x, n, sum);
    }
    merge(all, &piece);
}

/* ---- a piece of numbers of 24 bits or fewer -------------------------------------------------------- */

enum { FEW = 2, PLACES = 16 };

typedef float Floats __attribute__((vector_size(64), aligned(4)));
typedef int32_t Marks __attribute__((vector_size(64), aligned(4)));
INLINE Floats fewer(Marks where, Floats a, Floats b) { return (Floats)(((Marks)a & where) | ((Marks)b & ~where)); }

/* About the mean: that of some elements from all over the piece. */
INLINE float pilot_of(const char *x, int64_t n) {
    Lanes some = {0};
    if (n < PLACES * LANES) {
        float first;
        memcpy(&first, x, sizeof first);
        return first;
    }
    for (int64_t place = 0; place < PLACES; place++)
        some += eight_of(x, place * (n - LANES) / (PLACES - 1), LANES, 1);
    double sum = 0;
    for (int k = 0; k < LANES; k++) sum += some[k];
    return (float)(sum / (PLACES * LANES));
}

/* The sum of the deviations from a pilot, their squares, and the extremes. Deviations are exact, or nearly so, and have bits
 * to spare, so that two of them are added plainly, and two squares. A sum that is not finite tells that
 * an element may not be. */
INLINE Two deviations(const char *x, int64_t n, float pilot, Two *squares, Pool *piece) {
    Lanes sums[SUMS] = {{0}}, rests[SUMS] = {{0}}, high[SUMS] = {{0}}, low[SUMS] = {{0}}, lost, d, away = (Lanes){0} - (double)pilot;
    float least = INFINITY, most = -INFINITY;
    Floats v, small[SUMS], large[SUMS];
    for (int q = 0; q < SUMS; q++) small[q] = (Floats){0} + least, large[q] = (Floats){0} + most;
    int64_t i = 0;
    for (; i + FEW * SUMS * LANES <= n; i += FEW * SUMS * LANES)
#pragma GCC unroll 4
        for (int q = 0; q < SUMS; q++) {
            Lanes few = {0}, some = {0};
            int64_t at = i + q * FEW * LANES;
            for (int k = 0; k < FEW / 2; k++) {
                memcpy(&v, x + (at + 2 * k * LANES) * (int64_t)sizeof(float), sizeof v);
                small[q] = fewer(v < small[q], v, small[q]);
                large[q] = fewer(v > large[q], v, large[q]);
            }
            for (int k = 0; k < FEW; k++) {
                d = eight_of(x, at + k * LANES, LANES, 1) + away;
                some += d;
                few += d * d;
            }
            TWO_SUM(sums[q], lost, sums[q], some);
            rests[q] += lost;
            TWO_SUM(high[q], lost, high[q], few);
            low[q] += lost;
        }
    Two sum = {0, 0};
    *squares = sum;
    add_lanes(sums, rests, 1, &sum.high, &sum.low);
    add_lanes(high, low, 1, &squares->high, &squares->low);
    for (int q = 0; q < SUMS; q++)
        for (int k = 0; k < 2 * LANES; k++) {
            least = small[q][k] < least ? small[q][k] : least;
            most = large[q][k] > most ? large[q][k] : most;
        }
    for (; i < n; i++) {
        float one;
        memcpy(&one, x + i * (int64_t)sizeof one, sizeof one);
        least = one < least ? one : least;
        most = one > most ? one : most;
        double rest, deviation = (double)one - (double)pilot;
        TWO_SUM(sum.high, rest, sum.high, deviation);
        sum.low += rest;
        TWO_SUM(squares->high, rest, squares->high, deviation * deviation);
        squares->low += rest;
    }
    piece->least = least, piece->most = most;
    return sum;
}

/* In one pass about a pilot, and in a second about the mean where that would cost digits. */
EVERY_PROCESSOR
static void singles_of(const char *x, int64_t n, Pool *all) {
    float finite[2 * PIECE];
    Pool piece = {.least = INFINITY, .most = -INFINITY};
    float pilot = pilot_of(x, n);
    Two squares, correction;
    Two sum = deviations(x, n, pilot, &squares, &piece);
    if (!isfinite(sum.high)) {
        memcpy(finite, x, (size_t)n * sizeof *finite);
        n = finite_floats(finite, n, &piece);
        x = (const char *)finite;
        piece.least = INFINITY, piece.most = -INFINITY;
        if (n) sum = deviations(x, n, pilot = pilot_of(x, n), &squares, &piece);
    }
    if (n) {
        for (int again = 0;; again++) {
            correction = over(times(sum, sum), (double)n);
            if (again || 5 * correction.high <= squares.high) break; /* a quarter of what is left, at most */
            sum = deviations(x, n, pilot = (float)(pilot + sum.high / (double)n), &squares, &piece);
        }
        piece.n = (double)n;
        piece.sum = plus((Two){(double)pilot * (double)n, 0}, sum);
        piece.squares = plus(squares, (Two){-correction.high, -correction.low});
    }
    merge(all, &piece);
}

EVERY_PROCESSOR
static void integers_of(const int16_t *x, int64_t n, int64_t shift, Pool *all) {
    int64_t sum = 0, squares = 0;
    int16_t least = x[0], most = x[0];
    for (int64_t i = 0; i < n; i++) {
        int32_t v = x[i];
        sum += v;
        squares += (int64_t)v * v;
        least = x[i] < least ? x[i] : least;
        most = x[i] > most ? x[i] : most;
    }
    Pool piece = {.n = (double)n, .least = (double)(least + shift), .most = (double)(most + shift)};
    piece.sum.high = (double)(sum + n * shift);
    int64_t both = n * squares - sum * sum; /* below 2^57 */
    piece.squares = over((Two){(double)both, (double)(both - (int64_t)(double)both)}, (double)n);
    merge(all, &piece);
}

EVERY_PROCESSOR
static void bytes_of(const uint8_t *x, int64_t n, Pool *all) {
    uint32_t sum = 0, squares = 0;
    uint8_t least = x[0], most = x[0];
    for (int64_t i = 0; i < n; i++) {
        sum += x[i];
        squares += (uint32_t)x[i] * x[i];
        least = x[i] < least ? x[i] : least;
        most = x[i] > most ? x[i] : most;
    }
    Pool piece = {.n = (double)n, .least = least, .most = most};
    piece.sum.high = sum;
    piece.squares = over((Two){(double)(n * (int64_t)squares - (int64_t)sum * sum), 0}, (double)n);
    merge(all, &piece);
}

/* ---- gathering ------------------------------------------------------------------------------------ */

#define GATHER(type, into, expression)                                                             \
    if (run == 1)                                                                                  \
        for (int64_t row = 0; row < rows; row++) {                                                 \
            type e;                                                                                \
            memcpy(&e, x + row * step, sizeof e);                                                  \
            (into)[row] = (expression);                                                            \
        }                                                                                          \
    else for (int64_t row = 0; row < rows; row++) {                                                     \
        const char *from_ = x + row * step;                                                        \
        for (int64_t i = 0; i < run; i++) {                                                        \
            type e;                                                                                \
            memcpy(&e, from_ + i * (int64_t)sizeof e, sizeof e);                                   \
            (into)[row * run + i] = (expression);                                                  \
        }                                                                                          \
    }                                                                                              \
    break;

/* Some rows of runs of one channel, `step` bytes apart; what lies side by side already is read where it is. */
EVERY_PROCESSOR
static void piece_of(const char *x, int64_t dtype, int64_t rows, int64_t step, int64_t run, Pool *all) {
    double wide[PIECE];
    float *floats = (float *)wide;
    int16_t *narrow = (int16_t *)wide;
    uint8_t *bytes = (uint8_t *)wide;
    int64_t n = rows * run;
    if (rows == 1 && (dtype == FLOAT32 || dtype == UINT8)) {
        if (dtype == FLOAT32) singles_of(x, n, all);
        else bytes_of((const uint8_t *)x, n, all);
        return;
    }
    switch (dtype) {
    case FLOAT16: GATHER(uint16_t, floats, (float)from_half(e))
    case BFLOAT16: GATHER(uint16_t, floats, float_of((uint32_t)e << 16))
    case FLOAT32: GATHER(float, floats, e)
    case FLOAT64: GATHER(double, wide, e)
    case INT32: GATHER(int32_t, wide, e)
    case UINT32: GATHER(uint32_t, wide, e)
    case UINT8: GATHER(uint8_t, bytes, e)
    case INT8: GATHER(int8_t, narrow, e)
    case UINT16: GATHER(uint16_t, narrow, (int16_t)(e - 32768))
    default: GATHER(int16_t, narrow, e)
    }
    if (dtype == UINT8) bytes_of(bytes, n, all);
    else if (dtype == INT8 || dtype == UINT16 || dtype == INT16) integers_of(narrow, n, dtype == UINT16 ? 32768 : 0, all);
    else if (dtype < FLOAT64) singles_of((const char *)floats, n, all);
    else pairs_of(wide, n, all);
}

/* Add a block in C order to what its items' channels have added up to so far: a Pool for each item and channel. */
void normcli_pool(const char *x, int64_t dtype, int64_t items, int64_t outer, int64_t kept, int64_t inner, Pool *all) {
    int64_t width = WIDTH[dtype], step = kept * inner * width;
    int64_t most = dtype == FLOAT64 || dtype >= INT32 ? PIECE : 2 * PIECE;
    int64_t run = inner < most ? inner : most, rows = most / run;
    for (int64_t item = 0; item < items; item++, x += outer * step, all += kept)
        for (int64_t row = 0; row < outer; row += rows)
            for (int64_t channel = 0; channel < kept; channel++) {
                const char *from = x + row * step + channel * inner * width;
                int64_t few = outer - row < rows ? outer - row : rows;
                for (int64_t at = 0; at < inner; at += run)
                    piece_of(from + at * width, dtype, few, step, inner - at < run ? inner - at : run, all + channel);
            }
}
