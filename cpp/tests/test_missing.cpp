// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/missing.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels.hpp"
#include "ref/ref_missing.hpp"

using namespace trulysparse;

namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Small whole numbers: every sum is exact, ties are many, some rows are zero, and lengths differ by rows.
Buffer<float> whole_numbers(Index rows, Index batch, Index ld, unsigned seed, float padding) {
    Buffer<float> a = testing::padded_floats(rows, batch, ld, seed, padding);
    for (Index r = 0; r < rows; ++r)
        for (Index b = 0; b < batch; ++b) {
            float& v = a[testing::cells(r, ld) + static_cast<std::size_t>(b)];
            v = r % 5 == 3 ? 0.0f : std::round(v * static_cast<float>(1 + r % 4));
        }
    return a;
}

std::vector<std::uint8_t> random_mask(std::size_t n, unsigned seed) {
    std::mt19937 generator(seed);
    std::vector<std::uint8_t> mask(n);
    for (std::uint8_t& m : mask) m = generator() % 4 != 0;
    return mask;
}

std::vector<std::uint64_t> counts_of(std::uint64_t missing) {
    std::vector<std::uint64_t> counts{0, 1, missing / 100, missing / 3, missing, missing + 7};
    if (missing > 0) counts.push_back(missing - 1);
    return counts;
}

bool is_sorted_and_distinct(const Buffer<Cell>& cells) {
    for (std::size_t c = 1; c < cells.size(); ++c)
        if (cells[c - 1] >= cells[c]) return false;
    return true;
}

// Large enough for sampled thresholds, several items, and columns that do not fill a vector.
template <class Offset>
std::vector<testing::Layer<Offset>> layers_to_search() {
    std::vector<testing::Layer<Offset>> layers = testing::odd_layers<Offset>();
    layers.push_back(testing::random_layer<Offset>("sampled", 401, 703, 0.1, 7));
    return layers;
}

template <class Offset>
void compare_whole_numbers() {
    for (const auto& layer : layers_to_search<Offset>())
        for (const auto& shape : {std::pair<Index, Index>{1, 16}, {21, 48}}) {
            const Index batch = shape.first, ld = shape.second;
            const Buffer<float> x = whole_numbers(layer.rows, batch, ld, 11, 0.5f);
            const Buffer<float> dy = whole_numbers(layer.cols, batch, ld, 12, 0.0f);
            const ref::Matrix g = ref::gradient(ref::from_padded({x.data(), false}, layer.rows, batch, ld),
                                                ref::from_padded({dy.data(), false}, layer.cols, batch, ld));
            std::vector<float> dense(g.values.begin(), g.values.end());
            {
                const auto mask = batch == 1 ? std::vector<std::uint8_t>() : random_mask(layer.nnz(), 13);
                const std::uint8_t* stays = mask.empty() ? nullptr : mask.data();
                const std::uint64_t dropped =
                    static_cast<std::uint64_t>(std::count(mask.begin(), mask.end(), std::uint8_t{0}));
                for (std::uint64_t k : counts_of(layer.view().cells() - layer.nnz() + dropped)) {
                    INFO(layer.name << ", batch " << batch << ", k " << k);
                    const std::vector<Cell> expected = ref::top_missing(layer.view(), mask, g, k);
                    for (int threads : testing::kThreads) {
                        const MissingTop top =
                            top_missing_gradients(layer.view(), stays, x.data(), dy.data(), ld, k, threads);
                        REQUIRE(testing::same_bits(top.cells, expected));
                        REQUIRE(top.values.size() == expected.size());
                        bool same = true;
                        for (std::size_t c = 0; c < expected.size(); ++c) same &= top.values[c] == dense[expected[c]];
                        CHECK(same);
                        const MissingTop of_values = top_missing_values(layer.view(), stays, dense.data(), k, threads);
                        CHECK(testing::same_bits(of_values.cells, top.cells));
                    }
                }
            }
        }
}

}  // namespace

TEST_CASE("test_top_missing_equals_the_oracle_on_exact_sums_with_ties") {
    testing::for_each_isa([](Isa) { compare_whole_numbers<std::int32_t>(); });
    compare_whole_numbers<std::int64_t>();
}

