// SPDX-License-Identifier: BSD-3-Clause
// Elementary functions on Vec, of non-positive arguments only: all that softmax, sigmoid and tanh need.
#pragma once

namespace trulysparse {
namespace TRULYSPARSE_ISA_NAMESPACE {

// x = n ln 2 + r, |r| <= ln 2 / 2: scale = 2^n and tail = e^r - 1. x in [-87, 0] or NaN, which passes through.
TS_INLINE void split_exp(Vec x, Vec& scale, Vec& tail) {
    const Vec magic = set1(12582912.0f);
    const Vec t = add(mul(x, set1(1.44269504f)), magic);
    const Vec n = sub(t, magic);
    Vec r = fma(n, set1(-0.693359375f), x);
    r = fma(n, set1(2.12194440e-4f), r);
    Vec p = set1(1.0f / 5040.0f);
    p = fma(p, r, set1(1.0f / 720.0f));
    p = fma(p, r, set1(1.0f / 120.0f));
    p = fma(p, r, set1(1.0f / 24.0f));
    p = fma(p, r, set1(1.0f / 6.0f));
    p = fma(p, r, set1(0.5f));
    tail = fma(mul(p, r), r, r);
    scale = power_of_two(t);
}

// e^x for x <= 0; exactly 0 below -87.
TS_INLINE Vec exp_nonpositive(Vec x) {
    const Vec low = set1(-87.0f);
    Vec scale, tail;
    split_exp(max_or_second(low, x), scale, tail);
    // One product: scale * tail alone could be a denormal, which is flushed.
    return select(less(x, low), zero(), mul(scale, add(tail, set1(1.0f))));
}

// e^x - 1 for x <= 0.
TS_INLINE Vec expm1_nonpositive(Vec x) {
    Vec scale, tail;
    split_exp(max_or_second(set1(-87.0f), x), scale, tail);
    return fma(scale, tail, sub(scale, set1(1.0f)));
}

// log(1 + e) for e in [0, 1]: 2 artanh(s), s = e / (2 + e) <= 1/3.
TS_INLINE Vec log1p_unit(Vec e) {
    const Vec s = div(e, add(e, set1(2.0f)));
    const Vec s2 = mul(s, s);
    Vec p = set1(2.0f / 15.0f);
    p = fma(p, s2, set1(2.0f / 13.0f));
    p = fma(p, s2, set1(2.0f / 11.0f));
    p = fma(p, s2, set1(2.0f / 9.0f));
    p = fma(p, s2, set1(2.0f / 7.0f));
    p = fma(p, s2, set1(2.0f / 5.0f));
    p = fma(p, s2, set1(2.0f / 3.0f));
    return fma(mul(p, s2), s, add(s, s));
}

TS_INLINE Vec negative_absolute(Vec a) { return sub(zero(), absolute(a)); }

// e = e^-|z| is shared with the loss.
TS_INLINE Vec sigmoid_from(Vec z, Vec e) { return div(select(less(z, zero()), e, set1(1.0f)), add(e, set1(1.0f))); }
TS_INLINE Vec sigmoid_of(Vec z) { return sigmoid_from(z, exp_nonpositive(negative_absolute(z))); }
TS_INLINE Vec tanh_of(Vec z) {
    const Vec u = expm1_nonpositive(mul(set1(-2.0f), absolute(z)));
    return copy_sign(div(u, add(u, set1(2.0f))), z);
}

}  // namespace TRULYSPARSE_ISA_NAMESPACE
}  // namespace trulysparse
