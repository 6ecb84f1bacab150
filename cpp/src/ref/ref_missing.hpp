// SPDX-License-Identifier: BSD-3-Clause
// Gradients of missing connections the slow, readable way: every cell, then a sort.
#pragma once

#include <vector>

#include "ref/ref_kernels.hpp"

namespace trulysparse::ref {

// g(i, j) = sum_b x(i, b) dy(j, b).
Matrix gradient(const Matrix& x, const Matrix& dy);

// The cells of the k largest |values| among those without a connection (mask: as in missing.hpp, empty: all stay),
// ties to the lower cell; ascending. All if there are fewer.
template <class Offset>
std::vector<Cell> top_missing(const PatternView<Offset>& p, const std::vector<std::uint8_t>& mask, const Matrix& values,
                              std::uint64_t k);

}  // namespace trulysparse::ref
