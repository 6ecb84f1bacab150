// SPDX-License-Identifier: BSD-3-Clause
// No fused multiply-add here: fma multiplies, rounds, then adds.
#pragma once

#include <emmintrin.h>

#include <cstdint>

#include "trulysparse/activation.hpp"

namespace trulysparse {
namespace TRULYSPARSE_ISA_NAMESPACE {

#define TS_INLINE static inline __attribute__((always_inline))

using Vec = __m128;
using Mask = __m128;
using Words = __m128i;  // four 32-bit integers
constexpr int kWidth = 4;

TS_INLINE Vec zero() { return _mm_setzero_ps(); }
TS_INLINE Vec set1(float a) { return _mm_set1_ps(a); }
TS_INLINE Vec load(const float* p) { return _mm_loadu_ps(p); }
TS_INLINE void store(float* p, Vec a) { _mm_storeu_ps(p, a); }
TS_INLINE void stream(float* p, Vec a) { _mm_stream_ps(p, a); }
TS_INLINE void streams_done() { _mm_sfence(); }
TS_INLINE Vec load_first(const float* p, std::int64_t n) {
    return _mm_setr_ps(n > 0 ? p[0] : 0.0f, n > 1 ? p[1] : 0.0f, n > 2 ? p[2] : 0.0f, n > 3 ? p[3] : 0.0f);
}
TS_INLINE void store_first(float* p, Vec a, std::int64_t n) {
    float lanes[4];
    _mm_storeu_ps(lanes, a);
    for (std::int64_t i = 0; i < n; ++i) p[i] = lanes[i];
}
TS_INLINE Vec add(Vec a, Vec b) { return _mm_add_ps(a, b); }
TS_INLINE Vec sub(Vec a, Vec b) { return _mm_sub_ps(a, b); }
TS_INLINE Vec mul(Vec a, Vec b) { return _mm_mul_ps(a, b); }
TS_INLINE Vec div(Vec a, Vec b) { return _mm_div_ps(a, b); }
TS_INLINE Vec sqrt(Vec a) { return _mm_sqrt_ps(a); }
TS_INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm_add_ps(_mm_mul_ps(a, b), c); }
TS_INLINE Vec max_or_second(Vec a, Vec b) { return _mm_max_ps(a, b); }  // b when either is NaN
TS_INLINE Vec absolute(Vec a) { return _mm_andnot_ps(_mm_set1_ps(-0.0f), a); }
TS_INLINE Vec copy_sign(Vec magnitude, Vec sign) {
    return _mm_or_ps(absolute(magnitude), _mm_and_ps(sign, _mm_set1_ps(-0.0f)));
}
TS_INLINE Mask less(Vec a, Vec b) { return _mm_cmplt_ps(a, b); }
TS_INLINE Vec select(Mask m, Vec a, Vec b) { return _mm_or_ps(_mm_and_ps(m, a), _mm_andnot_ps(m, b)); }
TS_INLINE Vec keep(Mask m, Vec a) { return _mm_and_ps(m, a); }
TS_INLINE unsigned bits(Mask m) { return static_cast<unsigned>(_mm_movemask_ps(m)); }
TS_INLINE Mask from_bits(unsigned word) {
    const Words lane = _mm_setr_epi32(1, 2, 4, 8);
    return _mm_castsi128_ps(_mm_cmpeq_epi32(_mm_and_si128(_mm_set1_epi32(static_cast<int>(word)), lane), lane));
}

// 2^n of t = n + 1.5 * 2^23, n in [-126, 127]: the integer sits in the low bits of t.
TS_INLINE Vec power_of_two(Vec t) {
    const Words shifted = _mm_slli_epi32(_mm_castps_si128(t), 23);
    return _mm_castsi128_ps(_mm_add_epi32(shifted, _mm_set1_epi32(0x3f800000)));
}

// A bfloat16 moved into the upper half of each lane.
TS_INLINE Vec load(const Bf16* p) {
    return _mm_castsi128_ps(
        _mm_unpacklo_epi16(_mm_setzero_si128(), _mm_loadl_epi64(reinterpret_cast<const Words*>(p))));
}
// To the nearest, ties to even; NaN keeps its upper half, made quiet.
TS_INLINE void store(Bf16* p, Vec a) {
    const Words word = _mm_castps_si128(a);
    const Words odd = _mm_and_si128(_mm_srli_epi32(word, 16), _mm_set1_epi32(1));
    const Words nearest = _mm_add_epi32(word, _mm_add_epi32(odd, _mm_set1_epi32(0x7fff)));
    const Words quiet = _mm_or_si128(word, _mm_set1_epi32(0x00400000));
    const Words nan = _mm_castps_si128(_mm_cmpunord_ps(a, a));
    const Words rounded = _mm_or_si128(_mm_and_si128(nan, quiet), _mm_andnot_si128(nan, nearest));
    // Shifted with their sign, so that packing finds nothing to saturate.
    _mm_storel_epi64(reinterpret_cast<Words*>(p), _mm_packs_epi32(_mm_srai_epi32(rounded, 16), _mm_setzero_si128()));
}

TS_INLINE float sum(Vec a) {
    const __m128 d = _mm_add_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_add_ss(d, _mm_shuffle_ps(d, d, 1)));
}

