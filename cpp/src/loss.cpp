// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/loss.hpp"

#include <cmath>
#include <cstddef>

#include "isa/table.hpp"
#include "trulysparse/parallel.hpp"

namespace trulysparse {

namespace {

constexpr std::int64_t kParallelElements = 1 << 15;

struct Sample {
    double loss;
    bool correct;
};

// body(first column, columns that are samples) for tiles of 16 columns.
template <class Body>
void for_tiles(Index n, Index batch, Index ld, int threads, Body body) {
    const std::int64_t tiles = (batch + 15) / 16;
    if (static_cast<std::int64_t>(n) * ld < kParallelElements) threads = 1;
    if (tiles < threads) threads = tiles > 0 ? static_cast<int>(tiles) : 1;
    parallel_for(tiles, threads, [&](std::int64_t tile, int) {
        const Index col = static_cast<Index>(tile) * 16;
        body(col, batch - col < 16 ? batch - col : 16);
    });
}

void clear_padding(float* delta, Index n, Index batch, Index ld) {
    if (!delta || batch == ld) return;
    for (Index i = 0; i < n; ++i)
        for (Index b = batch; b < ld; ++b) delta[static_cast<std::size_t>(i) * static_cast<std::size_t>(ld) + b] = 0.0f;
}

LossSum in_sample_order(const Buffer<Sample>& samples) {
    LossSum sum;
    for (const Sample& sample : samples) {
        sum.loss += sample.loss;
        sum.correct += sample.correct;
    }
    return sum;
}

}  // namespace

LossSum softmax_cross_entropy(const float* z, const std::int32_t* y, Index n, Index batch, Index ld, float scale,
                              float* delta, int threads) {
    if (n == 0) return {};
    const KernelTable& kernels = active_kernels();
    Buffer<Sample> samples(static_cast<std::size_t>(batch));
    for_tiles(n, batch, ld, threads, [&](Index col, Index columns) {
        const auto at = [&](Index i, Index b) {
            return static_cast<std::size_t>(i) * static_cast<std::size_t>(ld) + col + b;
        };
        float largest[16], sum[16], labelled[16];
        std::int32_t argmax[16];
        for (Index b = 0; b < columns; ++b) labelled[b] = z[at(y[col + b], b)];  // before delta overwrites it
        kernels.softmax16(z + col, n, ld, scale, delta ? delta + col : nullptr, largest, sum, argmax);
        for (Index b = 0; b < columns; ++b) {
            const Index label = y[col + b];
            const double gap = static_cast<double>(largest[b]) - static_cast<double>(labelled[b]);
            const bool defined = sum[b] == sum[b];
            samples[static_cast<std::size_t>(col + b)] = {gap + std::log(static_cast<double>(sum[b])),
                                                          defined && argmax[b] == label};
            if (delta) delta[at(label, b)] -= scale;
        }
    });
    clear_padding(delta, n, batch, ld);
    return in_sample_order(samples);
}

void softmax(const float* z, Index n, Index batch, Index ld, float* proba, int threads) {
    if (n == 0) return;
    const KernelTable& kernels = active_kernels();
    for_tiles(n, batch, ld, threads, [&](Index col, Index) {
        float largest[16], sum[16];
        std::int32_t argmax[16];
        kernels.softmax16(z + col, n, ld, 1.0f, proba + col, largest, sum, argmax);
    });
    clear_padding(proba, n, batch, ld);
}

LossSum binary_cross_entropy(const float* z, const float* t, Index n, Index batch, Index ld, float scale, float* delta,
                             int threads) {
    if (n == 0) return {};
    const KernelTable& kernels = active_kernels();
    Buffer<Sample> samples(static_cast<std::size_t>(batch));
    for_tiles(n, batch, ld, threads, [&](Index col, Index columns) {
        double loss[16];
        std::int32_t wrong[16];
        kernels.logistic16(z + col, t + col, n, ld, scale / static_cast<float>(n), delta ? delta + col : nullptr, loss,
                           wrong);
        for (Index b = 0; b < columns; ++b)
            samples[static_cast<std::size_t>(col + b)] = {loss[b] / n, wrong[b] == 0 && loss[b] == loss[b]};
    });
    clear_padding(delta, n, batch, ld);
    return in_sample_order(samples);
}

void sigmoid(const float* z, Index n, Index batch, Index ld, float* proba, int threads) {
    const KernelTable& kernels = active_kernels();
    constexpr Index rows_of_block = 64;
    const std::int64_t blocks = (static_cast<std::int64_t>(n) + rows_of_block - 1) / rows_of_block;
    if (static_cast<std::int64_t>(n) * ld < kParallelElements) threads = 1;
    parallel_for(blocks, threads, [&](std::int64_t block, int) {
        const std::int64_t begin = block * rows_of_block * ld;
        const Index rows = n - static_cast<Index>(block * rows_of_block);
        kernels.sigmoid(z + begin, proba + begin,
                        static_cast<std::int64_t>(rows < rows_of_block ? rows : rows_of_block) * ld);
    });
    clear_padding(proba, n, batch, ld);
}

LossSum mean_squared_error(const float* z, const float* t, Index n, Index batch, Index ld, float scale, float* delta,
                           int threads) {
    if (n == 0) return {};
    Buffer<Sample> samples(static_cast<std::size_t>(batch));
    const float factor = 2.0f * scale / static_cast<float>(n);
    for_tiles(n, batch, ld, threads, [&](Index col, Index columns) {
        double loss[16] = {};
        for (Index i = 0; i < n; ++i) {
            const std::size_t at =
                static_cast<std::size_t>(i) * static_cast<std::size_t>(ld) + static_cast<std::size_t>(col);
            float difference[16];
            for (int b = 0; b < 16; ++b) difference[b] = z[at + b] - t[at + b];
            for (int b = 0; b < 16; ++b)
                loss[b] += static_cast<double>(difference[b]) * static_cast<double>(difference[b]);
            if (delta)
                for (int b = 0; b < 16; ++b) delta[at + b] = factor * difference[b];
        }
        for (Index b = 0; b < columns; ++b) samples[static_cast<std::size_t>(col + b)] = {loss[b] / n, false};
    });
    clear_padding(delta, n, batch, ld);
    return in_sample_order(samples);
}

}  // namespace trulysparse
