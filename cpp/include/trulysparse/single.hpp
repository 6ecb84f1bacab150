// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <variant>
#include <vector>

#include "trulysparse/activation.hpp"
#include "trulysparse/trained.hpp"
#include "trulysparse/types.hpp"

namespace trulysparse {

// One layer for one sample: no batch whose columns a weight could serve, so connections are taken by target with their
// weights in that order, 8 bytes each.
template <class Offset>
struct SingleArgs {
    Index n_in = 0, n_out = 0;
    const Offset* col_ptr = nullptr;  // (n_out + 1)
    const Index* row_idx = nullptr;   // (nnz) source of each connection, by target
    const float* weights = nullptr;   // (nnz), in the same order
    const float* bias = nullptr;      // (n_out)
    const float* x = nullptr;         // (n_in)
    float* y = nullptr;               // (padded(n_out)): whole vectors are written
    Activation activation;
    TrainedParameters trained;  // applied where it has a slope; `activation` is then linear
};

// y[j] = f(bias[j] + sum_k w[k] * x[row_idx[k]]), k over the incoming connections of j: four interleaved sums, then the
// rest. Sums are grouped otherwise than in `forward`, so a sample's last bits may differ from those it has in a batch.
// Work items: blocks of whole targets. One parallel region; the same bits on every instruction set but for sigmoid, tanh.
template <class Offset>
void forward_single(const SingleArgs<Offset>& args, int threads);

using SingleLayer = std::variant<SingleArgs<std::int32_t>, SingleArgs<std::int64_t>>;

// A whole network, sample by sample: out[s,:] = layers((samples[s,:] - shift) * factor).
// layers: each one's n_in is the n_out before; their x and y are set here. samples: (count, n_in of the first),
// shift, factor: (n_in) or both nullptr, out: (count, n_out of the last). False, with `out` half written, if a sample holds
// a value that is not finite.
bool infer(const std::vector<SingleLayer>& layers, const float* samples, Index count, const float* shift,
           const float* factor, float* out, int threads);

// out[k] = values[perm[k]]: values in pattern order brought into target order.  perm, out: (n).
template <class Offset>
void gather(const Offset* perm, const float* values, std::uint64_t n, float* out, int threads);

}  // namespace trulysparse
