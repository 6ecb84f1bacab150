// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/rng.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "../src/elementary.hpp"
#include "testing.hpp"

using namespace trulysparse;

namespace {
const Stream kFirst{0, Purpose::pattern, 0, 0};
const Stream kSecond{0x0123456789abcdefull, Purpose::regrow_cells, 3, 7};
const Stream kLast{0xffffffffffffffffull, Purpose::user, 0xffffff, 0xffffffffu};
constexpr std::uint64_t kSecondIndex = 0x0000000500000009ull, kLastIndex = 0xffffffffffffffffull;
constexpr std::uint64_t kHuge = 25'000'000'000'000ull;  // cells of a 5M x 5M layer
}  // namespace

TEST_CASE("test_philox_known_answers_of_the_random123_paper") {
    constexpr std::uint32_t f = 0xffffffffu;
    CHECK(philox4x32({0, 0, 0, 0}, 0, 0) == Block{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u});
    CHECK(philox4x32({f, f, f, f}, f, f) == Block{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu});
    CHECK(philox4x32({0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}, 0xa4093822u, 0x299f31d0u) ==
          Block{0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u});
}

TEST_CASE("test_draw_packing_is_fixed_for_ever") {
    CHECK(draw(kFirst, 0) == Block{0x910223a1u, 0x29946dd3u, 0x621adeeeu, 0xde653cafu});
    CHECK(draw(kSecond, kSecondIndex) == Block{0xdf8cf035u, 0x47d092afu, 0x563666ecu, 0x78a062a7u});
    CHECK(draw(kLast, kLastIndex) == Block{0xa5572139u, 0xecd7a76eu, 0x73849044u, 0xd4c96952u});
}

TEST_CASE("test_uniform_and_bounded_known_answers") {
    const Block a = draw(kFirst, 0), b = draw(kSecond, kSecondIndex), c = draw(kLast, kLastIndex);
    CHECK(uniform53(a) == 0x1.4ca36e9c88110p-3);
    CHECK(uniform53(b) == 0x1.1f424abf7e33cp-2);
    CHECK(uniform53(c) == 0x1.d9af4edd4aae4p-1);
    CHECK(uniform24(a[0]) == 0.5664388537406921f);
    CHECK(uniform24(b[0]) == 0.8732442855834961f);
    CHECK(bounded(a, kHuge) == 4060527423667ull);
    CHECK(bounded(b, kHuge) == 7013158033795ull);
    CHECK(bounded(c, kHuge) == 23129140484646ull);
    CHECK(bounded(a, 1) == 0);
    CHECK(bounded(b, 10) == 2);
    CHECK(bounded(c, 10) == 9);
    CHECK(uniform24(0xffffffffu) < 1.0f);
    CHECK(uniform53({0xffffffffu, 0xffffffffu, 0, 0}) < 1.0);
}

TEST_CASE("test_bounded_rejects_the_surplus_once") {
    // For bound 3 one low part is too many: the word 0, whose place the second word takes.
    CHECK(bounded({0, 0, 0, 0x80000000u}, 3) == 1);
    CHECK(bounded({1, 0, 0, 0x80000000u}, 3) == 0);
    // A power of two divides 2^64, so nothing is rejected.
    CHECK(bounded({0, 0, 0, 0x80000000u}, 4) == 0);
    CHECK(bounded({0xffffffffu, 0xffffffffu, 0, 0}, 0xffffffffffffffffull) == 0xfffffffffffffffeull);
}

TEST_CASE("test_draws_made_together_are_the_single_ones") {
    constexpr std::uint64_t nearly_all = (1ull << 63) + 1;  // of which every other word is one too many
    for (std::int64_t n : {0, 1, 2, 3, 4, 5, 7, 64, 65, 131}) {
        const auto size = static_cast<std::size_t>(n);
        std::vector<std::uint64_t> indices(size), words(size), numbers(size);
        for (std::size_t k = 0; k < size; ++k) indices[k] = kLastIndex / (k + 1) + k;
        draw_words(kSecond, indices.data(), n, words.data());
        for (std::size_t k = 0; k < size; ++k) CHECK(words[k] == word64(draw(kSecond, indices[k]), 0));
        for (std::uint64_t bound : {std::uint64_t{1}, std::uint64_t{1000}, kHuge, nearly_all}) {
            draw_bounded(kLast, kSecondIndex, n, bound, numbers.data());
            for (std::size_t k = 0; k < size; ++k) CHECK(numbers[k] == bounded(draw(kLast, kSecondIndex + k), bound));
        }
    }
}

TEST_CASE("test_bounded_is_uniform") {
    std::vector<int> counts(10);
    const int draws = 100000;
    for (int d = 0; d < draws; ++d) ++counts[bounded(draw(kSecond, static_cast<std::uint64_t>(d)), 10)];
    for (int count : counts) CHECK(std::fabs(count - draws / 10) < 4 * std::sqrt(draws * 0.1 * 0.9));
}

