// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/sample.hpp"

#include <algorithm>
#include <cmath>

#include "../src/ref/ref_pattern.hpp"
#include "testing.hpp"

using namespace trulysparse;

namespace {

Stream stream_of(std::uint64_t seed, std::uint32_t layer = 0) { return {seed, Purpose::pattern, layer, 0}; }

template <class Offset>
bool same(const Pattern<Offset>& a, const Pattern<Offset>& b) {
    return a.rows == b.rows && a.cols == b.cols && testing::same_bits(a.row_ptr, b.row_ptr) &&
           testing::same_bits(a.col_idx, b.col_idx);
}

template <class Offset>
void check_valid(const Pattern<Offset>& p) {
    CHECK_NOTHROW(validate(p.view(), p.col_idx.size()));
}

struct Shape {
    Index rows, cols;
};
const std::vector<Shape> kFashion = {{784, 1000}, {1000, 1000}, {1000, 1000}, {1000, 10}};  // epsilon 20

}  // namespace

TEST_CASE("test_samplers_known_answers") {
    const Stream stream{5, Purpose::pattern, 2, 0};
    const auto bernoulli = sample_bernoulli<std::int32_t>(4, 50, 0.1, stream, 1);
    const std::vector<std::int32_t> row_ptr{0, 3, 10, 14, 17};
    const std::vector<Index> col_idx{18, 29, 41, 6, 12, 14, 21, 26, 32, 37, 1, 3, 23, 36, 7, 26, 35};
    CHECK(testing::same_bits(bernoulli.row_ptr, row_ptr));
    CHECK(testing::same_bits(bernoulli.col_idx, col_idx));
    const std::vector<Cell> cells{9, 108, 115, 171, 185, 213, 255, 257, 258, 266, 268, 287};
    CHECK(ref::cells(sample_with_replacement<std::int32_t>(6, 50, 12, stream, 1).view()) == cells);
    CHECK(ref::cells(sample_exact<std::int32_t>(6, 50, 12, stream, 1).view()) == cells);
}

TEST_CASE_TEMPLATE("test_samplers_do_not_depend_on_threads_but_on_the_stream", Offset, std::int32_t, std::int64_t) {
    const Index rows = 3000, cols = 2000;
    auto sample = [&](int kind, const Stream& stream, int threads) {
        if (kind == 0) return sample_bernoulli<Offset>(rows, cols, 0.03, stream, threads);
        if (kind == 1) return sample_with_replacement<Offset>(rows, cols, 200000, stream, threads);
        return sample_exact<Offset>(rows, cols, kind == 2 ? 200000 : 5900000, stream, threads);
    };
    for (int kind = 0; kind < 4; ++kind) {
        INFO("kind " << kind);
        const auto first = sample(kind, stream_of(1), 1);
        check_valid(first);
        for (int threads : testing::kThreads) CHECK(same(first, sample(kind, stream_of(1), threads)));
        CHECK_FALSE(same(first, sample(kind, stream_of(2), 1)));
        CHECK_FALSE(same(first, sample(kind, stream_of(1, 1), 1)));
        CHECK_FALSE(same(first, sample(kind, {1, Purpose::pattern, 0, 1}, 1)));
        CHECK_FALSE(same(first, sample(kind, {1, Purpose::user, 0, 0}, 1)));
    }
}

TEST_CASE("test_bernoulli_counts_match_the_spec") {
    double expected = 0, variance = 0, counted = 0;
    for (std::size_t l = 0; l < kFashion.size(); ++l) {
        const auto [rows, cols] = kFashion[l];
        const double cells = static_cast<double>(rows) * cols, p = std::min(1.0, 20.0 * (rows + cols) / cells);
        const auto pattern =
            sample_bernoulli<std::int32_t>(rows, cols, p, stream_of(3, static_cast<std::uint32_t>(l)), 2);
        check_valid(pattern);
        CHECK(std::fabs(pattern.view().nnz() - cells * p) <= 4 * std::sqrt(cells * p * (1 - p)));
        expected += cells * p;
        variance += cells * p * (1 - p);
        counted += pattern.view().nnz();
    }
    CHECK(expected == doctest::Approx(125680));
    CHECK(std::fabs(counted - expected) < 4 * std::sqrt(variance));
}

