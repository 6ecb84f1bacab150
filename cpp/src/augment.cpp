// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/augment.hpp"

#include <algorithm>
#include <cstddef>
#include <type_traits>
#include <vector>

#include "elementary.hpp"
#include "trulysparse/parallel.hpp"

namespace trulysparse {

namespace {

constexpr std::int64_t kParallelElements = 1 << 14;
constexpr Index kBorder = 1,
                kBorders = 3;  // before, and before and after: a corner's neighbours exist without a branch

// Up to four channels of a pixel, which share coordinates and weights. A struct, because templates drop attributes.
struct Four {
    float values __attribute__((vector_size(16)));
};
inline Four operator+(const Four& a, const Four& b) { return {a.values + b.values}; }
inline Four operator-(const Four& a, const Four& b) { return {a.values - b.values}; }
inline Four operator*(const Four& a, const Four& b) { return {a.values * b.values}; }

template <class Pixel>
constexpr Index kChannels = static_cast<Index>(sizeof(Pixel) / sizeof(float));

inline void broadcast(float value, float& to) { to = value; }
inline void broadcast(float value, Four& to) { to.values = decltype(to.values){value, value, value, value}; }
inline void set_channel(float& pixel, Index, float value) { pixel = value; }
inline void set_channel(Four& pixel, Index channel, float value) { pixel.values[channel] = value; }
inline float get_channel(float pixel, Index) { return pixel; }
inline float get_channel(const Four& pixel, Index channel) { return pixel.values[channel]; }

std::size_t size_of(Index n) { return static_cast<std::size_t>(n); }

double centred(std::uint32_t word) { return 2.0 * static_cast<double>(uniform24(word)) - 1.0; }

// The map from a pixel's place to that of its source, of one image.
struct Warp {
    double sine, cosine, dy, dx;
    bool mirrored;

    Warp(const Block& words, const ImageShape& shape, const ImageChanges& changes) {
        const double turns = changes.rotation / 360.0 * centred(words[0]);
        portable_sincos(turns < 0.0 ? -turns : turns, sine, cosine);
        if (turns < 0.0) sine = -sine;
        dy = changes.shift * shape.height * centred(words[1]);
        dx = changes.shift * shape.width * centred(words[2]);
        mirrored = changes.flip && (words[3] >> 31) != 0;
    }
};

// What one thread works in: the source with its border, and a row of coordinates, weights and results.
template <class Pixel>
struct Scratch {
    Index columns;  // of the source with its border
    Buffer<Pixel> source, row;
    Buffer<std::int32_t> corner;
    Buffer<float> down, right;

