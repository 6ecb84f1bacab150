// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "trulysparse/activation.hpp"

namespace trulysparse {
namespace TRULYSPARSE_ISA_NAMESPACE {

#define TS_INLINE static inline __attribute__((always_inline))

using Vec = __m256;
using Mask = __m256;
using Words = __m256i;  // eight 32-bit integers
constexpr int kWidth = 8;

TS_INLINE Vec zero() { return _mm256_setzero_ps(); }
TS_INLINE Vec set1(float a) { return _mm256_set1_ps(a); }
TS_INLINE Vec load(const float* p) { return _mm256_loadu_ps(p); }
TS_INLINE void store(float* p, Vec a) { _mm256_storeu_ps(p, a); }
TS_INLINE void stream(float* p, Vec a) { _mm256_stream_ps(p, a); }
TS_INLINE void streams_done() { _mm_sfence(); }
TS_INLINE Words first_lanes(std::int64_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
TS_INLINE Vec load_first(const float* p, std::int64_t n) { return _mm256_maskload_ps(p, first_lanes(n)); }
TS_INLINE void store_first(float* p, Vec a, std::int64_t n) { _mm256_maskstore_ps(p, first_lanes(n), a); }
TS_INLINE Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
TS_INLINE Vec sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
TS_INLINE Vec mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
TS_INLINE Vec div(Vec a, Vec b) { return _mm256_div_ps(a, b); }
TS_INLINE Vec sqrt(Vec a) { return _mm256_sqrt_ps(a); }
TS_INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
TS_INLINE Vec max_or_second(Vec a, Vec b) { return _mm256_max_ps(a, b); }  // b when either is NaN
TS_INLINE Vec absolute(Vec a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
TS_INLINE Vec copy_sign(Vec magnitude, Vec sign) {
    return _mm256_or_ps(absolute(magnitude), _mm256_and_ps(sign, _mm256_set1_ps(-0.0f)));
}
TS_INLINE Mask less(Vec a, Vec b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
TS_INLINE Vec select(Mask m, Vec a, Vec b) { return _mm256_blendv_ps(b, a, m); }
TS_INLINE Vec keep(Mask m, Vec a) { return _mm256_and_ps(m, a); }
TS_INLINE unsigned bits(Mask m) { return static_cast<unsigned>(_mm256_movemask_ps(m)); }
TS_INLINE Mask from_bits(unsigned word) {
    const Words lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const Words hit = _mm256_and_si256(_mm256_set1_epi32(static_cast<int>(word)), lane);
    return _mm256_castsi256_ps(_mm256_cmpeq_epi32(hit, lane));
}

// 2^n of t = n + 1.5 * 2^23, n in [-126, 127]: the integer sits in the low bits of t.
TS_INLINE Vec power_of_two(Vec t) {
    const Words shifted = _mm256_slli_epi32(_mm256_castps_si256(t), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(shifted, _mm256_set1_epi32(0x3f800000)));
}

// A bfloat16 moved into the upper half of each lane.
TS_INLINE Vec load(const Bf16* p) {
    const Words words = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return _mm256_castsi256_ps(_mm256_slli_epi32(words, 16));
}
// To the nearest, ties to even; NaN keeps its upper half, made quiet.
TS_INLINE void store(Bf16* p, Vec a) {
    const Words word = _mm256_castps_si256(a);
    const Words odd = _mm256_and_si256(_mm256_srli_epi32(word, 16), _mm256_set1_epi32(1));
    const Words nearest = _mm256_add_epi32(word, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    const Words quiet = _mm256_or_si256(word, _mm256_set1_epi32(0x00400000));
    const Words nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
    const Words rounded = _mm256_srli_epi32(_mm256_blendv_epi8(nearest, quiet, nan), 16);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                     _mm_packus_epi32(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1)));
}

TS_INLINE float sum(Vec a) {
    const __m128 c = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 d = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(d, _mm_shuffle_ps(d, d, 1)));
}

// out[0..4) = sums of the lanes of a, b, c, d, added to what is there if `accumulate`.
TS_INLINE void store_sums(float* out, Vec a, Vec b, Vec c, Vec d, bool accumulate) {
    const Vec ab = add(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    const Vec cd = add(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
    const Vec abcd = add(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xee));
    __m128 sums = _mm_add_ps(_mm256_castps256_ps128(abcd), _mm256_extractf128_ps(abcd, 1));
    if (accumulate) sums = _mm_add_ps(sums, _mm_loadu_ps(out));
    _mm_storeu_ps(out, sums);
}

TS_INLINE Words load_words(const std::uint32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const Words*>(p)); }
TS_INLINE Words set1_word(std::uint32_t a) { return _mm256_set1_epi32(static_cast<int>(a)); }
TS_INLINE Words add_words(Words a, Words b) { return _mm256_add_epi32(a, b); }
TS_INLINE Words xor_words(Words a, Words b) { return _mm256_xor_si256(a, b); }
TS_INLINE Words and_words(Words a, Words b) { return _mm256_and_si256(a, b); }
TS_INLINE Words shift_words_right(Words a, unsigned n) {
    return _mm256_srl_epi32(a, _mm_cvtsi32_si128(static_cast<int>(n)));
}
TS_INLINE void multiply_words(Words a, Words m, Words& high, Words& low) {
    const Words even = _mm256_mul_epu32(a, m);
    const Words odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), m);
    high = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
    low = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
}
// Two blocks of four words per vector, each block's words together again; the order of lanes is kept_bits_body's.
TS_INLINE void transpose_blocks(Words& a, Words& b, Words& c, Words& d) {
    const Words ab0 = _mm256_unpacklo_epi32(a, b), ab1 = _mm256_unpackhi_epi32(a, b);
    const Words cd0 = _mm256_unpacklo_epi32(c, d), cd1 = _mm256_unpackhi_epi32(c, d);
    a = _mm256_unpacklo_epi64(ab0, cd0);
    b = _mm256_unpackhi_epi64(ab0, cd0);
    c = _mm256_unpacklo_epi64(ab1, cd1);
    d = _mm256_unpackhi_epi64(ab1, cd1);
}
// One bit for each 16-bit half: not below `threshold` (at most 65535, in every half).
TS_INLINE std::uint32_t halves_reach(Words a, Words threshold) {
    const Words reached = _mm256_cmpeq_epi16(_mm256_max_epu16(a, threshold), a);
    const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(reached), _mm256_extracti128_si256(reached, 1));
    return static_cast<std::uint32_t>(_mm_movemask_epi8(bytes));
}

}  // namespace TRULYSPARSE_ISA_NAMESPACE
}  // namespace trulysparse
