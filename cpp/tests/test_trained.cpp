// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/trained.hpp"

#include <doctest/doctest.h>

#include "kernels.hpp"
#include "trulysparse/spmm.hpp"

using namespace trulysparse;
using namespace testing;

namespace {

enum class Form { prelu, shared, srelu };
constexpr Form kForms[] = {Form::prelu, Form::shared, Form::srelu};
constexpr Index kNeurons[] = {1, 7, 1500};  // the last one takes several work items and threads

struct TrainedCase {
    Index n, batch, ld;
    Form form;
    std::vector<float> left_slope, left_threshold, right_threshold, right_slope;
    Buffer<float> z, dy;
    Dropout dropout;

    TrainedCase(Form f, Index neurons, Index b, std::uint32_t threshold)
        : n(neurons),
          batch(b),
          ld(padded(b)),
          form(f),
          left_slope(random_floats(static_cast<std::size_t>(f == Form::shared ? 1 : n), 1)),
          left_threshold(random_floats(static_cast<std::size_t>(n), 2)),
          right_threshold(random_floats(static_cast<std::size_t>(n), 3)),
          right_slope(random_floats(static_cast<std::size_t>(n), 4)),
          z(padded_floats(n, b, ld, 5, 0.7f)),
          dy(padded_floats(n, b, ld, 6)),
          dropout{threshold, {11, Purpose::dropout, 2, 3}, 16} {
        for (Index j = 0; j < n; ++j) {  // on a threshold, and on both at once
            right_threshold[static_cast<std::size_t>(j)] *= j % 5 == 0 ? 0.0f : 0.5f;
            z[cells(j, ld)] = form == Form::srelu ? left_threshold[static_cast<std::size_t>(j)] : 0.0f;
        }
    }
    TrainedParameters parameters() const {
        TrainedParameters p;
        p.left_slope = left_slope.data();
        p.shared = form == Form::shared && n > 1;
        if (form != Form::srelu) return p;
        p.left_threshold = left_threshold.data();
        p.right_threshold = right_threshold.data();
        p.right_slope = right_slope.data();
        return p;
    }
    std::size_t words() const { return cells(n, ld / 16); }
};

template <class Body>
void for_each_case(Body body) {
    for (Form form : kForms)
        for (Index n : kNeurons)
            for (Index batch : kBatches)
                for (std::uint32_t threshold : {0u, 20000u}) {
                    INFO("form " << static_cast<int>(form) << ", neurons " << n << ", batch " << batch << ", dropout "
                                 << threshold);
                    body(TrainedCase(form, n, batch, threshold));
                }
}

void run_forward(const TrainedCase& c, Rows y, std::vector<std::uint16_t>& kept, int threads) {
    kept.assign(c.words(), 0);
    trained_forward({c.n, c.ld, c.parameters(), c.z.data(), y, c.dropout, c.dropout.threshold ? kept.data() : nullptr},
                    threads);
}

struct Gradients {
    std::vector<float> left_slope, left_threshold, right_threshold, right_slope, row_sum;
    explicit Gradients(const TrainedCase& c)
        : left_slope(c.left_slope.size(), -77.0f),
          left_threshold(static_cast<std::size_t>(c.n), -77.0f),
          right_threshold(left_threshold),
          right_slope(left_threshold),
          row_sum(left_threshold) {}
    bool same(const Gradients& o) const {
        return same_bits(left_slope, o.left_slope) && same_bits(left_threshold, o.left_threshold) &&
               same_bits(right_threshold, o.right_threshold) && same_bits(right_slope, o.right_slope) &&
               same_bits(row_sum, o.row_sum);
    }
};

Gradients run_backward(const TrainedCase& c, Rows delta, const std::vector<std::uint16_t>& kept, int threads) {
    Gradients g(c);
    TrainedGradients to;
    to.left_slope = g.left_slope.data();
    to.shared = c.parameters().shared;
    if (c.form == Form::srelu) {
        to.left_threshold = g.left_threshold.data();
        to.right_threshold = g.right_threshold.data();
        to.right_slope = g.right_slope.data();
    }
    trained_backward({c.n, c.ld, c.parameters(), c.z.data(), delta, c.dropout.threshold ? kept.data() : nullptr,
                      c.dropout.scale(), to, g.row_sum.data()},
                     threads);
    return g;
}

}  // namespace

TEST_CASE("trained_forward_equals_the_oracle_with_the_same_bits_on_any_threads") {
    for_each_case([](const TrainedCase& c) {
        const Matrix z = ref::from_padded(c.z.data(), c.n, c.batch, c.ld);
        const Matrix expected = ref::trained_activations(z, c.parameters(), c.dropout);
        for_each_isa([&](Isa) {
            Buffer<float> first;
            for (int threads : kThreads) {
                std::vector<std::uint16_t> kept;
                Buffer<float> y(c.z.size(), -77.0f), in_place = copy(c.z);
                run_forward(c, y.data(), kept, threads);
                CHECK(largest_error(y.data(), expected, c.ld) < 1e-6);
                std::size_t wrong = 0;
                for (Index j = 0; c.dropout.threshold && j < c.n; ++j)
                    for (Index b = 0; b < c.batch; ++b) wrong += bit(kept, j, b, c.ld) != ref::is_kept(c.dropout, j, b);
                CHECK(wrong == 0);
                trained_forward({c.n, c.ld, c.parameters(), in_place.data(), in_place.data(), c.dropout, kept.data()},
                                threads);
                CHECK(same_bits(in_place, y));
                Buffer<Bf16> rounded(c.z.size());
                run_forward(c, rounded.data(), kept, threads);
                CHECK(same_bits(rounded, to_bf16(y)));
                if (threads == 1)
                    first = std::move(y);
                else
                    CHECK(same_bits(y, first));
            }
        });
    });
}

