// The layers of a GPT-2 block on one sequence: what they compute, and the gradient of it.
//
// Sizes fixed at compile time: D = d_model, H = n_heads, D_HEAD, F = d_mlp. Of a sequence's n tokens only m are "read":
// all of them, or in the last layer those whose prediction is scored; position[i] is where the i-th stands.
#pragma once

#include <cmath>
#include <cstring>

#include "linear.h"

constexpr int D = D_MODEL, H = N_HEADS, D_HEAD = D / H, F = D_MLP;
static_assert(D % 16 == 0 && F % 16 == 0 && D % H == 0);

// ---- LayerNorm ------------------------------------------------------------------------------------------------------

// LayerNorm: z = (x - mean x) r,  r = 1 / sqrt(mean (x - mean x)^2 + epsilon),  y = gain z + bias.
// y = normalised * gain + bias.   x, normalised, y [n][D]; inverse_std [n]
INLINE void layer_norm(const float* x, const float* gain, const float* bias, float epsilon, float* normalised,
                       float* inverse_std, float* y, int n) {
    for (int t = 0; t < n; t++) {
        vec centred[D / W], total{}, squares{};
        for (int c = 0; c < D / W; c++) total += centred[c] = load(x + t * D + c * W);
        const vec mean = sum_everywhere(total) * (1.0f / D);
        for (int c = 0; c < D / W; c++) {
            centred[c] -= mean;
            squares += centred[c] * centred[c];
        }
        const float r = 1.0f / std::sqrt(sum_everywhere(squares)[0] * (1.0f / D) + epsilon);
        inverse_std[t] = r;
        for (int c = 0; c < D / W; c++) {
            const vec z = centred[c] * r;
            store(normalised + t * D + c * W, z);
            store(y + t * D + c * W, z * load(gain + c * W) + load(bias + c * W));
        }
    }
}

// With g = gain dy: dx = r (g - mean g - z mean(g z)). The two means are what LayerNorm took away: a shift of x and a
// change of its length leave y as it was.
// dx = the gradient through the normalisation; dgain and dbias are added to.   dy, dx [n][D]
template <Result result>
INLINE void layer_norm_gradient(const float* dy, const float* normalised, const float* inverse_std, const float* gain,
                                float* dgain, float* dbias, float* dx, int n) {
    vec sum_gain[D / W], sum_bias[D / W];
    for (int c = 0; c < D / W; c++) {
        sum_gain[c] = load(dgain + c * W);
        sum_bias[c] = load(dbias + c * W);
    }
    for (int t = 0; t < n; t++) {
        vec g[D / W], z[D / W], total{}, along{};
        for (int c = 0; c < D / W; c++) {
            const vec d = load(dy + t * D + c * W);
            z[c] = load(normalised + t * D + c * W);
            sum_gain[c] += d * z[c];
            sum_bias[c] += d;
            g[c] = d * load(gain + c * W);
            total += g[c];
            along += g[c] * z[c];
        }
        const vec mean = sum_everywhere(total) * (1.0f / D), slope = sum_everywhere(along) * (1.0f / D);
        for (int c = 0; c < D / W; c++) {
            const vec d = (g[c] - mean - z[c] * slope) * inverse_std[t];
            store(dx + t * D + c * W, result == Result::add ? load(dx + t * D + c * W) + d : d);
        }
    }
    for (int c = 0; c < D / W; c++) {
        store(dgain + c * W, sum_gain[c]);
        store(dbias + c * W, sum_bias[c]);
    }
}

// ---- GELU -----------------------------------------------------------------------------------------------------------
// In its tanh approximation: x s(2u) with s the logistic function and u = sqrt(2/pi) (x + .044715 x^3).

constexpr float GELU_SCALE = 0.7978845608028654f, GELU_CUBE = 0.044715f;

// y = GELU(x); gate = s(2u) is kept for the gradient.   x, gate, y [size]
INLINE void gelu(const float* x, float* gate, float* y, int size) {
    for (int i = 0; i < size; i += W) {
        const vec z = load(x + i), cube = z * z * z;
        const vec exponent = (z + GELU_CUBE * cube) * (-2.0f * GELU_SCALE * LOG2_E);
        const vec s = 1.0f / (1.0f + exp2(exponent > 100.0f ? broadcast(100.0f) : exponent));
        store(gate + i, s);
        store(y + i, z * s);
    }
}

// With gate s = s(2u): GELU' = s + x s (1 - s) 2u',  2u' = 2 sqrt(2/pi) (1 + 3 * .044715 x^2).
// dx = dy * GELU'(x), in place.   x, gate, dy [size]
INLINE void gelu_gradient(const float* x, const float* gate, float* dy, int size) {
    for (int i = 0; i < size; i += W) {
        const vec z = load(x + i), s = load(gate + i);
        const vec du_2 = (1.0f + 3.0f * GELU_CUBE * (z * z)) * (2.0f * GELU_SCALE);
        store(dy + i, load(dy + i) * (s + z * s * (1.0f - s) * du_2));
    }
}