    Scratch() = default;
    explicit Scratch(const ImageShape& shape)
        : columns(shape.width + kBorders),
          source(size_of(columns) * size_of(shape.height + kBorders)),
          row(size_of(shape.width)),
          corner(size_of(shape.width)),
          down(size_of(shape.width)),
          right(size_of(shape.width)) {}
};

template <class Pixel>
void surround(Scratch<Pixel>& scratch, const ImageShape& shape, Fill fill) {
    const std::size_t columns = size_of(scratch.columns), width = size_of(shape.width);
    Pixel* const source = scratch.source.data();
    Pixel nothing;
    broadcast(0.0f, nothing);
    for (Index y = 0; y < shape.height; ++y) {
        Pixel* const line = source + size_of(y + kBorder) * columns;
        const Pixel left = fill == Fill::nearest ? line[1] : nothing;
        const Pixel right = fill == Fill::nearest ? line[width] : nothing;
        line[0] = left;
        line[width + 1] = line[width + 2] = right;
    }
    const auto line_at = [&](Index y) { return source + size_of(y) * columns; };
    for (Index y : {Index{0}, shape.height + 1, shape.height + 2}) {
        const Pixel* const edge = line_at(y == 0 ? 1 : shape.height);
        for (std::size_t x = 0; x < columns; ++x) line_at(y)[x] = fill == Fill::nearest ? edge[x] : nothing;
    }
}

template <class Pixel, class T>
void read(const T* from, std::int64_t stride, const ImageShape& shape, Index first, Scratch<Pixel>& scratch) {
    const Index count = std::min<Index>(shape.channels - first, kChannels<Pixel>);
    const std::int64_t area = static_cast<std::int64_t>(shape.height) * shape.width;
    const std::int64_t channel_step = stride * (shape.channels_last ? 1 : area);
    const std::int64_t pixel_step = stride * (shape.channels_last ? shape.channels : 1);
    from += first * channel_step;
    for (Index y = 0; y < shape.height; ++y) {
        Pixel* const line = scratch.source.data() + size_of(y + kBorder) * size_of(scratch.columns) + kBorder;
        const T* const at = from + static_cast<std::int64_t>(y) * shape.width * pixel_step;
        const auto fill = [&](auto known) {
            for (Index x = 0; x < shape.width; ++x) {
                Pixel pixel;
                broadcast(0.0f, pixel);
                for (Index c = 0; c < known; ++c)
                    set_channel(pixel, c, static_cast<float>(at[x * pixel_step + c * channel_step]));
                line[x] = pixel;
            }
        };
        if (kChannels<Pixel> == 4 && count == 3)
            fill(std::integral_constant<Index, 3>{});
        else
            fill(count);
    }
}

// Upper left neighbours and weights of the sources of one row, clamped to the border.
template <class Pixel>
void locate(const Warp& warp, const ImageShape& shape, Index y, Scratch<Pixel>& scratch) {
    const float centre = 0.5f * static_cast<float>(shape.width - 1);
    const double cy = 0.5 * (shape.height - 1), u = y - cy;
    const float row_y = static_cast<float>(warp.cosine * u + (cy + warp.dy + kBorder));
    const float row_x = static_cast<float>(-warp.sine * u + (0.5 * (shape.width - 1) + warp.dx + kBorder));
    const float sine = static_cast<float>(warp.mirrored ? -warp.sine : warp.sine);
    const float cosine = static_cast<float>(warp.mirrored ? -warp.cosine : warp.cosine);
    const float low = static_cast<float>(shape.height + kBorder), far = static_cast<float>(shape.width + kBorder);
    const std::int32_t columns = scratch.columns;
    std::int32_t* __restrict corner = scratch.corner.data();
    float* __restrict down = scratch.down.data();
    float* __restrict right = scratch.right.data();
    for (Index x = 0; x < shape.width; ++x) {
        const float v = static_cast<float>(x) - centre;
        float at_y = row_y + sine * v, at_x = row_x + cosine * v;
        at_y = at_y > 0.0f ? at_y : 0.0f;
        at_x = at_x > 0.0f ? at_x : 0.0f;
        at_y = at_y < low ? at_y : low;
        at_x = at_x < far ? at_x : far;
        const std::int32_t whole_y = static_cast<std::int32_t>(at_y), whole_x = static_cast<std::int32_t>(at_x);
        down[x] = at_y - static_cast<float>(whole_y);
        right[x] = at_x - static_cast<float>(whole_x);
        corner[x] = whole_y * columns + whole_x;
    }
}

template <class Pixel>
void sample(Index width, Scratch<Pixel>& scratch) {
    const std::size_t columns = size_of(scratch.columns);
    const Pixel* const source = scratch.source.data();
    Pixel* __restrict row = scratch.row.data();
    for (Index x = 0; x < width; ++x) {
        const Pixel* const at = source + scratch.corner[size_of(x)];
        Pixel down, right;
        broadcast(scratch.down[size_of(x)], down);
        broadcast(scratch.right[size_of(x)], right);
        const Pixel upper = at[0] + right * (at[1] - at[0]);
        const Pixel lower = at[columns] + right * (at[columns + 1] - at[columns]);
        row[x] = upper + down * (lower - upper);
    }
}

template <class Pixel>
void write(const Scratch<Pixel>& scratch, const ImageShape& shape, Index first, Index y, float* out) {
    const Index count = std::min<Index>(shape.channels - first, kChannels<Pixel>), width = shape.width;
    const Pixel* const row = scratch.row.data();
    if (shape.channels_last) {
        float* at = out + size_of(y) * size_of(width) * size_of(shape.channels) + first;
        for (Index x = 0; x < width; ++x, at += shape.channels)
            for (Index c = 0; c < count; ++c) at[c] = get_channel(row[x], c);
        return;
    }
    for (Index c = 0; c < count; ++c) {
        float* __restrict at = out + (size_of(first + c) * size_of(shape.height) + size_of(y)) * size_of(width);
        const float* __restrict from = reinterpret_cast<const float*>(row) + c;
        for (Index x = 0; x < width; ++x) at[x] = from[x * kChannels<Pixel>];
    }
}

template <class Pixel, class T>
void augment(const T* X, std::int64_t row_stride, std::int64_t col_stride, const std::int64_t* rows, Index batch,
             const ImageShape& shape, const ImageChanges& changes, const Stream& stream, float* out, int threads) {
    const std::int64_t features = shape.features();
    if (features * batch < kParallelElements) threads = 1;
    threads = std::max(1, std::min(std::min(threads, kMostThreads), static_cast<int>(batch)));
    std::vector<Scratch<Pixel>> scratches(size_of(threads));
    for (Scratch<Pixel>& scratch : scratches) scratch = Scratch<Pixel>(shape);
    parallel_for(batch, threads, [&](std::int64_t item, int thread) {
        Scratch<Pixel>& scratch = scratches[static_cast<std::size_t>(thread)];
        const std::int64_t row = rows[item];
        const Warp warp(draw(stream, static_cast<std::uint64_t>(row)), shape, changes);
        float* const image = out + static_cast<std::size_t>(item) * static_cast<std::size_t>(features);
        for (Index first = 0; first < shape.channels; first += kChannels<Pixel>) {
            read(X + row * row_stride, col_stride, shape, first, scratch);
            surround(scratch, shape, changes.fill);
            for (Index y = 0; y < shape.height; ++y) {
                locate(warp, shape, y, scratch);
                sample(shape.width, scratch);
                write(scratch, shape, first, y, image);
            }
        }
    });
}

}  // namespace

template <class T>
void augment_images(const T* X, std::int64_t row_stride, std::int64_t col_stride, const std::int64_t* rows, Index batch,
                    const ImageShape& shape, const ImageChanges& changes, const Stream& stream, float* out,
                    int threads) {
    if (batch == 0 || shape.features() == 0) return;
    const auto run = shape.channels == 1 ? augment<float, T> : augment<Four, T>;
    run(X, row_stride, col_stride, rows, batch, shape, changes, stream, out, threads);
}

#define TS_AUGMENT(T)                                                                                                 \
    template void augment_images(const T*, std::int64_t, std::int64_t, const std::int64_t*, Index, const ImageShape&, \
                                 const ImageChanges&, const Stream&, float*, int);
TS_AUGMENT(std::uint8_t)
TS_AUGMENT(std::int8_t)
TS_AUGMENT(std::uint16_t)
TS_AUGMENT(std::int16_t)
TS_AUGMENT(std::int32_t)
TS_AUGMENT(std::int64_t)
TS_AUGMENT(float)
TS_AUGMENT(double)

}  // namespace trulysparse
