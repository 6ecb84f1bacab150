// SPDX-License-Identifier: BSD-3-Clause
// The two kernels that matter: rows of weighted sums with everything that follows in registers, forward and backward.
#pragma once

#include <cstddef>

namespace trulysparse {
namespace TRULYSPARSE_ISA_NAMESPACE {

constexpr int kVectorsOfWord = 16 / kWidth;  // vectors that share a word of a bit plane
constexpr int kLineBytes = 64;
constexpr unsigned kLaneBits = (1u << kWidth) - 1u;

TS_INLINE unsigned word_bits(unsigned word, int v) { return word >> (v % kVectorsOfWord * kWidth) & kLaneBits; }

// One row of a tile, however it is stored; what is stored as bfloat16 is rounded here and nowhere else.
template <int N>
TS_INLINE void load_row(const ConstRows& from, std::size_t at, Vec (&row)[N]) {
    if (from.bf16) {
        for (int v = 0; v < N; ++v) row[v] = load(static_cast<const Bf16*>(from.data) + at + v * kWidth);
    } else {
        for (int v = 0; v < N; ++v) row[v] = load(static_cast<const float*>(from.data) + at + v * kWidth);
    }
}
template <int N>
TS_INLINE void store_row(const Rows& to, std::size_t at, const Vec (&row)[N]) {
    if (to.bf16) {
        for (int v = 0; v < N; ++v) store(static_cast<Bf16*>(to.data) + at + v * kWidth, row[v]);
    } else {
        for (int v = 0; v < N; ++v) store(static_cast<float*>(to.data) + at + v * kWidth, row[v]);
    }
}

// The same past the caches, whole lines at a time: what is not read again soon need not be fetched to be overwritten.
template <int N>
TS_INLINE void stream_row(const Rows& to, std::size_t at, const Vec (&row)[N]) {
    if (!to.bf16) {
        for (int v = 0; v < N; ++v) stream(static_cast<float*>(to.data) + at + v * kWidth, row[v]);
    } else if constexpr (N >= 2) {
        alignas(kLineBytes) Bf16 line[N * kWidth];
        for (int v = 0; v < N; ++v) store(line + v * kWidth, row[v]);
        float* out = reinterpret_cast<float*>(static_cast<Bf16*>(to.data) + at);
        for (int v = 0; v < N / 2; ++v)
            stream(out + v * kWidth, load(reinterpret_cast<const float*>(line) + v * kWidth));
    } else {
        store_row(to, at, row);
    }
}

// What follows a forward sum: activation, sign bits, dropout.
struct ForwardEnd {
    const ForwardBlock& job;

    template <int N>
    TS_INLINE void begin(const ForwardEnd& end, Vec (&sum)[N], Index row) {
        const Vec start = end.job.bias ? set1(end.job.bias[row]) : zero();
        for (int v = 0; v < N; ++v) sum[v] = start;
    }

