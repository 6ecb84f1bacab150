// SPDX-License-Identifier: BSD-3-Clause
#include "common.hpp"
#include "trulysparse/augment.hpp"

namespace trulysparse::bindings {

namespace {

// Places in a picture with its border must be numbers of 32 bits.
ImageShape check_image(std::int64_t channels, std::int64_t height, std::int64_t width, bool channels_last) {
    constexpr double most = 1 << 30;
    if (channels < 1 || height < 1 || width < 1 ||
        static_cast<double>(channels) * (static_cast<double>(height) + 3) * (static_cast<double>(width) + 3) > most)
        throw InvalidArgument("an image has at least one channel, row and column and at most 2^30 values, got " +
                              std::to_string(channels) + " channels of " + std::to_string(height) + " x " +
                              std::to_string(width));
    return {static_cast<Index>(channels), static_cast<Index>(height), static_cast<Index>(width), channels_last};
}

double check_part(double value, double most, const char* name) {
    if (!(value >= 0.0 && value <= most))
        throw InvalidArgument(std::string(name) + " must be between 0 and " + std::to_string(static_cast<int>(most)) +
                              ", got " + std::to_string(value));
    return value;
}

void images(py::handle X, py::handle rows, py::handle out, std::int64_t channels, std::int64_t height,
            std::int64_t width, bool channels_last, double rotation, double shift, bool flip, bool nearest,
            std::uint64_t seed, std::int64_t step, int threads) {
    check_threads(threads);
    const ImageShape shape = check_image(channels, height, width, channels_last);
    const py::array matrix = sample_matrix(X, "X");
    if (matrix.shape(1) != shape.features())
        throw_shape(X, "X", "(samples, " + std::to_string(shape.features()) + ") for images of this shape");
    const auto chosen = check_rows(rows, matrix.shape(0));
    const auto target = array2<float>(out, "out", chosen.size, shape.features());
    const Index batch = check_index(chosen.size, "the number of rows");
    const ImageChanges changes{check_part(rotation, 180.0, "rotation"), check_part(shift, 1.0, "shift"), flip,
                               nearest ? Fill::nearest : Fill::zero};
    const Stream stream = make_stream(seed, static_cast<int>(Purpose::augment), 0, step);
    with_sample_type(matrix, "X", [&](auto tag) {
        using T = typename decltype(tag)::type;
        const auto strides = whole_strides<T>(matrix, "X");
        unlocked([&] {
            augment_images(static_cast<const T*>(matrix.data()), strides[0], strides[1], chosen.data, batch, shape,
                           changes, stream, target.data, threads);
        });
    });
}

}  // namespace

void bind_augment(py::module_& m) {
    m.def("augment_images", &images, "X"_a, "rows"_a, "out"_a, "channels"_a, "height"_a, "width"_a, "channels_last"_a,
          "rotation"_a, "shift"_a, "flip"_a, "nearest"_a, "seed"_a, "step"_a, "threads"_a);
}

}  // namespace trulysparse::bindings
