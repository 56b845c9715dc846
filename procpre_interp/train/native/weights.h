// The model's parameters in the layout of the products, and the way back for their gradient.
//
// LayerNorm's gain and bias go into the weights that read the normalised z:  W (gain z + bias) + b = W' z + b'  with
// W' = W gain, b' = b + W bias. With G' = dL/dW' = sum over tokens of dy z^T and dL/db' = sum of dy:
// dW = gain G' + bias db,  dgain = sum_o W G',  dbias = sum_o W db,  and  dz = W'^T dy.
#pragma once

#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "attention.h"

struct Free {
    void operator()(float* p) const { std::free(p); }
};

// Zeroed floats at an address that no vector load splits over two cache lines.
struct Buffer {
    std::unique_ptr<float[], Free> data;
    std::size_t size = 0;

    Buffer() = default;
    explicit Buffer(std::size_t n) : size((n + 15) / 16 * 16) {
        data.reset(static_cast<float*>(std::aligned_alloc(64, size * sizeof(float))));
        if (data == nullptr) throw std::bad_alloc();
        zero();
    }
    void zero() { std::memset(data.get(), 0, size * sizeof(float)); }
    operator float*() const { return data.get(); }
};

struct Shape {
    int n_layers, n_ctx, d_vocab;
    bool tied;
    float epsilon;

    int columns() const { return padded(d_vocab); }  // of W_U and of the logits
};

// Where each tensor begins in the model's flat vector of parameters. Read from Python's list of offsets: W_E, W_pos;
// for each layer the sixteen of `BlockOffsets` in their order; ln_final's w and b; W_U (the offset of W_E when tied).
struct BlockOffsets {
    std::int64_t ln1_w, ln1_b, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, b_O, ln2_w, ln2_b, W_in, b_in, W_out, b_out;
};
struct Offsets {
    std::int64_t W_E, W_pos, ln_final_w, ln_final_b, W_U;
    std::vector<BlockOffsets> blocks;

    Offsets(const std::int64_t* p, int n_layers) : W_E(p[0]), W_pos(p[1]), blocks(n_layers) {
        p += 2;
        for (BlockOffsets& b : blocks) {
            std::memcpy(&b, p, sizeof b);
            p += sizeof b / sizeof *p;
        }
        ln_final_w = p[0], ln_final_b = p[1], W_U = p[2];
    }
};

// ---- Queries, keys and values ---------------------------------------------------------------------------------------
// Their 3 D features are neighbours: q, then k, then v, each head by head. The model has [H][D][D_HEAD] of each.

constexpr int QKV = 3 * D;

// Scores are q k / sqrt(d_head), in units of ln 2 (see attention.h): both factors go into the weights of q.
const float QUERY_SCALE = LOG2_E / std::sqrt(float(D_HEAD));

// Feature o of the 3 D reads P[weight + i D_HEAD] for i < D, and P[bias]. The forward pass has its weights times
// `forward`; the gradient that attention hands back, of scores in nats, is to be taken times `backward`: that of q and k
// goes through scores in units of ln 2.
struct Feature {
    std::int64_t weight, bias;
    float forward, backward;

    Feature(const BlockOffsets& at, int o) {
        const int in = o % D, head = in / D_HEAD, j = in % D_HEAD;
        const std::int64_t weights[] = {at.W_Q, at.W_K, at.W_V}, biases[] = {at.b_Q, at.b_K, at.b_V};
        weight = weights[o / D] + head * D * D_HEAD + j;
        bias = biases[o / D] + in;
        forward = o < D ? QUERY_SCALE : 1.0f;
        backward = o < D ? QUERY_SCALE * LN_2 : o < 2 * D ? LN_2 : 1.0f;
    }
};

// ---- Packed weights -------------------------------------------------------------------------------------------------

struct BlockWeights {
    Buffer W_QKV{QKV * D}, b_QKV{QKV}, W_QKV_back{QKV * D};  // [QKV][D], [QKV]; for the backward pass [QKV][D]
    Buffer W_in{D * F}, b_in{F};                             // [D][F], [F]
};
struct PackedWeights {
    std::vector<BlockWeights> blocks;
    Buffer W_U, b_U, W_UT;  // [D][columns], [columns], [columns][D]

    explicit PackedWeights(const Shape& s)
        : blocks(s.n_layers), W_U(D * s.columns()), b_U(s.columns()), W_UT(D * s.columns()) {}
};

