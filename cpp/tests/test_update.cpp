// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/update.hpp"

#include <doctest/doctest.h>

#include <limits>

#include "kernels.hpp"

using namespace trulysparse;
using namespace testing;

namespace {

const std::vector<std::size_t> kSizes = {0, 1, 2, 3, 4, 7, 15, 16, 17, 31, 33, 100, 16384, 16385, 50001};

std::vector<double> widen(const std::vector<float>& a) { return {a.begin(), a.end()}; }

std::vector<SgdParams> sgd_variants() {
    std::vector<SgdParams> variants;
    for (const auto& [decay, l2] : {std::pair{0.0f, 0.0f}, {0.01f, 0.0f}, {0.0f, 0.02f}, {0.01f, 0.02f}})
        for (Decay form : {Decay::paper, Decay::l2})
            for (bool nesterov : {false, true})
                for (bool first : {true, false})
                    for (bool last : {true, false}) {
                        if (nesterov && !(first && last)) continue;
                        SgdParams p;
                        p.lr = 0.05f;
                        p.decay = decay;
                        p.l2 = l2;
                        p.form = form;
                        p.nesterov = nesterov;
                        p.first = first;
                        p.last = last;
                        variants.push_back(p);
                    }
    return variants;
}

}  // namespace

TEST_CASE("sgd_step_equals_the_oracle") {
    for (std::size_t n : kSizes)
        for (const SgdParams& p : sgd_variants()) {
            const std::vector<float> w0 = random_floats(n, 31), v0 = random_floats(n, 32), g = random_floats(n, 33);
            std::vector<double> w_expected = widen(w0), v_expected = widen(v0);
            ref::sgd_step(w_expected, v_expected, widen(g), p);
            for_each_isa([&](Isa) {
                std::vector<float> w_first, v_first;
                for (int threads : kThreads) {
                    std::vector<float> w = w0, v = v0;
                    sgd_step(w.data(), v.data(), g.data(), n, p, threads);
                    CHECK(largest_error(w.data(), w_expected) < 1e-6);
                    CHECK(largest_error(v.data(), v_expected) < 1e-6);
                    if (threads == 1) {
                        w_first = w;
                        v_first = v;
                    }
                    CHECK(same_bits(w, w_first));
                    CHECK(same_bits(v, v_first));
                }
            });
        }
}

TEST_CASE("sgd_step_has_the_same_bits_wherever_the_array_is_cut") {
    const std::size_t n = 1000;
    SgdParams p;
    p.decay = 2e-4f;
    const std::vector<float> g = random_floats(n, 33);
    for_each_isa([&](Isa) {
        std::vector<float> w = random_floats(n, 31), v = random_floats(n, 32), w_cut = w, v_cut = v;
        sgd_step(w.data(), v.data(), g.data(), n, p, 1);
        for (std::size_t begin = 0, size = 1; begin < n; begin += size, ++size) {
            const std::size_t count = std::min(size, n - begin);
            sgd_step(w_cut.data() + begin, v_cut.data() + begin, g.data() + begin, count, p, 1);
        }
        CHECK(same_bits(w, w_cut));
        CHECK(same_bits(v, v_cut));
    });
}

TEST_CASE("adam_step_aged_equals_the_oracle_whatever_the_age") {
    for (std::size_t n : kSizes)
        for (bool decoupled : {true, false}) {
            AdamParams p;
            p.lr = 0.05f;
            p.decay = 0.01f;
            p.l2 = 0.02f;
            p.decoupled = decoupled;
            const std::vector<float> w0 = random_floats(n, 34), m0 = random_floats(n, 35), g = random_floats(n, 37);
            const std::vector<float> v0 = random_floats(n, 36, 0.0f, 1.0f);
            std::vector<float> age0(n);
            for (std::size_t k = 0; k < n; ++k) age0[k] = static_cast<float>(k % 7 == 0 ? 0 : (k * k) % 30000);
            std::vector<double> w_expected = widen(w0), m_expected = widen(m0), v_expected = widen(v0),
                                age_expected = widen(age0);
            ref::adam_step_aged(w_expected, m_expected, v_expected, age_expected, widen(g), p);
            std::vector<float> w_first;
            for (int threads : kThreads) {
                std::vector<float> w = w0, m = m0, v = v0, age = age0;
                adam_step_aged(w.data(), m.data(), v.data(), age.data(), g.data(), n, p, threads);
                CHECK(largest_error(w.data(), w_expected) < 1e-4);
                CHECK(largest_error(m.data(), m_expected) < 1e-6);
                CHECK(largest_error(v.data(), v_expected) < 1e-6);
                for (std::size_t k = 0; k < n; ++k)
                    CHECK((age[k] == age0[k] + 1.0f || (age[k] > 1e4f && age[k] <= age0[k] + 1.0f)));
                if (threads == 1) w_first = w;
                CHECK(same_bits(w, w_first));
            }
        }
}

