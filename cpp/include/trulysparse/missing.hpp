// SPDX-License-Identifier: BSD-3-Clause
// Gradients of connections that do not exist, G[i,j] = sum_b x[i,b] * dy[j,b], without an array of n_in x n_out.
#pragma once

#include <cstdint>

#include "trulysparse/pattern.hpp"
#include "trulysparse/types.hpp"

namespace trulysparse {

// What should be numbers is not; the message says where and how many.
struct NotFinite : InvalidArgument {
    using InvalidArgument::InvalidArgument;
};

struct MissingTop {
    Buffer<Cell> cells;  // ascending
    Buffer<float> values;
};

// The min(k, missing) cells of largest |G| among those without a connection k with mask[k] != 0 (nullptr: all stay); of
// equal |G| the lower cell. x (rows, ld) and dy (cols, ld), rows at multiples of 64 bytes, padding of dy zero.
// Each G is one chain of multiply-adds over b, whatever is skipped. NotFinite if x or dy is not, or a missing G is NaN (k > 0).
// Memory: copies of x and dy, and 2k cells a thread. Work items: tiles of rows x columns.
template <class Offset>
MissingTop top_missing_gradients(const PatternView<Offset>& p, const std::uint8_t* mask, const float* x,
                                 const float* dy, Index ld, std::uint64_t k, int threads);

// The same from given values, dense (rows, cols) in row order. NotFinite if a missing cell is NaN. Work items: chunks.
template <class Offset>
MissingTop top_missing_values(const PatternView<Offset>& p, const std::uint8_t* mask, const float* dense,
                              std::uint64_t k, int threads);

// out[c] = G at cells[c] (below rows * n_out), in any order; its rounding is not that of the functions beside it.
// Work items: chunks of cells, each cell alone.
void gradient_at(const Cell* cells, std::uint64_t n, Index n_out, const float* x, const float* dy, Index ld, float* out,
                 int threads);

// dense (n_in, n_out) = decay * dense + weight * G, with the bits of G that top_missing_gradients has; with a decay of 0
// what was there is not read. Work items: tiles.
void accumulate_gradient(float* dense, Index n_in, Index n_out, const float* x, const float* dy, Index ld, float decay,
                         float weight, int threads);

}  // namespace trulysparse
