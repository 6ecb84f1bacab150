// SPDX-License-Identifier: BSD-3-Clause
// Random patterns and random weights in O(connections), each draw keyed by its cell or row.
#pragma once

#include "trulysparse/pattern.hpp"

namespace trulysparse {

// Every cell exists independently with probability `density` (geometric skips along each row).
template <class Offset>
Pattern<Offset> sample_bernoulli(Index rows, Index cols, double density, const Stream& stream, int threads);

// The distinct cells among `draws` uniform draws with replacement (the sampler of the older SET codes).
template <class Offset>
Pattern<Offset> sample_with_replacement(Index rows, Index cols, std::uint64_t draws, const Stream& stream, int threads);

// Exactly `count` distinct cells.
template <class Offset>
Pattern<Offset> sample_exact(Index rows, Index cols, std::uint64_t count, const Stream& stream, int threads);

enum class Distribution : std::uint8_t { uniform, normal };  // U(-scale, scale) or N(0, scale^2)

// out[k] = the value of the k-th cell: a function of (stream, cell) only, so of no order.
// scale: one number (n_scale = 1) or one a target column (n_scale = cols).
void draw_values(const Cell* cells, std::uint64_t n, Index cols, Distribution distribution, const float* scale,
                 std::uint64_t n_scale, const Stream& stream, float* out, int threads);
template <class Offset>
void draw_values(const PatternView<Offset>& p, Distribution distribution, const float* scale, std::uint64_t n_scale,
                 const Stream& stream, float* out, int threads);

}  // namespace trulysparse
