// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/single.hpp"

#include <cmath>
#include <cstring>

#include "blocks.hpp"
#include "isa/table.hpp"
#include "layer_run.hpp"
#include "trulysparse/parallel.hpp"

namespace trulysparse {

namespace {

constexpr std::int64_t kGrainOfItem = 32768;  // connections; below two of them, waking threads costs more

typedef float Four __attribute__((vector_size(16)));

inline Four load(const float* p) {
    Four a;
    std::memcpy(&a, p, sizeof a);
    return a;
}

// Products are rounded before they are added, so that this file needs no instruction set of its own.
inline float weighted_sum(const Index* index, const float* w, const float* x, std::int64_t n, float start) {
    Four sums = {start, 0.0f, 0.0f, 0.0f};
    std::int64_t k = 0;
    for (; k + 4 <= n; k += 4) {
        const Four values = {x[index[k]], x[index[k + 1]], x[index[k + 2]], x[index[k + 3]]};
        sums += load(w + k) * values;
    }
    float total = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    if (k < n) total += w[k] * x[index[k]];
    if (k + 1 < n) total += w[k + 1] * x[index[k + 1]];
    if (k + 2 < n) total += w[k + 2] * x[index[k + 2]];
    return total;
}

inline float in_pieces(const TrainedPieces& p, float z) {
    if (z < p.left) return p.left + p.left_slope * (z - p.left);
    return z > p.right ? p.right + p.right_slope * (z - p.right) : z;
}

}  // namespace

template <class Offset>
void forward_single(const SingleArgs<Offset>& a, int threads) {
    const auto blocks = row_blocks(a.col_ptr, a.n_out, kGrainOfItem);
    // A table, because a branch on a sign is a matter of chance: the factors of what is not positive and what is.
    const float factors[2] = {a.activation.kind == ActivationKind::rectifier ? a.activation.slope : 1.0f, 1.0f};
    parallel_for(blocks.count(), threads, [&](std::int64_t block, int) {
        const Index end = blocks.end(block);
        for (Index j = blocks.begin(block); j < end; ++j) {
            const std::int64_t first = a.col_ptr[j], n = a.col_ptr[j + 1] - first;
            const float z = weighted_sum(a.row_idx + first, a.weights + first, a.x, n, a.bias[j]);
            a.y[j] = z * factors[z > 0.0f];
        }
    });
    for (Index j = 0; a.trained.left_slope && j < a.n_out; ++j)
        a.y[j] = in_pieces(trained_pieces(a.trained, j), a.y[j]);
    for (Index j = a.n_out; j < padded(a.n_out); ++j) a.y[j] = 0.0f;
    if (a.activation.kind == ActivationKind::sigmoid) active_kernels().sigmoid(a.y, a.y, padded(a.n_out));
    if (a.activation.kind == ActivationKind::tanh) active_kernels().tanh(a.y, a.y, padded(a.n_out));
}

bool infer(const std::vector<SingleLayer>& layers, const float* samples, Index count, const float* shift,
           const float* factor, float* out, int threads) {
    static thread_local Buffer<float> kept[2];
    const auto inputs = [](const SingleLayer& layer) { return std::visit([](auto& l) { return l.n_in; }, layer); };
    const auto outputs = [](const SingleLayer& layer) { return std::visit([](auto& l) { return l.n_out; }, layer); };
    const Index n_in = inputs(layers.front()), n_out = outputs(layers.back());
    Index widest = n_in;
    for (const SingleLayer& layer : layers) widest = std::max(widest, outputs(layer));
    float* buffers[2];
    for (int b : {0, 1}) buffers[b] = detail::at_least(kept[b], size_of(padded(widest)));

    for (Index s = 0; s < count; ++s) {
        const float* sample = samples + size_of(s) * size_of(n_in);
        float* x = buffers[0];
        float size = 0.0f;  // scaled so that no sum of finite values overflows: infinite or NaN only if one of them is
        for (Index f = 0; f < n_in; ++f) {
            x[f] = factor ? (sample[f] - shift[f]) * factor[f] : sample[f];
            size += std::fabs(sample[f]) * 0x1p-64f;
        }
        if (!std::isfinite(size)) return false;
        float* y = buffers[1];
        for (const SingleLayer& layer : layers) {
            std::visit(
                [&](auto args) {
                    args.x = x;
                    args.y = y;
                    forward_single(args, threads);
                },
                layer);
            std::swap(x, y);
        }
        std::memcpy(out + size_of(s) * size_of(n_out), x, size_of(n_out) * sizeof(float));
    }
    return true;
}

template <class Offset>
void gather(const Offset* perm, const float* values, std::uint64_t n, float* out, int threads) {
    const Chunks chunks(static_cast<std::int64_t>(n), kGrainOfItem);
    parallel_for(chunks.count(), threads, [&](std::int64_t chunk, int) {
        for (std::int64_t k = chunks.begin(chunk); k < chunks.end(chunk); ++k) out[k] = values[perm[k]];
    });
}

#define TS_INSTANTIATE(Offset)                                            \
    template void forward_single<Offset>(const SingleArgs<Offset>&, int); \
    template void gather<Offset>(const Offset*, const float*, std::uint64_t, float*, int);
TRULYSPARSE_FOR_EACH_OFFSET(TS_INSTANTIATE)
#undef TS_INSTANTIATE

}  // namespace trulysparse
