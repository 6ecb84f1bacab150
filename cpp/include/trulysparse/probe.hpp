// SPDX-License-Identifier: BSD-3-Clause
// What this machine can do at most: loops whose speed is the roof that the kernels are measured against. Each returns a
// sum that the caller can check, so that no loop is optimised away.
#pragma once

#include <cstdint>

#include "trulysparse/types.hpp"

namespace trulysparse {

// Each of `threads` items does `rounds` rounds of independent fused multiply-adds acc = a * acc + b from acc = 0.
struct FmaProbe {
    std::int64_t flops;  // done by all items, two a multiply-add
    double sum;          // of all accumulators
};
FmaProbe probe_fma(std::int64_t rounds, float a, float b, int threads);

// Reads n floats in `threads` equal parts, each part `passes` times by one item: a part that fits a core's own cache is
// read from there. Returns passes * sum(data).
double probe_read(const float* data, std::int64_t n, int passes, int threads);

// Reads rows of `matrix` (width floats each, 16 times a power of two) in the given order, prefetching the row that is
// `ahead` places on (0: nothing). Returns the sum of everything read. Items: chunks of the order.
double probe_rows(const float* matrix, Index width, const Index* order, std::int64_t n, std::int64_t ahead,
                  int threads);

}  // namespace trulysparse
