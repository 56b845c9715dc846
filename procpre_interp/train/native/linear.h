// Matrix products with the tokens of a group along the vector lanes: activations are [features][STRIDE], a row per
// feature and a column per token. Sums stay in registers until they are whole.
#pragma once

#include "vector.h"

// Columns of every buffer: one per token of a group, and what vector loads reach beyond the last. TOKENS is a power of
// two from 256 on, so the columns of one token lie in different sets of the cache. Known to the compiler, so that rows
// are found without pointers of their own.
constexpr int STRIDE = TOKENS + 16;

constexpr int ACCUMULATORS = W == 16 ? 16 : 8;  // half of the registers of the target

// y[r, :] = base[r, :] + sum over i < inner of x(r, i) A[i, :], for R rows and C vectors of columns; `base` gives the
// vectors that sums start from, and `finish` takes the whole sums: both are called with r and c.
// x(r, i) is x[r * x_row + i * x_step], so that x can be read as its transpose; rows of A are a_row apart.
template <int R, int C, class Base, class Finish>
INLINE void product_block(const float* x, int x_row, int x_step, int inner, const float* A, int a_row, const Base& base,
                          const Finish& finish) {
    vec sum[R][C];
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int c = 0; c < C; c++) sum[r][c] = base(r, c);
    for (int i = 0; i < inner; i++) {
        vec a[C];
        UNROLL for (int c = 0; c < C; c++) a[c] = load(A + i * a_row + c * W);
        UNROLL for (int r = 0; r < R; r++) {
            const vec x_ri = broadcast(x[r * x_row + i * x_step]);
            UNROLL for (int c = 0; c < C; c++) sum[r][c] += x_ri * a[c];
        }
    }
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int c = 0; c < C; c++) finish(r, c, sum[r][c]);
}

// A matrix that a product reads: A(o, i) = data[o * out_step + i * in_step].
struct Matrix {
    const float* data;
    int out_step, in_step;
};

// C vectors of tokens, all outputs; then the rest of the tokens, fewer at a time.
template <int C, class Base, class Finish>
INLINE void linear_tokens(Matrix A, int in, const float* x, int out, int t, int n, const Base& base,
                          const Finish& finish) {
    constexpr int R = ACCUMULATORS / C;
    for (; t + C * W <= n; t += C * W)
        for (int o = 0; o < out; o += R)
            product_block<R, C>(
                A.data + o * A.out_step, A.out_step, A.in_step, in, x + t, STRIDE,
                [&](int r, int c) { return base(o + r, (o + r) * STRIDE + t + c * W); },
                [&](int r, int c, vec sum) { finish((o + r) * STRIDE + t + c * W, sum); });
    if constexpr (C > 1)
        if (t < n) linear_tokens<C / 2>(A, in, x, out, t, n, base, finish);
}

// sum_i A(o, i) x[i, t] for outputs o and tokens t < n, rounded up to whole vectors. `base(o, at)` is what is added to
// output o, and `finish(at, sum)` takes the sum, where at = o * STRIDE + t.   x [in][STRIDE]; out is a multiple of
// ACCUMULATORS
template <class Base, class Finish>
INLINE void linear(Matrix A, int in, const float* x, int out, int n, const Base& base, const Finish& finish) {
    linear_tokens<4>(A, in, x, out, 0, padded(n), base, finish);
}

// The usual bases: nothing, a bias [out], or a bias on top of what stands in y [out][STRIDE].
INLINE auto from_zero() {
    return [](int, int) { return vec{}; };
}
INLINE auto from_bias(const float* bias) {
    return [=](int o, int) { return broadcast(bias[o]); };
}
INLINE auto on_top(const float* bias, const float* y) {
    return [=](int o, int at) { return broadcast(bias[o]) + load(y + at); };
}
// The usual end: the sums go to y [out][STRIDE].
INLINE auto into(float* y) {
    return [=](int at, vec sum) { store(y + at, sum); };
}

// dA[f, :] += sum over tokens of y[f, t] x[t, :].   y [features][STRIDE], x [n][columns] with the columns along the
// lanes, dA [features][columns]; features is a multiple of ACCUMULATORS, columns of W.
template <int C>
INLINE int gradient_columns(const float* y, int features, const float* x, int columns, int n, float* dA,
                            int c) {
    constexpr int R = ACCUMULATORS / C;
    for (; c + C * W <= columns; c += C * W)
        for (int f = 0; f < features; f += R) {
            float* block = dA + f * columns + c;
            product_block<R, C>(
                y + f * STRIDE, STRIDE, 1, n, x + c, columns, [&](int r, int k) { return load(block + r * columns + k * W); },
                [&](int r, int k, vec sum) { store(block + r * columns + k * W, sum); });
        }
    return c;
}
INLINE void linear_gradient(const float* y, int features, const float* x, int columns, int n, float* dA) {
    const int c = gradient_columns<4>(y, features, x, columns, n, dA, 0);
    gradient_columns<1>(y, features, x, columns, n, dA, c);
}

// db[f] += sum over tokens of dy[f, t].   dy [features][STRIDE], db [features]; features is a multiple of W
INLINE void bias_gradient(const float* dy, int features, int n, float* db) {
    const int last = (n - 1) / W * W;  // what stands beyond the last token does not count
    const ivec real = lane_numbers() < n - last;
    for (int f = 0; f < features; f += W) {
        vec sum[W];
        for (int r = 0; r < W; r++) {
            const float* row = dy + (f + r) * STRIDE;
            sum[r] = real ? load(row + last) : vec{};
            for (int t = 0; t < last; t += W) sum[r] += load(row + t);
        }
        store(db + f, load(db + f) + sums(sum));
    }
}
