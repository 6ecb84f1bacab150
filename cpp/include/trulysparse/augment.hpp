// SPDX-License-Identifier: BSD-3-Clause
// Images turned, shifted and mirrored at random, as whole rows of samples.
#pragma once

#include <cstdint>

#include "trulysparse/rng.hpp"
#include "trulysparse/types.hpp"

namespace trulysparse {

// How the features of a sample are a picture: planes one after the other, or the channels of a pixel side by side.
struct ImageShape {
    Index channels = 1, height = 0, width = 0;
    bool channels_last = false;
    std::int64_t features() const { return static_cast<std::int64_t>(channels) * height * width; }
};

// What a picture continues as beyond its edges.
enum class Fill : std::uint8_t { nearest, zero };

// Bounds of what is drawn: degrees in [0, 180], parts of height and width in [0, 1].
struct ImageChanges {
    double rotation = 0.0, shift = 0.0;
    bool flip = false;
    Fill fill = Fill::nearest;
};

// out[b] = the picture X[rows[b]] at (y, x) = (cos u + sin v + cy + dy, -sin u + cos v + cx + dx), bilinear, where
// (u, v) is the place of the pixel from the centre (cy, cx), v with its sign changed if the picture is mirrored. Of the
// draw with index rows[b]: word 0 gives the angle, uniform in [-rotation, rotation), 1 and 2 give dy and dx, uniform in
// shift * [-height, height) and shift * [-width, width), the highest bit of word 3 whether it is mirrored.
// X: T in {u8, i8, u16, i16, i32, i64, f32, f64}; strides in elements. out: (batch, features). An item is an image.
template <class T>
void augment_images(const T* X, std::int64_t row_stride, std::int64_t col_stride, const std::int64_t* rows, Index batch,
                    const ImageShape& shape, const ImageChanges& changes, const Stream& stream, float* out,
                    int threads);

}  // namespace trulysparse
