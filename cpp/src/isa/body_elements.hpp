// SPDX-License-Identifier: BSD-3-Clause
// Loops over contiguous arrays: optimizers, activations, losses.
#pragma once

#include <cstddef>

namespace trulysparse {
namespace TRULYSPARSE_ISA_NAMESPACE {

static void sigmoid_body(const float* z, float* out, std::int64_t n) {
    for (std::int64_t i = 0; i < n; i += kWidth) store(out + i, sigmoid_of(load(z + i)));
}

static void tanh_body(const float* z, float* out, std::int64_t n) {
    for (std::int64_t i = 0; i < n; i += kWidth) store(out + i, tanh_of(load(z + i)));
}

static void add_body(float* sum, const float* term, std::int64_t n) {
    std::int64_t i = 0;
    for (; i + kWidth <= n; i += kWidth) store(sum + i, add(load(sum + i), load(term + i)));
    if (i < n) store_first(sum + i, add(load_first(sum + i, n - i), load_first(term + i, n - i)), n - i);
}

// sums (+)= kArrays arrays from `at` on, in their order.
template <int kArrays>
static void sum_arrays(const float* const* arrays, std::int64_t at, bool first, double* sums, std::int64_t n) {
    const float* from[kArrays];
    for (int k = 0; k < kArrays; ++k) from[k] = arrays[k] + at;
    if (first)
        for (std::int64_t i = 0; i < n; ++i) {
            double sum = from[0][i];
            for (int k = 1; k < kArrays; ++k) sum += static_cast<double>(from[k][i]);
            sums[i] = sum;
        }
    else
        for (std::int64_t i = 0; i < n; ++i) {
            double sum = sums[i];
            for (int k = 0; k < kArrays; ++k) sum += static_cast<double>(from[k][i]);
            sums[i] = sum;
        }
}

// Left to the compiler's vectors: nothing here depends on their width.
static void average_body(const float* const* arrays, std::size_t count, std::int64_t at, float* out, std::int64_t n) {
    constexpr std::int64_t kRoom = 512;  // sums that stay in the first cache
    double sums[kRoom];
    const auto divisor = static_cast<double>(count);
    for (std::int64_t begin = at, end = at + n; begin < end; begin += kRoom) {
        const std::int64_t here = end - begin < kRoom ? end - begin : kRoom;
        std::size_t k = 0;
        for (; k + 4 <= count; k += 4) sum_arrays<4>(arrays + k, begin, k == 0, sums, here);
        for (; k + 2 <= count; k += 2) sum_arrays<2>(arrays + k, begin, k == 0, sums, here);
        if (k < count) sum_arrays<1>(arrays + k, begin, k == 0, sums, here);
        for (std::int64_t i = 0; i < here; ++i) out[begin + i] = static_cast<float>(sums[i] / divisor);
    }
}

// Tails go through the same arithmetic as whole vectors, so where an array is cut does not change a bit.
struct SgdStep {
    Vec momentum, minus_lr, l2, minus_decay;
    bool with_l2, with_decay, nesterov, last;

    TS_INLINE SgdStep of(const SgdParams& p) {
        SgdStep s;
        s.momentum = set1(p.first ? p.momentum : 1.0f);
        s.minus_lr = set1(-p.lr);
        const float l2 = p.l2 + (p.form == Decay::l2 ? p.decay : 0.0f);
        s.l2 = set1(l2);
        s.minus_decay = set1(-p.decay);
        s.with_l2 = p.first && l2 != 0.0f;
        s.with_decay = p.form == Decay::paper && p.decay != 0.0f;
        s.nesterov = p.nesterov;
        s.last = p.last;
        return s;
    }
    TS_INLINE void apply(const SgdStep& s, Vec& w, Vec& v, Vec g) {
        if (s.with_l2) g = fma(s.l2, w, g);
        v = fma(s.minus_lr, g, mul(s.momentum, v));
        if (!s.last) return;
        const Vec step = s.nesterov ? fma(s.minus_lr, g, mul(s.momentum, v)) : v;
        w = s.with_decay ? fma(s.minus_decay, w, add(w, step)) : add(w, step);
    }
};

static void sgd_body(float* w, float* v, const float* g, std::int64_t n, const SgdParams& p) {
    const SgdStep s = SgdStep::of(p);
    std::int64_t i = 0;
    for (; i + kWidth <= n; i += kWidth) {
        Vec weight = load(w + i), velocity = load(v + i);
        SgdStep::apply(s, weight, velocity, load(g + i));
        store(v + i, velocity);
        if (s.last) store(w + i, weight);
    }
    if (i < n) {
        Vec weight = load_first(w + i, n - i), velocity = load_first(v + i, n - i);
        SgdStep::apply(s, weight, velocity, load_first(g + i, n - i));
        store_first(v + i, velocity, n - i);
        if (s.last) store_first(w + i, weight, n - i);
    }
}

struct AdamStep {
    Vec beta1, rest1, beta2, rest2, minus_lr1, inverse2, eps, l2, minus_lr_decay;
    bool with_l2, with_decay;

