// SPDX-License-Identifier: BSD-3-Clause
// Four lanes in the compiler's own vector types, for machines that are not x86 (NEON on aarch64).
#pragma once

#include <cstdint>
#include <cstring>
#if defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "trulysparse/activation.hpp"

namespace trulysparse {
namespace TRULYSPARSE_ISA_NAMESPACE {

#define TS_INLINE static inline __attribute__((always_inline))

typedef float Vec __attribute__((vector_size(16)));
typedef std::int32_t Mask __attribute__((vector_size(16)));
typedef std::uint32_t Words __attribute__((vector_size(16)));
typedef std::uint16_t Halves __attribute__((vector_size(8)));
constexpr int kWidth = 4;

TS_INLINE Vec zero() { return Vec{0, 0, 0, 0}; }
TS_INLINE Vec set1(float a) { return Vec{a, a, a, a}; }
TS_INLINE Vec load(const float* p) {
    Vec a;
    std::memcpy(&a, p, sizeof a);
    return a;
}
TS_INLINE void store(float* p, Vec a) { std::memcpy(p, &a, sizeof a); }
TS_INLINE void stream(float* p, Vec a) { store(p, a); }
TS_INLINE void streams_done() {}
TS_INLINE Vec load_first(const float* p, std::int64_t n) {
    Vec a = zero();
    for (std::int64_t i = 0; i < n; ++i) a[i] = p[i];
    return a;
}
TS_INLINE void store_first(float* p, Vec a, std::int64_t n) {
    for (std::int64_t i = 0; i < n; ++i) p[i] = a[i];
}
TS_INLINE Vec add(Vec a, Vec b) { return a + b; }
TS_INLINE Vec sub(Vec a, Vec b) { return a - b; }
TS_INLINE Vec mul(Vec a, Vec b) { return a * b; }
TS_INLINE Vec div(Vec a, Vec b) { return a / b; }
TS_INLINE Vec sqrt(Vec a) {
    return Vec{__builtin_sqrtf(a[0]), __builtin_sqrtf(a[1]), __builtin_sqrtf(a[2]), __builtin_sqrtf(a[3])};
}
#if defined(__aarch64__)
TS_INLINE Vec fma(Vec a, Vec b, Vec c) { return (Vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
#else
TS_INLINE Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }
#endif
TS_INLINE Mask less(Vec a, Vec b) { return (Mask)(a < b); }
TS_INLINE Vec select(Mask m, Vec a, Vec b) { return (Vec)((m & (Mask)a) | (~m & (Mask)b)); }
TS_INLINE Vec keep(Mask m, Vec a) { return (Vec)(m & (Mask)a); }
TS_INLINE Vec max_or_second(Vec a, Vec b) { return select(less(b, a), a, b); }  // b when either is NaN
TS_INLINE Vec absolute(Vec a) { return (Vec)((Words)a & 0x7fffffffu); }
TS_INLINE Vec copy_sign(Vec magnitude, Vec sign) {
    return (Vec)(((Words)magnitude & 0x7fffffffu) | ((Words)sign & 0x80000000u));
}
TS_INLINE unsigned bits(Mask m) {
    const Mask lane = m & Mask{1, 2, 4, 8};
    return static_cast<unsigned>(lane[0] | lane[1] | lane[2] | lane[3]);
}
TS_INLINE Mask from_bits(unsigned word) {
    const Words lane{1, 2, 4, 8};
    return (Mask)((lane & word) == lane);
}

// 2^n of t = n + 1.5 * 2^23, n in [-126, 127]: the integer sits in the low bits of t.
TS_INLINE Vec power_of_two(Vec t) { return (Vec)(((Words)t << 23) + 0x3f800000u); }

// A bfloat16 moved into the upper half of each lane.
TS_INLINE Vec load(const Bf16* p) {
    Halves halves;
    std::memcpy(&halves, p, sizeof halves);
    return (Vec)(__builtin_convertvector(halves, Words) << 16);
}
// To the nearest, ties to even; NaN keeps its upper half, made quiet.
TS_INLINE void store(Bf16* p, Vec a) {
    const Words word = (Words)a, nan = (Words)(a != a);
    const Words nearest = word + (word >> 16 & 1u) + 0x7fffu;
    const Words rounded = (nan & (word | 0x00400000u)) | (~nan & nearest);
    const Halves halves = __builtin_convertvector(rounded >> 16, Halves);
    std::memcpy(p, &halves, sizeof halves);
}

TS_INLINE float sum(Vec a) { return (a[0] + a[2]) + (a[1] + a[3]); }

// out[0..4) = sums of the lanes of a, b, c, d, added to what is there if `accumulate`.
TS_INLINE void store_sums(float* out, Vec a, Vec b, Vec c, Vec d, bool accumulate) {
    Vec sums{sum(a), sum(b), sum(c), sum(d)};
    if (accumulate) sums = add(sums, load(out));
    store(out, sums);
}

TS_INLINE Words load_words(const std::uint32_t* p) {
    Words a;
    std::memcpy(&a, p, sizeof a);
    return a;
}
TS_INLINE Words set1_word(std::uint32_t a) { return Words{a, a, a, a}; }
TS_INLINE Words add_words(Words a, Words b) { return a + b; }
TS_INLINE Words xor_words(Words a, Words b) { return a ^ b; }
TS_INLINE Words and_words(Words a, Words b) { return a & b; }
TS_INLINE Words shift_words_right(Words a, unsigned n) { return a >> n; }
TS_INLINE void multiply_words(Words a, Words m, Words& high, Words& low) {
    for (int i = 0; i < 4; ++i) high[i] = static_cast<std::uint32_t>(static_cast<std::uint64_t>(a[i]) * m[i] >> 32);
    low = a * m;
}
// One block of four words per vector, its words together again.
TS_INLINE void transpose_blocks(Words& a, Words& b, Words& c, Words& d) {
    const Words a0 = a, b0 = b, c0 = c, d0 = d;
    a = Words{a0[0], b0[0], c0[0], d0[0]};
    b = Words{a0[1], b0[1], c0[1], d0[1]};
    c = Words{a0[2], b0[2], c0[2], d0[2]};
    d = Words{a0[3], b0[3], c0[3], d0[3]};
}
// One bit for each 16-bit half: not below `threshold` (at most 65535, in every half).
TS_INLINE std::uint32_t halves_reach(Words a, Words threshold) {
    std::uint32_t reached = 0;
    for (int i = 0; i < 4; ++i) {
        reached |= static_cast<std::uint32_t>((a[i] & 0xffffu) >= (threshold[i] & 0xffffu)) << (2 * i);
        reached |= static_cast<std::uint32_t>((a[i] >> 16) >= (threshold[i] & 0xffffu)) << (2 * i + 1);
    }
    return reached;
}

}  // namespace TRULYSPARSE_ISA_NAMESPACE
}  // namespace trulysparse
