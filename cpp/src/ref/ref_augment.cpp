// SPDX-License-Identifier: BSD-3-Clause
#include "ref/ref_augment.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace trulysparse::ref {

namespace {

// In [-1, 1).
double centred(std::uint32_t word) { return static_cast<double>(word >> 8) / 8388608.0 - 1.0; }

std::size_t place(const ImageShape& shape, Index channel, Index y, Index x) {
    const std::int64_t at = shape.channels_last
                                ? (static_cast<std::int64_t>(y) * shape.width + x) * shape.channels + channel
                                : (static_cast<std::int64_t>(channel) * shape.height + y) * shape.width + x;
    return static_cast<std::size_t>(at);
}

double value_at(const std::vector<double>& image, const ImageShape& shape, Fill fill, Index channel, Index y, Index x) {
    const Index inside_y = std::clamp<Index>(y, 0, shape.height - 1),
                inside_x = std::clamp<Index>(x, 0, shape.width - 1);
    if (fill == Fill::zero && (inside_y != y || inside_x != x)) return 0.0;
    return image[place(shape, channel, inside_y, inside_x)];
}

}  // namespace

std::vector<double> augmented(const std::vector<double>& image, const ImageShape& shape, const ImageChanges& changes,
                              const Block& words) {
    const double angle = changes.rotation * 3.14159265358979323846 / 180.0 * centred(words[0]);
    const double dy = changes.shift * shape.height * centred(words[1]);
    const double dx = changes.shift * shape.width * centred(words[2]);
    const bool mirrored = changes.flip && words[3] >= 0x80000000u;
    const double cy = 0.5 * (shape.height - 1), cx = 0.5 * (shape.width - 1);
    std::vector<double> out(image.size());
    for (Index y = 0; y < shape.height; ++y)
        for (Index x = 0; x < shape.width; ++x) {
            const double u = y - cy, v = mirrored ? cx - x : x - cx;
            const double from_y = std::cos(angle) * u + std::sin(angle) * v + cy + dy;
            const double from_x = -std::sin(angle) * u + std::cos(angle) * v + cx + dx;
            const Index top = static_cast<Index>(std::floor(from_y)), left = static_cast<Index>(std::floor(from_x));
            const double down = from_y - top, right = from_x - left;
            for (Index c = 0; c < shape.channels; ++c) {
                const auto at = [&](Index below, Index beside) {
                    return value_at(image, shape, changes.fill, c, top + below, left + beside);
                };
                out[place(shape, c, y, x)] = (1 - down) * ((1 - right) * at(0, 0) + right * at(0, 1)) +
                                             down * ((1 - right) * at(1, 0) + right * at(1, 1));
            }
        }
    return out;
}

}  // namespace trulysparse::ref
