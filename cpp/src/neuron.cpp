// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/neuron.hpp"

#include <cmath>
#include <vector>

#include "blocks.hpp"
#include "trulysparse/parallel.hpp"

namespace trulysparse {

template <class Offset>
void incoming_strength(const Offset* col_ptr, const Offset* perm, Index cols, const float* weights, float* strength,
                       int threads) {
    const auto blocks = row_blocks(col_ptr, cols);
    parallel_for(blocks.count(), threads, [&](std::int64_t b, int) {
        for (Index j = blocks.begin(b), end = blocks.end(b); j < end; ++j) {
            double sum = 0.0;
            for (auto k = static_cast<std::int64_t>(col_ptr[j]); k < col_ptr[j + 1]; ++k)
                sum += std::fabs(static_cast<double>(weights[perm[k]]));
            strength[j] = static_cast<float>(sum);
        }
    });
}

template <class Offset>
std::uint64_t drop_incoming(const PatternView<Offset>& p, const std::uint8_t* targets, std::uint8_t* mask,
                            int threads) {
    const Chunks chunks(static_cast<std::int64_t>(p.nnz()), 16384);
    std::vector<std::uint64_t> dropped(size_of(chunks.count()));
    parallel_for(chunks.count(), threads, [&](std::int64_t c, int) {
        std::uint64_t count = 0;
        const Index* const cols = p.col_idx;  // a local: bytes that are written might be anything's
        for (std::int64_t k = chunks.begin(c), end = chunks.end(c); k < end; ++k) {
            const bool dropped_here = targets[cols[k]] != 0;
            mask[k] = !dropped_here;
            count += dropped_here;
        }
        dropped[size_of(c)] = count;
    });
    return sums_before(dropped);
}

#define INSTANTIATE(Offset)                                                                          \
    template void incoming_strength(const Offset*, const Offset*, Index, const float*, float*, int); \
    template std::uint64_t drop_incoming(const PatternView<Offset>&, const std::uint8_t*, std::uint8_t*, int);
TRULYSPARSE_FOR_EACH_OFFSET(INSTANTIATE)
#undef INSTANTIATE

}  // namespace trulysparse
