// SPDX-License-Identifier: BSD-3-Clause
// Activations whose shape is trained along with the weights: PReLU and SReLU.
#pragma once

#include "trulysparse/activation.hpp"
#include "trulysparse/types.hpp"

namespace trulysparse {

// The parameters of a layer's neurons, or their gradients. PReLU (He et al. 2015) has the left slope alone; SReLU (Jin et
// al. 2016) has all four, its right threshold given as the distance from the left one, whose absolute value counts.
template <class Float>
struct TrainedArrays {
    Float* left_slope = nullptr;       // (n); (1) for all neurons if `shared`
    Float* left_threshold = nullptr;   // (n) each; nullptr: PReLU
    Float* right_threshold = nullptr;  // (n)
    Float* right_slope = nullptr;      // (n)
    bool shared = false;               // PReLU only
};
using TrainedParameters = TrainedArrays<const float>;
using TrainedGradients = TrainedArrays<float>;

// f of one neuron: slope 1 from `left` to `right`, ends included; it is continuous.
struct TrainedPieces {
    float left, left_slope, right, right_slope;
};
TrainedPieces trained_pieces(const TrainedParameters& parameters, Index neuron);

struct TrainedForwardArgs {
    Index n = 0, ld = 0;
    TrainedParameters parameters;
    const float* z = nullptr;  // (n, ld)
    Rows y;                    // (n, ld); may be z itself
    Dropout dropout;
    std::uint16_t* kept = nullptr;  // (n, ld / 16) written; needed with dropout
};

// y[j,:] = dropout(f_j(z[j,:])), with the draws that `forward` makes. A bfloat16 y is rounded last.
// Work items: blocks of rows. One parallel region. ld == 0 does nothing.
void trained_forward(const TrainedForwardArgs& args, int threads);

struct TrainedBackwardArgs {
    Index n = 0, ld = 0;
    TrainedParameters parameters;
    const float* z = nullptr;             // (n, ld) what trained_forward read
    Rows delta;                           // (n, ld) in: of y; out: of z. Padding zero
    const std::uint16_t* kept = nullptr;  // what trained_forward wrote; nullptr: no dropout
    float dropout_scale = 1.0f;
    TrainedGradients gradients;  // overwritten; the arrays that `parameters` has
    float* row_sum = nullptr;    // (n) sum over the batch of the delta of z, or nullptr
};

// d = mask * delta; delta[j,:] = f_j'(z[j,:]) d[j,:]; gradients = sums over the batch of d times f's derivative by each
// parameter. With L, R the samples with z < left, z > right:
//   left_slope: sum_L d (z - left)   left_threshold:  (1 - left_slope) sum_L d + (1 - right_slope) sum_R d
//   right_slope: sum_R d (z - right) right_threshold: sign(right_threshold) (1 - right_slope) sum_R d, sign(0) = 1
// A shared slope's gradient is the sum of its neurons', in their order. A bfloat16 delta is rounded last.
// Work items: blocks of rows. One parallel region. ld == 0 does nothing.
void trained_backward(const TrainedBackwardArgs& args, int threads);

}  // namespace trulysparse
