// Loss and gradient of a tiny GPT-2, fused: each thread takes one sequence after another through forward and backward,
// so that all activations stay in its core's cache. Compiled for one d_model, n_heads and d_mlp (see layers.h).
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>
#include <thread>
#include <vector>

#include "layers.h"

namespace {

// ---- Buffers --------------------------------------------------------------------------------------------------------

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
    int stride() const { return padded(n_ctx); }     // of K^T and V^T
    int rows() const { return padded(n_ctx); }       // of what is transposed, W rows at a time
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

// The matrices of a block in the layout of the products, [in][out]. The model has heads first, [H][D][D_HEAD]; here the
// dimensions of a head are neighbouring columns. W_O and the MLP's need no change and are read in place, so only their
// transposes are here: the backward products read them row by row.
struct BlockWeights {
    Buffer W_Q{D * D}, W_K{D * D}, W_V{D * D};                                      // [D][D]
    Buffer W_QT{D * D}, W_KT{D * D}, W_VT{D * D}, W_OT{D * D}, W_inT{F * D}, W_outT{D * F};  // transposes
};
struct PackedWeights {
    std::vector<BlockWeights> blocks;
    Buffer W_U, W_UT;  // [D][columns], [columns][D]

    explicit PackedWeights(const Shape& s) : blocks(s.n_layers), W_U(D * s.columns()), W_UT(D * s.columns()) {}
};

// A thread's sum of gradients. In the model's layout, except those of W_Q, W_K, W_V (as in BlockWeights) and W_U.
struct Gradient {
    Buffer flat, W_U;  // [n_parameters], [D][columns]
    double loss = 0.0;

    Gradient(const Shape& s, std::int64_t n_parameters) : flat(n_parameters), W_U(D * s.columns()) {}
    void zero() { flat.zero(), W_U.zero(), loss = 0.0; }
};

// What the forward pass keeps of a block for the backward pass: n rows, m where only read positions matter.
struct BlockActivations {
    Buffer normalised1, inverse_std1, ln1;  // n rows of D, 1, D
    Buffer query_input, q, z, resid_mid;    // m rows of D; q is scaled, see `scale_queries`
    Buffer KT, VT;                          // [D][stride]
    Buffer pattern;                         // see layers.h
    Buffer normalised2, inverse_std2, ln2;  // m rows of D, 1, D
    Buffer pre, gate, post;                 // m rows of F: before GELU, its gate, after it

    explicit BlockActivations(const Shape& s)
        : normalised1(s.rows() * D), inverse_std1(s.rows()), ln1(s.rows() * D), query_input(s.rows() * D),
          q(s.rows() * D), z(s.rows() * D), resid_mid(s.rows() * D), KT(s.stride() * D), VT(s.stride() * D),
          pattern(pattern_size(s)), normalised2(s.rows() * D), inverse_std2(s.rows()), ln2(s.rows() * D),
          pre(s.rows() * F), gate(s.rows() * F), post(s.rows() * F) {}

    // QUERIES queries share the length of the last one.
    static std::size_t pattern_size(const Shape& s) {
        std::size_t size = 0;
        for (int i = 0; i < s.n_ctx; i++) size += std::size_t(H) * padded(std::min(i + QUERIES, s.n_ctx));
        return size;
    }
};

constexpr int LOGIT_ROWS = 16;  // logits of so many positions at a time

// All that a thread needs for one sequence, allocated once.
struct Workspace {
    std::vector<BlockActivations> blocks;
    std::vector<int> everywhere, scored;                      // positions: 0, 1, 2, ..; those with a loss
    Buffer resid;                                             // n rows of D, later m
    Buffer normalised_final, inverse_std_final, ln_final;     // m rows of D, 1, D
    Buffer logits;                                            // [LOGIT_ROWS][columns]
    Buffer dresid, dresid_mid, dnorm, dz, dq, dk, dv, k, v;   // n rows of D
    Buffer dpost;                                             // m rows of F
    Buffer dKT, dVT;                                          // [D][stride]