    template <int N>
    TS_INLINE void finish(const ForwardEnd& end, Vec (&sum)[N], Index row) {
        const ForwardBlock& job = end.job;
        if (job.negative) {
            std::uint16_t* negative = job.negative + static_cast<std::size_t>(row) * (job.ld / 16);
            for (int g = 0; g < N / kVectorsOfWord; ++g) {
                unsigned word = 0;
                for (int v = 0; v < kVectorsOfWord; ++v)
                    word |= bits(less(sum[g * kVectorsOfWord + v], zero())) << (v * kWidth);
                negative[g] = static_cast<std::uint16_t>(word);
            }
        }
        if (job.kind == ActivationKind::rectifier) {
            const Vec slope = set1(job.slope);
            for (int v = 0; v < N; ++v) sum[v] = select(less(zero(), sum[v]), sum[v], mul(slope, sum[v]));
        } else if (job.kind != ActivationKind::linear) {
            float z[N * kWidth];
            for (int v = 0; v < N; ++v) store(z + v * kWidth, sum[v]);
            if (job.kind == ActivationKind::sigmoid)
                sigmoid_body(z, z, N * kWidth);
            else
                tanh_body(z, z, N * kWidth);
            for (int v = 0; v < N; ++v) sum[v] = load(z + v * kWidth);
        }
        if (job.kept) {
            const std::uint16_t* kept = job.kept + static_cast<std::size_t>(row) * job.kept_stride;
            const Vec scale = set1(job.dropout_scale);
            for (int v = 0; v < N; ++v)
                sum[v] = keep(from_bits(word_bits(kept[v / kVectorsOfWord], v)), mul(scale, sum[v]));
        }
        if (job.stream)
            stream_row(job.y, static_cast<std::size_t>(row) * job.ld, sum);
        else
            store_row(job.y, static_cast<std::size_t>(row) * job.ld, sum);
    }
};

// Folds a row into one number, in an order that only the widths decide. Changes the row.
template <int N>
TS_INLINE float total_of(Vec (&row)[N]) {
    for (int width = N / 2; width > 0; width /= 2)
        for (int v = 0; v < width; ++v) row[v] = add(row[v], row[v + width]);
    return sum(row[0]);
}

// What follows a backward sum: the mask and derivative of the layer below, and the row's totals.
struct BackwardEnd {
    const BackwardBlock& job;

    template <int N>
    TS_INLINE void begin(const BackwardEnd&, Vec (&sum)[N], Index) {
        for (int v = 0; v < N; ++v) sum[v] = zero();
    }

    template <int N>
    TS_INLINE void finish(const BackwardEnd& end, Vec (&dx)[N], Index row) {
        const BackwardBlock& job = end.job;
        const std::size_t at = static_cast<std::size_t>(row) * job.ld;
        const std::size_t word_at = static_cast<std::size_t>(row) * (job.ld / 16);
        if (job.derivative) {
            if (job.moment) moment_of(job, dx, row);
            if (job.kept) {
                const Vec scale = set1(job.dropout_scale);
                for (int v = 0; v < N; ++v) {
                    const unsigned word = job.kept[word_at + v / kVectorsOfWord];
                    dx[v] = keep(from_bits(word_bits(word, v)), mul(scale, dx[v]));
                }
            }
            if (job.kind == ActivationKind::rectifier) {
                const Vec slope = set1(job.slope);
                for (int v = 0; v < N; ++v) {
                    const unsigned word = job.negative[word_at + v / kVectorsOfWord];
                    dx[v] = select(from_bits(word_bits(word, v)), mul(slope, dx[v]), dx[v]);
                }
            } else if (job.kind != ActivationKind::linear) {
                const Vec inverse = set1(job.inverse_scale), one = set1(1.0f);
                const bool sigmoid = job.kind == ActivationKind::sigmoid;
                Vec stored[N];
                load_row(job.x, at, stored);
                for (int v = 0; v < N; ++v) {
                    const Vec a = mul(inverse, stored[v]);
                    const Vec slope = sigmoid ? mul(a, sub(one, a)) : sub(one, mul(a, a));
                    dx[v] = mul(dx[v], slope);
                }
            }
        }
        store_row(job.dx, at, dx);
        if (job.row_sum) {
            const float total = total_of(dx);
            job.row_sum[row] = job.accumulate ? job.row_sum[row] + total : total;
        }
    }

