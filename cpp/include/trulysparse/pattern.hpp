// SPDX-License-Identifier: BSD-3-Clause
// Pattern algebra: the set of connections of a layer as sorted CSR (rows = source neurons, columns = targets), and the
// five operations of which every change of topology is made. Float arrays in pattern order are carried along, or onto
// another pattern.
#pragma once

#include <cstdint>
#include <vector>

#include "trulysparse/rng.hpp"
#include "trulysparse/types.hpp"

namespace trulysparse {

template <class Offset>
struct PatternView {
    Index rows = 0, cols = 0;
    const Offset* row_ptr = nullptr;  // (rows + 1)
    const Index* col_idx = nullptr;   // (nnz), strictly ascending within a row
    Offset nnz() const { return row_ptr[rows]; }
    std::uint64_t cells() const { return static_cast<std::uint64_t>(rows) * static_cast<std::uint64_t>(cols); }
};

template <class Offset>
struct Pattern {
    Index rows = 0, cols = 0;
    Buffer<Offset> row_ptr;
    Buffer<Index> col_idx;
    PatternView<Offset> view() const { return {rows, cols, row_ptr.data(), col_idx.data()}; }
};

// The second index: connections sorted by (target, source); perm[k] is where the k-th of them stands in pattern order.
template <class Offset>
struct Transposed {
    Buffer<Offset> col_ptr;  // (cols + 1)
    Buffer<Index> row_idx;   // (nnz)
    Buffer<Offset> perm;     // (nnz)
};

// The same with the values of the connections in that order, where they are what the permutation is wanted for.
template <class Offset>
struct TransposedValues {
    Buffer<Offset> col_ptr;  // (cols + 1)
    Buffer<Index> row_idx;   // (nnz)
    Buffer<float> values;    // (nnz)
};

template <class Offset>
struct Carried {
    Pattern<Offset> pattern;
    std::vector<Buffer<float>> arrays;
};

// Throws InvalidArgument (naming the row) unless row_ptr starts at 0 and never falls, and columns are in range,
// strictly ascending (sorted, no duplicates). `nnz` is the length of the caller's col_idx.
template <class Offset>
void validate(const PatternView<Offset>& p, std::uint64_t nnz);

// An index over `rows` rows (first or second) as it comes from outside: what a kernel that walks it relies on.
template <class Offset>
struct IndexArrays {
    Index rows;
    const Offset* ptr;  // (rows + 1)
    const char* ptr_name;
    const Index* places;  // (nnz), or nullptr
    Index limit;          // of the places
    const char* places_name;
    const Offset* perm;  // (nnz), or nullptr
};

// Throws InvalidArgument unless ptr starts at 0, never falls and ends at nnz, places are in [0, limit) and perm in
// [0, nnz): no kernel leaves its arrays then. Order and duplicates are validate's business. Work items: chunks.
template <class Offset>
void check_index_arrays(const IndexArrays<Offset>& index, std::uint64_t nnz, int threads);

// Throws InvalidArgument when a layer of this shape or count cannot be held by Index / Offset.
template <class Offset>
void check_holdable(std::int64_t rows, std::int64_t cols, std::uint64_t nnz);

template <class Offset>
Transposed<Offset> transpose(const PatternView<Offset>& p, int threads);
template <class Offset>
TransposedValues<Offset> transpose_values(const PatternView<Offset>& p, const float* values, int threads);

// out[k] = the value of the k-th connection by (target, source), without a permutation.
template <class Offset>
void order_by_target(const PatternView<Offset>& p, const float* values, float* out, int threads);

// out[j] = connections of column j: the in-degree of a target.  out: (cols).
template <class Offset>
void count_by_target(const PatternView<Offset>& p, std::int64_t* out);

// keep: the connections k with mask[k] != 0 (all if mask is nullptr), and their entries of every array.
template <class Offset>
Carried<Offset> keep(const PatternView<Offset>& p, const std::uint8_t* mask, const std::vector<const float*>& arrays,
                     int threads);

// keep, then unite with `grown` (sorted, distinct, none among the kept: else InvalidArgument) in one pass.
// fills[a] is nullptr (zeros) or the grown cells' values of array a in the order of `grown`; empty fills are all zeros.
template <class Offset>
Carried<Offset> rewire(const PatternView<Offset>& p, const std::uint8_t* mask, const Cell* grown, std::uint64_t n_grown,
                       const std::vector<const float*>& arrays, const std::vector<const float*>& fills, int threads);

// unite: the union of K patterns of one shape; each entry is the sum of those arrays[k][a] that have the connection,
// in double and in the order of k, over `divisor` (finite, above 0), rounded once. Denormals count as 0.
template <class Offset>
Carried<Offset> unite(const std::vector<PatternView<Offset>>& patterns,
                      const std::vector<std::vector<const float*>>& arrays, double divisor, int threads);

// carry: out[a][k] = the entry in arrays[a] of the same cell, 0 where `from` lacks it; what only `from` has is left out.
// RetainValidUpdates of WASAP-SGD (arXiv:2102.01732). Two patterns of one shape; no out[a] overlaps any other array.
template <class Offset>
void carry(const PatternView<Offset>& from, const PatternView<Offset>& onto, const std::vector<const float*>& arrays,
           const std::vector<float*>& out, int threads);

// select: rows and columns by ascending index lists (nullptr = all); the result has their counts as its shape.
template <class Offset>
Carried<Offset> select(const PatternView<Offset>& p, const Index* rows, Index n_rows, const Index* cols, Index n_cols,
                       const std::vector<const float*>& arrays, int threads);

// draw from the complement: `count` distinct cells uniformly from those free after keep(p, mask), sorted. Exact at any
// density: distinct ranks are drawn, then mapped to free cells. InvalidArgument if count > free cells.
template <class Offset>
Buffer<Cell> draw_missing(const PatternView<Offset>& p, const std::uint8_t* mask, std::uint64_t count,
                          const Stream& stream, int threads);

// The pattern of sorted, distinct cells; InvalidArgument if unsorted or out of range.
template <class Offset>
Pattern<Offset> from_cells(Index rows, Index cols, const Cell* cells, std::uint64_t n, int threads);

}  // namespace trulysparse