    TS_INLINE AdamStep of(const AdamParams& p) {
        AdamStep s;
        s.beta1 = set1(p.beta1);
        s.rest1 = set1(1.0f - p.beta1);
        s.beta2 = set1(p.beta2);
        s.rest2 = set1(1.0f - p.beta2);
        s.minus_lr1 = set1(-p.lr / p.correction1);
        s.inverse2 = set1(1.0f / p.correction2);
        s.eps = set1(p.eps);
        const float l2 = p.l2 + (p.decoupled ? 0.0f : p.decay);
        s.l2 = set1(l2);
        s.minus_lr_decay = set1(-p.lr * p.decay);
        s.with_l2 = l2 != 0.0f;
        s.with_decay = p.decoupled && p.decay != 0.0f;
        return s;
    }
    TS_INLINE void apply(const AdamStep& s, Vec& w, Vec& m, Vec& v, Vec g) {
        if (s.with_l2) g = fma(s.l2, w, g);
        m = fma(s.beta1, m, mul(s.rest1, g));
        v = fma(s.beta2, v, mul(s.rest2, mul(g, g)));
        const Vec step = div(mul(s.minus_lr1, m), add(sqrt(mul(v, s.inverse2)), s.eps));
        w = s.with_decay ? fma(s.minus_lr_decay, w, add(w, step)) : add(w, step);
    }
};

static void adam_body(float* w, float* m, float* v, const float* g, std::int64_t n, const AdamParams& p) {
    const AdamStep s = AdamStep::of(p);
    for (std::int64_t i = 0; i < n; i += kWidth) {
        const std::int64_t left = n - i;
        if (left >= kWidth) {
            Vec weight = load(w + i), first = load(m + i), second = load(v + i);
            AdamStep::apply(s, weight, first, second, load(g + i));
            store(w + i, weight);
            store(m + i, first);
            store(v + i, second);
        } else {
            Vec weight = load_first(w + i, left), first = load_first(m + i, left), second = load_first(v + i, left);
            AdamStep::apply(s, weight, first, second, load_first(g + i, left));
            store_first(w + i, weight, left);
            store_first(m + i, first, left);
            store_first(v + i, second, left);
        }
    }
}

static void softmax16_body(const float* z, Index n, Index ld, float factor, float* out, float* largest, float* total,
                           std::int32_t* argmax) {
    constexpr int parts = 16 / kWidth;
    Vec best[parts], which[parts], sums[parts];
    for (int v = 0; v < parts; ++v) {
        best[v] = load(z + v * kWidth);
        which[v] = sums[v] = zero();
    }
    for (Index i = 1; i < n; ++i) {
        const float* row = z + static_cast<std::size_t>(i) * ld;
        float index_bits;
        __builtin_memcpy(&index_bits, &i, sizeof index_bits);
        const Vec index = set1(index_bits);  // only ever moved, so any bits will do
        for (int v = 0; v < parts; ++v) {
            const Vec a = load(row + v * kWidth);
            const Mask larger = less(best[v], a);
            best[v] = select(larger, a, best[v]);
            which[v] = select(larger, index, which[v]);
        }
    }
    for (Index i = 0; i < n; ++i) {
        const std::size_t at = static_cast<std::size_t>(i) * ld;
        for (int v = 0; v < parts; ++v) {
            const Vec e = exp_nonpositive(sub(load(z + at + v * kWidth), best[v]));
            sums[v] = add(sums[v], e);
            if (out) store(out + at + v * kWidth, e);
        }
    }
    for (int v = 0; v < parts; ++v) {
        store(largest + v * kWidth, best[v]);
        store(total + v * kWidth, sums[v]);
        float lanes[kWidth];
        store(lanes, which[v]);
        __builtin_memcpy(argmax + v * kWidth, lanes, sizeof lanes);
        sums[v] = div(set1(factor), sums[v]);
    }
    if (!out) return;
    for (Index i = 0; i < n; ++i) {
        float* row = out + static_cast<std::size_t>(i) * ld;
        for (int v = 0; v < parts; ++v) store(row + v * kWidth, mul(sums[v], load(row + v * kWidth)));
    }
}

static void logistic16_body(const float* z, const float* t, Index n, Index ld, float factor, float* delta, double* loss,
                            std::int32_t* wrong) {
    for (int b = 0; b < 16; ++b) {
        loss[b] = 0.0;
        wrong[b] = 0;
    }
    const Vec half = set1(0.5f), scale = set1(factor);
    for (Index i = 0; i < n; ++i) {
        const std::size_t at = static_cast<std::size_t>(i) * ld;
        float terms[16];
        unsigned missed = 0;
        for (int v = 0; v < 16 / kWidth; ++v) {
            const Vec a = load(z + at + v * kWidth), target = load(t + at + v * kWidth);
            const Vec e = exp_nonpositive(negative_absolute(a));
            // log(1 + e^z) - t z = max(z, 0) - t z + log(1 + e^-|z|)
            const Vec linear = mul(a, sub(select(less(zero(), a), set1(1.0f), zero()), target));
            store(terms + v * kWidth, add(linear, log1p_unit(e)));
            missed |= (bits(less(zero(), a)) ^ bits(less(half, target))) << (v * kWidth);
            if (delta) store(delta + at + v * kWidth, mul(scale, sub(sigmoid_from(a, e), target)));
        }
        for (int b = 0; b < 16; ++b) {
            loss[b] += static_cast<double>(terms[b]);
            wrong[b] += static_cast<std::int32_t>(missed >> b & 1u);
        }
    }
}

}  // namespace TRULYSPARSE_ISA_NAMESPACE
}  // namespace trulysparse
