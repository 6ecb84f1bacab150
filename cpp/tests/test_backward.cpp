// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/backward.hpp"

#include <doctest/doctest.h>

#include "kernels.hpp"

using namespace trulysparse;
using namespace testing;

namespace {

using Mode = GradientSink::Mode;

std::vector<std::uint16_t> random_plane(std::size_t words, unsigned seed) {
    std::mt19937 generator(seed);
    std::vector<std::uint16_t> plane(words);
    for (std::uint16_t& word : plane) word = static_cast<std::uint16_t>(generator());
    return plane;
}

template <class Offset>
struct BackwardCase {
    Layer<Offset> layer;
    Index batch, ld;
    std::vector<float> weights;
    Buffer<float> x, dy;
    std::vector<std::uint16_t> negative, kept;
    WorkPlan plan;

    BackwardCase(Layer<Offset> l, Index b)
        : layer(std::move(l)),
          batch(b),
          ld(padded(b)),
          weights(random_floats(layer.nnz(), 21)),
          x(padded_floats(layer.rows, b, ld, 22, 3.0f)),
          dy(padded_floats(layer.cols, b, ld, 23)),
          negative(random_plane(cells(layer.rows, ld / 16), 24)),
          kept(random_plane(cells(layer.rows, ld / 16), 25)),
          plan(plan_work(layer.row_ptr.data(), layer.rows)) {}

    BackwardArgs<Offset> args(float* w, float* dx, float* gradient) const {
        BackwardArgs<Offset> a;
        a.n_in = layer.rows;
        a.n_out = layer.cols;
        a.row_ptr = layer.row_ptr.data();
        a.col_idx = layer.col_idx.data();
        a.weights = w;
        a.dy = dy.data();
        a.x = x.data();
        a.dx = dx;
        a.ld = ld;
        a.sink.mode = Mode::store;
        a.sink.gradient = gradient;
        return a;
    }
    BackwardArgs<Offset> below(BackwardArgs<Offset> a, Activation activation, float scale, bool dropout) const {
        a.below = activation;
        a.below_dropout_scale = scale;
        // The kernel only reads them.
        a.below_bits.negative = const_cast<std::uint16_t*>(negative.data());
        a.below_bits.kept = dropout ? const_cast<std::uint16_t*>(kept.data()) : nullptr;
        return a;
    }
    Buffer<float> output() const { return Buffer<float>(cells(layer.rows, ld), -77.0f); }

    Matrix expected_dx(Activation activation, float scale, bool dropout) const {
        Matrix dx =
            ref::input_gradient(layer.view(), weights.data(), ref::from_padded(dy.data(), layer.cols, batch, ld));
        for (Index i = 0; i < layer.rows; ++i)
            for (Index b = 0; b < batch; ++b) {
                const double a = x[cells(i, ld) + static_cast<std::size_t>(b)] / static_cast<double>(scale);
                double slope = 1.0;
                if (activation.kind == ActivationKind::rectifier)
                    slope = bit(negative, i, b, ld) ? activation.slope : 1.0;
                if (activation.kind == ActivationKind::sigmoid) slope = a * (1.0 - a);
                if (activation.kind == ActivationKind::tanh) slope = 1.0 - a * a;
                dx(i, b) *= slope;
                if (dropout) dx(i, b) = bit(kept, i, b, ld) ? dx(i, b) * static_cast<double>(scale) : 0.0;
            }
        return dx;
    }
    std::vector<double> expected_dw() const {
        return ref::weight_gradient(layer.view(), ref::from_padded(dy.data(), layer.cols, batch, ld),
                                    ref::from_padded(x.data(), layer.rows, batch, ld));
    }
};

std::vector<double> sums_of_rows(const Matrix& m) {
    std::vector<double> sums(static_cast<std::size_t>(m.rows));
    for (Index r = 0; r < m.rows; ++r)
        for (Index b = 0; b < m.cols; ++b) sums[static_cast<std::size_t>(r)] += m(r, b);
    return sums;
}

template <class Offset>
void check_against_oracle(const std::vector<Index>& batches) {
    for (auto& layer : holdable_layers<Offset>())
        for (Index batch : batches) {
            BackwardCase<Offset> c(layer, batch);
            INFO("layer: " << c.layer.name << ", batch " << batch);
            const Activation rectifier{ActivationKind::rectifier, -0.6f};
            const Matrix plain = c.expected_dx({}, 1.0f, false), full = c.expected_dx(rectifier, 1.5f, true);
            const std::vector<double> dw = c.expected_dw(), row_sum = sums_of_rows(full);
            for_each_isa([&](Isa) {
                Buffer<float> first_dx, first_gradient, first_sums;
                for (int threads : kThreads) {
                    Buffer<float> dx = c.output(), gradient(c.layer.nnz(), -77.0f),
                                  sums(static_cast<std::size_t>(c.layer.rows), -77.0f);
                    BackwardArgs<Offset> a = c.args(c.weights.data(), dx.data(), gradient.data());
                    backward(a, c.plan, threads);
                    CHECK(largest_error(dx.data(), plain, c.ld) < 1e-4);
                    CHECK(largest_error(gradient.data(), dw) < 1e-5);
                    CHECK(padding_is_zero(dx, c.layer.rows, batch, c.ld));

                    a = c.below(a, rectifier, 1.5f, true);
                    a.dx_row_sum = sums.data();
                    backward(a, c.plan, threads);
                    CHECK(largest_error(dx.data(), full, c.ld) < 1e-4);
                    CHECK(largest_error(sums.data(), row_sum) < 1e-4);
                    CHECK(padding_is_zero(dx, c.layer.rows, batch, c.ld));
                    if (threads == 1) {
                        first_dx = std::move(dx);
                        first_gradient = std::move(gradient);
                        first_sums = std::move(sums);
                    } else {
                        CHECK(same_bits(dx, first_dx));
                        CHECK(same_bits(gradient, first_gradient));
                        CHECK(same_bits(sums, first_sums));
                    }
                }
            });
        }
}

}  // namespace

