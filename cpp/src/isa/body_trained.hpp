// SPDX-License-Identifier: BSD-3-Clause
// Rows of activations in three straight pieces, whose slopes and thresholds are a neuron's own.
#pragma once

#include <cstddef>

namespace trulysparse {
namespace TRULYSPARSE_ISA_NAMESPACE {

TS_INLINE Vec keep_units(const std::uint16_t* kept, std::int64_t i, Vec scale, Vec a) {
    return kept ? keep(from_bits(kept[i / 16] >> (i % 16) & kLaneBits), mul(scale, a)) : a;
}

template <class T>
TS_INLINE void trained_forward_row(const float* z, T* y, std::int64_t n, const TrainedPieces& p,
                                   const std::uint16_t* kept, float dropout_scale) {
    const Vec left = set1(p.left), left_slope = set1(p.left_slope), scale = set1(dropout_scale);
    const Vec right = set1(p.right), right_slope = set1(p.right_slope);
    for (std::int64_t i = 0; i < n; i += kWidth) {
        const Vec a = load(z + i);
        const Vec below = fma(left_slope, sub(a, left), left), above = fma(right_slope, sub(a, right), right);
        store(y + i, keep_units(kept, i, scale, select(less(a, left), below, select(less(right, a), above, a))));
    }
}

static void trained_forward_body(const float* z, const Rows& y, std::int64_t n, const TrainedPieces& p,
                                 const std::uint16_t* kept, float dropout_scale) {
    y.bf16 ? trained_forward_row(z, static_cast<Bf16*>(y.data), n, p, kept, dropout_scale)
           : trained_forward_row(z, static_cast<float*>(y.data), n, p, kept, dropout_scale);
}

template <class T>
TS_INLINE void trained_backward_row(const float* z, T* delta, std::int64_t n, const TrainedPieces& p,
                                    const std::uint16_t* kept, float dropout_scale, TrainedSums& sums) {
    const Vec left = set1(p.left), left_slope = set1(p.left_slope), scale = set1(dropout_scale);
    const Vec right = set1(p.right), right_slope = set1(p.right_slope);
    Vec below = zero(), above = zero(), below_moment = zero(), above_moment = zero(), total = zero();
    for (std::int64_t i = 0; i < n; i += kWidth) {
        const Vec a = load(z + i), d = keep_units(kept, i, scale, load(delta + i));
        const Mask is_below = less(a, left), is_above = less(right, a);
        below = add(below, keep(is_below, d));
        above = add(above, keep(is_above, d));
        // Kept after the product: without a right piece the distance from it is infinite.
        below_moment = add(below_moment, keep(is_below, mul(d, sub(a, left))));
        above_moment = add(above_moment, keep(is_above, mul(d, sub(a, right))));
        const Vec dz = select(is_below, mul(left_slope, d), select(is_above, mul(right_slope, d), d));
        total = add(total, dz);
        store(delta + i, dz);
    }
    sums = {sum(below), sum(above), sum(below_moment), sum(above_moment), sum(total)};
}

static void trained_backward_body(const float* z, const Rows& delta, std::int64_t n, const TrainedPieces& p,
                                  const std::uint16_t* kept, float dropout_scale, TrainedSums& sums) {
    delta.bf16 ? trained_backward_row(z, static_cast<Bf16*>(delta.data), n, p, kept, dropout_scale, sums)
               : trained_backward_row(z, static_cast<float*>(delta.data), n, p, kept, dropout_scale, sums);
}

}  // namespace TRULYSPARSE_ISA_NAMESPACE
}  // namespace trulysparse
