// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/pattern.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>

#include "../src/ref/ref_pattern.hpp"
#include "testing.hpp"

using namespace trulysparse;

namespace {

constexpr const std::uint8_t* kKeepAll = nullptr;

Stream stream_of(std::uint64_t seed) { return {seed, Purpose::regrow_cells, 0, 1}; }

template <class Offset>
bool same(const Pattern<Offset>& a, const Pattern<Offset>& b) {
    return a.rows == b.rows && a.cols == b.cols && testing::same_bits(a.row_ptr, b.row_ptr) &&
           testing::same_bits(a.col_idx, b.col_idx);
}

template <class Offset>
bool same(const Carried<Offset>& a, const Carried<Offset>& b) {
    bool equal = same(a.pattern, b.pattern) && a.arrays.size() == b.arrays.size();
    for (std::size_t i = 0; equal && i < a.arrays.size(); ++i) equal = testing::same_bits(a.arrays[i], b.arrays[i]);
    return equal;
}

std::vector<std::uint8_t> random_mask(std::size_t n, unsigned seed) {
    std::mt19937 generator(seed);
    std::vector<std::uint8_t> mask(n);
    for (auto& m : mask) m = generator() % 3 == 0 ? 0 : static_cast<std::uint8_t>(1 + generator() % 255);
    return mask;
}

std::string message_of(const std::function<void()>& action) {
    try {
        action();
    } catch (const InvalidArgument& error) {
        return error.what();
    }
    return "";
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE_TEMPLATE("test_transpose_equals_the_oracle", Offset, std::int32_t, std::int64_t) {
    auto layers = testing::all_layers<Offset>();
    layers.push_back(testing::random_layer<Offset>("one level", 900, 1000, 0.1, 5));
    for (const auto& layer : layers) {
        INFO(layer.name);
        const Transposed<Offset> expected = ref::transpose(layer.view());
        for (int threads : testing::kThreads) {
            const Transposed<Offset> t = transpose(layer.view(), threads);
            CHECK(testing::same_bits(t.col_ptr, expected.col_ptr));
            CHECK(testing::same_bits(t.row_idx, expected.row_idx));
            CHECK(testing::same_bits(t.perm, expected.perm));
        }
    }
}

TEST_CASE_TEMPLATE("test_values_are_transposed_as_the_oracle_s_permutation_says", Offset, std::int32_t, std::int64_t) {
    auto layers = testing::all_layers<Offset>();
    layers.push_back(testing::large_layer<Offset>(3));
    for (const auto& layer : layers) {
        INFO(layer.name);
        const Transposed<Offset> expected = ref::transpose(layer.view());
        Buffer<float> values(layer.nnz()), ordered(layer.nnz());
        for (std::size_t k = 0; k < values.size(); ++k) values[k] = 0.5f + static_cast<float>(k);
        for (std::size_t k = 0; k < values.size(); ++k) ordered[k] = values[static_cast<std::size_t>(expected.perm[k])];
        for (int threads : testing::kThreads) {
            const auto t = transpose_values(layer.view(), values.data(), threads);
            CHECK(testing::same_bits(t.col_ptr, expected.col_ptr));
            CHECK(testing::same_bits(t.row_idx, expected.row_idx));
            CHECK(testing::same_bits(t.values, ordered));
            Buffer<float> out(layer.nnz(), -1.0f);
            order_by_target(layer.view(), values.data(), out.data(), threads);
            CHECK(testing::same_bits(out, ordered));
        }
    }
}

TEST_CASE_TEMPLATE("test_count_by_target_counts_columns", Offset, std::int32_t, std::int64_t) {
    for (const auto& layer : testing::all_layers<Offset>()) {
        const Transposed<Offset> expected = ref::transpose(layer.view());
        std::vector<std::int64_t> counts(static_cast<std::size_t>(layer.cols), -1);
        count_by_target(layer.view(), counts.data());
        for (std::size_t j = 0; j < counts.size(); ++j)
            CHECK(counts[j] == expected.col_ptr[j + 1] - expected.col_ptr[j]);
    }
}

TEST_CASE_TEMPLATE("test_keep_and_rewire_equal_the_oracle", Offset, std::int32_t, std::int64_t) {
    for (const auto& layer : testing::all_layers<Offset>()) {
        INFO(layer.name);
        const std::size_t n = layer.nnz();
        const std::vector<float> w = testing::random_floats(n, 1), v = testing::random_floats(n, 2);
        const std::vector<std::vector<std::uint8_t>> masks = {random_mask(n, 3), std::vector<std::uint8_t>(n, 0),
                                                              std::vector<std::uint8_t>(n, 1)};
        for (std::size_t m = 0; m < masks.size(); ++m) {
            INFO("mask " << m);
            const auto& mask = masks[m];
            const auto survivors = ref::rewire<Offset>(layer.view(), mask, {}, {w.data(), v.data()}, {});
            const PatternView<Offset> left = survivors.pattern.view();
            const std::uint64_t free = left.cells() - static_cast<std::uint64_t>(left.nnz());
            const Buffer<Cell> drawn =
                draw_missing(left, kKeepAll, std::min<std::uint64_t>(free, 1 + n / 3), stream_of(1), 1);
            const std::vector<Cell> grown(drawn.begin(), drawn.end());
            const std::vector<float> fill = testing::random_floats(grown.size(), 4);
            const auto rewired =
                ref::rewire<Offset>(layer.view(), mask, grown, {w.data(), v.data()}, {fill.data(), nullptr});
            CHECK_NOTHROW(validate(rewired.pattern.view(), rewired.pattern.col_idx.size()));
            for (int threads : testing::kThreads) {
                CHECK(testing::same_bits(draw_missing(layer.view(), mask.data(), grown.size(), stream_of(1), threads),
                                         drawn));
                CHECK(same(keep(layer.view(), mask.data(), {w.data(), v.data()}, threads), survivors));
                CHECK(same(keep(layer.view(), mask.data(), {}, threads).pattern, survivors.pattern));
                CHECK(same(rewire(layer.view(), mask.data(), grown.data(), grown.size(), {w.data(), v.data()},
                                  {fill.data(), nullptr}, threads),
                           rewired));
                if (m == 2)
                    CHECK(same(rewire(layer.view(), kKeepAll, grown.data(), grown.size(), {w.data(), v.data()},
                                      {fill.data(), nullptr}, threads),
                               rewired));
            }
        }
    }
}

TEST_CASE("test_rewire_may_grow_a_cell_it_drops_and_fills_with_zeros") {
    const testing::Layer<std::int32_t> layer{"two", 2, 3, {0, 1, 2}, {1, 2}};
    const std::vector<float> w{5.0f, 6.0f};
    const std::vector<std::uint8_t> mask{0, 1};
    const std::vector<Cell> grown{0, 1};
    const auto out = rewire(layer.view(), mask.data(), grown.data(), 2, {w.data()}, {}, 1);
    CHECK(ref::cells(out.pattern.view()) == std::vector<Cell>{0, 1, 5});
    CHECK(std::vector<float>(out.arrays[0].begin(), out.arrays[0].end()) == std::vector<float>{0.0f, 0.0f, 6.0f});
}

TEST_CASE("test_rewire_refuses_grown_cells_that_are_unsorted_repeated_outside_or_kept") {
    const auto layer = testing::large_layer<std::int32_t>(2);
    const std::vector<Cell> missing = [&] {
        const Buffer<Cell> drawn = draw_missing(layer.view(), kKeepAll, 100000, stream_of(2), 2);
        return std::vector<Cell>(drawn.begin(), drawn.end());
    }();
    for (int threads : testing::kThreads) {
        auto attempt = [&](std::vector<Cell> grown) {
            return message_of([&] { rewire(layer.view(), kKeepAll, grown.data(), grown.size(), {}, {}, threads); });
        };
        CHECK(attempt(missing) == "");
        auto grown = missing;
        std::swap(grown[70000], grown[70001]);
        CHECK(has(attempt(grown), "at position 70001 does not come after"));
        grown = missing;
        grown[5] = grown[4];
        CHECK(has(attempt(grown), "at position 5 does not come after"));
        grown = missing;
        grown.back() = Cell{4000} * 50000;
        CHECK(has(attempt(grown), "is outside a layer of 4000 x 50000"));
        const Cell kept = ref::cells(layer.view())[1000];
        grown = missing;
        grown.insert(std::lower_bound(grown.begin(), grown.end(), kept), kept);
        CHECK(has(attempt(grown), "is a connection that is kept"));
        CHECK(has(attempt(grown),
                  "(row " + std::to_string(kept / 50000) + ", column " + std::to_string(kept % 50000) + ")"));
    }
    const std::vector<float> w(layer.nnz());
    CHECK_THROWS_AS(
        rewire(layer.view(), kKeepAll, static_cast<const Cell*>(nullptr), 0, {w.data(), w.data()}, {nullptr}, 1),
        InvalidArgument);
}

TEST_CASE_TEMPLATE("test_unite_equals_the_oracle", Offset, std::int32_t, std::int64_t) {
    for (const auto& layer : testing::all_layers<Offset>()) {
        INFO(layer.name);
        // Three overlapping patterns of one shape: two subsets, and one that also has other cells.
        const std::size_t n = layer.nnz();
        const auto a = keep(layer.view(), random_mask(n, 1).data(), {}, 1).pattern;
        const auto b = keep(layer.view(), random_mask(n, 2).data(), {}, 1).pattern;
        const std::uint64_t free = b.view().cells() - static_cast<std::uint64_t>(b.view().nnz());
        const Buffer<Cell> grown =
            draw_missing(b.view(), kKeepAll, std::min<std::uint64_t>(free, n / 4), stream_of(3), 1);
        const auto c = rewire(b.view(), kKeepAll, grown.data(), grown.size(), {}, {}, 1).pattern;
        const std::vector<PatternView<Offset>> patterns{a.view(), b.view(), c.view()};
        std::vector<std::vector<float>> values;
        std::vector<std::vector<const float*>> arrays, none(3);
        for (unsigned s = 0; s < 3; ++s)
            for (unsigned i = 0; i < 2; ++i)
                values.push_back(testing::random_floats(static_cast<std::size_t>(patterns[s].nnz()), 10 * s + i));
        for (std::size_t s = 0; s < 3; ++s) arrays.push_back({values[2 * s].data(), values[2 * s + 1].data()});
        const auto expected = ref::unite(patterns, arrays, 1.0);
        const auto alone = ref::unite<Offset>({patterns[2]}, {arrays[2]}, 1.0);
        const auto thirds = ref::unite(patterns, arrays, 3.0);
        for (int threads : testing::kThreads) {
            CHECK(same(unite(patterns, arrays, 1.0, threads), expected));
            CHECK(same(unite(patterns, arrays, 3.0, threads), thirds));
            CHECK(same(unite(patterns, none, 1.0, threads).pattern, expected.pattern));
            CHECK(same(unite<Offset>({patterns[2]}, {arrays[2]}, 1.0, threads), alone));
        }
    }
}

TEST_CASE("test_unite_refuses_patterns_that_do_not_fit_together") {
    using P = PatternView<std::int32_t>;
    const testing::Layer<std::int32_t> a{"a", 2, 3, {0, 1, 2}, {1, 2}}, b{"b", 2, 4, {0, 1, 2}, {1, 2}};
    const std::vector<float> w(2);
    CHECK_THROWS_AS(unite(std::vector<P>{}, {}, 1.0, 1), InvalidArgument);
    CHECK_THROWS_AS(unite(std::vector<P>{a.view(), b.view()}, {{}, {}}, 1.0, 1), InvalidArgument);
    CHECK_THROWS_AS(unite(std::vector<P>{a.view(), a.view()}, {{}}, 1.0, 1), InvalidArgument);
    CHECK_THROWS_AS(unite(std::vector<P>{a.view(), a.view()}, {{w.data()}, {}}, 1.0, 1), InvalidArgument);
    for (double divisor : {0.0, -1.0, std::nan(""), std::numeric_limits<double>::infinity()})
        CHECK(has(message_of([&] { unite(std::vector<P>{a.view()}, {{w.data()}}, divisor, 1); }), "cannot be divided"));
}

TEST_CASE("test_unite_sums_in_double_and_rounds_once") {
    using P = PatternView<std::int32_t>;
    const testing::Layer<std::int32_t> layer{"one", 1, 1, {0, 1}, {0}};
    auto sum = [&](std::vector<float> values, double divisor) {
        std::vector<std::vector<const float*>> arrays;
        for (const float& value : values) arrays.push_back({&value});
        return unite(std::vector<P>(values.size(), layer.view()), arrays, divisor, 1).arrays[0][0];
    };
    CHECK(sum({1.0f, 6e-8f, 6e-8f}, 1.0) == 1.0f + 1.1920929e-7f);  // in float both small ones would be lost
    CHECK(sum({3e38f, 3e38f, 3e38f}, 3.0) == 3e38f);                // in float the sum would be infinite
    CHECK(std::signbit(sum({-0.0f, -0.0f}, 2.0)));
}

TEST_CASE_TEMPLATE("test_the_mean_of_identical_arrays_is_the_array_bit_for_bit", Offset, std::int32_t, std::int64_t) {
    for (const auto& layer : testing::all_layers<Offset>()) {
        INFO(layer.name);
        std::vector<float> w = testing::random_floats(layer.nnz(), 5);
        if (!w.empty()) w[0] = -0.0f;
        for (std::size_t n = 2; n <= 7; ++n) {
            const std::vector<PatternView<Offset>> patterns(n, layer.view());
            const auto mean =
                unite(patterns, std::vector<std::vector<const float*>>(n, {w.data()}), static_cast<double>(n), 2);
            CHECK(testing::same_bits(mean.pattern.row_ptr, layer.row_ptr));
            CHECK(testing::same_bits(mean.pattern.col_idx, layer.col_idx));
            CHECK(testing::same_bits(mean.arrays[0], w));
        }
    }
}

TEST_CASE_TEMPLATE("test_carry_equals_the_oracle", Offset, std::int32_t, std::int64_t) {
    for (const auto& layer : testing::all_layers<Offset>()) {
        INFO(layer.name);
        const std::size_t n = layer.nnz();
        std::vector<std::uint8_t> mask = random_mask(n, 1);
        // The first quarter is left as it is: rows in which both patterns are equal.
        for (std::size_t k = 0; k < n / 4; ++k) mask[k] = 1;
        const auto smaller = keep(layer.view(), mask.data(), {}, 1).pattern;
        const std::uint64_t free = smaller.view().cells() - static_cast<std::uint64_t>(smaller.view().nnz());
        const Buffer<Cell> grown =
            draw_missing(smaller.view(), kKeepAll, std::min<std::uint64_t>(free, n / 4), stream_of(3), 1);
        const auto other = rewire(smaller.view(), kKeepAll, grown.data(), grown.size(), {}, {}, 1).pattern;
        const std::vector<std::uint8_t> no_mask(n, 0);
        const auto empty = keep(layer.view(), no_mask.data(), {}, 1).pattern;
        const std::vector<PatternView<Offset>> all{layer.view(), smaller.view(), other.view(), empty.view()};
        for (const auto& from : all)
            for (const auto& onto : all) {
                const auto w = testing::random_floats(static_cast<std::size_t>(from.nnz()), 1),
                           v = testing::random_floats(static_cast<std::size_t>(from.nnz()), 2);
                const auto expected = ref::carry(from, onto, {w.data(), v.data()});
                for (int threads : testing::kThreads) {
                    std::vector<std::vector<float>> out(2,
                                                        std::vector<float>(static_cast<std::size_t>(onto.nnz()), 7.0f));
                    carry(from, onto, {w.data(), v.data()}, {out[0].data(), out[1].data()}, threads);
                    CHECK(testing::same_bits(out[0], expected[0]));
                    CHECK(testing::same_bits(out[1], expected[1]));
                }
            }
    }
}

TEST_CASE("test_carry_refuses_what_does_not_fit_together") {
    const testing::Layer<std::int32_t> a{"a", 2, 3, {0, 1, 2}, {1, 2}}, b{"b", 2, 4, {0, 1, 2}, {1, 2}};
    std::vector<float> w(2), out(2);
    CHECK(has(message_of([&] { carry(a.view(), b.view(), {w.data()}, {out.data()}, 1); }), "2 x 3 onto one of 2 x 4"));
    CHECK(has(message_of([&] { carry(a.view(), a.view(), {w.data()}, {}, 1); }), "0 arrays to write for 1 to carry"));
}

TEST_CASE_TEMPLATE("test_select_equals_the_oracle", Offset, std::int32_t, std::int64_t) {
    for (const auto& layer : testing::odd_layers<Offset>()) {
        INFO(layer.name);
        const std::vector<float> w = testing::random_floats(layer.nnz(), 1), v = testing::random_floats(layer.nnz(), 2);
        auto every = [](Index n, Index step) {
            std::vector<Index> list;
            for (Index i = 0; i < n; i += step) list.push_back(i);
            return list;
        };
        for (Index row_step : {1, 2, 100000})
            for (Index col_step : {1, 3, 100000}) {
                const std::vector<Index> rows = every(layer.rows, row_step), cols = every(layer.cols, col_step);
                const auto expected = ref::select(layer.view(), rows, cols, {w.data(), v.data()});
                for (int threads : testing::kThreads) {
                    CHECK(same(select(layer.view(), rows.data(), static_cast<Index>(rows.size()), cols.data(),
                                      static_cast<Index>(cols.size()), {w.data(), v.data()}, threads),
                               expected));
                    if (row_step == 1)
                        CHECK(same(select(layer.view(), static_cast<const Index*>(nullptr), 0, cols.data(),
                                          static_cast<Index>(cols.size()), {w.data(), v.data()}, threads),
                                   expected));
                    if (col_step == 1)
                        CHECK(same(select(layer.view(), rows.data(), static_cast<Index>(rows.size()),
                                          static_cast<const Index*>(nullptr), 0, {w.data(), v.data()}, threads),
                                   expected));
                }
            }
    }
}

TEST_CASE("test_select_refuses_lists_that_are_not_ascending_or_outside") {
    const auto layer = testing::random_layer<std::int32_t>("small", 6, 5, 0.5, 1);
    auto attempt = [&](std::vector<Index> rows, std::vector<Index> cols) {
        return message_of([&] {
            select(layer.view(), rows.data(), static_cast<Index>(rows.size()), cols.data(),
                   static_cast<Index>(cols.size()), {}, 1);
        });
    };
    CHECK(attempt({0, 5}, {0, 4}) == "");
    CHECK(has(attempt({0, 6}, {0}), "rows 6 at position 1 is outside 0..5"));
    CHECK(has(attempt({-1}, {0}), "rows -1"));
    CHECK(has(attempt({0}, {5}), "columns 5 at position 0 is outside 0..4"));
    CHECK(has(attempt({3, 3}, {0}), "rows 3 at position 1 does not come after 3"));
    CHECK(has(attempt({0}, {2, 1}), "columns 1 at position 1 does not come after 2"));
    const Index row = 0;
    CHECK(has(message_of([&] { select(layer.view(), &row, -1, &row, 1, {}, 1); }), "-1 rows"));
}

TEST_CASE_TEMPLATE("test_draw_missing_draws_distinct_free_cells_at_every_count", Offset, std::int32_t, std::int64_t) {
    for (const auto& layer : testing::all_layers<Offset>()) {
        INFO(layer.name);
        const std::uint64_t free = layer.view().cells() - layer.nnz();
        std::vector<std::uint64_t> counts{0, 1, 2, free / 3, free / 2, free / 2 + 1, free - free / 7, free};
        if (free > 10000000) counts = {0, 1, 500000};
        for (std::uint64_t count : counts) {
            if (count > free) continue;
            INFO("count " << count << " of " << free);
            const Buffer<Cell> first = draw_missing(layer.view(), kKeepAll, count, stream_of(5), 1);
            REQUIRE(first.size() == count);
            CHECK(std::adjacent_find(first.begin(), first.end(), std::greater_equal<Cell>()) == first.end());
            // rewire accepts only cells that are sorted, inside the layer and not connections yet.
            CHECK_NOTHROW(rewire(layer.view(), kKeepAll, first.data(), count, {}, {}, 1));
            for (int threads : testing::kThreads)
                CHECK(testing::same_bits(first, draw_missing(layer.view(), kKeepAll, count, stream_of(5), threads)));
            if (count == free) CHECK(std::vector<Cell>(first.begin(), first.end()) == ref::missing(layer.view()));
            if (count > 10 && count < free - 10)
                CHECK_FALSE(testing::same_bits(first, draw_missing(layer.view(), kKeepAll, count, stream_of(6), 1)));
        }
        CHECK_THROWS_AS(draw_missing(layer.view(), kKeepAll, free + 1, stream_of(5), 1), InvalidArgument);
    }
}

TEST_CASE("test_draw_missing_is_exact_near_full_density") {
    const auto layer = testing::random_layer<std::int32_t>("nearly full", 300, 400, 0.999, 8);
    const std::vector<Cell> missing = ref::missing(layer.view());
    REQUIRE(missing.size() > 50);
    for (std::uint64_t count = 0; count <= missing.size(); ++count) {
        const Buffer<Cell> drawn = draw_missing(layer.view(), kKeepAll, count, stream_of(count), 2);
        CHECK(drawn.size() == count);
        CHECK(std::includes(missing.begin(), missing.end(), drawn.begin(), drawn.end()));
        CHECK(std::adjacent_find(drawn.begin(), drawn.end()) == drawn.end());
    }
}

TEST_CASE("test_draw_missing_gives_every_free_cell_the_same_chance") {
    const auto layer = testing::random_layer<std::int32_t>("small", 4, 6, 0.25, 3);
    const std::vector<Cell> missing = ref::missing(layer.view());
    const auto free = static_cast<double>(missing.size());
    for (std::uint64_t count : {missing.size() / 3, missing.size() / 2, missing.size() * 3 / 4}) {
        const int seeds = 4000;
        std::map<Cell, int> counts;
        for (int seed = 0; seed < seeds; ++seed)
            for (Cell cell :
                 draw_missing(layer.view(), kKeepAll, count, stream_of(static_cast<std::uint64_t>(seed)), 1))
                ++counts[cell];
        CHECK(counts.size() == missing.size());
        const double share = static_cast<double>(count) / free;
        double chi = 0;
        for (Cell cell : missing) chi += std::pow(counts[cell] - seeds * share, 2) / (seeds * share * (1 - share));
        chi *= (free - 1) / free;  // the counts of one draw are not independent: drawn without replacement
        CHECK(chi < free - 1 + 4 * std::sqrt(2 * (free - 1)));
        CHECK(chi > free - 1 - 4 * std::sqrt(2 * (free - 1)) * 0.8);
    }
}

TEST_CASE("test_draw_missing_gives_every_set_the_same_chance") {
    // Five free cells: repeated draws are frequent, so that the redrawing is what is tested.
    const testing::Layer<std::int32_t> layer{"tiny", 2, 3, {0, 1, 1}, {1}};
    for (std::uint64_t count : {2, 3}) {
        const int seeds = 20000;
        std::map<std::vector<Cell>, int> counts;
        for (int seed = 0; seed < seeds; ++seed) {
            const Buffer<Cell> drawn =
                draw_missing(layer.view(), kKeepAll, count, stream_of(static_cast<std::uint64_t>(seed)), 1);
            ++counts[std::vector<Cell>(drawn.begin(), drawn.end())];
        }
        CHECK(counts.size() == 10);
        double chi = 0;
        for (const auto& [set, seen] : counts) chi += std::pow(seen - seeds / 10.0, 2) / (seeds / 10.0);
        CHECK(chi < 9 + 4 * std::sqrt(18.0));
        CHECK(chi > 0.5);
    }
}

TEST_CASE("test_draw_missing_reaches_cells_beyond_32_bits") {
    const Index n = 5000000;
    std::vector<std::int32_t> row_ptr(static_cast<std::size_t>(n) + 1, 1);
    row_ptr[0] = 0;
    const Index col = 7;
    const PatternView<std::int32_t> p{n, n, row_ptr.data(), &col};
    const Buffer<Cell> drawn = draw_missing(p, kKeepAll, 1000, stream_of(1), 2);
    CHECK(drawn[999] < p.cells());
    CHECK(drawn[999] > 24'000'000'000'000ull);
    const double median = static_cast<double>(drawn[500]) / static_cast<double>(p.cells());
    CHECK(std::fabs(median - 0.5) < 4 * 0.5 / std::sqrt(1000.0));
    const Cell last = p.cells() - 1;
    const auto out = rewire(p, kKeepAll, &last, 1, {}, {}, 2);
    CHECK(out.pattern.col_idx[1] == n - 1);
    CHECK(out.pattern.row_ptr[static_cast<std::size_t>(n) - 1] == 1);
    CHECK(out.pattern.view().nnz() == 2);
}

TEST_CASE_TEMPLATE("test_from_cells_gives_the_pattern_back", Offset, std::int32_t, std::int64_t) {
    for (const auto& layer : testing::all_layers<Offset>()) {
        INFO(layer.name);
        const std::vector<Cell> cells = ref::cells(layer.view());
        for (int threads : testing::kThreads) {
            const Pattern<Offset> p = from_cells<Offset>(layer.rows, layer.cols, cells.data(), cells.size(), threads);
            CHECK(testing::same_bits(p.row_ptr, layer.row_ptr));
            CHECK(testing::same_bits(p.col_idx, layer.col_idx));
        }
    }
    auto attempt = [](std::vector<Cell> cells) {
        return message_of([&] { from_cells<Offset>(3, 4, cells.data(), cells.size(), 1); });
    };
    CHECK(attempt({0, 11}) == "");
    CHECK(has(attempt({3, 2}), "cell (row 0, column 2) at position 1 does not come after (row 0, column 3)"));
    CHECK(has(attempt({3, 3}), "does not come after"));
    CHECK(has(attempt({12}), "cell 12 at position 0 is outside a layer of 3 x 4"));
}

TEST_CASE_TEMPLATE("test_validate_names_the_row_at_fault", Offset, std::int32_t, std::int64_t) {
    for (const auto& layer : testing::all_layers<Offset>()) CHECK_NOTHROW(validate(layer.view(), layer.nnz()));
    auto attempt = [](std::vector<Offset> row_ptr, std::vector<Index> col_idx, Index cols = 4) {
        const PatternView<Offset> p{static_cast<Index>(row_ptr.size()) - 1, cols, row_ptr.data(), col_idx.data()};
        return message_of([&] { validate(p, col_idx.size()); });
    };
    CHECK(attempt({0, 2, 3}, {0, 3, 1}) == "");
    CHECK(has(attempt({1, 2, 3}, {0, 3, 1}), "row_ptr starts at 1"));
    CHECK(has(attempt({0, 2, 1, 3}, {0, 3, 1}), "row_ptr falls from 2 to 1 at row 1"));
    CHECK(has(attempt({0, 2, 5}, {0, 3, 1}), "row_ptr ends at 5 (row 2) but col_idx has 3"));
    CHECK(has(attempt({0, 2, 3}, {0, 4, 1}), "row 0 has column 4; columns are 0..3"));
    CHECK(has(attempt({0, 2, 3}, {0, 1, -1}), "row 1 has column -1"));
    CHECK(has(attempt({0, 0, 2}, {3, 1}), "row 1 has column 1 after 3"));
    CHECK(has(attempt({0, 0, 2}, {3, 3}), "row 1 has column 3 after 3, a duplicate"));
    CHECK(has(attempt({0, 0}, {}, -1), "1 x -1 neurons cannot be held"));
}

TEST_CASE_TEMPLATE("test_check_index_arrays_lets_nothing_lead_outside", Offset, std::int32_t, std::int64_t) {
    const auto layer = testing::large_layer<Offset>(3);
    const Transposed<Offset> t = ref::transpose(layer.view());
    const std::uint64_t nnz = layer.nnz();
    for (int threads : testing::kThreads) {
        std::vector<Offset> ptr(t.col_ptr.begin(), t.col_ptr.end()), perm(t.perm.begin(), t.perm.end());
        std::vector<Index> places(t.row_idx.begin(), t.row_idx.end());
        auto attempt = [&](std::uint64_t n) {
            const IndexArrays<Offset> index{layer.cols, ptr.data(), "col_ptr",  places.data(),
                                            layer.rows, "row_idx",  perm.data()};
            return message_of([&] { check_index_arrays(index, n, threads); });
        };
        auto with = [&](auto& array, std::size_t at, auto value) {
            const auto before = std::exchange(array[at], value);
            const std::string message = attempt(nnz);
            array[at] = before;
            return message;
        };
        CHECK(attempt(nnz) == "");
        CHECK(has(attempt(nnz - 1), "col_ptr must begin with 0 and end with the number of connections"));
        CHECK(has(with(ptr, 0, Offset{1}), "col_ptr must begin with 0"));
        CHECK(has(with(ptr, ptr.size() - 1, Offset{-1}), "col_ptr must begin with 0 and end"));
        CHECK(has(with(ptr, 40001, static_cast<Offset>(ptr[40000] - 1)), "at position 40000"));
        CHECK(has(with(ptr, 7, std::numeric_limits<Offset>::max()), "col_ptr falls"));
        for (Index bad : {Index{-1}, layer.rows})
            CHECK(has(with(places, nnz - 5, bad), "row_idx holds " + std::to_string(bad) + " at position"));
        for (Offset bad : {Offset{-1}, static_cast<Offset>(nnz)})
            CHECK(has(with(perm, 70000, bad), "perm holds " + std::to_string(bad) + " at position 70000"));
        const IndexArrays<Offset> pointers{layer.cols, ptr.data(), "col_ptr", nullptr, 0, "", nullptr};
        CHECK_NOTHROW(check_index_arrays(pointers, nnz, threads));
    }
    for (const auto& odd : testing::odd_layers<Offset>())
        CHECK_NOTHROW(check_index_arrays<Offset>(
            {odd.rows, odd.row_ptr.data(), "row_ptr", odd.col_idx.data(), odd.cols, "col_idx", nullptr}, odd.nnz(), 2));
}

TEST_CASE("test_check_holdable_computes_in_64_bits") {
    constexpr std::int64_t most = std::numeric_limits<Index>::max();
    CHECK_NOTHROW(check_holdable<std::int32_t>(most, most, 2147483647ull));
    CHECK_THROWS_AS(check_holdable<std::int32_t>(5000000, 5000000, 2147483648ull), InvalidArgument);
    CHECK_NOTHROW(check_holdable<std::int64_t>(5000000, 5000000, 2147483648ull));
    CHECK_THROWS_AS(check_holdable<std::int64_t>(most + 1, 1, 0), InvalidArgument);
    CHECK_THROWS_AS(check_holdable<std::int64_t>(1, most + 1, 0), InvalidArgument);
    CHECK_THROWS_AS(check_holdable<std::int64_t>(-1, 1, 0), InvalidArgument);
    CHECK_THROWS_AS(check_holdable<std::int64_t>(1, 1, 1ull << 63), InvalidArgument);
    CHECK_NOTHROW(check_holdable<std::int8_t>(300, 300, 127));
    CHECK_THROWS_AS(check_holdable<std::int8_t>(300, 300, 128), InvalidArgument);
    CHECK_THROWS_AS(check_holdable<std::int8_t>(300, 300, 256), InvalidArgument);
    CHECK_NOTHROW(check_holdable<std::int16_t>(300, 300, 32767));
    CHECK_THROWS_AS(check_holdable<std::int16_t>(300, 300, 65537), InvalidArgument);
    const std::string message = message_of([] { check_holdable<std::int8_t>(30, 20, 200); });
    CHECK(has(message, "30 x 20 neurons with 200 connections cannot be held by 8-bit positions, which reach 127"));
}

TEST_CASE_TEMPLATE("test_operations_catch_overflow_of_narrow_positions", Offset, std::int8_t, std::int16_t) {
    constexpr std::size_t most = std::numeric_limits<Offset>::max();
    const Index rows = 200, cols = 400;  // cells, and cells before a row, pass both position types
    std::vector<Cell> cells(most + 1);
    for (std::size_t k = 0; k < cells.size(); ++k) cells[k] = 2 * k + 1;
    CHECK_THROWS_AS(from_cells<Offset>(rows, cols, cells.data(), most + 1, 1), InvalidArgument);

    // Exactly full: every operation still agrees with 64-bit positions.
    const auto p = from_cells<Offset>(rows, cols, cells.data(), most, 2);
    const auto wide = from_cells<std::int64_t>(rows, cols, cells.data(), most, 2);
    CHECK(ref::cells(p.view()) == ref::cells(wide.view()));
    const auto t = transpose(p.view(), 2);
    const auto wide_t = transpose(wide.view(), 2);
    CHECK(testing::same_bits(t.row_idx, wide_t.row_idx));
    CHECK(std::equal(t.perm.begin(), t.perm.end(), wide_t.perm.begin(), wide_t.perm.end()));
    CHECK(std::equal(t.col_ptr.begin(), t.col_ptr.end(), wide_t.col_ptr.begin(), wide_t.col_ptr.end()));
    std::vector<float> values(most);
    for (std::size_t k = 0; k < most; ++k) values[k] = static_cast<float>(k);
    const auto narrow_values = transpose_values(p.view(), values.data(), 2);
    CHECK(std::equal(t.perm.begin(), t.perm.end(), narrow_values.values.begin(), narrow_values.values.end()));
    CHECK(testing::same_bits(draw_missing(p.view(), kKeepAll, 40000, stream_of(1), 2),
                             draw_missing(wide.view(), kKeepAll, 40000, stream_of(1), 2)));

    // One more than fits.
    const Cell one = 0;
    CHECK_THROWS_AS(rewire(p.view(), kKeepAll, &one, 1, {}, {}, 1), InvalidArgument);
    std::vector<std::uint8_t> mask(most, 1);
    mask[3] = 0;
    const auto swapped = rewire(p.view(), mask.data(), &one, 1, {}, {}, 1);
    CHECK(static_cast<std::size_t>(swapped.pattern.view().nnz()) == most);
    CHECK_THROWS_AS(unite<Offset>({p.view(), swapped.pattern.view()}, {{}, {}}, 1.0, 1), InvalidArgument);
}
