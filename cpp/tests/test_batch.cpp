// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/batch.hpp"

#include <doctest/doctest.h>

#include "kernels.hpp"

using namespace trulysparse;
using namespace testing;

namespace {

constexpr Index kFeatureCounts[] = {0, 1, 3, 16, 17, 255, 256, 300, 784};
constexpr std::int64_t kSampleCount = 50;

template <class T>
std::vector<T> random_numbers(std::size_t n) {
    std::mt19937 generator(51);
    std::vector<T> values(n);
    for (T& v : values) v = static_cast<T>(static_cast<double>(generator() % 256) - (std::is_unsigned_v<T> ? 0 : 128));
    return values;
}

std::vector<std::int64_t> some_rows(Index batch) {
    std::vector<std::int64_t> rows;
    for (Index b = 0; b < batch; ++b) rows.push_back((b * 17 + 3) % kSampleCount);
    return rows;
}

}  // namespace

TEST_CASE_TEMPLATE("load_dense_gathers_standardises_and_transposes", T, std::uint8_t, std::int8_t, std::uint16_t,
                   std::int16_t, std::int32_t, std::int64_t, float, double) {
    for (Index features : kFeatureCounts)
        for (Index batch : kBatches) {
            const Index ld = padded(batch);
            const std::vector<std::int64_t> rows = some_rows(batch);
            const std::size_t n = static_cast<std::size_t>(features);
            const std::vector<float> shift = random_floats(n, 52), factor = random_floats(n, 53);
            const std::vector<T> X = random_numbers<T>(static_cast<std::size_t>(kSampleCount) * 2 * n);
            struct Strides {
                std::int64_t row, col;
            };
            for (const Strides& s : {Strides{features, 1}, Strides{1, kSampleCount}, Strides{2 * features, 2}})
                for (bool scaled : {false, true})
                    for (int threads : kThreads) {
                        Buffer<float> out(cells(features, ld), -77.0f);
                        load_dense(X.data(), s.row, s.col, rows.data(), batch, features,
                                   scaled ? shift.data() : nullptr, scaled ? factor.data() : nullptr, out.data(), ld,
                                   threads);
                        bool same = true;
                        for (Index f = 0; f < features; ++f)
                            for (Index b = 0; b < ld; ++b) {
                                const std::size_t k = static_cast<std::size_t>(f);
                                float expected = 0.0f;
                                if (b < batch) {
                                    expected = static_cast<float>(X[static_cast<std::size_t>(
                                        rows[static_cast<std::size_t>(b)] * s.row + f * s.col)]);
                                    if (scaled) expected = (expected - shift[k]) * factor[k];
                                }
                                same = same && out[cells(f, ld) + static_cast<std::size_t>(b)] == expected;
                            }
                        CHECK(same);
                    }
        }
}

namespace {

// 784 features: from 128 samples on, the work is shared among threads.
template <class T, class I>
void check_csr() {
    const Index features = 784;
    const std::vector<float> factor = random_floats(static_cast<std::size_t>(features), 54);
    const Layer<I> X = random_layer<I>("samples", static_cast<Index>(kSampleCount), features, 0.1, 55);
    std::vector<I> indices, indptr = {0};
    std::vector<T> data;
    Matrix dense(static_cast<Index>(kSampleCount), features);
    for (Index s = 0; s < kSampleCount; ++s) {
        for (I k = X.row_ptr[static_cast<std::size_t>(s)]; k < X.row_ptr[static_cast<std::size_t>(s) + 1]; ++k)
            for (int repeat = 0; repeat < 1 + (k % 7 == 0); ++repeat) {
                indices.push_back(X.col_idx[static_cast<std::size_t>(k)]);
                data.push_back(static_cast<T>(k % 11 + 1));
                if (std::is_signed_v<T> && k % 3 == 0) data.back() = static_cast<T>(-data.back());
                dense(s, X.col_idx[static_cast<std::size_t>(k)]) += static_cast<double>(data.back());
            }
        indptr.push_back(static_cast<I>(indices.size()));
    }
    for (Index batch : kBatches)
        for (bool scaled : {false, true})
            for (int threads : kThreads) {
                const Index ld = padded(batch);
                const std::vector<std::int64_t> rows = some_rows(batch);
                Buffer<float> out(cells(features, ld), -77.0f);
                load_csr(data.data(), indices.data(), static_cast<std::int64_t>(data.size()), indptr.data(),
                         rows.data(), batch, features, scaled ? factor.data() : nullptr, out.data(), ld, threads);
                Matrix expected(features, ld);
                for (Index b = 0; b < batch; ++b)
                    for (Index f = 0; f < features; ++f)
                        expected(f, b) = dense(static_cast<Index>(rows[static_cast<std::size_t>(b)]), f) *
                                         (scaled ? static_cast<double>(factor[static_cast<std::size_t>(f)]) : 1.0);
                CHECK(largest_error(out.data(), expected, ld) < 1e-6);
                CHECK(padding_is_zero(out, features, batch, ld));
            }
}

}  // namespace

