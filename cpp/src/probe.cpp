// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/probe.hpp"

#include <algorithm>
#include <vector>

#include "isa/table.hpp"
#include "trulysparse/parallel.hpp"

namespace trulysparse {

namespace {

constexpr std::int64_t kChunk = 2048;      // rows of one call
constexpr std::int64_t kPart = 1 << 16;    // floats of one call: single precision sums stay short
constexpr std::int64_t kRounds = 1 << 20;  // rounds of one call
constexpr std::size_t kDoublesOfLine = 8;  // items add to sums on cache lines of their own

double total(const std::vector<double>& sums) {
    double sum = 0.0;
    for (std::size_t i = 0; i < sums.size(); i += kDoublesOfLine) sum += sums[i];
    return sum;
}

}  // namespace

FmaProbe probe_fma(std::int64_t rounds, float a, float b, int threads) {
    const KernelTable& kernels = active_kernels();
    std::vector<double> sums(static_cast<std::size_t>(threads) * kDoublesOfLine);
    parallel_for(threads, threads, [&](std::int64_t item, int) {
        double sum = 0.0;
        for (std::int64_t done = 0; done < rounds; done += kRounds)
            sum += static_cast<double>(kernels.fma_rounds(std::min(kRounds, rounds - done), a, b));
        sums[static_cast<std::size_t>(item) * kDoublesOfLine] = sum;
    });
    return {2 * rounds * kernels.fma_width * threads, total(sums)};
}

double probe_read(const float* data, std::int64_t n, int passes, int threads) {
    const KernelTable& kernels = active_kernels();
    std::vector<double> sums(static_cast<std::size_t>(threads) * kDoublesOfLine);
    parallel_for(threads, threads, [&](std::int64_t item, int) {
        const std::int64_t begin = n * item / threads, end = n * (item + 1) / threads;
        double sum = 0.0;
        for (int pass = 0; pass < passes; ++pass)
            for (std::int64_t i = begin; i < end; i += kPart)
                sum += static_cast<double>(kernels.sum_floats(data + i, std::min(kPart, end - i)));
        sums[static_cast<std::size_t>(item) * kDoublesOfLine] = sum;
    });
    return total(sums);
}

double probe_rows(const float* matrix, Index width, const Index* order, std::int64_t n, std::int64_t ahead,
                  int threads) {
    const KernelTable& kernels = active_kernels();
    const std::int64_t chunks = (n + kChunk - 1) / kChunk;
    std::vector<double> sums(static_cast<std::size_t>(chunks) * kDoublesOfLine);
    parallel_for(chunks, threads, [&](std::int64_t chunk, int) {
        const std::int64_t begin = chunk * kChunk;
        sums[static_cast<std::size_t>(chunk) * kDoublesOfLine] = static_cast<double>(
            kernels.sum_rows(matrix, width, order + begin, std::min(kChunk, n - begin), ahead, n - begin));
    });
    return total(sums);
}

}  // namespace trulysparse