TEST_CASE("backward_equals_the_oracle_on_every_isa_and_thread_count") {
    SUBCASE("int8") { check_against_oracle<std::int8_t>({5, 37}); }
    SUBCASE("int16") { check_against_oracle<std::int16_t>({5, 37}); }
    SUBCASE("int32") { check_against_oracle<std::int32_t>(kBatches); }
    SUBCASE("int64") { check_against_oracle<std::int64_t>({5, 37}); }
}

// float32 is held against the oracle above; what bfloat16 adds is exact: widened going in, rounded once going out.
TEST_CASE("backward_in_bfloat16_equals_float32_on_widened_inputs_rounded_at_the_end") {
    const Activation kinds[] = {{ActivationKind::rectifier, -0.6f}, {ActivationKind::sigmoid, 0.0f}};
    for (auto& layer : holdable_layers<std::int32_t>())
        for (Index batch : {16, 37, 200})
            for (const Activation& kind : kinds) {
                BackwardCase<std::int32_t> c(layer, batch);
                INFO("layer: " << c.layer.name << ", batch " << batch);
                const Buffer<Bf16> stored_x = to_bf16(c.x), stored_dy = to_bf16(c.dy);
                c.x = to_float(stored_x);
                c.dy = to_float(stored_dy);
                const Matrix oracle = c.expected_dx(kind, 1.25f, true);
                const std::vector<double> dw = c.expected_dw();
                for_each_isa([&](Isa) {
                    const std::size_t rows = static_cast<std::size_t>(c.layer.rows);
                    Buffer<float> expected = c.output(), expected_gradient(c.layer.nnz()), expected_sums(rows);
                    auto a =
                        c.below(c.args(c.weights.data(), expected.data(), expected_gradient.data()), kind, 1.25f, true);
                    a.dx_row_sum = expected_sums.data();
                    backward(a, c.plan, 1);
                    CHECK(largest_error(expected.data(), oracle, c.ld) < 1e-4);
                    CHECK(largest_error(expected_gradient.data(), dw) < 1e-5);
                    for (int threads : kThreads)
                        for (bool narrow_dy : {false, true})
                            for (bool narrow_x : {false, true}) {
                                Buffer<float> wide = c.output(), gradient(c.layer.nnz()), sums(rows);
                                Buffer<Bf16> apart = to_bf16(wide), in_place = to_bf16(c.x);
                                a.dy = narrow_dy ? ConstRows(stored_dy.data()) : ConstRows(c.dy.data());
                                a.x = narrow_x ? ConstRows(stored_x.data()) : ConstRows(c.x.data());
                                a.sink.gradient = gradient.data();
                                a.dx_row_sum = sums.data();
                                a.dx = wide.data();
                                backward(a, c.plan, threads);
                                CHECK(same_bits(wide, expected));
                                CHECK(same_bits(gradient, expected_gradient));
                                a.dx = apart.data();
                                backward(a, c.plan, threads);
                                CHECK(same_bits(apart, to_bf16(expected)));
                                CHECK(same_bits(sums, expected_sums));
                                a.x = in_place.data();
                                a.dx = in_place.data();
                                backward(a, c.plan, threads);
                                CHECK(same_bits(in_place, to_bf16(expected)));
                                CHECK(same_bits(gradient, expected_gradient));
                                CHECK(same_bits(sums, expected_sums));
                            }
                });
            }
}

