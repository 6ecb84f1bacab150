// SPDX-License-Identifier: BSD-3-Clause
// Sorted random cells. Draws are uniform, so buckets by their high bits are even and sorting takes linear time.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "blocks.hpp"
#include "trulysparse/parallel.hpp"
#include "trulysparse/rng.hpp"
#include "trulysparse/types.hpp"

namespace trulysparse {

// How far to shift values in [0, bound) right so that they index at most `buckets` buckets.
inline int bucket_shift(std::uint64_t bound, std::uint64_t buckets) {
    int shift = 0;
    while (bound > 0 && (bound - 1) >> shift >= buckets) ++shift;
    return shift;
}

// Sorts n values of [low, low + width), uniform or repeated, in place.
inline void sort_uniform(std::uint64_t* values, std::uint64_t n, std::uint64_t low, std::uint64_t width,
                         std::vector<std::uint64_t>& copy, std::vector<std::uint32_t>& starts) {
    if (n > 32) {
        const int shift = bucket_shift(width, 4 * n);  // few share a place: what is left to sort costs no branches
        copy.assign(values, values + n);
        starts.assign(((width - 1) >> shift) + 2, 0);
        for (std::uint64_t i = 0; i < n; ++i) ++starts[((copy[i] - low) >> shift) + 1];
        for (std::size_t b = 1; b < starts.size(); ++b) starts[b] += starts[b - 1];
        for (std::uint64_t i = 0; i < n; ++i) values[starts[(copy[i] - low) >> shift]++] = copy[i];
    }
    for (std::uint64_t i = 1; i < n; ++i) {
        const std::uint64_t value = values[i];
        std::uint64_t at = i;
        for (; at > 0 && values[at - 1] > value; --at) values[at] = values[at - 1];
        values[at] = value;
    }
}

// The distinct values among draws [first, first + n) of the stream, each uniform in [0, bound), sorted.
inline Buffer<std::uint64_t> draw_sorted(const Stream& stream, std::uint64_t first, std::uint64_t n,
                                         std::uint64_t bound, int threads) {
    const Chunks chunks(static_cast<std::int64_t>(n), 4096, 256);
    const int shift = bucket_shift(bound, std::min<std::uint64_t>(std::max<std::uint64_t>(n / 1024, 1), 4096));
    const std::size_t n_buckets = bound == 0 ? 0 : ((bound - 1) >> shift) + 1;
    const std::size_t n_chunks = size_of(chunks.count());

    Buffer<std::uint64_t> raw(n), sorted(n);
    std::vector<std::uint64_t> places(n_chunks * n_buckets);  // chunk-major: first counts, then where to write
    parallel_for(chunks.count(), threads, [&](std::int64_t c, int) {
        std::uint64_t* counts = &places[size_of(c) * n_buckets];
        const std::int64_t begin = chunks.begin(c), end = chunks.end(c);
        draw_bounded(stream, first + static_cast<std::uint64_t>(begin), end - begin, bound, raw.data() + begin);
        for (std::int64_t d = begin; d < end; ++d) ++counts[raw[size_of(d)] >> shift];
    });
    std::vector<std::uint64_t> bucket_begin(n_buckets + 1);
    std::uint64_t total = 0;
    for (std::size_t b = 0; b < n_buckets; ++b) {
        bucket_begin[b] = total;
        for (std::size_t c = 0; c < n_chunks; ++c) total += std::exchange(places[c * n_buckets + b], total);
    }
    bucket_begin[n_buckets] = total;
    parallel_for(chunks.count(), threads, [&](std::int64_t c, int) {
        std::uint64_t* place = &places[size_of(c) * n_buckets];
        for (std::int64_t d = chunks.begin(c); d < chunks.end(c); ++d)
            sorted[place[raw[size_of(d)] >> shift]++] = raw[size_of(d)];
    });
    raw = Buffer<std::uint64_t>();

    std::vector<std::uint64_t> distinct(n_buckets);
    struct Scratch {
        std::vector<std::uint64_t> copy;
        std::vector<std::uint32_t> starts;
    };
    std::vector<Scratch> scratch(size_of(std::clamp(threads, 1, kMostThreads)));
    parallel_for(static_cast<std::int64_t>(n_buckets), threads, [&](std::int64_t b, int thread) {
        const std::size_t bucket = size_of(b);
        std::uint64_t* values = sorted.data() + bucket_begin[bucket];
        const std::uint64_t here = bucket_begin[bucket + 1] - bucket_begin[bucket];
        Scratch& mine = scratch[size_of(thread)];
        sort_uniform(values, here, static_cast<std::uint64_t>(b) << shift, std::uint64_t{1} << shift, mine.copy,
                     mine.starts);
        distinct[bucket] = static_cast<std::uint64_t>(std::unique(values, values + here) - values);
    });
    const std::vector<std::uint64_t> counts = distinct;
    total = sums_before(distinct);
    if (total == n) return sorted;
    Buffer<std::uint64_t> out(total);
    parallel_for(static_cast<std::int64_t>(n_buckets), threads, [&](std::int64_t b, int) {
        const std::size_t bucket = size_of(b);
        std::copy_n(sorted.data() + bucket_begin[bucket], counts[bucket], out.data() + distinct[bucket]);
    });
    return out;
}

}  // namespace trulysparse
