// The model's parameters in the layout of the products, and the way back for their gradient.
//
// LayerNorm's gain and bias go into the weights that read the normalised z:  W (gain z + bias) + b = W' z + b'  with
// W' = W gain, b' = b + W bias. With G' = dL/dW' = sum over tokens of dy z^T and dL/db' = sum of dy:
// dW = gain G' + bias db,  dgain = sum_o W G',  dbias = sum_o W db,  and  dz = W'^T dy.
#pragma once

#include <algorithm>
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

    int logits() const { return (d_vocab + 15) / 16 * 16; }  // rows of the logits: whole panels
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
// In panels (see linear.h) of what each product gives: of its outputs, and for the gradient of x, of its inputs.

struct BlockWeights {
    Buffer W_QKV{QKV * D}, b_QKV{QKV}, W_QKV_back{QKV * D};  // D -> QKV; QKV -> D
    Buffer W_O{D * D}, W_O_back{D * D};
    Buffer W_in{D * F}, b_in{F}, W_in_back{D * F};           // D -> F; F -> D
    Buffer W_out{D * F}, W_out_back{D * F};                  // F -> D; D -> F
};
struct PackedWeights {
    std::vector<BlockWeights> blocks;
    Buffer W_U, W_U_back;  // D -> logits; logits -> D

    explicit PackedWeights(const Shape& s)
        : blocks(s.n_layers), W_U(std::size_t(D) * s.logits()), W_U_back(std::size_t(D) * s.logits()) {}
};

inline void pack(const Shape& s, const Offsets& at, const float* P, bool backward, PackedWeights& weights) {
    for (int layer = 0; layer < s.n_layers; layer++) {
        const BlockOffsets& o = at.blocks[layer];
        const BlockWeights& w = weights.blocks[layer];
        const float *gain1 = P + o.ln1_w, *gain2 = P + o.ln2_w;
        const float *W_O = P + o.W_O, *W_in = P + o.W_in, *W_out = P + o.W_out;  // [D][D], [D][F], [F][D]
        std::vector<Feature> features;
        for (int f = 0; f < QKV; f++) features.emplace_back(o, f);
        for (int f = 0; f < QKV; f++) {
            float b = P[features[f].bias];
            for (int i = 0; i < D; i++) b += P[features[f].weight + i * D_HEAD] * P[o.ln1_b + i];
            w.b_QKV[f] = b * features[f].forward;
        }
        std::memcpy(w.b_in, P + o.b_in, F * sizeof(float));
        for (int i = 0; i < D; i++)
            for (int f = 0; f < F; f++) w.b_in[f] += W_in[i * F + f] * P[o.ln2_b + i];
        pack_panels(QKV, D, w.W_QKV, [&](int f, int i) {
            return P[features[f].weight + i * D_HEAD] * gain1[i] * features[f].forward;
        });
        pack_panels(D, D, w.W_O, [&](int i, int j) { return W_O[j * D + i]; });
        pack_panels(F, D, w.W_in, [&](int f, int i) { return W_in[i * F + f] * gain2[i]; });
        pack_panels(D, F, w.W_out, [&](int i, int f) { return W_out[f * D + i]; });
        if (!backward) continue;
        pack_panels(D, QKV, w.W_QKV_back, [&](int i, int f) {
            return P[features[f].weight + i * D_HEAD] * gain1[i] * features[f].backward;
        });
        pack_panels(D, D, w.W_O_back, [&](int j, int i) { return W_O[j * D + i]; });
        pack_panels(D, F, w.W_in_back, [&](int i, int f) { return W_in[i * F + f] * gain2[i]; });
        pack_panels(F, D, w.W_out_back, [&](int f, int i) { return W_out[f * D + i]; });
    }
    const float* W_U = P + at.W_U;  // [D][d_vocab]; tied: [d_vocab][D]
    const std::int64_t row = s.tied ? 1 : s.d_vocab, column = s.tied ? D : 1;
    const auto unembedding = [&](int v, int i) { return v < s.d_vocab ? W_U[i * row + v * column] : 0.0f; };
    pack_panels(s.logits(), D, weights.W_U, unembedding);
    if (backward) pack_panels(D, s.logits(), weights.W_U_back, [&](int i, int v) { return unembedding(v, i); });
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
    Buffer W_E, W_pos, ln_final_w{D}, ln_final_b{D}, W_U;  // [d_vocab][D], [n_ctx][D], [D], [D], [logits][D]
    double loss = 0.0;

    explicit Gradient(const Shape& s)
        : blocks(s.n_layers), W_E(std::size_t(s.d_vocab) * D), W_pos(std::size_t(s.n_ctx) * D),
          W_U(std::size_t(s.logits()) * D) {}

    void zero() {
        for (BlockGradient& b : blocks)
            for (Buffer* x : {&b.W_QKV, &b.b_QKV, &b.W_O, &b.b_O, &b.W_in, &b.b_in, &b.W_out, &b.b_out}) x->zero();
        for (Buffer* x : {&W_E, &W_pos, &ln_final_w, &ln_final_b, &W_U}) x->zero();
        loss = 0.0;
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

constexpr int LINE = 16;  // floats: what is read at an address brings so many along

// Adds a thread's gradient to the model's.
inline void add_gradient(const Shape& s, const Offsets& at, const float* P, const Gradient& g, float* G) {
    add(g.W_E, std::int64_t(s.d_vocab) * D, G + at.W_E);
    add(g.W_pos, std::int64_t(s.n_ctx) * D, G + at.W_pos);
    for (int layer = 0; layer < s.n_layers; layer++) {
        const BlockOffsets& o = at.blocks[layer];
        const BlockGradient& b = g.blocks[layer];
        const Unfold first{P, G, o.ln1_w, o.ln1_b}, second{P, G, o.ln2_w, o.ln2_b};
        for (int f0 = 0; f0 < QKV; f0 += LINE) {
            std::vector<Feature> features;
            for (int f = f0; f < f0 + LINE; f++) features.emplace_back(o, f);
            for (int k = 0; k < LINE; k++) G[features[k].bias] += b.b_QKV[f0 + k] * features[k].backward;
            for (int i = 0; i < D; i++)
                for (int k = 0; k < LINE; k++) {
                    const float scale = features[k].backward;
                    first(features[k].weight + i * D_HEAD, i, b.W_QKV[(f0 + k) * D + i] * scale, b.b_QKV[f0 + k] * scale);
                }
        }
        for (int f0 = 0; f0 < F; f0 += LINE)
            for (int i = 0; i < D; i++)
                for (int f = f0; f < f0 + LINE; f++) second(o.W_in + i * F + f, i, b.W_in[f * D + i], b.b_in[f]);
        add(b.b_in, F, G + o.b_in);
        add(b.W_O, D * D, G + o.W_O);
        add(b.b_O, D, G + o.b_O);
        add(b.W_out, F * D, G + o.W_out);
        add(b.b_out, D, G + o.b_out);
    }
    add(g.ln_final_w, D, G + at.ln_final_w);
    add(g.ln_final_b, D, G + at.ln_final_b);
    const std::int64_t row = s.tied ? 1 : s.d_vocab, column = s.tied ? D : 1;
    for (int v0 = 0; v0 < s.d_vocab; v0 += LINE)
        for (int i = 0; i < D; i++)
            for (int v = v0; v < std::min(v0 + LINE, s.d_vocab); v++) G[at.W_U + i * row + v * column] += g.W_U[std::size_t(v) * D + i];
}
