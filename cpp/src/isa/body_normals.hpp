// SPDX-License-Identifier: BSD-3-Clause
// Box-Muller in vectors: the bits of rng.hpp's normal2(draw()), for blocks that follow each other. Plain loops over
// 64-bit lanes, without calls or branches, which the compiler turns into vectors of the instruction set.
#pragma once

#include "../elementary.hpp"

namespace trulysparse {
namespace TRULYSPARSE_ISA_NAMESPACE {

constexpr int kBlocksTogether = 128;

// The double nearest to a whole number below 2^53, given by its upper 32 and lower 21 bits: no conversion is needed.
TS_INLINE double unit53(std::uint64_t high, std::uint64_t low) {
    constexpr std::uint64_t exponent_of_2_52 = 0x4330000000000000ull;
    const std::uint64_t a = high | exponent_of_2_52, b = low >> 11 | exponent_of_2_52;
    double upper, lower;
    __builtin_memcpy(&upper, &a, sizeof a);
    __builtin_memcpy(&lower, &b, sizeof b);
    return ((upper - 0x1p52) * 0x1p21 + (lower - 0x1p52)) * 0x1p-53;
}

static void normals_body(const NormalsJob& job) {
    const Words m0 = set1_word(kPhiloxM0), m1 = set1_word(kPhiloxM1);
    std::uint32_t order[kWidth];
    for (unsigned lane = 0; lane < kWidth; ++lane) order[lane] = lane;
    const Words lanes = load_words(order);
    std::uint32_t words[4][kBlocksTogether];
    float pairs[2 * kBlocksTogether];

    for (std::int64_t first = 0; first < job.blocks; first += kBlocksTogether) {
        for (int k = 0; k < kBlocksTogether; k += kWidth) {
            const std::uint32_t block = job.first_block + static_cast<std::uint32_t>(first + k);
            Words c0 = add_words(set1_word(block), lanes), c1 = set1_word(job.high);
            Words c2 = set1_word(job.step), c3 = set1_word(job.tag);
            std::uint32_t key0 = job.key0, key1 = job.key1;
            for (int round = 0; round < 10; ++round) {
                Words high0, low0, high1, low1;
                multiply_words(c0, m0, high0, low0);
                multiply_words(c2, m1, high1, low1);
                c0 = xor_words(xor_words(high1, c1), set1_word(key0));
                c2 = xor_words(xor_words(high0, c3), set1_word(key1));
                c1 = low1;
                c3 = low0;
                key0 += kPhiloxW0;
                key1 += kPhiloxW1;
            }
            __builtin_memcpy(words[0] + k, &c0, sizeof c0);
            __builtin_memcpy(words[1] + k, &c1, sizeof c1);
            __builtin_memcpy(words[2] + k, &c2, sizeof c2);
            __builtin_memcpy(words[3] + k, &c3, sizeof c3);
        }
        for (int k = 0; k < kBlocksTogether; ++k) {
            const double u = unit53(words[1][k], words[0][k]), v = unit53(words[3][k], words[2][k]);
            double sine, cosine;
            portable_sincos(v, sine, cosine);
            const double radius = __builtin_sqrt(-2.0 * portable_log(1.0 - u));
            pairs[2 * k] = static_cast<float>(radius * cosine);
            pairs[2 * k + 1] = static_cast<float>(radius * sine);
        }
        const std::int64_t here = job.blocks - first < kBlocksTogether ? job.blocks - first : kBlocksTogether;
        __builtin_memcpy(job.out + 2 * first, pairs, static_cast<std::size_t>(2 * here) * sizeof(float));
    }
}

}  // namespace TRULYSPARSE_ISA_NAMESPACE
}  // namespace trulysparse