TEST_CASE("test_with_replacement_counts_match_the_spec") {
    double expected = 0, variance = 0, counted = 0;
    for (std::size_t l = 0; l < kFashion.size(); ++l) {
        const auto [rows, cols] = kFashion[l];
        const double cells = static_cast<double>(rows) * cols, draws = 20.0 * (rows + cols), load = draws / cells;
        const auto pattern = sample_with_replacement<std::int32_t>(rows, cols, static_cast<std::uint64_t>(draws),
                                                                   stream_of(4, static_cast<std::uint32_t>(l)), 2);
        check_valid(pattern);
        const double mean = cells * (1 - std::pow(1 - 1 / cells, draws));
        const double spread = cells * std::exp(-load) * (1 - (1 + load) * std::exp(-load));
        CHECK(std::fabs(pattern.view().nnz() - mean) < 4 * std::sqrt(spread));
        expected += mean;
        variance += spread;
        counted += pattern.view().nnz();
    }
    CHECK(std::fabs(expected - 121975) < 1);
    CHECK(std::fabs(counted - expected) < 4 * std::sqrt(variance));
}

TEST_CASE("test_bernoulli_gives_every_cell_its_probability") {
    const Index rows = 5, cols = 8;
    const double p = 0.3;
    const int seeds = 5000;
    std::vector<int> counts(static_cast<std::size_t>(rows * cols));
    for (int seed = 0; seed < seeds; ++seed)
        for (Cell cell : ref::cells(
                 sample_bernoulli<std::int32_t>(rows, cols, p, stream_of(static_cast<std::uint64_t>(seed)), 1).view()))
            ++counts[cell];
    double chi = 0;
    for (int count : counts) chi += std::pow(count - seeds * p, 2) / (seeds * p * (1 - p));
    CHECK(chi < 40 + 4 * std::sqrt(80.0));
    CHECK(chi > 40 - 4 * std::sqrt(80.0));
}

TEST_CASE_TEMPLATE("test_samplers_at_the_ends", Offset, std::int32_t, std::int64_t) {
    for (int threads : testing::kThreads) {
        const auto full = sample_bernoulli<Offset>(40, 30, 1.0, stream_of(1), threads);
        check_valid(full);
        CHECK(full.view().nnz() == 1200);
        CHECK(same(full, sample_exact<Offset>(40, 30, 1200, stream_of(1), threads)));
        CHECK(same(full, sample_with_replacement<Offset>(40, 30, 60000, stream_of(1), threads)));
        for (auto [rows, cols] : {Shape{40, 30}, Shape{0, 30}, Shape{40, 0}, Shape{0, 0}}) {
            const auto empty = sample_bernoulli<Offset>(rows, cols, 0.0, stream_of(1), threads);
            check_valid(empty);
            CHECK(empty.view().nnz() == 0);
            CHECK(same(empty, sample_exact<Offset>(rows, cols, 0, stream_of(1), threads)));
            CHECK(same(empty, sample_with_replacement<Offset>(rows, cols, 0, stream_of(1), threads)));
        }
        CHECK(sample_bernoulli<Offset>(0, 30, 1.0, stream_of(1), threads).view().nnz() == 0);
        CHECK(sample_bernoulli<Offset>(40, 0, 1.0, stream_of(1), threads).view().nnz() == 0);
        for (std::uint64_t count : {1, 599, 600, 601, 1199}) {
            const auto some = sample_exact<Offset>(40, 30, count, stream_of(2), threads);
            check_valid(some);
            CHECK(static_cast<std::uint64_t>(some.view().nnz()) == count);
        }
    }
}

