// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/activation.hpp"

#include <doctest/doctest.h>

#include "isa/table.hpp"
#include "kernels.hpp"
#include "trulysparse/spmm.hpp"

using namespace trulysparse;
using namespace testing;

namespace {

// f(z) for every z, through a layer of one connection of weight 1 from each source.
std::vector<float> apply(const std::vector<float>& z, const Activation& activation,
                         std::vector<std::uint16_t>* negative) {
    const Index ld = padded(static_cast<Index>(z.size()));
    Buffer<float> x(static_cast<std::size_t>(ld), 0.0f), y(static_cast<std::size_t>(ld));
    for (std::size_t k = 0; k < z.size(); ++k) x[k] = z[k];
    const std::int32_t col_ptr[] = {0, 1};
    const Index row_idx[] = {0};
    const float weight = 1.0f, bias = 0.0f;
    ForwardArgs<std::int32_t> a;
    a.n_in = a.n_out = 1;
    a.col_ptr = col_ptr;
    a.row_idx = row_idx;
    a.weights = &weight;
    a.bias = &bias;
    a.x = x.data();
    a.y = y.data();
    a.ld = ld;
    a.activation = activation;
    if (negative) {
        negative->assign(static_cast<std::size_t>(ld / 16), 0);
        a.bits.negative = negative->data();
    }
    forward(a, plan_work(col_ptr, 1), 1);
    return std::vector<float>(y.begin(), y.begin() + z.size());
}

double relative_error(float got, double expected) { return std::fabs(got - expected) / std::fabs(expected); }

}  // namespace

TEST_CASE("rectifier_keeps_positive_values_and_scales_the_others") {
    const float nan = std::nanf(""), infinity = std::numeric_limits<float>::infinity();
    const std::vector<float> z = {1.5f, -1.5f, 0.0f, -0.0f, infinity, -infinity, nan, 1e-30f, -1e-30f};
    for_each_isa([&](Isa) {
        std::vector<std::uint16_t> negative;
        const std::vector<float> y = apply(z, {ActivationKind::rectifier, -0.6f}, &negative);
        CHECK(y[0] == 1.5f);
        CHECK(y[1] == -0.6f * -1.5f);
        CHECK(y[2] == 0.0f);
        CHECK(y[3] == 0.0f);
        CHECK(y[4] == infinity);
        CHECK(y[5] == infinity);
        CHECK(std::isnan(y[6]));
        CHECK(y[7] == 1e-30f);
        CHECK(y[8] == -0.6f * -1e-30f);
        CHECK(negative[0] == (1 << 1 | 1 << 5 | 1 << 8));  // neither zero nor NaN is negative
    });
}

TEST_CASE("sigmoid_and_tanh_are_within_a_few_ulp_everywhere") {
    std::vector<float> z;
    for (int k = -9000; k <= 9000; ++k) z.push_back(static_cast<float>(k) * 0.0091f);
    for (float tiny = 1.0f; tiny > 1e-30f; tiny *= 0.37f) {
        z.push_back(tiny);
        z.push_back(-tiny);
    }
    for_each_isa([&](Isa) {
        const std::vector<float> s = apply(z, {ActivationKind::sigmoid, 0.0f}, nullptr);
        const std::vector<float> t = apply(z, {ActivationKind::tanh, 0.0f}, nullptr);
        double worst_sigmoid = 0.0, worst_tanh = 0.0;
        for (std::size_t k = 0; k < z.size(); ++k) {
            const double a = z[k];
            worst_sigmoid = std::fmax(worst_sigmoid, relative_error(s[k], 1.0 / (1.0 + std::exp(-a))));
            if (a != 0.0) worst_tanh = std::fmax(worst_tanh, relative_error(t[k], std::tanh(a)));
        }
        CHECK(worst_sigmoid < 5e-7);
        CHECK(worst_tanh < 5e-7);
    });
}

TEST_CASE("sigmoid_and_tanh_saturate_and_pass_nan") {
    const float infinity = std::numeric_limits<float>::infinity();
    const std::vector<float> z = {infinity, -infinity, 1e30f, -1e30f, std::nanf(""), 0.0f};
    for_each_isa([&](Isa) {
        const std::vector<float> s = apply(z, {ActivationKind::sigmoid, 0.0f}, nullptr);
        const std::vector<float> t = apply(z, {ActivationKind::tanh, 0.0f}, nullptr);
        CHECK(s[0] == 1.0f);
        CHECK(s[1] == 0.0f);
        CHECK(s[2] == 1.0f);
        CHECK(s[3] == 0.0f);
        CHECK(std::isnan(s[4]));
        CHECK(s[5] == 0.5f);
        CHECK(t[0] == 1.0f);
        CHECK(t[1] == -1.0f);
        CHECK(t[2] == 1.0f);
        CHECK(t[3] == -1.0f);
        CHECK(std::isnan(t[4]));
        CHECK(t[5] == 0.0f);
    });
}

