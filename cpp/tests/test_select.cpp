// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/select.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "../src/ref/ref_pattern.hpp"
#include "testing.hpp"

using namespace trulysparse;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kTiny = std::numeric_limits<float>::denorm_min();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Values {
    std::string name;
    std::vector<float> values;
};

// Long enough for several blocks; ties, zeros of both signs, denormals and infinities in every mixture.
std::vector<Values> odd_values() {
    const std::size_t n = 140000;
    std::vector<Values> all{
        {"nothing", {}},
        {"one", {0.5f}},
        {"zeros of both signs", {0.0f, -0.0f, 0.0f, -0.0f}},
        {"extremes", {kInf, -kInf, kTiny, -kTiny, 0.0f, -0.0f, 1.0f, -1.0f, kTiny * 3, kInf, 3e38f}},
        {"random", testing::random_floats(n, 1)},
        {"all equal", std::vector<float>(n, 0.25f)},
        {"heavy ties", testing::random_floats(n, 2, -4.0f, 4.0f)},
        {"near ties", testing::random_floats(n, 3)},
        {"denormals", testing::random_floats(n, 4)}};
    for (float& v : all[6].values) v = std::round(v);
    for (float& v : all[7].values) v = std::copysign(1.0f + std::floor(std::fabs(v) * 4) * 0x1p-23f, v);
    for (float& v : all[8].values) v = std::round(v * 1000) * kTiny;
    return all;
}

}  // namespace

TEST_CASE("test_count_signs") {
    for (const Values& odd : odd_values()) {
        const std::vector<float>& values = odd.values;
        INFO(odd.name);
        std::uint64_t positive = 0, negative = 0;
        for (float v : values) positive += v > 0, negative += v < 0;
        for (int threads : testing::kThreads) {
            const SignCounts counts = count_signs(values.data(), values.size(), threads);
            CHECK(counts.positive == positive);
            CHECK(counts.negative == negative);
            CHECK(counts.zero == values.size() - positive - negative);
        }
    }
}

TEST_CASE("test_drop_by_sign_equals_the_oracle") {
    for (const Values& odd : odd_values()) {
        const std::vector<float>& values = odd.values;
        const SignCounts counts = count_signs(values.data(), values.size(), 1);
        for (double fraction : {0.0, 0.00001, 0.3, 0.5, 1.0})
            for (bool drop_zeros : {true, false}) {
                INFO(odd.name << ", fraction " << fraction << ", drop_zeros " << drop_zeros);
                const auto k_positive =
                    static_cast<std::uint64_t>(std::ceil(fraction * static_cast<double>(counts.positive)));
                const auto k_negative = static_cast<std::uint64_t>(fraction * static_cast<double>(counts.negative));
                const auto expected = ref::drop_by_sign(values, k_positive, k_negative, drop_zeros);
                const std::uint64_t dropped = k_positive + k_negative + (drop_zeros ? counts.zero : 0);
                for (int threads : testing::kThreads) {
                    std::vector<std::uint8_t> mask(values.size(), 9);
                    CHECK(drop_by_sign(values.data(), values.size(), k_positive, k_negative, drop_zeros, mask.data(),
                                       threads) == dropped);
                    CHECK(mask == expected);
                }
            }
    }
}

TEST_CASE("test_drop_smallest_equals_the_oracle") {
    for (const Values& odd : odd_values())
        for (double fraction : {0.0, 0.00001, 0.3, 0.5, 1.0}) {
            const std::vector<float>& values = odd.values;
            INFO(odd.name << ", fraction " << fraction);
            const auto k = static_cast<std::uint64_t>(std::ceil(fraction * static_cast<double>(values.size())));
            const auto expected = ref::drop_smallest(values, k);
            CHECK(static_cast<std::uint64_t>(std::count(expected.begin(), expected.end(), 0)) == k);
            for (int threads : testing::kThreads) {
                std::vector<std::uint8_t> mask(values.size(), 9);
                drop_smallest(values.data(), values.size(), k, mask.data(), threads);
                CHECK(mask == expected);
            }
        }
}

TEST_CASE("test_selection_refuses_nan_naming_its_position_and_count") {
    std::vector<float> values = testing::random_floats(200000, 5);
    values[150001] = kNan;
    values[150003] = -kNan;
    values[199999] = kNan;
    std::vector<std::uint8_t> mask(values.size());
    for (int threads : testing::kThreads) {
        CHECK_THROWS_AS(count_signs(values.data(), values.size(), threads), InvalidArgument);
        CHECK_THROWS_AS(drop_smallest(values.data(), values.size(), 1, mask.data(), threads), InvalidArgument);
        std::string message;
        try {
            drop_by_sign(values.data(), values.size(), 1, 1, true, mask.data(), threads);
        } catch (const InvalidArgument& error) {
            message = error.what();
        }
        CHECK(message.find("hold 3 NaN among 200000, the first at position 150001") != std::string::npos);
    }
}

TEST_CASE("test_selection_refuses_more_than_there_are") {
    const std::vector<float> values{1.0f, -1.0f, 0.0f, 2.0f};
    std::vector<std::uint8_t> mask(4);
    CHECK_THROWS_AS(drop_by_sign(values.data(), 4, 3, 0, true, mask.data(), 1), InvalidArgument);
    CHECK_THROWS_AS(drop_by_sign(values.data(), 4, 0, 2, true, mask.data(), 1), InvalidArgument);
    CHECK_THROWS_AS(drop_smallest(values.data(), 4, 5, mask.data(), 1), InvalidArgument);
    CHECK_THROWS_AS(drop_smallest(values.data(), 0, 1, mask.data(), 1), InvalidArgument);
}
