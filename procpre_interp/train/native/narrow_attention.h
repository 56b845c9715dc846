// Causal attention of one sequence whose every token is a query, in narrow heads, and its gradient: H heads times HQ
// queries fill a vector, lane h HQ + i for query i of head h. Nothing is summed over lanes until the gradient of keys and
// values, and queries look at no key that comes more than a few tokens after them. For heads that are wide, the
// exchange of lanes that this asks for costs more than it saves: attention.h is for them, and says what q, z and so on are.
#pragma once

#include "attention.h"

constexpr int HQ = H <= W ? W / H : 1;              // queries of a block
constexpr bool NARROW = D_HEAD <= 8 && H <= W;
constexpr int G = NARROW ? D / W : 1;               // vectors of a token; vector g has lane h HQ + r = x[h D_HEAD + g HQ + r]
constexpr int BLOCKS = W == 16 && D_HEAD <= 4 ? 2 : 1;  // that go through keys together: so many fit in the registers

// x[b] lane h HQ + i  <-  x[h] lane b HQ + i: the rows of the heads become blocks of HQ tokens, and the other way round.
template <int S = HQ>
INLINE void exchange(vec (&x)[H]) {
    if constexpr (S < W) {
        UNROLL for (int r = 0; r < H; r++) {
            if (r & S / HQ) continue;
            const vec a = x[r], b = x[r + S / HQ];
            x[r] = low<S>(a, b);
            x[r + S / HQ] = high<S>(a, b);
        }
        exchange<2 * S>(x);
    }
}

// Lane h HQ + i of y[g HQ + r] is lane h HQ + r of token vector g: a number of each head, repeated for its queries.
template <int R, int... I>
INLINE vec repeated(vec x, std::integer_sequence<int, I...>) {
#if defined(__clang__)
    return __builtin_shufflevector(x, x, (I / HQ * HQ + R)...);
#else
    return __builtin_shuffle(x, ivec{(I / HQ * HQ + R)...});
#endif
}
template <int D_ = 0>
INLINE void repeat_for_queries(const float* token, vec (&y)[D_HEAD]) {
    if constexpr (D_ < D_HEAD) {
        y[D_] = repeated<D_ % HQ>(load(token + D_ / HQ * W), std::make_integer_sequence<int, W>{});
        repeat_for_queries<D_ + 1>(token, y);
    }
}

// Lane h HQ + r of the result is the sum over i of lane h HQ + i of x[r]. x is used up.
template <int S = 1>
INLINE vec sum_over_queries(vec* x) {
    if constexpr (S == HQ) return x[0];
    else {
        UNROLL for (int r = 0; r < HQ; r += 2 * S) x[r] = low<S>(x[r], x[r + S]) + high<S>(x[r], x[r + S]);
        return sum_over_queries<2 * S>(x);
    }
}

// x [D][STRIDE] of n tokens, rounded up to W of them, as blocks of queries [n / HQ][D_HEAD][W], and back.
INLINE void to_blocks(const float* x, int n, float* blocks) {
    for (int t = 0; t < n; t += W)
        for (int d = 0; d < D_HEAD; d++) {
            vec rows[H];
            UNROLL for (int h = 0; h < H; h++) rows[h] = load(x + (h * D_HEAD + d) * STRIDE + t);
            exchange(rows);
            UNROLL for (int b = 0; b < H; b++) store(blocks + ((t / HQ + b) * D_HEAD + d) * W, rows[b]);
        }
}
INLINE void from_blocks(const float* blocks, int n, float* x) {
    for (int t = 0; t < n; t += W)
        for (int d = 0; d < D_HEAD; d++) {
            vec rows[H];
            UNROLL for (int b = 0; b < H; b++) rows[b] = load(blocks + ((t / HQ + b) * D_HEAD + d) * W);
            exchange(rows);
            UNROLL for (int h = 0; h < H; h++) store(x + (h * D_HEAD + d) * STRIDE + t, rows[h]);
        }
}

// The same as tokens [n][G][W], and back.
INLINE int row_of(int g, int lane) { return lane / HQ * D_HEAD + g * HQ + lane % HQ; }
INLINE void to_tokens(const float* x, int n, float* tokens) {
    for (int t = 0; t < n; t += W)
        UNROLL for (int g = 0; g < G; g++) {
            vec rows[W];
            UNROLL for (int r = 0; r < W; r++) rows[r] = load(x + row_of(g, r) * STRIDE + t);
            transpose(rows);
            UNROLL for (int r = 0; r < W; r++) store(tokens + ((t + r) * G + g) * W, rows[r]);
        }
}
INLINE void from_tokens(const float* tokens, int n, float* x) {
    for (int t = 0; t < n; t += W)
        UNROLL for (int g = 0; g < G; g++) {
            vec rows[W];
            UNROLL for (int r = 0; r < W; r++) rows[r] = load(tokens + ((t + r) * G + g) * W);
            transpose(rows);
            UNROLL for (int r = 0; r < W; r++) store(x + row_of(g, r) * STRIDE + t, rows[r]);
        }
}

// A sequence in these layouts.
struct NarrowBuffers {
    Buffer K, V, dK, dV, q, z, dz;
    NarrowBuffers() {
        if (!NARROW) return;
        for (Buffer* x : {&K, &V, &dK, &dV, &q, &z, &dz}) *x = Buffer(D * STRIDE);
    }
};

// Calls work(first query, keys) for each group of blocks.
constexpr int TOGETHER = BLOCKS * HQ;
INLINE int keys_of(int first, int n) { return first + TOGETHER < n ? first + TOGETHER : n; }