    explicit Workspace(const Shape& s)
        : everywhere(s.n_ctx), scored(s.n_ctx), resid(s.rows() * D), normalised_final(s.rows() * D),
          inverse_std_final(s.rows()), ln_final(s.rows() * D), logits(LOGIT_ROWS * s.columns()),
          dresid(s.rows() * D), dresid_mid(s.rows() * D), dnorm(s.rows() * D), dz(s.rows() * D), dq(s.rows() * D),
          dk(s.rows() * D), dv(s.rows() * D), k(s.rows() * D), v(s.rows() * D), dpost(s.rows() * F),
          dKT(s.stride() * D), dVT(s.stride() * D) {
        for (int layer = 0; layer < s.n_layers; layer++) blocks.emplace_back(s);
        for (int t = 0; t < s.n_ctx; t++) everywhere[t] = t;
    }
};

// ---- Layout ---------------------------------------------------------------------------------------------------------

// packed[i][h D_HEAD + j] = heads[h][i][j]
void pack_heads(const float* heads, float* packed, float* transposed) {
    for (int h = 0; h < H; h++)
        for (int i = 0; i < D; i++)
            for (int j = 0; j < D_HEAD; j++) {
                const float w = heads[(h * D + i) * D_HEAD + j];
                packed[i * D + h * D_HEAD + j] = w;
                transposed[(h * D_HEAD + j) * D + i] = w;
            }
}

// The inverse, added to.
void unpack_heads(const float* packed, float* heads) {
    for (int h = 0; h < H; h++)
        for (int i = 0; i < D; i++)
            for (int j = 0; j < D_HEAD; j++) heads[(h * D + i) * D_HEAD + j] += packed[i * D + h * D_HEAD + j];
}

void transpose_matrix(const float* A, int rows, int columns, float* AT) {
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++) AT[j * rows + i] = A[i * columns + j];
}

void pack(const Shape& s, const Offsets& at, const float* P, PackedWeights& weights) {
    for (int layer = 0; layer < s.n_layers; layer++) {
        const BlockOffsets& o = at.blocks[layer];
        BlockWeights& w = weights.blocks[layer];
        pack_heads(P + o.W_Q, w.W_Q, w.W_QT);
        pack_heads(P + o.W_K, w.W_K, w.W_KT);
        pack_heads(P + o.W_V, w.W_V, w.W_VT);
        transpose_matrix(P + o.W_O, D, D, w.W_OT);
        transpose_matrix(P + o.W_in, D, F, w.W_inT);
        transpose_matrix(P + o.W_out, F, D, w.W_outT);
    }
    const float* W_U = P + at.W_U;  // [D][d_vocab]; tied: [d_vocab][D]
    const int row = s.tied ? 1 : s.d_vocab, column = s.tied ? D : 1;
    for (int i = 0; i < D; i++)
        for (int v = 0; v < s.d_vocab; v++)
            weights.W_U[i * s.columns() + v] = weights.W_UT[v * D + i] = W_U[i * row + v * column];
}

// Adds a thread's gradient to the model's.
void add_gradient(const Shape& s, const Offsets& at, const Gradient& g, std::int64_t n_parameters, float* G) {
    // The heads' part of `g.flat` is in the packed layout, so it is taken out of the plain sum.
    std::int64_t done = 0;
    const auto add_up_to = [&](std::int64_t end) {
        for (std::int64_t i = done; i < end; i++) G[i] += g.flat[i];
        done = end;
    };
    for (const BlockOffsets& o : at.blocks)
        for (const std::int64_t W : {o.W_Q, o.W_K, o.W_V}) {
            add_up_to(W);
            unpack_heads(g.flat + W, G + W);
            done = W + D * D;
        }
    add_up_to(n_parameters);
    const int row = s.tied ? 1 : s.d_vocab, column = s.tied ? D : 1;
    for (int i = 0; i < D; i++)
        for (int v = 0; v < s.d_vocab; v++) G[at.W_U + i * row + v * column] += g.W_U[i * s.columns() + v];
}

// ---- One sequence ---------------------------------------------------------------------------------------------------

