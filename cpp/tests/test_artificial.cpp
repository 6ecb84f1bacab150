// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/artificial.hpp"

#include <vector>

#include "testing.hpp"

using namespace trulysparse;

namespace {

const Stream kStream{0x0123456789abcdefull, Purpose::data, 0, 2};

float normal_at(std::uint64_t row, std::uint64_t column) {
    return normal2(draw(kStream, row << 32 | column / 2))[column % 2];
}

}  // namespace

TEST_CASE("test_uniform_numbers_are_words_of_blocks_from_any_first_one") {
    for (int threads : testing::kThreads)
        for (std::uint64_t first : {0ull, 1ull, 3ull, 4ull, 0xffffffffull})
            for (std::int64_t n : {0, 1, 2, 5, 4096, 9001}) {
                std::vector<float> out(static_cast<std::size_t>(n));
                draw_uniform(kStream, first, n, out.data(), threads);
                for (std::size_t k = 0; k < out.size(); ++k)
                    REQUIRE(out[k] == uniform24(draw(kStream, (first + k) / 4)[(first + k) % 4]));
            }
}

TEST_CASE("test_noise_is_a_function_of_row_and_column") {
    constexpr std::int64_t rows = 3;
    for (Index columns : {0, 1, 2, 3, 255, 256, 257, 4095, 4096, 4097, 8193})
        for (std::uint64_t first : {0ull, 5ull, 0xfffffffdull}) {
            std::vector<float> expected(static_cast<std::size_t>(rows * columns));
            for (std::size_t k = 0; k < expected.size(); ++k)
                expected[k] =
                    normal_at(first + k / static_cast<std::size_t>(columns), k % static_cast<std::size_t>(columns));
            testing::for_each_isa([&](Isa) {
                for (int threads : testing::kThreads) {
                    std::vector<float> out(expected.size());
                    draw_noise(kStream, first, rows, columns, out.data(), threads);
                    REQUIRE(out == expected);
                }
            });
        }
}

TEST_CASE("test_cluster_is_mixed_moved_combined_and_put_in_its_places") {
    for (Index own : {1, 3, 4})
        for (Index more : {0, 1, 5})
            for (std::int64_t n : {0, 1, 8, 19}) {
                const Index columns = own + more + 3;
                const auto size = [](auto count) { return static_cast<std::size_t>(count); };
                std::vector<float> mixing(size(own * own)), centroid(size(own)), combining(size(own * more));
                draw_uniform(kStream, 1000, own * own, mixing.data(), 1);
                draw_uniform(kStream, 2000, own, centroid.data(), 1);
                draw_uniform(kStream, 3000, own * more, combining.data(), 1);
                std::vector<std::int64_t> places(size(own + more)), chosen(size(n));
                for (std::size_t k = 0; k < places.size(); ++k) places[k] = columns - 1 - static_cast<std::int64_t>(k);
                constexpr std::int64_t first = 0xffffff00;
                for (std::size_t k = 0; k < chosen.size(); ++k) chosen[k] = first + 2 * static_cast<std::int64_t>(k);

                std::vector<float> expected(size(2 * n * columns), 7.0f);
                for (std::int64_t row : chosen) {
                    float* out = expected.data() + (row - first) * columns;
                    for (Index j = 0; j < own; ++j) {
                        float sum = 0;
                        for (Index i = 0; i < own; ++i)
                            sum += normal_at(static_cast<std::uint64_t>(row), static_cast<std::uint64_t>(i)) *
                                   mixing[size(i * own + j)];
                        out[places[size(j)]] = sum + centroid[size(j)];
                    }
                    for (Index j = 0; j < more; ++j) {
                        float sum = 0;
                        for (Index i = 0; i < own; ++i) sum += out[places[size(i)]] * combining[size(i * more + j)];
                        out[places[size(own + j)]] = sum;
                    }
                }
                const Cluster cluster{mixing.data(), centroid.data(), combining.data(), places.data(), own, more};
                testing::for_each_isa([&](Isa) {
                    for (int threads : testing::kThreads) {
                        std::vector<float> out(size(2 * n * columns), 7.0f);
                        place_cluster(kStream, cluster, chosen.data(), n, first, columns, out.data(), threads);
                        REQUIRE(out == expected);
                    }
                });
            }
}
