// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/augment.hpp"

#include <doctest/doctest.h>

#include "kernels.hpp"
#include "ref/ref_augment.hpp"

using namespace trulysparse;
using namespace testing;

namespace {

constexpr std::int64_t kSampleCount = 40;
const Stream kStream{7, Purpose::augment, 0, 3};

const ImageShape kShapes[] = {{1, 28, 28, false}, {3, 32, 32, false}, {3, 9, 14, true}, {4, 1, 7, true},
                              {1, 5, 1, true},    {6, 8, 3, false},   {7, 6, 6, true},  {2, 1, 1, false}};

std::vector<std::int64_t> some_rows(Index batch) {
    std::vector<std::int64_t> rows;
    for (Index b = 0; b < batch; ++b) rows.push_back((b * 17 + 3) % kSampleCount);
    return rows;
}

template <class T>
std::vector<T> pixels(std::size_t n) {
    std::mt19937 generator(61);
    std::vector<T> values(n);
    for (T& v : values) v = static_cast<T>(static_cast<double>(generator() % 256) - (std::is_unsigned_v<T> ? 0 : 128));
    return values;
}

}  // namespace

TEST_CASE_TEMPLATE("augmented_images_are_those_of_the_reference", T, std::uint8_t, std::int8_t, std::uint16_t,
                   std::int16_t, std::int32_t, std::int64_t, float, double) {
    const Index batch = 37;
    const std::vector<std::int64_t> rows = some_rows(batch);
    for (const ImageShape& shape : kShapes)
        for (const ImageChanges& changes :
             {ImageChanges{10.0, 0.1, true, Fill::nearest}, ImageChanges{180.0, 1.0, false, Fill::zero},
              ImageChanges{0.0, 0.3, true, Fill::zero}}) {
            const std::int64_t features = shape.features();
            const std::size_t n = static_cast<std::size_t>(features);
            const std::vector<T> X = pixels<T>(static_cast<std::size_t>(kSampleCount) * 2 * n);
            struct Strides {
                std::int64_t row, col;
            };
            for (const Strides& s : {Strides{features, 1}, Strides{1, kSampleCount}, Strides{2 * features, 2}})
                for (int threads : kThreads) {
                    std::vector<float> out(static_cast<std::size_t>(batch) * n, -77.0f);
                    augment_images(X.data(), s.row, s.col, rows.data(), batch, shape, changes, kStream, out.data(),
                                   threads);
                    double largest = 0.0;
                    for (Index b = 0; b < batch; ++b) {
                        const std::int64_t row = rows[static_cast<std::size_t>(b)];
                        std::vector<double> image;
                        for (std::int64_t f = 0; f < features; ++f)
                            image.push_back(static_cast<double>(X[static_cast<std::size_t>(row * s.row + f * s.col)]));
                        const auto expected =
                            ref::augmented(image, shape, changes, draw(kStream, static_cast<std::uint64_t>(row)));
                        for (std::size_t f = 0; f < n; ++f)
                            largest =
                                std::fmax(largest, std::fabs(out[static_cast<std::size_t>(b) * n + f] - expected[f]));
                    }
                    CHECK(largest < 4e-3);  // of 255: coordinates are float32
                }
        }
}

TEST_CASE("an_image_that_is_not_changed_keeps_its_values_exactly") {
    for (const ImageShape& shape : kShapes) {
        const std::size_t n = static_cast<std::size_t>(shape.features());
        const std::vector<float> X = random_floats(static_cast<std::size_t>(kSampleCount) * n, 62);
        const std::vector<std::int64_t> rows = some_rows(16);
        std::vector<float> out(16 * n);
        augment_images(X.data(), shape.features(), 1, rows.data(), 16, shape, {}, kStream, out.data(), 1);
        bool same = true;
        for (std::size_t b = 0; b < 16; ++b)
            for (std::size_t f = 0; f < n; ++f)
                same = same && out[b * n + f] == X[static_cast<std::size_t>(rows[b]) * n + f];
        CHECK(same);
    }
}

TEST_CASE("augmented_images_depend_on_neither_threads_nor_the_batch_they_are_in") {
    const ImageShape shape{3, 32, 32, false};
    const ImageChanges changes{10.0, 0.1, true, Fill::nearest};
    const std::size_t n = static_cast<std::size_t>(shape.features());
    const std::vector<std::uint8_t> X = pixels<std::uint8_t>(static_cast<std::size_t>(kSampleCount) * n);
    const std::vector<std::int64_t> rows = some_rows(37);
    std::vector<float> one(37 * n), more(37 * n);
    augment_images(X.data(), shape.features(), 1, rows.data(), 37, shape, changes, kStream, one.data(), 1);
    for (int threads : kThreads) {
        augment_images(X.data(), shape.features(), 1, rows.data(), 37, shape, changes, kStream, more.data(), threads);
        CHECK(one == more);
    }
    augment_images(X.data(), shape.features(), 1, rows.data() + 20, 17, shape, changes, kStream, more.data(), 2);
    CHECK(std::equal(more.begin(), more.begin() + static_cast<std::ptrdiff_t>(17 * n),
                     one.begin() + static_cast<std::ptrdiff_t>(20 * n)));
}
