// Loss and gradient of a tiny GPT-2, fused: each thread takes one group of sequences after another through forward and
// backward, so that all activations stay in its core's cache. Tokens of a group lie along the vector lanes, one sequence
// behind the other. Compiled for one d_model, n_heads and d_mlp (see layers.h).
#include <algorithm>
#include <thread>

#include "weights.h"

namespace {

constexpr int GROUP = 256;  // tokens of a group, unless one sequence has more
constexpr int TILE = 256;   // tokens that go through products together: their sums share the loads of weights
constexpr int LOGIT_TOKENS = 64;  // logits of so many tokens at a time: those of 8192 words fill the second-level cache

// One sequence of a group: n tokens up to its last scored position, in columns `begin` on; the last block is read at m
// scored positions, in columns `read` on.
struct Sequence {
    const std::int64_t* tokens;
    int begin, n, read, m;
};

// ---- Buffers --------------------------------------------------------------------------------------------------------

// What the forward pass keeps of a block for the backward pass: a column per token, or per read position (r).
struct BlockActivations {
    Buffer z1, inverse_std1, qkv;                  // [D], [1], [QKV]
    Buffer z_query, pattern, inverse_sum, z;       // r: [D], see attention.h, [H], [D]
    Buffer z2, inverse_std2, post, slope;          // r: [D], [1], [F], [F]: GELU and its derivative

    explicit BlockActivations(std::size_t pattern_size)
        : z1(D * STRIDE), inverse_std1(STRIDE), qkv(QKV * STRIDE), z_query(D * STRIDE), pattern(pattern_size),
          inverse_sum(H * STRIDE), z(D * STRIDE), z2(D * STRIDE), inverse_std2(STRIDE), post(F * STRIDE),
          slope(F * STRIDE) {}
};

// All that a thread needs for a group, allocated once.
struct Workspace {
    bool every = false;  // whether every token of the group is scored
    std::vector<Sequence> sequences;
    std::vector<int> positions, scored;            // of each column within its sequence; of each read column
    std::vector<std::int32_t> targets;             // of each read column
    std::vector<std::int64_t> batch_row;           // likewise: its sequence's row of the batch
    std::vector<BlockActivations> blocks;
    Buffer x, x_read, x_mid;                       // [D], r [D], r [D]: the residual stream
    Buffer z_final, inverse_std_final;             // r
    Buffer dx, dx_mid, dz, dqkv, dread;            // [D], r [D], [D], [QKV], r [D]
    Buffer dpre;                                   // r: [F]
    Buffer rows;                                   // [TOKENS][TOKEN_ROW]: transposed
    Buffer logits, largest;                        // [logits][LOGIT_TOKENS], [LOGIT_TOKENS]

    explicit Workspace(const Shape& s)
        : positions(STRIDE), scored(STRIDE), targets(STRIDE), batch_row(STRIDE),
          x(D * STRIDE), x_read(D * STRIDE), x_mid(D * STRIDE), z_final(D * STRIDE), inverse_std_final(STRIDE), dx(D * STRIDE),
          dx_mid(D * STRIDE), dz(D * STRIDE), dqkv(QKV * STRIDE), dread(D * STRIDE), dpre(F * STRIDE),
          rows(TOKEN_ROW<D> * STRIDE), logits(std::size_t(s.logits()) * LOGIT_TOKENS), largest(LOGIT_TOKENS) {
        // Shorter sequences have fewer keys a token, so that whole ones of n_ctx tokens have most.
        std::size_t keys = 0;
        for (int i = 0; i < s.n_ctx; i++) keys += padded(std::min(i + QUERIES, s.n_ctx));
        const std::size_t sequences_at_most = (TOKENS + s.n_ctx - 1) / s.n_ctx;
        for (int layer = 0; layer < s.n_layers; layer++) blocks.emplace_back(sequences_at_most * keys * H);
    }

    void clear() { sequences.clear(), every = true; }

