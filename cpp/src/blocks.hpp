// SPDX-License-Identifier: BSD-3-Clause
// How the O(connections) passes outside the kernels are cut: by the data only, never by the thread count.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "trulysparse/types.hpp"

// Every type a position may have. The narrow ones are for tests: there an overflow shows at toy size.
#define TRULYSPARSE_FOR_EACH_OFFSET(instantiate) \
    instantiate(std::int8_t) instantiate(std::int16_t) instantiate(std::int32_t) instantiate(std::int64_t)

namespace trulysparse {

inline std::size_t size_of(std::int64_t n) { return static_cast<std::size_t>(n); }

// The first i in [low, high) for which `reached(i)`, else high; once reached, always reached. Fast when i is near.
template <class Reached>
std::int64_t gallop(std::int64_t low, std::int64_t high, Reached reached) {
    std::int64_t step = 1, last = low;
    while (last < high && !reached(last)) {
        low = last + 1;
        last = step < high - low ? low + step : high;
        step *= 2;
    }
    while (low < last) {
        const std::int64_t middle = low + (last - low) / 2;
        if (reached(middle))
            last = middle;
        else
            low = middle + 1;
    }
    return low;
}

// [0, n) in at most `most` equal ranges of at least `grain`; none when n is 0.
class Chunks {
public:
    Chunks(std::int64_t n, std::int64_t grain, std::int64_t most = 1024)
        : n_(n), size_(std::max(grain, ceiling(n, most))), count_(ceiling(n, size_)) {}
    std::int64_t count() const { return count_; }
    std::int64_t begin(std::int64_t chunk) const { return chunk * size_; }
    std::int64_t end(std::int64_t chunk) const { return n_ - begin(chunk) < size_ ? n_ : begin(chunk) + size_; }

private:
    static std::int64_t ceiling(std::int64_t a, std::int64_t b) { return a / b + (a % b != 0); }
    std::int64_t n_, size_, count_;
};

// Whole rows in ranges of about equal work, where work_before(i) never falls and is the work of all rows before i.
template <class WorkBefore>
class RowBlocks {
public:
    RowBlocks(Index rows, WorkBefore work_before, std::int64_t grain = 32768, std::int64_t most = 1024)
        : rows_(rows), work_before_(work_before), chunks_(work_before(rows), grain, most) {}
    std::int64_t count() const { return rows_ == 0 ? 0 : std::max<std::int64_t>(1, chunks_.count()); }
    Index begin(std::int64_t block) const { return first_at(block); }
    Index end(std::int64_t block) const { return block + 1 >= count() ? rows_ : first_at(block + 1); }

private:
    Index first_at(std::int64_t block) const {
        Index low = 0, high = rows_;
        while (low < high) {
            const Index middle = low + (high - low) / 2;
            if (work_before_(middle) >= chunks_.begin(block))
                high = middle;
            else
                low = middle + 1;
        }
        return low;
    }
    Index rows_;
    WorkBefore work_before_;
    Chunks chunks_;
};

// Row blocks of a CSR pointer: a row costs its connections and a little for itself.
template <class Offset>
auto row_blocks(const Offset* ptr, Index rows, std::int64_t grain = 32768, std::int64_t most = 1024) {
    auto work_before = [ptr](Index i) { return static_cast<std::int64_t>(ptr[i]) + 2 * static_cast<std::int64_t>(i); };
    return RowBlocks<decltype(work_before)>(rows, work_before, grain, most);
}

// Turns counts into the sums before them; returns the total.
template <class Count>
Count sums_before(std::vector<Count>& counts) {
    Count total = 0;
    for (Count& count : counts) {
        const Count here = count;
        count = total;
        total += here;
    }
    return total;
}

}  // namespace trulysparse
