// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/rng.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "elementary.hpp"

#if defined(__SSE2__) || defined(_M_X64)
#include <emmintrin.h>
#endif

namespace trulysparse {

namespace {

// Whether a word must be drawn anew, so that no number below `bound` has one word more than the others.
bool is_surplus(std::uint64_t word, std::uint64_t bound) {
    const std::uint64_t low = word * bound;
    return low < bound && low < (0 - bound) % bound;  // the division is rarely reached
}

// The high 64 bits of a * b.
std::uint64_t multiply_high(std::uint64_t a, std::uint64_t b) {
#if defined(__SIZEOF_INT128__)
    __extension__ using Product = unsigned __int128;
    return static_cast<std::uint64_t>(static_cast<Product>(a) * b >> 64);
#else
    const std::uint64_t a0 = a & 0xffffffffu, a1 = a >> 32, b0 = b & 0xffffffffu, b1 = b >> 32;
    const std::uint64_t cross = a1 * b0 + (a0 * b0 >> 32);
    const std::uint64_t other = a0 * b1 + (cross & 0xffffffffu);
    return a1 * b1 + (cross >> 32) + (other >> 32);
#endif
}

#if defined(__SSE2__) || defined(_M_X64)
constexpr std::int64_t kTogether = 4;

// Each word of a block in the lower half of a 64-bit lane; the products ignore what stands in the upper half.
void draw_together(const Stream& s, const std::uint64_t* indices, std::uint64_t* out) {
    constexpr int vectors = kTogether / 2;
    const auto all = [](std::uint32_t word) { return _mm_set1_epi64x(static_cast<long long>(word)); };
    const __m128i m0 = all(kPhiloxM0), m1 = all(kPhiloxM1);
    __m128i c0[vectors], c1[vectors], c2[vectors], c3[vectors];
    for (int v = 0; v < vectors; ++v) {
        c0[v] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(indices + 2 * v));
        c1[v] = _mm_srli_epi64(c0[v], 32);
        c2[v] = all(s.step);
        c3[v] = all(s.tag());
    }
    auto k0 = static_cast<std::uint32_t>(s.seed), k1 = static_cast<std::uint32_t>(s.seed >> 32);
    for (int round = 0; round < 10; ++round) {
        for (int v = 0; v < vectors; ++v) {
            const __m128i p0 = _mm_mul_epu32(c0[v], m0), p1 = _mm_mul_epu32(c2[v], m1);
            c0[v] = _mm_xor_si128(_mm_xor_si128(_mm_srli_epi64(p1, 32), c1[v]), all(k0));
            c2[v] = _mm_xor_si128(_mm_xor_si128(_mm_srli_epi64(p0, 32), c3[v]), all(k1));
            c1[v] = p1;
            c3[v] = p0;
        }
        k0 += kPhiloxW0;
        k1 += kPhiloxW1;
    }
    for (int v = 0; v < vectors; ++v) {
        const __m128i low = _mm_and_si128(c0[v], all(0xffffffffu));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 2 * v), _mm_or_si128(low, _mm_slli_epi64(c1[v], 32)));
    }
}
#else
constexpr std::int64_t kTogether = 1;

void draw_together(const Stream& s, const std::uint64_t* indices, std::uint64_t* out) {
    *out = word64(draw(s, *indices), 0);
}
#endif

}  // namespace

void draw_words(const Stream& s, const std::uint64_t* indices, std::int64_t n, std::uint64_t* out) {
    std::int64_t k = 0;
    for (; k + kTogether <= n; k += kTogether) draw_together(s, indices + k, out + k);
    for (; k < n; ++k) out[k] = word64(draw(s, indices[k]), 0);
}

std::uint64_t bounded(const Block& b, std::uint64_t bound) {
    const std::uint64_t first = word64(b, 0);
    return is_surplus(first, bound) ? multiply_high(word64(b, 1), bound) : multiply_high(first, bound);
}

void draw_bounded(const Stream& s, std::uint64_t first, std::int64_t n, std::uint64_t bound, std::uint64_t* out) {
    constexpr std::int64_t room = 64;
    std::uint64_t indices[room], words[room];
    for (std::int64_t begin = 0; begin < n; begin += room) {
        const std::int64_t here = std::min(room, n - begin);
        for (std::int64_t k = 0; k < here; ++k) indices[k] = first + static_cast<std::uint64_t>(begin + k);
        draw_words(s, indices, here, words);
        for (std::int64_t k = 0; k < here; ++k)
            out[begin + k] =
                is_surplus(words[k], bound) ? bounded(draw(s, indices[k]), bound) : multiply_high(words[k], bound);
    }
}

std::array<float, 2> normal2(const Block& b) {
    const double radius = std::sqrt(-2.0 * portable_log(1.0 - uniform53(b)));
    double sine, cosine;
    portable_sincos(static_cast<double>(word64(b, 1) >> 11) * 0x1p-53, sine, cosine);
    return {static_cast<float>(radius * cosine), static_cast<float>(radius * sine)};
}

void shuffle(std::int64_t n, const Stream& stream, std::int64_t* out) {
    for (std::int64_t i = 0; i < n; ++i) out[i] = i;
    for (std::int64_t i = n - 1; i > 0; --i) {
        const auto place = static_cast<std::uint64_t>(i);
        std::swap(out[i], out[bounded(draw(stream, place), place + 1)]);
    }
}

}  // namespace trulysparse