void gather_rows(const float* x, const int* position, int m, float* y) {
    for (int i = 0; i < m; i++) std::memcpy(y + i * D, x + position[i] * D, D * sizeof(float));
}

void scatter_add_rows(const float* x, const int* position, int m, float* y) {
    for (int i = 0; i < m; i++)
        for (int c = 0; c < D; c += W) {
            float* row = y + position[i] * D + c;
            store(row, load(row) + load(x + i * D + c));
        }
}

void scale(float* x, int size, float factor) {
    for (int i = 0; i < size; i += W) store(x + i, load(x + i) * factor);
}

// Scores are q k / sqrt(d_head); the softmax takes them in units of ln 2. Both factors go into q.
const float QUERY_SCALE = LOG2_E / std::sqrt(float(D_HEAD));

// resid += W_O attention(LN1(resid)) + b_O;  resid += W_out gelu(W_in LN2(resid) + b_in) + b_out
// resid [n][D] -> resid [m][D]: a block, read at m positions.
void block_forward(const Shape& s, const BlockOffsets& o, const BlockWeights& w, const float* P, const int* position,
                   int m, int n, Workspace& work, BlockActivations& a) {
    layer_norm(work.resid, P + o.ln1_w, P + o.ln1_b, s.epsilon, a.normalised1, a.inverse_std1, a.ln1, n);
    linear(a.ln1, D, w.W_K, P + o.b_K, work.k, D, n);
    linear(a.ln1, D, w.W_V, P + o.b_V, work.v, D, n);
    transpose_rows(work.k, n, a.KT, s.stride());
    transpose_rows(work.v, n, a.VT, s.stride());
    gather_rows(a.ln1, position, m, a.query_input);
    linear(a.query_input, D, w.W_Q, P + o.b_Q, a.q, D, m);
    scale(a.q, m * D, QUERY_SCALE);
    attend(a.q, position, m, a.KT, a.VT, s.stride(), a.pattern, a.z);
    gather_rows(work.resid, position, m, a.resid_mid);
    linear<Result::add>(a.z, D, P + o.W_O, P + o.b_O, a.resid_mid, D, m);
    layer_norm(a.resid_mid, P + o.ln2_w, P + o.ln2_b, s.epsilon, a.normalised2, a.inverse_std2, a.ln2, m);
    linear(a.ln2, D, P + o.W_in, P + o.b_in, a.pre, F, m);
    gelu(a.pre, a.gate, a.post, m * F);
    std::memcpy(work.resid, a.resid_mid, m * D * sizeof(float));
    linear<Result::add>(a.post, F, P + o.W_out, P + o.b_out, work.resid, D, m);
}

