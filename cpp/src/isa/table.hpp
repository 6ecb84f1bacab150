// SPDX-License-Identifier: BSD-3-Clause
// What one instruction set offers: plain functions over plain structs, so that no template or inline function is shared
// between files compiled with different flags.
#pragma once

#include <cstddef>
#include <cstdint>

#include "trulysparse/activation.hpp"
#include "trulysparse/trained.hpp"
#include "trulysparse/update.hpp"

#ifndef TRULYSPARSE_X86
#if defined(__x86_64__)
#define TRULYSPARSE_X86 1
#else
#define TRULYSPARSE_X86 0
#endif
#endif

namespace trulysparse {

constexpr int kMostTileCells = 384;  // of one tile of gradients, in any instruction set

// Some rows of an index with their connections; positions count from the first of them.
struct RowBlock {
    Index rows;
    const std::int32_t* start;  // (rows + 1)
    const Index* index;         // which row of the streamed matrix each connection reads
    const float* weights;
    const std::int32_t* perm;  // where in `weights` each one stands; nullptr: in order
    std::int64_t readable;     // entries of `index` that exist, for looking ahead
    Index ahead;               // connections between a prefetch and its use; 0: all is near
};

// All pointers to activations and bit planes stand at the tile's first column.
struct ForwardBlock {
    RowBlock block;
    ConstRows x;
    Rows y;
    const float* bias;  // or nullptr: zero
    Index ld;
    ActivationKind kind;
    float slope;
    std::uint16_t* negative;    // or nullptr; rows ld / 16 words apart
    const std::uint16_t* kept;  // or nullptr: no dropout
    Index kept_stride;
    float dropout_scale;
    bool stream;  // y goes past the caches; its rows of this tile are whole lines
};

struct BackwardBlock {
    RowBlock block;
    ConstRows dy;
    ConstRows x;
    Rows dx;          // or nullptr
    float* dw;        // or nullptr; one a connection
    float* row_sum;   // or nullptr
    float* moment;    // or nullptr; a rectifier's sum of dx * x over negative z, before its derivative
    bool accumulate;  // dw, row_sum and moment hold the sums of earlier tiles
    bool derivative;  // dx is complete: apply the layer below's dropout and derivative
    Index ld;
    ActivationKind kind;
    float slope;
    float dropout_scale;
    float inverse_scale;
    const std::uint16_t* negative;  // rows ld / 16 words apart
    const std::uint16_t* kept;
};

// Which units of rows x (16 * words) columns are kept, see Dropout.
struct KeptBlock {
    std::uint32_t key0, key1, step, tag;
    std::uint32_t neuron;       // of row 0
    std::uint32_t first_block;  // block of eight samples of column 0
    std::uint32_t threshold;
    Index rows, words;  // words: a power of two up to 8
    std::uint16_t* out;
    Index stride;
};

// Normal numbers out[2 b], out[2 b + 1] = normal2 of the block with index high << 32 | first_block + b, b in [0, blocks).
struct NormalsJob {
    std::uint32_t key0, key1, step, tag;
    std::uint32_t high, first_block;
    std::int64_t blocks;
    float* out;
};

// Over one row: of d where z lies beyond a threshold, of d times the distance from it, and of the delta of z.
struct TrainedSums {
    float left, right, left_moment, right_moment, total;
};

struct KernelTable {
    Index widest_tile;  // columns; every power of two from 16 up to this is served

    void (*forward)(const ForwardBlock& job, Index width);
    void (*backward)(const BackwardBlock& job, Index width);
    void (*kept_bits)(const KeptBlock& job);
    void (*normals)(const NormalsJob& job);

    void (*sgd)(float* w, float* v, const float* g, std::int64_t n, const SgdParams& p);
    void (*adam)(float* w, float* m, float* v, const float* g, std::int64_t n, const AdamParams& p);
    void (*add)(float* sum, const float* term, std::int64_t n);
    // Elements [at, at + n) of out: the mean of `count` arrays, in double; out may be one of them.
    void (*average)(const float* const* arrays, std::size_t count, std::int64_t at, float* out, std::int64_t n);

    // Sixteen columns of z (n, ld). out (may be z, or nullptr) = softmax * factor; largest, sum of exponentials and
    // lowest index of the largest per column.
    void (*softmax16)(const float* z, Index n, Index ld, float factor, float* out, float* largest, float* sum,
                      std::int32_t* argmax);
    // out = sigmoid(z), n a multiple of 16; out may be z.
    void (*sigmoid)(const float* z, float* out, std::int64_t n);
    void (*tanh)(const float* z, float* out, std::int64_t n);
    // Sixteen columns: delta (may be z, or nullptr) = (sigmoid(z) - t) * factor; loss = sums over outputs of
    // log(1 + e^z) - t z; wrong = outputs on the wrong side of 1/2.
    void (*logistic16)(const float* z, const float* t, Index n, Index ld, float factor, float* delta, double* loss,
                       std::int32_t* wrong);

    // One row of trained.hpp, n a multiple of 16. kept: or nullptr, no dropout.
    void (*trained_forward)(const float* z, const Rows& y, std::int64_t n, const TrainedPieces& p,
                            const std::uint16_t* kept, float dropout_scale);
    void (*trained_backward)(const float* z, const Rows& delta, std::int64_t n, const TrainedPieces& p,
                             const std::uint16_t* kept, float dropout_scale, TrainedSums& sums);

    // What probe.hpp measures the machine with. fma_width: multiply-adds of one round.
    Index fma_width;
    float (*fma_rounds)(std::int64_t rounds, float a, float b);
    float (*sum_floats)(const float* p, std::int64_t n);
    float (*sum_rows)(const float* matrix, Index width, const Index* order, std::int64_t n, std::int64_t ahead,
                      std::int64_t readable);

    // Gradients of missing connections, missing.hpp: tiles of tile_rows x (up to tile_columns, a multiple of lanes)
    // sums over `depth`, of rows packed (depth, tile_rows) and columns packed (depth, width).
    Index tile_rows, tile_columns, lanes;
    // Values and places (row * width + column) of what is not below `limit` in magnitude, NaN among them; how many.
    Index (*gradient_reach)(const float* rows, const float* columns, Index depth, Index width, float limit,
                            float* values, std::uint16_t* places);
    // out (n_rows, n_columns), rows `stride` apart, = decay * out + weight * tile; not read if decay is 0.
    void (*gradient_update)(const float* rows, const float* columns, Index depth, Index width, float decay,
                            float weight, float* out, std::size_t stride, Index n_rows, Index n_columns);
    // As gradient_reach, of n (at most 65536) given values.
    Index (*reach)(const float* p, Index n, float limit, float* values, std::uint16_t* places);
    // <a, b>, n a multiple of 16.
    float (*dot)(const float* a, const float* b, Index n);
};

const KernelTable& baseline_kernels();
#if TRULYSPARSE_X86
const KernelTable& avx2_kernels();
const KernelTable& avx512_kernels();
#endif

// The table of the active instruction set.
const KernelTable& active_kernels();

}  // namespace trulysparse
