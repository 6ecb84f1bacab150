// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "trulysparse/activation.hpp"

namespace trulysparse {
namespace TRULYSPARSE_ISA_NAMESPACE {

#define TS_INLINE static inline __attribute__((always_inline))

using Vec = __m512;
using Mask = __mmask16;
using Words = __m512i;  // sixteen 32-bit integers
constexpr int kWidth = 16;

TS_INLINE Vec zero() { return _mm512_setzero_ps(); }
TS_INLINE Vec set1(float a) { return _mm512_set1_ps(a); }
TS_INLINE Vec load(const float* p) { return _mm512_loadu_ps(p); }
TS_INLINE void store(float* p, Vec a) { _mm512_storeu_ps(p, a); }
TS_INLINE void stream(float* p, Vec a) { _mm512_stream_ps(p, a); }
TS_INLINE void streams_done() { _mm_sfence(); }
TS_INLINE Mask first_lanes(std::int64_t n) { return static_cast<Mask>((1u << n) - 1u); }
TS_INLINE Vec load_first(const float* p, std::int64_t n) { return _mm512_maskz_loadu_ps(first_lanes(n), p); }
TS_INLINE void store_first(float* p, Vec a, std::int64_t n) { _mm512_mask_storeu_ps(p, first_lanes(n), a); }
TS_INLINE Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
TS_INLINE Vec sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
TS_INLINE Vec mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
TS_INLINE Vec div(Vec a, Vec b) { return _mm512_div_ps(a, b); }
TS_INLINE Vec sqrt(Vec a) { return _mm512_sqrt_ps(a); }
TS_INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
TS_INLINE Vec max_or_second(Vec a, Vec b) { return _mm512_max_ps(a, b); }  // b when either is NaN
TS_INLINE Vec absolute(Vec a) { return _mm512_abs_ps(a); }
TS_INLINE Vec copy_sign(Vec magnitude, Vec sign) {
    return _mm512_or_ps(_mm512_abs_ps(magnitude), _mm512_and_ps(sign, _mm512_set1_ps(-0.0f)));
}
TS_INLINE Mask less(Vec a, Vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
TS_INLINE Vec select(Mask m, Vec a, Vec b) { return _mm512_mask_blend_ps(m, b, a); }
TS_INLINE Vec keep(Mask m, Vec a) { return _mm512_maskz_mov_ps(m, a); }
TS_INLINE unsigned bits(Mask m) { return m; }
TS_INLINE Mask from_bits(unsigned word) { return static_cast<Mask>(word); }

// 2^n of t = n + 1.5 * 2^23, n in [-126, 127]: the integer sits in the low bits of t.
TS_INLINE Vec power_of_two(Vec t) {
    const Words shifted = _mm512_slli_epi32(_mm512_castps_si512(t), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(shifted, _mm512_set1_epi32(0x3f800000)));
}

// A bfloat16 moved into the upper half of each lane.
TS_INLINE Vec load(const Bf16* p) {
    const Words halves = _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    const Words lane = _mm512_setr_epi32(0, 1 << 16, 2 << 16, 3 << 16, 4 << 16, 5 << 16, 6 << 16, 7 << 16, 8 << 16,
                                         9 << 16, 10 << 16, 11 << 16, 12 << 16, 13 << 16, 14 << 16, 15 << 16);
    return _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xaaaaaaaa, lane, halves));
}
// To the nearest, ties to even; NaN keeps its upper half, made quiet.
TS_INLINE void store(Bf16* p, Vec a) {
    const Words word = _mm512_castps_si512(a);
    const Words odd = _mm512_and_si512(_mm512_srli_epi32(word, 16), _mm512_set1_epi32(1));
    const Words nearest = _mm512_add_epi32(word, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const Words rounded =
        _mm512_mask_or_epi32(nearest, _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), word, _mm512_set1_epi32(0x00400000));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
}

TS_INLINE float sum(Vec a) {
    const __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    const __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    const __m128 d = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(d, _mm_shuffle_ps(d, d, 1)));
}

// out[0..4) = sums of the lanes of a, b, c, d, added to what is there if `accumulate`.
TS_INLINE void store_sums(float* out, Vec a, Vec b, Vec c, Vec d, bool accumulate) {
    const Vec ab = add(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    const Vec cd = add(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    const Vec abcd = add(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(abcd), _mm512_extractf32x8_ps(abcd, 1));
    __m128 sums = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    if (accumulate) sums = _mm_add_ps(sums, _mm_loadu_ps(out));
    _mm_storeu_ps(out, sums);
}

TS_INLINE Words load_words(const std::uint32_t* p) { return _mm512_loadu_si512(p); }
TS_INLINE Words set1_word(std::uint32_t a) { return _mm512_set1_epi32(static_cast<int>(a)); }
TS_INLINE Words add_words(Words a, Words b) { return _mm512_add_epi32(a, b); }
TS_INLINE Words xor_words(Words a, Words b) { return _mm512_xor_si512(a, b); }
TS_INLINE Words and_words(Words a, Words b) { return _mm512_and_si512(a, b); }
TS_INLINE Words shift_words_right(Words a, unsigned n) {
    return _mm512_srl_epi32(a, _mm_cvtsi32_si128(static_cast<int>(n)));
}
TS_INLINE void multiply_words(Words a, Words m, Words& high, Words& low) {
    const Words even = _mm512_mul_epu32(a, m);
    const Words odd = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), m);
    high = _mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64(even, 32), odd);
    low = _mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64(odd, 32));
}
// Four blocks of four words per vector, each block's words together again; the order of lanes is kept_bits_body's.
TS_INLINE void transpose_blocks(Words& a, Words& b, Words& c, Words& d) {
    const Words ab0 = _mm512_unpacklo_epi32(a, b), ab1 = _mm512_unpackhi_epi32(a, b);
    const Words cd0 = _mm512_unpacklo_epi32(c, d), cd1 = _mm512_unpackhi_epi32(c, d);
    a = _mm512_unpacklo_epi64(ab0, cd0);
    b = _mm512_unpackhi_epi64(ab0, cd0);
    c = _mm512_unpacklo_epi64(ab1, cd1);
    d = _mm512_unpackhi_epi64(ab1, cd1);
}
// One bit for each 16-bit half: not below `threshold` (at most 65535, in every half).
TS_INLINE std::uint32_t halves_reach(Words a, Words threshold) { return _mm512_cmpge_epu16_mask(a, threshold); }

}  // namespace TRULYSPARSE_ISA_NAMESPACE
}  // namespace trulysparse
