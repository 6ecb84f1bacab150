// SPDX-License-Identifier: BSD-3-Clause
// Counter-based randomness: Philox4x32-10 (Salmon et al. 2011). Every draw is a pure function of
// (seed, purpose, layer, step, index), so it depends on no thread, no order and no history.
//
// Packing, fixed for ever because resumed runs depend on it:
//   key     = (low, high) half of seed
//   counter = (low, high) half of index, step, purpose << 24 | layer
#pragma once

#include <array>
#include <cstdint>

#include "trulysparse/types.hpp"

namespace trulysparse {

enum class Purpose : std::uint8_t {
    pattern = 1,        // which connections exist at the start
    weights = 2,        // initial weights
    dropout = 3,        // index = neuron << 32 | block of eight samples in the whole batch; 16-bit draws
    regrow_cells = 4,   // which connections an evolution grows; step = evolution number
    regrow_values = 5,  // their values
    shuffle = 6,        // order of samples; step = epoch
    split = 7,          // validation split
    data = 8,           // artificial data
    user = 9,           // rules written by users
    worker = 10,        // seeds of the workers of a parallel run; index = worker
    augment = 11,       // changes of training samples; step = training step, index = row of the data
};

struct Stream {
    std::uint64_t seed = 0;
    Purpose purpose = Purpose::user;
    std::uint32_t layer = 0;  // below 2^24
    std::uint32_t step = 0;
    std::uint32_t tag() const { return static_cast<std::uint32_t>(purpose) << 24 | (layer & 0xffffffu); }
};

using Block = std::array<std::uint32_t, 4>;

constexpr std::uint32_t kPhiloxM0 = 0xD2511F53u, kPhiloxM1 = 0xCD9E8D57u;
constexpr std::uint32_t kPhiloxW0 = 0x9E3779B9u, kPhiloxW1 = 0xBB67AE85u;

inline Block philox4x32(Block c, std::uint32_t k0, std::uint32_t k1) {
    for (int round = 0; round < 10; ++round) {
        const std::uint64_t p0 = static_cast<std::uint64_t>(kPhiloxM0) * c[0];
        const std::uint64_t p1 = static_cast<std::uint64_t>(kPhiloxM1) * c[2];
        c = {static_cast<std::uint32_t>(p1 >> 32) ^ c[1] ^ k0, static_cast<std::uint32_t>(p1),
             static_cast<std::uint32_t>(p0 >> 32) ^ c[3] ^ k1, static_cast<std::uint32_t>(p0)};
        k0 += kPhiloxW0;
        k1 += kPhiloxW1;
    }
    return c;
}

inline Block draw(const Stream& s, std::uint64_t index) {
    return philox4x32({static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32), s.step, s.tag()},
                      static_cast<std::uint32_t>(s.seed), static_cast<std::uint32_t>(s.seed >> 32));
}

inline std::uint64_t word64(const Block& b, int half) {
    return static_cast<std::uint64_t>(b[2 * half + 1]) << 32 | b[2 * half];
}

// out[k] = word64(draw(s, indices[k]), 0) for k in [0, n), several draws at a time.
void draw_words(const Stream& s, const std::uint64_t* indices, std::int64_t n, std::uint64_t* out);

// Uniform in [0, 1): 53 bits of the first two words; 24 bits of one word.
inline double uniform53(const Block& b) { return static_cast<double>(word64(b, 0) >> 11) * 0x1p-53; }
inline float uniform24(std::uint32_t word) { return static_cast<float>(word >> 8) * 0x1p-24f; }

// Uniform integer in [0, bound), bound > 0: multiply-high with one rejection (bias below 2^-64 * bound / 2^64).
std::uint64_t bounded(const Block& b, std::uint64_t bound);
// out[k] = bounded(draw(s, first + k), bound) for k in [0, n), several draws at a time.
void draw_bounded(const Stream& s, std::uint64_t first, std::int64_t n, std::uint64_t bound, std::uint64_t* out);

// Two independent standard normal numbers (Box-Muller on the four words).
std::array<float, 2> normal2(const Block& b);

// out[0..n) = a permutation of 0..n-1 (Fisher-Yates, one draw a place).
void shuffle(std::int64_t n, const Stream& stream, std::int64_t* out);

}  // namespace trulysparse
