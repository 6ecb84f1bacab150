// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/batch.hpp"

#include <cstddef>
#include <cstring>
#include <string>

#include "trulysparse/parallel.hpp"

namespace trulysparse {

namespace {

constexpr Index kSamples = 16;   // of a block: a cache line of the feature-major side
constexpr Index kFeatures = 16;  // of a block
constexpr Index kFeaturesOfItem = 256;
constexpr Index kPrefetched = 256;  // samples: their features of an item stay in the second cache
constexpr std::int64_t kParallelElements = 1 << 16;

int threads_for(std::int64_t elements, std::int64_t tasks, int threads) {
    if (elements < kParallelElements || tasks < 2) return 1;
    return tasks < threads ? static_cast<int>(tasks) : threads;
}

Index smaller(Index a, Index b) { return a < b ? a : b; }

typedef float Four __attribute__((vector_size(16)));
typedef std::int32_t Lanes __attribute__((vector_size(16)));

inline Four load(const float* p) {
    Four a;
    std::memcpy(&a, p, sizeof a);
    return a;
}
inline void store(float* p, Four a) { std::memcpy(p, &a, sizeof a); }

#if defined(__clang__)
#define TS_SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define TS_SHUFFLE(a, b, i, j, k, l) __builtin_shuffle(a, b, Lanes{i, j, k, l})
#endif

// to[c * to_stride + r] = from[r * from_stride + c] for 4 x 4.
inline void transpose4(const float* from, std::size_t from_stride, float* to, std::size_t to_stride) {
    const Four a = load(from), b = load(from + from_stride);
    const Four c = load(from + 2 * from_stride), d = load(from + 3 * from_stride);
    const Four ab0 = TS_SHUFFLE(a, b, 0, 4, 1, 5), ab1 = TS_SHUFFLE(a, b, 2, 6, 3, 7);
    const Four cd0 = TS_SHUFFLE(c, d, 0, 4, 1, 5), cd1 = TS_SHUFFLE(c, d, 2, 6, 3, 7);
    store(to, TS_SHUFFLE(ab0, cd0, 0, 1, 4, 5));
    store(to + to_stride, TS_SHUFFLE(ab0, cd0, 2, 3, 6, 7));
    store(to + 2 * to_stride, TS_SHUFFLE(ab1, cd1, 0, 1, 4, 5));
    store(to + 3 * to_stride, TS_SHUFFLE(ab1, cd1, 2, 3, 6, 7));
}

#undef TS_SHUFFLE

// A 16 x 16 block between two arrays; four columns of `from` at a time, so that each line of `to` is filled at once.
inline void transpose16(const float* from, std::size_t from_stride, float* to, std::size_t to_stride) {
    for (std::size_t c = 0; c < 16; c += 4)
        for (std::size_t r = 0; r < 16; r += 4)
            transpose4(from + r * from_stride + c, from_stride, to + c * to_stride + r, to_stride);
}

[[noreturn]] void throw_outside(std::int64_t row) {
    throw InvalidArgument("row " + std::to_string(row) +
                          " of the CSR matrix points outside of it; check it with check_format()");
}

// Asks for a sample's features before their turn: samples of a shuffled epoch are anywhere in memory.
template <class T>
void prefetch(const T* from, std::int64_t stride, Index count) {
    if (stride != 1) return;
    const char* bytes = reinterpret_cast<const char*>(from);
    const std::size_t end = static_cast<std::size_t>(count) * sizeof(T);
    for (std::size_t at = 0; at < end; at += 64) __builtin_prefetch(bytes + at);
    __builtin_prefetch(bytes + end - 1);
}

// One sample's features as standardised floats.
template <class T>
void convert(const T* from, std::int64_t stride, Index count, const float* shift, const float* factor,
             float* __restrict to) {
    if (stride == 1)
        for (Index f = 0; f < count; ++f) to[f] = static_cast<float>(from[f]);
    else
        for (Index f = 0; f < count; ++f) to[f] = static_cast<float>(from[f * stride]);
    if (factor)
        for (Index f = 0; f < count; ++f) to[f] = (to[f] - shift[f]) * factor[f];
}

}  // namespace

template <class T>
void load_dense(const T* X, std::int64_t row_stride, std::int64_t col_stride, const std::int64_t* rows, Index batch,
                Index features, const float* shift, const float* factor, float* out, Index ld, int threads) {
    const std::int64_t items = (static_cast<std::int64_t>(features) + kFeaturesOfItem - 1) / kFeaturesOfItem;
    const std::size_t stride = static_cast<std::size_t>(ld);
    threads = threads_for(static_cast<std::int64_t>(features) * ld, items, threads);
    parallel_for(items, threads, [&](std::int64_t item, int) {
        const Index first = static_cast<Index>(item * kFeaturesOfItem);
        const Index count = smaller(features - first, kFeaturesOfItem);
        alignas(64) float block[kSamples][kFeaturesOfItem];
        for (Index s = 0; s < smaller(batch, kPrefetched); ++s)
            prefetch(X + rows[s] * row_stride + first * col_stride, col_stride, count);
        for (Index b = 0; b < ld; b += kSamples) {
            const Index samples = batch > b ? smaller(batch - b, kSamples) : 0;
            for (Index s = 0; s < samples; ++s)
                convert(X + rows[b + s] * row_stride + first * col_stride, col_stride, count,
                        shift ? shift + first : nullptr, factor ? factor + first : nullptr, block[s]);
            for (Index s = samples; s < kSamples; ++s) std::memset(block[s], 0, sizeof block[s]);
            float* to = out + static_cast<std::size_t>(first) * stride + b;
            Index f = 0;
            for (; f + kFeatures <= count; f += kFeatures)
                transpose16(block[0] + f, kFeaturesOfItem, to + static_cast<std::size_t>(f) * stride, stride);
            for (; f < count; ++f)
                for (Index s = 0; s < kSamples; ++s) to[static_cast<std::size_t>(f) * stride + s] = block[s][f];
        }
    });
}

template <class T, class I>
void load_csr(const T* data, const I* indices, std::int64_t nnz, const I* indptr, const std::int64_t* rows, Index batch,
              Index features, const float* factor, float* out, Index ld, int threads) {
    const std::size_t stride = static_cast<std::size_t>(ld);
    threads = threads_for(static_cast<std::int64_t>(features) * ld, ld / kSamples, threads);
    parallel_for(ld / kSamples, threads, [&](std::int64_t task, int) {
        const Index b = static_cast<Index>(task) * kSamples;
        for (Index f = 0; f < features; ++f)
            std::memset(out + static_cast<std::size_t>(f) * stride + b, 0, kSamples * sizeof(float));
        const Index end = smaller(batch, b + kSamples);
        for (Index s = b; s < end; ++s) {
            const std::int64_t row = rows[s];
            const std::int64_t begin = indptr[row], end_of_row = indptr[row + 1];
            if (begin < 0 || begin > end_of_row || end_of_row > nnz) throw_outside(row);
            for (std::int64_t k = begin; k < end_of_row; ++k) {
                if (indices[k] < 0 || indices[k] >= features) throw_outside(row);
                const std::size_t f = static_cast<std::size_t>(indices[k]);
                const float value = static_cast<float>(data[k]);
                out[f * stride + s] += factor ? value * factor[f] : value;  // repeated entries add up, as in SciPy
            }
        }
    });
}

void store_transposed(const float* a, Index features, Index ld, Index batch, float* out, int threads) {
    const std::int64_t items = (static_cast<std::int64_t>(features) + kFeaturesOfItem - 1) / kFeaturesOfItem;
    const std::size_t from_stride = static_cast<std::size_t>(ld), to_stride = static_cast<std::size_t>(features);
    threads = threads_for(static_cast<std::int64_t>(features) * ld, items, threads);
    parallel_for(items, threads, [&](std::int64_t item, int) {
        const Index item_begin = static_cast<Index>(item * kFeaturesOfItem);
        const Index item_end = smaller(features - item_begin, kFeaturesOfItem) + item_begin;
        for (Index b = 0; b < batch; b += kSamples)
            for (Index f = item_begin; f < item_end; f += kFeatures) {
                const Index samples = smaller(batch - b, kSamples), count = smaller(item_end - f, kFeatures);
                const float* from = a + static_cast<std::size_t>(f) * from_stride + b;
                float* to = out + static_cast<std::size_t>(b) * to_stride + f;
                if (samples == kSamples && count == kFeatures) {
                    transpose16(from, from_stride, to, to_stride);
                } else {
                    for (Index s = 0; s < samples; ++s)
                        for (Index c = 0; c < count; ++c)
                            to[static_cast<std::size_t>(s) * to_stride + c] =
                                from[static_cast<std::size_t>(c) * from_stride + s];
                }
            }
    });
}

#define TS_DENSE(T)                                                                                                 \
    template void load_dense(const T*, std::int64_t, std::int64_t, const std::int64_t*, Index, Index, const float*, \
                             const float*, float*, Index, int);
#define TS_CSR(T, I)                                                                                      \
    template void load_csr(const T*, const I*, std::int64_t, const I*, const std::int64_t*, Index, Index, \
                           const float*, float*, Index, int);
#define TS_ALL(T)           \
    TS_DENSE(T)             \
    TS_CSR(T, std::int32_t) \
    TS_CSR(T, std::int64_t)

TS_ALL(std::uint8_t)
TS_ALL(std::int8_t)
TS_ALL(std::uint16_t)
TS_ALL(std::int16_t)
TS_ALL(std::int32_t)
TS_ALL(std::int64_t)
TS_ALL(float)
TS_ALL(double)

}  // namespace trulysparse
