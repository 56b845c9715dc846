// A vector of W floats, the widest that the target has, written with the compiler's vector extensions (GCC and Clang):
// the same source gives AVX-512, AVX2, SSE and ARM NEON.
#pragma once

#include <cmath>
#include <cstdint>
#include <utility>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
constexpr int W = 16;
#elif defined(__AVX__)
constexpr int W = 8;
#else
constexpr int W = 4;
#endif

typedef float vec __attribute__((vector_size(4 * W)));
typedef std::int32_t ivec __attribute__((vector_size(4 * W)));
typedef std::uint32_t uvec __attribute__((vector_size(4 * W)));
typedef float unaligned_vec __attribute__((vector_size(4 * W), aligned(4), may_alias));
typedef float quad __attribute__((vector_size(16)));
typedef float unaligned_quad __attribute__((vector_size(16), aligned(4), may_alias));

#define INLINE inline __attribute__((always_inline))
// Unrolls the next loop, so that what it indexes can be in registers.
#define UNROLL _Pragma("GCC unroll 16")

INLINE vec load(const float* p) { return *reinterpret_cast<const unaligned_vec*>(p); }
INLINE void store(float* p, vec x) { *reinterpret_cast<unaligned_vec*>(p) = x; }
INLINE vec broadcast(float x) { return vec{} + x; }
INLINE quad load_quad(const float* p) { return *reinterpret_cast<const unaligned_quad*>(p); }
#if defined(__AVX__)  // else quad is vec
INLINE void store(float* p, quad x) { *reinterpret_cast<unaligned_quad*>(p) = x; }
#endif

// The larger, or smaller, of each pair of lanes; y where x is NaN or y is. 1 / x to 3e-7 of the value, for x whose
// inverse is no denormal number.
#if defined(__AVX512F__)
INLINE vec maximum(vec x, vec y) { return _mm512_max_ps(x, y); }
INLINE vec minimum(vec x, vec y) { return _mm512_min_ps(x, y); }
INLINE vec square_root(vec x) { return _mm512_sqrt_ps(x); }
INLINE vec reciprocal(vec x) {
    const vec guess = _mm512_rcp14_ps(x);  // to 2^-14, which a step of Newton's method squares
    return guess * (2.0f - x * guess);
}
#else
INLINE vec maximum(vec x, vec y) { return x > y ? x : y; }
INLINE vec minimum(vec x, vec y) { return x < y ? x : y; }
INLINE vec square_root(vec x) {
    for (int lane = 0; lane < W; lane++) x[lane] = std::sqrt(x[lane]);
    return x;
}
INLINE vec reciprocal(vec x) { return 1.0f / x; }
#endif
constexpr int padded(int n) { return (n + W - 1) / W * W; }

template <int... I>
INLINE ivec lane_numbers(std::integer_sequence<int, I...>) { return ivec{I...}; }
INLINE ivec lane_numbers() { return lane_numbers(std::make_integer_sequence<int, W>{}); }

// Lane i of `low`: a[i] where bit S of i is 0, else b[i - S]; of `high`: a[i + S] and b[i]. Exchanging the off-diagonal
// quarters of a 2S x 2S block so, for S = 1, 2, 4 ..., transposes a W x W block.
#if defined(__clang__)
template <int S, int... I>
INLINE vec low(vec a, vec b, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(a, b, (I & S ? W + I - S : I)...);
}
template <int S, int... I>
INLINE vec high(vec a, vec b, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(a, b, (I & S ? W + I : I + S)...);
}
#else
template <int S, int... I>
INLINE vec low(vec a, vec b, std::integer_sequence<int, I...>) {
    return __builtin_shuffle(a, b, ivec{(I & S ? W + I - S : I)...});
}
template <int S, int... I>
INLINE vec high(vec a, vec b, std::integer_sequence<int, I...>) {
    return __builtin_shuffle(a, b, ivec{(I & S ? W + I : I + S)...});
}
#endif
template <int S> INLINE vec low(vec a, vec b) { return low<S>(a, b, std::make_integer_sequence<int, W>{}); }
template <int S> INLINE vec high(vec a, vec b) { return high<S>(a, b, std::make_integer_sequence<int, W>{}); }

// x[r][c] <- x[c][r]
template <int S = 1>
INLINE void transpose(vec (&x)[W]) {
    if constexpr (S < W) {
        for (int r = 0; r < W; r++) {
            if (r & S) continue;
            const vec a = x[r], b = x[r + S];
            x[r] = low<S>(a, b);
            x[r + S] = high<S>(a, b);
        }
        transpose<2 * S>(x);
    }
}

// Lane i of the result is the sum over the lanes of x[i]: the tree of `transpose`, adding as it goes. x is used up.
template <int S = 1>
INLINE vec sums(vec (&x)[W]) {
    if constexpr (S == W) return x[0];
    else {
        for (int r = 0; r < W; r += 2 * S) x[r] = low<S>(x[r], x[r + S]) + high<S>(x[r], x[r + S]);
        return sums<2 * S>(x);
    }
}

// Likewise the largest of the lanes of x[i].
template <int S = 1>
INLINE vec maxima(vec (&x)[W]) {
    if constexpr (S == W) return x[0];
    else {
        for (int r = 0; r < W; r += 2 * S) x[r] = maximum(low<S>(x[r], x[r + S]), high<S>(x[r], x[r + S]));
        return maxima<2 * S>(x);
    }
}

// 2^x for x <= 126, to 3e-7 of the value; 0 below 2^-100, so that no product becomes a denormal number, which costs a
// hundred cycles. NaN stays NaN.
// 2^x = 2^n 2^f with n the integer at or below x, or the nearest to it: 2^n is exact, a change of the exponent's bits,
// and f = x - n is so small that a polynomial of degree 5 does. It is the one with p(0) = 1 that is closest to 2^f in
// relative terms, by linear programming: 9e-8.
INLINE vec polynomial(vec f, float c1, float c2, float c3, float c4, float c5) {
    return ((((c5 * f + c4) * f + c3) * f + c2) * f + c1) * f + 1.0f;
}
#if defined(__AVX512DQ__)
INLINE vec exp2(vec x) {
    const vec f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);  // x - floor x
    const vec p = polynomial(f, 0.6931513123652501f, 0.24016444655288793f, 0.05579992042465521f, 0.009017024660266038f,
                             0.0018671314779478286f);
    const __mmask16 not_small = _mm512_cmp_ps_mask(x, broadcast(-100.0f), _CMP_NLT_UQ);
    return _mm512_maskz_scalef_ps(not_small, p, x);  // p 2^(floor x)
}
#else
INLINE vec exp2(vec x) {
    const vec round_to_integer = broadcast(0x1.8p23f);  // adding it leaves no bits for the fraction
    const vec shifted = x + round_to_integer;
    const vec f = x - (shifted - round_to_integer);  // in [-1/2, 1/2]
    const vec p = polynomial(f, 0.6931470036506653f, 0.24022242426872253f, 0.05550733581185341f, 0.009671512991189957f,
                             0.001326472731307149f);
    const vec power = (vec)((uvec)p + ((uvec)shifted << 23));  // the integer part goes to the exponent
    return x < -100.0f ? vec{} : power;
}
#endif

constexpr float LOG2_E = 1.44269504088896341f;
constexpr float LN_2 = 0.693147180559945309f;
