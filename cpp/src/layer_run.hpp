// SPDX-License-Identifier: BSD-3-Clause
// What the forward and the backward pass over a layer's work items share: column tiles, per-thread scratch, and the
// counting of a long row's pieces.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "isa/table.hpp"
#include "trulysparse/parallel.hpp"
#include "trulysparse/work.hpp"

namespace trulysparse::detail {

constexpr Index kMaxItemRows = static_cast<Index>(kGrain / kRowCost) + 1;
constexpr std::int64_t kMaxItemConnections = kGrain + kLongRow;
constexpr std::int64_t kNearBytes = 1 << 20;      // of streamed rows; beyond this, they are prefetched
constexpr std::int64_t kFarBytes = 16 << 20;      // of streamed rows and weights; beyond this, from memory
constexpr std::int64_t kStreamBytes = 128 << 20;  // of rows that are written once; beyond this, past the caches
constexpr std::int64_t kParallelWork = 1 << 17;   // multiply-adds below which waking threads costs more

struct Tile {
    Index col, width;
};

// Tiles of `widest` columns (16 times a power of two), then narrower ones for the rest. ld: a multiple of 16.
class Tiles {
public:
    Tiles(Index ld, Index widest) : ld_(ld), widest_(widest) {
        for (Index col = 0; col < ld; ++count_) col += width_at(col);
    }
    std::int64_t count() const { return count_; }
    Tile operator[](std::int64_t number) const {
        const Index whole = ld_ / widest_;
        if (number <= whole) {
            const Index col = static_cast<Index>(number) * widest_;
            return {col, width_at(col)};
        }
        Tile tile = (*this)[whole];
        for (; number > whole; --number) tile = {tile.col + tile.width, width_at(tile.col + tile.width)};
        return tile;
    }

private:
    Index width_at(Index col) const {
        Index width = widest_;
        while (width > ld_ - col) width /= 2;
        return width;
    }
    Index ld_, widest_;
    std::int64_t count_ = 0;
};

inline void check_dropout(const Dropout& dropout) {
    if (dropout.threshold > 65535)
        throw InvalidArgument("dropout threshold " + std::to_string(dropout.threshold) +
                              " is not below 65536: no unit would be kept");
}

// The draws of a tile of rows from `neuron` on; how many rows, and where their bits go, is left to say.
inline KeptBlock kept_block(const Dropout& dropout, Index neuron, const Tile& tile) {
    KeptBlock block{};
    block.key0 = static_cast<std::uint32_t>(dropout.stream.seed);
    block.key1 = static_cast<std::uint32_t>(dropout.stream.seed >> 32);
    block.step = dropout.stream.step;
    block.tag = dropout.stream.tag();
    block.neuron = static_cast<std::uint32_t>(neuron);
    block.first_block = (static_cast<std::uint32_t>(dropout.column_offset) + static_cast<std::uint32_t>(tile.col)) / 8;
    block.threshold = dropout.threshold;
    block.words = tile.width / 16;
    return block;
}

inline int threads_for(std::int64_t multiply_adds, std::int64_t tasks, int threads) {
    if (multiply_adds < kParallelWork) return 1;
    if (threads > kMostThreads) threads = kMostThreads;  // scratch memory is made for each
    return static_cast<int>(tasks < threads ? tasks : threads);
}

// How many connections ahead rows are prefetched: far enough for the latency of where they are, in lines that L1 holds.
inline Index prefetch_distance(Index rows, Index width, const ConstRows& from, std::int64_t nnz) {
    constexpr std::int64_t line = 64, lines_ahead = 192, least = 24, most = 96;
    const std::int64_t row_bytes = width * static_cast<std::int64_t>(from.element_bytes());
    if (rows * row_bytes <= kNearBytes) return 0;
    if (rows * row_bytes + nnz * 4 <= kFarBytes) return least;
    const std::int64_t distance = lines_ahead * line / row_bytes;
    return static_cast<Index>(distance < least ? least : distance > most ? most : distance);
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

// Makes room for n values; a step that is like the one before it allocates nothing.
template <class T>
T* at_least(Buffer<T>& buffer, std::size_t n) {
    if (buffer.size() < n) buffer = Buffer<T>(n);
    return buffer.data();
}

// Partial sums of long rows, and who finishes them: the thread that completes a row's last piece (of one tile).
// Their memory belongs to the thread that calls the kernel and is kept for its next call.
class LongRows {
public:
    LongRows(const WorkPlan& plan, Index ld, std::int64_t tiles)
        : plan_(plan), ld_(ld), tiles_(static_cast<std::size_t>(tiles)), memory_(own_memory()) {
        if (plan.long_rows.empty()) return;
        at_least(memory_.partials, static_cast<std::size_t>(plan.partials) * static_cast<std::size_t>(ld));
        const std::size_t counters = plan.long_rows.size() * tiles_;
        if (memory_.counters < counters) {
            memory_.left = std::make_unique<std::atomic<Index>[]>(counters);
            memory_.counters = counters;
        }
        Index most = 0;
        for (std::size_t r = 0; r < plan.long_rows.size(); ++r) {
            most = plan.long_rows[r].pieces > most ? plan.long_rows[r].pieces : most;
            for (std::size_t t = 0; t < tiles_; ++t) memory_.left[r * tiles_ + t].store(plan.long_rows[r].pieces);
        }
        Index* order = at_least(memory_.order, static_cast<std::size_t>(most));
        float* ones = at_least(memory_.ones, static_cast<std::size_t>(most));
        for (Index p = 0; p < most; ++p) order[p] = p;
        for (Index p = 0; p < most; ++p) ones[p] = 1.0f;
    }

    float* partial(const Item& item) {
        return slot(plan_.long_rows[static_cast<std::size_t>(item.long_row)], item.piece);
    }

    // True for the one caller that now has to finish the row; the other pieces' partial sums are then visible.
    bool completes(const Item& item, std::int64_t tile) {
        const std::size_t counter = static_cast<std::size_t>(item.long_row) * tiles_ + static_cast<std::size_t>(tile);
        return memory_.left[counter].fetch_sub(1, std::memory_order_acq_rel) == 1;
    }

    // The pieces of a long row as a row of connections of weight 1: summing them in order is then the kernel's own work.
    RowBlock as_row(const Item& item, std::int32_t* start) const {
        const Index pieces = plan_.long_rows[static_cast<std::size_t>(item.long_row)].pieces;
        start[0] = 0;
        start[1] = pieces;
        return {1, start, memory_.order.data(), memory_.ones.data(), nullptr, pieces, 0};
    }
    const float* partials(const Item& item) {
        return slot(plan_.long_rows[static_cast<std::size_t>(item.long_row)], 0);
    }

private:
    struct Memory {
        Buffer<float> partials, ones;
        Buffer<Index> order;
        std::unique_ptr<std::atomic<Index>[]> left;
        std::size_t counters = 0;
    };
    static Memory& own_memory() {
        static thread_local Memory memory;
        return memory;
    }

    float* slot(const LongRow& row, Index piece) {
        return memory_.partials.data() +
               static_cast<std::size_t>(row.first_partial + piece) * static_cast<std::size_t>(ld_);
    }

    const WorkPlan& plan_;
    Index ld_;
    std::size_t tiles_;
    Memory& memory_;
};

}  // namespace trulysparse::detail
