// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/work.hpp"

#include <doctest/doctest.h>

#include "kernels.hpp"

using namespace trulysparse;
using namespace testing;

namespace {

template <class Offset>
void check_plan(const std::vector<Offset>& ptr) {
    const Index rows = static_cast<Index>(ptr.size()) - 1;
    const WorkPlan plan = plan_work(ptr.data(), rows);
    std::int64_t k = 0, partials = 0;
    Index row = 0;
    for (const Item& item : plan.items) {
        CHECK(item.k_begin == k);
        CHECK(item.row_begin == row);
        CHECK(item.k_end - item.k_begin <= kGrain + kLongRow);
        CHECK(item.row_end - item.row_begin <= kGrain / kRowCost);
        k = item.k_end;
        if (item.long_row < 0) {
            CHECK(item.row_end > item.row_begin);
            CHECK(item.k_end == static_cast<std::int64_t>(ptr[static_cast<std::size_t>(item.row_end)]));
            row = item.row_end;
            continue;
        }
        const LongRow& whole = plan.long_rows[static_cast<std::size_t>(item.long_row)];
        CHECK(whole.row == row);
        CHECK(item.row_end == row + 1);
        CHECK(whole.first_partial + item.piece == partials);
        CHECK(item.k_begin == static_cast<std::int64_t>(ptr[static_cast<std::size_t>(row)]) + item.piece * kLongRow);
        ++partials;
        if (item.piece == whole.pieces - 1) {
            CHECK(k == static_cast<std::int64_t>(ptr[static_cast<std::size_t>(row) + 1]));
            ++row;
        }
    }
    CHECK(row == rows);
    CHECK(k == static_cast<std::int64_t>(ptr.back()));
    CHECK(plan.partials == partials);
}

}  // namespace

TEST_CASE("plan_covers_every_row_and_connection_once") {
    for (const auto& layer : holdable_layers<std::int32_t>()) {
        INFO("layer: " << layer.name);
        check_plan(layer.row_ptr);
        check_plan(second_index(layer).col_ptr);
    }
    for (const auto& layer : holdable_layers<std::int8_t>()) check_plan(layer.row_ptr);
    for (const auto& layer : holdable_layers<std::int16_t>()) check_plan(layer.row_ptr);
    for (const auto& layer : holdable_layers<std::int64_t>()) check_plan(layer.row_ptr);
}

TEST_CASE("only_rows_above_the_limit_are_cut") {
    for (std::int64_t length : {kLongRow - 1, kLongRow, kLongRow + 1, 2 * kLongRow, 2 * kLongRow + 1}) {
        const std::vector<std::int64_t> ptr = {0, 10, 10 + length, 20 + length};
        check_plan(ptr);
        const WorkPlan plan = plan_work(ptr.data(), 3);
        CHECK(plan.long_rows.size() == (length > kLongRow ? 1u : 0u));
        CHECK(plan.partials == (length > kLongRow ? (length + kLongRow - 1) / kLongRow : 0));
    }
}

TEST_CASE("rows_without_connections_still_cost_something") {
    const std::vector<std::int32_t> ptr(10001, 0);
    check_plan(ptr);
    CHECK(plan_work(ptr.data(), 10000).items.size() > 10);
}

TEST_CASE("positions_beyond_32_bits_are_kept") {
    const std::int64_t far = (std::int64_t{1} << 32) + 5;
    std::vector<std::int64_t> ptr = {0, far};
    const WorkPlan plan = plan_work(ptr.data(), 1);
    CHECK(plan.items.back().k_end == far);
    CHECK(plan.partials == far / kLongRow + 1);
}
