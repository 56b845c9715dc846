// Matrix products of a few rows, in registers: R rows times C vectors of columns are accumulated at a time.
#pragma once

#include "vector.h"

constexpr int ACCUMULATORS = W == 16 ? 16 : 8;  // half of the registers of the target

enum class Result { set, add };

// y[r, :] = sum over i < inner of x(r, i) A[i, :] (+ bias), for R rows and C vectors of columns; `add`: on top of y.
// x(r, i) is x[r * x_row + i * x_step], so that x can be read as its transpose; A and y have rows of `out`.
template <int R, int C, Result result>
INLINE void product_block(const float* x, int x_row, int x_step, int inner, const float* A, const float* bias, float* y,
                          int out) {
    vec sum[R][C];
    for (int r = 0; r < R; r++)
        for (int c = 0; c < C; c++) {
            sum[r][c] = bias ? load(bias + c * W) : vec{};
            if (result == Result::add) sum[r][c] += load(y + r * out + c * W);
        }
    for (int i = 0; i < inner; i++) {
        vec a[C];
        for (int c = 0; c < C; c++) a[c] = load(A + i * out + c * W);
        for (int r = 0; r < R; r++) {
            const vec x_ri = broadcast(x[r * x_row + i * x_step]);
            for (int c = 0; c < C; c++) sum[r][c] += x_ri * a[c];
        }
    }
    for (int r = 0; r < R; r++)
        for (int c = 0; c < C; c++) store(y + r * out + c * W, sum[r][c]);
}

// All rows of C vectors of columns: R at a time, then R / 2, ... 1.
template <int R, int C, Result result>
INLINE void linear_rows(const float* x, int in, const float* A, const float* bias, float* y, int out, int n) {
    int t = 0;
    for (; t + R <= n; t += R) product_block<R, C, result>(x + t * in, in, 1, in, A, bias, y + t * out, out);
    if constexpr (R > 1)
        if (t < n) linear_rows<R / 2, C, result>(x + t * in, in, A, bias, y + t * out, out, n - t);
}

template <int C, Result result>
INLINE int linear_columns(const float* x, int in, const float* A, const float* bias, float* y, int out, int n, int c) {
    for (; c + C * W <= out; c += C * W)
        linear_rows<ACCUMULATORS / C, C, result>(x, in, A + c, bias ? bias + c : nullptr, y + c, out, n);
    return c;
}

// y = x A + bias.   x [n][in], A [in][out], bias [out] or null, y [n][out]; out is a multiple of W.
template <Result result = Result::set>
INLINE void linear(const float* x, int in, const float* A, const float* bias, float* y, int out, int n) {
    int c = linear_columns<4, result>(x, in, A, bias, y, out, n, 0);
    c = linear_columns<2, result>(x, in, A, bias, y, out, n, c);
    linear_columns<1, result>(x, in, A, bias, y, out, n, c);
}

template <int C>
INLINE int gradient_columns(const float* x, int in, const float* dy, int out, int n, float* dA, int c) {
    constexpr int R = ACCUMULATORS / C;
    for (; c + C * W <= out; c += C * W)
        for (int i = 0; i < in; i += R)
            product_block<R, C, Result::add>(x + i, 1, in, n, dy + c, nullptr, dA + i * out + c, out);
    return c;
}

// dA += x^T dy.   x [n][in], dy [n][out], dA [in][out]; in is a multiple of ACCUMULATORS, out of W.
INLINE void linear_gradient(const float* x, int in, const float* dy, int out, int n, float* dA) {
    int c = gradient_columns<4>(x, in, dy, out, n, dA, 0);
    c = gradient_columns<2>(x, in, dy, out, n, dA, c);
    gradient_columns<1>(x, in, dy, out, n, dA, c);
}

// db += sum over rows of dy.   dy [n][out], db [out]
INLINE void bias_gradient(const float* dy, int out, int n, float* db) {
    for (int c = 0; c < out; c += W) {
        vec sum = load(db + c);
        for (int t = 0; t < n; t++) sum += load(dy + t * out + c);
        store(db + c, sum);
    }
}
