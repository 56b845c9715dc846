// Causal attention of one sequence, and its gradient. Keys lie along the lanes: K^T and V^T are rows of the group's
// arrays, [D][STRIDE], begun at the sequence's first token; what stands beyond its last one is finite and weighs nothing.
//
// Scores are q k / sqrt(d_head) log2(e), since exp2 takes fewer instructions than exp; both factors are in the weights of
// q. p_j = e_j / sum_k e_k with e_j = 2^(s_j - max s). The pattern keeps e, and inverse_sum the rest: for each query and
// head, [H][STRIDE]. Queries go through in blocks of Q that share the loads of K^T and V^T, and whose reductions over
// lanes are done together, as a tree.
#pragma once

#include <type_traits>

#include "layers.h"

constexpr int QUERIES = 4;
constexpr float HIDDEN = -1e30f;  // the score of a key that comes after its query

// One number for each of Q queries, which are neighbours in a row.
template <int Q>
INLINE auto load_queries(const float* p) {
    if constexpr (Q == 4) return load_quad(p);
    else return *p;
}
INLINE void store(float* p, float x) { *p = x; }

// Floats of a row of the pattern, for Q queries that share it: the keys up to the last of their positions.
INLINE int row_length(const int* position, int queries) { return padded(position[queries - 1] + 1); }

// y[j, i] = sum over keys of pattern[head of j][i][key] x[j, key], for Q queries i and all dimensions j.
// pattern [length / W][H][Q][W], x, y [D][STRIDE]
template <int Q>
INLINE void weigh_keys(const float* pattern, int length, const float* x, float* y) {
    constexpr int DIMENSIONS = W / Q;  // whose sums for Q queries fill a vector
    for (int j0 = 0; j0 < D; j0 += DIMENSIONS) {
        vec sum[W]{};
        for (int s = 0; s < length; s += W)
            UNROLL for (int j = 0; j < DIMENSIONS; j++) {
                const vec k = load(x + (j0 + j) * STRIDE + s);
                const float* row = pattern + s * H * Q + (j0 + j) / D_HEAD * Q * W;
                UNROLL for (int i = 0; i < Q; i++) sum[j * Q + i] += load(row + i * W) * k;
            }
        const vec total = sums(sum);
        float lanes[W];
        store(lanes, total);
        UNROLL for (int j = 0; j < DIMENSIONS; j++) store(y + (j0 + j) * STRIDE, load_queries<Q>(lanes + j * Q));
    }
}

// z = softmax(q K^T) V for Q queries; returns the pattern's end.   q, z [D][STRIDE] from the first query on,
// pattern [row_length / W][H][Q][W], inverse_sum [H][STRIDE]; position [Q] ascending
template <int Q>
INLINE float* attend_block(const float* q, const int* position, const float* K, const float* V, float* pattern,
                           float* inverse_sum, float* z) {
    constexpr int ROWS = H * Q, PADDED = padded(ROWS);
    const int length = row_length(position, Q);
    const int seen = (position[0] + 1) / W * W;  // keys that every query of the block may see, in whole vectors
    vec largest[PADDED];
    UNROLL for (int r = 0; r < PADDED; r++) largest[r] = broadcast(HIDDEN);
    for (int s = 0; s < length; s += W)
        UNROLL for (int h = 0; h < H; h++) {
            vec score[Q]{};
            UNROLL for (int j = h * D_HEAD; j < (h + 1) * D_HEAD; j++) {
                const vec k = load(K + j * STRIDE + s);
                UNROLL for (int i = 0; i < Q; i++) score[i] += broadcast(q[j * STRIDE + i]) * k;
            }
            UNROLL for (int i = 0; i < Q; i++) {
                if (s >= seen) score[i] = lane_numbers() <= position[i] - s ? score[i] : broadcast(HIDDEN);
                largest[h * Q + i] = maximum(largest[h * Q + i], score[i]);
                store(pattern + s * ROWS + (h * Q + i) * W, score[i]);
            }
        }
    float top[PADDED], inverse[PADDED];
    for (int r = 0; r < PADDED; r += W) store(top + r, maxima(reinterpret_cast<vec(&)[W]>(largest[r])));
    vec total[PADDED]{};
    for (int s = 0; s < length; s += W)
        UNROLL for (int r = 0; r < ROWS; r++) {
            const vec e = exp2(load(pattern + s * ROWS + r * W) - top[r]);  // 0 where the score is HIDDEN
            total[r] += e;
            store(pattern + s * ROWS + r * W, e);
        }
    for (int r = 0; r < PADDED; r += W) store(inverse + r, 1.0f / sums(reinterpret_cast<vec(&)[W]>(total[r])));
    UNROLL for (int h = 0; h < H; h++) store(inverse_sum + h * STRIDE, load_queries<Q>(inverse + h * Q));
    weigh_keys<Q>(pattern, length, V, z);
    UNROLL for (int j = 0; j < D; j++) {
        const auto inverse = load_queries<Q>(inverse_sum + j / D_HEAD * STRIDE);
        store(z + j * STRIDE, load_queries<Q>(z + j * STRIDE) * inverse);
    }
    return pattern + Q * H * length;
}