TEST_CASE("test_top_missing_gradients_are_those_of_the_dense_gradient_to_the_bit") {
    testing::for_each_isa([](Isa) {
        for (const auto& layer : layers_to_search<std::int32_t>())
            for (Index batch : {1, 100}) {
                const Index ld = padded(batch);
                // Lengths over many orders of magnitude, so that most tiles are skipped.
                Buffer<float> x = testing::padded_floats(layer.rows, batch, ld, 21, -3.0f);
                Buffer<float> dy = testing::padded_floats(layer.cols, batch, ld, 22);
                for (Index r = 0; r < layer.rows; ++r)
                    for (Index b = 0; b < ld; ++b)
                        x[testing::cells(r, ld) + static_cast<std::size_t>(b)] *=
                            std::exp2(static_cast<float>(-(r % 40)));
                Buffer<float> dense(layer.view().cells(), kNan);
                accumulate_gradient(dense.data(), layer.rows, layer.cols, x.data(), dy.data(), ld, 0.0f, 1.0f, 1);
                for (std::uint64_t k : counts_of(layer.view().cells() - layer.nnz())) {
                    INFO(layer.name << ", batch " << batch << ", k " << k);
                    const MissingTop expected = top_missing_values(layer.view(), nullptr, dense.data(), k, 1);
                    CHECK(is_sorted_and_distinct(expected.cells));
                    for (int threads : testing::kThreads) {
                        const MissingTop top =
                            top_missing_gradients(layer.view(), nullptr, x.data(), dy.data(), ld, k, threads);
                        CHECK(testing::same_bits(top.cells, expected.cells));
                        CHECK(std::equal(top.values.begin(), top.values.end(), expected.values.begin(),
                                         expected.values.end()));
                    }
                }
            }
    });
}

TEST_CASE("test_a_misleading_sample_costs_time_only") {
    // Twenty large values in places that sampling does not see, and a sample that sees nothing else.
    const auto layer = testing::random_layer<std::int32_t>("empty", 500, 600, 0.0, 1);
    std::vector<float> dense(layer.view().cells(), 0.0f);
    for (std::size_t s = 0; s < 4096; ++s) {
        const double place = static_cast<double>(s) * 0.6180339887498949;
        dense[static_cast<std::size_t>((place - std::floor(place)) * static_cast<double>(dense.size()))] = 1.0f;
    }
    for (std::size_t c = 0; c < 20; ++c) dense[c * 7919] = -2.0f;
    ref::Matrix values(layer.rows, layer.cols);
    values.values.assign(dense.begin(), dense.end());
    for (std::uint64_t k : {5, 21, 5000, 30000, 200000})
        for (int threads : testing::kThreads) {
            INFO("k " << k);
            const MissingTop top = top_missing_values(layer.view(), nullptr, dense.data(), k, threads);
            CHECK(testing::same_bits(top.cells, ref::top_missing(layer.view(), {}, values, k)));
        }
}

TEST_CASE("test_denormal_values_are_larger_than_zeros") {
    const auto layer = testing::random_layer<std::int32_t>("empty", 3, 50, 0.0, 1);
    std::vector<float> dense(150, 0.0f);
    dense[100] = -std::numeric_limits<float>::denorm_min();
    dense[120] = 3 * std::numeric_limits<float>::denorm_min();
    const MissingTop top = top_missing_values(layer.view(), nullptr, dense.data(), 3, 1);
    REQUIRE(top.cells.size() == 3);
    CHECK((top.cells[0] == 0 && top.cells[1] == 100 && top.cells[2] == 120));
}

TEST_CASE("test_missing_gradients_that_are_not_numbers_are_refused") {
    testing::for_each_isa([](Isa) {
        const auto layer = testing::random_layer<std::int32_t>("sampled", 300, 500, 0.1, 3);
        const Index ld = 32;
        const Buffer<float> x = testing::padded_floats(300, 20, ld, 1), dy = testing::padded_floats(500, 20, ld, 2);
        const auto top = [&](const Buffer<float>& a, const Buffer<float>& b, int threads) {
            return top_missing_gradients(layer.view(), nullptr, a.data(), b.data(), ld, 9, threads);
        };
        for (int threads : testing::kThreads)
            for (float bad : {kNan, std::numeric_limits<float>::infinity()}) {
                Buffer<float> bad_x = testing::copy(x), bad_dy = testing::copy(dy);
                bad_x[testing::cells(7, ld) + 3] = bad;
                bad_dy[testing::cells(8, ld) + 19] = bad;
                CHECK_THROWS_AS(top(bad_x, dy, threads), NotFinite);
                CHECK_THROWS_AS(top(x, bad_dy, threads), NotFinite);
            }
        // Finite numbers whose sum overflows: largest of all, and never skipped.
        Buffer<float> huge_x = testing::copy(x), huge_dy = testing::copy(dy);
        huge_x[testing::cells(7, ld)] = 1e30f;
        Index target = 0;
        for (std::int32_t c = layer.row_ptr[7]; layer.col_idx[static_cast<std::size_t>(c)] == target; ++c) ++target;
        huge_dy[testing::cells(target, ld)] = -1e30f;
        for (int threads : testing::kThreads) {
            const MissingTop found = top(huge_x, huge_dy, threads);
            const Cell cell = static_cast<Cell>(500 * 7 + target);
            const Cell* at = std::find(found.cells.begin(), found.cells.end(), cell);
            REQUIRE(at != found.cells.end());
            CHECK(found.values[static_cast<std::size_t>(at - found.cells.begin())] ==
                  -std::numeric_limits<float>::infinity());
        }
        // What exists may be NaN, what is missing may not.
        std::vector<float> dense(layer.view().cells(), 1.0f);
        dense[static_cast<std::size_t>(layer.col_idx[0])] = kNan;
        CHECK(top_missing_values(layer.view(), nullptr, dense.data(), 5, 2).cells.size() == 5);
        dense[static_cast<std::size_t>(500 * 7 + target)] = kNan;
        for (int threads : testing::kThreads) {
            std::string message;
            try {
                top_missing_values(layer.view(), nullptr, dense.data(), 5, threads);
            } catch (const NotFinite& error) {
                message = error.what();
            }
            CHECK(message.find("hold 1 NaN, the first between source 7 and target " + std::to_string(target) + ";") !=
                  std::string::npos);
        }
    });
}

