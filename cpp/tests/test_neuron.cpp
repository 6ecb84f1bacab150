// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/neuron.hpp"

#include <algorithm>

#include "../src/ref/ref_pattern.hpp"
#include "testing.hpp"

using namespace trulysparse;

TEST_CASE_TEMPLATE("test_incoming_strength_equals_the_oracle", Offset, std::int32_t, std::int64_t) {
    for (const auto& layer : testing::all_layers<Offset>()) {
        INFO(layer.name);
        const std::vector<float> weights = testing::random_floats(layer.nnz(), 11);
        const Transposed<Offset> t = transpose(layer.view(), 1);
        const std::vector<float> expected = ref::incoming_strength(layer.view(), weights);
        for (int threads : testing::kThreads) {
            std::vector<float> strength(static_cast<std::size_t>(layer.cols), -1.0f);
            incoming_strength(t.col_ptr.data(), t.perm.data(), layer.cols, weights.data(), strength.data(), threads);
            CHECK(testing::same_bits(strength, expected));
        }
    }
}

TEST_CASE_TEMPLATE("test_drop_incoming_marks_exactly_the_connections_into_the_targets", Offset, std::int32_t,
                   std::int64_t) {
    for (const auto& layer : testing::all_layers<Offset>()) {
        INFO(layer.name);
        std::vector<std::uint8_t> targets(static_cast<std::size_t>(layer.cols));
        for (std::size_t j = 0; j < targets.size(); ++j) targets[j] = j % 3 == 1;
        std::vector<std::uint8_t> expected;
        for (Index j : layer.col_idx) expected.push_back(j % 3 != 1);
        const auto zeros = static_cast<std::uint64_t>(std::count(expected.begin(), expected.end(), 0));
        for (int threads : testing::kThreads) {
            std::vector<std::uint8_t> mask(layer.nnz(), 9);
            CHECK(drop_incoming(layer.view(), targets.data(), mask.data(), threads) == zeros);
            CHECK(mask == expected);
        }
    }
}