// z = softmax(q K^T) V; returns the pattern's end.   pattern: of each group [keys + 1][BLOCKS][W], e and then 1 / sum e
INLINE float* attend_narrow(const float* q, int n, const float* K, const float* V, float* pattern, float* z,
                            const NarrowBuffers& work) {
    to_tokens(K, n, work.K);
    to_tokens(V, n, work.V);
    to_blocks(q, n, work.q);
    for (int first = 0; first < n; first += TOGETHER) {
        const int keys = keys_of(first, n);
        const float* queries = work.q + first / HQ * D_HEAD * W;
        vec query[BLOCKS][D_HEAD], largest[BLOCKS];
        UNROLL for (int b = 0; b < BLOCKS; b++) {
            largest[b] = broadcast(HIDDEN);
            UNROLL for (int d = 0; d < D_HEAD; d++) query[b][d] = load(queries + (b * D_HEAD + d) * W);
        }
        const auto score_key = [&](int key, bool masked) {
            vec k[D_HEAD];
            repeat_for_queries(work.K + key * G * W, k);
            UNROLL for (int b = 0; b < BLOCKS; b++) {
                vec score{};
                UNROLL for (int d = 0; d < D_HEAD; d++) score += query[b][d] * k[d];
                if (masked) score = lane_numbers() % HQ >= key - first - b * HQ ? score : broadcast(HIDDEN);
                largest[b] = maximum(largest[b], score);
                store(pattern + (key * BLOCKS + b) * W, score);
            }
        };
        int key = 0;
        for (; key <= first; key++) score_key(key, false);
        for (; key < keys; key++) score_key(key, true);
        vec total[BLOCKS]{}, sum[BLOCKS][D_HEAD]{};
        for (key = 0; key < keys; key++) {
            vec v[D_HEAD];
            repeat_for_queries(work.V + key * G * W, v);
            UNROLL for (int b = 0; b < BLOCKS; b++) {
                float* at = pattern + (key * BLOCKS + b) * W;
                const vec e = exp2(load(at) - largest[b]);
                total[b] += e;
                store(at, e);
                UNROLL for (int d = 0; d < D_HEAD; d++) sum[b][d] += e * v[d];
            }
        }
        UNROLL for (int b = 0; b < BLOCKS; b++) {
            const vec inverse = 1.0f / total[b];
            store(pattern + (keys * BLOCKS + b) * W, inverse);
            UNROLL for (int d = 0; d < D_HEAD; d++)
                store(work.z + ((first / HQ + b) * D_HEAD + d) * W, sum[b][d] * inverse);
        }
        pattern += (keys + 1) * BLOCKS * W;
    }
    from_blocks(work.z, n, z);
    return pattern;
}

// The gradient of `attend_narrow`: dq, dK and dV are set.
INLINE float* attend_narrow_gradient(const float* q, int n, const float* K, const float* V, const float* z,
                                     const float* dz, float* pattern, float* dq, float* dK, float* dV,
                                     const NarrowBuffers& work) {
    to_tokens(K, n, work.K);
    to_tokens(V, n, work.V);
    to_blocks(q, n, work.q);
    to_blocks(z, n, work.z);
    to_blocks(dz, n, work.dz);
    std::memset(work.dK, 0, padded(n) * D * sizeof(float));
    std::memset(work.dV, 0, padded(n) * D * sizeof(float));
    for (int first = 0; first < n; first += TOGETHER) {
        const int keys = keys_of(first, n), begin = first / HQ * D_HEAD * W;
        vec query[BLOCKS][D_HEAD], dz_block[BLOCKS][D_HEAD], dq_block[BLOCKS][D_HEAD]{}, along[BLOCKS]{};
        UNROLL for (int b = 0; b < BLOCKS; b++) {
            const vec inverse = load(pattern + (keys * BLOCKS + b) * W);
            UNROLL for (int d = 0; d < D_HEAD; d++) {
                const int at = begin + (b * D_HEAD + d) * W;
                query[b][d] = load(work.q + at);
                // Beyond the sequence there are no queries.
                dz_block[b][d] = lane_numbers() % HQ < n - first - b * HQ ? load(work.dz + at) * inverse : vec{};
                along[b] += dz_block[b][d] * load(work.z + at);
            }
        }
        for (int key = 0; key < keys; key++) {
            vec k[D_HEAD], v[D_HEAD], dk[D_HEAD]{}, dv[D_HEAD]{};
            repeat_for_queries(work.V + key * G * W, v);
            repeat_for_queries(work.K + key * G * W, k);
            UNROLL for (int b = 0; b < BLOCKS; b++) {
                const vec e = load(pattern + (key * BLOCKS + b) * W);
                vec dscore = -along[b];
                UNROLL for (int d = 0; d < D_HEAD; d++) dscore += dz_block[b][d] * v[d];
                dscore *= e;
                UNROLL for (int d = 0; d < D_HEAD; d++) {
                    dq_block[b][d] += dscore * k[d];
                    dk[d] += dscore * query[b][d];
                    dv[d] += e * dz_block[b][d];
                }
            }
            UNROLL for (int g = 0; g < G; g++) {
                const int at = (key * G + g) * W;
                store(work.dK + at, load(work.dK + at) + sum_over_queries(dk + g * HQ));
                store(work.dV + at, load(work.dV + at) + sum_over_queries(dv + g * HQ));
            }
        }
        UNROLL for (int b = 0; b < BLOCKS; b++)
            UNROLL for (int d = 0; d < D_HEAD; d++) store(work.q + begin + (b * D_HEAD + d) * W, dq_block[b][d]);
        pattern += (keys + 1) * BLOCKS * W;
    }
    from_blocks(work.q, n, dq);
    from_tokens(work.dK, n, dK);
    from_tokens(work.dV, n, dV);
    return pattern;
}