TEST_CASE("delta_may_overwrite_the_activation_it_belongs_to") {
    const Activation kinds[] = {{ActivationKind::linear, 0.0f},
                                {ActivationKind::rectifier, 0.01f},
                                {ActivationKind::sigmoid, 0.0f},
                                {ActivationKind::tanh, 0.0f}};
    for (auto& layer : holdable_layers<std::int32_t>())
        for (Index batch : {37, 200})
            for (const Activation& kind : kinds)
                for_each_isa([&](Isa) {
                    BackwardCase<std::int32_t> c(layer, batch);
                    Buffer<float> apart = c.output(), gradient(c.layer.nnz()), gradient_apart(c.layer.nnz());
                    Buffer<float> sums(static_cast<std::size_t>(c.layer.rows)),
                        sums_apart(static_cast<std::size_t>(c.layer.rows));
                    auto a = c.below(c.args(c.weights.data(), apart.data(), gradient_apart.data()), kind, 1.25f, true);
                    a.dx_row_sum = sums_apart.data();
                    backward(a, c.plan, 2);
                    CHECK(largest_error(apart.data(), c.expected_dx(kind, 1.25f, true), c.ld) < 1e-4);
                    CHECK(padding_is_zero(apart, c.layer.rows, batch, c.ld));
                    a.dx = c.x.data();
                    a.sink.gradient = gradient.data();
                    a.dx_row_sum = sums.data();
                    backward(a, c.plan, 2);
                    CHECK(same_bits(c.x, apart));
                    CHECK(same_bits(gradient, gradient_apart));
                    CHECK(same_bits(sums, sums_apart));
                });
}

// The oracle works on z; the kernel sees only what a forward pass leaves of it: a = dropout(f(z)) and two bits.
TEST_CASE("slope_gradient_equals_the_oracle_with_the_same_bits_on_any_threads") {
    for (auto& layer : holdable_layers<std::int32_t>())
        for (Index batch : {1, 16, 37, 200})
            for (float slope : {-0.6f, 1.0f / 64.0f})
                for (bool dropout : {false, true}) {
                    BackwardCase<std::int32_t> c(layer, batch);
                    INFO("layer: " << c.layer.name << ", batch " << batch << ", slope " << slope << ", dropout "
                                   << dropout);
                    const double scale = dropout ? 1.5 : 1.0;
                    const Matrix dy = ref::from_padded(c.dy.data(), c.layer.cols, batch, c.ld);
                    const Matrix d = ref::input_gradient(c.layer.view(), c.weights.data(), dy);
                    double expected = 0.0, size = 1e-30;
                    for (Index i = 0; i < c.layer.rows; ++i)
                        for (Index b = 0; b < batch; ++b) {
                            float& x = c.x[cells(i, c.ld) + static_cast<std::size_t>(b)];
                            const double z = static_cast<double>(x);
                            const bool dropped = dropout && !bit(c.kept, i, b, c.ld), negative = z < 0.0;
                            std::uint16_t& word = c.negative[cells(i, c.ld / 16) + static_cast<std::size_t>(b / 16)];
                            const auto one = static_cast<std::uint16_t>(1u << (b % 16));
                            word = static_cast<std::uint16_t>(negative ? word | one : word & ~one);
                            x = static_cast<float>(dropped ? 0.0 : scale * (negative ? slope * z : z));
                            if (dropped || !negative) continue;
                            expected += scale * d(i, b) * z;
                            size += std::fabs(scale * d(i, b) * z);
                        }
                    const Activation rectifier{ActivationKind::rectifier, slope};
                    for_each_isa([&](Isa) {
                        Buffer<float> first;
                        for (int threads : kThreads) {
                            Buffer<float> dx = c.output(), gradient(c.layer.nnz()), own(1, -77.0f),
                                          in_place = copy(c.x);
                            auto a = c.below(c.args(c.weights.data(), dx.data(), gradient.data()), rectifier,
                                             static_cast<float>(scale), dropout);
                            a.below_slope_gradient = own.data();
                            backward(a, c.plan, threads);
                            CHECK(std::fabs(own[0] - expected) < 1e-5 * size);
                            if (threads == 1) first = copy(own);
                            CHECK(same_bits(own, first));

                            a.x = in_place.data();  // as training does
                            a.dx = in_place.data();
                            backward(a, c.plan, threads);
                            CHECK(same_bits(own, first));
                            CHECK(same_bits(in_place, dx));
                            a.x = c.x.data();
                            a.dx = dx.data();
                            a.sink.mode = Mode::none;
                            own[0] = -77.0f;
                            backward(a, c.plan, threads);
                            CHECK(same_bits(own, first));
                        }
                        // bfloat16: the sum of what is stored
                        Buffer<Bf16> narrow = to_bf16(c.x);
                        Buffer<float> wide = to_float(narrow), dx = c.output(), gradient(c.layer.nnz());
                        Buffer<float> own(1, -77.0f), same(1, -77.0f);
                        auto a = c.below(c.args(c.weights.data(), dx.data(), gradient.data()), rectifier,
                                         static_cast<float>(scale), dropout);
                        a.below_slope_gradient = own.data();
                        a.x = wide.data();
                        backward(a, c.plan, 2);
                        a.below_slope_gradient = same.data();
                        a.x = narrow.data();
                        a.dx = narrow.data();
                        backward(a, c.plan, 2);
                        CHECK(same_bits(own, same));
                    });
                }
}

