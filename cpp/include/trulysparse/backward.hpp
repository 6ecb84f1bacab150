// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "trulysparse/activation.hpp"
#include "trulysparse/update.hpp"
#include "trulysparse/work.hpp"

namespace trulysparse {

// What becomes of each finished block of weight gradients while it is hot in cache.
struct GradientSink {
    enum class Mode : std::uint8_t { none, store, accumulate, sgd } mode = Mode::store;
    float* gradient = nullptr;  // (nnz) store: g = dw; accumulate: g += dw
    float* velocity = nullptr;  // (nnz) sgd
    SgdParams sgd;
};

template <class Offset>
struct BackwardArgs {
    Index n_in = 0, n_out = 0;
    const Offset* row_ptr = nullptr;  // (n_in + 1)
    const Index* col_idx = nullptr;   // (nnz)
    float* weights = nullptr;         // (nnz); changed only by the sgd sink
    ConstRows dy;                     // (n_out, ld) delta of this layer, padding zero
    ConstRows x;                      // (n_in, ld) this layer's input: the stored activation of the layer below
    Rows dx;                          // (n_in, ld) delta of the layer below; may be x itself; nullptr: not wanted
    float* dx_row_sum = nullptr;  // (n_in) sum over the batch of dx[i,:] = bias gradient of the layer below, or nullptr
    Index ld = 0;
    // The layer below: dx is multiplied by its dropout mask and the derivative of its activation.
    Activation below;
    float below_dropout_scale = 1.0f;       // 1 and kept == nullptr: no dropout
    BitPlanes below_bits;                   // read; kept must be nullptr where the forward pass had no dropout
    float* below_slope_gradient = nullptr;  // (1) derivative by the slope of a rectifier below, or nullptr; needs dx
    GradientSink sink;
};

// dw[k] = <x[i,:], dy[j,:]> and dx[i,:] = f'(z_i) * mask * sum_k w[k] * dy[j,:] in one pass over the weights by source i;
// each block of dw goes to the sink. A block's weights are read before the sink moves them.
// A bfloat16 dx is rounded last, after its row sum is taken.
// The slope's gradient is the sum over z < 0 of dL/da z, where z = a / slope is read off the stored a: the slope must
// not be 0. Sources are added in their order.
// Work items: sources, long ones in pieces whose partial sums are added in order. One parallel region.
// ld == 0 (an empty batch) does nothing: the sink's arrays and dx_row_sum stay as they were. The bindings refuse it.
template <class Offset>
void backward(const BackwardArgs<Offset>& args, const WorkPlan& plan, int threads);

// out[i] = sum_b delta[i, b].  delta: (n, ld).
void row_sums(const float* delta, Index n, Index ld, float* out, int threads);

}  // namespace trulysparse
