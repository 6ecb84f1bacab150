// SPDX-License-Identifier: BSD-3-Clause
// Optimizer arithmetic and means on contiguous arrays; fused into the backward pass block by block, or run over whole arrays.
#pragma once

#include <cstddef>
#include <cstdint>

#include "trulysparse/types.hpp"

namespace trulysparse {

// paper: w <- w + v - decay * w (old w, not times lr).  l2: the gradient gains decay * w, as in PyTorch.
enum class Decay : std::uint8_t { paper, l2 };

// v <- momentum * v - lr * g;  w <- w + v  (nesterov: w <- w + momentum * v - lr * g);  decay as above.
// With micro-batches g comes in parts: `first` scales v (and adds the l2 term), `last` moves w. Nesterov needs both set.
struct SgdParams {
    float lr = 0.01f, momentum = 0.9f, decay = 0.0f;
    Decay form = Decay::paper;
    bool nesterov = false;
    bool first = true, last = true;
    float l2 = 0.0f;  // the gradient gains l2 * w besides, whatever the form of decay: a topology rule's regulariser
};

// m <- b1 m + (1-b1) g; v <- b2 v + (1-b2) g^2; w <- w - lr * (m / c1) / (sqrt(v / c2) + eps), c = 1 - b^t.
// decoupled: w <- w - lr * decay * w besides (AdamW); else the gradient gains decay * w. Kingma & Ba 2015, algorithm 1.
struct AdamParams {
    float lr = 0.001f, beta1 = 0.9f, beta2 = 0.999f, eps = 1e-8f, decay = 0.0f;
    float correction1 = 1.0f, correction2 = 1.0f;  // 1 - beta^t
    bool decoupled = true;
    float l2 = 0.0f;  // as in SgdParams
};

void sgd_step(float* w, float* v, const float* g, std::uint64_t n, const SgdParams& p, int threads);
void adam_step(float* w, float* m, float* v, const float* g, std::uint64_t n, const AdamParams& p, int threads);

// The same with corrections of each weight's own: age[k] counts its updates (goes up by one) and c = 1 - b^age[k];
// correction1 and correction2 of p mean nothing. For weights that were grown while others trained.
void adam_step_aged(float* w, float* m, float* v, float* age, const float* g, std::uint64_t n, const AdamParams& p,
                    int threads);

// sum g^2 in double over fixed blocks: the same bits for any thread count.
double sum_of_squares(const float* g, std::uint64_t n, int threads);
void scale(float* g, std::uint64_t n, float factor, int threads);

// out[i] = (sum_k arrays[k][i]) / count, in double and in the order of k, rounded once: the mean of equal arrays is that
// array, bit for bit, but for denormals, which count as 0. count >= 1; out may be one of the arrays.
void average(const float* const* arrays, std::size_t count, float* out, std::uint64_t n, int threads);

}  // namespace trulysparse