// dresid [m][D] of the block's output -> dresid [n][D] of its input; G is added to.
void block_backward(const Shape& s, const BlockOffsets& o, const BlockWeights& w, const float* P, float* G,
                    const int* position, int m, int n, Workspace& work, const BlockActivations& a) {
    // For y = x A + b: dA += x^T dy, db += sum of dy, dx = dy A^T. The residual stream is a sum, so its gradient goes
    // through a branch and past it: dresid_mid = dresid + that through LN2 and the MLP, and likewise for attention.
    linear_gradient(a.post, F, work.dresid, D, m, G + o.W_out);
    bias_gradient(work.dresid, D, m, G + o.b_out);
    linear(work.dresid, D, w.W_outT, nullptr, work.dpost, F, m);
    gelu_gradient(a.pre, a.gate, work.dpost, m * F);
    linear_gradient(a.ln2, D, work.dpost, F, m, G + o.W_in);
    bias_gradient(work.dpost, F, m, G + o.b_in);
    linear(work.dpost, F, w.W_inT, nullptr, work.dnorm, D, m);
    std::memcpy(work.dresid_mid, work.dresid, m * D * sizeof(float));
    layer_norm_gradient<Result::add>(work.dnorm, a.normalised2, a.inverse_std2, P + o.ln2_w, G + o.ln2_w, G + o.ln2_b,
                                     work.dresid_mid, m);

    linear_gradient(a.z, D, work.dresid_mid, D, m, G + o.W_O);
    bias_gradient(work.dresid_mid, D, m, G + o.b_O);
    linear(work.dresid_mid, D, w.W_OT, nullptr, work.dz, D, m);
    for (int j = 0; j < D; j++) {
        std::memset(work.dKT + j * s.stride(), 0, padded(n) * sizeof(float));
        std::memset(work.dVT + j * s.stride(), 0, padded(n) * sizeof(float));
    }
    attend_gradient(a.q, position, m, a.KT, a.VT, s.stride(), a.z, work.dz, a.pattern, work.dq, work.dKT, work.dVT);
    // The gradient dS of the scores is in nats; q is in units of ln 2 (see QUERY_SCALE), so S = ln 2 q K^T and
    // dq = ln 2 QUERY_SCALE dS K (of the q before scaling), dK = ln 2 dS^T q.
    scale(work.dq, m * D, QUERY_SCALE * LN_2);
    for (int j = 0; j < D; j++) scale(work.dKT + j * s.stride(), padded(n), LN_2);
    transpose(work.dKT, s.stride(), D, padded(n), work.dk, D);
    transpose(work.dVT, s.stride(), D, padded(n), work.dv, D);

    linear_gradient(a.query_input, D, work.dq, D, m, G + o.W_Q);
    bias_gradient(work.dq, D, m, G + o.b_Q);
    linear_gradient(a.ln1, D, work.dk, D, n, G + o.W_K);
    bias_gradient(work.dk, D, n, G + o.b_K);
    linear_gradient(a.ln1, D, work.dv, D, n, G + o.W_V);
    bias_gradient(work.dv, D, n, G + o.b_V);
    linear(work.dk, D, w.W_KT, nullptr, work.dnorm, D, n);
    linear<Result::add>(work.dv, D, w.W_VT, nullptr, work.dnorm, D, n);
    linear(work.dq, D, w.W_QT, nullptr, work.dz, D, m);
    scatter_add_rows(work.dz, position, m, work.dnorm);
    layer_norm_gradient<Result::set>(work.dnorm, a.normalised1, a.inverse_std1, P + o.ln1_w, G + o.ln1_w, G + o.ln1_b,
                                     work.dresid, n);
    scatter_add_rows(work.dresid_mid, position, m, work.dresid);
}

// Loss at the m scored positions, and the gradient of what the unembedding reads, in work.dnorm [m][D].
double unembed(const Shape& s, const PackedWeights& weights, const std::int64_t* targets, int m, float scale,
               Workspace& work, float* dW_U) {
    double loss = 0.0;
    for (int i = 0; i < m; i += LOGIT_ROWS) {
        const int rows = std::min(LOGIT_ROWS, m - i);
        const float* x = work.ln_final + i * D;
        linear(x, D, weights.W_U, nullptr, work.logits, s.columns(), rows);
        for (int r = 0; r < rows; r++)
            loss += cross_entropy(work.logits + r * s.columns(), s.d_vocab, targets[work.scored[i + r]], scale);
        // l = x W_U, and the logits are dloss/dl by now: dW_U += x^T dl, dx = dl W_U^T.
        linear_gradient(x, D, work.logits, s.columns(), rows, dW_U);
        linear(work.logits, s.columns(), weights.W_UT, nullptr, work.dnorm + i * D, D, rows);
    }
    return loss;
}

struct Score {
    double loss;           // nats, summed over scored positions
    std::int64_t correct;  // scored positions whose target is a hit
};

// Whether the target's logit is strictly larger than every other: a tie is no hit, as in model/hits.py.
bool is_hit(const float* logits, int n, std::int64_t target) {
    const float own = logits[target];
    int smaller = 0;
    for (int v = 0; v < n; v++) smaller += logits[v] < own;
    return smaller == n - 1;
}

