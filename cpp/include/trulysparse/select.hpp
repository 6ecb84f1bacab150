// SPDX-License-Identifier: BSD-3-Clause
// Which weights to drop: exact counts by radix selection on the bits of |w| (no sort, no copy); ties go to the lower index.
#pragma once

#include <cstdint>

#include "trulysparse/types.hpp"

namespace trulysparse {

struct SignCounts {
    std::uint64_t positive = 0, negative = 0, zero = 0;
};

// Throws InvalidArgument if a value is NaN, naming its position and how many there are.
SignCounts count_signs(const float* values, std::uint64_t n, int threads);

// mask[k] = 0 for the k_positive smallest positive values, the k_negative negative values nearest zero, and (with
// drop_zeros) every exact zero; 1 elsewhere. Returns the number of dropped (SET). NaN as above.
std::uint64_t drop_by_sign(const float* values, std::uint64_t n, std::uint64_t k_positive, std::uint64_t k_negative,
                           bool drop_zeros, std::uint8_t* mask, int threads);

// mask[k] = 0 for the k values of smallest magnitude (zeros first), 1 elsewhere. NaN as above.
void drop_smallest(const float* values, std::uint64_t n, std::uint64_t k, std::uint8_t* mask, int threads);

}  // namespace trulysparse