    // Before the mask: x holds it, and its scale, already. dx is still in registers, and x was read just now.
    template <int N>
    TS_INLINE void moment_of(const BackwardBlock& job, const Vec (&dx)[N], Index row) {
        Vec stored[N];
        load_row(job.x, static_cast<std::size_t>(row) * job.ld, stored);
        for (int v = 0; v < N; ++v) {
            const unsigned word = job.negative[static_cast<std::size_t>(row) * (job.ld / 16) + v / kVectorsOfWord];
            stored[v] = keep(from_bits(word_bits(word, v)), mul(dx[v], stored[v]));
        }
        const float total = total_of(stored);
        job.moment[row] = job.accumulate ? job.moment[row] + total : total;
    }
};

template <int N, class T>
TS_INLINE void prefetch_row(const T* row) {
    for (int i = 0; i < N * kWidth; i += kLineBytes / static_cast<int>(sizeof(T))) __builtin_prefetch(row + i);
}

// sums[r][v] += w[k] * from[index[k], v] over the connections k = at[r] + i, i in [0, count), of R rows side by side, in
// order: one row of few vectors would wait for its own last multiply-add.
template <int N, int R, bool Prefetch, bool Permuted, class T>
TS_INLINE void weighted_sums(const RowBlock& block, const std::int64_t* at, std::int64_t count, const T* from,
                             std::size_t ld, Vec (*sums)[N]) {
    const std::int64_t ahead = block.ahead;
    for (std::int64_t i = 0; i < count; ++i)
        for (int r = 0; r < R; ++r) {
            const std::int64_t k = at[r] + i;
            const T* row = from + static_cast<std::size_t>(block.index[k]) * ld;
            if (Prefetch) prefetch_row<N>(from + static_cast<std::size_t>(block.index[k + ahead]) * ld);
            if (Prefetch && Permuted) __builtin_prefetch(block.weights + block.perm[k + ahead]);
            const Vec weight = set1(block.weights[Permuted ? block.perm[k] : k]);
            for (int v = 0; v < N; ++v) sums[r][v] = fma(weight, load(row + v * kWidth), sums[r][v]);
        }
}

template <int N, int R, bool Prefetch, bool Permuted, class T, class End>
TS_INLINE void sum_group(const RowBlock& block, Index first, const T* from, std::size_t ld, const End& end) {
    std::int64_t at[R], common = block.start[first + 1] - block.start[first];
    Vec sums[R][N];
    for (int r = 0; r < R; ++r) {
        at[r] = block.start[first + r];
        const std::int64_t length = block.start[first + r + 1] - at[r];
        common = length < common ? length : common;
        End::template begin<N>(end, sums[r], first + r);
    }
    weighted_sums<N, R, Prefetch, Permuted>(block, at, common, from, ld, sums);
    for (int r = 0; r < R; ++r) {
        if (R > 1) {
            const std::int64_t rest = at[r] + common;
            weighted_sums<N, 1, Prefetch, Permuted>(block, &rest, block.start[first + r + 1] - rest, from, ld,
                                                    sums + r);
        }
        End::template finish<N>(end, sums[r], first + r);
    }
}

template <int N, bool Permuted, class T, class End>
static void sum_rows(const RowBlock& block, const T* from, Index ld, const End& end) {
    constexpr int kGroup = N >= 4 ? 1 : 4 / N;  // enough multiply-adds under way
    const std::size_t stride = static_cast<std::size_t>(ld);
    Index r = 0;
    // One by one where memory is what is waited for: side by side, a row is read before what it prefetched arrives.
    if (block.ahead)
        for (; r < block.rows && block.start[r + 1] + block.ahead <= block.readable; ++r)
            sum_group<N, 1, true, Permuted>(block, r, from, stride, end);
    for (; r + kGroup <= block.rows; r += kGroup) sum_group<N, kGroup, false, Permuted>(block, r, from, stride, end);
    for (; r < block.rows; ++r) sum_group<N, 1, false, Permuted>(block, r, from, stride, end);
}

// dx[v] += w[k] * dy[index[k], v] and dw[k] (+)= sum over the tile of x * dy[index[k]], for one row.
template <int N, bool WithDx, bool Prefetch, class T>
TS_INLINE void gradient_row(const BackwardBlock& job, const T* dy, std::int64_t begin, std::int64_t end,
                            const Vec (&x)[N], Vec (&dx)[N]) {
    const Index* index = job.block.index;
    const float* w = job.block.weights;
    const std::int64_t ahead = job.block.ahead;
    const std::size_t ld = static_cast<std::size_t>(job.ld);
    float* dw = job.dw;
    const bool accumulate = job.accumulate;

    std::int64_t k = begin;
    // Four at a time share one transposed reduction.
    for (; k + 4 <= end; k += 4) {
        Vec part[4];
        for (int c = 0; c < 4; ++c) {
            if (Prefetch) prefetch_row<N>(dy + static_cast<std::size_t>(index[k + c + ahead]) * ld);
            const T* row = dy + static_cast<std::size_t>(index[k + c]) * ld;
            const Vec weight = set1(w[k + c]);
            for (int v = 0; v < N; ++v) {
                const Vec d = load(row + v * kWidth);
                if (WithDx) dx[v] = fma(weight, d, dx[v]);
                part[c] = v == 0 ? mul(x[0], d) : fma(x[v], d, part[c]);
            }
        }
        store_sums(dw + k, part[0], part[1], part[2], part[3], accumulate);
    }
    for (; k < end; ++k) {
        if (Prefetch) prefetch_row<N>(dy + static_cast<std::size_t>(index[k + ahead]) * ld);
        const T* row = dy + static_cast<std::size_t>(index[k]) * ld;
        const Vec weight = set1(w[k]);
        Vec part = zero();
        for (int v = 0; v < N; ++v) {
            const Vec d = load(row + v * kWidth);
            if (WithDx) dx[v] = fma(weight, d, dx[v]);
            part = v == 0 ? mul(x[0], d) : fma(x[v], d, part);
        }
        const float total = sum(part);
        dw[k] = accumulate ? dw[k] + total : total;
    }
}

template <int N, bool WithDx, class T>
static void gradient_rows(const BackwardBlock& job, const T* dy) {
    const RowBlock& block = job.block;
    const BackwardEnd end_of_row{job};
    for (Index r = 0; r < block.rows; ++r) {
        const std::int64_t first = block.start[r], last = block.start[r + 1];
        Vec x[N], dx[N];
        load_row(job.x, static_cast<std::size_t>(r) * job.ld, x);
        if (WithDx) BackwardEnd::begin<N>(end_of_row, dx, r);
        if (block.ahead && last + block.ahead <= block.readable)
            gradient_row<N, WithDx, true>(job, dy, first, last, x, dx);
        else
            gradient_row<N, WithDx, false>(job, dy, first, last, x, dx);
        if (WithDx) BackwardEnd::finish<N>(end_of_row, dx, r);
    }
}

template <int N, class T>
static void forward_from(const ForwardBlock& job, const T* x) {
    job.block.perm ? sum_rows<N, true>(job.block, x, job.ld, ForwardEnd{job})
                   : sum_rows<N, false>(job.block, x, job.ld, ForwardEnd{job});
    if (job.stream) streams_done();
}

template <int N, class T>
static void backward_from(const BackwardBlock& job, const T* dy) {
    if (!job.dw)
        sum_rows<N, false>(job.block, dy, job.ld, BackwardEnd{job});
    else if (job.dx.data)
        gradient_rows<N, true>(job, dy);
    else
        gradient_rows<N, false>(job, dy);
}

// Only the streamed rows, one for each connection, have code of their own for each way of storing.
template <int N = 8>
static void forward_body(const ForwardBlock& job, Index width) {
    if (width == N * kWidth)
        job.x.bf16 ? forward_from<N>(job, static_cast<const Bf16*>(job.x.data))
                   : forward_from<N>(job, static_cast<const float*>(job.x.data));
    else if constexpr (N * kWidth > 16)
        forward_body<N / 2>(job, width);
    else
        __builtin_trap();  // Tiles gives no other width; going on would leave y unwritten
}

template <int N = 8>
static void backward_body(const BackwardBlock& job, Index width) {
    if (width == N * kWidth) {
        job.dy.bf16 ? backward_from<N>(job, static_cast<const Bf16*>(job.dy.data))
                    : backward_from<N>(job, static_cast<const float*>(job.dy.data));
    } else if constexpr (N * kWidth > 16) {
        backward_body<N / 2>(job, width);
    } else {
        __builtin_trap();  // as above
    }
}

}  // namespace TRULYSPARSE_ISA_NAMESPACE
}  // namespace trulysparse
