// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/select.hpp"

#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "blocks.hpp"
#include "trulysparse/parallel.hpp"

namespace trulysparse {

namespace {

using std::to_string;

constexpr std::uint32_t kSign = 0x80000000u, kMagnitude = 0x7fffffffu, kInfinity = 0x7f800000u;

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

// Two kinds of values are selected apart: kind 0 are the positive (or all), kind 1 the negative ones.
enum class Kinds { one, by_sign };
constexpr int kNone = -1;

int kind_of(std::uint32_t bits, Kinds kinds) {
    if (kinds == Kinds::one) return 0;
    return (bits & kMagnitude) == 0 ? kNone : static_cast<int>(bits >> 31);
}

// Radix selection: digits of 11, 11 and 10 bits from the top, each narrowing the k-th smallest magnitude of each kind.
class Selection {
public:
    Selection(const float* values, std::uint64_t n, std::array<std::uint64_t, 2> k, Kinds kinds, int threads)
        : values_(values), kinds_(kinds), threads_(threads), chunks_(chunks_of(n)), wanted_(k) {
        histograms_.resize(size_of(chunks_.count()));
        for (int kind = 0; kind < 2; ++kind) active_[kind] = k[kind] > 0;
        if (active_[0] || active_[1]) {
            narrow(21, 11);
            narrow(10, 11);
            narrow(0, 10);
        }
        share_ties();
    }
    static Chunks chunks_of(std::uint64_t n) { return Chunks(static_cast<std::int64_t>(n), 65536); }

    // mask = 0 for the selected and, with drop_zeros, for every exact zero, 1 elsewhere; the number of zeros in it.
    std::uint64_t write(bool drop_zeros, std::uint8_t* mask) const {
        std::vector<std::uint64_t> dropped(size_of(chunks_.count()));
        parallel_for(chunks_.count(), threads_, [&](std::int64_t c, int) {
            std::array<std::uint64_t, 2> ties = ties_[size_of(c)];
            std::uint64_t count = 0;
            for (std::int64_t i = chunks_.begin(c); i < chunks_.end(c); ++i) {
                const std::uint32_t bits = bits_of(values_[i]), magnitude = bits & kMagnitude;
                const int kind = kind_of(bits, kinds_);
                bool drop = drop_zeros && magnitude == 0;
                if (kind != kNone && active_[kind] && magnitude <= threshold_[kind]) {
                    drop = magnitude < threshold_[kind] || ties[kind] > 0;
                    if (magnitude == threshold_[kind] && drop) --ties[kind];
                }
                mask[i] = !drop;
                count += drop;
            }
            dropped[size_of(c)] = count;
        });
        return sums_before(dropped);
    }

private:
    using Histogram = std::array<std::array<std::uint32_t, 2048>, 2>;

    void narrow(int shift, int width) {
        const std::uint32_t digit_mask = (1u << width) - 1;
        const int above = shift + width;
        parallel_for(chunks_.count(), threads_, [&](std::int64_t c, int) {
            Histogram& histogram = histograms_[size_of(c)];
            histogram = {};
            for (std::int64_t i = chunks_.begin(c); i < chunks_.end(c); ++i) {
                const std::uint32_t bits = bits_of(values_[i]), magnitude = bits & kMagnitude;
                const int kind = kind_of(bits, kinds_);
                if (kind == kNone) continue;
                const std::uint32_t higher = above == 32 ? 0 : (magnitude ^ threshold_[kind]) >> above;
                if (higher == 0) ++histogram[size_of(kind)][magnitude >> shift & digit_mask];
            }
        });
        for (int kind = 0; kind < 2; ++kind) {
            if (!active_[kind]) continue;
            std::array<std::uint64_t, 2048> total{};  // histogram by histogram: across them, every read is a cache miss
            for (const Histogram& histogram : histograms_)
                for (std::size_t digit = 0; digit <= digit_mask; ++digit)
                    total[digit] += histogram[size_of(kind)][digit];
            for (std::uint32_t digit = 0; digit <= digit_mask; ++digit) {
                if (total[digit] >= wanted_[kind]) {
                    threshold_[kind] |= digit << shift;
                    break;
                }
                wanted_[kind] -= total[digit];
            }
        }
    }

    // wanted_ is now how many values equal to the threshold are selected: the first ones, chunk by chunk.
    void share_ties() {
        ties_.resize(histograms_.size());
        for (int kind = 0; kind < 2; ++kind) {
            std::uint64_t left = active_[kind] ? wanted_[kind] : 0;
            for (std::size_t c = 0; c < ties_.size(); ++c) {
                const std::uint64_t equal = histograms_[c][size_of(kind)][threshold_[kind] & 1023];
                ties_[c][size_of(kind)] = std::min(left, equal);
                left -= ties_[c][size_of(kind)];
            }
        }
    }

    const float* values_;
    Kinds kinds_;
    int threads_;
    Chunks chunks_;
    std::array<std::uint64_t, 2> wanted_;
    bool active_[2];
    std::uint32_t threshold_[2] = {0, 0};
    std::vector<Histogram> histograms_;
    std::vector<std::array<std::uint64_t, 2>> ties_;
};

void check_available(std::uint64_t k, std::uint64_t available, const char* what) {
    if (k > available)
        throw InvalidArgument("cannot drop " + to_string(k) + " " + what + " weights: only " + to_string(available) +
                              " exist; ask for fewer");
}

}  // namespace

SignCounts count_signs(const float* values, std::uint64_t n, int threads) {
    const Chunks chunks = Selection::chunks_of(n);
    std::vector<Tally> tallies(size_of(chunks.count()));
    parallel_for(chunks.count(), threads, [&](std::int64_t c, int) {
        Tally tally;
        for (std::int64_t i = chunks.begin(c); i < chunks.end(c); ++i) {
            const std::uint32_t bits = bits_of(values[i]), magnitude = bits & kMagnitude;
            tally.signs.zero += magnitude == 0;
            tally.signs.negative += magnitude != 0 && (bits & kSign) != 0;
            if (magnitude > kInfinity && tally.nans++ == 0) tally.first_nan = static_cast<std::uint64_t>(i);
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
    const SignCounts signs = count_signs(values, n, threads);
    check_available(k_positive, signs.positive, "positive");
    check_available(k_negative, signs.negative, "negative");
    return Selection(values, n, {k_positive, k_negative}, Kinds::by_sign, threads).write(drop_zeros, mask);
}

void drop_smallest(const float* values, std::uint64_t n, std::uint64_t k, std::uint8_t* mask, int threads) {
    count_signs(values, n, threads);
    check_available(k, n, "smallest");
    Selection(values, n, {k, 0}, Kinds::one, threads).write(false, mask);
}

}  // namespace trulysparse
