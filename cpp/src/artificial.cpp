// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/artificial.hpp"

#include <algorithm>

#include "isa/table.hpp"
#include "trulysparse/parallel.hpp"

namespace trulysparse {

namespace {

constexpr std::int64_t kNumbers = 4096;  // of one work item
constexpr std::int64_t kRowsTogether = 8;

// Normal numbers [begin, end) of a row; begin is even.
void draw_normal(const KernelTable& kernels, const Stream& s, std::uint64_t row, Index begin, Index end, float* out) {
    const auto low = static_cast<std::uint32_t>(s.seed), high = static_cast<std::uint32_t>(s.seed >> 32);
    const Index pairs = (end - begin) / 2;
    kernels.normals({low, high, s.step, s.tag(), static_cast<std::uint32_t>(row), static_cast<std::uint32_t>(begin / 2),
                     pairs, out});
    if ((end - begin) % 2 != 0) out[2 * pairs] = normal2(draw(s, row << 32 | static_cast<std::uint64_t>(end / 2)))[0];
}

// out (n, to) += in (n, from) matrix (from, to), in the order of `from` for each element.
void multiply(const float* in, std::int64_t n, Index from, const float* matrix, Index to, float* out) {
    for (Index i = 0; i < from; ++i) {
        const float* row = matrix + static_cast<std::int64_t>(i) * to;
        for (std::int64_t r = 0; r < n; ++r) {
            const float value = in[r * from + i];
            float* sums = out + r * to;
            for (Index j = 0; j < to; ++j) sums[j] += value * row[j];
        }
    }
}

}  // namespace

void draw_uniform(const Stream& s, std::uint64_t first, std::int64_t n, float* out, int threads) {
    parallel_for((n + kNumbers - 1) / kNumbers, threads, [&](std::int64_t item, int) {
        const std::int64_t begin = item * kNumbers, end = std::min(n, begin + kNumbers);
        Block block{};
        for (std::int64_t k = begin; k < end; ++k) {
            const std::uint64_t number = first + static_cast<std::uint64_t>(k);
            if (k == begin || number % 4 == 0) block = draw(s, number / 4);
            out[k] = uniform24(block[number % 4]);
        }
    });
}

void draw_noise(const Stream& s, std::uint64_t first_row, std::int64_t rows, Index columns, float* out, int threads) {
    const KernelTable& kernels = active_kernels();
    const std::int64_t pieces = (columns + kNumbers - 1) / kNumbers;
    parallel_for(rows * pieces, threads, [&](std::int64_t item, int) {
        const std::int64_t row = item / pieces, begin = item % pieces * kNumbers;
        const std::int64_t end = std::min<std::int64_t>(columns, begin + kNumbers);
        draw_normal(kernels, s, first_row + static_cast<std::uint64_t>(row), static_cast<Index>(begin),
                    static_cast<Index>(end), out + row * columns + begin);
    });
}

void place_cluster(const Stream& s, const Cluster& cluster, const std::int64_t* chosen, std::int64_t n,
                   std::int64_t first_row, Index columns, float* out, int threads) {
    const KernelTable& kernels = active_kernels();
    const Index own = cluster.informative, more = cluster.redundant;
    parallel_for((n + kRowsTogether - 1) / kRowsTogether, threads, [&](std::int64_t item, int) {
        const std::int64_t* rows = chosen + item * kRowsTogether;
        const std::int64_t count = std::min(kRowsTogether, n - item * kRowsTogether);
        const auto floats = [&](Index each) {
            return static_cast<std::size_t>(count) * static_cast<std::size_t>(each);
        };
        Buffer<float> z(floats(own)), x(floats(own), 0.0f), u(floats(more), 0.0f);
        for (std::int64_t r = 0; r < count; ++r)
            draw_normal(kernels, s, static_cast<std::uint64_t>(rows[r]), 0, own, z.data() + r * own);
        multiply(z.data(), count, own, cluster.mixing, own, x.data());
        for (std::int64_t r = 0; r < count; ++r)
            for (Index j = 0; j < own; ++j) x[static_cast<std::size_t>(r * own + j)] += cluster.centroid[j];
        multiply(x.data(), count, own, cluster.combining, more, u.data());
        for (std::int64_t r = 0; r < count; ++r) {
            float* row = out + (rows[r] - first_row) * columns;
            for (Index j = 0; j < own; ++j) row[cluster.places[j]] = x[static_cast<std::size_t>(r * own + j)];
            for (Index j = 0; j < more; ++j) row[cluster.places[own + j]] = u[static_cast<std::size_t>(r * more + j)];
        }
    });
}

}  // namespace trulysparse
