// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/spmm.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>

#include "kernels.hpp"

using namespace trulysparse;
using namespace testing;

namespace {

constexpr float kUnset = -77.0f;

template <class Offset>
struct ForwardCase {
    Layer<Offset> layer;
    SecondIndex<Offset> index;
    std::vector<float> weights, bias;
    Index batch, ld;
    Buffer<float> x;
    WorkPlan plan;

    ForwardCase(Layer<Offset> l, Index b)
        : layer(std::move(l)),
          index(second_index(layer)),
          weights(random_floats(layer.nnz(), 11)),
          bias(random_floats(static_cast<std::size_t>(layer.cols), 12)),
          batch(b),
          ld(padded(b)),
          x(padded_floats(layer.rows, b, padded(b), 13)),
          plan(plan_work(index.col_ptr.data(), layer.cols)) {}

    ForwardArgs<Offset> args(float* y) const {
        ForwardArgs<Offset> a;
        a.n_in = layer.rows;
        a.n_out = layer.cols;
        a.col_ptr = index.col_ptr.data();
        a.row_idx = index.row_idx.data();
        a.perm = index.perm.data();
        a.weights = weights.data();
        a.bias = bias.data();
        a.x = x.data();
        a.y = y;
        a.ld = ld;
        return a;
    }
    Buffer<float> output() const { return Buffer<float>(cells(layer.cols, ld), kUnset); }
    std::vector<std::uint16_t> plane() const { return std::vector<std::uint16_t>(cells(layer.cols, ld / 16), 0x1234); }
    Matrix z() const {
        return ref::weighted_sums(layer.view(), weights.data(), bias.data(),
                                  ref::from_padded(x.data(), layer.rows, batch, ld));
    }
};

const Dropout kDropout{19661, {0x123456789abcdefull, Purpose::dropout, 3, 41}, 0};

template <class Offset>
void check_against_oracle(const std::vector<Index>& batches) {
    for (auto& layer : holdable_layers<Offset>())
        for (Index batch : batches) {
            const ForwardCase<Offset> c(layer, batch);
            INFO("layer: " << c.layer.name << ", batch " << batch);
            const Matrix z = c.z();
            const Matrix linear = ref::activations(z, {}, {});
            const Activation rectifier{ActivationKind::rectifier, -0.6f};
            const Matrix dropped = ref::activations(z, rectifier, kDropout);
            for_each_isa([&](Isa) {
                Buffer<float> first;
                std::vector<std::uint16_t> first_negative, first_kept;
                for (int threads : kThreads) {
                    Buffer<float> y = c.output();
                    ForwardArgs<Offset> a = c.args(y.data());
                    forward(a, c.plan, threads);
                    CHECK(largest_error(y.data(), linear, c.ld) < 1e-4);

                    std::vector<std::uint16_t> negative = c.plane(), kept = c.plane();
                    a.activation = rectifier;
                    a.dropout = kDropout;
                    a.bits = {negative.data(), kept.data()};
                    forward(a, c.plan, threads);
                    CHECK(largest_error(y.data(), dropped, c.ld) < 1e-4);
                    if (threads == 1) {
                        first = std::move(y);
                        first_negative = negative;
                        first_kept = kept;
                    } else {
                        CHECK(same_bits(y, first));
                        CHECK(negative == first_negative);
                        CHECK(kept == first_kept);
                    }
                }
                bool signs = true, masks = true;
                for (Index j = 0; j < c.layer.cols; ++j)
                    for (Index b = 0; b < batch; ++b) {
                        if (std::fabs(z(j, b)) > 1e-4)
                            signs = signs && bit(first_negative, j, b, c.ld) == (z(j, b) < 0);
                        masks = masks && bit(first_kept, j, b, c.ld) == ref::is_kept(kDropout, j, b);
                    }
                CHECK(signs);
                CHECK(masks);
            });
        }
}

}  // namespace

TEST_CASE("forward_equals_the_oracle_on_every_isa_and_thread_count") {
    SUBCASE("int8") { check_against_oracle<std::int8_t>({5, 37}); }
    SUBCASE("int16") { check_against_oracle<std::int16_t>({5, 37}); }
    SUBCASE("int32") { check_against_oracle<std::int32_t>(kBatches); }
    SUBCASE("int64") { check_against_oracle<std::int64_t>({5, 37}); }
}