inline void pack(const Shape& s, const Offsets& at, const float* P, PackedWeights& weights) {
    for (int layer = 0; layer < s.n_layers; layer++) {
        const BlockOffsets& o = at.blocks[layer];
        const BlockWeights& w = weights.blocks[layer];
        for (int f = 0; f < QKV; f++) {
            const Feature feature(o, f);
            float b = P[feature.bias];
            for (int i = 0; i < D; i++) {
                const float W_if = P[feature.weight + i * D_HEAD], gain = P[o.ln1_w + i];
                b += W_if * P[o.ln1_b + i];
                w.W_QKV[f * D + i] = W_if * gain * feature.forward;
                w.W_QKV_back[f * D + i] = W_if * gain * feature.backward;
            }
            w.b_QKV[f] = b * feature.forward;
        }
        std::memcpy(w.b_in, P + o.b_in, F * sizeof(float));
        for (int i = 0; i < D; i++)
            for (int f = 0; f < F; f++) {
                const float W_if = P[o.W_in + i * F + f];
                w.W_in[i * F + f] = W_if * P[o.ln2_w + i];
                w.b_in[f] += W_if * P[o.ln2_b + i];
            }
    }
    const float* W_U = P + at.W_U;  // [D][d_vocab]; tied: [d_vocab][D]
    const int row = s.tied ? 1 : s.d_vocab, column = s.tied ? D : 1;
    weights.b_U.zero();
    for (int i = 0; i < D; i++)
        for (int v = 0; v < s.d_vocab; v++) {
            const float W_iv = W_U[i * row + v * column];
            weights.W_U[i * s.columns() + v] = weights.W_UT[v * D + i] = W_iv * P[at.ln_final_w + i];
            weights.b_U[v] += W_iv * P[at.ln_final_b + i];
        }
}

// ---- Gradient -------------------------------------------------------------------------------------------------------

// A thread's sums over its tokens, of the packed weights.
struct BlockGradient {
    Buffer W_QKV{QKV * D}, b_QKV{QKV};  // [QKV][D], [QKV]
    Buffer W_O{D * D}, b_O{D};          // [D][D], [D]
    Buffer W_in{F * D}, b_in{F};        // [F][D], [F]
    Buffer W_out{F * D}, b_out{D};      // [F][D], [D]
};
struct Gradient {
    std::vector<BlockGradient> blocks;
    Buffer W_E, W_pos, W_U, b_U;  // [d_vocab][D], [n_ctx][D], [D][columns], [columns]
    double loss = 0.0;

    explicit Gradient(const Shape& s)
        : blocks(s.n_layers), W_E(s.d_vocab * D), W_pos(s.n_ctx * D), W_U(D * s.columns()), b_U(s.columns()) {}

    void zero() {
        for (BlockGradient& b : blocks)
            for (Buffer* x : {&b.W_QKV, &b.b_QKV, &b.W_O, &b.b_O, &b.W_in, &b.b_in, &b.W_out, &b.b_out}) x->zero();
        W_E.zero(), W_pos.zero(), W_U.zero(), b_U.zero(), loss = 0.0;
    }
};

inline void add(const float* x, std::int64_t size, float* y) {
    for (std::int64_t i = 0; i < size; i++) y[i] += x[i];
}

// A weight that reads z, whose packed gradient is `dW` and that of its bias `db`: adds to dW, dgain and dbias of the model.
struct Unfold {
    const float* P;
    float* G;
    std::int64_t gain, bias;

    void operator()(std::int64_t weight, int i, float dW, float db) const {
        G[weight] += P[gain + i] * dW + P[bias + i] * db;
        G[gain + i] += P[weight] * dW;
        G[bias + i] += P[weight] * db;
    }
};

// Adds a thread's gradient to the model's.
inline void add_gradient(const Shape& s, const Offsets& at, const float* P, const Gradient& g, float* G) {
    add(g.W_E, std::int64_t(s.d_vocab) * D, G + at.W_E);
    add(g.W_pos, std::int64_t(s.n_ctx) * D, G + at.W_pos);
    for (int layer = 0; layer < s.n_layers; layer++) {
        const BlockOffsets& o = at.blocks[layer];
        const BlockGradient& b = g.blocks[layer];
        const Unfold first{P, G, o.ln1_w, o.ln1_b}, second{P, G, o.ln2_w, o.ln2_b};
        for (int f = 0; f < QKV; f++) {
            const Feature feature(o, f);
            const float db = b.b_QKV[f] * feature.backward;
            G[feature.bias] += db;
            for (int i = 0; i < D; i++)
                first(feature.weight + i * D_HEAD, i, b.W_QKV[f * D + i] * feature.backward, db);
        }
        for (int f = 0; f < F; f++) {
            G[o.b_in + f] += b.b_in[f];
            for (int i = 0; i < D; i++) second(o.W_in + i * F + f, i, b.W_in[f * D + i], b.b_in[f]);
        }
        add(b.W_O, D * D, G + o.W_O);
        add(b.b_O, D, G + o.b_O);
        add(b.W_out, F * D, G + o.W_out);
        add(b.b_out, D, G + o.b_out);
    }
    const Unfold last{P, G, at.ln_final_w, at.ln_final_b};
    const int row = s.tied ? 1 : s.d_vocab, column = s.tied ? D : 1;
    for (int i = 0; i < D; i++)
        for (int v = 0; v < s.d_vocab; v++)
            last(at.W_U + i * row + v * column, i, g.W_U[i * s.columns() + v], g.b_U[v]);
}