// With z = P V, P = softmax(S) and dP = dz V^T: dS = P (dP - sum_k P dP). The sum over keys is dz . z, which costs
// D_HEAD products and no second pass. Then dq = dS K, dK += dS^T q, dV += P^T dz. P = e / sum e: the division is taken
// into dz, so that dS = e (dz' V^T - dz' . z) and dV = e^T dz' with dz' = dz / sum e. dq, dK are those of scores in nats.
// The gradient of `attend_block`: dq is set, dK and dV are added to. dz becomes dz'; the pattern becomes dS.
template <int Q>
INLINE float* attend_block_gradient(const float* q, const int* position, const float* K, const float* V,
                                    const float* inverse_sum, const float* z, float* dz, float* pattern, float* dq,
                                    float* dK, float* dV) {
    const int length = row_length(position, Q);
    UNROLL for (int h = 0; h < H; h++) {
        const int begin = h * D_HEAD, end = begin + D_HEAD;
        float along[Q];
        const auto inverse = load_queries<Q>(inverse_sum + h * STRIDE);
        auto dz_z = inverse * 0.0f;
        UNROLL for (int j = begin; j < end; j++) {
            const auto scaled = load_queries<Q>(dz + j * STRIDE) * inverse;
            store(dz + j * STRIDE, scaled);
            dz_z += scaled * load_queries<Q>(z + j * STRIDE);
        }
        store(along, dz_z);
        for (int s = 0; s < length; s += W) {
            vec dscore[Q]{}, e[Q];
            UNROLL for (int j = begin; j < end; j++) {
                const vec v = load(V + j * STRIDE + s);
                UNROLL for (int i = 0; i < Q; i++) dscore[i] += broadcast(dz[j * STRIDE + i]) * v;
            }
            UNROLL for (int i = 0; i < Q; i++) {
                float* row = pattern + s * H * Q + (h * Q + i) * W;
                e[i] = load(row);
                dscore[i] = e[i] * (dscore[i] - along[i]);
                store(row, dscore[i]);
            }
            UNROLL for (int j = begin; j < end; j++) {
                vec dk = load(dK + j * STRIDE + s), dv = load(dV + j * STRIDE + s);
                UNROLL for (int i = 0; i < Q; i++) {
                    dk += broadcast(q[j * STRIDE + i]) * dscore[i];
                    dv += broadcast(dz[j * STRIDE + i]) * e[i];
                }
                store(dK + j * STRIDE + s, dk);
                store(dV + j * STRIDE + s, dv);
            }
        }
    }
    weigh_keys<Q>(pattern, length, K, dq);
    return pattern + Q * H * length;
}

// All m queries of a sequence, QUERIES at a time, then singly; returns the pattern's end.
INLINE float* attend(const float* q, const int* position, int m, const float* K, const float* V,
                     float* pattern, float* inverse_sum, float* z) {
    section(ATTENTION);
    int i = 0;
    for (; i + QUERIES <= m; i += QUERIES)
        pattern = attend_block<QUERIES>(q + i, position + i, K, V, pattern, inverse_sum + i, z + i);
    for (; i < m; i++) pattern = attend_block<1>(q + i, position + i, K, V, pattern, inverse_sum + i, z + i);
    return pattern;
}

INLINE float* attend_gradient(const float* q, const int* position, int m, const float* K, const float* V,
                              const float* inverse_sum, const float* z, float* dz, float* pattern, float* dq, float* dK,
                              float* dV) {
    section(ATTENTION);
    int i = 0;
    for (; i + QUERIES <= m; i += QUERIES)
        pattern = attend_block_gradient<QUERIES>(q + i, position + i, K, V, inverse_sum + i, z + i, dz + i,
                                                 pattern, dq + i, dK, dV);
    for (; i < m; i++)
        pattern = attend_block_gradient<1>(q + i, position + i, K, V, inverse_sum + i, z + i, dz + i, pattern,
                                           dq + i, dK, dV);
    return pattern;
}
