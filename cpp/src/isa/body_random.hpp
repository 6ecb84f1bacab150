// SPDX-License-Identifier: BSD-3-Clause
// Philox4x32-10 in vectors, for dropout: the bits of rng.hpp's draw(), block by block.
#pragma once

#include <cstddef>

namespace trulysparse {
namespace TRULYSPARSE_ISA_NAMESPACE {

static void kept_bits_body(const KeptBlock& job) {
    constexpr int groups = kWidth / 4;      // blocks that end up in one vector
    constexpr int words_made = kWidth / 2;  // words of sixteen samples from one vector of blocks
    const unsigned blocks_of_row = static_cast<unsigned>(2 * job.words);
    const unsigned shift = static_cast<unsigned>(__builtin_ctz(blocks_of_row));
    const unsigned row_shift = shift - 1;  // words are powers of two, so rows and words are told apart without dividing
    const std::int64_t total = static_cast<std::int64_t>(job.rows) * job.words;
    const Words m0 = set1_word(kPhiloxM0), m1 = set1_word(kPhiloxM1);
    const Words threshold = set1_word(job.threshold | job.threshold << 16);
    const Words step = set1_word(job.step), tag = set1_word(job.tag);
    const Words neuron = set1_word(job.neuron), first_block = set1_word(job.first_block);
    const Words in_row = set1_word(blocks_of_row - 1);
    std::uint32_t order[kWidth];  // of lanes, which transpose_blocks turns into block order
    for (unsigned lane = 0; lane < kWidth; ++lane) order[lane] = groups * (lane % 4) + lane / 4;
    const Words lanes = load_words(order);

    for (std::int64_t first = 0; first < total; first += words_made) {
        const Words block = add_words(set1_word(static_cast<std::uint32_t>(2 * first)), lanes);
        Words c0 = add_words(first_block, and_words(block, in_row));
        Words c1 = add_words(neuron, shift_words_right(block, shift)), c2 = step, c3 = tag;
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
        transpose_blocks(c0, c1, c2, c3);
        const std::uint64_t drawn[4] = {halves_reach(c0, threshold), halves_reach(c1, threshold),
                                        halves_reach(c2, threshold), halves_reach(c3, threshold)};
        constexpr int bits_of_vector = 2 * kWidth;
        const std::uint64_t lower = drawn[0] | drawn[1] << bits_of_vector;
        const std::uint64_t upper = drawn[2] | drawn[3] << bits_of_vector;
        for (int g = 0; g < words_made && first + g < total; ++g) {
            const std::uint64_t half = g < words_made / 2 ? lower : upper;
            const std::int64_t row = (first + g) >> row_shift, word = (first + g) & (job.words - 1);
            job.out[row * job.stride + word] = static_cast<std::uint16_t>(half >> (g % (words_made / 2) * 16));
        }
    }
}

}  // namespace TRULYSPARSE_ISA_NAMESPACE
}  // namespace trulysparse
