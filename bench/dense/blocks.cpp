// SPDX-License-Identifier: BSD-3-Clause
// A full layer's passes as SciPy's sgemm on fixed blocks, called from trulysparse's pool. For run.py beside it.
// The values of a full layer are W (n_in, n_out) as it stands; sgemm sees every array transposed.
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "trulysparse/parallel.hpp"

namespace {

using Sgemm = void (*)(char*, char*, int*, int*, int*, float*, float*, int*, float*, int*, float*, float*, int*);
Sgemm sgemm = nullptr;

void gemm(char ta, char tb, int m, int n, int k, const float* a, int lda, const float* b, int ldb, bool add, float* c,
          int ldc) {
    float one = 1.0f, beta = add ? 1.0f : 0.0f;
    sgemm(&ta, &tb, &m, &n, &k, &one, const_cast<float*>(a), &lda, const_cast<float*>(b), &ldb, &beta, c, &ldc);
}

const float* at(const float* matrix, int row, int stride) { return matrix + static_cast<std::ptrdiff_t>(row) * stride; }
float* at(float* matrix, int row, int stride) { return matrix + static_cast<std::ptrdiff_t>(row) * stride; }

template <class Body>
void over_blocks(int n, int size, int threads, Body body) {
    trulysparse::parallel_for((n + size - 1) / size, threads, [&](std::int64_t block, int) {
        const int begin = static_cast<int>(block) * size;
        body(begin, std::min(size, n - begin));
    });
}

}  // namespace

extern "C" {

void set_sgemm(void* pointer) { sgemm = reinterpret_cast<Sgemm>(pointer); }

// y (n_out, ld) = W^T x, `rows` outputs an item, `depth` inputs a call.
void forward(const float* w, const float* x, float* y, int n_in, int n_out, int ld, int rows, int depth, int threads) {
    over_blocks(n_out, rows, threads, [&](int j, int n) {
        for (int k = 0; k < n_in; k += depth)
            gemm('N', 'T', ld, n, std::min(depth, n_in - k), at(x, k, ld), ld, at(w, k, n_out) + j, n_out, k > 0,
                 at(y, j, ld), ld);
    });
}

// dx (n_in, ld) = W dy
void input_delta(const float* w, const float* dy, float* dx, int n_in, int n_out, int ld, int rows, int depth,
                 int threads) {
    over_blocks(n_in, rows, threads, [&](int i, int n) {
        for (int k = 0; k < n_out; k += depth)
            gemm('N', 'N', ld, n, std::min(depth, n_out - k), at(dy, k, ld), ld, at(w, i, n_out) + k, n_out, k > 0,
                 at(dx, i, ld), ld);
    });
}

// dw (n_in, n_out) = x dy^T, `rows` inputs an item, `columns` outputs a call.
void gradient(const float* x, const float* dy, float* dw, int n_in, int n_out, int ld, int rows, int columns,
              int threads) {
    over_blocks(n_in, rows, threads, [&](int i, int n) {
        for (int j = 0; j < n_out; j += columns)
            gemm('T', 'N', std::min(columns, n_out - j), n, ld, at(dy, j, ld), ld, at(x, i, ld), ld, false,
                 at(dw, i, n_out) + j, n_out);
    });
}

// What a layer that is not full would need each step: its values into a dense copy, the dense gradient out of one.
void copy(const int* row_ptr, const int* col_idx, float* values, float* dense, int n_in, int n_out, int out,
          int threads) {
    over_blocks(n_in, 32, threads, [&](int begin, int n) {
        for (int i = begin; i < begin + n; ++i) {
            float* row = at(dense, i, n_out);
            for (int k = row_ptr[i]; k < row_ptr[i + 1]; ++k)
                (out ? values[k] : row[col_idx[k]]) = out ? row[col_idx[k]] : values[k];
        }
    });
}
}
