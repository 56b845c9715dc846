// The layers of a GPT-2 block, but for attention, on a group of sequences: what they compute, and the gradient of it.
//
// Sizes fixed at compile time: D = d_model, H = n_heads, D_HEAD, F = d_mlp. Tokens lie along the lanes, so that no sum
// over features crosses them.
#pragma once

#include <cmath>
#include <cstring>

#include "linear.h"

constexpr int D = D_MODEL, H = N_HEADS, D_HEAD = D / H, F = D_MLP;
static_assert(D % 16 == 0 && F % 16 == 0 && D % H == 0);

// ---- LayerNorm ------------------------------------------------------------------------------------------------------
// z = (x - mean x) r,  r = 1 / sqrt(mean (x - mean x)^2 + epsilon). Gain and bias are in the weights that read z:
// W (gain z + bias) + b = (W gain) z + (b + W bias), once a step and not once a token.

// x, z [D][STRIDE], inverse_std [STRIDE]
INLINE void normalise(const float* x, float epsilon, float* z, float* inverse_std, int n) {
    section(LAYER_NORM);
    for (int t = 0; t < n; t += W) {
        vec total{}, squares{};
        UNROLL for (int c = 0; c < D; c++) total += load(x + c * STRIDE + t);
        const vec mean = total * (1.0f / D);
        UNROLL for (int c = 0; c < D; c++) {
            const vec centred = load(x + c * STRIDE + t) - mean;
            squares += centred * centred;
        }
        const vec r = 1.0f / square_root(squares * (1.0f / D) + epsilon);
        store(inverse_std + t, r);
        UNROLL for (int c = 0; c < D; c++) store(z + c * STRIDE + t, (load(x + c * STRIDE + t) - mean) * r);
    }
}

// dx = (base +) r (dz - mean dz - z mean(dz z)): the two means are what normalisation took away, since a shift of x and a
// change of its length leave z as it was.   dz, z, base or null, dx [D][STRIDE]
INLINE void normalise_gradient(const float* dz, const float* z, const float* inverse_std, const float* base, float* dx,
                               int n) {
    section(LAYER_NORM);
    for (int t = 0; t < n; t += W) {
        vec total{}, along{};
        UNROLL for (int c = 0; c < D; c++) {
            const vec g = load(dz + c * STRIDE + t);
            total += g;
            along += g * load(z + c * STRIDE + t);
        }
        const vec r = load(inverse_std + t), mean = total * (1.0f / D), slope = along * (1.0f / D);
        UNROLL for (int c = 0; c < D; c++) {
            const vec d = (load(dz + c * STRIDE + t) - mean - load(z + c * STRIDE + t) * slope) * r;
            store(dx + c * STRIDE + t, base ? load(base + c * STRIDE + t) + d : d);
        }
    }
}

// ---- GELU -----------------------------------------------------------------------------------------------------------
// In its tanh approximation: x s(2u) with s the logistic function and u = sqrt(2/pi) (x + .044715 x^3).

constexpr float GELU_SCALE = 0.7978845608028654f, GELU_CUBE = 0.044715f;

struct Gelu {
    vec value, slope;
};

// With gate s = s(2u): GELU = x s,  GELU' = s + x s (1 - s) 2u',  2u' = 2 sqrt(2/pi) (1 + 3 * .044715 x^2).
INLINE Gelu gelu(vec x) {
    const vec square = x * x;
    // -2u in units of ln 2: x (a + b x^2)
    const vec exponent = x * (GELU_CUBE * -2.0f * GELU_SCALE * LOG2_E * square + -2.0f * GELU_SCALE * LOG2_E);
    const vec s = reciprocal(1.0f + exp2(minimum(broadcast(100.0f), exponent))), y = x * s;
    const vec du_2 = 3.0f * GELU_CUBE * 2.0f * GELU_SCALE * square + 2.0f * GELU_SCALE;
    return {y, s + (y - y * s) * du_2};
}

// ---- Layout ---------------------------------------------------------------------------------------------------------

// x^T [columns][xT_row] of x [rows][x_row]; rows and columns are rounded up to multiples of W.
INLINE void transpose(const float* x, int x_row, int rows, int columns, float* xT, int xT_row) {
    section(LAYOUT);
    for (int t = 0; t < rows; t += W)
        for (int c = 0; c < columns; c += W) {
            vec block[W];
            for (int r = 0; r < W; r++) block[r] = load(x + (t + r) * x_row + c);
            transpose(block);
            for (int r = 0; r < W; r++) store(xT + (c + r) * xT_row + t, block[r]);
        }
}
