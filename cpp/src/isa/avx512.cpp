// SPDX-License-Identifier: BSD-3-Clause
#define TRULYSPARSE_ISA_NAMESPACE avx512
#if defined(__GNUC__) && !defined(__clang__)
// GCC 12's own headers initialise "undefined" vectors from themselves.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include "vec_avx512.hpp"

#include "body.hpp"

namespace trulysparse {

const KernelTable& avx512_kernels() { return avx512::kTable; }

}  // namespace trulysparse