// ---- Attention ------------------------------------------------------------------------------------------------------
// Keys lie along the vector axis: K^T and V^T are [D][stride], zero beyond the last token. The pattern of a sequence is
// packed: query i has a row of row_length(i) floats for each head, the keys it may see and zeros up to a multiple of W.

constexpr int QUERIES = 4;  // queries that share the loads of K^T and V^T and the updates of their gradients

// xT [columns][xT_row] of x [rows][x_row]; rows and columns are multiples of W.
INLINE void transpose(const float* x, int x_row, int rows, int columns, float* xT, int xT_row) {
    for (int t = 0; t < rows; t += W)
        for (int c = 0; c < columns; c += W) {
            vec block[W];
            for (int r = 0; r < W; r++) block[r] = load(x + (t + r) * x_row + c);
            transpose(block);
            for (int r = 0; r < W; r++) store(xT + (c + r) * xT_row + t, block[r]);
        }
}

// x^T [D][stride] of x [n][D], whose rows up to a multiple of W can be written, and are set to zero.
INLINE void transpose_rows(float* x, int n, float* xT, int stride) {
    std::memset(x + n * D, 0, sizeof(float) * (padded(n) - n) * D);
    transpose(x, D, padded(n), D, xT, stride);
}

// y_j = sum_s P[head of j][s] x[s][j]: with x = V it is z = P V, with x = K and P = dS it is dq = dS K.
// Sums over keys of row[key] x^T[j][key], for all dimensions j; `row` of dimension j is that of its head.
// pattern [H][length], xT [D][stride], y [D]
INLINE void weigh_keys(const float* pattern, int length, const float* xT, int stride, float* y) {
    for (int j0 = 0; j0 < D; j0 += W) {
        vec sum[W]{};
        for (int s = 0; s < length; s += W)
            for (int j = 0; j < W; j++)
                sum[j] += load(pattern + (j0 + j) / D_HEAD * length + s) * load(xT + (j0 + j) * stride + s);
        store(y + j0, sums(sum));
    }
}

struct Partition {
    float largest, sum;  // of 2^score, the sum after 2^largest is taken out
};

// p_j = 2^(s_j - max s) / sum_k 2^(s_k - max s): base 2, since exp2 takes fewer instructions than exp; the factor
// log2(e) is in the queries.
// Softmax over the entries up to `position`, in place, of scores in units of ln 2; zero after them.   row [length]
INLINE Partition softmax(float* row, int length, int position) {
    const int last = position / W * W;  // where the last vector with a visible key begins
    const ivec visible = lane_numbers() <= position - last;
    vec largest = visible ? load(row + last) : broadcast(-1e30f);
    for (int s = 0; s < last; s += W) largest = maximum(largest, load(row + s));
    largest = maximum_everywhere(largest);
    vec total{};
    for (int s = 0; s < last; s += W) {
        const vec p = exp2(load(row + s) - largest);
        total += p;
        store(row + s, p);
    }
    const vec p = visible ? exp2(load(row + last) - largest) : vec{};
    store(row + last, p);
    const vec sum = sum_everywhere(total + p), inverse = 1.0f / sum;
    for (int s = 0; s <= last; s += W) store(row + s, load(row + s) * inverse);
    for (int s = last + W; s < length; s += W) store(row + s, vec{});
    return {largest[0], sum[0]};
}

// Floats of a row of the pattern, for Q queries that share it: the keys up to the last of their positions.
INLINE int row_length(const int* position, int queries) { return padded(position[queries - 1] + 1); }

// z = softmax(q K^T) V for Q queries, whose q is in units of ln 2 and scaled already; returns the pattern's end.
// q, z [Q][D], position [Q] ascending, KT, VT [D][stride], pattern [Q][H][row_length]
template <int Q>
INLINE float* attend_block(const float* q, const int* position, const float* KT, const float* VT, int stride,
                           float* pattern, float* z) {
    const int length = row_length(position, Q);
    for (int h = 0; h < H; h++) {
        for (int s = 0; s < length; s += W) {
            vec score[Q]{};
            for (int j = h * D_HEAD; j < (h + 1) * D_HEAD; j++) {
                const vec k = load(KT + j * stride + s);
                for (int i = 0; i < Q; i++) score[i] += broadcast(q[i * D + j]) * k;
            }
            for (int i = 0; i < Q; i++) store(pattern + (i * H + h) * length + s, score[i]);
        }
        for (int i = 0; i < Q; i++) softmax(pattern + (i * H + h) * length, length, position[i]);
    }
    for (int i = 0; i < Q; i++) weigh_keys(pattern + i * H * length, length, VT, stride, z + i * D);
    return pattern + Q * H * length;
}

