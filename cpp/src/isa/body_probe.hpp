// SPDX-License-Identifier: BSD-3-Clause
// The loops of probe.hpp: nothing but multiply-adds, nothing but loads.
#pragma once

#include <cstddef>

namespace trulysparse {
namespace TRULYSPARSE_ISA_NAMESPACE {

constexpr int kChains = 12;    // latency times issue width, and few enough for sixteen registers
constexpr int kProbeSums = 8;  // sums under way when only loading

TS_INLINE float sum_all(Vec (&part)[kProbeSums]) {
    for (int width = kProbeSums / 2; width > 0; width /= 2)
        for (int v = 0; v < width; ++v) part[v] = add(part[v], part[v + width]);
    return sum(part[0]);
}

static float fma_rounds_body(std::int64_t rounds, float a, float b) {
    const Vec factor = set1(a), term = set1(b);
    Vec chain[kChains];
    for (int c = 0; c < kChains; ++c) chain[c] = zero();
    for (std::int64_t r = 0; r < rounds; ++r)
        for (int c = 0; c < kChains; ++c) chain[c] = fma(factor, chain[c], term);
    float total = 0.0f;
    for (int c = 0; c < kChains; ++c) total += sum(chain[c]);
    return total;
}

static float sum_floats_body(const float* p, std::int64_t n) {
    Vec part[kProbeSums];
    for (int v = 0; v < kProbeSums; ++v) part[v] = zero();
    std::int64_t i = 0;
    for (; i + kProbeSums * kWidth <= n; i += kProbeSums * kWidth)
        for (int v = 0; v < kProbeSums; ++v) part[v] = add(part[v], load(p + i + v * kWidth));
    for (; i < n; i += kWidth) part[0] = add(part[0], n - i < kWidth ? load_first(p + i, n - i) : load(p + i));
    return sum_all(part);
}

template <int N>
TS_INLINE void add_row(const float* row, Vec* part) {
    for (int v = 0; v < N; ++v) part[v] = add(part[v], load(row + v * kWidth));
}

// Rows of N vectors, kProbeSums / N at a time.
template <int N, bool Prefetch>
TS_INLINE void add_rows(const float* matrix, std::size_t ld, const Index* order, std::int64_t n, std::int64_t ahead,
                        Vec (&part)[kProbeSums]) {
    constexpr int kRows = kProbeSums / N;
    std::int64_t k = 0;
    for (; k + kRows <= n; k += kRows)
        for (int r = 0; r < kRows; ++r) {
            if (Prefetch) {
                const float* next = matrix + static_cast<std::size_t>(order[k + r + ahead]) * ld;
                for (int i = 0; i < N * kWidth; i += 16) __builtin_prefetch(next + i);
            }
            add_row<N>(matrix + static_cast<std::size_t>(order[k + r]) * ld, part + r * N);
        }
    for (; k < n; ++k) add_row<N>(matrix + static_cast<std::size_t>(order[k]) * ld, part);
}

// width: 16 times a power of two; pieces of at most kProbeSums vectors. `readable` entries of order exist.
template <int N = kProbeSums>
static float sum_rows_body(const float* matrix, Index width, const Index* order, std::int64_t n, std::int64_t ahead,
                           std::int64_t readable) {
    if constexpr (N * kWidth > 16) {
        if (width < N * kWidth) return sum_rows_body<N / 2>(matrix, width, order, n, ahead, readable);
    }
    Vec part[kProbeSums];
    for (int v = 0; v < kProbeSums; ++v) part[v] = zero();
    const std::size_t ld = static_cast<std::size_t>(width);
    const bool prefetch = ahead > 0 && n + ahead <= readable;
    if (width > N * kWidth) {
        for (std::int64_t k = 0; k < n; ++k) {
            const float* row = matrix + static_cast<std::size_t>(order[k]) * ld;
            const float* next = matrix + static_cast<std::size_t>(order[prefetch ? k + ahead : k]) * ld;
            for (Index col = 0; col < width; col += N * kWidth) {
                if (prefetch)
                    for (int i = 0; i < N * kWidth; i += 16) __builtin_prefetch(next + col + i);
                add_row<N>(row + col, part);
            }
        }
    } else if (prefetch) {
        add_rows<N, true>(matrix, ld, order, n, ahead, part);
    } else {
        add_rows<N, false>(matrix, ld, order, n, ahead, part);
    }
    return sum_all(part);
}

}  // namespace TRULYSPARSE_ISA_NAMESPACE
}  // namespace trulysparse
