// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/augment.hpp"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <vector>

#include "elementary.hpp"
#include "trulysparse/parallel.hpp"

namespace trulysparse {

namespace {

constexpr std::int64_t kParallelElements = 1 << 14;
constexpr Index kBorder = 1,
                kBorders = 3;  // before, and before and after: a corner's neighbours exist without a branch

typedef float Floats __attribute__((vector_size(16)));
typedef std::int32_t Integers __attribute__((vector_size(16)));
constexpr Index kLanes = 4;

// Up to four channels of a pixel, which share coordinates and weights. A struct, because templates drop attributes.
struct Four {
    Floats values;
};
inline Four operator+(const Four& a, const Four& b) { return {a.values + b.values}; }
inline Four operator-(const Four& a, const Four& b) { return {a.values - b.values}; }
inline Four operator*(const Four& a, const Four& b) { return {a.values * b.values}; }

template <class Pixel>
constexpr Index kChannels = static_cast<Index>(sizeof(Pixel) / sizeof(float));

inline Floats all(float value) { return Floats{value, value, value, value}; }
inline void broadcast(float value, float& to) { to = value; }
inline void broadcast(float value, Four& to) { to.values = all(value); }

#if defined(__clang__)
#define TS_SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define TS_SHUFFLE(a, b, i, j, k, l) __builtin_shuffle(a, b, Integers{i, j, k, l})
#endif

// Four pixels of four channels become four channels of four pixels, and back.
inline void transpose(Floats* v) {
    const Floats ab0 = TS_SHUFFLE(v[0], v[1], 0, 4, 1, 5), ab1 = TS_SHUFFLE(v[0], v[1], 2, 6, 3, 7);
    const Floats cd0 = TS_SHUFFLE(v[2], v[3], 0, 4, 1, 5), cd1 = TS_SHUFFLE(v[2], v[3], 2, 6, 3, 7);
    v[0] = TS_SHUFFLE(ab0, cd0, 0, 1, 4, 5);
    v[1] = TS_SHUFFLE(ab0, cd0, 2, 3, 6, 7);
    v[2] = TS_SHUFFLE(ab1, cd1, 0, 1, 4, 5);
    v[3] = TS_SHUFFLE(ab1, cd1, 2, 3, 6, 7);
}

#undef TS_SHUFFLE

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

// What one thread works in: the source with its border, and a row of coordinates, weights and results. Rows are whole
// vectors: what lies beyond the width is computed too, and not looked at.
template <class Pixel>
struct Scratch {
    Index columns = 0;  // of the source with its border
    Index padded = 0;   // pixels of a row
    Buffer<Pixel> source, row;
    Buffer<std::int32_t> corner;
    Buffer<float> down, right, planes;

