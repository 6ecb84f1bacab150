// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/spmm.hpp"

#include <type_traits>

#include "layer_run.hpp"
#include "trulysparse/parallel.hpp"

namespace trulysparse {

namespace {

using namespace detail;

// Memory of one thread, for as long as it lives: weights gathered through a permutation of an unusual type, dropout words
// nobody else asked for.
struct Scratch {
    Buffer<float> weights;
    Buffer<std::uint16_t> kept;
    Buffer<std::int32_t> start{kMaxItemRows + 1};
};
thread_local Scratch own;

template <class Offset>
void gather(const Offset* perm, const float* weights, std::int64_t n, float* out) {
    for (std::int64_t k = 0; k < n; ++k) out[k] = weights[perm[k]];
}

// The kernels read weights through 32-bit permutations; others are applied item by item.
template <class Offset>
void read_through(const Offset* perm, const float* weights, const Item& item, RowBlock& block) {
    if constexpr (std::is_same_v<Offset, std::int32_t>) {
        block.weights = weights;
        block.perm = perm + item.k_begin;
    } else {
        const std::int64_t n = item.k_end - item.k_begin;
        float* gathered = at_least(own.weights, static_cast<std::size_t>(kMaxItemConnections));
        gather(perm + item.k_begin, weights, n, gathered);
        block.weights = gathered;
    }
}

}  // namespace

template <class Offset>
void forward(const ForwardArgs<Offset>& a, const WorkPlan& plan, int threads) {
    if (a.n_out == 0 || a.ld == 0) return;
    check_dropout(a.dropout);
    const KernelTable& kernels = active_kernels();
    const Tiles tiles(a.ld, kernels.widest_tile);
    const std::int64_t n_items = static_cast<std::int64_t>(plan.items.size());
    const std::int64_t tasks = n_items * tiles.count();
    const std::int64_t nnz = static_cast<std::int64_t>(a.col_ptr[a.n_out]);
    threads = threads_for((nnz + a.n_out) * a.ld, tasks, threads);

    const bool dropout = a.dropout.threshold != 0;
    const Index ahead = prefetch_distance(a.n_in, tiles[0].width, a.x, nnz);
    const Index words_of_row = a.ld / 16;
    const auto element = static_cast<std::int64_t>(a.y.element_bytes());
    const bool streams = static_cast<std::int64_t>(a.n_out) * a.ld * element > kStreamBytes &&
                         a.ld * element % static_cast<std::int64_t>(kAlignment) == 0;
    LongRows long_rows(plan, a.ld, tiles.count());

    parallel_for(tasks, threads, [&](std::int64_t task, int) {
        const std::int64_t tile_number = task / n_items;
        const Tile tile = tiles[tile_number];
        const Item& item = plan.items[static_cast<std::size_t>(task % n_items)];
        relative_starts(a.col_ptr, item, own.start.data());

        ForwardBlock job{};
        job.ld = a.ld;
        job.x = a.x + static_cast<std::size_t>(tile.col);
        job.block = {item.row_end - item.row_begin,
                     own.start.data(),
                     a.row_idx + item.k_begin,
                     a.weights + item.k_begin,
                     nullptr,
                     nnz - item.k_begin,
                     ahead};
        if (a.perm) read_through(a.perm, a.weights, item, job.block);
        if (item.long_row >= 0) {
            job.y = long_rows.partial(item) + tile.col;
            kernels.forward(job, tile.width);
            if (!long_rows.completes(item, tile_number)) return;
            job.block = long_rows.as_row(item, own.start.data());
            job.x = long_rows.partials(item) + tile.col;
        }

        const std::size_t row = static_cast<std::size_t>(item.row_begin);
        const std::size_t word = row * static_cast<std::size_t>(words_of_row) + static_cast<std::size_t>(tile.col / 16);
        job.y = a.y + (row * static_cast<std::size_t>(a.ld) + static_cast<std::size_t>(tile.col));
        job.bias = a.bias + row;
        job.stream = streams && tile.width * element % static_cast<std::int64_t>(kAlignment) == 0;
        job.kind = a.activation.kind;
        job.slope = a.activation.slope;
        job.negative = a.bits.negative ? a.bits.negative + word : nullptr;
        if (dropout) {
            KeptBlock kept = kept_block(a.dropout, item.row_begin, tile);
            kept.rows = job.block.rows;
            kept.out = a.bits.kept ? a.bits.kept + word : at_least(own.kept, kMaxItemRows * 8);
            kept.stride = a.bits.kept ? words_of_row : kept.words;
            kernels.kept_bits(kept);
            job.kept = kept.out;
            job.kept_stride = kept.stride;
            job.dropout_scale = a.dropout.scale();
        }
        kernels.forward(job, tile.width);
    });
}

template void forward(const ForwardArgs<std::int8_t>&, const WorkPlan&, int);
template void forward(const ForwardArgs<std::int16_t>&, const WorkPlan&, int);
template void forward(const ForwardArgs<std::int32_t>&, const WorkPlan&, int);
template void forward(const ForwardArgs<std::int64_t>&, const WorkPlan&, int);

}  // namespace trulysparse