TEST_CASE("gradients_do_not_depend_on_whether_delta_is_wanted") {
    for (auto& layer : holdable_layers<std::int64_t>()) {
        BackwardCase<std::int64_t> c(layer, 200);
        for_each_isa([&](Isa) {
            Buffer<float> dx = c.output(), only_dx = c.output(), gradient(c.layer.nnz()), only_gradient(c.layer.nnz());
            auto a = c.args(c.weights.data(), dx.data(), gradient.data());
            backward(a, c.plan, 2);
            a.dx = nullptr;
            a.sink.gradient = only_gradient.data();
            backward(a, c.plan, 2);
            CHECK(same_bits(gradient, only_gradient));
            a.dx = only_dx.data();
            a.sink.mode = Mode::none;
            a.sink.gradient = nullptr;
            backward(a, c.plan, 2);
            CHECK(same_bits(dx, only_dx));
        });
    }
}

TEST_CASE("accumulate_adds_the_gradient_to_what_is_there") {
    for (auto& layer : holdable_layers<std::int32_t>()) {
        BackwardCase<std::int32_t> c(layer, 37);
        const std::vector<double> dw = c.expected_dw();
        for_each_isa([&](Isa) {
            Buffer<float> dx = c.output(), gradient(c.layer.nnz(), 2.0f);
            auto a = c.args(c.weights.data(), dx.data(), gradient.data());
            a.sink.mode = Mode::accumulate;
            backward(a, c.plan, 7);
            std::vector<double> expected = dw;
            for (double& g : expected) g += 2.0;
            CHECK(largest_error(gradient.data(), expected) < 1e-5);
        });
    }
}

TEST_CASE("sgd_inside_the_pass_equals_sgd_after_it_bit_for_bit") {
    struct Variant {
        Decay form;
        bool nesterov;
    };
    const Variant variants[] = {{Decay::paper, false}, {Decay::l2, false}, {Decay::paper, true}, {Decay::l2, true}};
    for (auto& layer : holdable_layers<std::int32_t>())
        for (const Variant& variant : variants)
            for_each_isa([&](Isa) {
                BackwardCase<std::int32_t> c(layer, 200);
                SgdParams p;
                p.decay = 2e-4f;
                p.form = variant.form;
                p.nesterov = variant.nesterov;
                const std::size_t n = c.layer.nnz();
                std::vector<float> after = c.weights, velocity_after = random_floats(n, 26);
                Buffer<float> dx = c.output(), dx_after = c.output(), gradient(n);
                auto a = c.args(after.data(), dx_after.data(), gradient.data());
                backward(a, c.plan, 1);
                sgd_step(after.data(), velocity_after.data(), gradient.data(), n, p, 1);
                for (int threads : kThreads) {
                    std::vector<float> inside = c.weights, velocity = random_floats(n, 26);
                    a = c.args(inside.data(), dx.data(), nullptr);
                    a.sink.mode = Mode::sgd;
                    a.sink.velocity = velocity.data();
                    a.sink.sgd = p;
                    backward(a, c.plan, threads);
                    CHECK(same_bits(inside, after));
                    CHECK(same_bits(velocity, velocity_after));
                    CHECK(same_bits(dx, dx_after));
                }
            });
}