// The same without a gradient.
Score score(const Shape& s, const PackedWeights& weights, const std::int64_t* targets, int m, Workspace& work) {
    Score total{0.0, 0};
    for (int i = 0; i < m; i += LOGIT_ROWS) {
        const int rows = std::min(LOGIT_ROWS, m - i);
        linear(work.ln_final + i * D, D, weights.W_U, nullptr, work.logits, s.columns(), rows);
        for (int r = 0; r < rows; r++) {
            float* logits = work.logits + r * s.columns();
            const std::int64_t target = targets[work.scored[i + r]];
            total.correct += is_hit(logits, s.d_vocab, target);
            total.loss += cross_entropy(logits, s.d_vocab, target, 1.0f);
        }
    }
    return total;
}

// One sequence of a batch.   tokens, targets, mask [width]; it ends at its last scored position
struct Sequence {
    const std::int64_t *tokens, *targets;
    const std::uint8_t* mask;
    int width;
};

// Where the last block is read, and how far the sequence goes: m scored positions, n tokens.
struct Extent {
    int m, n;
};

Extent scored_positions(const Sequence& sequence, std::vector<int>& scored) {
    int m = 0;
    for (int t = 0; t < sequence.width; t++)
        if (sequence.mask[t]) scored[m++] = t;
    return {m, m == 0 ? 0 : scored[m - 1] + 1};
}

// What the unembedding reads at the scored positions, in work.ln_final [m][D].
void forward(const Shape& s, const Offsets& at, const PackedWeights& weights, const float* P, const Sequence& sequence,
             Extent extent, Workspace& work) {
    const auto [m, n] = extent;
    const int last = s.n_layers - 1;
    // resid_0[t] = W_E[token t] + W_pos[t]
    for (int t = 0; t < n; t++) {
        const float *token = P + at.W_E + sequence.tokens[t] * D, *position = P + at.W_pos + t * D;
        for (int c = 0; c < D; c += W) store(work.resid + t * D + c, load(token + c) + load(position + c));
    }
    for (int l = 0; l <= last; l++)
        block_forward(s, at.blocks[l], weights.blocks[l], P, l == last ? work.scored.data() : work.everywhere.data(),
                      l == last ? m : n, n, work, work.blocks[l]);
    layer_norm(work.resid, P + at.ln_final_w, P + at.ln_final_b, s.epsilon, work.normalised_final,
               work.inverse_std_final, work.ln_final, m);
}

// From the gradient of what the unembedding reads, in work.dnorm [m][D], to that of every parameter before it.
void backward(const Shape& s, const Offsets& at, const PackedWeights& weights, const float* P, const Sequence& sequence,
              Extent extent, Workspace& work, float* G) {
    const auto [m, n] = extent;
    const int last = s.n_layers - 1;
    layer_norm_gradient<Result::set>(work.dnorm, work.normalised_final, work.inverse_std_final, P + at.ln_final_w,
                                     G + at.ln_final_w, G + at.ln_final_b, work.dresid, m);
    for (int l = last; l >= 0; l--)
        block_backward(s, at.blocks[l], weights.blocks[l], P, G,
                       l == last ? work.scored.data() : work.everywhere.data(), l == last ? m : n, n, work,
                       work.blocks[l]);
    // The derivative of a sum by either of its terms is 1: both rows get dresid[t], a token's row once per occurrence.
    for (int t = 0; t < n; t++)
        for (int c = 0; c < D; c += W) {
            const vec d = load(work.dresid + t * D + c);
            float *dW_E = G + at.W_E + sequence.tokens[t] * D + c, *dW_pos = G + at.W_pos + t * D + c;
            store(dW_E, load(dW_E) + d);
            store(dW_pos, load(dW_pos) + d);
        }
}

// ---- A batch --------------------------------------------------------------------------------------------------------

// tokens, targets, mask [size][width]
struct Batch {
    const std::int64_t *tokens, *targets;
    const std::uint8_t* mask;
    std::int64_t size;
    int width;
};

struct Kernel {
    Shape shape;
    Offsets offsets;
    std::int64_t n_parameters;
    PackedWeights weights;
    std::vector<Workspace> workspaces;  // one a thread
    std::vector<Gradient> gradients;

    Kernel(Shape s, const std::int64_t* at, std::int64_t n, int threads)
        : shape(s), offsets(at, s.n_layers), n_parameters(n), weights(s) {
        for (int i = 0; i < threads; i++) {
            workspaces.emplace_back(s);
            gradients.emplace_back(s, n);
        }
    }