// float32 is held against the oracle above; what bfloat16 adds is exact: widened going in, rounded once going out.
TEST_CASE("forward_in_bfloat16_equals_float32_on_widened_inputs_rounded_at_the_end") {
    const Activation kinds[] = {{ActivationKind::rectifier, -0.6f}, {ActivationKind::tanh, 0.0f}};
    for (auto& layer : holdable_layers<std::int32_t>())
        for (Index batch : kBatches)
            for (const Activation& kind : kinds) {
                ForwardCase<std::int32_t> c(layer, batch);
                INFO("layer: " << c.layer.name << ", batch " << batch);
                const Buffer<Bf16> stored = to_bf16(c.x);
                c.x = to_float(stored);
                const Matrix oracle =
                    ref::activations(ref::weighted_sums(c.layer.view(), c.weights.data(), c.bias.data(),
                                                        ref::from_padded(stored.data(), c.layer.rows, batch, c.ld)),
                                     kind, kDropout);
                for_each_isa([&](Isa) {
                    Buffer<float> expected = c.output();
                    std::vector<std::uint16_t> expected_negative = c.plane(), expected_kept = c.plane();
                    ForwardArgs<std::int32_t> a = c.args(expected.data());
                    a.activation = kind;
                    a.dropout = kDropout;
                    a.bits = {expected_negative.data(), expected_kept.data()};
                    forward(a, c.plan, 1);
                    CHECK(largest_error(expected.data(), oracle, c.ld) < 1e-4);
                    for (int threads : kThreads)
                        for (bool narrow_in : {false, true}) {
                            Buffer<float> wide = c.output();
                            Buffer<Bf16> narrow = to_bf16(wide);
                            std::vector<std::uint16_t> negative = c.plane(), kept = c.plane();
                            if (narrow_in) a.x = stored.data();
                            a.bits = {negative.data(), kept.data()};
                            a.y = wide.data();
                            forward(a, c.plan, threads);
                            CHECK(same_bits(wide, expected));
                            a.y = narrow.data();
                            forward(a, c.plan, threads);
                            CHECK(same_bits(narrow, to_bf16(expected)));
                            CHECK(negative == expected_negative);
                            CHECK(kept == expected_kept);
                            a.x = c.x.data();
                        }
                });
            }
}

TEST_CASE("forward_gives_the_same_bits_with_weights_in_target_order") {
    for (auto& layer : holdable_layers<std::int32_t>()) {
        const ForwardCase<std::int32_t> c(layer, 37);
        std::vector<float> by_target;
        for (std::int32_t k : c.index.perm) by_target.push_back(c.weights[static_cast<std::size_t>(k)]);
        for_each_isa([&](Isa) {
            Buffer<float> with_perm = c.output(), without = c.output();
            forward(c.args(with_perm.data()), c.plan, 2);
            ForwardArgs<std::int32_t> a = c.args(without.data());
            a.perm = nullptr;
            a.weights = by_target.data();
            forward(a, c.plan, 2);
            CHECK(same_bits(with_perm, without));
        });
    }
}

TEST_CASE("forward_of_a_sample_does_not_depend_on_the_batch_around_it") {
    const ForwardCase<std::int32_t> whole(random_layer<std::int32_t>("several items", 300, 400, 0.1, 5), 200);
    for_each_isa([&](Isa) {
        Buffer<float> y = whole.output();
        std::vector<std::uint16_t> kept = whole.plane();
        ForwardArgs<std::int32_t> a = whole.args(y.data());
        a.activation = {ActivationKind::sigmoid, 0.0f};
        a.dropout = kDropout;
        a.bits.kept = kept.data();
        forward(a, whole.plan, 2);
        for (Index begin = 0, width = 16; begin < 200; begin += width, width = 48) {
            const Index ld = padded(std::min<Index>(width, 200 - begin));
            Buffer<float> x(cells(300, ld)), part(cells(400, ld));
            for (Index i = 0; i < 300; ++i)
                for (Index b = 0; b < ld; ++b)
                    x[cells(i, ld) + static_cast<std::size_t>(b)] =
                        whole.x[cells(i, whole.ld) + static_cast<std::size_t>(begin + b)];
            std::vector<std::uint16_t> part_kept(cells(400, ld / 16));
            a.x = x.data();
            a.y = part.data();
            a.ld = ld;
            a.bits.kept = part_kept.data();
            a.dropout.column_offset = begin;
            forward(a, whole.plan, 1);
            bool same = true, same_mask = true;
            for (Index j = 0; j < 400; ++j)
                for (Index b = 0; b < ld; ++b) {
                    same = same && std::memcmp(&part[cells(j, ld) + static_cast<std::size_t>(b)],
                                               &y[cells(j, whole.ld) + static_cast<std::size_t>(begin + b)],
                                               sizeof(float)) == 0;
                    same_mask = same_mask && bit(part_kept, j, b, ld) == bit(kept, j, begin + b, whole.ld);
                }
            CHECK(same);
            CHECK(same_mask);
        }
    });
}