TEST_CASE("test_normal2_known_answers") {
    const auto a = normal2(draw(kFirst, 0)), b = normal2(draw(kSecond, kSecondIndex)),
               c = normal2(draw(kLast, kLastIndex));
    CHECK(a[0] == 0.4040969328444518f);
    CHECK(a[1] == -0.4372473934799815f);
    CHECK(b[0] == -0.7982101281883776f);
    CHECK(b[1] == 0.14605226318314035f);
    CHECK(c[0] == 1.1119693972854212f);
    CHECK(c[1] == -1.9870782045367505f);
    const float largest = normal2({0xffffffffu, 0xffffffffu, 0, 0})[0];
    CHECK(largest == doctest::Approx(std::sqrt(2 * 53 * std::log(2.0))));
    CHECK(normal2({0, 0, 0, 0})[0] == 0.0f);
}

TEST_CASE("test_normal2_moments_and_independence") {
    const int n = 200000;
    double sums[2] = {}, squares[2] = {}, fourths[2] = {}, product = 0;
    for (int d = 0; d < n; ++d) {
        const auto pair = normal2(draw(kFirst, static_cast<std::uint64_t>(d)));
        for (int h = 0; h < 2; ++h) {
            const double v = pair[static_cast<std::size_t>(h)];
            sums[h] += v;
            squares[h] += v * v;
            fourths[h] += v * v * v * v;
        }
        product += static_cast<double>(pair[0]) * static_cast<double>(pair[1]);
    }
    const double root = std::sqrt(static_cast<double>(n));
    for (int h = 0; h < 2; ++h) {
        CHECK(std::fabs(sums[h] / n) < 4 / root);
        CHECK(std::fabs(squares[h] / n - 1) < 4 * std::sqrt(2.0) / root);
        CHECK(std::fabs(fourths[h] / n - 3) < 4 * std::sqrt(96.0) / root);
    }
    CHECK(std::fabs(product / n) < 4 / root);
}

TEST_CASE("test_portable_functions_agree_with_the_library") {
    double log_error = 0, log1m_error = 0, trig_error = 0;
    for (int d = 0; d < 20000; ++d) {
        const Block b = draw(kSecond, static_cast<std::uint64_t>(d));
        const double u = uniform53(b), x = std::ldexp(1 - u, -(d % 60));
        log_error = std::max(log_error, std::fabs(portable_log(x) / std::log(x) - 1));
        const double p = d % 2 ? u : std::ldexp(u, -(d % 900));
        log1m_error = std::max(log1m_error, std::fabs(portable_log1m(p) / std::log1p(-p) - 1));
        double sine, cosine;
        portable_sincos(u, sine, cosine);
        const double angle = 6.28318530717958647693 * u;
        trig_error = std::max({trig_error, std::fabs(sine - std::sin(angle)), std::fabs(cosine - std::cos(angle))});
    }
    CHECK(log_error < 1e-15);
    CHECK(log1m_error < 1e-15);
    CHECK(trig_error < 2e-15);
    CHECK(portable_log(1.0) == 0.0);
}

TEST_CASE("test_shuffle_known_answer_and_permutation") {
    std::vector<std::int64_t> order(10);
    const Stream stream{42, Purpose::shuffle, 0, 3};
    shuffle(10, stream, order.data());
    CHECK(order == std::vector<std::int64_t>{5, 3, 7, 1, 9, 4, 6, 0, 2, 8});
    shuffle(0, stream, nullptr);
    std::int64_t one = -1;
    shuffle(1, stream, &one);
    CHECK(one == 0);
    std::vector<std::int64_t> many(10007);
    shuffle(10007, stream, many.data());
    std::vector<bool> seen(10007);
    for (std::int64_t v : many) seen[static_cast<std::size_t>(v)] = true;
    CHECK(std::count(seen.begin(), seen.end(), true) == 10007);
}

TEST_CASE("test_shuffle_reaches_every_order_equally_often") {
    std::vector<int> counts(24);
    const int seeds = 24000;
    for (int seed = 0; seed < seeds; ++seed) {
        std::int64_t o[4];
        shuffle(4, {static_cast<std::uint64_t>(seed), Purpose::shuffle, 0, 0}, o);
        std::size_t rank = 0;
        for (int i = 0; i < 4; ++i) {
            std::size_t smaller = 0;
            for (int j = i + 1; j < 4; ++j) smaller += o[j] < o[i];
            rank = rank * static_cast<std::size_t>(4 - i) + smaller;
        }
        ++counts[rank];
    }
    double chi = 0;
    for (int count : counts) chi += (count - 1000.0) * (count - 1000.0) / 1000.0;
    CHECK(chi < 23 + 4 * std::sqrt(46.0));
    CHECK(chi > 23 - 4 * std::sqrt(46.0) * 0.8);
}
