// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

#include "trulysparse/types.hpp"

namespace trulysparse {

struct LossSum {
    double loss = 0.0;         // summed over samples (a mean is the caller's division), in sample order
    std::int64_t correct = 0;  // samples classified correctly; 0 for mse
};

// z: (n, ld) outputs before the last nonlinearity. delta: (n, ld) or nullptr, may be z itself; its padding is set to zero.
// `scale` multiplies delta (1 / batch size). proba: (n, ld) or nullptr.

// loss_b = -log softmax(z[:,b])[y_b]; delta = (softmax - onehot) * scale. Ties for the largest output: lowest index.
LossSum softmax_cross_entropy(const float* z, const std::int32_t* y, Index n, Index batch, Index ld, float scale,
                              float* delta, int threads);
void softmax(const float* z, Index n, Index batch, Index ld, float* proba, int threads);

// Targets (n, ld) in [0, 1]: loss_b = mean over outputs of log(1 + e^z) - t z; delta = (sigmoid(z) - t) * scale / n.
// A sample is correct when every output is on its target's side of 1/2.
LossSum binary_cross_entropy(const float* z, const float* t, Index n, Index batch, Index ld, float scale, float* delta,
                             int threads);
void sigmoid(const float* z, Index n, Index batch, Index ld, float* proba, int threads);

// Targets (n, ld): loss_b = mean over outputs of (z - t)^2; delta = 2 (z - t) * scale / n.
LossSum mean_squared_error(const float* z, const float* t, Index n, Index batch, Index ld, float scale, float* delta,
                           int threads);

}  // namespace trulysparse