TEST_CASE("dropout_masks_are_the_same_whether_or_not_they_are_stored") {
    const ForwardCase<std::int32_t> c(random_layer<std::int32_t>("several items", 300, 400, 0.1, 5), 200);
    for_each_isa([&](Isa) {
        Buffer<float> stored = c.output(), unstored = c.output();
        std::vector<std::uint16_t> kept = c.plane();
        ForwardArgs<std::int32_t> a = c.args(stored.data());
        a.dropout = kDropout;
        a.bits.kept = kept.data();
        forward(a, c.plan, 2);
        a.y = unstored.data();
        a.bits.kept = nullptr;
        forward(a, c.plan, 2);
        CHECK(same_bits(stored, unstored));
    });
}

TEST_CASE("forward_passes_nan_on_to_exactly_the_targets_of_its_source") {
    for (auto& layer : holdable_layers<std::int32_t>()) {
        if (layer.rows < 2 || layer.nnz() == 0) continue;
        ForwardCase<std::int32_t> c(layer, 37);
        c.x[cells(1, c.ld) + 20] = std::nanf("");
        const Matrix expected = c.z();
        for_each_isa([&](Isa) {
            Buffer<float> y = c.output();
            forward(c.args(y.data()), c.plan, 2);
            CHECK(largest_error(y.data(), expected, c.ld) < 1e-4);
        });
    }
}

TEST_CASE("dropout_at_both_ends_of_its_threshold_equals_the_oracle") {
    // 2000 neurons: several units are dropped even at 1 / 65536, and several kept at 65535 / 65536.
    const ForwardCase<std::int32_t> c(random_layer<std::int32_t>("wide", 20, 2000, 0.2, 6), 200);
    const Matrix z = c.z();
    for (std::uint32_t threshold : {1u, 32768u, 65535u}) {
        Dropout dropout = kDropout;
        dropout.threshold = threshold;
        const Matrix expected = ref::activations(z, {}, dropout);
        for_each_isa([&](Isa) {
            Buffer<float> y = c.output();
            std::vector<std::uint16_t> kept = c.plane();
            ForwardArgs<std::int32_t> a = c.args(y.data());
            a.dropout = dropout;
            a.bits.kept = kept.data();
            forward(a, c.plan, 2);
            CHECK(largest_error(y.data(), expected, c.ld) < 1e-4);
            std::int64_t count = 0;
            bool same = true;
            for (Index j = 0; j < 2000; ++j)
                for (Index b = 0; b < 200; ++b) {
                    count += bit(kept, j, b, c.ld);
                    same = same && bit(kept, j, b, c.ld) == ref::is_kept(dropout, j, b);
                }
            CHECK(same);
            CHECK(count > 0);
            CHECK(count < 400000);
        });
    }
}

TEST_CASE("kept_bits_are_not_written_without_dropout") {
    const ForwardCase<std::int32_t> c(random_layer<std::int32_t>("small", 30, 20, 0.2, 2), 37);
    for_each_isa([&](Isa) {
        Buffer<float> y = c.output();
        std::vector<std::uint16_t> kept = c.plane();
        ForwardArgs<std::int32_t> a = c.args(y.data());
        a.bits.kept = kept.data();
        forward(a, c.plan, 2);
        CHECK(kept == c.plane());
    });
}

