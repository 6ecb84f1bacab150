// SPDX-License-Identifier: BSD-3-Clause
// What the tests of the numeric kernels share: padded arrays, a slow second index, comparison with the oracle.
#pragma once

#include <cmath>

#include "ref/ref_kernels.hpp"
#include "testing.hpp"
#include "trulysparse/types.hpp"

namespace testing {

using trulysparse::Bf16;
using trulysparse::Buffer;
using trulysparse::ref::Matrix;

inline const std::vector<Index> kBatches = {1, 5, 16, 37, 128, 200};

inline std::size_t cells(Index rows, Index ld) { return static_cast<std::size_t>(rows) * static_cast<std::size_t>(ld); }

// (rows, ld) uniform in [-1, 1), columns from `batch` on set to `padding`.
inline Buffer<float> padded_floats(Index rows, Index batch, Index ld, unsigned seed, float padding = 0.0f) {
    const std::vector<float> values = random_floats(cells(rows, ld), seed);
    Buffer<float> out(values.size());
    for (std::size_t k = 0; k < values.size(); ++k)
        out[k] = static_cast<Index>(k % static_cast<std::size_t>(ld)) < batch ? values[k] : padding;
    return out;
}

inline Buffer<float> copy(const Buffer<float>& from) {
    Buffer<float> to(from.size());
    for (std::size_t k = 0; k < from.size(); ++k) to[k] = from[k];
    return to;
}

inline Buffer<Bf16> to_bf16(const Buffer<float>& from) {
    Buffer<Bf16> to(from.size());
    for (std::size_t k = 0; k < from.size(); ++k) to[k] = trulysparse::ref::to_bf16(from[k]);
    return to;
}

inline Buffer<float> to_float(const Buffer<Bf16>& from) {
    Buffer<float> to(from.size());
    for (std::size_t k = 0; k < from.size(); ++k) to[k] = trulysparse::ref::to_float(from[k]);
    return to;
}

inline bool bit(const std::vector<std::uint16_t>& plane, Index row, Index column, Index ld) {
    return plane[cells(row, ld / 16) + static_cast<std::size_t>(column / 16)] >> (column % 16) & 1;
}

inline double error_of(double got, double expected) {
    if (std::isnan(expected)) return std::isnan(got) ? 0.0 : 1e30;
    if (got == expected) return 0.0;
    const double error = std::fabs(got - expected) / (1.0 + std::fabs(expected));
    return std::isnan(error) ? 1e30 : error;
}

// Largest error against the oracle, relative above 1 and absolute below.
inline double largest_error(const float* got, const Matrix& expected, Index ld) {
    double largest = 0.0;
    for (Index r = 0; r < expected.rows; ++r)
        for (Index b = 0; b < expected.cols; ++b)
            largest = std::fmax(largest, error_of(got[cells(r, ld) + static_cast<std::size_t>(b)], expected(r, b)));
    return largest;
}

inline double largest_error(const float* got, const std::vector<double>& expected) {
    double largest = 0.0;
    for (std::size_t k = 0; k < expected.size(); ++k) largest = std::fmax(largest, error_of(got[k], expected[k]));
    return largest;
}

inline bool padding_is_zero(const Buffer<float>& a, Index rows, Index batch, Index ld) {
    for (Index r = 0; r < rows; ++r)
        for (Index b = batch; b < ld; ++b)
            if (a[cells(r, ld) + static_cast<std::size_t>(b)] != 0.0f) return false;
    return true;
}

template <class Offset>
struct SecondIndex {
    std::vector<Offset> col_ptr, perm;
    std::vector<Index> row_idx;
};

template <class Offset>
SecondIndex<Offset> second_index(const Layer<Offset>& layer) {
    SecondIndex<Offset> index;
    index.col_ptr.push_back(0);
    std::vector<std::vector<std::pair<Index, Offset>>> incoming(static_cast<std::size_t>(layer.cols));
    for (Index i = 0; i < layer.rows; ++i)
        for (Offset k = layer.row_ptr[static_cast<std::size_t>(i)]; k < layer.row_ptr[static_cast<std::size_t>(i) + 1];
             ++k)
            incoming[static_cast<std::size_t>(layer.col_idx[static_cast<std::size_t>(k)])].push_back({i, k});
    for (const auto& connections : incoming) {
        for (const auto& [source, k] : connections) {
            index.row_idx.push_back(source);
            index.perm.push_back(k);
        }
        index.col_ptr.push_back(static_cast<Offset>(index.row_idx.size()));
    }
    return index;
}

// Layers that an Offset of this width can hold.
template <class Offset>
std::vector<Layer<Offset>> holdable_layers() {
    std::vector<Layer<Offset>> layers;
    for (Layer<std::int64_t>& wide : odd_layers<std::int64_t>()) {
        if (wide.nnz() > static_cast<std::size_t>(std::numeric_limits<Offset>::max())) continue;
        Layer<Offset> layer{wide.name, wide.rows, wide.cols, {}, std::move(wide.col_idx)};
        for (std::int64_t start : wide.row_ptr) layer.row_ptr.push_back(static_cast<Offset>(start));
        layers.push_back(std::move(layer));
    }
    return layers;
}

}  // namespace testing
