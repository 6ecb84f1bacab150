// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/rng.hpp"

#include <cmath>
#include <utility>

#include "elementary.hpp"

namespace trulysparse {

namespace {

// The high 64 bits of a * b.
std::uint64_t multiply_high(std::uint64_t a, std::uint64_t b) {
    const std::uint64_t a0 = a & 0xffffffffu, a1 = a >> 32, b0 = b & 0xffffffffu, b1 = b >> 32;
    const std::uint64_t cross = a1 * b0 + (a0 * b0 >> 32);
    const std::uint64_t other = a0 * b1 + (cross & 0xffffffffu);
    return a1 * b1 + (cross >> 32) + (other >> 32);
}

}  // namespace

std::uint64_t bounded(const Block& b, std::uint64_t bound) {
    const std::uint64_t first = word64(b, 0);
    const std::uint64_t low = first * bound;
    // Only 2^64 mod bound of the low parts are one too many; the division is rarely reached.
    if (low < bound && low < (0 - bound) % bound) return multiply_high(word64(b, 1), bound);
    return multiply_high(first, bound);
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