    int threads() const { return int(workspaces.size()); }

    // Thread i takes sequences i, i + threads, ...: the same ones each time, so that sums have the same bits.
    template <class Work>
    void each_sequence(const Batch& batch, const Work& work) {
        const auto take = [&](int i) {
            for (std::int64_t b = i; b < batch.size; b += threads()) {
                const std::int64_t at = b * batch.width;
                const Sequence sequence{batch.tokens + at, batch.targets + at, batch.mask + at, batch.width};
                const Extent extent = scored_positions(sequence, workspaces[i].scored);
                if (extent.m > 0) work(i, b, sequence, extent);
            }
        };
        std::vector<std::thread> others;
        for (int i = 1; i < threads(); i++) others.emplace_back(take, i);
        take(0);
        for (std::thread& thread : others) thread.join();
    }

    double step(const float* P, float* G, const Batch& batch, float scale) {
        pack(shape, offsets, P, weights);
        for (Gradient& gradient : gradients) gradient.zero();
        each_sequence(batch, [&](int i, std::int64_t, const Sequence& sequence, Extent extent) {
            Workspace& work = workspaces[i];
            Gradient& gradient = gradients[i];
            forward(shape, offsets, weights, P, sequence, extent, work);
            gradient.loss += unembed(shape, weights, sequence.targets, extent.m, scale, work, gradient.W_U);
            backward(shape, offsets, weights, P, sequence, extent, work, gradient.flat);
        });
        double loss = 0.0;
        for (const Gradient& gradient : gradients) {
            add_gradient(shape, offsets, gradient, n_parameters, G);
            loss += gradient.loss;
        }
        return loss * scale;
    }

    // loss, correct [batch.size], zero for sequences without a scored position
    void score_batch(const float* P, const Batch& batch, double* loss, std::int64_t* correct) {
        pack(shape, offsets, P, weights);
        std::fill_n(loss, batch.size, 0.0);
        std::fill_n(correct, batch.size, 0);
        each_sequence(batch, [&](int i, std::int64_t b, const Sequence& sequence, Extent extent) {
            forward(shape, offsets, weights, P, sequence, extent, workspaces[i]);
            const Score found = score(shape, weights, sequence.targets, extent.m, workspaces[i]);
            loss[b] = found.loss;
            correct[b] = found.correct;
        });
    }
};

}  // namespace

extern "C" {

// offsets: see `Offsets`. Null when memory is lacking.
void* kernel_create(int n_layers, int n_ctx, int d_vocab, int tied, float epsilon, const std::int64_t* offsets,
                    std::int64_t n_parameters, int threads) {
    try {
        return new Kernel({n_layers, n_ctx, d_vocab, tied != 0, epsilon}, offsets, n_parameters, threads);
    } catch (const std::bad_alloc&) {
        return nullptr;
    }
}

void kernel_destroy(void* kernel) { delete static_cast<Kernel*>(kernel); }

// scale x the summed loss in nats; its gradient is added to G [n_parameters]. Parameters P [n_parameters]; tokens,
// targets and mask [batch][width]; no mask is set beyond n_ctx, and ids are below d_vocab wherever the loss depends on
// them: the caller checks.
double kernel_step(void* kernel, const float* P, float* G, const std::int64_t* tokens, const std::int64_t* targets,
                   const std::uint8_t* mask, std::int64_t batch, int width, float scale) {
    return static_cast<Kernel*>(kernel)->step(P, G, {tokens, targets, mask, batch, width}, scale);
}

// Summed loss in nats, and number of targets that are hits, of each sequence.   loss, correct [batch]
void kernel_score(void* kernel, const float* P, const std::int64_t* tokens, const std::int64_t* targets,
                  const std::uint8_t* mask, std::int64_t batch, int width, double* loss, std::int64_t* correct) {
    static_cast<Kernel*>(kernel)->score_batch(P, {tokens, targets, mask, batch, width}, loss, correct);
}
}
