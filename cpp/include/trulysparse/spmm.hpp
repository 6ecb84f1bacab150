// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "trulysparse/activation.hpp"
#include "trulysparse/types.hpp"
#include "trulysparse/work.hpp"

namespace trulysparse {

// Activations are feature-major: (neurons, ld), ld a multiple of kLane, float32 or bfloat16, the first row 64-byte
// aligned. Columns at and beyond `batch` are padding: zero in inputs and deltas, finite elsewhere.

template <class Offset>
struct ForwardArgs {
    Index n_in = 0, n_out = 0;
    const Offset* col_ptr = nullptr;  // (n_out + 1), the second index
    const Index* row_idx = nullptr;   // (nnz) source of each connection, by target
    const Offset* perm = nullptr;     // (nnz) where its weight stands; nullptr: weights are in target order
    const float* weights = nullptr;
    const float* bias = nullptr;  // (n_out)
    ConstRows x;                  // (n_in, ld)
    Rows y;                       // (n_out, ld)
    Index ld = 0;
    Activation activation;
    Dropout dropout;
    // Written where not null, `kept` only with dropout (threshold > 0): without, it stays as it was and means nothing.
    // Must be given where the backward pass will need them.
    BitPlanes bits;
};

// y[j,:] = dropout(f(bias[j] + sum_k w[perm[k]] * x[row_idx[k],:])), k over the incoming connections of j in order.
// Work items: targets, long ones in pieces whose partial sums are added in order. One parallel region.
// A bfloat16 y is rounded last, after activation and dropout.
// ld == 0 (an empty batch) does nothing.
template <class Offset>
void forward(const ForwardArgs<Offset>& args, const WorkPlan& plan, int threads);

}  // namespace trulysparse
