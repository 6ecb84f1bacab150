// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/single.hpp"

#include <doctest/doctest.h>

#include <limits>

#include "kernels.hpp"

using namespace trulysparse;
using namespace testing;

namespace {

template <class Offset>
struct SingleCase {
    Layer<Offset> layer;
    SecondIndex<Offset> index;
    std::vector<float> weights, by_target, bias, x;

    explicit SingleCase(Layer<Offset> l)
        : layer(std::move(l)),
          index(second_index(layer)),
          weights(random_floats(layer.nnz(), 11)),
          by_target(layer.nnz()),
          bias(random_floats(static_cast<std::size_t>(layer.cols), 12)),
          x(random_floats(static_cast<std::size_t>(layer.rows), 13)) {
        gather(index.perm.data(), weights.data(), weights.size(), by_target.data(), 1);
    }
    SingleArgs<Offset> args(float* y = nullptr) const {
        SingleArgs<Offset> a;
        a.n_in = layer.rows;
        a.n_out = layer.cols;
        a.col_ptr = index.col_ptr.data();
        a.row_idx = index.row_idx.data();
        a.weights = by_target.data();
        a.bias = bias.data();
        a.x = x.data();
        a.y = y;
        return a;
    }
    Matrix z() const {
        Matrix column(layer.rows, 1);
        for (Index i = 0; i < layer.rows; ++i) column(i, 0) = static_cast<double>(x[static_cast<std::size_t>(i)]);
        return ref::weighted_sums(layer.view(), weights.data(), bias.data(), column);
    }
};

const Activation kAll[] = {
    {}, {ActivationKind::rectifier, -0.6f}, {ActivationKind::sigmoid, 0.0f}, {ActivationKind::tanh, 0.0f}};

template <class Offset>
void check_against_oracle() {
    for (auto& layer : holdable_layers<Offset>()) {
        const SingleCase<Offset> c(layer);
        INFO("layer: " << c.layer.name);
        const Matrix z = c.z();
        for (const Activation& activation : kAll) {
            const Matrix expected = ref::activations(z, activation, {});
            for_each_isa([&](Isa) {
                Buffer<float> first;
                for (int threads : kThreads) {
                    Buffer<float> y(static_cast<std::size_t>(padded(c.layer.cols)), -77.0f);
                    SingleArgs<Offset> a = c.args(y.data());
                    a.activation = activation;
                    forward_single(a, threads);
                    CHECK(largest_error(y.data(), expected, 1) < 1e-4);
                    if (threads == 1)
                        first = std::move(y);
                    else
                        CHECK(same_bits(y, first));
                }
            });
        }
    }
}

}  // namespace

TEST_CASE("forward_single_equals_the_oracle_on_every_isa_and_thread_count") {
    SUBCASE("int8") { check_against_oracle<std::int8_t>(); }
    SUBCASE("int16") { check_against_oracle<std::int16_t>(); }
    SUBCASE("int32") { check_against_oracle<std::int32_t>(); }
    SUBCASE("int64") { check_against_oracle<std::int64_t>(); }
}

TEST_CASE("forward_single_gives_the_same_bits_for_any_thread_count_on_a_large_layer") {
    const SingleCase<std::int32_t> c(large_layer<std::int32_t>(3));
    Buffer<float> first;
    for (int threads : kThreads) {
        Buffer<float> y(static_cast<std::size_t>(padded(c.layer.cols)));
        forward_single(c.args(y.data()), threads);
        if (threads == 1) {
            CHECK(largest_error(y.data(), c.z(), 1) < 1e-4);
            first = std::move(y);
        } else {
            CHECK(same_bits(y, first));
        }
    }
}

TEST_CASE("gather_brings_values_into_target_order") {
    for (auto& layer : all_layers<std::int64_t>()) {
        const SecondIndex<std::int64_t> index = second_index(layer);
        const std::vector<float> values = random_floats(layer.nnz(), 5);
        for (int threads : kThreads) {
            std::vector<float> out(values.size(), -77.0f);
            gather(index.perm.data(), values.data(), values.size(), out.data(), threads);
            bool all = true;
            for (std::size_t k = 0; k < out.size(); ++k)
                all = all && out[k] == values[static_cast<std::size_t>(index.perm[k])];
            CHECK(all);
        }
    }
}

TEST_CASE("infer_standardises_each_sample_and_runs_all_layers") {
    const SingleCase<std::int32_t> first(random_layer<std::int32_t>("first", 30, 21, 0.3, 1));
    const SingleCase<std::int64_t> second(random_layer<std::int64_t>("second", 21, 5, 0.4, 2));
    SingleArgs<std::int32_t> lower = first.args();
    lower.activation = {ActivationKind::rectifier, 0.1f};
    const std::vector<SingleLayer> layers = {lower, second.args()};
    const Index count = 3;
    std::vector<float> samples = random_floats(90, 7, -3.0f, 3.0f);
    const std::vector<float> shift = random_floats(30, 8), factor = random_floats(30, 9, 0.1f, 2.0f);
    for (bool scaled : {false, true}) {
        Matrix x(30, count);
        for (Index s = 0; s < count; ++s)
            for (Index f = 0; f < 30; ++f) {
                const std::size_t at = static_cast<std::size_t>(f);
                const double value = static_cast<double>(samples[static_cast<std::size_t>(s) * 30 + at]);
                x(f, s) = scaled ? (value - static_cast<double>(shift[at])) * static_cast<double>(factor[at]) : value;
            }
        const Matrix hidden = ref::activations(
            ref::weighted_sums(first.layer.view(), first.weights.data(), first.bias.data(), x), lower.activation, {});
        const Matrix expected =
            ref::weighted_sums(second.layer.view(), second.weights.data(), second.bias.data(), hidden);
        std::vector<float> out(15, -77.0f);
        CHECK(infer(layers, samples.data(), count, scaled ? shift.data() : nullptr, scaled ? factor.data() : nullptr,
                    out.data(), 1));
        for (Index s = 0; s < count; ++s)
            for (Index j = 0; j < 5; ++j)
                CHECK(error_of(static_cast<double>(out[static_cast<std::size_t>(s * 5 + j)]), expected(j, s)) < 1e-4);
    }
}

TEST_CASE("infer_refuses_samples_that_are_not_finite_and_takes_the_largest_that_are") {
    const SingleCase<std::int32_t> c(random_layer<std::int32_t>("layer", 300, 2, 0.01, 1));
    const std::vector<SingleLayer> layers = {c.args()};
    std::vector<float> out(2);
    for (float bad : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
                      std::numeric_limits<float>::quiet_NaN()}) {
        std::vector<float> sample(300, 1.0f);
        sample[299] = bad;
        CHECK(!infer(layers, sample.data(), 1, nullptr, nullptr, out.data(), 1));
    }
    const std::vector<float> largest(300, std::numeric_limits<float>::max());
    CHECK(infer(layers, largest.data(), 1, nullptr, nullptr, out.data(), 1));
}
