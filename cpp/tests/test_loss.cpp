// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/loss.hpp"

#include <doctest/doctest.h>

#include "kernels.hpp"

using namespace trulysparse;
using namespace testing;

namespace {

constexpr Index kOutputs[] = {1, 2, 10, 33, 400};

struct LossCase {
    Index n, batch, ld;
    Buffer<float> z, t;
    std::vector<std::int32_t> y;
    Matrix z_wide, t_wide;

    LossCase(Index outputs, Index b)
        : n(outputs),
          batch(b),
          ld(padded(b)),
          z(padded_floats(n, b, ld, 41, 0.5f)),
          t(padded_floats(n, b, ld, 42, 0.5f)),
          z_wide(n, b),
          t_wide(n, b) {
        std::mt19937 generator(43);
        for (Index s = 0; s < b; ++s) y.push_back(static_cast<std::int32_t>(generator() % static_cast<unsigned>(n)));
        for (float& value : z) value *= 20.0f;
        for (float& value : t) value = value > 0.0f ? 1.0f : value < -0.5f ? 0.25f : 0.0f;
        z_wide = ref::from_padded(z.data(), n, b, ld);
        t_wide = ref::from_padded(t.data(), n, b, ld);
    }
};

// run(z, delta, threads) against the oracle's sum and delta; also in place, also without delta.
template <class Run>
void check_loss(const LossCase& c, const LossSum& expected, const Matrix& expected_delta, Run run) {
    INFO("outputs " << c.n << ", batch " << c.batch);
    for_each_isa([&](Isa) {
        Buffer<float> first;
        double first_loss = 0.0;
        for (int threads : kThreads) {
            Buffer<float> delta(cells(c.n, c.ld), -77.0f), in_place = copy(c.z);
            const LossSum got = run(c.z.data(), delta.data(), threads);
            CHECK(error_of(got.loss / c.batch, expected.loss / c.batch) < 1e-6);
            CHECK(got.correct == expected.correct);
            CHECK(largest_error(delta.data(), expected_delta, c.ld) < 1e-6);
            CHECK(padding_is_zero(delta, c.n, c.batch, c.ld));
            const LossSum again = run(in_place.data(), in_place.data(), threads);
            CHECK(again.loss == got.loss);
            CHECK(same_bits(in_place, delta));
            const LossSum only_loss = run(c.z.data(), nullptr, threads);
            CHECK(only_loss.loss == got.loss);
            CHECK(only_loss.correct == got.correct);
            if (threads == 1) {
                first = std::move(delta);
                first_loss = got.loss;
            } else {
                CHECK(same_bits(delta, first));
                CHECK(got.loss == first_loss);
            }
        }
    });
}

}  // namespace

TEST_CASE("softmax_cross_entropy_equals_the_oracle") {
    for (Index n : kOutputs)
        for (Index batch : kBatches) {
            const LossCase c(n, batch);
            Matrix delta(n, batch);
            const LossSum expected = ref::softmax_cross_entropy(c.z_wide, c.y, 0.125, delta);
            check_loss(c, expected, delta, [&](const float* z, float* d, int threads) {
                return softmax_cross_entropy(z, c.y.data(), n, batch, c.ld, 0.125f, d, threads);
            });
        }
}

TEST_CASE("binary_cross_entropy_equals_the_oracle") {
    for (Index n : kOutputs)
        for (Index batch : kBatches) {
            const LossCase c(n, batch);
            Matrix delta(n, batch);
            const LossSum expected = ref::binary_cross_entropy(c.z_wide, c.t_wide, 0.125, delta);
            check_loss(c, expected, delta, [&](const float* z, float* d, int threads) {
                return binary_cross_entropy(z, c.t.data(), n, batch, c.ld, 0.125f, d, threads);
            });
        }
}

TEST_CASE("mean_squared_error_equals_the_oracle") {
    for (Index n : kOutputs)
        for (Index batch : kBatches) {
            const LossCase c(n, batch);
            Matrix delta(n, batch);
            const LossSum expected = ref::mean_squared_error(c.z_wide, c.t_wide, 0.125, delta);
            check_loss(c, expected, delta, [&](const float* z, float* d, int threads) {
                return mean_squared_error(z, c.t.data(), n, batch, c.ld, 0.125f, d, threads);
            });
        }
}

TEST_CASE("probabilities_equal_the_oracle_and_have_zero_padding") {
    for (Index n : kOutputs)
        for (Index batch : kBatches) {
            const LossCase c(n, batch);
            const Matrix soft = ref::softmax(c.z_wide), sigma = ref::sigmoid(c.z_wide);
            for_each_isa([&](Isa) {
                for (int threads : kThreads) {
                    Buffer<float> proba(cells(n, c.ld), -77.0f);
                    softmax(c.z.data(), n, batch, c.ld, proba.data(), threads);
                    CHECK(largest_error(proba.data(), soft, c.ld) < 1e-6);
                    CHECK(padding_is_zero(proba, n, batch, c.ld));
                    sigmoid(c.z.data(), n, batch, c.ld, proba.data(), threads);
                    CHECK(largest_error(proba.data(), sigma, c.ld) < 1e-6);
                    CHECK(padding_is_zero(proba, n, batch, c.ld));
                }
            });
        }
}