TEST_CASE("micro_batches_of_sgd_equal_the_whole_batch") {
    for (Decay form : {Decay::paper, Decay::l2})
        for_each_isa([&](Isa) {
            BackwardCase<std::int32_t> c(random_layer<std::int32_t>("several items", 300, 400, 0.1, 5), 128);
            SgdParams p;
            p.decay = 2e-3f;
            p.form = form;
            const std::size_t n = c.layer.nnz();
            std::vector<float> whole = c.weights, whole_velocity = random_floats(n, 27);
            std::vector<float> parts = whole, parts_velocity = whole_velocity;
            auto a = c.args(whole.data(), nullptr, nullptr);
            a.sink.mode = Mode::sgd;
            a.sink.velocity = whole_velocity.data();
            a.sink.sgd = p;
            backward(a, c.plan, 2);
            for (Index begin = 0; begin < 128; begin += 32) {
                Buffer<float> x(cells(300, 32)), dy(cells(400, 32));
                for (Index i = 0; i < 300; ++i)
                    std::memcpy(&x[cells(i, 32)], &c.x[cells(i, 128) + static_cast<std::size_t>(begin)], 128);
                for (Index j = 0; j < 400; ++j)
                    std::memcpy(&dy[cells(j, 32)], &c.dy[cells(j, 128) + static_cast<std::size_t>(begin)], 128);
                a.weights = parts.data();
                a.x = x.data();
                a.dy = dy.data();
                a.ld = 32;
                a.sink.velocity = parts_velocity.data();
                a.sink.sgd.first = begin == 0;
                a.sink.sgd.last = begin == 96;
                backward(a, c.plan, 2);
                CHECK((parts == c.weights) == (begin < 96));  // only the last part moves the weights
            }
            CHECK(largest_error(parts.data(), std::vector<double>(whole.begin(), whole.end())) < 1e-6);
            CHECK(largest_error(parts_velocity.data(),
                                std::vector<double>(whole_velocity.begin(), whole_velocity.end())) < 1e-6);
        });
}

TEST_CASE("backward_passes_nan_on") {
    for (auto& layer : holdable_layers<std::int32_t>()) {
        if (layer.rows < 2 || layer.cols < 2) continue;
        BackwardCase<std::int32_t> c(layer, 37);
        c.x[cells(1, c.ld) + 20] = std::nanf("");
        c.dy[cells(1, c.ld) + 5] = std::nanf("");
        const Matrix dx_expected = c.expected_dx({}, 1.0f, false);
        const std::vector<double> dw = c.expected_dw();
        for_each_isa([&](Isa) {
            Buffer<float> dx = c.output(), gradient(c.layer.nnz());
            backward(c.args(c.weights.data(), dx.data(), gradient.data()), c.plan, 2);
            CHECK(largest_error(dx.data(), dx_expected, c.ld) < 1e-4);
            CHECK(largest_error(gradient.data(), dw) < 1e-5);
        });
    }
}

TEST_CASE("row_sums_add_up_each_row") {
    for (Index batch : kBatches)
        for (Index rows : {0, 1, 63, 64, 65, 1000}) {
            const Index ld = padded(batch);
            const Buffer<float> delta = padded_floats(rows, batch, ld, 28);
            const std::vector<double> expected = sums_of_rows(ref::from_padded(delta.data(), rows, batch, ld));
            Buffer<float> first;
            for (int threads : kThreads) {
                Buffer<float> sums(static_cast<std::size_t>(rows));
                row_sums(delta.data(), rows, ld, sums.data(), threads);
                CHECK(largest_error(sums.data(), expected) < 1e-5);
                if (threads == 1)
                    first = std::move(sums);
                else
                    CHECK(same_bits(sums, first));
            }
        }
}