    Scratch() = default;
    explicit Scratch(const ImageShape& shape)
        : columns(shape.width + kBorders),
          padded((shape.width + kLanes - 1) / kLanes * kLanes),
          source(size_of(columns) * size_of(shape.height + kBorders) + kLanes),
          row(size_of(padded)),
          corner(size_of(padded)),
          down(size_of(padded)),
          right(size_of(padded)),
          planes(size_of(padded) * kLanes, 0.0f) {}
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

// A row of one channel after the other: `row` gets kChannels<Pixel> of them side by side. `planes` is (4, padded).
inline void interleave(const float* planes, Index padded, float* row) {
    std::memcpy(row, planes, size_of(padded) * sizeof(float));
}
inline void interleave(const float* planes, Index padded, Four* row) {
    for (Index x = 0; x < padded; x += kLanes) {
        Floats v[4];
        for (Index c = 0; c < 4; ++c) std::memcpy(&v[c], planes + size_of(c) * size_of(padded) + x, sizeof v[c]);
        transpose(v);
        std::memcpy(row + x, v, sizeof v);
    }
}
inline void separate(const float* row, Index padded, float* planes) {
    std::memcpy(planes, row, size_of(padded) * sizeof(float));
}
inline void separate(const Four* row, Index padded, float* planes) {
    for (Index x = 0; x < padded; x += kLanes) {
        Floats v[4];
        std::memcpy(v, row + x, sizeof v);
        transpose(v);
        for (Index c = 0; c < 4; ++c) std::memcpy(planes + size_of(c) * size_of(padded) + x, &v[c], sizeof v[c]);
    }
}

template <class Pixel, class T>
void read(const T* from, std::int64_t stride, const ImageShape& shape, Index first, Scratch<Pixel>& scratch) {
    const Index count = std::min<Index>(shape.channels - first, kChannels<Pixel>), width = shape.width;
    const std::int64_t area = static_cast<std::int64_t>(shape.height) * width;
    const std::int64_t channel_step = stride * (shape.channels_last ? 1 : area);
    const std::int64_t pixel_step = stride * (shape.channels_last ? shape.channels : 1);
    from += first * channel_step;
    for (Index c = count; c < kChannels<Pixel>; ++c) {
        float* const plane = scratch.planes.data() + size_of(c) * size_of(scratch.padded);
        std::fill(plane, plane + scratch.padded, 0.0f);
    }
    // Rows from above to below: what is written beyond the end of one is written again with the next.
    for (Index y = 0; y < shape.height; ++y) {
        for (Index c = 0; c < count; ++c) {
            const T* __restrict at = from + c * channel_step + y * width * pixel_step;
            float* __restrict plane = scratch.planes.data() + size_of(c) * size_of(scratch.padded);
            if (pixel_step == 1)
                for (Index x = 0; x < width; ++x) plane[x] = static_cast<float>(at[x]);
            else
                for (Index x = 0; x < width; ++x) plane[x] = static_cast<float>(at[x * pixel_step]);
        }
        interleave(scratch.planes.data(), scratch.padded,
                   scratch.source.data() + size_of(y + kBorder) * size_of(scratch.columns) + kBorder);
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
    const Floats nothing = all(0.0f), lowest = all(low), farthest = all(far);
    Floats v = Floats{0.0f, 1.0f, 2.0f, 3.0f} - centre;
    for (Index x = 0; x < scratch.padded; x += kLanes, v += 4.0f) {
        Floats at_y = row_y + sine * v, at_x = row_x + cosine * v;
        at_y = at_y > nothing ? at_y : nothing;
        at_x = at_x > nothing ? at_x : nothing;
        at_y = at_y < lowest ? at_y : lowest;
        at_x = at_x < farthest ? at_x : farthest;
        const Integers whole_y = __builtin_convertvector(at_y, Integers);
        const Integers whole_x = __builtin_convertvector(at_x, Integers);
        const Integers corners = whole_y * columns + whole_x;
        const Floats part_y = at_y - __builtin_convertvector(whole_y, Floats);
        const Floats part_x = at_x - __builtin_convertvector(whole_x, Floats);
        std::memcpy(corner + x, &corners, sizeof corners);
        std::memcpy(down + x, &part_y, sizeof part_y);
        std::memcpy(right + x, &part_x, sizeof part_x);
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
void write(Scratch<Pixel>& scratch, const ImageShape& shape, Index first, Index y, float* out) {
    const Index count = std::min<Index>(shape.channels - first, kChannels<Pixel>), width = shape.width;
    if (shape.channels_last) {
        float* at = out + size_of(y) * size_of(width) * size_of(shape.channels) + first;
        const Pixel* const row = scratch.row.data();
        if (count == 3)  // a length that the compiler knows costs no call
            for (Index x = 0; x < width; ++x, at += shape.channels) std::memcpy(at, row + x, 3 * sizeof(float));
        else
            for (Index x = 0; x < width; ++x, at += shape.channels)
                std::memcpy(at, row + x, size_of(count) * sizeof(float));
        return;
    }
    separate(scratch.row.data(), scratch.padded, scratch.planes.data());
    for (Index c = 0; c < count; ++c)
        std::memcpy(out + (size_of(first + c) * size_of(shape.height) + size_of(y)) * size_of(width),
                    scratch.planes.data() + size_of(c) * size_of(scratch.padded), size_of(width) * sizeof(float));
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
