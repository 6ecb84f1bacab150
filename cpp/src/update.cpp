// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/update.hpp"

#include <cmath>
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

void adam_step_aged(float* w, float* m, float* v, float* age, const float* g, std::uint64_t n, const AdamParams& p,
                    int threads) {
    // From this age on both corrections are 1 in float32; so long is the table of them, built anew for other betas.
    struct Corrections {
        float beta1 = -1.0f, beta2 = -1.0f;
        std::vector<float> first, second;
    };
    thread_local Corrections table;
    if (table.beta1 != p.beta1 || table.beta2 != p.beta2) {
        table.first.assign(1, 1.0f);
        table.second.assign(1, 1.0f);
        double left1 = 1.0, left2 = 1.0;
        do {
            left1 *= static_cast<double>(p.beta1);
            left2 *= static_cast<double>(p.beta2);
            table.first.push_back(static_cast<float>(1.0 - left1));
            table.second.push_back(static_cast<float>(1.0 - left2));
        } while ((table.first.back() != 1.0f || table.second.back() != 1.0f) && table.first.size() < (1u << 24));
        table.beta1 = p.beta1;
        table.beta2 = p.beta2;
    }
    const float* const first = table.first.data();
    const float* const second = table.second.data();
    const float oldest = static_cast<float>(table.first.size() - 1);
    const float l2 = p.l2 + (p.decoupled ? 0.0f : p.decay), shrink = p.decoupled ? p.lr * p.decay : 0.0f;
    for_blocks(n, threads, [&](std::uint64_t at, std::int64_t count, std::size_t) {
        for (std::uint64_t k = at; k < at + static_cast<std::uint64_t>(count); ++k) {
            age[k] = age[k] < oldest ? age[k] + 1.0f : oldest;
            const std::size_t own = static_cast<std::size_t>(age[k]);
            const float gradient = g[k] + l2 * w[k];
            m[k] = p.beta1 * m[k] + (1.0f - p.beta1) * gradient;
            v[k] = p.beta2 * v[k] + (1.0f - p.beta2) * gradient * gradient;
            const float step = p.lr * (m[k] / first[own]) / (std::sqrt(v[k] / second[own]) + p.eps);
            w[k] = w[k] - step - shrink * w[k];
        }
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

void average(const float* const* arrays, std::size_t count, float* out, std::uint64_t n, int threads) {
    const KernelTable& kernels = active_kernels();
    for_blocks(n, threads, [&](std::uint64_t at, std::int64_t size, std::size_t) {
        kernels.average(arrays, count, static_cast<std::int64_t>(at), out, size);
    });
}

}  // namespace trulysparse