TEST_CASE_TEMPLATE("load_csr_scales_and_adds_repeated_entries", T, std::uint8_t, std::int8_t, std::uint16_t,
                   std::int16_t, std::int32_t, std::int64_t, float, double) {
    check_csr<T, std::int32_t>();
    check_csr<T, std::int64_t>();
}

TEST_CASE_TEMPLATE("load_csr_refuses_rows_that_point_outside", I, std::int32_t, std::int64_t) {
    const Index features = 800, batch = 112;  // enough for several tasks
    std::vector<I> indices(static_cast<std::size_t>(2 * batch), 3), indptr;
    for (Index s = 0; s <= batch; ++s) indptr.push_back(static_cast<I>(2 * s));
    std::vector<std::int64_t> rows;
    for (Index b = 0; b < batch; ++b) rows.push_back(batch - 1 - b);
    const std::vector<float> data(indices.size(), 1.0f);
    Buffer<float> out(cells(features, batch));
    for (int threads : kThreads) {
        auto message = [&] {
            try {
                load_csr(data.data(), indices.data(), static_cast<std::int64_t>(data.size()), indptr.data(),
                         rows.data(), batch, features, static_cast<const float*>(nullptr), out.data(), batch, threads);
            } catch (const InvalidArgument& error) {
                return std::string(error.what());
            }
            return std::string();
        };
        CHECK(message() == "");
        for (I bad : {I{-1}, I{features}, std::numeric_limits<I>::max(), std::numeric_limits<I>::min()}) {
            indices[81] = bad;
            CHECK(message().rfind("row 40 of the CSR matrix points outside", 0) == 0);
            indices[81] = 3;
        }
        for (I bad : {I{-1}, I{83}, std::numeric_limits<I>::min()}) {
            indptr[40] = bad;
            CHECK(message().find("of the CSR matrix points outside") != std::string::npos);
            indptr[40] = 80;
        }
        indptr.back() = 2 * batch + 1;
        CHECK(message().rfind("row 111 of the CSR matrix points outside", 0) == 0);
        indptr.back() = 2 * batch;
    }
}

TEST_CASE("store_transposed_gives_samples_back_as_rows") {
    for (Index features : kFeatureCounts)
        for (Index batch : kBatches)
            for (int threads : kThreads) {
                const Index ld = padded(batch);
                const Buffer<float> a = padded_floats(features, batch, ld, 56);
                Buffer<float> out(cells(batch, features), -77.0f);
                store_transposed(a.data(), features, ld, batch, out.data(), threads);
                bool same = true;
                for (Index b = 0; b < batch; ++b)
                    for (Index f = 0; f < features; ++f)
                        same = same && out[cells(b, features) + static_cast<std::size_t>(f)] ==
                                           a[cells(f, ld) + static_cast<std::size_t>(b)];
                CHECK(same);
            }
}
