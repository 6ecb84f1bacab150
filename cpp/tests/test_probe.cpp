// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/probe.hpp"

#include "testing.hpp"

using namespace trulysparse;
using namespace testing;

TEST_CASE("fma_probe_counts_what_it_did_and_sums_what_it_computed") {
    for_each_isa([](Isa) {
        for (int threads : kThreads)
            for (std::int64_t rounds : {0, 1, 1000, (1 << 20) + 3}) {
                const FmaProbe probe = probe_fma(rounds, 1.0f, 1.0f, threads);
                // with a = b = 1 every accumulator counts its rounds
                CHECK(probe.sum == static_cast<double>(probe.flops / 2));
                CHECK(probe.flops % (2 * threads) == 0);
                CHECK((probe.flops > 0) == (rounds > 0));
            }
    });
}

TEST_CASE("read_probe_reads_every_float_once_a_pass") {
    std::vector<float> data(70001);
    double sum = 0.0;
    for (std::size_t i = 0; i < data.size(); ++i) sum += data[i] = static_cast<float>(i % 7);
    for_each_isa([&](Isa) {
        for (int threads : kThreads)
            for (std::int64_t n : {std::int64_t{0}, std::int64_t{5}, static_cast<std::int64_t>(data.size())}) {
                double expected = 0.0;
                for (std::int64_t i = 0; i < n; ++i) expected += data[static_cast<std::size_t>(i)];
                CHECK(probe_read(data.data(), n, 3, threads) == 3 * expected);
            }
    });
}

TEST_CASE("rows_probe_reads_the_rows_of_the_order") {
    constexpr Index rows = 300;
    for_each_isa([&](Isa) {
        for (Index width : {16, 32, 64, 128, 512}) {
            Buffer<float> matrix(static_cast<std::size_t>(rows) * static_cast<std::size_t>(width));
            for (std::size_t i = 0; i < matrix.size(); ++i) matrix[i] = static_cast<float>(i % 5);
            std::vector<Index> order(5003);
            for (std::size_t k = 0; k < order.size(); ++k) order[k] = static_cast<Index>(k * 131 % rows);
            for (std::size_t n : {std::size_t{0}, std::size_t{3}, order.size()}) {
                double expected = 0.0;
                for (std::size_t k = 0; k < n; ++k)
                    for (Index c = 0; c < width; ++c)
                        expected += matrix[static_cast<std::size_t>(order[k] * width + c)];
                for (int threads : kThreads)
                    for (std::int64_t ahead : {0, 24})
                        CHECK(probe_rows(matrix.data(), width, order.data(), static_cast<std::int64_t>(n), ahead,
                                         threads) == expected);
            }
        }
    });
}