TEST_CASE("test_samplers_refuse_what_cannot_be") {
    for (double density : {-0.1, 1.1, std::nan("")})
        CHECK_THROWS_AS(sample_bernoulli<std::int32_t>(4, 5, density, stream_of(1), 1), InvalidArgument);
    CHECK_THROWS_AS(sample_bernoulli<std::int32_t>(-4, 5, 0.5, stream_of(1), 1), InvalidArgument);
    CHECK_THROWS_AS(sample_exact<std::int32_t>(4, 5, 21, stream_of(1), 1), InvalidArgument);
    CHECK_THROWS_AS(sample_with_replacement<std::int32_t>(0, 5, 1, stream_of(1), 1), InvalidArgument);
}

TEST_CASE("test_samplers_catch_overflow_of_narrow_positions") {
    CHECK_THROWS_AS(sample_bernoulli<std::int8_t>(20, 20, 0.5, stream_of(1), 1), InvalidArgument);
    CHECK_THROWS_AS(sample_bernoulli<std::int8_t>(1000, 1000, 0.5, stream_of(1), 1), InvalidArgument);
    CHECK_THROWS_AS(sample_with_replacement<std::int8_t>(20, 20, 300, stream_of(1), 1), InvalidArgument);
    CHECK_THROWS_AS(sample_exact<std::int8_t>(20, 20, 128, stream_of(1), 1), InvalidArgument);
    CHECK_THROWS_AS(sample_exact<std::int16_t>(200, 200, 32768, stream_of(1), 1), InvalidArgument);
    CHECK_THROWS_AS(sample_bernoulli<std::int32_t>(1 << 20, 1 << 20, 0.5, stream_of(1), 1), InvalidArgument);
    CHECK_THROWS_AS(sample_exact<std::int32_t>(5000000, 5000000, 1ull << 31, stream_of(1), 1), InvalidArgument);
    const auto most = sample_exact<std::int8_t>(20, 20, 127, stream_of(1), 2);
    check_valid(most);
    CHECK(ref::cells(most.view()) == ref::cells(sample_exact<std::int64_t>(20, 20, 127, stream_of(1), 2).view()));
}

TEST_CASE("test_extreme_scale_sample_and_transpose") {
    const Index n = 5000000;
    const std::uint64_t count = 10000000;
    const auto p = sample_exact<std::int32_t>(n, n, count, stream_of(6), 2);
    check_valid(p);
    CHECK(p.col_idx.size() == count);
    const auto t = transpose(p.view(), 2);
    const PatternView<std::int32_t> view{n, n, t.col_ptr.data(), t.row_idx.data()};
    CHECK_NOTHROW(validate(view, count));
    bool agrees = true;
    for (Index j = 0; j < n; ++j)
        for (std::int32_t k = t.col_ptr[static_cast<std::size_t>(j)]; k < t.col_ptr[static_cast<std::size_t>(j) + 1];
             ++k) {
            const auto from = static_cast<std::size_t>(t.perm[static_cast<std::size_t>(k)]);
            const auto row = static_cast<std::size_t>(t.row_idx[static_cast<std::size_t>(k)]);
            agrees &= p.col_idx[from] == j && p.row_ptr[row] <= static_cast<std::int32_t>(from) &&
                      static_cast<std::int32_t>(from) < p.row_ptr[row + 1];
        }
    CHECK(agrees);
    // Cells beyond 2^32 are reached in proportion: the upper half of the rows holds half of the connections.
    CHECK(std::fabs(p.row_ptr[n / 2] - 5e6) < 4 * std::sqrt(2.5e6));
}

TEST_CASE("test_values_known_answers") {
    const Stream stream{5, Purpose::weights, 1, 0};
    const std::vector<Cell> cells{0, 1, 24'999'999'999'999ull};
    const float scale = 0.5f;
    std::vector<float> out(3);
    draw_values(cells.data(), 3, 5000000, Distribution::uniform, &scale, 1, stream, out.data(), 1);
    CHECK(out == std::vector<float>{-0.49728453159332275f, -0.19842475652694702f, 0.2597201466560364f});
}