TEST_CASE("dropout_keeps_the_expected_share_and_its_scale_undoes_it") {
    const Dropout dropout{19661, {5, Purpose::dropout, 1, 0}, 0};  // 30 %
    int kept = 0;
    for (Index neuron = 0; neuron < 100; ++neuron)
        for (Index column = 0; column < 400; ++column) kept += ref::is_kept(dropout, neuron, column);
    CHECK(kept / 40000.0 == doctest::Approx(0.7).epsilon(0.02));
    CHECK(dropout.scale() == doctest::Approx(1.0 / 0.7).epsilon(1e-4));
}

namespace {

// One row through a connection of weight 1, without parallel_for, which would flush denormals.
void copy_row(ConstRows x, Rows y, std::size_t columns) {
    const std::int32_t start[] = {0, 1};
    const Index index[] = {0};
    const float weight = 1.0f;
    ForwardBlock job{};
    job.block = {1, start, index, &weight, nullptr, 1, 0};
    job.ld = static_cast<Index>(columns);
    for (std::size_t column = 0; column < columns; column += 16) {
        job.x = x + column;
        job.y = y + column;
        active_kernels().forward(job, 16);
    }
}

}  // namespace

TEST_CASE("bfloat16_is_rounded_to_nearest_even_and_nan_stays_nan") {
    // Every upper half with what decides its rounding: exact, below, at and above the tie, and at the ends.
    Buffer<float> x(std::size_t{65536} * 8);
    const std::uint32_t lower[] = {0x0000, 0x0001, 0x7fff, 0x8000, 0x8001, 0xc000, 0xfffe, 0xffff};
    for (std::size_t k = 0; k < x.size(); ++k) {
        const std::uint32_t word = static_cast<std::uint32_t>(k / 8) << 16 | lower[k % 8];
        std::memcpy(&x[k], &word, sizeof word);
    }
    Buffer<Bf16> expected(x.size());
    for (std::size_t k = 0; k < x.size(); ++k) expected[k] = ref::to_bf16(x[k] + 0.0f);  // a sum has no -0
    for_each_isa([&](Isa) {
        Buffer<Bf16> y(x.size());
        copy_row(x.data(), y.data(), x.size());
        CHECK(same_bits(y, expected));
    });
}

TEST_CASE("known_values_round_to_known_bfloat16") {
    const float infinity = std::numeric_limits<float>::infinity();
    CHECK(ref::to_bf16(1.0f).bits == 0x3f80);
    CHECK(ref::to_bf16(1.00390625f).bits == 0x3f80);  // halfway, down to even
    CHECK(ref::to_bf16(1.01171875f).bits == 0x3f82);  // halfway, up to even
    CHECK(ref::to_bf16(-1.00390637f).bits == 0xbf81);
    CHECK(ref::to_bf16(std::numeric_limits<float>::max()).bits == 0x7f80);
    CHECK(ref::to_bf16(3.38953139e38f).bits == 0x7f7f);  // the largest
    CHECK(ref::to_bf16(infinity).bits == 0x7f80);
    CHECK(ref::to_bf16(-infinity).bits == 0xff80);
    CHECK(ref::to_bf16(-0.0f).bits == 0x8000);
    CHECK(ref::to_bf16(1e-45f).bits == 0x0000);
    CHECK(ref::to_bf16(9.18354962e-41f).bits == 0x0001);  // the smallest denormal
    CHECK(std::isnan(ref::to_float(ref::to_bf16(std::nanf("")))));
}

TEST_CASE("every_bfloat16_is_read_as_the_float_it_is_the_upper_half_of") {
    Buffer<Bf16> x(65536);
    Buffer<float> expected(x.size());
    for (std::size_t k = 0; k < x.size(); ++k) {
        x[k].bits = static_cast<std::uint16_t>(k);
        expected[k] = ref::to_float(x[k]) + 0.0f;
    }
    for_each_isa([&](Isa) {
        Buffer<float> y(x.size());
        copy_row(x.data(), y.data(), x.size());
        CHECK(same_bits(y, expected));
    });
}