    // Takes a sequence unless it is too long for what is left; false then. One without a scored position is left out.
    bool take(const std::int64_t* token_ids, const std::int64_t* targets, const std::uint8_t* mask, int width,
              std::int64_t row) {
        const int begin = sequences.empty() ? 0 : n(), read = sequences.empty() ? 0 : m();
        int count = 0, end = 0;
        for (int t = 0; t < width; t++)
            if (mask[t]) {
                if (const int i = read + count; i < TOKENS) {
                    scored[i] = t;
                    this->targets[i] = int(targets[t]);
                    batch_row[i] = row;
                }
                count++, end = t + 1;
            }
        if (begin > 0 && begin + end > GROUP) return false;
        if (count == 0) return true;
        for (int t = 0; t < end; t++) positions[begin + t] = t;
        sequences.push_back({token_ids, begin, end, read, count});
        every = every && count == end;
        return true;
    }

    bool reads_all(const Shape& s, int layer) const { return every || layer < s.n_layers - 1; }
    int n() const { return sequences.back().begin + sequences.back().n; }
    int m() const { return sequences.back().read + sequences.back().m; }
};

// y[:, i] (+)= x[:, column of the i-th read position], or the other way round.   x, y [D][STRIDE]
void gather(const Workspace& work, const float* x, float* y) {
    section(LAYOUT);
    for (const Sequence& q : work.sequences)
        for (int j = 0; j < D; j++)
            for (int i = 0; i < q.m; i++)
                y[j * STRIDE + q.read + i] = x[j * STRIDE + q.begin + work.scored[q.read + i]];
}
void scatter_add(const Workspace& work, const float* y, float* x) {
    section(LAYOUT);
    for (const Sequence& q : work.sequences)
        for (int j = 0; j < D; j++)
            for (int i = 0; i < q.m; i++)
                x[j * STRIDE + q.begin + work.scored[q.read + i]] += y[j * STRIDE + q.read + i];
}

void zero(float* x, int features, int begin, int end) {
    section(LAYOUT);
    for (int f = 0; f < features; f++)
        for (int t = begin; t < end; t += W) store(x + f * STRIDE + t, vec{});
}

// ---- One group ------------------------------------------------------------------------------------------------------

// Tokens go through products in tiles: those of a long sequence would push each other out of the cache.
template <class Work>
void each_tile(int n, const Work& work) {
    for (int t = 0; t < n; t += TILE) work(t, std::min(TILE, n - t));
}

// x += W_O attention(LN1(x)) + b_O;  x += W_out gelu(W_in LN2(x) + b_in) + b_out, in work.x [D].
// `all`: the block is read at every token; otherwise at the scored ones, whose columns x then has.
void block_forward(const Shape& s, const BlockOffsets& o, const BlockWeights& w, const float* P, bool all, Workspace& work,
                   BlockActivations& a) {
    const int n = work.n(), m = all ? n : work.m();
    float *q = a.qkv, *k = a.qkv + D * STRIDE, *v = a.qkv + 2 * D * STRIDE, *x = work.x;
    const int unread = all ? 0 : D;  // q of every token is not wanted
    each_tile(n, [&](int t, int size) {
        normalise(work.x + t, s.epsilon, a.z1 + t, a.inverse_std1 + t, size);
        linear(Panels{w.W_QKV, D * PANEL}.from_output(unread), D, a.z1 + t, QKV - unread, size, from_bias(w.b_QKV + unread),
               into(q + unread * STRIDE + t));
    });
    zero(k, 2 * D, n, n + 1);  // which vectors of keys reach
    if (!all) {
        gather(work, a.z1, a.z_query);
        linear({w.W_QKV, D * PANEL}, D, a.z_query, D, m, from_bias(w.b_QKV), into(q));
        gather(work, work.x, work.x_read);
        x = work.x_read;
    }
    float* pattern = a.pattern;
    for (const Sequence& each : work.sequences) {
        const int read = all ? each.begin : each.read;
        pattern = attend(q + read, (all ? work.positions : work.scored).data() + read, all ? each.n : each.m,
                         k + each.begin, v + each.begin, pattern, a.inverse_sum + read, a.z + read);
    }
    each_tile(m, [&](int t, int size) {
        linear({w.W_O, D * PANEL}, D, a.z + t, D, size, on_top(P + o.b_O, x + t), into(work.x_mid + t));
        normalise(work.x_mid + t, s.epsilon, a.z2 + t, a.inverse_std2 + t, size);
        float *post = a.post + t, *slope = a.slope + t;
        linear({w.W_in, D * PANEL}, D, a.z2 + t, F, size, from_bias(w.b_in), [&](int f, int i, vec pre) {
            const Gelu found = gelu(pre);
            store(post + f * STRIDE + i, found.value);
            store(slope + f * STRIDE + i, found.slope);
        });
        deep_linear({w.W_out, F * PANEL}, F, post, D, size, on_top(P + o.b_out, work.x_mid + t), work.x + t);
    });
}

// work.dx: from the gradient of the block's output, at what is read, to that of its input, at every token.
void block_backward(const BlockWeights& w, bool all, Workspace& work,
                    const BlockActivations& a, BlockGradient& G) {
    // For y = A x + b: dA += dy x^T, db += sum of dy, dx = A^T dy. The residual stream is a sum, so its gradient goes
    // through a branch and past it: dx_mid = dx + that through LN2 and the MLP, and likewise for attention.
    const int n = work.n(), m = all ? n : work.m();
    each_tile(m, [&](int t, int size) {
        float *dx = work.dx + t, *dx_mid = work.dx_mid + t, *dz = work.dz + t, *dpre = work.dpre + t;
        const float* slope = a.slope + t;
        transpose(dx, STRIDE, D, size, work.rows, TOKEN_ROW<D>);
        linear_gradient<D>(a.post + t, F, work.rows, size, G.W_out);
        bias_gradient(dx, D, size, G.b_out);
        linear({w.W_out_back, D * PANEL}, D, dx, F, size, from_zero(), [&](int f, int i, vec dpost) {
            store(dpre + f * STRIDE + i, dpost * load(slope + f * STRIDE + i));
        });
        transpose(a.z2 + t, STRIDE, D, size, work.rows, TOKEN_ROW<D>);
        linear_gradient<D>(dpre, F, work.rows, size, G.W_in);
        bias_gradient(dpre, F, size, G.b_in);
        deep_linear({w.W_in_back, F * PANEL}, F, dpre, D, size, from_zero(), dz);
        normalise_gradient(dz, a.z2 + t, a.inverse_std2 + t, dx, dx_mid, size);

        transpose(dx_mid, STRIDE, D, size, work.rows, TOKEN_ROW<D>);
        linear_gradient<D>(a.z + t, D, work.rows, size, G.W_O);
        bias_gradient(dx_mid, D, size, G.b_O);
        linear({w.W_O_back, D * PANEL}, D, dx_mid, D, size, from_zero(), into(dz));
    });
    const float *q = a.qkv, *k = a.qkv + D * STRIDE, *v = a.qkv + 2 * D * STRIDE;
    float *dq = work.dqkv, *dk = work.dqkv + D * STRIDE, *dv = work.dqkv + 2 * D * STRIDE;
    zero(dk, 2 * D, 0, n + W);
    float* pattern = a.pattern;
    for (const Sequence& each : work.sequences) {
        const int read = all ? each.begin : each.read;
        pattern = attend_gradient(q + read, (all ? work.positions : work.scored).data() + read, all ? each.n : each.m,
                                  k + each.begin, v + each.begin, a.inverse_sum + read, a.z + read,
                                  work.dz + read, pattern, dq + read, dk + each.begin, dv + each.begin);
    }
    if (!all) {
        transpose(a.z_query, STRIDE, D, m, work.rows, TOKEN_ROW<D>);
        linear_gradient<D>(dq, D, work.rows, m, G.W_QKV);
        bias_gradient(dq, D, m, G.b_QKV);
        linear({w.W_QKV_back, QKV * PANEL}, D, dq, D, m, from_zero(), into(work.dread));
    }
    const int unread = all ? 0 : D;
    each_tile(n, [&](int t, int size) {
        const float* d = dq + unread * STRIDE + t;
        transpose(a.z1 + t, STRIDE, D, size, work.rows, TOKEN_ROW<D>);
        linear_gradient<D>(d, QKV - unread, work.rows, size, G.W_QKV + unread * D);
        bias_gradient(d, QKV - unread, size, G.b_QKV + unread);
        deep_linear(Panels{w.W_QKV_back, QKV * PANEL}.from_input(unread), QKV - unread, d, D, size, from_zero(), work.dz + t);
    });
    if (!all) scatter_add(work, work.dread, work.dz);
    normalise_gradient(work.dz, a.z1, a.inverse_std1, all ? (const float*)work.dx_mid : nullptr, work.dx, n);
    if (!all) scatter_add(work, work.dx_mid, work.dx);
}

// ---- Unembedding ----------------------------------------------------------------------------------------------------

// Logits of the read columns from `first` on, LOGIT_TOKENS or what is left of them, in work.logits [logits][LOGIT_TOKENS],
// and the largest of each column in work.largest; returns how many columns.
int logits_of(const Shape& s, const PackedWeights& weights, int first, Workspace& work) {
    const int size = std::min(LOGIT_TOKENS, work.m() - first);
    float *logits = work.logits, *largest = work.largest;
    for (int t = 0; t < size; t += W) store(largest + t, broadcast(HIDDEN));
    linear({weights.W_U, D * PANEL}, D, work.x + first, s.logits(), size, from_zero(), [&](int v, int t, vec logit) {
        if (v >= s.d_vocab) logit = broadcast(HIDDEN);
        store(logits + v * LOGIT_TOKENS + t, logit);
        store(largest + t, maximum(load(largest + t), logit));
    });
    return size;
}

// loss = log sum_v exp(l_v) - l_target;  dloss/dl = softmax(l) - onehot(target).
// At the target that is minus the sum of the other probabilities, which loses no digits where the target's is near 1.
// -log softmax(logits)[target] in nats of each column. The logits become the gradient, which is then to be multiplied
// by inverse_sum: the softmax is not divided by its sum.
// logits [rows][LOGIT_TOKENS]; largest, inverse_sum [LOGIT_TOKENS]; targets [size], and anything up to a whole vector
template <class Take>
void cross_entropy(float* logits, int rows, const float* largest, const std::int32_t* targets, int size,
                   float* inverse_sum, const Take& take) {
    section(LOSS);
    for (int t = 0; t < size; t += W) {
        ivec target;
        std::memcpy(&target, targets + t, sizeof target);
        float own[W], rest[W];
        for (int i = 0; i < W && t + i < size; i++) own[i] = logits[targets[t + i] * LOGIT_TOKENS + t + i];
        const vec top = load(largest + t);
        vec others{};
        for (int v = 0; v < rows; v++) {
            float* at = logits + v * LOGIT_TOKENS + t;
            const vec p = exp2((load(at) - top) * LOG2_E);
            others += target == v ? vec{} : p;
            store(at, p);
        }
        store(rest, others);
        for (int i = 0; i < W; i++) {
            inverse_sum[t + i] = 0.0f;
            if (t + i >= size) continue;
            float& p_target = logits[targets[t + i] * LOGIT_TOKENS + t + i];
            inverse_sum[t + i] = 1.0f / (rest[i] + p_target);
            // The sum is 1 + what is not the largest: log1p keeps the digits of a small rest.
            take(t + i, double(largest[t + i]) - own[i] + std::log1p(double(rest[i]) + (double(p_target) - 1.0)));
            p_target = -rest[i];
        }
    }
}

// Loss at the scored positions, and the gradient of what the unembedding reads, in work.dx [D].
double unembed(const Shape& s, const Offsets& at, const PackedWeights& weights, const float* P, float scale,
               Workspace& work, Gradient& G) {
    double loss = 0.0;
    float *x = work.x, *dz = work.dz, *z = work.z_final, inverse_sum[LOGIT_TOKENS];
    for (int first = 0, size; first < work.m(); first += size) {
        size = logits_of(s, weights, first, work);
        cross_entropy(work.logits, s.logits(), work.largest, work.targets.data() + first, size, inverse_sum,
                      [&](int, double nats) { loss += nats; });
        for (int t = 0; t < size; t++) inverse_sum[t] *= scale;
        // l = x W_U, and the logits are dloss/dl but for inverse_sum: dW_U += dl^T x, dx = dl W_U^T.
        deep_linear<LOGIT_TOKENS>({weights.W_U_back, s.logits() * PANEL}, s.logits(), work.logits, D, size, from_zero(),
                                  dz + first);
        for (int t = 0; t < size; t += W) {
            const vec factor = load(inverse_sum + t);
            for (int c = 0; c < D; c++) {
                store(x + c * STRIDE + first + t, load(x + c * STRIDE + first + t) * factor);
                store(dz + c * STRIDE + first + t, load(dz + c * STRIDE + first + t) * factor);
            }
        }
        transpose(x + first, STRIDE, D, size, work.rows, TOKEN_ROW<D>);
        linear_gradient<D, LOGIT_TOKENS>(work.logits, s.logits(), work.rows, size, G.W_U);
    }
    // x = gain z + bias
    add_sums(D, work.m(), G.ln_final_w, [=](int c, int t) { return load(dz + c * STRIDE + t) * load(z + c * STRIDE + t); });
    bias_gradient(dz, D, work.m(), G.ln_final_b);
    for (int c = 0; c < D; c++)
        for (int t = 0; t < work.m(); t += W) store(dz + c * STRIDE + t, load(dz + c * STRIDE + t) * P[at.ln_final_w + c]);
    return loss;
}

// Whether the target's logit is strictly larger than every other: a tie is no hit, as in model/hits.py.
// logits [n][LOGIT_TOKENS], of one column
bool is_hit(const float* logits, int n, std::int64_t target) {
    const float own = logits[target * LOGIT_TOKENS];
    int smaller = 0;
    for (int v = 0; v < n; v++) smaller += logits[v * LOGIT_TOKENS] < own;
    return smaller == n - 1;
}

// What the unembedding reads, in work.x [D].
void forward(const Shape& s, const Offsets& at, const PackedWeights& weights, const float* P, Workspace& work) {
    const int n = work.n();
    section(EMBEDDING);
    for (const Sequence& q : work.sequences)
        for (int t = 0; t < q.n; t++) {
            const float *token = P + at.W_E + q.tokens[t] * D, *position = P + at.W_pos + t * D;
            for (int c = 0; c < D; c += W) store(work.rows + (q.begin + t) * TOKEN_ROW<D> + c, load(token + c) + load(position + c));
        }
    std::memset(work.rows + n * TOKEN_ROW<D>, 0, (padded(n) - n) * TOKEN_ROW<D> * sizeof(float));
    transpose(work.rows, TOKEN_ROW<D>, n, D, work.x, STRIDE);
    for (int l = 0; l < s.n_layers; l++)
        block_forward(s, at.blocks[l], weights.blocks[l], P, work.reads_all(s, l), work, work.blocks[l]);
    normalise(work.x, s.epsilon, work.z_final, work.inverse_std_final, work.m());
    for (int c = 0; c < D; c++)
        for (int t = 0; t < work.m(); t += W)
            store(work.x + c * STRIDE + t, P[at.ln_final_w + c] * load(work.z_final + c * STRIDE + t) + P[at.ln_final_b + c]);
}

// From the gradient of what the unembedding reads, in work.dz, to that of every parameter before it.
void backward(const Shape& s, const PackedWeights& weights, Workspace& work, Gradient& G) {
    const int n = work.n();
    normalise_gradient(work.dz, work.z_final, work.inverse_std_final, nullptr, work.dx, work.m());
    for (int l = s.n_layers - 1; l >= 0; l--)
        block_backward(weights.blocks[l], work.reads_all(s, l), work, work.blocks[l], G.blocks[l]);
    transpose(work.dx, STRIDE, D, n, work.rows, TOKEN_ROW<D>);
    section(EMBEDDING);
    for (const Sequence& q : work.sequences)
        for (int t = 0; t < q.n; t++)
            for (int c = 0; c < D; c += W) {
                const vec d = load(work.rows + (q.begin + t) * TOKEN_ROW<D> + c);
                float *dW_E = G.W_E + q.tokens[t] * D + c, *dW_pos = G.W_pos + t * D + c;
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
    PackedWeights weights;
    std::vector<Workspace> workspaces;  // one a thread
    std::vector<Gradient> gradients;

    Kernel(Shape s, const std::int64_t* at, int threads) : shape(s), offsets(at, s.n_layers), weights(s) {
        for (int i = 0; i < threads; i++) {
            workspaces.emplace_back(s);
            gradients.emplace_back(s);
        }
    }

    int threads() const { return int(workspaces.size()); }

    // Thread i takes sequences i, i + threads, ..., in groups: the same ones each time, so that sums have the same bits.
    template <class Work>
    void each_group(const Batch& batch, const Work& work) {
        const auto take = [&](int i) {
            Workspace& group = workspaces[i];
            group.clear();
            for (std::int64_t b = i; b < batch.size; b += threads()) {
                const std::int64_t at = b * batch.width;
                const auto taken = [&] {
                    return group.take(batch.tokens + at, batch.targets + at, batch.mask + at, batch.width, b);
                };
                if (taken()) continue;
                work(i);
                group.clear();
                taken();
            }
            if (!group.sequences.empty()) work(i);
        };
        std::vector<std::thread> others;
        for (int i = 1; i < threads(); i++) others.emplace_back(take, i);
        take(0);
        for (std::thread& thread : others) thread.join();
    }

    double step(const float* P, float* G, const Batch& batch, float scale) {
        section(PACKING);
        pack(shape, offsets, P, true, weights);
        for (Gradient& gradient : gradients) gradient.zero();
        each_group(batch, [&](int i) {
            forward(shape, offsets, weights, P, workspaces[i]);
            gradients[i].loss += unembed(shape, offsets, weights, P, scale, workspaces[i], gradients[i]);
            backward(shape, weights, workspaces[i], gradients[i]);
        });
        section(PACKING);
        double loss = 0.0;
        for (const Gradient& gradient : gradients) {
            add_gradient(shape, offsets, P, gradient, G);
            loss += gradient.loss;
        }
        section(OUTSIDE);
        return loss * scale;
    }

    // loss, correct [batch.size], zero for sequences without a scored position
    void score_batch(const float* P, const Batch& batch, double* loss, std::int64_t* correct) {
        pack(shape, offsets, P, false, weights);
        std::fill_n(loss, batch.size, 0.0);
        std::fill_n(correct, batch.size, 0);
        each_group(batch, [&](int i) {
            Workspace& work = workspaces[i];
            forward(shape, offsets, weights, P, work);
            float inverse_sum[LOGIT_TOKENS];
            for (int first = 0, size; first < work.m(); first += size) {
                size = logits_of(shape, weights, first, work);
                const std::int32_t* targets = work.targets.data() + first;
                for (int t = 0; t < size; t++)
                    correct[work.batch_row[first + t]] += is_hit(work.logits + t, shape.d_vocab, targets[t]);
                cross_entropy(work.logits, shape.logits(), work.largest, targets, size, inverse_sum,
                              [&](int t, double nats) { loss[work.batch_row[first + t]] += nats; });
            }
        });
    }
};

}  // namespace

extern "C" {

// offsets: see `Offsets`. Null when memory is lacking.
void* kernel_create(int n_layers, int n_ctx, int d_vocab, int tied, float epsilon, const std::int64_t* offsets,
                    std::int64_t, int threads) {
    try {
        return new Kernel({n_layers, n_ctx, d_vocab, tied != 0, epsilon}, offsets, threads);
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

// Multiply-adds in registers alone, `repeats` times: what the products are measured against. The number of operations.
double kernel_peak(std::int64_t repeats) {
    constexpr int CHAINS = W == 16 ? 16 : 8;  // more than the multiply-adds that are under way at once
    const vec factor = broadcast(0.75f);
    vec sum[CHAINS], total{};
    for (int c = 0; c < CHAINS; c++) sum[c] = broadcast(float(c));
    for (std::int64_t i = 0; i < repeats; i++)
        UNROLL for (int c = 0; c < CHAINS; c++) sum[c] = sum[c] * factor + factor;
    for (const vec& x : sum) total += x;
    return total[0] == 0.0f ? 0.0 : 2.0 * CHAINS * W * double(repeats);  // so that the sums are needed
}

#if defined(PROFILE)
// Seconds of each section so far.   seconds [OUTSIDE]
void kernel_sections(double* seconds) { std::copy_n(section_seconds, int(OUTSIDE), seconds); }
#endif
}