// out[0..4) = sums of the lanes of a, b, c, d, added to what is there if `accumulate`.
TS_INLINE void store_sums(float* out, Vec a, Vec b, Vec c, Vec d, bool accumulate) {
    const Vec ab = add(_mm_unpacklo_ps(a, b), _mm_unpackhi_ps(a, b));
    const Vec cd = add(_mm_unpacklo_ps(c, d), _mm_unpackhi_ps(c, d));
    Vec sums = add(_mm_shuffle_ps(ab, cd, 0x44), _mm_shuffle_ps(ab, cd, 0xee));
    if (accumulate) sums = add(sums, load(out));
    store(out, sums);
}

TS_INLINE Words load_words(const std::uint32_t* p) { return _mm_loadu_si128(reinterpret_cast<const Words*>(p)); }
TS_INLINE Words set1_word(std::uint32_t a) { return _mm_set1_epi32(static_cast<int>(a)); }
TS_INLINE Words add_words(Words a, Words b) { return _mm_add_epi32(a, b); }
TS_INLINE Words xor_words(Words a, Words b) { return _mm_xor_si128(a, b); }
TS_INLINE Words and_words(Words a, Words b) { return _mm_and_si128(a, b); }
TS_INLINE Words shift_words_right(Words a, unsigned n) {
    return _mm_srl_epi32(a, _mm_cvtsi32_si128(static_cast<int>(n)));
}
TS_INLINE void multiply_words(Words a, Words m, Words& high, Words& low) {
    const Words even = _mm_mul_epu32(a, m);
    const Words odd = _mm_mul_epu32(_mm_srli_epi64(a, 32), m);
    const Words upper = _mm_setr_epi32(0, -1, 0, -1);
    high = _mm_or_si128(_mm_srli_epi64(even, 32), _mm_and_si128(upper, odd));
    low = _mm_or_si128(_mm_andnot_si128(upper, even), _mm_slli_epi64(odd, 32));
}
// One block of four words per vector, its words together again.
TS_INLINE void transpose_blocks(Words& a, Words& b, Words& c, Words& d) {
    const Words ab0 = _mm_unpacklo_epi32(a, b), ab1 = _mm_unpackhi_epi32(a, b);
    const Words cd0 = _mm_unpacklo_epi32(c, d), cd1 = _mm_unpackhi_epi32(c, d);
    a = _mm_unpacklo_epi64(ab0, cd0);
    b = _mm_unpackhi_epi64(ab0, cd0);
    c = _mm_unpacklo_epi64(ab1, cd1);
    d = _mm_unpackhi_epi64(ab1, cd1);
}
// One bit for each 16-bit half: not below `threshold` (at most 65535, in every half).
TS_INLINE std::uint32_t halves_reach(Words a, Words threshold) {
    const Words reached = _mm_cmpeq_epi16(_mm_subs_epu16(threshold, a), _mm_setzero_si128());
    return static_cast<std::uint32_t>(_mm_movemask_epi8(_mm_packs_epi16(reached, _mm_setzero_si128())));
}

}  // namespace TRULYSPARSE_ISA_NAMESPACE
}  // namespace trulysparse