TEST_CASE("test_gradients_too_small_or_large_to_square_are_found") {
    const auto layer = testing::random_layer<std::int32_t>("empty", 400, 500, 0.0, 1);
    for (float scale : {1e-30f, 1e18f}) {
        const Index ld = 16;
        Buffer<float> x = testing::padded_floats(400, 9, ld, 1), dy = testing::padded_floats(500, 9, ld, 2);
        for (float& v : x) v *= scale;
        Buffer<float> dense(layer.view().cells());
        accumulate_gradient(dense.data(), 400, 500, x.data(), dy.data(), ld, 0.0f, 1.0f, 1);
        const MissingTop expected = top_missing_values(layer.view(), nullptr, dense.data(), 100, 1);
        CHECK(expected.values[0] != 0.0f);
        CHECK(testing::same_bits(top_missing_gradients(layer.view(), nullptr, x.data(), dy.data(), ld, 100, 2).cells,
                                 expected.cells));
    }
}

TEST_CASE("test_gradient_at_equals_the_oracle_in_any_order") {
    testing::for_each_isa([](Isa) {
        for (Index batch : testing::kBatches) {
            const Index ld = padded(batch), rows = 60, cols = 41;
            const Buffer<float> x = testing::padded_floats(rows, batch, ld, 1, 7.0f);
            const Buffer<float> dy = testing::padded_floats(cols, batch, ld, 2);
            const ref::Matrix g = ref::gradient(ref::from_padded({x.data(), false}, rows, batch, ld),
                                                ref::from_padded({dy.data(), false}, cols, batch, ld));
            std::vector<Cell> cells(g.values.size());
            for (Cell c = 0; c < cells.size(); ++c) cells[c] = c;
            std::vector<float> got(cells.size());
            gradient_at(cells.data(), cells.size(), cols, x.data(), dy.data(), ld, got.data(), 1);
            CHECK(testing::largest_error(got.data(), g.values) < 1e-5);
            std::shuffle(cells.begin(), cells.end(), std::mt19937(3));
            for (int threads : testing::kThreads) {
                std::vector<float> again(cells.size()), expected(cells.size());
                gradient_at(cells.data(), cells.size(), cols, x.data(), dy.data(), ld, again.data(), threads);
                for (std::size_t c = 0; c < cells.size(); ++c) expected[c] = got[cells[c]];
                CHECK(testing::same_bits(again, expected));
            }
        }
    });
}

TEST_CASE("test_accumulate_gradient_equals_the_oracle") {
    testing::for_each_isa([](Isa) {
        for (const auto& [rows, cols] : {std::pair<Index, Index>{0, 5}, {5, 0}, {1, 1}, {17, 3}, {50, 131}, {9, 1000}})
            for (Index batch : testing::kBatches) {
                const Index ld = padded(batch);
                const Buffer<float> x = testing::padded_floats(rows, batch, ld, 1, 7.0f);
                const Buffer<float> dy = testing::padded_floats(cols, batch, ld, 2);
                const ref::Matrix g = ref::gradient(ref::from_padded({x.data(), false}, rows, batch, ld),
                                                    ref::from_padded({dy.data(), false}, cols, batch, ld));
                const std::vector<float> before = testing::random_floats(g.values.size(), 3);
                std::vector<double> expected(before.size());
                for (std::size_t c = 0; c < before.size(); ++c)
                    expected[c] = 0.75 * static_cast<double>(before[c]) - 0.5 * g.values[c];
                std::vector<float> one;
                for (int threads : testing::kThreads) {
                    std::vector<float> dense = before;
                    accumulate_gradient(dense.data(), rows, cols, x.data(), dy.data(), ld, 0.75f, -0.5f, threads);
                    CHECK(testing::largest_error(dense.data(), expected) < 1e-5);
                    if (threads == 1) one = dense;
                    CHECK(testing::same_bits(dense, one));
                }
            }
    });
}
