// SPDX-License-Identifier: BSD-3-Clause
// How a layer is cut into work items: a function of the pattern only, never of the thread count (same bits everywhere).
#pragma once

#include <cstdint>
#include <vector>

#include "trulysparse/types.hpp"

namespace trulysparse {

constexpr std::int64_t kGrain = 2048;  // connections an item aims at (rows count as kRowCost connections each)
constexpr std::int64_t kRowCost = 4;
constexpr std::int64_t kLongRow = 4096;  // a row above this many connections is cut into pieces of this many

// Either whole rows [row_begin, row_end), or one piece of a long row (long_row >= 0, row_end == row_begin + 1).
struct Item {
    Index row_begin, row_end;
    std::int64_t k_begin, k_end;  // its connections; at most kGrain + kLongRow of them
    Index long_row;               // index into WorkPlan::long_rows, or -1
    Index piece;                  // which piece of the long row
};

struct LongRow {
    Index row;
    Index pieces;
    std::int64_t first_partial;  // partial sums of piece p live in slot first_partial + p
};

struct WorkPlan {
    std::vector<Item> items;
    std::vector<LongRow> long_rows;
    std::int64_t partials = 0;  // number of partial-sum rows needed
};

template <class Offset>
WorkPlan plan_work(const Offset* ptr, Index rows);

}  // namespace trulysparse
