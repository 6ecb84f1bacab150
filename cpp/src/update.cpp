// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/update.hpp"

#include <vector>

#include "isa/table.hpp"
#include "trulysparse/parallel.hpp"

namespace trulysparse {

namespace {

constexpr std::uint64_t kBlock = 16384;  // elements a work item

// body(begin, count, block number) for blocks of fixed size.
template <class Body>
void for_blocks(std::uint64_t n, int threads, Body body) {
    const std::int64_t blocks = static_cast<std::int64_t>((n + kBlock - 1) / kBlock);
    if (blocks < threads) threads = blocks > 0 ? static_cast<int>(blocks) : 1;
    parallel_for(blocks, threads, [&](std::int64_t block, int) {
        const std::uint64_t begin = static_cast<std::uint64_t>(block) * kBlock;
        body(begin, static_cast<std::int64_t>(n - begin < kBlock ? n - begin : kBlock),
             static_cast<std::size_t>(block));
    });
}

}  // namespace

void sgd_step(float* w, float* v, const float* g, std::uint64_t n, const SgdParams& p, int threads) {
    const KernelTable& kernels = active_kernels();
    for_blocks(n, threads, [&](std::uint64_t at, std::int64_t count, std::size_t) {
        kernels.sgd(w + at, v + at, g + at, count, p);
    });
}

void adam_step(float* w, float* m, float* v, const float* g, std::uint64_t n, const AdamParams& p, int threads) {
    const KernelTable& kernels = active_kernels();
    for_blocks(n, threads, [&](std::uint64_t at, std::int64_t count, std::size_t) {
        kernels.adam(w + at, m + at, v + at, g + at, count, p);
    });
}

double sum_of_squares(const float* g, std::uint64_t n, int threads) {
    std::vector<double> parts(static_cast<std::size_t>((n + kBlock - 1) / kBlock));
    for_blocks(n, threads, [&](std::uint64_t at, std::int64_t count, std::size_t block) {
        const float* values = g + at;
        double lanes[8] = {};
        std::int64_t i = 0;
        for (; i + 8 <= count; i += 8)
            for (int l = 0; l < 8; ++l)
                lanes[l] += static_cast<double>(values[i + l]) * static_cast<double>(values[i + l]);
        for (; i < count; ++i) lanes[0] += static_cast<double>(values[i]) * static_cast<double>(values[i]);
        for (int width = 4; width > 0; width /= 2)
            for (int l = 0; l < width; ++l) lanes[l] += lanes[l + width];
        parts[block] = lanes[0];
    });
    double sum = 0.0;
    for (double part : parts) sum += part;
    return sum;
}

void scale(float* g, std::uint64_t n, float factor, int threads) {
    for_blocks(n, threads, [&](std::uint64_t at, std::int64_t count, std::size_t) {
        float* values = g + at;
        for (std::int64_t i = 0; i < count; ++i) values[i] *= factor;
    });
}

}  // namespace trulysparse