TEST_CASE("adam_step_equals_the_oracle") {
    for (std::size_t n : kSizes)
        for (bool decoupled : {true, false})
            for (const auto& [decay, l2] : {std::pair{0.0f, 0.0f}, {0.01f, 0.0f}, {0.01f, 0.02f}}) {
                AdamParams p;
                p.lr = 0.05f;
                p.decay = decay;
                p.l2 = l2;
                p.decoupled = decoupled;
                p.correction1 = 1.0f - 0.9f * 0.9f;
                p.correction2 = 1.0f - 0.999f * 0.999f;
                const std::vector<float> w0 = random_floats(n, 34), m0 = random_floats(n, 35), g = random_floats(n, 37);
                const std::vector<float> v0 = random_floats(n, 36, 0.0f, 1.0f);
                std::vector<double> w_expected = widen(w0), m_expected = widen(m0), v_expected = widen(v0);
                ref::adam_step(w_expected, m_expected, v_expected, widen(g), p);
                for_each_isa([&](Isa) {
                    std::vector<float> w_first, m_first, v_first;
                    for (int threads : kThreads) {
                        std::vector<float> w = w0, m = m0, v = v0;
                        adam_step(w.data(), m.data(), v.data(), g.data(), n, p, threads);
                        CHECK(largest_error(w.data(), w_expected) < 1e-5);
                        CHECK(largest_error(m.data(), m_expected) < 1e-6);
                        CHECK(largest_error(v.data(), v_expected) < 1e-6);
                        if (threads == 1) {
                            w_first = w;
                            m_first = m;
                            v_first = v;
                        }
                        CHECK(same_bits(w, w_first));
                        CHECK(same_bits(m, m_first));
                        CHECK(same_bits(v, v_first));
                    }
                });
            }
}

TEST_CASE("sum_of_squares_is_double_and_the_same_on_any_thread_count") {
    for (std::size_t n : kSizes) {
        const std::vector<float> g = random_floats(n, 38);
        double expected = 0.0;
        for (float a : g) expected += static_cast<double>(a) * a;
        const double one = sum_of_squares(g.data(), n, 1);
        CHECK(one == doctest::Approx(expected).epsilon(1e-12));
        for (int threads : kThreads) CHECK(sum_of_squares(g.data(), n, threads) == one);
    }
}

TEST_CASE("sum_of_squares_does_not_overflow_a_float") {
    const std::vector<float> g(100, 1e30f);
    CHECK(sum_of_squares(g.data(), g.size(), 1) == doctest::Approx(1e62).epsilon(1e-6));
}

TEST_CASE("scale_multiplies_every_element") {
    for (std::size_t n : kSizes)
        for (int threads : kThreads) {
            const std::vector<float> before = random_floats(n, 39);
            std::vector<float> g = before;
            scale(g.data(), n, 0.25f, threads);
            bool all = true;
            for (std::size_t k = 0; k < n; ++k) all = all && g[k] == 0.25f * before[k];
            CHECK(all);
        }
}

TEST_CASE("average_equals_the_oracle_also_in_place") {
    for (std::size_t n : kSizes)
        for (std::size_t count : {1, 2, 3, 4, 7}) {
            std::vector<std::vector<float>> arrays;
            std::vector<const float*> pointers;
            for (std::size_t k = 0; k < count; ++k) arrays.push_back(random_floats(n, static_cast<unsigned>(40 + k)));
            for (const auto& array : arrays) pointers.push_back(array.data());
            const std::vector<float> expected = ref::average(arrays);
            for_each_isa([&](Isa) {
                for (int threads : kThreads) {
                    std::vector<float> out(n, 7.0f);
                    average(pointers.data(), count, out.data(), n, threads);
                    CHECK(same_bits(out, expected));
                    for (std::size_t place = 0; place < count; ++place) {
                        out = arrays[place];
                        std::vector<const float*> with_out = pointers;
                        with_out[place] = out.data();
                        average(with_out.data(), count, out.data(), n, threads);
                        CHECK(same_bits(out, expected));
                    }
                }
            });
        }
}

TEST_CASE("average_of_equal_arrays_is_the_array_bit_for_bit") {
    std::vector<float> w = random_floats(50001, 41);
    w[0] = -0.0f;
    w[1] = std::numeric_limits<float>::max();
    w[2] = std::numeric_limits<float>::min();
    w[3] = -std::numeric_limits<float>::infinity();
    for_each_isa([&](Isa) {
        for (std::size_t count = 1; count <= 9; ++count) {
            const std::vector<const float*> arrays(count, w.data());
            std::vector<float> out(w.size());
            average(arrays.data(), count, out.data(), w.size(), 2);
            CHECK(same_bits(out, w));
        }
    });
}
