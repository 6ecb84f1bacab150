// SPDX-License-Identifier: BSD-3-Clause
// Samples come in as rows; inside the network they are columns. One pass gathers, transposes and standardises a batch.
#pragma once

#include <cstdint>

#include "trulysparse/types.hpp"

namespace trulysparse {

// out[f, b] = (X[rows[b], f] - shift[f]) * factor[f];  out[f, batch..ld) = 0.
// X: T in {u8, i8, u16, i16, i32, i64, f32, f64}; strides in elements. shift, factor: (features) or both nullptr.
template <class T>
void load_dense(const T* X, std::int64_t row_stride, std::int64_t col_stride, const std::int64_t* rows, Index batch,
                Index features, const float* shift, const float* factor, float* out, Index ld, int threads);

// The same from CSR (indices of either width), scaled but never centred. data, indices: (nnz). What is read is checked on
// the way, as a pass of its own would cost as much: InvalidArgument if a row points outside; `out` is then half filled.
template <class T, class I>
void load_csr(const T* data, const I* indices, std::int64_t nnz, const I* indptr, const std::int64_t* rows, Index batch,
              Index features, const float* factor, float* out, Index ld, int threads);

// out[b, f] = a[f, b]: activations back to samples as rows, e.g. probabilities.  a: (features, ld), out: (batch, features).
void store_transposed(const float* a, Index features, Index ld, Index batch, float* out, int threads);

}  // namespace trulysparse