// With z = P V, P = softmax(S) and dP = dz V^T: dS = P (dP - sum_k P dP). The sum over keys is dz . z, which costs
// D_HEAD products and no second pass. Then dq = dS K, dK += dS^T q, dV += P^T dz.
// The gradient of `attend_block`: dq is set, dKT and dVT are added to; both in the units of q. The pattern is used up:
// the gradient of the scores takes its place.
template <int Q>
INLINE float* attend_block_gradient(const float* q, const int* position, const float* KT, const float* VT, int stride,
                                    const float* z, const float* dz, float* pattern, float* dq, float* dKT,
                                    float* dVT) {
    const int length = row_length(position, Q);
    for (int h = 0; h < H; h++) {
        const int begin = h * D_HEAD, end = begin + D_HEAD;
        float along[Q]{};  // sum over keys of pattern x its gradient
        for (int i = 0; i < Q; i++)
            for (int j = begin; j < end; j++) along[i] += dz[i * D + j] * z[i * D + j];
        for (int s = 0; s < length; s += W) {
            vec dscore[Q]{}, p[Q];
            for (int j = begin; j < end; j++) {
                const vec v = load(VT + j * stride + s);
                for (int i = 0; i < Q; i++) dscore[i] += broadcast(dz[i * D + j]) * v;
            }
            for (int i = 0; i < Q; i++) {
                float* row = pattern + (i * H + h) * length + s;
                p[i] = load(row);
                dscore[i] = p[i] * (dscore[i] - along[i]);
                store(row, dscore[i]);
            }
            for (int j = begin; j < end; j++) {
                vec dk = load(dKT + j * stride + s), dv = load(dVT + j * stride + s);
                for (int i = 0; i < Q; i++) {
                    dk += broadcast(q[i * D + j]) * dscore[i];
                    dv += broadcast(dz[i * D + j]) * p[i];
                }
                store(dKT + j * stride + s, dk);
                store(dVT + j * stride + s, dv);
            }
        }
    }
    for (int i = 0; i < Q; i++) weigh_keys(pattern + i * H * length, length, KT, stride, dq + i * D);
    return pattern + Q * H * length;
}

// q, z [m][D], position [m] ascending, KT, VT [D][stride]; the pattern for QUERIES queries at a time, then singly.
INLINE void attend(const float* q, const int* position, int m, const float* KT, const float* VT, int stride,
                   float* pattern, float* z) {
    int i = 0;
    for (; i + QUERIES <= m; i += QUERIES)
        pattern = attend_block<QUERIES>(q + i * D, position + i, KT, VT, stride, pattern, z + i * D);
    for (; i < m; i++) pattern = attend_block<1>(q + i * D, position + i, KT, VT, stride, pattern, z + i * D);
}

INLINE void attend_gradient(const float* q, const int* position, int m, const float* KT, const float* VT, int stride,
                            const float* z, const float* dz, float* pattern, float* dq, float* dKT, float* dVT) {
    int i = 0;
    for (; i + QUERIES <= m; i += QUERIES)
        pattern = attend_block_gradient<QUERIES>(q + i * D, position + i, KT, VT, stride, z + i * D, dz + i * D,
                                                 pattern, dq + i * D, dKT, dVT);
    for (; i < m; i++)
        pattern = attend_block_gradient<1>(q + i * D, position + i, KT, VT, stride, z + i * D, dz + i * D, pattern,
                                           dq + i * D, dKT, dVT);
}

// ---- Cross-entropy --------------------------------------------------------------------------------------------------

// loss = log sum_v exp(l_v) - l_target;  dloss/dl = softmax(l) - onehot(target).
// -log softmax(logits)[target] in nats; the logits become its gradient, times scale. What stands beyond d_vocab becomes
// zero.   logits [padded(d_vocab)]
// In units of ln 2, l' = l log2(e): -log softmax(l)[t] = (max l' - l'_t) ln 2 + log sum_v 2^(l'_v - max l'). The
// largest is taken out so that no power overflows.
INLINE double cross_entropy(float* logits, int d_vocab, std::int64_t target, float scale) {
    const int length = padded(d_vocab);
    for (int v = 0; v < length; v += W) store(logits + v, load(logits + v) * LOG2_E);
    const double at_target = logits[target];
    const Partition partition = softmax(logits, length, d_vocab - 1);
    for (int v = 0; v < length; v += W) store(logits + v, load(logits + v) * scale);
    logits[target] -= scale;
    return (partition.largest - at_target) * LN_2 + std::log(partition.sum);
}
