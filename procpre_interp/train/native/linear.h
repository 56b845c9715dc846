// Matrix products with the tokens of a group along the vector lanes: activations are [features][STRIDE], a row per
// feature and a column per token. Sums stay in registers until they are whole.
#pragma once

#include "sections.h"
#include "vector.h"

// Columns of every buffer: one per token of a group, and what vector loads reach beyond the last. TOKENS is a power of
// two from 256 on, so the columns of one token lie in different sets of the cache. Known to the compiler, so that rows
// are found without pointers of their own.
constexpr int STRIDE = TOKENS + 16;

// A block of sums is ROWS features times VECTORS vectors: half of the registers of the target or more.
constexpr int ROWS = W == 16 ? 8 : 4, VECTORS = W == 16 ? 3 : 2;

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

// ---- Weights --------------------------------------------------------------------------------------------------------

constexpr int PANEL = 8;  // outputs whose weights lie beside each other: a block reads its weights in one stream

// A matrix that a product reads: A(o, i) = data[o / PANEL * size + i * PANEL + o % PANEL].
struct Panels {
    const float* data;
    int size;  // of a panel

    Panels from_output(int o) const { return {data + o / PANEL * size, size}; }
    Panels from_input(int i) const { return {data + i * PANEL, size}; }
};

// Panels of A, of `value(o, i)`.   panels [out / PANEL][in][PANEL]
template <class Value>
INLINE void pack_panels(int out, int in, float* panels, const Value& value) {
    for (int o = 0; o < out; o += PANEL)
        for (int i = 0; i < in; i++)
            UNROLL for (int r = 0; r < PANEL; r++) *panels++ = value(o + r, i);
}

// ---- Forward, and the gradient of x ---------------------------------------------------------------------------------

// C vectors of tokens, all outputs; then the rest of the tokens, fewer at a time.
template <int X_ROW, int C, class Base, class Finish>
INLINE void linear_tokens(Panels A, int in, const float* x, int out, int t, int n, const Base& base,
                          const Finish& finish) {
    for (; t + C * W <= n; t += C * W)
        for (int o = 0; o < out; o += ROWS)
            product_block<ROWS, C>(
                A.data + o / PANEL * A.size + o % PANEL, 1, PANEL, in, x + t, X_ROW,
                [&](int r, int c) { return base(o + r, t + c * W); },
                [&](int r, int c, vec sum) { finish(o + r, t + c * W, sum); });
    if constexpr (C > 1)
        if (t < n) linear_tokens<X_ROW, C / 2>(A, in, x, out, t, n, base, finish);
}

// sum_i A(o, i) x[i, t] for outputs o and tokens t < n, rounded up to whole vectors. `base(o, t)` is what is added to
// output o of W tokens, and `finish(o, t, sum)` takes the sum.   x [in][X_ROW]; out is a multiple of PANEL
template <int X_ROW = STRIDE, class Base, class Finish>
INLINE void linear(Panels A, int in, const float* x, int out, int n, const Base& base, const Finish& finish) {
    section(PRODUCTS);
    linear_tokens<X_ROW, VECTORS>(A, in, x, out, 0, padded(n), base, finish);
}

// The usual bases: nothing, a bias [out], or a bias on top of what stands in y [out][STRIDE].
INLINE auto from_zero() {
    return [](int, int) { return vec{}; };
}
INLINE auto from_bias(const float* bias) {
    return [=](int o, int) { return broadcast(bias[o]); };
}
INLINE auto on_top(const float* bias, const float* y) {
    return [=](int o, int t) { return broadcast(bias[o]) + load(y + o * STRIDE + t); };
}
// The usual end: the sums go to y [out][STRIDE].
INLINE auto into(float* y) {
    return [=](int o, int t, vec sum) { store(y + o * STRIDE + t, sum); };
}

constexpr int DEPTH = 256;  // inputs of so few tokens that stay in the first-level cache

// The same into y [out][STRIDE], for many inputs: DEPTH of them at a time.
template <int X_ROW = STRIDE, class Base>
INLINE void deep_linear(Panels A, int in, const float* x, int out, int n, const Base& base, float* y) {
    linear<X_ROW>(A, in < DEPTH ? in : DEPTH, x, out, n, base, into(y));
    for (int i = DEPTH; i < in; i += DEPTH)
        linear<X_ROW>(A.from_input(i), in - i < DEPTH ? in - i : DEPTH, x + i * X_ROW, out, n,
                      [=](int o, int t) { return load(y + o * STRIDE + t); }, into(y));
}

// ---- The gradient of weights and biases -----------------------------------------------------------------------------

// Rows of transposed activations, a row per token: columns are those of one token, which lie in different sets.
template <int columns> constexpr int TOKEN_ROW = columns + (columns % 128 ? 0 : 16);

// dA[f, :] += sum over tokens of y[f, t] x[t, :].   y [features][Y_ROW], x [n][TOKEN_ROW<columns>] with the columns
// along the lanes, dA [features][columns]; features is a multiple of 16, columns of W.
template <int Y_ROW, int columns, int C>
INLINE int gradient_columns(const float* y, int features, const float* x, int n, float* dA, int c) {
    constexpr int R = C == 1 ? 2 * ROWS : ROWS;
    for (; c + C * W <= columns; c += C * W)
        for (int f = 0; f < features; f += R) {
            float* block = dA + std::size_t(f) * columns + c;
            product_block<R, C>(
                y + f * Y_ROW, Y_ROW, 1, n, x + c, TOKEN_ROW<columns>,
                [&](int r, int k) { return load(block + r * columns + k * W); },
                [&](int r, int k, vec sum) { store(block + r * columns + k * W, sum); });
        }
    return c;
}
template <int columns, int Y_ROW = STRIDE>
INLINE void linear_gradient(const float* y, int features, const float* x, int n, float* dA) {
    section(PRODUCTS);
    const int c = gradient_columns<Y_ROW, columns, VECTORS>(y, features, x, n, dA, 0);
    gradient_columns<Y_ROW, columns, 1>(y, features, x, n, dA, c);
}

// db[f] += sum over tokens of value(f, t), which is called for vectors of tokens.   db [features], a multiple of W
template <class Value>
INLINE void add_sums(int features, int n, float* db, const Value& value) {
    section(LAYOUT);
    const int last = (n - 1) / W * W;  // what stands beyond the last token does not count
    const ivec real = lane_numbers() < n - last;
    for (int f = 0; f < features; f += W) {
        vec sum[W];
        for (int r = 0; r < W; r++) {
            sum[r] = real ? value(f + r, last) : vec{};
            for (int t = 0; t < last; t += W) sum[r] += value(f + r, t);
        }
        store(db + f, load(db + f) + sums(sum));
    }
}
INLINE void bias_gradient(const float* dy, int features, int n, float* db) {
    add_sums(features, n, db, [=](int f, int t) { return load(dy + f * STRIDE + t); });
}
