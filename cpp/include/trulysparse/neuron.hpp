// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "trulysparse/pattern.hpp"

namespace trulysparse {

// strength[j] = sum_i |w_ij| over the incoming connections of target j ("Truly Sparse Neural Networks at Scale", eq. 4).
// col_ptr, perm: the second index. Summed in double, in the order of sources; work items are targets.
template <class Offset>
void incoming_strength(const Offset* col_ptr, const Offset* perm, Index cols, const float* weights, float* strength,
                       int threads);

// mask[k] = 0 where the target of connection k is marked in `targets` (cols bytes), else 1. Returns the number of zeros.
template <class Offset>
std::uint64_t drop_incoming(const PatternView<Offset>& p, const std::uint8_t* targets, std::uint8_t* mask, int threads);

}  // namespace trulysparse
