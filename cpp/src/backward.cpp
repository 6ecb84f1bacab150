// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/backward.hpp"

#include "layer_run.hpp"
#include "trulysparse/parallel.hpp"

namespace trulysparse {

namespace {

using namespace detail;
using Mode = GradientSink::Mode;

// Memory of one thread, for as long as it lives.
struct Scratch {
    Buffer<float> dw{static_cast<std::size_t>(kMaxItemConnections)};
    Buffer<std::int32_t> start{kMaxItemRows + 1};
};
thread_local Scratch own;

}  // namespace

template <class Offset>
void backward(const BackwardArgs<Offset>& a, const WorkPlan& plan, int threads) {
    const GradientSink& sink = a.sink;
    if (a.below_slope_gradient && a.ld > 0) *a.below_slope_gradient = 0.0f;  // of no sources
    if (a.n_in == 0 || a.ld == 0 || (!a.dx && sink.mode == Mode::none)) return;
    const KernelTable& kernels = active_kernels();
    const Tiles tiles(a.ld, kernels.widest_tile);
    const std::int64_t n_items = static_cast<std::int64_t>(plan.items.size());
    const std::int64_t nnz = static_cast<std::int64_t>(a.row_ptr[a.n_in]);
    threads = threads_for((nnz + a.n_in) * a.ld, n_items, threads);

    const Index ahead = prefetch_distance(a.n_out, tiles[0].width, a.dy, nnz);
    LongRows long_rows(plan, a.ld, 1);
    static thread_local Buffer<float> own_moments;
    float* moments = a.dx && a.below_slope_gradient ? at_least(own_moments, static_cast<std::size_t>(a.n_in)) : nullptr;

    parallel_for(n_items, threads, [&](std::int64_t task, int) {
        const Item& item = plan.items[static_cast<std::size_t>(task)];
        const bool whole_rows = item.long_row < 0;
        const std::size_t row = static_cast<std::size_t>(item.row_begin);
        const std::size_t first = row * static_cast<std::size_t>(a.ld);
        const std::size_t first_word = first / 16;
        relative_starts(a.row_ptr, item, own.start.data());

        float* dw = sink.mode == Mode::none    ? nullptr
                    : sink.mode == Mode::store ? sink.gradient + item.k_begin
                                               : own.dw.data();
        BackwardBlock job{};
        job.ld = a.ld;
        job.kind = a.below.kind;
        job.slope = a.below.slope;
        job.dropout_scale = a.below_dropout_scale;
        job.inverse_scale = 1.0f / a.below_dropout_scale;
        const auto stand_at = [&](const Tile& tile) {
            const std::size_t col = static_cast<std::size_t>(tile.col);
            job.x = a.x + (first + col);
            job.negative = a.below_bits.negative ? a.below_bits.negative + first_word + col / 16 : nullptr;
            job.kept = a.below_bits.kept ? a.below_bits.kept + first_word + col / 16 : nullptr;
            job.accumulate = tile.col > 0;
        };
        const auto to_dx = [&](const Tile& tile) {
            job.dx = a.dx + (first + static_cast<std::size_t>(tile.col));
            job.derivative = true;
            job.row_sum = a.dx_row_sum ? a.dx_row_sum + row : nullptr;
            job.moment = moments ? moments + row : nullptr;
        };

        job.block = {item.row_end - item.row_begin,
                     own.start.data(),
                     a.col_idx + item.k_begin,
                     a.weights + item.k_begin,
                     nullptr,
                     nnz - item.k_begin,
                     ahead};
        for (std::int64_t number = 0; number < tiles.count(); ++number) {
            const Tile tile = tiles[number];
            stand_at(tile);
            job.dy = a.dy + static_cast<std::size_t>(tile.col);
            job.dw = dw;
            if (a.dx && whole_rows)
                to_dx(tile);
            else if (a.dx)
                job.dx = long_rows.partial(item) + tile.col;
            kernels.backward(job, tile.width);
        }

        const std::int64_t n = item.k_end - item.k_begin;
        if (sink.mode == Mode::accumulate) kernels.add(sink.gradient + item.k_begin, dw, n);
        if (sink.mode == Mode::sgd)
            kernels.sgd(a.weights + item.k_begin, sink.velocity + item.k_begin, dw, n, sink.sgd);

        // dx may be x, which every piece of the row reads: it is written when all of them are done.
        if (!a.dx || whole_rows || !long_rows.completes(item, 0)) return;
        job.block = long_rows.as_row(item, own.start.data());
        job.dw = nullptr;
        for (std::int64_t number = 0; number < tiles.count(); ++number) {
            const Tile tile = tiles[number];
            stand_at(tile);
            job.dy = long_rows.partials(item) + tile.col;
            to_dx(tile);
            kernels.backward(job, tile.width);
        }
    });
    if (!moments) return;
    double total = 0.0;
    for (std::size_t i = 0; i < static_cast<std::size_t>(a.n_in); ++i) total += static_cast<double>(moments[i]);
    *a.below_slope_gradient = static_cast<float>(total / static_cast<double>(a.below.slope));
}

void row_sums(const float* delta, Index n, Index ld, float* out, int threads) {
    constexpr Index rows_of_block = 64;
    const std::int64_t blocks = (static_cast<std::int64_t>(n) + rows_of_block - 1) / rows_of_block;
    threads = threads_for(static_cast<std::int64_t>(n) * ld, blocks, threads);
    parallel_for(blocks, threads, [&](std::int64_t block, int) {
        const Index begin = static_cast<Index>(block * rows_of_block);
        const Index end = n - begin < rows_of_block ? n : begin + rows_of_block;
        for (Index row = begin; row < end; ++row) {
            const float* values = delta + static_cast<std::size_t>(row) * static_cast<std::size_t>(ld);
            float lanes[16] = {};
            for (Index b = 0; b < ld; b += 16)
                for (int l = 0; l < 16; ++l) lanes[l] += values[b + l];
            for (int width = 8; width > 0; width /= 2)
                for (int l = 0; l < width; ++l) lanes[l] += lanes[l + width];
            out[row] = lanes[0];
        }
    });
}

template void backward(const BackwardArgs<std::int8_t>&, const WorkPlan&, int);
template void backward(const BackwardArgs<std::int16_t>&, const WorkPlan&, int);
template void backward(const BackwardArgs<std::int32_t>&, const WorkPlan&, int);
template void backward(const BackwardArgs<std::int64_t>&, const WorkPlan&, int);

}  // namespace trulysparse