TEST_CASE_TEMPLATE("test_values_are_a_function_of_the_cell_only", Offset, std::int32_t, std::int64_t) {
    const Stream stream{9, Purpose::weights, 1, 0};
    for (const auto& layer : testing::all_layers<Offset>()) {
        INFO(layer.name);
        const std::vector<Cell> cells = ref::cells(layer.view());
        const std::vector<Cell> backwards(cells.rbegin(), cells.rend());
        const std::vector<float> one{0.3f};
        const std::vector<float> each = testing::random_floats(static_cast<std::size_t>(layer.cols), 7, 0.1f, 2.0f);
        for (Distribution distribution : {Distribution::uniform, Distribution::normal})
            for (const auto& scale : {one, each}) {
                std::vector<float> expected(layer.nnz());
                for (std::size_t k = 0; k < cells.size(); ++k) {
                    const Block b = draw(stream, cells[k]);
                    const float unit = distribution == Distribution::uniform ? 2 * uniform24(b[0]) - 1 : normal2(b)[0];
                    expected[k] = unit * scale[scale.size() == 1 ? 0 : cells[k] % scale.size()];
                }
                for (int threads : testing::kThreads) {
                    std::vector<float> by_pattern(layer.nnz()), by_cell(layer.nnz());
                    draw_values(layer.view(), distribution, scale.data(), scale.size(), stream, by_pattern.data(),
                                threads);
                    CHECK(testing::same_bits(by_pattern, expected));
                    draw_values(backwards.data(), backwards.size(), layer.cols, distribution, scale.data(),
                                scale.size(), stream, by_cell.data(), threads);
                    std::reverse(by_cell.begin(), by_cell.end());
                    CHECK(testing::same_bits(by_cell, expected));
                }
            }
    }
    const auto layer = testing::random_layer<Offset>("small", 3, 4, 1.0, 1);
    const std::vector<float> scale(3, 1.0f);
    std::vector<float> out(12);
    CHECK_THROWS_AS(draw_values(layer.view(), Distribution::normal, scale.data(), 3, stream, out.data(), 1),
                    InvalidArgument);
    const Cell cell = 0;
    CHECK_THROWS_AS(draw_values(&cell, 1, 4, Distribution::normal, scale.data(), 3, stream, out.data(), 1),
                    InvalidArgument);
}

TEST_CASE("test_values_of_cells_without_columns_are_refused") {
    const Cell cell = 3;
    const float scale = 1.0f;
    float out = 0.0f;
    for (std::uint64_t n_scale : {0, 1})
        CHECK_THROWS_AS(draw_values(&cell, 1, 0, Distribution::normal, &scale, n_scale, {}, &out, 1), InvalidArgument);
    CHECK_NOTHROW(draw_values(&cell, 0, 0, Distribution::normal, &scale, 0, {}, &out, 1));
}

TEST_CASE("test_values_have_their_moments_and_range") {
    const std::uint64_t n = 200000;
    std::vector<Cell> cells(n);
    for (std::uint64_t k = 0; k < n; ++k) cells[k] = k * 1000003;
    const float scale = 0.2f;
    const double root = std::sqrt(static_cast<double>(n));
    for (Distribution distribution : {Distribution::uniform, Distribution::normal}) {
        std::vector<float> out(n);
        draw_values(cells.data(), n, 4000, distribution, &scale, 1, {2, Purpose::weights, 0, 0}, out.data(), 2);
        double sum = 0, squares = 0, largest = 0;
        for (double v : out) sum += v, squares += v * v, largest = std::max(largest, std::fabs(v));
        const bool uniform = distribution == Distribution::uniform;
        const double variance = uniform ? 0.04 / 3 : 0.04, kurtosis = uniform ? 1.8 : 3.0;
        CHECK(std::fabs(sum / static_cast<double>(n)) < 4 * std::sqrt(variance) / root);
        CHECK(std::fabs(squares / static_cast<double>(n) - variance) < 4 * variance * std::sqrt(kurtosis - 1) / root);
        CHECK((largest <= 0.2f) == uniform);
        CHECK(largest > 0.199);
    }
}
