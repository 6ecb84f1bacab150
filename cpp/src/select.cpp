// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/select.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "blocks.hpp"
#include "trulysparse/parallel.hpp"

namespace trulysparse {

namespace {

using std::to_string;

constexpr std::uint32_t kSign = 0x80000000u, kMagnitude = 0x7fffffffu;
constexpr std::int32_t kInfinity = 0x7f800000;

// Integer bits, because threads here flush denormals: compared as floats those would count as zeros.
std::uint32_t bits_of(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

struct Tally {
    SignCounts signs;
    std::uint64_t nans = 0, first_nan = 0;
};

// Chunks small enough that a layer of a few ten thousand weights is shared among threads.
Chunks chunks_of(std::uint64_t n) { return Chunks(static_cast<std::int64_t>(n), 8192); }

// Two kinds of values are selected apart: kind 0 are the positive (or all), kind 1 the negative ones.
enum class Kinds { one, by_sign };

// A histogram of sign, exponent and three more bits finds the bucket in which the k-th smallest magnitude of each kind
// lies. Whole buckets are dropped or kept; only the values of those two are looked at more closely.
class Selection {
public:
    Selection(const float* values, std::uint64_t n, Kinds kinds, int threads)
        : values_(values),
          by_sign_(kinds == Kinds::by_sign),
          looked_at_(by_sign_ ? kSign | kMagnitude : kMagnitude),
          threads_(threads),
          chunks_(chunks_of(n)) {
        fill_histogram();
        signs_.negative = total(kHalf, 2 * kHalf);
        signs_.positive = n - signs_.negative;
        if (total(kHalf - kNotFinite, kHalf) + total(2 * kHalf - kNotFinite, 2 * kHalf) > 0)
            count_signs(values, n, threads);  // refuses NaN
        if (by_sign_ && (histogram_[0] > 0 || histogram_[kHalf] > 0)) set_zeros_apart();
    }
    const SignCounts& signs() const { return signs_; }

    // mask = 0 for the k smallest of each kind and, with drop_zeros, for every exact zero, 1 elsewhere.
    void write(std::array<std::uint64_t, 2> k, bool drop_zeros, std::uint8_t* mask) const {
        std::array<std::uint8_t, 2 * kHalf> fate;
        std::array<std::uint64_t, 2> wanted = k;
        for (std::size_t kind = 0; kind < 2; ++kind) {
            std::size_t bucket = kind * kHalf;
            const std::size_t end = bucket + kHalf;
            for (; wanted[kind] > 0 && wanted[kind] >= histogram_[bucket]; ++bucket) {
                wanted[kind] -= histogram_[bucket];
                fate[bucket] = kDropped;
            }
            if (wanted[kind] > 0) fate[bucket++] = kUndecided;
            std::fill(fate.begin() + static_cast<std::ptrdiff_t>(bucket),
                      fate.begin() + static_cast<std::ptrdiff_t>(end), kKept);
        }
        if (signs_.zero > 0)  // they share a bucket with the smallest numbers
            for (std::size_t first : {std::size_t{0}, kHalf}) fate[first] |= kMayBeZero;
        decide(decide_buckets(fate, drop_zeros, mask), wanted, mask);
    }

private:
    static constexpr int kShift = 20;
    static constexpr std::size_t kHalf = kSign >> kShift, kNotFinite = 8;
    static constexpr std::uint8_t kDropped = 0, kKept = 1, kUndecided = 3, kMayBeZero = 4;
    using Positions = std::vector<std::vector<std::uint32_t>>;  // within each chunk

    std::uint64_t total(std::size_t begin, std::size_t end) const {
        std::uint64_t sum = 0;
        for (std::size_t bucket = begin; bucket < end; ++bucket) sum += histogram_[bucket];
        return sum;
    }

    void fill_histogram() {
        std::vector<std::array<std::uint32_t, 2 * kHalf>> parts(size_of(chunks_.count()));
        parallel_for(chunks_.count(), threads_, [&](std::int64_t c, int) {
            auto& part = parts[size_of(c)];
            const std::uint32_t looked_at = looked_at_;
            for (const float *v = values_ + chunks_.begin(c), *end = values_ + chunks_.end(c); v < end; ++v)
                ++part[(bits_of(*v) & looked_at) >> kShift];
        });
        for (const auto& part : parts)
            for (std::size_t bucket = 0; bucket < part.size(); ++bucket) histogram_[bucket] += part[bucket];
    }

    // Zeros of either sign are of no kind.
    void set_zeros_apart() {
        std::vector<std::array<std::uint64_t, 2>> parts(size_of(chunks_.count()));
        parallel_for(chunks_.count(), threads_, [&](std::int64_t c, int) {
            std::array<std::uint64_t, 2> zeros = {0, 0};
            for (std::int64_t i = chunks_.begin(c); i < chunks_.end(c); ++i) {
                const std::uint32_t bits = bits_of(values_[i]);
                zeros[0] += bits == 0;
                zeros[1] += bits == kSign;
            }
            parts[size_of(c)] = zeros;
        });
        for (const auto& zeros : parts) {
            histogram_[0] -= zeros[0];
            histogram_[kHalf] -= zeros[1];
            signs_.positive -= zeros[0];
            signs_.negative -= zeros[1];
            signs_.zero += zeros[0] + zeros[1];
        }
    }

    // Writes the mask, as if the undecided were kept, and returns where they are.
    Positions decide_buckets(const std::array<std::uint8_t, 2 * kHalf>& fate, bool drop_zeros,
                             std::uint8_t* mask) const {
        Positions undecided(size_of(chunks_.count()));
        parallel_for(chunks_.count(), threads_, [&](std::int64_t c, int) {
            const float* const values = values_ + chunks_.begin(c);
            std::uint8_t* const to = mask + chunks_.begin(c);
            const std::uint32_t looked_at = looked_at_;
            const std::int64_t n = chunks_.end(c) - chunks_.begin(c);
            constexpr std::int64_t kRoom = 512;
            std::uint32_t found[kRoom];
            for (std::int64_t begin = 0, end; begin < n; begin = end) {
                end = std::min(begin + kRoom, n);
                std::size_t n_found = 0;
                for (std::int64_t i = begin; i < end; ++i) {
                    const std::uint32_t bits = bits_of(values[i]) & looked_at;
                    std::uint8_t here = fate[bits >> kShift];
                    if (here & kMayBeZero) {
                        const bool zero = (bits & kMagnitude) == 0;
                        here = zero ? !drop_zeros : here & static_cast<std::uint8_t>(~kMayBeZero);
                    }
                    to[i] = here & kKept;
                    found[n_found] = static_cast<std::uint32_t>(i);
                    n_found += here == kUndecided;
                }
                undecided[size_of(c)].insert(undecided[size_of(c)].end(), found, found + n_found);
            }
        });
        return undecided;
    }

    // Of the undecided, the `wanted` smallest of each kind are dropped: among equals, the first.
    void decide(const Positions& positions, std::array<std::uint64_t, 2> wanted, std::uint8_t* mask) const {
        std::vector<std::uint32_t> numbers;
        for (std::size_t c = 0; c < positions.size(); ++c) {
            const float* const values = values_ + chunks_.begin(static_cast<std::int64_t>(c));
            for (const std::uint32_t position : positions[c]) numbers.push_back(bits_of(values[position]) & looked_at_);
        }
        const std::array<std::uint32_t, 2> threshold = narrow(std::move(numbers), wanted);
        for (std::size_t c = 0; c < positions.size(); ++c) {
            const std::int64_t begin = chunks_.begin(static_cast<std::int64_t>(c));
            for (const std::uint32_t position : positions[c]) {
                const std::uint32_t bits = bits_of(values_[begin + position]) & looked_at_;
                const std::size_t kind = bits >> 31;
                std::uint8_t kept = (bits & kMagnitude) > threshold[kind];
                if ((bits & kMagnitude) == threshold[kind]) {
                    kept = wanted[kind] == 0;
                    wanted[kind] -= !kept;
                }
                mask[begin + position] = kept;
            }
        }
    }

    // The wanted-th smallest magnitude of each kind, among numbers that agree in their upper bits; `wanted` becomes how
    // many of those equal to it are among the wanted.
    static std::array<std::uint32_t, 2> narrow(std::vector<std::uint32_t> numbers,
                                               std::array<std::uint64_t, 2>& wanted) {
        constexpr int width = kShift / 2;
        constexpr std::uint32_t digits = 1u << width;
        for (int shift = kShift - width; shift >= 0; shift -= width) {
            std::array<std::array<std::uint64_t, digits>, 2> counts{};
            for (const std::uint32_t number : numbers) ++counts[number >> 31][number >> shift & (digits - 1)];
            std::array<std::uint32_t, 2> digit = {0, 0};
            for (std::size_t kind = 0; kind < 2; ++kind)
                for (; wanted[kind] > counts[kind][digit[kind]]; ++digit[kind])
                    wanted[kind] -= counts[kind][digit[kind]];
            std::size_t used = 0;
            for (const std::uint32_t number : numbers) {
                numbers[used] = number;
                used += (number >> shift & (digits - 1)) == digit[number >> 31];
            }
            numbers.resize(used);
        }
        std::array<std::uint32_t, 2> found = {0, 0};
        for (const std::uint32_t number : numbers) found[number >> 31] = number & kMagnitude;
        return found;
    }

    const float* values_;
    bool by_sign_;
    std::uint32_t looked_at_;
    int threads_;
    Chunks chunks_;
    SignCounts signs_;
    std::array<std::uint64_t, 2 * kHalf> histogram_{};
};

void check_available(std::uint64_t k, std::uint64_t available, const char* what) {
    if (k > available)
        throw InvalidArgument("cannot drop " + to_string(k) + " " + what + " weights: only " + to_string(available) +
                              " exist; ask for fewer");
}

}  // namespace

SignCounts count_signs(const float* values, std::uint64_t n, int threads) {
    const Chunks chunks = chunks_of(n);
    std::vector<Tally> tallies(size_of(chunks.count()));
    parallel_for(chunks.count(), threads, [&](std::int64_t c, int) {
        Tally tally;
        for (std::int64_t begin = chunks.begin(c), end; begin < chunks.end(c); begin = end) {
            end = std::min<std::int64_t>(begin + 8192, chunks.end(c));
            std::int32_t zeros = 0, negative = 0, nans = 0;  // narrow, so that they count in vectors
            for (std::int64_t i = begin; i < end; ++i) {
                const std::uint32_t bits = bits_of(values[i]);
                const auto magnitude = static_cast<std::int32_t>(bits & kMagnitude);
                zeros += magnitude == 0;
                negative += static_cast<std::int32_t>(bits >> 31) & (magnitude != 0);
                nans += magnitude > kInfinity;
            }
            tally.signs.zero += static_cast<std::uint64_t>(zeros);
            tally.signs.negative += static_cast<std::uint64_t>(negative);
            if (nans > 0 && tally.nans == 0) {
                std::int64_t i = begin;
                while (static_cast<std::int32_t>(bits_of(values[i]) & kMagnitude) <= kInfinity) ++i;
                tally.first_nan = static_cast<std::uint64_t>(i);
            }
            tally.nans += static_cast<std::uint64_t>(nans);
        }
        tallies[size_of(c)] = tally;
    });
    Tally sum;
    for (const Tally& tally : tallies) {
        if (sum.nans == 0) sum.first_nan = tally.first_nan;
        sum.nans += tally.nans;
        sum.signs.zero += tally.signs.zero;
        sum.signs.negative += tally.signs.negative;
    }
    if (sum.nans > 0)
        throw InvalidArgument("weights hold " + to_string(sum.nans) + " NaN among " + to_string(n) +
                              ", the first at position " + to_string(sum.first_nan) +
                              "; the training diverged: lower the learning rate");
    sum.signs.positive = n - sum.signs.zero - sum.signs.negative;
    return sum.signs;
}

std::uint64_t drop_by_sign(const float* values, std::uint64_t n, std::uint64_t k_positive, std::uint64_t k_negative,
                           bool drop_zeros, std::uint8_t* mask, int threads) {
    const Selection selection(values, n, Kinds::by_sign, threads);
    check_available(k_positive, selection.signs().positive, "positive");
    check_available(k_negative, selection.signs().negative, "negative");
    selection.write({k_positive, k_negative}, drop_zeros, mask);
    return k_positive + k_negative + (drop_zeros ? selection.signs().zero : 0);
}

void drop_smallest(const float* values, std::uint64_t n, std::uint64_t k, std::uint8_t* mask, int threads) {
    const Selection selection(values, n, Kinds::one, threads);
    check_available(k, n, "smallest");
    selection.write({k, 0}, false, mask);
}

}  // namespace trulysparse
