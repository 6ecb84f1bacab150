// SPDX-License-Identifier: BSD-3-Clause
// What the forward and the backward pass over a layer's work items share: column tiles, per-thread scratch, and the
// counting of a long row's pieces.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "isa/table.hpp"
#include "trulysparse/parallel.hpp"
#include "trulysparse/work.hpp"

namespace trulysparse::detail {

constexpr Index kMaxItemRows = static_cast<Index>(kGrain / kRowCost) + 1;
constexpr std::int64_t kMaxItemConnections = kGrain + kLongRow;
constexpr std::int64_t kNearCacheBytes = 1 << 20;  // beyond this, rows are prefetched
constexpr std::int64_t kParallelWork = 1 << 17;    // multiply-adds below which waking threads costs more

struct Tile {
    Index col, width;
};

// Tiles of `widest` columns (16 times a power of two), then narrower ones for the rest. ld: a multiple of 16.
inline std::vector<Tile> column_tiles(Index ld, Index widest) {
    std::vector<Tile> tiles;
    for (Index col = 0; col < ld;) {
        while (widest > ld - col) widest /= 2;
        tiles.push_back({col, widest});
        col += widest;
    }
    return tiles;
}

inline int threads_for(std::int64_t multiply_adds, std::int64_t tasks, int threads) {
    if (multiply_adds < kParallelWork) return 1;
    if (threads > kMostThreads) threads = kMostThreads;  // scratch memory is made for each
    return static_cast<int>(tasks < threads ? tasks : threads);
}

// Row starts of an item, counted from its first connection.
template <class Offset>
void relative_starts(const Offset* ptr, const Item& item, std::int32_t* start) {
    if (item.long_row >= 0) {
        start[0] = 0;
        start[1] = static_cast<std::int32_t>(item.k_end - item.k_begin);
        return;
    }
    for (Index row = item.row_begin; row <= item.row_end; ++row)
        start[row - item.row_begin] = static_cast<std::int32_t>(static_cast<std::int64_t>(ptr[row]) - item.k_begin);
}

// Partial sums of long rows, and who finishes them: the thread that completes a row's last piece (of one tile).
class LongRows {
public:
    LongRows(const WorkPlan& plan, Index ld, std::size_t tiles) : plan_(plan), ld_(ld), tiles_(tiles) {
        if (plan.long_rows.empty()) return;
        partials_ = Buffer<float>(static_cast<std::size_t>(plan.partials) * static_cast<std::size_t>(ld));
        left_ = std::make_unique<std::atomic<Index>[]>(plan.long_rows.size() * tiles);
        Index most = 0;
        for (std::size_t r = 0; r < plan.long_rows.size(); ++r) {
            most = plan.long_rows[r].pieces > most ? plan.long_rows[r].pieces : most;
            for (std::size_t t = 0; t < tiles; ++t) left_[r * tiles + t].store(plan.long_rows[r].pieces);
        }
        order_ = Buffer<Index>(static_cast<std::size_t>(most));
        for (Index p = 0; p < most; ++p) order_[static_cast<std::size_t>(p)] = p;
        ones_ = Buffer<float>(static_cast<std::size_t>(most), 1.0f);
    }

    float* partial(const Item& item) {
        return slot(plan_.long_rows[static_cast<std::size_t>(item.long_row)], item.piece);
    }

    // True for the one caller that now has to finish the row; the other pieces' partial sums are then visible.
    bool completes(const Item& item, std::size_t tile) {
        const std::size_t counter = static_cast<std::size_t>(item.long_row) * tiles_ + tile;
        return left_[counter].fetch_sub(1, std::memory_order_acq_rel) == 1;
    }

    // The pieces of a long row as a row of connections of weight 1: summing them in order is then the kernel's own work.
    RowBlock as_row(const Item& item, std::int32_t* start) const {
        const Index pieces = plan_.long_rows[static_cast<std::size_t>(item.long_row)].pieces;
        start[0] = 0;
        start[1] = pieces;
        return {1, start, order_.data(), ones_.data(), pieces, false};
    }
    const float* partials(const Item& item) {
        return slot(plan_.long_rows[static_cast<std::size_t>(item.long_row)], 0);
    }

private:
    float* slot(const LongRow& row, Index piece) {
        return partials_.data() + static_cast<std::size_t>(row.first_partial + piece) * static_cast<std::size_t>(ld_);
    }

    const WorkPlan& plan_;
    Index ld_;
    std::size_t tiles_;
    Buffer<float> partials_;
    std::unique_ptr<std::atomic<Index>[]> left_;
    Buffer<Index> order_;
    Buffer<float> ones_;
};

}  // namespace trulysparse::detail
