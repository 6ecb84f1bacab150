// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/trained.hpp"

#include <cmath>
#include <limits>
#include <string>

#include "blocks.hpp"
#include "layer_run.hpp"

namespace trulysparse {

namespace {

constexpr std::int64_t kElementsOfItem = 16384;

Chunks row_chunks(Index n, Index ld) { return Chunks(n, std::max<std::int64_t>(1, kElementsOfItem / ld)); }

}  // namespace

TrainedPieces trained_pieces(const TrainedParameters& p, Index neuron) {
    const std::size_t j = p.shared ? 0 : size_of(neuron);
    if (!p.left_threshold) return {0.0f, p.left_slope[j], std::numeric_limits<float>::infinity(), 1.0f};
    return {p.left_threshold[j], p.left_slope[j], p.left_threshold[j] + std::fabs(p.right_threshold[j]),
            p.right_slope[j]};
}

void trained_forward(const TrainedForwardArgs& a, int threads) {
    if (a.n == 0 || a.ld == 0) return;
    const bool dropout = a.dropout.threshold != 0;
    detail::check_dropout(a.dropout);
    if (dropout && !a.kept) throw InvalidArgument("dropout needs kept, where the units that are kept are written");
    const KernelTable& kernels = active_kernels();
    const detail::Tiles tiles(a.ld, kernels.widest_tile);
    const Chunks chunks = row_chunks(a.n, a.ld);
    const std::size_t ld = size_of(a.ld), words_of_row = ld / 16;
    threads = detail::threads_for(static_cast<std::int64_t>(a.n) * a.ld, chunks.count(), threads);
    parallel_for(chunks.count(), threads, [&](std::int64_t chunk, int) {
        const Index begin = static_cast<Index>(chunks.begin(chunk)), end = static_cast<Index>(chunks.end(chunk));
        for (std::int64_t number = 0; dropout && number < tiles.count(); ++number) {
            const detail::Tile tile = tiles[number];
            KeptBlock kept = detail::kept_block(a.dropout, begin, tile);
            kept.rows = end - begin;
            kept.out = a.kept + size_of(begin) * words_of_row + size_of(tile.col / 16);
            kept.stride = a.ld / 16;
            kernels.kept_bits(kept);
        }
        for (Index j = begin; j < end; ++j)
            kernels.trained_forward(a.z + size_of(j) * ld, a.y + size_of(j) * ld, a.ld, trained_pieces(a.parameters, j),
                                    dropout ? a.kept + size_of(j) * words_of_row : nullptr, a.dropout.scale());
    });
}

void trained_backward(const TrainedBackwardArgs& a, int threads) {
    if (a.n == 0 || a.ld == 0) return;
    static thread_local Buffer<float> own;
    const TrainedGradients& g = a.gradients;
    float* left_slope = g.shared ? detail::at_least(own, size_of(a.n)) : g.left_slope;
    const KernelTable& kernels = active_kernels();
    const Chunks chunks = row_chunks(a.n, a.ld);
    const std::size_t ld = size_of(a.ld), words_of_row = ld / 16;
    threads = detail::threads_for(static_cast<std::int64_t>(a.n) * a.ld, chunks.count(), threads);
    parallel_for(chunks.count(), threads, [&](std::int64_t chunk, int) {
        const Index end = static_cast<Index>(chunks.end(chunk));
        for (Index row = static_cast<Index>(chunks.begin(chunk)); row < end; ++row) {
            const std::size_t j = size_of(row);
            const TrainedPieces p = trained_pieces(a.parameters, row);
            TrainedSums sums;
            kernels.trained_backward(a.z + j * ld, a.delta + j * ld, a.ld, p,
                                     a.kept ? a.kept + j * words_of_row : nullptr, a.dropout_scale, sums);
            left_slope[j] = sums.left_moment;
            if (g.left_threshold) {
                const float right = (1.0f - p.right_slope) * sums.right;
                g.right_slope[j] = sums.right_moment;
                g.left_threshold[j] = (1.0f - p.left_slope) * sums.left + right;
                g.right_threshold[j] = a.parameters.right_threshold[j] < 0.0f ? -right : right;
            }
            if (a.row_sum) a.row_sum[j] = sums.total;
        }
    });
    if (!g.shared) return;
    double total = 0.0;
    for (std::size_t j = 0; j < size_of(a.n); ++j) total += static_cast<double>(left_slope[j]);
    g.left_slope[0] = static_cast<float>(total);
}

}  // namespace trulysparse
