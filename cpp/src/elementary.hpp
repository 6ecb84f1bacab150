// SPDX-License-Identifier: BSD-3-Clause
// Elementary functions with the same bits on every machine, for all that is drawn at random: those of libm differ
// between versions and processors. Losses and Adam's bias correction use libm, so they may differ in the last bit.
#pragma once

#include <cstdint>
#include <cstring>

namespace trulysparse {

// Internal linkage and no branches: files of one instruction set compile copies of their own, in vectors.
#define TRULYSPARSE_ELEMENTARY static inline __attribute__((always_inline))

// atanh(s) for |s| < 0.172, by its series.
TRULYSPARSE_ELEMENTARY double small_atanh(double s) {
    const double z = s * s, z2 = z * z, z4 = z2 * z2;
    const double low = (1.0 + z * (1.0 / 3)) + z2 * (1.0 / 5 + z * (1.0 / 7));
    const double middle = (1.0 / 9 + z * (1.0 / 11)) + z2 * (1.0 / 13 + z * (1.0 / 15));
    const double high = (1.0 / 17 + z * (1.0 / 19)) + z2 * (1.0 / 21);
    return s * (low + z4 * (middle + z4 * high));
}

// ln(x) for normal x > 0.
TRULYSPARSE_ELEMENTARY double portable_log(double x) {
    constexpr double kLn2 = 0.693147180559945309417;
    constexpr std::uint64_t kRootOfHalf = 0x3FE6A09E667F3BCDull;
    constexpr std::uint64_t kBias = 1024, kExponentOf52 = 0x4330000000000000ull;
    std::uint64_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    // x = m * 2^(biased - kBias) with m in [sqrt(1/2), sqrt(2)); a small whole number becomes a double by its bits.
    const std::uint64_t biased = (bits - kRootOfHalf + (kBias << 52)) >> 52, number = biased | kExponentOf52;
    bits -= (biased - kBias) << 52;
    double m, exponent;
    std::memcpy(&m, &bits, sizeof m);
    std::memcpy(&exponent, &number, sizeof exponent);
    exponent -= 0x1p52 + static_cast<double>(kBias);
    return exponent * kLn2 + 2.0 * small_atanh((m - 1.0) / (m + 1.0));
}

// ln(1 - p) for 0 < p < 1, exact also for tiny p.
static inline double portable_log1m(double p) {
    return p < 0.25 ? 2.0 * small_atanh(-p / (2.0 - p)) : portable_log(1.0 - p);
}

// sin and cos of 2 pi u for u in [0, 1).
TRULYSPARSE_ELEMENTARY void portable_sincos(double u, double& sine, double& cosine) {
    constexpr double kTwoPi = 6.28318530717958647693;
    const double quarter = static_cast<double>(static_cast<int>(4.0 * u + 0.5));
    const double a = kTwoPi * (u - 0.25 * quarter), z = a * a;
    constexpr double kSine[] = {1.0,          -1.0 / 6,        1.0 / 120,          -1.0 / 5040,
                                1.0 / 362880, -1.0 / 39916800, 1.0 / 6227020800.0, -1.0 / 1307674368000.0};
    constexpr double kCosine[] = {1.0,
                                  -1.0 / 2,
                                  1.0 / 24,
                                  -1.0 / 720,
                                  1.0 / 40320,
                                  -1.0 / 3628800,
                                  1.0 / 479001600.0,
                                  -1.0 / 87178291200.0,
                                  1.0 / 20922789888000.0};
    double s = kSine[7], c = kCosine[8];
    for (int term = 6; term >= 0; --term) s = kSine[term] + z * s;
    for (int term = 7; term >= 0; --term) c = kCosine[term] + z * c;
    s *= a;
    const bool odd = (quarter == 1.0) | (quarter == 3.0);
    const double sine_of_quarter = odd ? c : s, cosine_of_quarter = odd ? s : c;
    sine = (quarter == 2.0) | (quarter == 3.0) ? -sine_of_quarter : sine_of_quarter;
    cosine = (quarter == 1.0) | (quarter == 2.0) ? -cosine_of_quarter : cosine_of_quarter;
}

}  // namespace trulysparse