TEST_CASE("small_probabilities_are_exact_to_a_few_ulp") {
    const Index n = 1000, ld = 16;
    Buffer<float> z(cells(n, ld), 0.0f), proba(cells(n, ld));
    for (Index i = 0; i < n; ++i)
        for (Index b = 0; b < ld; ++b) z[cells(i, ld) + static_cast<std::size_t>(b)] = -0.08f * static_cast<float>(i);
    const Matrix expected = ref::softmax(ref::from_padded(z.data(), n, ld, ld));
    for_each_isa([&](Isa) {
        softmax(z.data(), n, ld, ld, proba.data(), 1);
        double worst = 0.0;
        for (Index i = 0; i < n; ++i)
            for (Index b = 0; b < ld; ++b)
                worst = std::fmax(worst,
                                  std::fabs(proba[cells(i, ld) + static_cast<std::size_t>(b)] / expected(i, b) - 1.0));
        CHECK(worst < 1e-6);
    });
}

TEST_CASE("extreme_logits_give_finite_losses") {
    const Index n = 3, ld = 16;
    const float columns[4][3] = {
        {1e30f, -1e30f, 0.0f}, {-3e38f, -3e38f, -3e38f}, {88.0f, 89.0f, 200.0f}, {-200.0f, -300.0f, -1e5f}};
    Buffer<float> z(cells(n, ld), 0.0f), t(cells(n, ld), 0.0f);
    for (Index b = 0; b < 4; ++b)
        for (Index i = 0; i < n; ++i) z[cells(i, ld) + static_cast<std::size_t>(b)] = columns[b][i];
    const std::vector<std::int32_t> y = {0, 2, 0, 1};
    const Matrix wide = ref::from_padded(z.data(), n, 4, ld);
    Matrix delta_expected(n, 4);
    const LossSum expected = ref::softmax_cross_entropy(wide, y, 1.0, delta_expected);
    for_each_isa([&](Isa) {
        Buffer<float> delta(cells(n, ld));
        const LossSum got = softmax_cross_entropy(z.data(), y.data(), n, 4, ld, 1.0f, delta.data(), 1);
        CHECK(got.loss == doctest::Approx(expected.loss).epsilon(1e-6));
        CHECK(got.correct == 1);  // the three equal outputs of column 1 count for the first of them
        CHECK(largest_error(delta.data(), delta_expected, ld) < 1e-6);
        Buffer<float> last_two(cells(n, ld), 0.0f);
        for (Index i = 0; i < n; ++i)
            for (std::size_t b = 0; b < 2; ++b) last_two[cells(i, ld) + b] = z[cells(i, ld) + 2 + b];
        const LossSum binary = binary_cross_entropy(last_two.data(), t.data(), n, 2, ld, 1.0f, delta.data(), 1);
        CHECK(binary.loss == doctest::Approx((88.0 + 89.0 + 200.0) / 3.0));
        CHECK(binary.correct == 1);
    });
}

TEST_CASE("confident_binary_losses_keep_their_relative_precision") {
    const Index ld = 16;
    Buffer<float> z(16), t(16, 1.0f);
    for (Index b = 0; b < 16; ++b) z[static_cast<std::size_t>(b)] = 5.0f * static_cast<float>(b);
    for_each_isa([&](Isa) {
        for (Index b = 0; b < 16; ++b) {
            Buffer<float> one(16, z[static_cast<std::size_t>(b)]);
            const LossSum got = binary_cross_entropy(one.data(), t.data(), 1, 1, ld, 1.0f, nullptr, 1);
            CHECK(got.loss == doctest::Approx(std::log1p(std::exp(-5.0 * b))).epsilon(1e-6));
        }
    });
}

TEST_CASE("ties_for_the_largest_output_go_to_the_lowest_index") {
    const Index n = 4, ld = 16;
    Buffer<float> z(cells(n, ld), 1.0f);
    const std::vector<std::int32_t> y = {0, 1, 2, 3};
    for_each_isa(
        [&](Isa) { CHECK(softmax_cross_entropy(z.data(), y.data(), n, 4, ld, 1.0f, nullptr, 1).correct == 1); });
}

TEST_CASE("nan_makes_its_sample_nan_and_wrong_and_no_other") {
    const Index n = 5, batch = 20, ld = 32;
    for (Index bad : {0, 2, 4})
        for_each_isa([&](Isa) {
            Buffer<float> z(cells(n, ld), 0.0f), t(cells(n, ld), 0.0f), delta(cells(n, ld));
            const std::vector<std::int32_t> y(20, 0);
            z[cells(bad, ld) + 17] = std::nanf("");
            const LossSum soft = softmax_cross_entropy(z.data(), y.data(), n, batch, ld, 1.0f, delta.data(), 2);
            CHECK(std::isnan(soft.loss));
            CHECK(soft.correct == batch - 1);
            for (Index b = 0; b < batch; ++b)
                for (Index i = 0; i < n; ++i)
                    CHECK(std::isnan(delta[cells(i, ld) + static_cast<std::size_t>(b)]) == (b == 17));
            const LossSum binary = binary_cross_entropy(z.data(), t.data(), n, batch, ld, 1.0f, delta.data(), 2);
            CHECK(std::isnan(binary.loss));
            CHECK(binary.correct == batch - 1);
            CHECK(std::isnan(mean_squared_error(z.data(), t.data(), n, batch, ld, 1.0f, delta.data(), 2).loss));
        });
}
