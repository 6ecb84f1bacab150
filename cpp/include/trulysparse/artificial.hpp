// SPDX-License-Identifier: BSD-3-Clause
// Artificial classification data (Guyon 2003), block of rows by block of rows. Every value is a function of the stream
// and of its row and column, so the same data come out whatever the blocks and the number of threads.
#pragma once

#include <cstdint>

#include "trulysparse/rng.hpp"
#include "trulysparse/types.hpp"

namespace trulysparse {

// out[k] = uniform24 of word (first + k) % 4 of block (first + k) / 4, for k in [0, n). Work items: 4096 numbers.
void draw_uniform(const Stream& s, std::uint64_t first, std::int64_t n, float* out, int threads);

// out[r, c] ~ N(0, 1): half c % 2 of the block with index (first_row + r) << 32 | c / 2.
// out: (rows, columns) contiguous. Work items: pieces of rows.
void draw_noise(const Stream& s, std::uint64_t first_row, std::int64_t rows, Index columns, float* out, int threads);

// What the rows of one cluster share.
struct Cluster {
    const float* mixing;         // A (informative, informative)
    const float* centroid;       // m (informative)
    const float* combining;      // B (informative, redundant)
    const std::int64_t* places;  // columns of x and then of u (informative + redundant), in [0, columns)
    Index informative, redundant;
};

// x = z A + m, u = x B, z ~ N(0, 1) drawn like the noise; x and u go to their places in rows chosen[0..n) of the data.
// out: (rows, columns) contiguous, of which the first is row first_row of the data; chosen lie in it. Sums run over the
// informative features in order. Work items: eight of the chosen rows.
void place_cluster(const Stream& s, const Cluster& cluster, const std::int64_t* chosen, std::int64_t n,
                   std::int64_t first_row, Index columns, float* out, int threads);

}  // namespace trulysparse
