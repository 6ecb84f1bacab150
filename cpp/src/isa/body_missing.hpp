// SPDX-License-Identifier: BSD-3-Clause
// Tiles of dense gradients as outer products: each sum is one chain of multiply-adds in a register.
#pragma once

#include <cstddef>

namespace trulysparse {
namespace TRULYSPARSE_ISA_NAMESPACE {

// Sums that fill the registers: 24 of 32 or 12 of 16, the others for columns and a row's factor.
constexpr bool kManyRegisters = kWidth == 16 || !TRULYSPARSE_X86;
constexpr int kTileRows = kManyRegisters ? 8 : 6;
constexpr int kTileVectors = kManyRegisters ? 3 : 2;
static_assert(kTileRows * kTileVectors * kWidth <= kMostTileCells, "callers hold a tile on the stack");

// rows (depth, kTileRows) and columns (depth, V vectors), both packed; tile (kTileRows, V vectors).
template <int V>
TS_INLINE void tile_of(const float* rows, const float* columns, Index depth, float* tile) {
    Vec sums[kTileRows][V];
    for (int r = 0; r < kTileRows; ++r)
        for (int v = 0; v < V; ++v) sums[r][v] = zero();
    for (Index b = 0; b < depth; ++b) {
        Vec column[V];
        for (int v = 0; v < V; ++v) column[v] = load(columns + v * kWidth);
        for (int r = 0; r < kTileRows; ++r) {
            const Vec factor = set1(rows[r]);
            for (int v = 0; v < V; ++v) sums[r][v] = fma(factor, column[v], sums[r][v]);
        }
        rows += kTileRows;
        columns += V * kWidth;
    }
    for (int r = 0; r < kTileRows; ++r)
        for (int v = 0; v < V; ++v) store(tile + (r * V + v) * kWidth, sums[r][v]);
}

// width: of the packed columns, 1 to kTileVectors vectors.
template <int V = kTileVectors>
static void gradient_tile(const float* rows, const float* columns, Index depth, Index width, float* tile) {
    if constexpr (V > 1) {
        if (width < V * kWidth) return gradient_tile<V - 1>(rows, columns, depth, width, tile);
    }
    tile_of<V>(rows, columns, depth, tile);
}

constexpr int kAtOnce = 64;

static Index reach_body(const float* p, Index n, float limit, float* values, std::uint16_t* places) {
    const Vec least = set1(limit);
    Index found = 0;
    Index i = 0;
    const auto take = [&](std::uint64_t word) {
        for (; word != 0; word &= word - 1) {
            const Index at = i + __builtin_ctzll(word);
            values[found] = p[at];
            places[found++] = static_cast<std::uint16_t>(at);
        }
    };
    for (; i + kAtOnce <= n; i += kAtOnce) {  // many at once: most branches of chance are at the end of a word
        std::uint64_t below = 0;
        for (int v = 0; v < kAtOnce; v += kWidth)
            below |= static_cast<std::uint64_t>(bits(less(absolute(load(p + i + v)), least))) << v;
        take(~below);
    }
    for (; i < n; i += kWidth) {
        const Index here = n - i < kWidth ? n - i : kWidth;
        const Vec value = here < kWidth ? load_first(p + i, here) : load(p + i);
        take(~bits(less(absolute(value), least)) & ((1u << here) - 1u));
    }
    return found;
}

static Index gradient_reach_body(const float* rows, const float* columns, Index depth, Index width, float limit,
                                 float* values, std::uint16_t* places) {
    alignas(64) float tile[kMostTileCells];
    gradient_tile(rows, columns, depth, width, tile);
    return reach_body(tile, kTileRows * width, limit, values, places);
}

static void gradient_update_body(const float* rows, const float* columns, Index depth, Index width, float decay,
                                 float weight, float* out, std::size_t stride, Index n_rows, Index n_columns) {
    alignas(64) float tile[kMostTileCells];
    gradient_tile(rows, columns, depth, width, tile);
    const Vec share = set1(weight), stays = set1(decay);
    for (Index r = 0; r < n_rows; ++r) {
        float* line = out + static_cast<std::size_t>(r) * stride;
        for (Index c = 0; c < n_columns; c += kWidth) {
            const Index here = n_columns - c;
            const Vec g = load(tile + r * width + c);
            Vec value = mul(share, g);
            if (decay != 0.0f)
                value = fma(share, g, mul(stays, here < kWidth ? load_first(line + c, here) : load(line + c)));
            if (here < kWidth)
                store_first(line + c, value, here);
            else
                store(line + c, value);
        }
    }
}

// n a multiple of 16.
static float dot_body(const float* a, const float* b, Index n) {
    Vec part[4] = {zero(), zero(), zero(), zero()};
    Index i = 0;
    for (; i + 4 * kWidth <= n; i += 4 * kWidth)
        for (int v = 0; v < 4; ++v) part[v] = fma(load(a + i + v * kWidth), load(b + i + v * kWidth), part[v]);
    for (; i < n; i += kWidth) part[0] = fma(load(a + i), load(b + i), part[0]);
    return sum(add(add(part[0], part[1]), add(part[2], part[3])));
}

}  // namespace TRULYSPARSE_ISA_NAMESPACE
}  // namespace trulysparse
