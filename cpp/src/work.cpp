// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/work.hpp"

#include <algorithm>

namespace trulysparse {

template <class Offset>
WorkPlan plan_work(const Offset* ptr, Index rows) {
    WorkPlan plan;
    const auto at = [ptr](Index row) { return static_cast<std::int64_t>(ptr[row]); };
    if (rows > 0) plan.items.reserve(static_cast<std::size_t>((at(rows) - at(0) + kRowCost * rows) / kGrain + 1));

    Index begin = 0;  // first row of the open item
    std::int64_t cost = 0;
    const auto close = [&](Index end) {
        if (end > begin) plan.items.push_back({begin, end, at(begin), at(end), -1, 0});
        begin = end;
        cost = 0;
    };
    for (Index row = 0; row < rows; ++row) {
        const std::int64_t length = at(row + 1) - at(row);
        if (length > kLongRow) {
            close(row);
            const Index pieces = static_cast<Index>((length + kLongRow - 1) / kLongRow);
            const Index number = static_cast<Index>(plan.long_rows.size());
            for (Index piece = 0; piece < pieces; ++piece) {
                const std::int64_t k = at(row) + piece * kLongRow;
                plan.items.push_back({row, row + 1, k, std::min(k + kLongRow, at(row + 1)), number, piece});
            }
            plan.long_rows.push_back({row, pieces, plan.partials});
            plan.partials += pieces;
            begin = row + 1;
            continue;
        }
        cost += length + kRowCost;
        if (cost >= kGrain) close(row + 1);
    }
    close(rows);
    return plan;
}

template WorkPlan plan_work(const std::int8_t*, Index);
template WorkPlan plan_work(const std::int16_t*, Index);
template WorkPlan plan_work(const std::int32_t*, Index);
template WorkPlan plan_work(const std::int64_t*, Index);

}  // namespace trulysparse