TEST_CASE("trained_backward_equals_the_oracle_with_the_same_bits_on_any_threads") {
    for_each_case([](const TrainedCase& c) {
        const Matrix z = ref::from_padded(c.z.data(), c.n, c.batch, c.ld);
        const Matrix dy = ref::from_padded(c.dy.data(), c.n, c.batch, c.ld);
        const ref::TrainedGradient expected = ref::trained_gradient(z, dy, c.parameters(), c.dropout);
        std::vector<double> left_slope = expected.left_slope;
        if (c.parameters().shared) {
            double total = 0.0;
            for (double one : left_slope) total += one;
            left_slope = {total};
        }
        for_each_isa([&](Isa) {
            std::vector<std::uint16_t> kept;
            Buffer<float> y(c.z.size()), first;
            run_forward(c, y.data(), kept, 1);
            Gradients once(c);
            for (int threads : kThreads) {
                Buffer<float> delta = copy(c.dy);
                const Gradients g = run_backward(c, delta.data(), kept, threads);
                CHECK(largest_error(delta.data(), expected.dz, c.ld) < 1e-6);
                CHECK(padding_is_zero(delta, c.n, c.batch, c.ld));
                CHECK(largest_error(g.row_sum.data(), expected.row_sum) < 1e-5);
                CHECK(largest_error(g.left_slope.data(), left_slope) < 1e-5);
                if (c.form == Form::srelu) {
                    CHECK(largest_error(g.left_threshold.data(), expected.left_threshold) < 1e-5);
                    CHECK(largest_error(g.right_threshold.data(), expected.right_threshold) < 1e-5);
                    CHECK(largest_error(g.right_slope.data(), expected.right_slope) < 1e-5);
                }
                if (threads == 1) {
                    first = std::move(delta);
                    once = g;
                } else {
                    CHECK(same_bits(delta, first));
                    CHECK(g.same(once));
                }
            }
        });
    });
}

TEST_CASE("a_bfloat16_delta_is_rounded_after_its_sums_are_taken") {
    for (Form form : kForms)
        for_each_isa([&](Isa) {
            const TrainedCase c(form, 7, 37, 20000);
            std::vector<std::uint16_t> kept;
            Buffer<float> y(c.z.size());
            run_forward(c, y.data(), kept, 1);
            Buffer<Bf16> narrow = to_bf16(c.dy);
            Buffer<float> wide = to_float(narrow);
            const Gradients from_wide = run_backward(c, wide.data(), kept, 1);
            const Gradients from_narrow = run_backward(c, narrow.data(), kept, 1);
            CHECK(from_narrow.same(from_wide));
            CHECK(same_bits(narrow, to_bf16(wide)));
        });
}

TEST_CASE("prelu_equals_the_rectifier_of_the_same_slope_and_its_dropout") {
    const Index n = 7, batch = 37, ld = padded(batch);
    const Buffer<float> x = padded_floats(n, batch, ld, 8);
    std::vector<std::int32_t> col_ptr(static_cast<std::size_t>(n) + 1);
    std::vector<Index> row_idx(static_cast<std::size_t>(n));
    for (Index j = 0; j < n; ++j) {
        col_ptr[static_cast<std::size_t>(j) + 1] = j + 1;
        row_idx[static_cast<std::size_t>(j)] = j;
    }
    const std::vector<float> ones(static_cast<std::size_t>(n), 1.0f), zeros(static_cast<std::size_t>(n), 0.0f);
    const float slope = 0.3f;
    for_each_isa([&](Isa) {
        Buffer<float> fused(x.size()), z(x.size()), y(x.size());
        std::vector<std::uint16_t> fused_kept(cells(n, ld / 16)), kept(fused_kept);
        ForwardArgs<std::int32_t> a;
        a.n_in = a.n_out = n;
        a.col_ptr = col_ptr.data();
        a.row_idx = row_idx.data();
        a.weights = ones.data();
        a.bias = zeros.data();
        a.x = x.data();
        a.ld = ld;
        a.y = z.data();
        const WorkPlan plan = plan_work(col_ptr.data(), n);
        forward(a, plan, 1);
        a.y = fused.data();
        a.activation = {ActivationKind::rectifier, slope};
        a.dropout = {30000, {5, Purpose::dropout, 1, 9}, 8};
        a.bits.kept = fused_kept.data();
        forward(a, plan, 1);
        TrainedForwardArgs t{n, ld, {}, z.data(), y.data(), a.dropout, kept.data()};
        t.parameters.left_slope = &slope;
        t.parameters.shared = true;
        trained_forward(t, 1);
        CHECK(same_bits(y, fused));
        CHECK(kept == fused_kept);
    });
}

TEST_CASE("nothing_to_do_is_done") {
    trained_forward({}, 2);
    trained_backward({}, 2);
    const float slope = 0.5f;
    TrainedForwardArgs a;
    a.n = 3;
    a.parameters.left_slope = &slope;
    a.parameters.shared = true;
    CHECK_NOTHROW(trained_forward(a, 2));
}