TEST_CASE("dropout_columns_count_to_the_last_sample_number") {
    const ForwardCase<std::int32_t> c(random_layer<std::int32_t>("small", 5, 40, 0.5, 1), 200);
    Dropout dropout = kDropout;
    dropout.column_offset = std::numeric_limits<Index>::max() - 7;  // and 200 samples on, beyond 31 bits
    const Block first = draw(dropout.stream, static_cast<std::uint32_t>(dropout.column_offset) / 8 + 24);
    for_each_isa([&](Isa) {
        Buffer<float> y = c.output();
        std::vector<std::uint16_t> kept = c.plane();
        ForwardArgs<std::int32_t> a = c.args(y.data());
        a.dropout = dropout;
        a.bits.kept = kept.data();
        forward(a, c.plan, 1);
        CHECK(bit(kept, 0, 192, c.ld) == ((first[0] & 0xffffu) >= dropout.threshold));
        CHECK(bit(kept, 0, 193, c.ld) == (first[0] >> 16 >= dropout.threshold));
    });
}

TEST_CASE("forward_with_an_absurd_number_of_threads_gives_the_same_bits") {
    const ForwardCase<std::int32_t> c(large_layer<std::int32_t>(1), 37);
    Buffer<float> one = c.output(), many = c.output();
    forward(c.args(one.data()), c.plan, 1);
    forward(c.args(many.data()), c.plan, std::numeric_limits<int>::max());
    CHECK(same_bits(one, many));
}

TEST_CASE("forward_refuses_dropout_that_keeps_nothing") {
    const ForwardCase<std::int32_t> c(random_layer<std::int32_t>("small", 5, 5, 0.5, 1), 1);
    Buffer<float> y = c.output();
    ForwardArgs<std::int32_t> a = c.args(y.data());
    a.dropout.threshold = 65536;
    CHECK_THROWS_AS(forward(a, c.plan, 1), InvalidArgument);
}

// Outputs too large for the caches go past them: the same bits as for the first targets alone, whose output is small.
TEST_CASE("forward_streams_large_outputs_without_changing_a_bit") {
    constexpr Index n_in = 500, few = 3000;
    struct Kind {
        Index ld;
        bool bf16;
    };
    for (const auto& [ld, bf16] : {Kind{48, false}, Kind{96, true}, Kind{48, true}}) {  // the last: no whole lines
        const Index n_out = (Index{140} << 20) / (ld * (bf16 ? 2 : 4));
        std::vector<std::int32_t> col_ptr(static_cast<std::size_t>(n_out) + 1);
        std::vector<Index> row_idx;
        for (Index j = 0; j < n_out; ++j) {
            for (Index k = 0; k < j % 3; ++k) row_idx.push_back((7 * j + 211 * k) % n_in);
            col_ptr[static_cast<std::size_t>(j) + 1] = static_cast<std::int32_t>(row_idx.size());
        }
        const std::vector<float> weights = random_floats(row_idx.size(), 1);
        const std::vector<float> bias = random_floats(static_cast<std::size_t>(n_out), 2);
        const Buffer<float> x = padded_floats(n_in, ld, ld, 3);
        ForwardArgs<std::int32_t> a;
        a.n_in = n_in;
        a.col_ptr = col_ptr.data();
        a.row_idx = row_idx.data();
        a.weights = weights.data();
        a.bias = bias.data();
        a.x = x.data();
        a.ld = ld;
        a.activation = {ActivationKind::rectifier, -0.5f};
        a.dropout = kDropout;
        const std::size_t bytes = bf16 ? 2 : 4;
        Buffer<float> y(cells(n_out, ld) * bytes / 4), small(cells(few, ld) * bytes / 4);
        const auto rows_at = [&](Buffer<float>& to) { return Rows(reinterpret_cast<void*>(to.data()), bf16); };
        for_each_isa([&](Isa) {
            for (int threads : {1, 7}) {
                std::fill(y.begin(), y.end(), kUnset);
                a.n_out = n_out;
                a.y = rows_at(y);
                forward(a, plan_work(col_ptr.data(), n_out), threads);
                a.n_out = few;
                a.y = rows_at(small);
                forward(a, plan_work(col_ptr.data(), few), 1);
                CHECK(std::memcmp(y.data(), small.data(), small.size() * sizeof(float)) == 0);
                const float* last = y.data() + y.size() - 8;
                CHECK(std::none_of(last, last + 8, [](float v) { return v == kUnset; }));
            }
        });
    }
}
